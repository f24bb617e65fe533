//! The type of a file by the end of its name.

use std::collections::BTreeMap;

/// Where nothing is known of it: browsers keep such a file, and show it as nothing.
const UNKNOWN: &str = "application/octet-stream";

/// What `mime_guess` does not know, or has by a name that is out of use. By extension, in order.
const OURS: &[(&str, &str)] = &[
    ("adoc", "text/plain"),
    ("cjs", "text/javascript"),
    ("cur", "image/x-icon"),
    ("deb", "application/vnd.debian.binary-package"),
    ("diff", "text/plain"),
    ("go", "text/plain"),
    ("graphql", "application/graphql"),
    ("ipynb", "application/x-ipynb+json"),
    ("java", "text/plain"),
    ("jsonl", "application/x-ndjson"),
    ("kt", "text/plain"),
    ("lock", "text/plain"),
    ("m2ts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("map", "application/json"),
    ("mjs", "text/javascript"),
    ("mts", "video/mp2t"),
    ("ndjson", "application/x-ndjson"),
    ("otf", "font/otf"),
    ("patch", "text/plain"),
    ("rb", "text/plain"),
    ("rpm", "application/x-rpm"),
    ("rst", "text/plain"),
    ("svelte", "text/plain"),
    ("tgz", "application/gzip"),
    ("ts", "video/mp2t"),
    ("tsx", "text/plain"),
    ("vue", "text/plain"),
    ("wgsl", "text/wgsl"),
    ("woff", "font/woff"),
    ("zst", "application/zstd"),
];

/// The type of a file with this name. The longest of `overrides`, which are in lower case, that the name ends with says it
/// as it is; then its extension. Text is UTF-8 where the usual types apply.
pub(crate) fn of(name: &[u8], overrides: &BTreeMap<Box<str>, Box<str>>) -> Box<str> {
    let ends = |end: &str| {
        let start = name.len().checked_sub(end.len());
        start.is_some_and(|start| name[start..].eq_ignore_ascii_case(end.as_bytes()))
    };
    let overriding = overrides.iter().filter(|(end, _)| ends(end)).max_by_key(|(end, _)| end.len());
    if let Some((_, own)) = overriding {
        return own.clone();
    }
    match by_extension(name) {
        Some(usual) if has_charset(usual) => format!("{usual}; charset=utf-8").into(),
        usual => usual.unwrap_or(UNKNOWN).into(),
    }
}

fn by_extension(name: &[u8]) -> Option<&'static str> {
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    let extension = std::str::from_utf8(&name[dot + 1..]).ok()?.to_ascii_lowercase();
    match OURS.binary_search_by_key(&extension.as_str(), |(own, _)| own) {
        Ok(index) => Some(OURS[index].1),
        Err(_) => mime_guess::from_ext(&extension).first_raw(),
    }
}

/// Whether a type is text that does not say itself how its characters are encoded. XML does, and a parameter would overrule it
/// (RFC 7303 section 3); JSON is UTF-8, and has no such parameter (RFC 8259 section 11).
fn has_charset(kind: &str) -> bool {
    (kind.starts_with("text/") && kind != "text/xml") || kind == "application/javascript"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(name: &str) -> String {
        of(name.as_bytes(), &BTreeMap::new()).into()
    }

    #[test]
    fn types_go_by_the_extension() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a.HTM", "text/html; charset=utf-8"),
            ("style.css", "text/css; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.cjs", "text/javascript; charset=utf-8"),
            ("app.js.map", "application/json"),
            ("notes.txt", "text/plain; charset=utf-8"),
            ("notes.md", "text/markdown; charset=utf-8"),
            ("data.csv", "text/csv; charset=utf-8"),
            ("subtitles.vtt", "text/vtt; charset=utf-8"),
            ("data.json", "application/json"),
            ("site.webmanifest", "application/manifest+json"),
            ("feed.xml", "text/xml"),
            ("feed.rss", "application/rss+xml"),
            ("logo.svg", "image/svg+xml"),
            ("module.wasm", "application/wasm"),
            ("a.png", "image/png"),
            ("a.jpg", "image/jpeg"),
            ("a.gif", "image/gif"),
            ("a.webp", "image/webp"),
            ("a.avif", "image/avif"),
            ("a.jxl", "image/jxl"),
            ("favicon.ico", "image/x-icon"),
            ("font.woff", "font/woff"),
            ("font.woff2", "font/woff2"),
            ("font.ttf", "font/ttf"),
            ("font.otf", "font/otf"),
            ("a.mp3", "audio/mpeg"),
            ("a.mp4", "video/mp4"),
            ("a.webm", "video/webm"),
            ("a.ts", "video/mp2t"),
            ("a.m3u8", "application/vnd.apple.mpegurl"),
            ("a.pdf", "application/pdf"),
            ("a.zip", "application/zip"),
            ("a.tar.gz", "application/gzip"),
            ("a.tar.zst", "application/zstd"),
            ("a.tgz", "application/gzip"),
            ("a.bin", "application/octet-stream"),
            ("a.br", "application/octet-stream"),
            ("README", "application/octet-stream"),
            ("a.", "application/octet-stream"),
            ("", "application/octet-stream"),
            ("a.no-such-thing", "application/octet-stream"),
        ] {
            assert_eq!(usual(name), expected, "{name}");
        }
        assert_eq!(&*of(b"a.ht\xffml", &BTreeMap::new()), UNKNOWN);
    }

    #[test]
    fn our_types_are_in_order_and_differ_from_the_usual_ones() {
        assert!(OURS.is_sorted_by(|one, next| one.0 < next.0));
        for (extension, kind) in OURS {
            assert_ne!(mime_guess::from_ext(extension).first_raw(), Some(*kind), "{extension}");
        }
    }

    #[test]
    fn the_longest_override_says_it_as_it_is() {
        let overrides = [(".foo", "text/x-foo"), (".tar.foo", "a/b"), (".html", "text/html"), ("rc", "c/d")]
            .map(|(end, kind)| (end.into(), kind.into()));
        let overrides = BTreeMap::from(overrides);
        for (name, expected) in [
            ("a.foo", "text/x-foo"),
            ("a.FOO", "text/x-foo"),
            ("a.tar.foo", "a/b"),
            ("index.html", "text/html"),
            ("bashrc", "c/d"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("foo", UNKNOWN),
        ] {
            assert_eq!(&*of(name.as_bytes(), &overrides), expected, "{name}");
        }
    }
}
