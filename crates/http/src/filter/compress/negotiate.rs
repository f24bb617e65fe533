//! Which coding a client takes best.

use wmproxy_wire::head::{Fields, Known};

use crate::options::Encoding;

/// More members than any client has reason to send; the rest is not looked at.
const MOST: usize = 32;

/// The weight that nothing says otherwise of, in thousandths.
const FULL: u16 = 1000;

/// The coding that a client gives the most weight, of those that have the same the first of ours. None where it takes none of
/// them, or gives it less weight than nothing at all (`identity`).
pub(super) fn best(ours: &[Encoding], fields: &Fields) -> Option<Encoding> {
    let (mut named, mut identity, mut any) = ([None; 3], None, None);
    for member in fields.list(Known::AcceptEncoding).take(MOST) {
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(quality).unwrap_or(FULL);
        if name == b"*" {
            any.get_or_insert(weight);
        } else if name.eq_ignore_ascii_case(b"identity") {
            identity.get_or_insert(weight);
        } else if let Some(coding) = coding(name) {
            named[coding as usize].get_or_insert(weight);
        }
    }
    let of = |coding: &Encoding| named[*coding as usize].or(any).unwrap_or(0);
    let weight = ours.iter().map(of).max().filter(|weight| *weight > 0)?;
    if identity.is_some_and(|identity| identity > weight) {
        return None;
    }
    ours.iter().copied().find(|coding| of(coding) == weight)
}

fn coding(name: &[u8]) -> Option<Encoding> {
    let is = |token: &[u8]| name.eq_ignore_ascii_case(token);
    match () {
        () if is(b"zstd") => Some(Encoding::Zstd),
        () if is(b"br") => Some(Encoding::Br),
        // RFC 9110 section 8.4.1.3 has both for the same.
        () if is(b"gzip") || is(b"x-gzip") => Some(Encoding::Gzip),
        () => None,
    }
}

/// A weight in thousandths, of `q=0.5` (RFC 9110 section 12.4.2). One that is none counts as zero: in doubt nothing is
/// compressed.
fn quality(parameter: &[u8]) -> Option<u16> {
    let value = match parameter {
        [b'q' | b'Q', rest @ ..] => rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start(),
        _ => return None,
    };
    let (whole, digits) = match value {
        [b'0'] | [b'0', b'.'] => return Some(0),
        [b'1'] => return Some(FULL),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] => (whole - b'0', digits),
        _ => return Some(0),
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return Some(0);
    }
    let thousandths =
        digits.iter().zip([100, 10, 1]).map(|(digit, place)| u16::from(digit - b'0') * place).sum();
    match (whole, thousandths) {
        (0, thousandths) => Some(thousandths),
        (_, 0) => Some(FULL),
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(lines: &[&str]) -> Option<Encoding> {
        let mut fields = Fields::new();
        lines.iter().for_each(|line| fields.push_known(Known::AcceptEncoding, line.as_bytes()));
        best(&[Encoding::Zstd, Encoding::Br, Encoding::Gzip], &fields)
    }

    #[test]
    fn the_clients_weights_go_first_and_then_our_order() {
        use Encoding::{Br, Gzip, Zstd};
        for (line, expected) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Br)),
            ("gzip;q=1.0, zstd;q=0.9", Some(Gzip)),
            ("GZIP ; Q=0.5 , br;q=0.500", Some(Br)),
            ("x-gzip", Some(Gzip)),
            ("*", Some(Zstd)),
            ("*;q=0.1, zstd;q=0, gzip;q=0.1", Some(Br)),
            ("zstd;q=0, *", Some(Br)),
            ("identity, gzip;q=0.9", None),
            ("identity;q=0.9, gzip", Some(Gzip)),
            ("identity;q=0, gzip;q=0.001", Some(Gzip)),
            ("gzip;q=0", None),
            ("*;q=0", None),
            ("deflate", None),
            ("", None),
            ("gzip;q=2, br;q=1.001, zstd;q=x", None),
            ("gzip;q=0.0001", None),
            ("gzip;level=9;q=0.5", Some(Gzip)),
            ("gzip;q=0, gzip", None),
        ] {
            assert_eq!(choose(&[line]), expected, "{line}");
        }
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&["gzip;q=0.5", "br;q=0.6"]), Some(Br));
    }

    #[test]
    fn a_long_list_has_an_end() {
        let line = "x, ".repeat(MOST) + "gzip";
        assert_eq!(choose(&[&line]), None);
    }
}
