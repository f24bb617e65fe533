//! Which file stands for a path.

use std::fs::FileTimes;
use std::time::SystemTime;

use super::*;
use Encoding::{Br, Gzip, Zstd};

/// Sets when it was modified, in seconds since 1970.
fn touch(tree: &Tree, name: &str, seconds: u64) {
    let file = std::fs::File::options().write(true).open(tree.root().join(name)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 5);
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[test]
fn directories_have_an_index_or_a_listing_or_nothing() {
    let tree = Tree::new();
    tree.write("index.html", "home");
    tree.write("a/index.htm", "second");
    tree.write("b/index.html/file", "a directory of that name");
    tree.write("b/index.htm", "behind it");
    tree.write("c/file", "c");
    let index = ["index.html", "index.htm"].map(str::to_owned).to_vec();
    for browse in [false, true] {
        let (listed, slash) = if browse { ("[c]", "NoSlash") } else { ("Missing", "Missing") };
        for site in tree.sites(|options| (options.browse, options.index) = (browse, index.clone())) {
            for (path, expected) in [
                ("/", "home"),
                ("//", "home"),
                ("/a/", "second"),
                ("/a", "NoSlash"),
                ("/b/", "behind it"),
                ("/c/", listed),
                ("/c", slash),
                ("/c/file", "c"),
                ("/c/file/", "Missing"),
                ("/c/file/x", "Missing"),
                ("/C/file", "Missing"),
                ("/d", "Missing"),
                ("/d/", "Missing"),
            ] {
                assert_eq!(look(&site, path), expected, "{:?} {path} {browse}", site.beneath.way);
            }
        }
    }
    for site in tree.sites(|options| (options.browse, options.index) = (true, Vec::new())) {
        assert_eq!(look(&site, "/"), "[]");
    }
}

#[test]
fn hidden_names_are_not_there_unless_asked_for() {
    let tree = Tree::new();
    let names = [".env", ".git/config", "a/.b/c", ".well-known/.x", "a/.well-known/x"];
    names.iter().for_each(|name| tree.write(name, "hidden"));
    tree.write(".well-known/security.txt", "well known");
    tree.link("shown", ".env");
    for hidden in [false, true] {
        for site in tree.sites(|options| (options.hidden, options.follow_symlinks) = (hidden, true)) {
            for name in names {
                let expected = if hidden { "hidden" } else { "Missing" };
                assert_eq!(look(&site, &format!("/{name}")), expected);
                assert_eq!(look(&site, &format!("/{}", name.replace('.', "%2e"))), expected);
            }
            assert_eq!(look(&site, "/.well-known/security.txt"), "well known");
            // Who makes a link shows what it leads to.
            assert_eq!(look(&site, "/shown"), "hidden");
        }
    }
}

#[test]
fn pages_of_an_application_fall_back_and_its_parts_do_not() {
    let tree = Tree::new();
    tree.write("app/index.html", "app");
    tree.write("app/main.js", "js");
    tree.write("dir/x", "x");
    for site in tree.sites(|options| options.spa = Some("/app/index.html".to_owned())) {
        for (path, expected) in [
            ("/", "app"),
            ("/users/7", "app"),
            ("/users/7/", "app"),
            ("/v1.2/users", "app"),
            ("/dir", "app"),
            ("/dir/", "app"),
            ("/dir/x/", "app"),
            ("/app/main.js", "js"),
            ("/app/other.js", "Missing"),
            ("/a.b/", "Missing"),
        ] {
            assert_eq!(look(&site, path), expected, "{path}");
        }
    }
    for site in tree.sites(|options| options.spa = Some("not-there".to_owned())) {
        assert_eq!(look(&site, "/users/7"), "Missing");
    }
}

#[test]
fn the_form_that_a_client_likes_best_is_taken_unless_it_is_old() {
    let tree = Tree::new();
    for (name, seconds) in [
        ("a.js", 100),
        ("a.js.gz", 100),
        ("a.js.br", 101),
        ("a.js.zst", 99),
        ("dir/index.html", 100),
        ("dir/index.html.gz", 100),
        ("only.js.gz", 100),
    ] {
        tree.write(name, name);
        touch(&tree, name, seconds);
    }
    tree.write("b.js", "b.js");
    std::fs::create_dir(tree.root().join("b.js.gz")).unwrap();
    tree.link("b.js.br", "../secret");
    for site in tree.sites(|options| options.precompressed = vec![Zstd, Gzip, Br]) {
        for (path, encodings, expected) in [
            ("/a.js", &[][..], "a.js"),
            ("/a.js", &[Gzip, Br], "gzip: a.js.gz"),
            ("/a.js", &[Br, Gzip], "br: a.js.br"),
            ("/a.js", &[Zstd, Gzip], "gzip: a.js.gz"),
            ("/a.js", &[Zstd], "a.js"),
            ("/a.js.gz", &[Gzip], "a.js.gz"),
            ("/dir/", &[Gzip], "gzip: dir/index.html.gz"),
            ("/only.js", &[Gzip], "Missing"),
            ("/b.js", &[Gzip, Br], "b.js"),
        ] {
            assert_eq!(look_for(&site, path, encodings), expected, "{path} {encodings:?}");
        }
        let (plain, gzip) = (found(&site, "/a.js", &[]), found(&site, "/a.js", &[Gzip]));
        let (Found::File(plain), Found::File(gzip)) = (plain, gzip) else { panic!("no files") };
        assert_eq!(&*plain.etag, "\"174876e805-4\"");
        assert_eq!(&*gzip.etag, "\"174876e805-7-gzip\"");
        assert_eq!(&plain.last_modified, b"Thu, 01 Jan 1970 00:01:40 GMT");
        assert_eq!(plain.content_type, gzip.content_type);
        assert!(plain.varies && gzip.varies && !plain.is_same(&gzip));
    }
    for site in tree.sites(|options| options.precompressed = vec![Br]) {
        assert_eq!(look_for(&site, "/a.js", &[Gzip, Zstd]), "a.js");
    }
    for site in tree.sites(|_| {}) {
        assert_eq!(look_for(&site, "/a.js", &[Gzip]), "a.js");
        assert!(matches!(found(&site, "/a.js", &[]), Found::File(file) if !file.varies));
    }
}

#[test]
fn errors_have_pages_below_the_root() {
    let tree = Tree::new();
    tree.write("404.html", "not here");
    tree.write("404.html.gz", "compressed");
    tree.link("500.html", "../secret");
    let mut spec = tree.spec(|options| options.precompressed = vec![Gzip]);
    spec.error_pages = [(404, "404.html".into()), (500, "500.html".into()), (403, "gone.html".into())].into();
    for site in sites_of(&spec) {
        let page = |status| site.error_page(status, Effort::Full).unwrap().map(|file| text(&file));
        assert_eq!(page(404).as_deref(), Some("not here"));
        assert!([500, 403, 410].map(page).iter().all(Option::is_none));
    }
}

#[test]
fn links_in_a_directory_are_opened_from_the_root() {
    let tree = Tree::new();
    tree.write("d/f", "f");
    tree.write("d/e/g", "g");
    tree.write("top", "top");
    tree.link("d/up", "../top");
    tree.link("d/dir", "e");
    tree.link("d/out", "../../secret");
    for site in tree.sites(|options| (options.browse, options.follow_symlinks) = (true, true)) {
        let Found::Directory(directory) = found(&site, "/d/", &[]) else { panic!("no directory") };
        let read = |name: &str| {
            std::io::read_to_string(std::fs::File::from(directory.open_linked(name.as_bytes())?))
        };
        assert_eq!(read("up").unwrap(), "top");
        assert_eq!(read("out").unwrap_err().kind(), std::io::ErrorKind::NotFound);
        let child = directory.child(b"dir", directory.open_linked(b"dir").unwrap());
        assert_eq!(child.path, b"d/dir");
        assert!(rustix::fs::statat(&child.fd, "g", rustix::fs::AtFlags::empty()).is_ok());
    }
}
