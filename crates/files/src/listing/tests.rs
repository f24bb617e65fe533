use std::os::fd::OwnedFd;

use serde_json::Value;
use wmproxy_testkit::TempDir;

use super::*;
use crate::options::{Cors, FilesSpec};
use crate::site::Site;

/// The plainest options of a site.
pub(crate) fn spec(dir: &TempDir) -> FilesSpec {
    FilesSpec {
        root: dir.path().to_owned(),
        index: Vec::new(),
        browse: true,
        archive: true,
        spa: None,
        precompressed: Vec::new(),
        hidden: false,
        follow_symlinks: false,
        cache_control: None,
        mime: Default::default(),
        cors: Cors::All(false),
        error_pages: Default::default(),
    }
}

/// A directory of a site.
pub(crate) fn directory(spec: FilesSpec, path: &str) -> Directory {
    let fd = OwnedFd::from(std::fs::File::open(spec.root.join(path)).unwrap());
    Directory { fd, site: Site::new(spec).unwrap(), path: path.into() }
}

/// All pieces of a body.
pub(crate) fn pieces(mut produce: Box<dyn Produce>) -> io::Result<Vec<Vec<u8>>> {
    let mut pieces = Vec::new();
    loop {
        let mut piece = Vec::new();
        let goes_on = produce.produce(&mut piece)?;
        assert!(!piece.is_empty(), "a piece has something in it");
        pieces.push(piece);
        if !goes_on {
            return Ok(pieces);
        }
    }
}

/// Asks for a directory: the head of the response and its body.
pub(crate) fn ask(directory: Directory, target: &str, accept: &str) -> (Response, Vec<u8>) {
    let (mut request, mut response) = (Request::new(), Response::new());
    request.set_target(target.as_bytes());
    request.fields.push_known(Known::Accept, accept.as_bytes());
    let produce = answer(directory, &request, &mut response);
    (response, pieces(produce).unwrap().concat())
}

fn text((_, body): (Response, Vec<u8>)) -> String {
    String::from_utf8(body).unwrap()
}

#[test]
fn a_page_has_a_row_for_each_entry() {
    let dir = TempDir::new();
    dir.write("sub/two words/x", "");
    dir.write("sub/photo.JPG", &"x".repeat(2048));
    dir.write("sub/\"><img onerror=x>", "");
    let (head, body) = ask(directory(spec(&dir), "sub"), "/", "text/html");
    assert_eq!(head.status, 200);
    let get = |known| head.fields.get(known).map(|value| String::from_utf8_lossy(value).into_owned());
    assert_eq!(get(Known::ContentType).as_deref(), Some("text/html; charset=utf-8"));
    assert_eq!(get(Known::Vary).as_deref(), Some("Accept"));
    assert_eq!(head.fields.all_named(b"content-security-policy").next(), Some(page::POLICY.as_bytes()));
    let page = String::from_utf8(body).unwrap();
    for part in [
        "<title>/sub</title>",
        "<tr class=u><td><a href=\"../\">Parent directory</a>",
        "<tr class=d><td><a href=\"two%20words/\"><bdi>two words</bdi></a><td><td><time datetime=",
        "<tr class=i><td><a href=\"photo.JPG\"><bdi>photo.JPG</bdi></a><td title=\"2,048 bytes\">2.0\u{a0}KiB<td>",
        "<tr class=f><td><a href=\"%22%3E%3Cimg%20onerror%3Dx%3E\"><bdi>&quot;&gt;&lt;img onerror=x&gt;</bdi></a>",
        "<footer><p>1 folder, 2 files, 2.0\u{a0}KiB</p></footer>",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("<img"));
}

#[test]
fn an_empty_directory_says_so() {
    let dir = TempDir::new();
    let page = text(ask(directory(spec(&dir), ""), "/", ""));
    assert!(page.contains("<p class=none>This directory is empty.</p>"));
    assert!(page.contains("0 folders, 0 files, 0\u{a0}B"));
    assert!(!page.contains("<tr class=u>"), "nothing is above the root");
    assert_eq!(text(ask(directory(spec(&dir), ""), "/", "application/json")), "[]\n");
}

#[test]
fn a_site_without_archives_has_none() {
    let dir = TempDir::new();
    dir.write("file", "text");
    for (archive, target, has_links) in
        [(true, "/", true), (false, "/", false), (false, "/?archive=tar", false)]
    {
        let spec = FilesSpec { archive, ..spec(&dir) };
        let (head, body) = ask(directory(spec, ""), target, "");
        assert_eq!(head.fields.get(Known::ContentType), Some(&b"text/html; charset=utf-8"[..]), "{target}");
        let page = String::from_utf8(body).unwrap();
        assert_eq!(page.contains("?archive="), has_links, "{archive} {target}");
        assert!(page.contains("<p role=status></p>\n") && page.contains("</div>\n</header>"), "{page}");
    }
}

#[test]
fn programs_get_an_array() {
    let dir = TempDir::new();
    dir.write("caf\u{e9} \"1\"", "four");
    dir.write("z/x", "");
    let path = dir.write("old", "");
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777);
    std::fs::File::open(path).unwrap().set_modified(old).unwrap();
    let (head, body) = ask(directory(spec(&dir), ""), "/", "application/json");
    assert_eq!(head.fields.get(Known::ContentType), Some(&b"application/json"[..]));
    assert_eq!(head.fields.get(Known::Vary), Some(&b"Accept"[..]));
    let Value::Array(entries) = serde_json::from_slice(&body).unwrap() else { panic!("an array") };
    let of = |key: &str| entries.iter().map(|entry| entry[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("name"), ["z", "caf\u{e9} \"1\"", "old"]);
    assert_eq!(of("path"), ["z/", "caf%C3%A9%20%221%22", "old"]);
    assert_eq!(of("type"), ["directory", "file", "file"]);
    assert_eq!(of("size"), [Value::Null, 4.into(), 0.into()]);
    assert_eq!(entries[2]["modified"], "1994-11-06T08:49:37Z");
}

#[test]
fn a_large_directory_comes_in_pieces() {
    let count = 10_000;
    let dir = TempDir::new();
    (0..count)
        .for_each(|number| drop(std::fs::File::create(dir.join(&format!("file {number}.txt"))).unwrap()));
    let response = &mut Response::new();
    let pieces = pieces(answer(directory(spec(&dir), ""), &Request::new(), response)).unwrap();
    assert!(!String::from_utf8_lossy(&pieces[0]).contains("file 0"), "the head does not wait for names");
    let longest = pieces.iter().map(Vec::len).max().unwrap();
    assert!(longest < PIECE + (16 << 10), "{longest}");
    let page = String::from_utf8(pieces.concat()).unwrap();
    let names: Vec<_> = page.split("<bdi>").skip(1).filter_map(|rest| rest.split("</bdi>").next()).collect();
    let expected: Vec<_> = (0..count).map(|number| format!("file {number}.txt")).collect();
    assert!(names == expected, "{:?}", names.iter().zip(&expected).find(|(name, expected)| name != expected));
}

#[test]
fn an_entry_that_goes_meanwhile_is_left_out() {
    let dir = TempDir::new();
    (0..=FEW).for_each(|number| drop(dir.write(&number.to_string(), "")));
    let mut produce = answer(directory(spec(&dir), ""), &Request::new(), &mut Response::new());
    let mut page = Vec::new();
    assert!(produce.produce(&mut page).unwrap());
    std::fs::remove_file(dir.join("7")).unwrap();
    while produce.produce(&mut page).unwrap() {}
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("<bdi>8</bdi>") && !page.contains("<bdi>7</bdi>"));
    assert!(page.contains(&format!("0 folders, {FEW} files")));
}
