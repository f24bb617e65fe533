//! Methods, conditions and ranges of RFC 9110, the same by every version of HTTP.

use wmproxy_testkit::http::Message;
use wmproxy_testkit::{Client, Pattern};

use super::{By, MODIFIED, Tree, Web, get};

const LENGTH: usize = 100_000;
const EARLIER: &str = "Sat, 03 Feb 2024 04:05:05 GMT";
const LATER: &str = "Sat, 03 Feb 2024 04:05:07 GMT";

/// A tree with one file of bytes that tell their place.
fn tree() -> (Tree, Vec<u8>) {
    let (tree, bytes) = (Tree::new(&[("empty.txt", "")]), Pattern::new(3).bytes(0, LENGTH));
    tree.file("data.bin", &bytes);
    (tree, bytes)
}

fn etag(message: &Message) -> &str {
    let etag = message.head.get("etag").unwrap();
    assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "a strong tag: {etag}");
    etag
}

/// What a head says beside when and how it was sent.
fn lasting(message: &Message) -> Vec<(String, String)> {
    let fields = message.head.fields.iter().map(|(name, value)| (name.to_lowercase(), value.clone()));
    let mut fields: Vec<_> = fields.filter(|(name, _)| name != "date" && name != "connection").collect();
    fields.sort();
    fields
}

#[test]
fn a_file_comes_with_all_that_caches_need() {
    let (tree, bytes) = tree();
    let web = Web::new(&tree, "", "");
    let mut heads = Vec::new();
    for by in By::ALL {
        let answer = web.get(by, "/data.bin", "");
        assert_eq!(answer.status(), 200, "{by:?}");
        assert!(answer.body == bytes, "{by:?}: other bytes");
        assert_eq!(answer.head.get("content-length"), Some("100000"));
        assert_eq!(answer.head.get("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.head.get("last-modified"), Some(MODIFIED));
        assert_eq!(answer.head.get("accept-ranges"), Some("bytes"));
        assert!(answer.head.has("date") && !answer.head.has("cache-control") && !answer.head.has("vary"));
        etag(&answer);
        let head = web.ask(by, "HEAD", "/data.bin", "");
        assert_eq!((head.status(), head.body.len()), (200, 0), "{by:?}");
        assert_eq!(lasting(&head), lasting(&answer), "{by:?}: HEAD and GET");
        heads.push(lasting(&answer));
    }
    assert!(heads[0] == heads[1] && heads[1] == heads[2], "one head by all ways: {heads:#?}");
    let empty = web.get(By::H1, "/empty.txt", "");
    assert_eq!((empty.status(), empty.head.get("content-length")), (200, Some("0")));
}

#[test]
fn other_methods_are_told_what_there_is() {
    let (tree, _) = tree();
    let web = Web::new(&tree, "", "");
    for by in By::ALL {
        for method in ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"] {
            let answer = web.ask(by, method, "/data.bin", "");
            assert_eq!(answer.status(), 405, "{by:?} {method}");
            let allow = answer.head.get("allow").unwrap();
            let mut allow: Vec<_> = allow.split(", ").collect();
            allow.sort_unstable();
            assert_eq!(allow, ["GET", "HEAD", "OPTIONS"], "{by:?} {method}");
        }
        let answer = web.ask(by, "OPTIONS", "/data.bin", "");
        assert_eq!((answer.status(), answer.body.len()), (204, 0), "{by:?}");
        assert!(answer.head.lists("allow", "GET") && !answer.head.has("access-control-allow-origin"));
    }
}

#[test]
fn a_body_that_a_file_does_not_need_is_no_request() {
    let tree = Tree::new(&[("a.txt", "alpha")]);
    let proxy = tree.serve("", "");
    let mut client = Client::connect(&proxy.tcp("h"));
    let hidden = super::request("GET", "/b.txt", "");
    let length = format!("Content-Length: {}\r\n", hidden.len());
    client.send(super::request("GET", "/a.txt", &length) + &hidden);
    let answer = client.response();
    assert_eq!((answer.status(), answer.text()), (200, "alpha"));
    if answer.head.keeps_alive() {
        assert_eq!(client.get("/a.txt").text(), "alpha");
        client.expect_idle();
    }
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("POST /a.txt HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000000\r\n\r\n");
    let _ = client.try_send(vec![0; 1 << 20]);
    assert_eq!(client.response().status(), 405);
}

#[test]
fn requests_in_one_go_are_answered_in_order() {
    let (tree, bytes) = tree();
    tree.file("a.txt", "alpha");
    let proxy = tree.serve("", "");
    let mut client = Client::connect(&proxy.tcp("h"));
    let targets = ["/a.txt", "/data.bin", "/none", "/a.txt", "/data.bin", "/a.txt"];
    let all = targets.map(|target| super::request("GET", target, "")).concat();
    client.send(all);
    for target in targets {
        let answer = client.response();
        match target {
            "/a.txt" => assert_eq!((answer.status(), answer.text()), (200, "alpha")),
            "/none" => assert_eq!(answer.status(), 404),
            _ => assert!(answer.status() == 200 && answer.body == bytes, "other bytes"),
        }
    }
    client.expect_idle();
    // 1.0 keeps no connection unless asked to.
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET /data.bin HTTP/1.0\r\n\r\n");
    let answer = client.response();
    assert!(answer.body == bytes && answer.head.get("content-length") == Some("100000"));
    client.expect_closed();
}

/// Conditions and the status that they give, with `E` for the entity tag, and `<`, `=` and `>` for dates before, at and
/// after that of the file. In the order of RFC 9110 section 13.2.2.
const CONDITIONS: &[(&str, u16)] = &[
    ("If-Match: E\r\n", 200),
    ("If-Match: \"x\", E\r\n", 200),
    ("If-Match: *\r\n", 200),
    ("If-Match: \"x\"\r\n", 412),
    // A weak tag never matches strongly.
    ("If-Match: W/E\r\n", 412),
    ("If-Unmodified-Since: =\r\n", 200),
    ("If-Unmodified-Since: >\r\n", 200),
    ("If-Unmodified-Since: <\r\n", 412),
    ("If-Unmodified-Since: yesterday\r\n", 200),
    ("If-Match: E\r\nIf-Unmodified-Since: <\r\n", 200),
    ("If-None-Match: E\r\n", 304),
    ("If-None-Match: W/E\r\n", 304),
    ("If-None-Match: \"x\",, \"y,z\" , E\r\n", 304),
    ("If-None-Match: \"x\"\r\nIf-None-Match: E\r\n", 304),
    ("If-None-Match: *\r\n", 304),
    ("If-None-Match: \"x\"\r\n", 200),
    ("If-None-Match: \"x\"\r\nIf-Modified-Since: =\r\n", 200),
    ("If-None-Match: E\r\nIf-Modified-Since: <\r\n", 304),
    ("If-Modified-Since: =\r\n", 304),
    ("If-Modified-Since: >\r\n", 304),
    ("If-Modified-Since: <\r\n", 200),
    ("If-Modified-Since: 1\r\n", 200),
    ("If-Match: \"x\"\r\nIf-None-Match: E\r\n", 412),
    ("If-Match: E\r\nIf-None-Match: E\r\n", 304),
    ("If-Unmodified-Since: <\r\nIf-None-Match: E\r\n", 412),
    ("If-Unmodified-Since: =\r\nIf-Modified-Since: =\r\n", 304),
];

#[test]
fn conditions_hold_or_do_not() {
    let (tree, bytes) = tree();
    let web = Web::new(&tree, "cache_control = \"max-age=60\"", "");
    let whole = web.get(By::H1, "/data.bin", "");
    let tag = etag(&whole);
    for by in By::ALL {
        for (fields, expected) in CONDITIONS {
            let fields = fields.replace(": =", &format!(": {MODIFIED}"));
            let fields = fields.replace(": <", &format!(": {EARLIER}")).replace(": >", &format!(": {LATER}"));
            let fields = fields.replace(" E", &format!(" {tag}")).replace("W/E", &format!("W/{tag}"));
            for method in ["GET", "HEAD"] {
                let answer = web.ask(by, method, "/data.bin", &fields);
                assert_eq!(answer.status(), *expected, "{by:?} {method} {fields}");
                if *expected == 304 {
                    // Whoever knows it by a weak tag is told of that one.
                    let weak = if fields.contains("W/") { "W/" } else { "" };
                    assert_eq!(
                        answer.head.get("etag"),
                        Some(format!("{weak}{tag}").as_str()),
                        "{by:?} {fields}"
                    );
                    assert_eq!(answer.head.get("cache-control"), Some("max-age=60"));
                    assert!(answer.head.has("date") && !answer.head.has("content-type"), "{answer:?}");
                }
                let is_whole = *expected == 200 && method == "GET";
                assert_eq!(answer.body == bytes, is_whole, "{by:?} {method} {fields}");
            }
        }
    }
}

/// A `Range` of a file of 100,000 bytes, and what of it comes: none is all of it without a word of ranges.
const RANGES: &[(&str, Option<(usize, usize)>)] = &[
    ("bytes=0-0", Some((0, 1))),
    ("bytes=0-9", Some((0, 10))),
    ("bytes=500-70000", Some((500, 70_001))),
    ("bytes=99990-", Some((99_990, LENGTH))),
    ("bytes=99999-99999", Some((99_999, LENGTH))),
    ("bytes=-10", Some((99_990, LENGTH))),
    ("bytes=-100000", Some((0, LENGTH))),
    ("bytes=-100001", Some((0, LENGTH))),
    ("bytes=0-", Some((0, LENGTH))),
    ("bytes=99990-100000", Some((99_990, LENGTH))),
    ("bytes=5-18446744073709551615", Some((5, LENGTH))),
    ("bytes=5-18446744073709551616", Some((5, LENGTH))),
    ("bytes=5-99999999999999999999999999999999", Some((5, LENGTH))),
    ("bytes=-18446744073709551616", Some((0, LENGTH))),
    ("BYTES=1-2", Some((1, 3))),
    ("bytes=, 1-2 ,", Some((1, 3))),
    // Several that are one in the end.
    ("bytes=0-9,10-19", Some((0, 20))),
    ("bytes=0-9, 5-30", Some((0, 31))),
    ("bytes=7-9,100000-", Some((7, 10))),
    ("bytes=9-5", None),
    ("bytes=", None),
    ("bytes=-", None),
    ("bytes=5", None),
    ("bytes=a-b", None),
    ("bytes=1-2x", None),
    ("bytes=0x1-0x2", None),
    ("bytes=+1-2", None),
    ("bytes=--1", None),
    ("bytes=1-2-3", None),
    ("bytes=0-1;2-3", None),
    ("items=0-1", None),
    ("0-1", None),
];

#[test]
fn a_range_is_what_was_asked_for() {
    let (tree, bytes) = tree();
    let web = Web::new(&tree, "", "");
    for by in By::ALL {
        for (range, expected) in RANGES {
            let answer = web.get(by, "/data.bin", &format!("Range: {range}\r\n"));
            let Some((start, end)) = *expected else {
                assert_eq!(answer.status(), 200, "{by:?} {range}");
                assert!(answer.body == bytes && !answer.head.has("content-range"), "{by:?} {range}");
                continue;
            };
            assert_eq!(answer.status(), 206, "{by:?} {range}");
            let place = format!("bytes {start}-{}/{LENGTH}", end - 1);
            assert_eq!(answer.head.get("content-range"), Some(place.as_str()), "{by:?} {range}");
            assert_eq!(answer.head.get("content-type"), Some("application/octet-stream"));
            assert_eq!(answer.head.get("content-length"), Some((end - start).to_string().as_str()));
            assert!(answer.body == bytes[start..end], "{by:?} {range}: other bytes");
            etag(&answer);
        }
    }
    // Only GET has ranges (RFC 9110 section 14.2).
    let head = web.ask(By::H1, "HEAD", "/data.bin", "Range: bytes=0-9\r\n");
    assert_eq!((head.status(), head.head.get("content-length")), (200, Some("100000")));
}

#[test]
fn a_range_that_is_not_there_is_a_416() {
    let (tree, _) = tree();
    let web = Web::new(&tree, "", "");
    for by in By::ALL {
        for (target, range, length) in [
            ("/data.bin", "bytes=100000-", LENGTH),
            ("/data.bin", "bytes=100000-100001", LENGTH),
            ("/data.bin", "bytes=-0", LENGTH),
            ("/data.bin", "bytes=200000-,300000-", LENGTH),
            ("/data.bin", "bytes=18446744073709551615-", LENGTH),
            ("/data.bin", "bytes=18446744073709551616-", LENGTH),
            ("/data.bin", "bytes=18446744073709551614-18446744073709551615", LENGTH),
            ("/data.bin", "bytes=99999999999999999999999999999999-", LENGTH),
            ("/empty.txt", "bytes=0-", 0),
            ("/empty.txt", "bytes=0-0", 0),
        ] {
            let answer = web.get(by, target, &format!("Range: {range}\r\n"));
            assert_eq!(answer.status(), 416, "{by:?} {target} {range}");
            let place = format!("bytes */{length}");
            assert_eq!(answer.head.get("content-range"), Some(place.as_str()), "{by:?} {range}");
            assert!(!answer.head.has("last-modified") || answer.body.len() < 1_000, "{answer:?}");
        }
    }
}

/// Takes a body of `multipart/byteranges` apart (RFC 2046 section 5.1, RFC 9110 section 14.6): type, place and bytes of
/// each part.
fn parts(answer: &Message) -> Vec<(String, String, Vec<u8>)> {
    let kind = answer.head.get("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{kind}"));
    let mark = format!("--{}", boundary.trim_matches('"'));
    let mut parts = Vec::new();
    let mut rest = answer.body.strip_prefix(b"\r\n").unwrap_or(&answer.body);
    loop {
        rest = rest.strip_prefix(mark.as_bytes()).expect("a boundary");
        if let Some(end) = rest.strip_prefix(b"--") {
            assert!(end.is_empty() || end == b"\r\n", "behind the last boundary: {end:?}");
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").expect("the boundary's end");
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("the head's end");
        let (head, behind) = (String::from_utf8(rest[..end].to_vec()).unwrap(), &rest[end + 4..]);
        let field = |name: &str| {
            let mut lines = head.split("\r\n").map(|line| line.split_once(": ").unwrap());
            let found = lines.find(|(other, _)| other.eq_ignore_ascii_case(name));
            found.unwrap_or_else(|| panic!("{name} in {head}")).1.to_owned()
        };
        let place = field("content-range");
        let (from, to) = place["bytes ".len()..].split_once('/').unwrap().0.split_once('-').unwrap();
        let length = to.parse::<usize>().unwrap() + 1 - from.parse::<usize>().unwrap();
        parts.push((field("content-type"), place.clone(), behind[..length].to_vec()));
        rest = behind[length..].strip_prefix(b"\r\n").expect("a line's end before the boundary");
    }
}

#[test]
fn several_ranges_come_as_parts() {
    let (tree, bytes) = tree();
    let web = Web::new(&tree, "", "");
    for by in By::ALL {
        for (range, expected) in [
            ("bytes=0-0,99999-99999", &[(0, 1), (99_999, LENGTH)][..]),
            ("bytes=0-9, 20-29 ,-5", &[(0, 10), (20, 30), (99_995, LENGTH)]),
            ("bytes=10-19,200000-,30-30000", &[(10, 20), (30, 30_001)]),
        ] {
            let answer = web.get(by, "/data.bin", &format!("Range: {range}\r\n"));
            assert_eq!(answer.status(), 206, "{by:?} {range}");
            assert!(!answer.head.has("content-range"), "{by:?} {range}");
            assert_eq!(answer.head.get("content-length"), Some(answer.body.len().to_string().as_str()));
            let expected: Vec<_> = expected
                .iter()
                .map(|&(start, end)| {
                    let place = format!("bytes {start}-{}/{LENGTH}", end - 1);
                    ("application/octet-stream".to_owned(), place, bytes[start..end].to_vec())
                })
                .collect();
            assert!(parts(&answer) == expected, "{by:?} {range}: {:?}", answer.head);
        }
    }
}

#[test]
fn a_client_that_has_a_part_gets_the_rest_of_the_same_and_of_no_other() {
    let (tree, bytes) = tree();
    let web = Web::new(&tree, "", "");
    let whole = web.get(By::H1, "/data.bin", "");
    let tag = etag(&whole);
    for by in By::ALL {
        for (condition, expected) in [
            (tag.to_owned(), 206),
            (MODIFIED.to_owned(), 206),
            (format!("W/{tag}"), 200),
            ("\"x\"".to_owned(), 200),
            (EARLIER.to_owned(), 200),
            (LATER.to_owned(), 200),
            ("x".to_owned(), 200),
        ] {
            let fields = format!("Range: bytes=10-\r\nIf-Range: {condition}\r\n");
            let answer = web.get(by, "/data.bin", &fields);
            assert_eq!(answer.status(), expected, "{by:?} {condition}");
            let start = if expected == 206 { 10 } else { 0 };
            assert!(answer.body == bytes[start..], "{by:?} {condition}");
        }
        // The condition fails: what is not there in the range does not matter.
        let answer = web.get(by, "/data.bin", "Range: bytes=100000-\r\nIf-Range: \"x\"\r\n");
        assert_eq!(answer.status(), 200, "{by:?}");
        // First the conditions, then the range.
        let fields = format!("Range: bytes=10-\r\nIf-None-Match: {tag}\r\n");
        assert_eq!(web.get(by, "/data.bin", &fields).status(), 304, "{by:?}");
        let answer = web.get(by, "/data.bin", "Range: bytes=10-\r\nIf-Match: \"x\"\r\n");
        assert_eq!(answer.status(), 412, "{by:?}");
    }
}

#[test]
fn dates_of_today_are_no_strong_validators() {
    let (tree, bytes) = tree();
    let proxy = tree.serve("", "");
    // It may be written once more within the same second (RFC 9110 section 8.8.2.2).
    let within_a_second = || {
        std::fs::write(tree.path("data.bin"), &bytes).unwrap();
        let date = get(&proxy, "/data.bin", "").head.get("last-modified").unwrap().to_owned();
        let answer = get(&proxy, "/data.bin", &format!("Range: bytes=10-\r\nIf-Range: {date}\r\n"));
        (answer.head.get("date") == Some(&*date)).then_some((answer.status(), answer.body.len()))
    };
    // The next second may begin in between.
    let answer = (0..20).find_map(|_| within_a_second());
    assert_eq!(answer, Some((200, LENGTH)));
}
