//! Roots that are replaced, vanish, or are no longer ours.

use std::fs::{Permissions, create_dir, remove_dir_all, remove_file, rename, set_permissions};
use std::os::unix::fs::PermissionsExt;

use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

use super::*;
use crate::site::LookError;

/// Runs it as somebody for whom permissions count, whoever we are: in a thread of its own, which stays that.
fn as_nobody<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let nobody = Uid::from_raw(65534);
                set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            run()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_root_has_to_be_a_directory_that_is_there() {
    let tree = Tree::new();
    tree.write("file", "");
    for (root, kind) in
        [("root/not-there", std::io::ErrorKind::NotFound), ("root/file", std::io::ErrorKind::NotFound)]
    {
        let spec = FilesSpec { root: tree.dir.join(root), ..tree.spec(|_| {}) };
        assert_eq!(Site::new(spec).unwrap_err().kind(), kind, "{root}");
    }
    assert!(matches!(Site::new(tree.spec(|_| {})).unwrap().beneath.way, Way::Kernel { .. } | Way::Walk));
}

#[test]
fn a_new_root_in_the_place_of_the_old_one_is_taken() {
    let tree = Tree::new();
    tree.write("f", "old");
    for site in tree.sites(|_| {}) {
        assert_eq!(look(&site, "/f"), "old");
        tree.dir.write("new/f", "new");
        rename(tree.root(), tree.dir.join("aside")).unwrap();
        rename(tree.dir.join("new"), tree.root()).unwrap();
        assert_eq!(look(&site, "/f"), "new");
        remove_dir_all(tree.root()).unwrap();
        rename(tree.dir.join("aside"), tree.root()).unwrap();
        assert_eq!(look(&site, "/f"), "old");
    }
}

#[test]
fn a_root_that_is_a_link_goes_where_it_is_switched_to() {
    let tree = Tree::new();
    tree.dir.write("releases/1/f", "one");
    tree.dir.write("releases/2/f", "two");
    let current = tree.dir.join("current");
    for way in WAYS {
        symlink("releases/1", &current).unwrap();
        let spec = FilesSpec { root: current.clone(), ..tree.spec(|_| {}) };
        let site = Site::with(spec, Some(way), Duration::ZERO).unwrap();
        assert_eq!(look(&site, "/f"), "one");
        symlink("releases/2", tree.dir.join("next")).unwrap();
        rename(tree.dir.join("next"), &current).unwrap();
        assert_eq!(look(&site, "/f"), "two");
        remove_file(&current).unwrap();
        assert_eq!(look(&site, "/f"), "Missing");
    }
}

#[test]
fn a_trusted_root_is_not_looked_at_again_unless_it_was_gone() {
    let tree = Tree::new();
    tree.write("f", "old");
    let hour = Duration::from_secs(3600);
    let site = Site::with(tree.spec(|_| {}), None, hour).unwrap();
    rename(tree.root(), tree.dir.join("aside")).unwrap();
    assert_eq!(look(&site, "/f"), "old");

    let site =
        Site::with(FilesSpec { root: tree.dir.join("aside"), ..tree.spec(|_| {}) }, None, Duration::ZERO);
    let site = site.unwrap();
    remove_dir_all(tree.dir.join("aside")).unwrap();
    assert_eq!(look(&site, "/f"), "Missing");
    tree.dir.write("aside/f", "back");
    assert_eq!(look(&site, "/f"), "back");
}

#[test]
fn a_root_that_vanishes_is_missing_and_back_at_once() {
    let tree = Tree::new();
    for site in tree.sites(|options| options.spa = Some("/f".to_owned())) {
        tree.write("f", "here");
        assert_eq!(look(&site, "/f"), "here");
        for file_in_its_place in [false, true] {
            remove_dir_all(tree.root()).unwrap();
            if file_in_its_place {
                std::fs::write(tree.root(), "a file").unwrap();
            }
            for path in ["/f", "/", "/spa"] {
                assert_eq!(look(&site, path), "Missing");
            }
            assert!(site.error_page(404, Effort::Full).unwrap().is_none());
            let _ = remove_file(tree.root());
            create_dir(tree.root()).unwrap();
            tree.write("f", "back");
            assert_eq!(look(&site, "/f"), "back");
        }
    }
}

#[test]
fn a_worker_does_not_wait_for_the_path_of_a_root() {
    let tree = Tree::new();
    tree.write("f", "here");
    let [kernel, _] = tree.sites(|_| {});
    let cached = || kernel.look(&name("/f"), &Preferred::default(), Effort::Cached);
    assert_eq!(look(&kernel, "/f"), "here");
    assert!(matches!(cached(), Ok(Found::File(_))));
    remove_dir_all(tree.root()).unwrap();
    // The kernel may know that it is gone, or have to ask: either way nothing of it is served.
    assert!(matches!(cached(), Ok(Found::Missing) | Err(LookError::WouldBlock)));
    assert_eq!(look(&kernel, "/f"), "Missing");
}

#[test]
fn what_may_not_be_read_is_forbidden() {
    let tree = Tree::new();
    tree.write("closed", "x");
    tree.write("dir/f", "f");
    tree.write("unlisted/f", "f");
    tree.write("index/index.html", "x");
    let set_at = |path: PathBuf, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let set = |name: &str, mode| set_at(tree.root().join(name), mode);
    set("closed", 0o000);
    set("dir", 0o000);
    set("unlisted", 0o311);
    set("index/index.html", 0o000);
    for site in tree.sites(|options| options.browse = true) {
        as_nobody(|| {
            assert_eq!(look(&site, "/closed"), "Forbidden");
            assert_eq!(look(&site, "/dir/f"), "Forbidden");
            assert_eq!(look(&site, "/unlisted/f"), "f");
            assert_eq!(look(&site, "/unlisted/"), "Forbidden");
            assert_eq!(look(&site, "/index/"), "Forbidden");
            assert_eq!(look(&site, "/not-there"), "Missing");
        });
        // The root itself, while it is held.
        set_at(tree.root(), 0o000);
        as_nobody(|| assert_eq!(look(&site, "/unlisted/f"), "Forbidden"));
        set_at(tree.root(), 0o755);
        as_nobody(|| assert_eq!(look(&site, "/unlisted/f"), "f"));
    }
    set("dir", 0o755);
    set("unlisted", 0o755);
}
