//! What programs make of the archives of directories: GNU tar, and Python's tarfile and zipfile.

use std::path::Path;

use wmproxy_testkit::{Pattern, TempDir};

use super::{asked, call};
use crate::files::{Tree, get};

/// Reads both archives, checks them, and prints for each entry its name, its length and its CRC.
const READ: &str = r#"
import sys, tarfile, zipfile, zlib, io
for path in sys.argv[1:]:
    data = open(path, 'rb').read()
    found = {}
    if data[:2] == b'PK':
        archive = zipfile.ZipFile(io.BytesIO(data))
        assert archive.testzip() is None, archive.testzip()
        for info in archive.infolist():
            if not info.is_dir():
                found[info.filename] = archive.read(info)
    else:
        archive = tarfile.open(fileobj=io.BytesIO(data), mode='r:', errors='surrogateescape')
        for member in archive:
            assert member.isfile() or member.isdir(), member.name
            if member.isfile():
                found[member.name] = archive.extractfile(member).read()
    for name in sorted(found):
        print(ascii(name), len(found[name]), zlib.crc32(found[name]))
    print('--')
"#;

fn tree() -> Tree {
    let tree = Tree::new(&[
        ("pack/a.txt", "alpha"),
        ("pack/empty.txt", ""),
        ("pack/sub/deep/er/b.txt", "beta"),
        ("pack/caf\u{e9} \u{1f600}.txt", "names of UTF-8"),
        ("pack/a \"b\" & c'd.txt", "odd names"),
        // What can't be asked for, and would lead elsewhere on Windows.
        ("pack/hidden..\\..\\e.txt", "hidden"),
        ("pack/.hidden", "hidden"),
        ("pack/.git/config", "hidden"),
    ]);
    tree.file("pack/large.bin", Pattern::new(4).bytes(0, 5 << 20));
    // Longer than the fields of a tar's head.
    tree.file(format!("pack/{}/{}/long.txt", "d".repeat(120), "e".repeat(200)), "long");
    tree.link("pack/out.txt", "../../secret/file.txt");
    tree.link("pack/in.txt", "a.txt");
    std::fs::create_dir(tree.path("pack/nothing")).unwrap();
    tree
}

#[test]
fn archives_hold_what_the_directory_holds() {
    if !asked() {
        return;
    }
    let (tree, dir) = (tree(), TempDir::new());
    let proxy = tree.serve("browse = true", "");
    let paths = ["tar", "zip"].map(|kind| {
        let answer = get(&proxy, &format!("/pack/?archive={kind}"), "");
        assert_eq!(answer.status(), 200, "{kind}");
        let path = dir.join(&format!("pack.{kind}"));
        std::fs::write(&path, &answer.body).unwrap();
        path.display().to_string()
    });
    let said = call("python3", &["-c", READ, &paths[0], &paths[1]]).success().stdout;
    let (tar, zip) = said.split_once("--\n").unwrap();
    assert_eq!(format!("{tar}--\n"), zip, "tar and zip");
    let lines: Vec<&str> = tar.lines().collect();
    assert_eq!(lines.len(), 7, "{said}");
    for start in [
        "'pack/a.txt' 5 ",
        "'pack/empty.txt' 0 0",
        "'pack/large.bin' 5242880 ",
        "'pack/sub/deep/er/b.txt' 4 ",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start} in {said}");
    }
    assert!(tar.contains("\\xe9 \\U0001f600.txt") && tar.contains("long.txt' 4 "), "{said}");
    assert!(
        !said.contains("hidden")
            && !said.contains("slash")
            && !said.contains("out.txt")
            && !said.contains("in.txt"),
        "{said}"
    );
    // Unpacked, they are what was packed.
    let unpacked = dir.join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    call("tar", &["-xf", &paths[0], "-C", &unpacked.display().to_string()]).success();
    compare(&tree.path("pack/large.bin"), &unpacked.join("pack/large.bin"));
    compare(&tree.path("pack/sub/deep/er/b.txt"), &unpacked.join("pack/sub/deep/er/b.txt"));
    let (packed, fresh) = (tree.path("pack/a.txt"), unpacked.join("pack/a.txt"));
    let modified = |path: &Path| path.metadata().unwrap().modified().unwrap();
    assert_eq!(modified(&packed), modified(&fresh), "the time");
}

fn compare(one: &Path, other: &Path) {
    assert!(std::fs::read(one).unwrap() == std::fs::read(other).unwrap(), "{} differs", other.display());
}
