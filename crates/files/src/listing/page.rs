//! A listing for people: one document without anything from elsewhere, which works without scripts, too.

use std::io::Write as _;

use super::{Form, escape, kind::Sign};
use crate::entries::{Kind, Meta};
use crate::moment::Moment;
use crate::site::Directory;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Nothing but this style and this script, known by their SHA-256, so that a name that got into the page as markup would
/// still do nothing (Content Security Policy, level 3). The test beside it says what the hashes are to be.
pub(super) const POLICY: &str = concat!(
    "default-src 'none'; ",
    "style-src 'sha256-WYiBD/iE4Nt1YPy/fCIJvu2TmXJBof0KUwHJSQSXH7M='; ",
    "script-src 'sha256-OIQeWdHGUlcFVNqXPygOuvjPsKnP+nSix46Taogb4t4='; ",
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
);

/// A folder, as the sign of the page itself.
const ICON: &str = "<link rel=icon href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'\
    %3E%3Cpath fill='%23d28b12' d='M2 6a2 2 0 0 1 2-2h5l2.500 3H20a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2H4a2 2 0 0 1-2-2z'/%3E%3C/svg%3E\">\n";

/// The links to archives.
const GET: &[u8] = b"<p class=get><a href=\"?archive=zip\" aria-label=\"Download all as zip\" title=\"Download all as zip\">zip</a> \
    <a href=\"?archive=tar\" aria-label=\"Download all as tar\" title=\"Download all as tar\">tar</a></p>\n";

/// So many rows a browser lays out together, or not while they are out of sight. The style and the script know it, too.
const GROUP: u64 = 200;

/// The page, and what has come into it.
#[derive(Debug, Default)]
pub(super) struct Page {
    folders: u64,
    files: u64,
    /// Of the files together, in bytes.
    len: u64,
}

impl Form for Page {
    fn head(&mut self, directory: &Directory, out: &mut Vec<u8>) {
        let path = &directory.path;
        out.extend_from_slice(
            b"<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
              <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
              <meta name=color-scheme content=\"light dark\">\n<title>/",
        );
        escape::text(path, out);
        out.extend_from_slice(b"</title>\n");
        out.extend_from_slice(ICON.as_bytes());
        out.extend_from_slice(b"<style>");
        out.extend_from_slice(STYLE.as_bytes());
        out.extend_from_slice(b"</style>\n<header>\n<nav aria-label=Path>\n<ol>\n");
        crumbs(path, out);
        out.extend_from_slice(
            b"</ol>\n</nav>\n<div class=bar>\n\
              <label class=find hidden><input type=search placeholder=\"Filter by name\" aria-label=\"Filter by name\" \
              aria-keyshortcuts=\"/\" autocomplete=off autocapitalize=off spellcheck=false enterkeyhint=go><kbd>/</kbd></label>\n\
              <p role=status></p>\n",
        );
        if directory.site.spec().archive {
            out.extend_from_slice(GET);
        }
        out.extend_from_slice(
            b"</div>\n</header>\n<main>\n<table>\n\
              <thead><tr><th scope=col>Name<th scope=col>Size<th scope=col>Modified <small>(UTC)</small>\n",
        );
        if !path.is_empty() {
            out.extend_from_slice(b"<tbody><tr class=u><td><a href=\"../\">Parent directory</a><td><td>\n");
        }
    }

    fn begin(&mut self, is_in_order: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(if is_in_order {
            b"<tbody class=r data-in-order>\n"
        } else {
            b"<tbody class=r>\n"
        });
    }

    fn row(&mut self, name: &[u8], meta: &Meta, out: &mut Vec<u8>) {
        let rows = self.folders + self.files;
        if rows > 0 && rows.is_multiple_of(GROUP) {
            out.extend_from_slice(b"<tbody class=r>\n");
        }
        let sign = match meta.kind {
            Kind::Directory => Sign::Folder,
            Kind::File => Sign::of_file(name),
        };
        out.extend_from_slice(b"<tr class=");
        out.extend_from_slice(sign.class().as_bytes());
        out.extend_from_slice(b"><td><a href=\"");
        escape::link(name, out);
        out.extend_from_slice(if meta.kind == Kind::Directory { b"/\"><bdi>" } else { b"\"><bdi>" });
        escape::text(name, out);
        out.extend_from_slice(b"</bdi></a>");
        match meta.kind {
            Kind::Directory => {
                self.folders += 1;
                out.extend_from_slice(b"<td>");
            }
            Kind::File => {
                self.files += 1;
                self.len = self.len.saturating_add(meta.len);
                out.extend_from_slice(b"<td title=\"");
                count(meta.len, "byte", out);
                out.extend_from_slice(b"\">");
                size(meta.len, out);
            }
        }
        let time = Moment::at(meta.modified).text();
        out.extend_from_slice(b"<td><time datetime=");
        out.extend_from_slice(&time);
        out.push(b'>');
        out.extend_from_slice(&time[..10]);
        out.push(b' ');
        out.extend_from_slice(&time[11..16]);
        out.extend_from_slice(b"</time>\n");
    }

    fn tail(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"</table>\n");
        out.extend_from_slice(match self.folders + self.files {
            0 => b"<p class=none>This directory is empty.</p>\n",
            _ => b"<p class=none hidden>No name has that in it.</p>\n",
        });
        out.extend_from_slice(b"</main>\n<footer><p>");
        count(self.folders, "folder", out);
        out.extend_from_slice(b", ");
        count(self.files, "file", out);
        out.extend_from_slice(b", ");
        size(self.len, out);
        out.extend_from_slice(b"</p></footer>\n<script>");
        out.extend_from_slice(SCRIPT.as_bytes());
        out.extend_from_slice(b"</script>\n");
    }
}

/// The way from the root to the directory, each step a link. They are relative ones, for the root need not be at `/`.
fn crumbs(path: &[u8], out: &mut Vec<u8>) {
    let segments: Vec<&[u8]> =
        path.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty()).collect();
    let Some((last, before)) = segments.split_last() else {
        out.extend_from_slice(b"<li aria-current=page><h1 class=home>Files</h1>\n");
        return;
    };
    let mut link = |up: usize, class: &str, name: &[u8]| {
        let _ = write!(out, "<li><a href=\"{}\"{class}>", "../".repeat(up));
        out.extend_from_slice(b"<bdi>");
        escape::text(name, out);
        out.extend_from_slice(b"</bdi></a>\n");
    };
    link(segments.len(), " class=home", b"Files");
    for (index, name) in before.iter().enumerate() {
        link(before.len() - index, "", name);
    }
    out.extend_from_slice(b"<li aria-current=page><h1><bdi>");
    escape::text(last, out);
    out.extend_from_slice(b"</bdi></h1>\n");
}

/// Writes a number with its unit: `1,234 files`.
fn count(number: u64, unit: &str, out: &mut Vec<u8>) {
    let digits = number.to_string();
    for (index, digit) in digits.bytes().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(b',');
        }
        out.push(digit);
    }
    let _ = write!(out, " {unit}{}", if number == 1 { "" } else { "s" });
}

/// Writes a size as people read it: two digits or up to four, in powers of 1024. No line ends between it and its unit.
fn size(len: u64, out: &mut Vec<u8>) {
    if len < 1024 {
        let _ = write!(out, "{len}\u{a0}B");
        return;
    }
    let mut value = len as f64;
    let mut unit = "";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        (value, unit) = (value / 1024.0, next);
        // What would be written as 1024 is one of the next.
        if value < 1023.5 {
            break;
        }
    }
    let _ = match value {
        value if value < 9.95 => write!(out, "{value:.1}\u{a0}{unit}"),
        value => write!(out, "{value:.0}\u{a0}{unit}"),
    };
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn made(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_policy_knows_the_style_and_the_script() {
        let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
        let expected = format!("style-src 'sha256-{}'; script-src 'sha256-{}';", hash(STYLE), hash(SCRIPT));
        assert!(POLICY.contains(&expected), "the policy has to say: {expected}");
    }

    #[test]
    fn nothing_in_the_page_comes_from_elsewhere() {
        for text in [STYLE, SCRIPT, ICON] {
            // The name of a namespace is no address to load from.
            let text = text.replace("xmlns='http://www.w3.org/2000/svg'", "");
            assert!(!text.contains("//www") && !text.contains("http:") && !text.contains("https:"));
            assert!(!text.contains("</"), "it would end early");
        }
    }

    #[test]
    fn sizes_are_short() {
        for (len, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10_188, "9.9 KiB"),
            (10_189, "10 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_064, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(made(|out| size(len, out)).replace('\u{a0}', " "), text);
        }
    }

    #[test]
    fn numbers_are_in_groups() {
        for (number, text) in
            [(0, "0 files"), (1, "1 file"), (999, "999 files"), (1_234_567, "1,234,567 files")]
        {
            assert_eq!(made(|out| count(number, "file", out)), text);
        }
    }

    #[test]
    fn crumbs_lead_up() {
        assert_eq!(made(|out| crumbs(b"", out)), "<li aria-current=page><h1 class=home>Files</h1>\n");
        let crumbs = made(|out| crumbs(b"a/<b>/c", out));
        assert_eq!(
            crumbs,
            "<li><a href=\"../../../\" class=home><bdi>Files</bdi></a>\n\
             <li><a href=\"../../\"><bdi>a</bdi></a>\n\
             <li><a href=\"../\"><bdi>&lt;b&gt;</bdi></a>\n\
             <li aria-current=page><h1><bdi>c</bdi></h1>\n"
        );
    }
}
