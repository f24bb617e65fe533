//! Names in HTML, in links, in JSON and in a head. Whatever bytes a name has, it stays a name.

use std::io::Write as _;

/// Writes text for people: in HTML, between tags or in an attribute with quotes around it.
///
/// A name with a line feed, or with a character that turns the direction of what follows, could pass for another one, so
/// these are shown as signs; bytes that are not UTF-8 are shown as U+FFFD.
pub(super) fn text(name: &[u8], out: &mut Vec<u8>) {
    for chunk in name.utf8_chunks() {
        let valid = chunk.valid();
        match valid.bytes().all(is_plain) {
            true => out.extend_from_slice(valid.as_bytes()),
            false => valid.chars().for_each(|c| character(c, out)),
        }
        if !chunk.invalid().is_empty() {
            push(char::REPLACEMENT_CHARACTER, out);
        }
    }
}

fn is_plain(byte: u8) -> bool {
    // All of ASCII that shows, but for what means something in HTML.
    matches!(byte, b' '..=b'~') && !matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\'')
}

fn character(c: char, out: &mut Vec<u8>) {
    match c {
        '&' => out.extend_from_slice(b"&amp;"),
        '<' => out.extend_from_slice(b"&lt;"),
        '>' => out.extend_from_slice(b"&gt;"),
        '"' => out.extend_from_slice(b"&quot;"),
        '\'' => out.extend_from_slice(b"&#39;"),
        // Control characters have pictures, in their order.
        '\0'..='\x1f' => {
            push(char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER), out)
        }
        '\x7f' => push('\u{2421}', out),
        '\u{80}'..='\u{9f}' => push(char::REPLACEMENT_CHARACTER, out),
        // Line and paragraph separators, and what embeds, overrides or isolates directions.
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => push(char::REPLACEMENT_CHARACTER, out),
        c => push(c, out),
    }
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Writes a name as one segment of a link, byte by byte (RFC 3986 section 2.1). Nothing in it needs to be escaped again in
/// HTML, JSON or a head, and as colons are escaped, too, no name reads as a scheme.
pub(crate) fn link(name: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            _ => out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

/// Writes a name as a string of JSON, with quotes (RFC 8259 section 7); bytes that are not UTF-8 become U+FFFD. It can be put
/// into a page as it is, too: it has no `<` and no line separators in it.
pub(super) fn json(name: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for c in name.utf8_chunks().flat_map(|chunk| {
        let broken = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(broken)
    }) {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\0'..='\x1f' | '<' | '>' | '&' | '\'' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => push(c, out),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(write: fn(&[u8], &mut Vec<u8>), name: &[u8]) -> String {
        let mut out = Vec::new();
        write(name, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_that_would_be_more_are_names() {
        for (name, shown) in [
            (&b"\"><script>alert(1)</script>"[..], "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"),
            (b"it's <b>&amp;", "it&#39;s &lt;b&gt;&amp;amp;"),
            ("x\u{202e}gpj.exe".as_bytes(), "x\u{fffd}gpj.exe"),
            (b"a\nb\x7f", "a\u{240a}b\u{2421}"),
            (b"caf\xe9", "caf\u{fffd}"),
            ("\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{1f600}".as_bytes(), "\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{1f600}"),
        ] {
            assert_eq!(made(text, name), shown);
        }
        assert_eq!(made(link, b"javascript:alert(1)"), "javascript%3Aalert%281%29");
        assert_eq!(made(link, "a b?#%\u{e9}\n".as_bytes()), "a%20b%3F%23%25%C3%A9%0A");
        assert_eq!(
            made(json, "</script>\u{2028}\"\\\t".as_bytes()),
            r#""\u003c/script\u003e\u2028\"\\\u0009""#
        );
    }

    proptest! {
        #[test]
        fn no_name_means_anything_in_html(name in prop::collection::vec(any::<u8>(), 0..80)) {
            let shown = made(text, &name);
            let rest = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].iter().fold(shown, |text, is| text.replace(is, ""));
            prop_assert!(!rest.contains(['&', '<', '>', '"', '\'']));
            prop_assert!(!rest.contains(char::is_control));
        }

        #[test]
        fn a_link_leads_to_the_very_bytes(name in prop::collection::vec(any::<u8>(), 0..80)) {
            let link = made(link, &name);
            prop_assert!(link.bytes().all(|byte| byte == b'%' || b"-._~".contains(&byte) || byte.is_ascii_alphanumeric()));
            let mut parts = link.split('%');
            let mut bytes = parts.next().unwrap().as_bytes().to_vec();
            for part in parts {
                bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            prop_assert_eq!(bytes, name);
        }

        #[test]
        fn json_is_read_back(name in prop::collection::vec(any::<u8>(), 0..80)) {
            let json = made(json, &name);
            let means_more = json.contains(['<', '>', '&', '\'', '\u{2028}', '\u{2029}']);
            prop_assert!(!means_more);
            let read: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&name));
        }
    }
}
