//! Entity tags as clients send them (RFC 9110 section 8.8.3).

/// An entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    /// Whether it says only that two representations do the same, and not that they are the same bytes.
    pub(super) is_weak: bool,
    /// What it says, with the quotes around it.
    pub(super) quoted: &'a [u8],
}

impl<'a> Tag<'a> {
    /// The one at the front of a text, and what stands behind it.
    pub(super) fn read(text: &'a [u8]) -> Option<(Tag<'a>, &'a [u8])> {
        // Case matters here.
        let (is_weak, quoted) = text.strip_prefix(b"W/").map_or((false, text), |quoted| (true, quoted));
        let inside = quoted.strip_prefix(b"\"")?;
        let len = inside.iter().position(|byte| !is_inside(*byte)).filter(|&len| inside[len] == b'"')?;
        let (quoted, behind) = quoted.split_at(len + 2);
        Some((Tag { is_weak, quoted }, behind))
    }
}

/// The tags of one line, up to its end or up to what is none: nothing that stands behind that can be told apart for sure.
pub(super) fn tags(line: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let (tag, behind) = Tag::read(&rest[start..])?;
        rest = behind.trim_ascii_start();
        let is_over = rest.is_empty() || rest.starts_with(b",");
        is_over.then_some(tag)
    })
    .fuse()
}

/// Whether a byte may stand between the quotes.
fn is_inside(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_apart_and_what_is_none_ends_them() {
        for (line, expected) in [
            (r#""a""#, &[r#""a""#][..]),
            (r#" , "a,b" ,W/"c",, "" "#, &[r#""a,b""#, r#"W/"c""#, r#""""#]),
            (r#""a" "b""#, &[]),
            (r#""a", b, "c""#, &[r#""a""#]),
            (r#""a", "b"#, &[r#""a""#]),
            (r#""a b""#, &[]),
            (r#"w/"a""#, &[]),
            (r#"W/ "a""#, &[]),
            (r#""a"b"#, &[]),
            ("*", &[]),
            ("a", &[]),
            ("", &[]),
            (",,", &[]),
        ] {
            let found: Vec<String> = tags(line.as_bytes())
                .map(|tag| {
                    let quoted = String::from_utf8(tag.quoted.to_vec()).unwrap();
                    if tag.is_weak { format!("W/{quoted}") } else { quoted }
                })
                .collect();
            assert_eq!(found, expected, "{line}");
        }
    }
}
