use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use wmproxy_testkit::TempDir;
use wmproxy_wire::head::Request;

use super::*;
use crate::entries::Kind;
use crate::listing::tests::{ask, directory, pieces, spec};
use crate::options::FilesSpec;

const MODIFIED: u64 = 1_234_567_890;

/// Contents and whether it may be run, by path; None for directories.
type Tree = BTreeMap<Vec<u8>, Option<(Vec<u8>, bool)>>;

/// A tree with all that is awkward in it.
fn fill(dir: &TempDir) {
    dir.write("top/empty", "");
    dir.write(&format!("top/{}/{}", "d".repeat(90), "n".repeat(200)), "long");
    dir.write("top/\u{e9}t\u{e9}/\u{65e5}\u{672c}.txt", "two lines\n");
    std::fs::create_dir(dir.join("top/nothing in it")).unwrap();
    std::fs::write(dir.path().join(OsStr::from_bytes(b"top/caf\xe9 -\"\n")), "not UTF-8").unwrap();
    for len in [1, 511, 512, 513, 65_535, 65_536, 300_001] {
        let bytes: Vec<u8> = (0..len).map(|at: u32| (at ^ at >> 8) as u8).collect();
        std::fs::write(dir.join(&format!("top/{len}")), bytes).unwrap();
    }
    let program = dir.write("top/program", "#!/bin/sh\n");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let time = UNIX_EPOCH + Duration::from_secs(MODIFIED);
    File::open(program).unwrap().set_modified(time).unwrap();
}

fn read(root: &Path, below: &Path, tree: &mut Tree) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let meta = std::fs::metadata(root.join(&path)).unwrap();
        let found = meta
            .is_file()
            .then(|| (std::fs::read(root.join(&path)).unwrap(), meta.permissions().mode() & 0o100 != 0));
        tree.insert(path.as_os_str().as_bytes().to_vec(), found);
        if meta.is_dir() {
            read(root, &path, tree);
        }
    }
}

fn tree(dir: &TempDir) -> Tree {
    let mut tree = Tree::new();
    read(dir.path(), Path::new("top"), &mut tree);
    tree
}

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes[at..at + len].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// Reads a zip as programs do: from the list at its end.
fn unzip(zip: &[u8]) -> Tree {
    let mut tree = Tree::new();
    let end = zip.len() - 22;
    assert_eq!(&zip[end..end + 4], b"PK\x05\x06");
    let mut at = number(zip, end + 16, 4);
    for _ in 0..number(zip, end + 10, 2) {
        assert_eq!(&zip[at..at + 4], b"PK\x01\x02");
        let (flags, method, sum) = (number(zip, at + 8, 2), number(zip, at + 10, 2), number(zip, at + 16, 4));
        let (packed, len) = (number(zip, at + 20, 4), number(zip, at + 24, 4));
        let (name_len, extra_len) = (number(zip, at + 28, 2), number(zip, at + 30, 2));
        let (mode, local) = (number(zip, at + 40, 2), number(zip, at + 42, 4));
        let name = &zip[at + 46..][..name_len];
        assert_eq!(flags & 1 << 11 != 0, std::str::from_utf8(name).is_ok(), "UTF-8 is what is called so");
        assert_eq!(&zip[local..local + 4], b"PK\x03\x04");
        assert_eq!(&zip[local + 30..][..name_len], name);
        let start = local + 30 + name_len + number(zip, local + 28, 2);
        let mut bytes = Vec::new();
        match method {
            0 => assert_eq!(packed, 0),
            _ => drop(
                flate2::read::DeflateDecoder::new(&zip[start..start + packed])
                    .read_to_end(&mut bytes)
                    .unwrap(),
            ),
        }
        assert_eq!(bytes.len(), len);
        assert_eq!(crc32fast::hash(&bytes) as usize, sum);
        if flags & 1 << 3 != 0 {
            assert_eq!(&zip[start + packed..][..4], b"PK\x07\x08");
            assert_eq!([4, 8, 12].map(|behind| number(zip, start + packed + behind, 4)), [sum, packed, len]);
        }
        let path = name.strip_suffix(b"/").unwrap_or(name);
        let found = (path == name).then_some((bytes, mode & 0o100 != 0));
        tree.insert(path.to_vec(), found);
        at += 46 + name_len + extra_len;
    }
    assert_eq!(at, end);
    tree
}

#[test]
fn tar_unpacks_what_was_there() {
    let (dir, unpacked) = (TempDir::new(), TempDir::new());
    fill(&dir);
    let (_, body) = ask(directory(spec(&dir), "top"), "/?archive=tar", "");
    std::fs::write(unpacked.join("archive"), body).unwrap();
    let output = Command::new("tar").args(["-xf", "archive"]).current_dir(unpacked.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(tree(&unpacked), tree(&dir));
    let modified = std::fs::metadata(unpacked.join("top/program")).unwrap().modified().unwrap();
    assert_eq!(modified, UNIX_EPOCH + Duration::from_secs(MODIFIED));
}

#[test]
fn a_zip_has_what_was_there() {
    let dir = TempDir::new();
    fill(&dir);
    let (_, body) = ask(directory(spec(&dir), "top"), "/?archive=zip", "");
    assert_eq!(unzip(&body), tree(&dir));
}

#[test]
fn an_archive_is_saved_by_the_name_of_its_directory() {
    let dir = TempDir::new();
    dir.write("a \"b\u{e9}/x", "");
    for (path, target, kind, disposition) in [
        (
            "",
            "/?archive=tar",
            "application/x-tar",
            "attachment; filename=\"files.tar\"; filename*=UTF-8''files.tar",
        ),
        (
            "a \"b\u{e9}",
            "/?x&archive=zip",
            "application/zip",
            "attachment; filename=\"a _b_.zip\"; filename*=UTF-8''a%20%22b%C3%A9.zip",
        ),
    ] {
        let (head, _) = ask(directory(spec(&dir), path), target, "application/json");
        assert_eq!(head.fields.get(Known::ContentType), Some(kind.as_bytes()));
        let found = head.fields.all_named(b"content-disposition").next();
        assert_eq!(found.map(String::from_utf8_lossy).as_deref(), Some(disposition));
    }
    let (head, _) = ask(directory(spec(&dir), ""), "/?archive=rar", "");
    assert_eq!(head.fields.get(Known::ContentType), Some(&b"text/html; charset=utf-8"[..]));
}

#[test]
fn pieces_are_no_longer_than_they_may_be() {
    let dir = TempDir::new();
    fill(&dir);
    for target in ["/?archive=tar", "/?archive=zip"] {
        let mut request = Request::new();
        request.set_target(target.as_bytes());
        let produce = listing::answer(directory(spec(&dir), "top"), &request, &mut Response::new());
        let pieces = pieces(produce).unwrap();
        let lens: Vec<_> = pieces.iter().map(Vec::len).collect();
        assert!(pieces.len() > 5 && lens.iter().all(|&len| len <= PIECE + 4096), "{lens:?}");
    }
}

/// The first piece of an archive of one long file, then what `change` does to that, then the rest.
fn changed(target: &str, change: fn(&File)) -> io::Result<Vec<u8>> {
    let dir = TempDir::new();
    let path = dir.write("top/file", &"x".repeat(300_000));
    let mut request = Request::new();
    request.set_target(target.as_bytes());
    let mut produce = listing::answer(directory(spec(&dir), "top"), &request, &mut Response::new());
    let mut body = Vec::new();
    assert!(produce.produce(&mut body)?);
    change(&std::fs::OpenOptions::new().append(true).open(path)?);
    while produce.produce(&mut body)? {}
    Ok(body)
}

#[test]
fn the_list_of_a_zip_comes_in_pieces_too() {
    let dir = TempDir::new();
    (0..2000).for_each(|number| drop(dir.write(&format!("top/file with the number {number}"), "")));
    let mut request = Request::new();
    request.set_target(b"/?archive=zip");
    let produce = listing::answer(directory(spec(&dir), "top"), &request, &mut Response::new());
    let pieces = pieces(produce).unwrap();
    assert!(pieces.iter().all(|piece| piece.len() <= PIECE + 4096));
    assert_eq!(unzip(&pieces.concat()).len(), 2000);
}

#[test]
fn a_file_that_becomes_shorter_breaks_the_archive() {
    for target in ["/?archive=tar", "/?archive=zip"] {
        let error = changed(target, |file| file.set_len(100_000).unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn what_a_file_grows_by_is_left_out() {
    let grow: fn(&File) = |mut file| file.write_all(b"more").unwrap();
    let zip = unzip(&changed("/?archive=zip", grow).unwrap());
    assert_eq!(zip[&b"top/file"[..]], Some(("x".repeat(300_000).into_bytes(), false)));
    let tar = changed("/?archive=tar", grow).unwrap();
    assert_eq!(tar.len(), 512 + 300_032 + 1024);
}

#[test]
fn links_to_files_go_in_and_links_to_directories_do_not() {
    let dir = TempDir::new();
    dir.write("top/a/file", "x");
    symlink("..", dir.join("top/a/up")).unwrap();
    symlink("a", dir.join("top/again")).unwrap();
    symlink("a/file", dir.join("top/link")).unwrap();
    let paths = |follow_symlinks| {
        let spec = FilesSpec { follow_symlinks, ..spec(&dir) };
        let tree = unzip(&ask(directory(spec, "top"), "/?archive=zip", "").1);
        tree.into_keys().map(|path| String::from_utf8(path).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(paths(false), ["top/a", "top/a/file"]);
    assert_eq!(paths(true), ["top/a", "top/a/file", "top/link"]);
}

#[test]
fn a_tree_without_a_bottom_ends_broken() {
    let dir = TempDir::new();
    std::fs::create_dir_all(dir.path().join("d/".repeat(100))).unwrap();
    let mut request = Request::new();
    request.set_target(b"/?archive=tar");
    let produce = listing::answer(directory(spec(&dir), ""), &request, &mut Response::new());
    assert!(pieces(produce).is_err());
}

#[test]
fn numbers_that_are_too_large_for_a_zip_stand_elsewhere() {
    let meta = Meta { kind: Kind::File, len: 5 << 30, modified: 0, is_executable: false };
    let mut zip = Zip::default();
    let mut out = Vec::new();
    zip.has_grown(6 << 30);
    zip.begin(b"large", &meta, &mut out).unwrap();
    assert_eq!(&out[18..26], [0xff; 8], "lengths are in the field of zip64");
    assert_eq!(&out[30 + 5 + 9..], b"\x01\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    out.clear();
    zip.end(&mut out);
    assert_eq!(out.len(), 4 + 4 + 8 + 8, "and of eight bytes behind it");
    out.clear();
    assert!(!zip.close(PIECE, &mut out));
    assert_eq!(number(&out, 42, 4), 0xffff_ffff);
    let large = &out[46 + 5 + 9..][..28];
    assert_eq!((number(large, 4, 8), number(large, 20, 8)), (5 << 30, 6 << 30));
    let list_len = 46 + 5 + 9 + 28;
    assert_eq!(&out[list_len..list_len + 4], b"PK\x06\x06");
    assert_eq!(number(&out, list_len + 32, 8), 1);
    assert_eq!(number(&out, list_len + 48, 8), 6 << 30);
    assert_eq!(&out[list_len + 56..list_len + 60], b"PK\x06\x07");
    assert_eq!(number(&out, list_len + 64, 8), (6 << 30) + list_len);
    assert_eq!(&out[list_len + 76..list_len + 80], b"PK\x05\x06");
}
