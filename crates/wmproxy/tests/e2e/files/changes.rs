//! Files that change while they are served, and roots that go away: nobody gets more than was promised, or two versions in
//! one, and a new version is seen soon.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use wmproxy_testkit::http::Head;
use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Client, Pattern, Proxy};

use super::{Tree, ask_h2, get, request};
use crate::http::http;
use crate::setup;

/// More than the buffers of both sockets hold.
const LARGE: usize = 32 << 20;

/// A file is looked at again after a second; this is what a slow machine may take on top of it.
const SOON: Duration = Duration::from_secs(10);

/// A download that has begun, and is not read.
struct Download {
    client: Client,
    head: Head,
}

impl Download {
    fn begin(proxy: &Proxy, target: &str) -> Self {
        let mut client = Client::connect(&proxy.tcp("h"));
        client.read_slowly();
        client.send(request("GET", target, ""));
        let head = client.head();
        assert_eq!(head.status(), 200);
        Download { client, head }
    }

    /// Reads to its end; says whether it was whole.
    fn end(mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let framing = self.head.response_framing("GET").unwrap();
        let is_whole = self.client.body(framing, |part| bytes.extend_from_slice(part)).is_ok();
        if is_whole {
            self.client.expect_idle();
        }
        (bytes, is_whole)
    }
}

fn large() -> (Tree, Vec<u8>) {
    let (tree, bytes) = (Tree::new(&[]), Pattern::new(1).bytes(0, LARGE));
    tree.file("data.bin", &bytes);
    (tree, bytes)
}

#[test]
fn who_has_begun_with_a_file_gets_the_whole_of_it_whatever_takes_its_name() {
    let (tree, bytes) = large();
    let proxy = tree.serve("", "");
    let download = Download::begin(&proxy, "/data.bin");
    let second = Download::begin(&proxy, "/data.bin");
    tree.replace("data.bin", "new");
    assert!(holds_within(SOON, || get(&proxy, "/data.bin", "").body == b"new"), "the new one is not seen");
    std::fs::remove_file(tree.path("data.bin")).unwrap();
    assert!(
        holds_within(SOON, || get(&proxy, "/data.bin", "").status() == 404),
        "that it is gone is not seen"
    );
    for download in [download, second] {
        let (got, is_whole) = download.end();
        assert!(is_whole && got == bytes, "{} bytes of the old one", got.len());
    }
}

#[test]
fn a_file_that_is_written_over_is_cut_and_not_mixed() {
    let (tree, bytes) = large();
    let proxy = tree.serve("", "");
    let download = Download::begin(&proxy, "/data.bin");
    let other = Pattern::new(2).bytes(0, LARGE);
    let mut file = std::fs::File::options().write(true).open(tree.path("data.bin")).unwrap();
    file.write_all(&other).unwrap();
    drop(file);
    let (got, is_whole) = download.end();
    assert!(!is_whole || got == bytes, "{} bytes passed for a whole", got.len());
    assert!(holds_within(SOON, || get(&proxy, "/data.bin", "").body == other), "the new one is not seen");
}

#[test]
fn a_file_that_shrinks_is_cut() {
    let (tree, bytes) = large();
    let proxy = tree.serve("", "");
    let download = Download::begin(&proxy, "/data.bin");
    let file = std::fs::File::options().write(true).open(tree.path("data.bin")).unwrap();
    file.set_len(1 << 10).unwrap();
    let (got, is_whole) = download.end();
    assert!(!is_whole && bytes.starts_with(&got[..got.len().min(1 << 10)]), "{} bytes", got.len());
    assert!(holds_within(SOON, || get(&proxy, "/data.bin", "").body == bytes[..1 << 10]));
}

#[test]
fn a_file_that_grows_sends_no_more_than_it_promised() {
    let (tree, bytes) = large();
    let proxy = tree.serve("", "");
    let download = Download::begin(&proxy, "/data.bin");
    let mut file = std::fs::File::options().append(true).open(tree.path("data.bin")).unwrap();
    file.write_all(&bytes).unwrap();
    let (got, _) = download.end();
    assert!(bytes.starts_with(&got), "{} bytes of {}", got.len(), bytes.len());
    let twice = |answer: &[u8]| answer.len() == 2 * LARGE && answer.ends_with(&bytes);
    assert!(holds_within(SOON, || twice(&get(&proxy, "/data.bin", "").body)), "the new one is not seen");
}

#[test]
fn a_new_version_is_seen_soon_and_has_a_tag_of_its_own() {
    let tree = Tree::new(&[("a.txt", "one")]);
    let proxy = tree.serve("", "");
    let mut tags: HashMap<String, String> = HashMap::new();
    let mut see = || {
        let answer = get(&proxy, "/a.txt", "");
        assert_eq!(answer.status(), 200);
        let tag = answer.head.get("etag").unwrap().to_owned();
        // The old tag with other bytes would stay in caches for good.
        let known = tags.entry(tag).or_insert_with(|| answer.text().to_owned());
        assert_eq!(known, answer.text());
        known.clone()
    };
    assert_eq!(see(), "one");
    // All of the same length, and within the same second or two.
    for (number, text) in ["two", "six", "ten", "add"].into_iter().enumerate() {
        let begun = Instant::now();
        if number % 2 == 0 {
            tree.replace("a.txt", text);
        } else {
            std::fs::write(tree.path("a.txt"), text).unwrap();
        }
        // Each worker looks for itself.
        assert!(holds_within(SOON, || (0..8).all(|_| see() == text)), "{text} after {:?}", begun.elapsed());
    }
    let tag = tags.iter().find(|(_, text)| *text == "add").unwrap().0;
    assert_eq!(get(&proxy, "/a.txt", &format!("If-None-Match: {tag}\r\n")).status(), 304);
}

#[test]
fn a_root_that_goes_away_is_not_there_until_it_is_back() {
    let tree = Tree::new(&[("a.txt", "old")]);
    let proxy = tree.serve("browse = true", "");
    proxy.expect_warn("root");
    assert_eq!(get(&proxy, "/a.txt", "").text(), "old");
    let away = tree.root().with_extension("away");
    std::fs::rename(tree.root(), &away).unwrap();
    for target in ["/a.txt", "/none", "/"] {
        // Each worker looks for itself.
        let is_gone = || (0..8).all(|_| get(&proxy, target, "").status() == 404);
        assert!(holds_within(SOON, is_gone), "{target} is still there");
    }
    for _ in 0..20 {
        assert_eq!(get(&proxy, "/a.txt", "").status(), 404);
    }
    let warnings = || proxy.log().lines().iter().filter(|line| line.contains("WARN")).count();
    assert!(holds_within(SOON, || warnings() > 0), "a word of it in the log:\n{}", proxy.log().text());
    assert!(warnings() <= 2, "not one for each request:\n{}", proxy.log().text());
    // Another one takes its place, as deploys have it.
    std::fs::create_dir(tree.root()).unwrap();
    std::fs::write(tree.path("a.txt"), "new").unwrap();
    assert!(holds_within(SOON, || get(&proxy, "/a.txt", "").body == b"new"), "the new root is not seen");
    std::fs::remove_dir_all(tree.root()).unwrap();
    std::fs::rename(&away, tree.root()).unwrap();
    assert!(holds_within(SOON, || get(&proxy, "/a.txt", "").body == b"old"), "the old root is not seen");
}

#[test]
fn a_root_that_is_switched_by_a_link_is_the_new_one_soon() {
    let tree = Tree::new(&[("one/a.txt", "one"), ("two/a.txt", "two")]);
    let current = tree.secret().with_file_name("current");
    std::os::unix::fs::symlink(tree.path("one"), &current).unwrap();
    let route = crate::http::route(&format!("files = {{ root = \"{}\" }}", current.display()));
    let proxy = super::start_routes(&route);
    assert_eq!(get(&proxy, "/a.txt", "").text(), "one");
    let next = current.with_file_name("next-link");
    std::os::unix::fs::symlink(tree.path("two"), &next).unwrap();
    std::fs::rename(&next, &current).unwrap();
    assert!(holds_within(SOON, || get(&proxy, "/a.txt", "").body == b"two"), "the new root is not seen");
}

#[test]
fn what_may_not_be_read_is_forbidden() {
    // Root may read everything.
    if !rustix::process::getuid().is_root() {
        return;
    }
    let tree = Tree::new(&[("a.txt", "alpha"), ("no.txt", "none"), ("locked/b.txt", "beta")]);
    let allow = |path: std::path::PathBuf, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap()
    };
    allow(tree.path("no.txt"), 0o600);
    allow(tree.path("locked"), 0o700);
    let config = format!("user = \"nobody\"\n{}", http("", &tree.route("browse = true", "")));
    let proxy = setup(&config).expect_warn("a socket's file stays behind").expect_warn("root").start();
    assert_eq!(get(&proxy, "/a.txt", "").text(), "alpha");
    for target in ["/no.txt", "/locked/b.txt", "/locked/", "/locked/none"] {
        assert_eq!(get(&proxy, target, "").status(), 403, "{target}");
    }
    allow(tree.root(), 0o700);
    assert!(
        holds_within(SOON, || get(&proxy, "/a.txt", "").status() == 403),
        "{}",
        get(&proxy, "/a.txt", "").status()
    );
    allow(tree.root(), 0o755);
    assert!(
        holds_within(SOON, || get(&proxy, "/a.txt", "").status() == 200),
        "{}",
        get(&proxy, "/a.txt", "").status()
    );
}

#[test]
fn ranges_of_ten_gigabytes_are_found_at_their_place() {
    let tree = Tree::new(&[]);
    const LENGTH: u64 = 10 << 30;
    const MIDDLE: u64 = 5 << 30;
    let mut file = std::fs::File::create(tree.path("huge.bin")).unwrap();
    file.set_len(LENGTH).unwrap();
    file.seek(SeekFrom::Start(MIDDLE)).unwrap();
    file.write_all(b"middle").unwrap();
    file.seek(SeekFrom::Start(LENGTH - 3)).unwrap();
    file.write_all(b"end").unwrap();
    drop(file);
    let proxy = tree.serve("", "");
    let before = proxy.memory_kb();
    let head = super::ask(&proxy, "HEAD", "/huge.bin", "");
    assert_eq!(head.head.get("content-length"), Some("10737418240"));
    for (range, expected) in [
        (format!("{MIDDLE}-{}", MIDDLE + 5), &b"middle"[..]),
        ("-3".to_owned(), b"end"),
        (format!("{}-", LENGTH - 3), b"end"),
        (format!("{}-{}", u64::from(u32::MAX), u64::from(u32::MAX) + 1), b"\0\0"),
    ] {
        let fields = format!("Range: bytes={range}\r\n");
        for answer in
            [get(&proxy, "/huge.bin", &fields), ask_h2(&proxy.tcp("h"), "GET", "/huge.bin", &fields)]
        {
            assert_eq!((answer.status(), &answer.body[..]), (206, expected), "{range}");
        }
    }
    // A part of the whole, by a client that has enough then.
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(request("GET", "/huge.bin", ""));
    assert_eq!(client.head().status(), 200);
    assert!(client.recv(8 << 20).iter().all(|byte| *byte == 0));
    drop(client);
    assert!(proxy.memory_kb() < before + 24 * 1024, "{} KiB, {before} before", proxy.memory_kb());
}

#[test]
fn many_files_cost_no_memory_and_no_descriptors() {
    const FILES: usize = 20_000;
    const BATCH: usize = 250;
    const KINDS: usize = 16;
    let tree = Tree::new(&[]);
    for kind in 0..KINDS {
        tree.file(kind.to_string(), kind.to_string());
    }
    // Links by other names are made quicker than files, and to the proxy they are as different.
    for number in 0..FILES {
        let folder = tree.path(format!("{}", number / BATCH));
        if number % BATCH == 0 {
            std::fs::create_dir(folder.with_extension("d")).unwrap();
        }
        let name = folder.with_extension("d").join(number.to_string());
        std::fs::hard_link(tree.path((number % KINDS).to_string()), name).unwrap();
    }
    let proxy = tree.serve("", "");
    let mut client = Client::connect(&proxy.tcp("h"));
    let mut after_some = 0;
    for batch in 0..FILES / BATCH {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let target = |number| request("GET", &format!("/{batch}.d/{number}"), "");
        client.send(numbers.clone().map(target).collect::<String>());
        for number in numbers {
            let answer = client.response();
            assert_eq!((answer.status(), answer.text()), (200, (number % KINDS).to_string().as_str()));
        }
        if batch == FILES / BATCH / 5 {
            after_some = proxy.memory_kb();
        }
    }
    // What the first 4,000 took is all that it takes.
    assert!(proxy.memory_kb() < after_some + 4 * 1024, "{} KiB, {after_some} before", proxy.memory_kb());
    assert!(proxy.fds().others < 3_000, "{:?}", proxy.fds());
}

#[test]
fn few_descriptors_are_enough_for_many_files() {
    let tree = Tree::new(&[]);
    for number in 0..600 {
        tree.file(format!("{number}.txt"), number.to_string());
    }
    // Enough for the proxy itself and some fifty connections.
    let proxy = setup(&http("", &tree.route("", ""))).nofile(192).start();
    let mut client = Client::connect(&proxy.tcp("h"));
    for number in 0..600 {
        let answer = client.get(&format!("/{number}.txt"));
        assert_eq!((answer.status(), answer.text()), (200, number.to_string().as_str()));
    }
    // The files that are kept open leave room for clients.
    let clients: Vec<Client> = (0..30).map(|_| Client::connect(&proxy.tcp("h"))).collect();
    for mut client in clients {
        assert_eq!(client.get("/7.txt").text(), "7");
    }
}
