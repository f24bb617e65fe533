//! No name leads out of the root, and none opens what is no file.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};
use rustix::io::Errno;

use super::*;
use crate::beneath::{Beneath, Node, Refused};
use crate::site::LookError;

#[test]
fn links_are_missing_or_lead_to_what_is_below() {
    let tree = Tree::new();
    tree.write("a.txt", "a");
    tree.write("dir/b.txt", "b");
    let root = tree.root().display().to_string();
    let secret = tree.dir.join("secret").display().to_string();
    let follows = [
        ("in", "a.txt", "/in", "a"),
        ("dir/up", "../a.txt", "/dir/up", "a"),
        ("to-dir", "dir", "/to-dir/b.txt", "b"),
        ("to-dir-slash", "./dir//", "/to-dir-slash/b.txt", "b"),
        ("around", "dir/../dir/./b.txt", "/around", "b"),
        ("dir/to-root", "..", "/dir/to-root/dir/to-root/a.txt", "a"),
        ("chain", "dir/up", "/chain", "a"),
        ("through", "to-dir/../a.txt", "/through", "a"),
    ];
    let never = [
        ("out", "../secret", "/out"),
        ("dir/out", "../../secret", "/dir/out"),
        ("dir/deeper", "../dir/../../secret", "/dir/deeper"),
        ("out-and-in", "../root/a.txt", "/out-and-in"),
        ("above", "..", "/above/secret"),
        ("chain-out", "dir/out", "/chain-out"),
        ("absolute", &secret, "/absolute"),
        ("absolute-in", &format!("{root}/a.txt"), "/absolute-in"),
        ("absolute-from-here", "/a.txt", "/absolute-from-here"),
        ("slash", "/", &format!("/slash{secret}")),
        ("proc", "/proc/self/root", &format!("/proc{secret}")),
        ("loop", "loop", "/loop"),
        ("loop-1", "loop-2/x", "/loop-1"),
        ("loop-2", "loop-1", "/loop-2"),
        ("dangling", "not-there", "/dangling"),
        ("file-slash", "a.txt/", "/file-slash"),
        ("file-dot", "a.txt/.", "/file-dot"),
        ("file-up", "a.txt/../a.txt", "/file-up"),
    ];
    follows.iter().for_each(|(link, target, ..)| tree.link(link, target));
    never.iter().for_each(|(link, target, _)| tree.link(link, target));
    for site in tree.sites(|options| options.follow_symlinks = true) {
        for (_, target, path, expected) in follows {
            assert_eq!(look(&site, path), expected, "{:?} {path} -> {target}", site.beneath.way);
        }
        for (_, target, path) in never {
            assert_eq!(look(&site, path), "Missing", "{:?} {path} -> {target}", site.beneath.way);
        }
    }
    for site in tree.sites(|_| {}) {
        assert_eq!(look(&site, "/dir/b.txt"), "b");
        for path in follows.iter().map(|follow| follow.2).chain(never.iter().map(|never| never.2)) {
            assert_eq!(look(&site, path), "Missing", "{:?} {path}", site.beneath.way);
        }
    }
}

#[test]
fn a_chain_of_links_has_an_end() {
    let tree = Tree::new();
    tree.write("l0", "the end");
    (1..=41).for_each(|number| tree.link(&format!("l{number}"), &format!("l{}", number - 1)));
    for site in tree.sites(|options| options.follow_symlinks = true) {
        assert_eq!(look(&site, "/l40"), "the end");
        assert_eq!(look(&site, "/l41"), "Missing");
    }
}

#[test]
fn a_root_in_proc_has_no_way_out_through_its_magic_links() {
    let edit = |options: &mut FilesOptions| options.follow_symlinks = true;
    let tree = Tree::new();
    let spec = FilesSpec { root: PathBuf::from("/proc/self"), ..tree.spec(edit) };
    let secret = format!("/root{}/secret", tree.dir.path().display());
    let held = std::fs::File::open(tree.dir.join("secret")).unwrap();
    let number = format!("/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    for way in WAYS {
        let site = Site::with(spec.clone(), Some(way), Duration::ZERO).unwrap();
        assert!(matches!(found(&site, "/status", &[]), Found::File(_)), "{way:?}");
        for path in [secret.as_str(), &number, "/exe", "/cwd/Cargo.toml", "/ns/net"] {
            assert_eq!(look(&site, path), "Missing", "{way:?} {path}");
        }
    }
}

#[test]
fn what_is_no_file_is_missing_and_never_opened() {
    let tree = Tree::new();
    let fifo = tree.root().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    let _socket = UnixListener::bind(tree.root().join("socket")).unwrap();
    let null = tree.root().join("null");
    match mknodat(CWD, null, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3)) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => panic!("{errno}"),
    }
    for site in tree.sites(|_| {}) {
        for path in ["/fifo", "/socket", "/null", "/fifo/", "/fifo/x"] {
            assert_eq!(look(&site, path), "Missing", "{:?} {path}", site.beneath.way);
        }
    }
    // A writer that waits for nobody finds no reader.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let writer = OpenOptions::new().write(true).custom_flags(flags).open(fifo);
    assert_eq!(writer.unwrap_err().raw_os_error(), Some(Errno::NXIO.raw_os_error()));
}

#[test]
fn names_may_be_of_any_bytes_and_too_long_ones_are_missing() {
    let tree = Tree::new();
    for name in ["%2e%2e", "a\nb", "a b?#%", "中", "..."] {
        tree.write(name, name);
    }
    let (long, too_long) = ("x".repeat(255), "x".repeat(256));
    tree.write(&long, "long");
    let deep = "/d".repeat(3000);
    for site in tree.sites(|options| options.hidden = true) {
        for (path, expected) in [
            ("/%252e%252e", "%2e%2e"),
            ("/a%0ab", "a\nb"),
            ("/a%20b%3f%23%25", "a b?#%"),
            ("/%E4%B8%AD", "中"),
            ("/...", "..."),
            ("/%c0%ae%c0%ae/secret", "Missing"),
            ("/%252e%252e/secret", "Missing"),
            ("//secret", "Missing"),
            (&format!("/{long}"), "long"),
            (&format!("/{too_long}"), "Missing"),
            (&deep, "Missing"),
        ] {
            assert_eq!(look(&site, path), expected, "{:?} {path}", site.beneath.way);
        }
    }
}

#[test]
fn what_is_not_known_without_a_disk_is_not_waited_for() {
    let tree = Tree::new();
    tree.write("a", "a");
    let [kernel, walk] = tree.sites(|_| {});
    assert_eq!(look(&kernel, "/a"), "a");
    let cached = |site: &Arc<Site>| site.look(&name("/a"), &Preferred::default(), Effort::Cached);
    assert!(matches!(cached(&kernel), Ok(Found::File(_))));
    assert!(matches!(cached(&walk), Err(LookError::WouldBlock)));
    let spec = tree.spec(|_| {});
    let old = Site::with(spec, Some(Way::Kernel { cached: false }), Duration::ZERO).unwrap();
    assert!(matches!(cached(&old), Err(LookError::WouldBlock)));
    assert_eq!(look(&old, "/a"), "a");
}

#[test]
fn each_error_has_its_answer() {
    for (errno, expected) in [
        (Errno::NOENT, "Missing"),
        (Errno::NOTDIR, "Missing"),
        (Errno::NAMETOOLONG, "Missing"),
        (Errno::LOOP, "Missing"),
        (Errno::XDEV, "Missing"),
        (Errno::ACCESS, "Forbidden"),
        (Errno::PERM, "Forbidden"),
        (Errno::AGAIN, "Unknown(WouldBlock)"),
        (Errno::MFILE, "Unknown(Resources("),
        (Errno::NFILE, "Unknown(Resources("),
        (Errno::NOMEM, "Unknown(Resources("),
        (Errno::IO, "Unknown(Failed("),
        (Errno::STALE, "Unknown(Failed("),
    ] {
        let refused = format!("{:?}", Refused::from(errno));
        assert!(refused.starts_with(expected), "{errno}: {refused}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever links there are, our walk comes to what the kernel comes to.
    #[test]
    fn the_walk_goes_where_the_kernel_goes(
        links in prop::collection::vec(
            ("[abcd]|d/[ef]", "/?((\\.|\\.\\.|a|b|c|d|e|f|file)/{0,2}){1,4}"),
            0..6,
        ),
        paths in prop::collection::vec("((a|b|c|d|e|f|file)/){0,4}(a|b|d|e|file|)", 1..20),
        follow in any::<bool>(),
    ) {
        let tree = Tree::new();
        tree.write("d/file", "in d");
        tree.write("file", "file");
        for (link, target) in &links {
            let _ = symlink(target, tree.root().join(link));
        }
        let root = std::fs::File::open(tree.root()).unwrap();
        for path in &paths {
            let [kernel, walk] = WAYS.map(|way| {
                let beneath = Beneath { way, follow };
                match beneath.look(root.as_fd(), path.as_bytes(), Effort::Full) {
                    Ok(Node::File(stat)) => {
                        let (_, opened) = beneath.file(root.as_fd(), path.as_bytes(), Effort::Full).unwrap();
                        assert_eq!(opened.st_ino, stat.st_ino);
                        format!("file {}", stat.st_ino)
                    }
                    Ok(Node::Directory) => {
                        let fd = beneath.directory(root.as_fd(), path.as_bytes(), Effort::Full).unwrap();
                        format!("directory {}", rustix::fs::fstat(fd).unwrap().st_ino)
                    }
                    Err(refused) => format!("{refused:?}"),
                }
            });
            prop_assert_eq!(kernel, walk, "{} with {:?}", path, links);
        }
    }
}
