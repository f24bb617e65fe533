//! One value out of a cookie or a query.

use super::path::{hex, is_unreserved};
use super::{Fields, Known};

/// The value of a cookie, of the first with that name (RFC 6265 section 5.4). Case matters; quotes around it stay.
pub fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    fields.all(Known::Cookie).find_map(|line| value_in(line, b';', name))
}

/// The value of a parameter of a query, of the first with that name, as it stands there: escapes are not undone. A parameter
/// without `=` has an empty one.
pub fn query_param<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    value_in(query, b'&', name)
}

fn value_in<'a>(text: &'a [u8], between: u8, name: &[u8]) -> Option<&'a [u8]> {
    text.split(|&byte| byte == between).find_map(|pair| {
        let pair = pair.trim_ascii();
        match pair.strip_prefix(name)? {
            [] if !name.is_empty() => Some(&b""[..]),
            [b'=', value @ ..] => Some(value),
            _ => None,
        }
    })
}

/// Writes the one form of a query behind what is there: escapes of letters, digits, `-`, `.`, `_` and `~` are undone, others
/// are written in upper case. What only looks like an escape stays, for in queries it is common.
pub fn normalise_query(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        let escape = behind.split_first_chunk().filter(|_| *byte == b'%');
        let Some((byte, high, low, behind)) =
            escape.and_then(|([high, low], behind)| Some((hex(*high)? << 4 | hex(*low)?, high, low, behind)))
        else {
            out.push(*byte);
            continue;
        };
        rest = behind;
        if is_unreserved(byte) {
            out.push(byte);
        } else {
            out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut fields = Fields::new();
        fields.push(b"Cookie", b"a=1; ab=2;c = 3; q=\"x\"; e=");
        fields.push(b"cookie", b"d=4; a=5");
        for (name, value) in [("a", "1"), ("ab", "2"), ("d", "4"), ("q", "\"x\""), ("e", "")] {
            assert_eq!(cookie(&fields, name.as_bytes()), Some(value.as_bytes()), "{name}");
        }
        for name in ["A", "b", "", "1", "c"] {
            assert_eq!(cookie(&fields, name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_parameter_is_found_as_it_stands() {
        let query = b"a=1&b&c=x=y&a=2&=z&d=%20";
        for (name, value) in [("a", "1"), ("b", ""), ("c", "x=y"), ("d", "%20"), ("", "z")] {
            assert_eq!(query_param(query, name.as_bytes()), Some(value.as_bytes()), "{name}");
        }
        assert_eq!(query_param(query, b"x"), None);
        assert_eq!(query_param(b"", b"x"), None);
    }

    #[test]
    fn queries_have_one_form() {
        for (raw, form) in [
            ("", ""),
            ("a=%61&b=%2f%c3", "a=a&b=%2F%C3"),
            ("100%&%4&%zz&%", "100%&%4&%zz&%"),
            ("a+b=%2B", "a+b=%2B"),
        ] {
            let mut out = Vec::new();
            normalise_query(raw.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), form);
        }
    }
}
