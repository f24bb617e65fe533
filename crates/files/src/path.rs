//! The path of a request as the name of a file.

/// A path below the root, decoded: segments that are neither empty nor `.` or `..`, without NUL, slash and backslash in them.
///
/// It is decoded once: `%252e` is the name `%2e`. What the bytes mean is the file system's business, so that an overlong form
/// of UTF-8 is a name like any other, and names that differ in case are two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PathName {
    /// The segments with slashes between them; empty for the root itself.
    bytes: Vec<u8>,
    /// Whether it ended with a slash: it is meant for a directory.
    is_directory: bool,
    /// Whether a directory may be shown by it all the same.
    shows_directory: bool,
}

/// A path that names no file: what is in it is never part of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a path with NUL, a backslash, an encoded slash, a dot segment or a broken escape in it")]
pub struct BadPath;

impl PathName {
    /// Decodes the path of a request, which begins with a slash and has no query, once, into what is used again. Several
    /// slashes in a row are one. After an error it is the root's name, and not to be used.
    ///
    /// # Errors
    /// See [`BadPath`]: a 400.
    pub fn read(&mut self, raw: &[u8]) -> Result<(), BadPath> {
        self.bytes.clear();
        self.is_directory = raw.ends_with(b"/");
        self.shows_directory = false;
        let decoded = match raw {
            [b'/', segments @ ..] => decode(segments, &mut self.bytes),
            _ => Err(BadPath),
        };
        if decoded.is_err() {
            self.bytes.clear();
        }
        decoded
    }

    /// The segments with slashes between them, without any in front or behind; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it ended with a slash, or is the root.
    pub fn is_directory(&self) -> bool {
        self.is_directory || self.bytes.is_empty()
    }

    /// Says of a name that was made of the path which a client sees that this one has a slash at its end. So the links of a
    /// directory's page lead where they should, and a redirect to the path with a slash would lead to itself.
    pub fn show_directory(&mut self) {
        self.shows_directory = true;
    }

    /// Whether a directory of this name is shown, and not redirected to.
    pub fn shows_directory(&self) -> bool {
        self.shows_directory || self.is_directory()
    }

    /// Whether it goes through a name that begins with a dot. `.well-known` in front is none of those: it is a place that
    /// standards give to everybody (RFC 8615).
    pub(crate) fn is_hidden(&self) -> bool {
        let mut segments = self.bytes.split(|&byte| byte == b'/');
        let first = segments.next().unwrap_or_default();
        (is_hidden(first) && first != b".well-known") || segments.any(is_hidden)
    }

    /// The segment at the end; empty for the root.
    pub(crate) fn last(&self) -> &[u8] {
        self.bytes.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }
}

/// Whether a name begins with a dot.
pub(crate) fn is_hidden(name: &[u8]) -> bool {
    name.first() == Some(&b'.')
}

fn decode(segments: &[u8], into: &mut Vec<u8>) -> Result<(), BadPath> {
    for segment in segments.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty()) {
        if !into.is_empty() {
            into.push(b'/');
        }
        let start = into.len();
        decode_segment(segment, into)?;
        if matches!(&into[start..], b"." | b"..") {
            return Err(BadPath);
        }
    }
    Ok(())
}

fn decode_segment(mut raw: &[u8], into: &mut Vec<u8>) -> Result<(), BadPath> {
    while let [first, rest @ ..] = raw {
        let byte = match (first, rest) {
            (b'%', [high, low, rest @ ..]) => {
                raw = rest;
                (digit(*high)? << 4) | digit(*low)?
            }
            // What stands in a path as it is: what the heads of requests are read with lets no more through either, but paths
            // come from rewrites too.
            (b'!'..=b'~', rest) if !matches!(first, b'%' | b'?' | b'#') => {
                raw = rest;
                *first
            }
            _ => return Err(BadPath),
        };
        if matches!(byte, 0 | b'/' | b'\\') {
            return Err(BadPath);
        }
        into.push(byte);
    }
    Ok(())
}

fn digit(byte: u8) -> Result<u8, BadPath> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(BadPath),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(raw: &[u8]) -> Result<(Vec<u8>, bool), BadPath> {
        let mut name = PathName { bytes: b"left over".to_vec(), is_directory: true, shows_directory: true };
        let read = name.read(raw);
        assert_eq!(name.shows_directory(), name.is_directory());
        read.map(|()| (name.as_bytes().to_vec(), name.is_directory()))
    }

    #[test]
    fn what_names_a_file_is_decoded_once() {
        for (raw, bytes, is_directory) in [
            ("/", "", true),
            ("//", "", true),
            ("/a", "a", false),
            ("/a/", "a", true),
            ("//a///b//", "a/b", true),
            ("//etc/passwd", "etc/passwd", false),
            ("/a%20b/%e4%B8%ad", "a b/中", false),
            ("/%252e%252e/%252f", "%2e%2e/%2f", false),
            ("/...", "...", false),
            ("/..a/b../.c", "..a/b../.c", false),
            ("/a;b=c,d!$&'()*+:@~|[]{}^\"<>", "a;b=c,d!$&'()*+:@~|[]{}^\"<>", false),
            ("/%3f%23%25", "?#%", false),
            ("/%0d%0aset-cookie:%09x%7f", "\r\nset-cookie:\tx\x7f", false),
        ] {
            assert_eq!(read(raw.as_bytes()), Ok((bytes.as_bytes().to_vec(), is_directory)), "{raw}");
        }
        // An overlong slash, and dots, in what is not UTF-8: bytes of a name.
        assert_eq!(read(b"/%c0%af%c0%ae%ff"), Ok((b"\xc0\xaf\xc0\xae\xff".to_vec(), false)));
    }

    #[test]
    fn what_names_none_is_refused() {
        let plain = "a a/b ? * /a%00 /%00 /a\\b /a%5cb /a%5Cb /..\\.. /a%2fb /%2F /a% /a%2 /a%2/b /a%zz /a%%41 /%u002e \
                     /. /.. /./a /a/. /a/./ /a/.. /a/../b /../etc/passwd /a/../../etc/passwd /%2e /%2E%2e/a /.%2e/a \
                     /%2e./a /a/%2e%2e //..//a /..%2f..%2fetc /..%5c.. /a?b /a#b /中";
        for raw in plain.split(' ').chain(["", "/a b", "/a\0b", "/a\tb", "/a\r\nb", "/a\x7f"]) {
            assert_eq!(read(raw.as_bytes()), Err(BadPath), "{raw:?}");
        }
    }

    #[test]
    fn what_was_refused_names_nothing() {
        let mut name = PathName::default();
        assert_eq!(name.read(b"/secret/%2e%2e"), Err(BadPath));
        assert_eq!(name.as_bytes(), b"");
    }

    #[test]
    fn names_with_a_dot_in_front_are_hidden_but_the_well_known() {
        for (raw, expected) in [
            ("/", false),
            ("/a.b/c.d", false),
            ("/.git/config", true),
            ("/a/.env", true),
            ("/a/%2eenv", true),
            ("/.well-known/security.txt", false),
            ("/.well-known", false),
            ("/.well-known/.x", true),
            ("/a/.well-known/x", true),
            ("/.well-known2/x", true),
        ] {
            let mut name = PathName::default();
            name.read(raw.as_bytes()).unwrap();
            assert_eq!(name.is_hidden(), expected, "{raw}");
        }
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::sample::select(vec![
                "/", ".", "..", "%2e", "%2E", "%2f", "%5c", "%00", "%", "%25", "\\", "a", "%61"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            any::<u8>().prop_map(|byte| vec![byte]),
            any::<u8>().prop_map(|byte| format!("%{byte:02x}").into_bytes()),
        ]
    }

    proptest! {
        #[test]
        fn no_segment_ever_leads_elsewhere(pieces in prop::collection::vec(piece(), 0..20)) {
            let raw = [b"/".to_vec(), pieces.concat()].concat();
            let mut name = PathName::default();
            if name.read(&raw).is_ok() && !name.as_bytes().is_empty() {
                for segment in name.as_bytes().split(|&byte| byte == b'/') {
                    prop_assert!(!matches!(segment, b"" | b"." | b".."));
                    prop_assert!(!segment.iter().any(|byte| matches!(byte, 0 | b'\\')));
                }
            }
        }

        #[test]
        fn every_name_can_be_asked_for(name in prop::collection::vec(any::<u8>(), 1..40)) {
            prop_assume!(!matches!(&name[..], b"." | b".."));
            prop_assume!(!name.iter().any(|byte| matches!(byte, 0 | b'/' | b'\\')));
            let raw = name.iter().map(|byte| format!("%{byte:02X}")).collect::<String>();
            prop_assert_eq!(read(format!("/{raw}").as_bytes()), Ok((name, false)));
        }
    }
}
