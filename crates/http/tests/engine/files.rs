//! Files on their way: whole, in parts, large, cached, and changed meanwhile.

use std::fs::{self, OpenOptions};
use std::io::{Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use wmproxy_files::options::FilesOptions;
use wmproxy_http::options::{Encoding, EndpointSpec, HttpOptions, HttpSpec};
use wmproxy_net::record::Outcome;
use wmproxy_testkit::Pattern;
use wmproxy_testkit::dir::TempDir;
use wmproxy_testkit::h2;
use wmproxy_testkit::http::{Client, Message};

use crate::house::{House, eventually, spec};

/// More than the queues between us and a slow client take.
const LARGE: u64 = 6 << 20;

/// Options of a site below a directory.
fn options() -> FilesOptions {
    FilesOptions { browse: true, ..FilesOptions::default() }
}

fn site(root: &Path, options: &FilesOptions) -> EndpointSpec {
    EndpointSpec::Files(options.spec(root.to_owned()).unwrap())
}

fn serving(root: &TempDir) -> House {
    House::with(spec(HttpOptions::default(), site(root.path(), &options())), &[])
}

/// With its one route changed.
fn with_route(mut spec: HttpSpec, change: impl Fn(&mut wmproxy_http::options::RouteSpec)) -> HttpSpec {
    let mut routes = spec.routes.to_vec();
    routes.iter_mut().for_each(change);
    spec.routes = routes.into();
    spec
}

fn write(root: &TempDir, name: &str, seed: u64, len: u64) -> Vec<u8> {
    let bytes = Pattern::new(seed).bytes(0, len as usize);
    fs::write(root.join(name), &bytes).unwrap();
    bytes
}

fn get(client: &mut Client, path: &str, fields: &str) -> Message {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.response()
}

/// Reads the rest of a body. How much came, and whether it was all.
fn rest(client: &mut Client, framing: wmproxy_testkit::http::Framing) -> (Vec<u8>, bool) {
    let mut came = Vec::new();
    let is_whole = client.body(framing, |bytes| came.extend_from_slice(bytes)).is_ok();
    (came, is_whole)
}

#[test]
fn bytes_are_the_same_whatever_carries_them() {
    let root = TempDir::new();
    let house = serving(&root);
    let mut h1 = house.connect();
    let mut h2 = h2::Client::connect(&house.addr().into());
    for (seed, len) in
        [0, 1, 1024, 16 << 10, (16 << 10) + 1, 65_536, 524_287, 524_288, 3_000_001].into_iter().enumerate()
    {
        let bytes = write(&root, "file", seed as u64, len);
        // Another one at the same path.
        let name = format!("/file-{seed}");
        fs::rename(root.join("file"), root.join(&name[1..])).unwrap();
        for _ in 0..2 {
            let answer = h1.get(&name);
            assert_eq!((answer.status(), answer.body == bytes), (200, true), "{len}");
            assert_eq!(answer.head.get("content-length"), Some(&*len.to_string()));
            let answer = h2.get(&name);
            assert_eq!((answer.status, answer.body == bytes), (200, true), "{len}");
        }
        h1.send(format!("HEAD {name} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = h1.response_to("HEAD");
        assert_eq!((head.head.get("content-length"), head.body.len()), (Some(&*len.to_string()), 0));
    }
    h1.expect_idle();
    drop((h1, h2));
    house.assert_nothing_left();
}

#[test]
fn parts_of_large_and_small_files_are_sent() {
    let root = TempDir::new();
    let house = serving(&root);
    let large = write(&root, "large", 1, 3_000_000);
    let small = write(&root, "small", 2, 100);
    let mut client = house.connect();
    for (path, bytes, range) in [
        ("/large", &large, 0..3_000_000),
        ("/large", &large, 1..2_999_999),
        ("/large", &large, 2_000_000..2_000_001),
        ("/small", &small, 10..20),
    ] {
        let field = format!("Range: bytes={}-{}\r\n", range.start, range.end - 1);
        let answer = get(&mut client, path, &field);
        assert_eq!(answer.status(), 206);
        assert!(answer.body == bytes[range.clone()], "{path} {range:?}");
    }
    let answer = get(&mut client, "/large", "Range: bytes=0-99999,1000000-1999999,-10\r\n");
    assert_eq!(answer.status(), 206);
    assert!(answer.head.get("content-type").unwrap().starts_with("multipart/byteranges"));
    for part in [&large[..100_000], &large[1_000_000..2_000_000], &large[2_999_990..]] {
        assert!(answer.body.windows(part.len()).any(|window| window == part));
    }
    assert_eq!(get(&mut client, "/large", "Range: bytes=3000000-\r\n").status(), 416);
    client.expect_idle();
}

#[test]
fn requests_that_were_sent_ahead_are_answered_in_turn() {
    let root = TempDir::new();
    let house = serving(&root);
    let (large, small) = (write(&root, "large", 1, 2_000_000), write(&root, "small", 2, 100));
    let mut client = house.connect();
    let ask = |path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send([ask("/large"), ask("/small"), ask("/nothing"), ask("/large"), ask("/small")].concat());
    for expected in [Some(&large), Some(&small), None, Some(&large), Some(&small)] {
        let answer = client.response();
        match expected {
            Some(bytes) => assert!(answer.body == *bytes),
            None => assert_eq!(answer.status(), 404),
        }
    }
    client.expect_idle();
    drop(client);
    house.assert_nothing_left();
}

/// What a slow client gets of a [`LARGE`] file that `change` meets in the middle, and how the connection ended.
#[test]
fn what_lies_in_memory_goes_out_as_a_slow_client_takes_it() {
    const ROUNDS: usize = 40;
    let root = TempDir::new();
    let house = serving(&root);
    let sizes = [(8 << 10) - 1, 8 << 10, 65_536, 128 << 10];
    let all: Vec<_> = sizes.iter().map(|len| write(&root, &len.to_string(), *len, *len)).collect();
    // What was written just now is not kept yet.
    std::thread::sleep(Duration::from_millis(60));
    let mut client = house.connect();
    for _ in 0..ROUNDS {
        for len in sizes {
            client.send(format!("GET /{len} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }
    // More than the queues take: the end of most bodies waits for room.
    for _ in 0..ROUNDS {
        for bytes in &all {
            let answer = client.response();
            assert_eq!((answer.status(), answer.body.len()), (200, bytes.len()));
            assert!(answer.body == *bytes);
        }
    }
}

fn changed_meanwhile(change: impl FnOnce(&Path)) -> (Vec<u8>, Vec<u8>, bool, House) {
    let root = TempDir::new();
    let house = serving(&root);
    let bytes = write(&root, "file", 1, LARGE);
    let mut client = house.connect();
    client.read_slowly();
    client.send("GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head();
    assert_eq!(head.get("content-length"), Some(&*LARGE.to_string()));
    // A part of it is on its way.
    let begin = client.recv(65_536);
    change(&root.join("file"));
    let (end, is_whole) = rest(&mut client, wmproxy_testkit::http::Framing::Length((LARGE) - 65_536));
    drop(client);
    house.assert_nothing_left();
    (bytes, [begin, end].concat(), is_whole, house)
}

#[test]
fn a_file_that_becomes_shorter_is_cut() {
    let (bytes, came, is_whole, house) = changed_meanwhile(|path| {
        OpenOptions::new().write(true).open(path).unwrap().set_len(3 << 20).unwrap();
    });
    assert!(!is_whole && came.len() <= 3 << 20 && bytes.starts_with(&came));
    assert_eq!(*house.log.outcomes.lock().unwrap(), [Outcome::FileChanged]);
}

#[test]
fn a_file_that_is_written_to_is_cut() {
    let (_, came, is_whole, house) = changed_meanwhile(|path| {
        let mut file = OpenOptions::new().write(true).open(path).unwrap();
        file.seek(std::io::SeekFrom::End(-100)).unwrap();
        file.write_all(&[0; 100]).unwrap();
    });
    assert!(!is_whole && (came.len() as u64) < LARGE);
    assert_eq!(*house.log.outcomes.lock().unwrap(), [Outcome::FileChanged]);
}

#[test]
fn a_file_that_grows_is_cut() {
    let (_, came, is_whole, _house) = changed_meanwhile(|path| {
        OpenOptions::new().append(true).open(path).unwrap().write_all(&[0; 1 << 20]).unwrap();
    });
    assert!(!is_whole && (came.len() as u64) < LARGE);
}

#[test]
fn a_file_that_is_replaced_comes_whole_as_it_was() {
    let (bytes, came, is_whole, house) = changed_meanwhile(|path| {
        let other = path.with_extension("new");
        fs::write(&other, [0; 1000]).unwrap();
        fs::rename(other, path).unwrap();
    });
    assert!(is_whole && bytes == came);
    assert_eq!(*house.log.outcomes.lock().unwrap(), [Outcome::Done]);
}

#[test]
fn a_file_that_is_removed_comes_whole() {
    let (bytes, came, is_whole, _house) = changed_meanwhile(|path| fs::remove_file(path).unwrap());
    assert!(is_whole && bytes == came);
}

#[test]
fn a_whole_response_is_one_version_though_the_kernel_sends_the_file_itself() {
    let root = TempDir::new();
    let house = serving(&root);
    let bytes = write(&root, "file", 1, LARGE);
    let mut client = house.connect();
    client.read_slowly();
    client.send("GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    let mut came = client.recv(LARGE as usize - 65_536);
    // Its end lies in the queues, or will in a moment: from then on nobody can cut it off.
    std::thread::sleep(Duration::from_millis(20));
    let mut file = OpenOptions::new().write(true).open(root.join("file")).unwrap();
    file.write_all(&vec![0; LARGE as usize]).unwrap();
    let (end, is_whole) = rest(&mut client, wmproxy_testkit::http::Framing::Length(65_536));
    came.extend(end);
    assert!(!is_whole || came == bytes);
}

fn memory() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_file_of_ten_gigabytes_takes_no_more_memory_than_others() {
    let root = TempDir::new();
    let house = serving(&root);
    let len = 10_u64 << 30;
    fs::File::create(root.join("holes")).unwrap().set_len(len).unwrap();
    let mut client = house.connect();
    let before = memory();
    client.send("GET /holes HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().get("content-length"), Some(&*len.to_string()));
    for _ in 0..16 {
        assert!(client.recv(1 << 20).iter().all(|&byte| byte == 0));
    }
    let grown = memory().saturating_sub(before);
    // The test itself holds some.
    assert!(grown < 64 << 20, "{grown}");
    client.reset();
    let answer = get(&mut house.connect(), "/holes", "Range: bytes=10737418230-\r\n");
    assert_eq!((answer.status(), answer.body), (206, vec![0; 10]));
    house.assert_nothing_left();
}

#[test]
fn who_takes_nothing_is_cut_off() {
    let root = TempDir::new();
    write(&root, "file", 1, LARGE);
    let mut options = HttpOptions::default();
    options.timeouts.write = "200ms".parse().unwrap();
    let house = House::with(spec(options, site(root.path(), &self::options())), &[]);
    let client = {
        let mut client = house.connect();
        client.read_slowly();
        client.send("GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    eventually(|| !house.log.outcomes.lock().unwrap().is_empty());
    assert!(matches!(house.log.outcomes.lock().unwrap()[..], [Outcome::ClientSilent | Outcome::ClientSlow]));
    drop(client);
    house.assert_nothing_left();
}

#[test]
fn a_client_that_goes_leaves_nothing_behind() {
    let root = TempDir::new();
    write(&root, "file", 1, LARGE);
    for number in 0..300 {
        fs::write(root.join(&format!("{number:0200}")), "").unwrap();
    }
    let house = serving(&root);
    for path in ["/file", "/", "/?archive=tar"] {
        let mut client = house.connect();
        client.read_slowly();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.head();
        client.reset();
        house.assert_nothing_left();
    }
}

#[test]
fn what_changes_is_seen_within_a_second_or_so() {
    let root = TempDir::new();
    let house = serving(&root);
    root.write("page", "one");
    let mut client = house.connect();
    let first = client.get("/page");
    assert_eq!(first.text(), "one");
    for (new, text) in [("two", Some("two")), ("", None)] {
        match text {
            Some(_) => fs::rename(root.write("other", new), root.join("page")).unwrap(),
            None => fs::remove_file(root.join("page")).unwrap(),
        }
        let changed = Instant::now();
        while text.map_or(client.get("/page").status() == 200, |text| client.get("/page").text() != text) {
            assert!(changed.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(changed.elapsed() < Duration::from_secs(5), "{:?}", changed.elapsed());
    }
}

#[test]
fn a_file_that_is_written_to_and_is_small_is_never_a_mixture() {
    let root = TempDir::new();
    let house = serving(&root);
    let write = |byte: u8| fs::write(root.join("file"), vec![byte; 10_000]).unwrap();
    write(b'a');
    let mut client = house.connect();
    let mut tags = std::collections::HashMap::new();
    for round in 0..200 {
        write(b'a' + round % 26);
        let answer = client.get("/file");
        let all: std::collections::BTreeSet<u8> = answer.body.iter().copied().collect();
        assert_eq!((answer.body.len(), all.len()), (10_000, 1));
        let before = tags.entry(answer.head.get("etag").unwrap().to_owned()).or_insert(answer.body[0]);
        assert_eq!(*before, answer.body[0]);
    }
}

#[test]
fn listings_come_in_chunks_or_end_with_their_connection() {
    let root = TempDir::new();
    let house = serving(&root);
    for number in 0..2000 {
        root.write(&format!("name-{number}"), "");
    }
    let mut client = house.connect();
    let listing = client.get("/");
    assert_eq!(listing.head.get("transfer-encoding"), Some("chunked"));
    let names = |body: &[u8]| {
        let text = String::from_utf8_lossy(body);
        (0..2000).all(|number| text.contains(&format!("name-{number}")))
    };
    assert!(names(&listing.body));
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status(), 200);
    client.expect_idle();
    let old = Client::once(&house.addr().into(), "GET / HTTP/1.0\r\n\r\n");
    assert!(names(&old.body) && old.head.get("transfer-encoding").is_none());
    assert!(names(&h2::Client::connect(&house.addr().into()).get("/").body));
    drop(client);
    house.assert_nothing_left();
}

#[test]
fn paths_are_rewritten_and_tried() {
    let root = TempDir::new();
    root.write("index.html", "the index");
    root.write("dir/page.html", "a page");
    root.write("404.html", "not here");
    let options: FilesOptions = toml::from_str("error_pages = { 404 = '404.html' }").unwrap();
    let plain = || spec(HttpOptions::default(), site(root.path(), &options));
    let stripped = with_route(plain(), |route| route.rewrite.strip_prefix = Some("/static".into()));
    let house = House::with(stripped, &[]);
    let mut client = house.connect();
    assert_eq!(client.get("/static/dir/page.html").text(), "a page");
    assert_eq!(client.get("/static/").text(), "the index");
    let redirect = client.get("/static?q");
    assert_eq!((redirect.status(), redirect.head.get("location")), (308, Some("/static/?q")));
    let missing = client.get("/static/nothing");
    assert_eq!((missing.status(), missing.text()), (404, "not here"));
    assert_eq!(missing.head.get("content-type"), Some("text/html; charset=utf-8"));
    let steps = ["{path}", "{path}.html", "=410"].map(|step| step.parse().unwrap());
    let tried = with_route(plain(), |route| route.try_paths = steps.to_vec());
    let house = House::with(tried, &[]);
    let mut client = house.connect();
    assert_eq!(client.get("/dir/page").text(), "a page");
    assert_eq!(client.get("/dir/page.html").text(), "a page");
    assert_eq!(client.get("/dir/nothing").status(), 410);
    let once = |request: &str| Client::once(&house.addr().into(), request).status();
    assert_eq!(once("GET /dir%2fpage HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(once("PUT /dir/page HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), 405);
}

#[test]
fn a_directory_that_a_path_is_made_into_is_no_redirect_without_an_end() {
    let root = TempDir::new();
    root.write("dir/index.html", "the index");
    root.write("page", "a page");
    let plain = || spec(HttpOptions::default(), site(root.path(), &FilesOptions::default()));
    let rewritten = with_route(plain(), |route| {
        route.rewrite.rewrite = Some(("^/old/?$".into(), "/dir".into()));
    });
    let tried = with_route(plain(), |route| route.try_paths = vec!["/dir".parse().unwrap()]);
    for spec in [rewritten, tried] {
        let house = House::with(spec, &[]);
        let mut client = house.connect();
        for _ in 0..2 {
            let redirect = client.get("/old");
            assert_eq!((redirect.status(), redirect.head.get("location")), (308, Some("/old/")));
            assert_eq!(client.get("/old/").text(), "the index");
        }
    }
    let page = with_route(plain(), |route| route.try_paths = vec!["/page".parse().unwrap()]);
    assert_eq!(House::with(page, &[]).connect().get("/old/").text(), "a page");
}

#[test]
fn files_are_compressed_on_their_way_where_that_is_wanted() {
    let root = TempDir::new();
    let text = "all work and no play makes jack a dull boy\n".repeat(50_000);
    root.write("large.txt", &text);
    root.write("small.txt", &text[..4300]);
    let compressing = with_route(spec(HttpOptions::default(), site(root.path(), &options())), |route| {
        route.filters.compress = vec![Encoding::Gzip]
    });
    let house = House::with(compressing, &[]);
    let mut client = house.connect();
    for path in ["/large.txt", "/small.txt"] {
        for _ in 0..2 {
            let answer = get(&mut client, path, "Accept-Encoding: gzip\r\n");
            assert_eq!(answer.head.get("content-encoding"), Some("gzip"), "{path}");
            assert!(answer.head.get("etag").unwrap().starts_with("W/"));
            assert!(answer.body.len() < 20_000 && answer.body.starts_with(&[0x1f, 0x8b]));
        }
        let part = get(&mut client, path, "Accept-Encoding: gzip\r\nRange: bytes=0-3\r\n");
        assert_eq!((part.status(), part.text(), part.head.get("content-encoding")), (206, "all ", None));
    }
    assert!(client.get("/large.txt").body == text.as_bytes());
    client.expect_idle();
}
