//! A path in the one form that routes and filters look at. The upstream gets what the client sent.

/// A path without a form of its own: it has no `/` in front, a broken escape, `%00`, a byte that no path has, or it leads
/// above the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPath;

impl std::fmt::Display for BadPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a path that has no normal form")
    }
}

impl std::error::Error for BadPath {}

/// Writes the one form of a path, without a query, into what is cleared first (RFC 3986 section 6.2.2):
///
/// - escapes of letters, digits, `-`, `.`, `_` and `~` are undone, all others are written in upper case; so `%2f` stays
///   apart from `/`, and what is written is a valid path again;
/// - `.` and `..` are resolved, `%2e` like the dot that it is;
/// - `//` becomes `/`, as in nginx: to whoever serves files they are the same, and a rule for `/admin` is one for `//admin`.
///   To RFC 3986 they are not, so `..` behind an empty segment would lead to two places, and is refused.
///
/// `*`, the target of OPTIONS for a whole server, stays.
///
/// # Errors
/// See [`BadPath`].
pub fn normalise(raw: &[u8], out: &mut Vec<u8>) -> Result<(), BadPath> {
    out.clear();
    if raw == b"*" {
        out.push(b'*');
        return Ok(());
    }
    let mut rest = raw.strip_prefix(b"/").ok_or(BadPath)?;
    out.push(b'/');
    // Where the segment begins, and below where `..` may not lead.
    let (mut start, mut floor) = (1, 1);
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match byte {
            b'%' => rest = push_escape(rest, out)?,
            b'/' => {
                end_segment(out, start, &mut floor, true)?;
                start = out.len();
            }
            b'?' | b'#' => return Err(BadPath),
            0x21..=0x7e => out.push(*byte),
            _ => return Err(BadPath),
        }
    }
    end_segment(out, start, &mut floor, false)
}

/// An escaped slash is a slash, as to nginx.
const ESCAPED: u8 = 1;
/// A backslash is one, escaped or not, as to much on Windows.
const BACKSLASH: u8 = 2;
/// What follows a `;` in a segment is no part of its name, as to servlets.
const PARAMETERS: u8 = 4;
/// An escape of what could stand there as it is stands for that, as to whoever takes a segment for a name: `%40` is `@`.
const PLAIN: u8 = 8;

/// The other forms that a path in its one form has to servers that read some bytes in ways of their own: every mix of an
/// escaped slash and a backslash as slashes, of segments without their parameters, and of escapes undone that needn't be.
/// Most paths have no other.
///
/// # Errors
/// In that reading the path is none.
pub fn other_readings(path: &[u8]) -> impl Iterator<Item = Result<Vec<u8>, BadPath>> {
    let mut present = 0;
    for (at, byte) in path.iter().enumerate() {
        present |= match byte {
            b'%' if path[at..].starts_with(b"%2F") => ESCAPED,
            b'%' if path[at..].starts_with(b"%5C") => BACKSLASH,
            b'%' if plain(&path[at + 1..]).is_some() => PLAIN,
            b'\\' => BACKSLASH,
            b';' => PARAMETERS,
            _ => 0,
        };
    }
    (1..=present).filter(move |how| how & !present == 0).map(|how| read_as(path, how))
}

/// A path in its one form without the escapes of what could stand there as it is, if there are any: who writes a rule for
/// both writes this.
pub fn without_needless_escapes(path: &[u8]) -> Option<Vec<u8>> {
    read_as(path, PLAIN).ok().filter(|plain| plain != path)
}

/// Reads a path in another way.
fn read_as(path: &[u8], how: u8) -> Result<Vec<u8>, BadPath> {
    let (mut raw, mut form) = (Vec::with_capacity(path.len()), Vec::new());
    let (mut rest, mut is_parameter) = (path, false);
    while let [byte, behind @ ..] = rest {
        let (read, behind) = match rest {
            [b'%', b'2', b'F', behind @ ..] if how & ESCAPED != 0 => (b'/', behind),
            [b'%', b'5', b'C', behind @ ..] | [b'\\', behind @ ..] if how & BACKSLASH != 0 => (b'/', behind),
            [b'%', behind @ ..] if how & PLAIN != 0 && !is_parameter => match plain(behind) {
                Some((byte, behind)) => {
                    // Written like this, a `;` is a part of the name to all.
                    raw.push(byte);
                    rest = behind;
                    continue;
                }
                None => (b'%', behind),
            },
            _ => (*byte, behind),
        };
        rest = behind;
        is_parameter = read != b'/' && (is_parameter || (read == b';' && how & PARAMETERS != 0));
        if !is_parameter {
            raw.push(read);
        }
    }
    normalise(&raw, &mut form).map(|()| form)
}

/// What the escape behind a `%`, in a path in its one form, stands for if that may stand in a path as it is and separates
/// nothing; and what is behind it.
fn plain(behind: &[u8]) -> Option<(u8, &[u8])> {
    let ([high, low], rest) = behind.split_first_chunk()?;
    let byte = hex(*high)? << 4 | hex(*low)?;
    (matches!(byte, 0x21..=0x7e) && !is_unreserved(byte) && !b"%/\\?#".contains(&byte))
        .then_some((byte, rest))
}

/// Writes what an escape stands for, or the escape itself. Says what is behind it.
fn push_escape<'a>(behind: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], BadPath> {
    let ([high, low], rest) = behind.split_first_chunk().ok_or(BadPath)?;
    let byte = hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low).ok_or(BadPath)?;
    match byte {
        0 => return Err(BadPath),
        _ if is_unreserved(byte) => out.push(byte),
        _ => out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
    }
    Ok(rest)
}

/// Ends the segment that begins at `start`, with a slash behind it or without.
fn end_segment(out: &mut Vec<u8>, start: usize, floor: &mut usize, has_slash: bool) -> Result<(), BadPath> {
    match &out[start..] {
        // The slash before it is the one that stays.
        b"" => *floor = start,
        b"." => out.truncate(start),
        b".." if start == *floor => return Err(BadPath),
        b".." => {
            out.truncate(start - 1);
            let slash = out.iter().rposition(|&byte| byte == b'/').ok_or(BadPath)?;
            out.truncate(slash + 1);
        }
        _ if has_slash => out.push(b'/'),
        _ => {}
    }
    Ok(())
}

/// The value of a hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Whether a byte means the same whether it is escaped or not (RFC 3986 section 2.3).
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> Option<String> {
        let mut out = b"left".to_vec();
        normalise(raw.as_bytes(), &mut out).ok()?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn paths_have_one_form() {
        for (raw, form) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/%61%2D%2e%5F%7e%41", "/a-._~A"),
            ("/a%2fb%5c%c3%a9%20", "/a%2Fb%5C%C3%A9%20"),
            ("/%2561", "/%2561"),
            ("/a/./b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/", "/"),
            ("/a/..", "/"),
            ("/a//b///", "/a/b/"),
            ("//a", "/a"),
            ("//", "/"),
            ("/./", "/"),
            ("/.a/..b/c../...", "/.a/..b/c../..."),
            ("/a;x=1/b{c}|\"<>", "/a;x=1/b{c}|\"<>"),
            ("/a/b/../../c", "/c"),
        ] {
            assert_eq!(normal(raw).as_deref(), Some(form), "{raw}");
        }
    }

    #[test]
    fn what_has_no_form_is_refused() {
        for raw in [
            "",
            "a",
            "/..",
            "/../a",
            "/a/../..",
            "/a/../../b",
            "/%2e%2e/",
            "/./..",
            "//..",
            "/a//../b",
            "/a//b/../..",
            "/a//./../b",
            "/%",
            "/%4",
            "/%4g",
            "/%+1",
            "/%00",
            "/a%00b",
            "/a b",
            "/\t",
            "/\u{e9}",
            "/a?b",
            "/a#b",
            "/\x7f",
            "**",
        ] {
            assert_eq!(normal(raw), None, "{raw}");
        }
    }

    #[test]
    fn a_path_may_have_other_readings() {
        let readings = |path: &str| -> Vec<Option<String>> {
            let text = |form: Vec<u8>| String::from_utf8(form).unwrap();
            other_readings(path.as_bytes()).map(|form| form.ok().map(text)).collect()
        };
        let some = |forms: &[&str]| -> Vec<_> { forms.iter().map(|form| Some((*form).to_owned())).collect() };
        assert_eq!(readings("/a/b%2E%20"), some(&[]));
        assert_eq!(readings("/%2Fadmin"), some(&["/admin"]));
        assert_eq!(readings("/a%2F..%2Fadmin"), some(&["/admin"]));
        assert_eq!(readings("/a/..\\admin"), some(&["/admin"]));
        assert_eq!(readings("/a%5Cb"), some(&["/a/b"]));
        assert_eq!(readings("/a;v=1/..;/b;c"), some(&["/b"]));
        assert_eq!(readings("/..%2Fa"), [None]);
        // In one of them parameters end with their segment, in the other they are all of the rest.
        assert_eq!(readings("/a;b%2Fc"), some(&["/a;b/c", "/a", "/a/c"]));
        assert_eq!(readings("/a\\b%2Fc;d").len(), 7);
        // To who takes them for names, these are the same.
        assert_eq!(readings("/%40a%2Bb%5Bc%5D/%3Bd%25%3F%23%20"), some(&["/@a+b[c]/;d%25%3F%23%20"]));
        assert_eq!(readings("/a;b%40/c"), some(&["/a/c", "/a;b@/c", "/a/c"]));
        assert_eq!(without_needless_escapes(b"/%40/%20").as_deref(), Some(&b"/@/%20"[..]));
        assert_eq!(without_needless_escapes(b"/@/%20%2F%25"), None);
    }

    proptest! {
        #[test]
        fn whoever_keeps_empty_segments_comes_to_the_same_place(raw in "/([ab./]|%2e){0,16}") {
            if let Some(form) = normal(&raw) {
                let mut kept: Vec<&str> = Vec::new();
                let plain = raw.replace("%2e", ".");
                let segments: Vec<_> = plain[1..].split('/').collect();
                for (index, segment) in segments.iter().enumerate() {
                    let is_last = index + 1 == segments.len();
                    match *segment {
                        "." | ".." => {
                            prop_assert!(*segment == "." || kept.pop().is_some());
                            if is_last {
                                kept.push("");
                            }
                        }
                        other => kept.push(other),
                    }
                }
                let mut place = format!("/{}", kept.join("/"));
                while place.contains("//") {
                    place = place.replace("//", "/");
                }
                prop_assert_eq!(form, place);
            }
        }

        #[test]
        fn the_form_of_a_form_is_itself(raw in "/([a./%2eE5c]|%2[eEfF]|%[0-9a-f]{2}){0,24}") {
            if let Some(form) = normal(&raw) {
                prop_assert_eq!(normal(&form), Some(form.clone()));
                prop_assert!(form.starts_with('/') && !form.contains("//"));
                prop_assert!(form.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }
    }
}
