use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use wmproxy_testkit::TempDir;

use super::*;
use crate::listing::tests::{directory, spec};
use crate::options::FilesSpec;

/// Names and kinds, in the order in which they come.
fn all(spec: FilesSpec) -> Vec<(String, Kind)> {
    let mut entries = Entries::new(directory(spec, "")).unwrap();
    while !entries.read(3).unwrap() {}
    entries.sort();
    let mut all = Vec::new();
    while let Some(name) = entries.next().unwrap() {
        if let Some(meta) = entries.look(name) {
            all.push((String::from_utf8_lossy(entries.text(name)).into_owned(), meta.kind));
        }
    }
    all
}

fn names(spec: FilesSpec) -> Vec<String> {
    all(spec).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn directories_come_first_and_numbers_in_their_order() {
    let dir = TempDir::new();
    for name in ["a10", "a9", "A1", "b", "a09", "a", "Z/x", "y/x", "10/x", "9/x"] {
        dir.write(name, "");
    }
    assert_eq!(names(spec(&dir)), ["9", "10", "y", "Z", "a", "A1", "a09", "a9", "a10", "b"]);
}

#[test]
fn what_is_not_served_is_not_there() {
    let dir = TempDir::new();
    for name in ["seen", ".hidden", "back\\slash", ".git/config", "folder/x"] {
        dir.write(name, "");
    }
    std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    symlink("seen", dir.join("link")).unwrap();
    assert_eq!(names(spec(&dir)), ["folder", "seen"]);
    assert_eq!(names(FilesSpec { hidden: true, ..spec(&dir) }), [".git", "folder", ".hidden", "seen"]);
}

#[test]
fn a_link_is_what_it_leads_to() {
    let (dir, outside) = (TempDir::new(), TempDir::new());
    dir.write("a/file", "");
    outside.write("secret", "");
    symlink("a/file", dir.join("file")).unwrap();
    symlink("a", dir.join("folder")).unwrap();
    symlink("nowhere", dir.join("broken")).unwrap();
    symlink("round", dir.join("round")).unwrap();
    symlink(outside.join("secret"), dir.join("out")).unwrap();
    symlink("/dev/null", dir.join("device")).unwrap();
    let expected = [("a", Kind::Directory), ("folder", Kind::Directory), ("file", Kind::File)];
    let expected: Vec<_> = expected.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
    assert_eq!(all(FilesSpec { follow_symlinks: true, ..spec(&dir) }), expected);
}

#[test]
fn a_directory_with_too_many_comes_as_it_is() {
    let dir = TempDir::new();
    let count = BATCH + 10;
    (0..count).for_each(|number| drop(dir.write(&number.to_string(), "")));
    let mut entries = Entries::new(directory(spec(&dir), "")).unwrap();
    // As if that many were the most that can be put in order.
    entries.read(5).unwrap();
    entries.sort();
    assert!(!entries.is_in_order());
    let mut names = std::collections::BTreeSet::new();
    while let Some(name) = entries.next().unwrap() {
        assert!(names.insert(entries.text(name).to_vec()), "none comes twice");
    }
    assert_eq!(names.len(), count);
}

#[test]
fn a_name_of_any_bytes_is_looked_at_and_opened() {
    let dir = TempDir::new();
    let name = b"caf\xe9\n\"<>&' \xf0\x9f\x98\x80";
    std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), "four").unwrap();
    let mut entries = Entries::new(directory(spec(&dir), "")).unwrap();
    entries.read(9).unwrap();
    let found = entries.next().unwrap().unwrap();
    assert_eq!(entries.text(found), name);
    assert_eq!(entries.look(found).unwrap().len, 4);
    assert!(matches!(entries.open(found), Ok(Some(Opened::File(_, Meta { len: 4, .. })))));
}

#[test]
fn what_took_the_place_of_a_file_is_not_opened() {
    let dir = TempDir::new();
    let path = dir.write("file", "x");
    dir.write("other", "x");
    for put in [
        (|path| symlink("other", path).unwrap()) as fn(&std::path::Path),
        |path| rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
        |_| {},
    ] {
        std::fs::write(&path, "x").unwrap();
        let mut entries = Entries::new(directory(spec(&dir), "")).unwrap();
        entries.read(9).unwrap();
        entries.sort();
        let name = entries.next().unwrap().unwrap();
        assert_eq!(entries.text(name), b"file");
        std::fs::remove_file(&path).unwrap();
        put(&path);
        assert!(entries.look(name).is_none());
        assert!(matches!(entries.open(name), Ok(None)));
        let _ = std::fs::remove_file(&path);
    }
}

proptest! {
    #[test]
    fn names_have_one_order(mut names in prop::collection::vec("[aAb0-2._]{0,6}", 0..40)) {
        names.sort_by(|one, other| natural(one.as_bytes(), other.as_bytes()));
        for (at, one) in names.iter().enumerate() {
            for other in &names[at..] {
                prop_assert_ne!(natural(one.as_bytes(), other.as_bytes()), Ordering::Greater);
                prop_assert_eq!(natural(one.as_bytes(), other.as_bytes()).is_eq(), one == other);
            }
        }
    }
}
