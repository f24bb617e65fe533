//! Whole answers, and the rules of conditions against a table of the standard's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use wmproxy_wire::head::coding::Encoding;

use super::*;
use crate::options::Cors;

/// Sun, 06 Nov 1994 08:49:37 GMT.
const MODIFIED: u64 = 784_111_777;
const NOW: u64 = 1_800_000_000;
const MODIFIED_DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
const FUTURE: &str = "Fri, 31 Dec 9999 23:59:59 GMT";
const TAG: &str = "\"v1\"";

fn file(len: u64) -> File {
    let null = std::fs::File::open("/dev/null").unwrap();
    let modified = i128::from(MODIFIED) * 1_000_000_000 + 5;
    File {
        fd: null.into(),
        memory: Default::default(),
        version: crate::file::Version { device: 1, inode: 2, len, modified, changed: modified },
        content_type: "text/plain".into(),
        encoding: None,
        varies: false,
        etag: TAG.into(),
        last_modified: date(MODIFIED),
    }
}

fn spec() -> FilesSpec {
    FilesSpec {
        root: PathBuf::new(),
        index: Vec::new(),
        browse: false,
        archive: false,
        spa: None,
        precompressed: Vec::new(),
        hidden: false,
        follow_symlinks: false,
        cache_control: None,
        mime: BTreeMap::new(),
        cors: Cors::default(),
        error_pages: BTreeMap::new(),
    }
}

fn request(method: &str, lines: &[(&str, &str)]) -> Request {
    let mut request = Request::new();
    request.set_method(method.as_bytes());
    request.set_target(b"/a.txt");
    lines.iter().for_each(|(name, value)| request.fields.push(name.as_bytes(), value.as_bytes()));
    request
}

/// The head as one text: the status, and the fields.
fn head(response: &Response) -> String {
    let lines: Vec<_> = response.fields.iter().map(|field| format!("{field:?}")).collect();
    format!("{} {}", response.status, lines.join("; "))
}

fn answered(spec: &FilesSpec, file: &File, request: &Request) -> (String, Content) {
    // What was in it before is gone.
    let mut response = Response::with_status(500);
    response.fields.push(b"X-Old", b"1");
    let content = answer(spec, file, request, NOW, &mut response);
    (head(&response), content)
}

fn status(file: &File, method: &str, lines: &[(&str, &str)]) -> u16 {
    let mut response = Response::new();
    answer(&spec(), file, &request(method, lines), NOW, &mut response);
    response.status
}

#[test]
fn a_file_goes_whole_with_what_is_known_of_it() {
    let expected = "200 Content-Type: text/plain; Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT; ETag: \\\"v1\\\"; \
         Accept-Ranges: bytes";
    for (method, lines) in
        [("GET", &[][..]), ("HEAD", &[]), ("HEAD", &[("Range", "bytes=0-1")]), ("GET", &[("If-Range", "x")])]
    {
        let (head, content) = answered(&spec(), &file(1000), &request(method, lines));
        assert_eq!((&*head, content), (expected, Content::Part(0..1000)), "{method} {lines:?}");
    }
    let full = FilesSpec { cache_control: Some("max-age=60".into()), ..spec() };
    let encoded = File { encoding: Some(Encoding::Br), varies: true, ..file(0) };
    let (head, content) = answered(&full, &encoded, &request("GET", &[]));
    let expected = "200 Content-Type: text/plain; Content-Encoding: br; \
         Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT; ETag: \\\"v1\\\"; Accept-Ranges: bytes; \
         Cache-Control: max-age=60; Vary: Accept-Encoding";
    assert_eq!((&*head, content), (expected, Content::Part(0..0)));
}

#[test]
fn a_time_that_is_yet_to_come_is_told_as_now() {
    let modified = i128::from(NOW + 10) * 1_000_000_000;
    let mut new = file(1);
    new.version.modified = modified;
    new.last_modified = date(NOW + 10);
    let mut response = Response::new();
    answer(&spec(), &new, &request("GET", &[]), NOW, &mut response);
    assert_eq!(response.fields.get(Known::LastModified), Some(&date(NOW)[..]));
    // Who has seen that date has not seen the file.
    let now = String::from_utf8(date(NOW).to_vec()).unwrap();
    assert_eq!(status(&new, "GET", &[("If-Modified-Since", &now)]), 200);
    assert_eq!(status(&new, "GET", &[("If-Unmodified-Since", &now)]), 412);
    assert_eq!(status(&new, "GET", &[("Range", "bytes=0-"), ("If-Range", &now)]), 200);
    let old = File { version: crate::file::Version { modified: -1, ..new.version }, ..file(1) };
    assert_eq!(status(&old, "GET", &[("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")]), 304);
}

#[test]
fn a_client_that_has_the_file_is_told_so() {
    let full = FilesSpec { cache_control: Some("no-cache".into()), ..spec() };
    let varying = File { varies: true, ..file(9) };
    let strong = "304 ETag: \\\"v1\\\"; Cache-Control: no-cache; Vary: Accept-Encoding";
    let weak = "304 ETag: W/\\\"v1\\\"; Cache-Control: no-cache; Vary: Accept-Encoding";
    for (line, expected) in [
        ("\"v1\"", strong),
        ("*", strong),
        ("\"v0\", \"v1\"", strong),
        ("W/\"v1\"", weak),
        ("W/\"v1\", \"v1\"", strong),
    ] {
        for method in ["GET", "HEAD"] {
            let asked = request(method, &[("If-None-Match", line), ("Range", "bytes=0-")]);
            for (file, expected) in [
                (&varying, expected),
                // A weak tag comes from a filter that compressed it, so that it varies after all.
                (
                    &file(9),
                    if line == "W/\"v1\"" {
                        expected
                    } else {
                        "304 ETag: \\\"v1\\\"; Cache-Control: no-cache"
                    },
                ),
            ] {
                let (head, content) = answered(&full, file, &asked);
                assert_eq!((&*head, content), (expected, Content::Nothing), "{line}");
            }
        }
    }
}

/// What section 13.2.2 says, word for word, of one line of each field.
fn by_the_standard(lines: &[(&str, &str)], is_get: bool) -> u16 {
    let get = |name: &str| lines.iter().find(|line| line.0 == name).map(|line| line.1);
    let has = |list: &str, weakly: bool| {
        list == "*"
            || list.split(", ").any(|tag| tag == TAG || (weakly && tag.strip_prefix("W/") == Some(TAG)))
    };
    match (get("If-Match"), get("If-Unmodified-Since")) {
        (Some(list), _) if !has(list, false) => return 412,
        (None, Some(BEFORE)) => return 412,
        _ => {}
    }
    match (get("If-None-Match"), get("If-Modified-Since")) {
        (Some(list), _) if has(list, true) => return 304,
        (None, Some(MODIFIED_DATE | AFTER)) => return 304,
        _ => {}
    }
    let is_same = |value: &str| value == TAG || value == MODIFIED_DATE;
    match get("Range") {
        Some("bytes=2-3") if is_get && get("If-Range").is_none_or(is_same) => 206,
        Some("bytes=200-") if is_get && get("If-Range").is_none_or(is_same) => 416,
        _ => 200,
    }
}

#[test]
fn every_combination_of_conditions_comes_to_what_the_standard_says() {
    let tags = ["", "*", "\"v1\"", "\"v0\"", "W/\"v1\"", "\"v0\", \"v1\"", "\"v0\", W/\"v1\"", "v1", "\"v1"];
    let dates = ["", BEFORE, MODIFIED_DATE, AFTER, FUTURE, "yesterday", "1994"];
    let ranges = ["", "bytes=2-3", "bytes=200-", "bytes=x"];
    let if_ranges = ["", "\"v1\"", "\"v0\"", "W/\"v1\"", "\"v1\", \"v2\"", BEFORE, MODIFIED_DATE, AFTER, "x"];
    let file = file(100);
    let mut count = 0;
    for (if_match, if_none_match) in tags.iter().flat_map(|one| tags.iter().map(move |two| (one, two))) {
        for (unmodified, modified) in dates.iter().flat_map(|one| dates.iter().map(move |two| (one, two))) {
            for (range, if_range) in ranges.iter().flat_map(|one| if_ranges.iter().map(move |two| (one, two)))
            {
                let lines: Vec<(&str, &str)> = [
                    ("If-Match", *if_match),
                    ("If-Unmodified-Since", unmodified),
                    ("If-None-Match", if_none_match),
                    ("If-Modified-Since", modified),
                    ("Range", range),
                    ("If-Range", if_range),
                ]
                .into_iter()
                .filter(|line| !line.1.is_empty())
                .collect();
                for method in ["GET", "HEAD"] {
                    let expected = by_the_standard(&lines, method == "GET");
                    assert_eq!(status(&file, method, &lines), expected, "{method} {lines:?}");
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 9 * 9 * 7 * 7 * 4 * 9 * 2);
}

#[test]
fn fields_that_come_twice_are_one_list_or_void() {
    let file = file(100);
    for (expected, lines) in [
        (200, &[("If-Match", "\"v0\""), ("If-Match", "\"v1\"")][..]),
        (412, &[("If-Match", "\"v0\""), ("If-Match", "\"v2\"")]),
        (304, &[("If-None-Match", "\"v0\""), ("If-None-Match", "W/\"v1\"")]),
        (200, &[("If-Modified-Since", MODIFIED_DATE), ("If-Modified-Since", MODIFIED_DATE)]),
        (200, &[("If-Unmodified-Since", BEFORE), ("If-Unmodified-Since", BEFORE)]),
        (200, &[("Range", "bytes=0-1"), ("If-Range", TAG), ("If-Range", TAG)]),
        (200, &[("Range", "bytes=0-1"), ("Range", "bytes=0-1")]),
    ] {
        assert_eq!(status(&file, "GET", lines), expected, "{lines:?}");
    }
}

#[test]
fn ranges_are_sent_as_they_are_asked_for() {
    let rest = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT; ETag: \\\"v1\\\"; Accept-Ranges: bytes";
    for (value, part, field) in [
        ("bytes=0-", 0..1000, "bytes 0-999/1000"),
        ("bytes=0-0", 0..1, "bytes 0-0/1000"),
        ("bytes=-1", 999..1000, "bytes 999-999/1000"),
        ("bytes=990-18446744073709551615", 990..1000, "bytes 990-999/1000"),
        ("bytes=0-9,10-19,5000-", 0..20, "bytes 0-19/1000"),
    ] {
        let (head, content) = answered(&spec(), &file(1000), &request("GET", &[("Range", value)]));
        assert_eq!(head, format!("206 Content-Type: text/plain; Content-Range: {field}; {rest}"), "{value}");
        assert_eq!(content, Content::Part(part), "{value}");
    }
    let (head, content) = answered(&spec(), &file(1000), &request("GET", &[("Range", "bytes=1000-")]));
    assert_eq!(
        (&*head, content),
        ("416 Content-Range: bytes */1000; Accept-Ranges: bytes", Content::Nothing)
    );
    let (head, content) = answered(&spec(), &file(0), &request("GET", &[("Range", "bytes=0-")]));
    assert_eq!((&*head, content), ("416 Content-Range: bytes */0; Accept-Ranges: bytes", Content::Nothing));
    assert_eq!(status(&file(0), "GET", &[("Range", "bytes=-5")]), 200);
}

#[test]
fn several_ranges_go_in_one_body() {
    let asked = request("GET", &[("Range", "bytes=-10, 0-9")]);
    let (head, content) = answered(&spec(), &file(1000), &asked);
    let Content::Parts(parts) = content else { panic!("{content:?}") };
    let ranges: Vec<_> = parts.parts.iter().map(|part| part.1.clone()).collect();
    assert_eq!(ranges, [990..1000, 0..10]);
    let (before, boundary) = head.split_once("; boundary=").unwrap();
    let (boundary, behind) = boundary.split_once("; ").unwrap();
    assert_eq!(before, "206 Content-Type: multipart/byteranges");
    // The range of each part stands in its own head.
    assert_eq!(
        behind,
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT; ETag: \\\"v1\\\"; Accept-Ranges: bytes"
    );
    assert_eq!(parts.end, format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(
        parts.parts.iter().all(|(head, _)| head.windows(boundary.len()).any(|w| w == boundary.as_bytes()))
    );
    // The same again, and another one for other ranges.
    assert_eq!(answered(&spec(), &file(1000), &asked).0, head);
    assert_ne!(answered(&spec(), &file(1000), &request("GET", &[("Range", "bytes=-10, 0-8")])).0, head);
    // Where parts are no smaller than all of it, or are encoded, it goes whole.
    for file in [file(200), File { encoding: Some(Encoding::Gzip), ..file(1000) }] {
        let (_, content) = answered(&spec(), &file, &asked);
        assert_eq!(content, Content::Part(0..file.version.len));
    }
}

#[test]
fn an_error_page_has_neither_ranges_nor_validators() {
    let mut response = Response::with_status(206);
    response.fields.push_known(Known::ContentRange, b"bytes 0-0/1");
    assert_eq!(error_page(404, &file(7), &mut response), 0..7);
    assert_eq!(head(&response), "404 Content-Type: text/plain; Cache-Control: no-store");
}

#[test]
fn a_redirect_stays_with_the_host() {
    for (asked, expected) in [
        ("/a", "/a/"),
        ("/a/b", "/a/b/"),
        ("/a?b=c?d", "/a/?b=c?d"),
        ("/a?", "/a/?"),
        ("/a%20b", "/a%20b/"),
        ("//evil.example", "/evil.example/"),
        ("/\\evil.example", "/evil.example/"),
        ("///\\/evil.example/x", "/evil.example/x/"),
        ("//", "/"),
        ("/a?//evil.example", "/a/?//evil.example"),
        ("/", "/"),
    ] {
        let mut asked_for = Request::new();
        asked_for.set_target(asked.as_bytes());
        // What a rewrite made of it is not where the client is.
        asked_for.rewrite_target(b"/inside");
        let mut response = Response::with_status(500);
        redirect_to_slash(&asked_for, &mut response);
        assert_eq!(head(&response), format!("308 Location: {}", expected.escape_default()), "{asked}");
    }
}

#[test]
fn other_methods_are_answered_without_the_file() {
    let mut response = Response::new();
    for method in ["GET", "HEAD"] {
        assert_eq!(by_method(&spec(), &request(method, &[]), &mut response), Asked::File);
        assert_eq!(head(&response), "0 ");
    }
    for (method, status) in
        [("OPTIONS", 204), ("POST", 405), ("PUT", 405), ("DELETE", 405), ("PROPFIND", 405), ("get", 405)]
    {
        assert_eq!(by_method(&spec(), &request(method, &[]), &mut response), Asked::Answered);
        assert_eq!(head(&response), format!("{status} Allow: GET, HEAD, OPTIONS"), "{method}");
    }
}

/// The answer to a request, as far as pages of other origins are concerned.
fn cors(cors: &Cors, method: &str, lines: &[(&str, &str)]) -> String {
    let (spec, request) = (FilesSpec { cors: cors.clone(), ..spec() }, request(method, lines));
    let mut response = Response::new();
    if by_method(&spec, &request, &mut response) == Asked::File {
        response.set_status(404);
    }
    put_cors(&spec, &request, &mut response);
    head(&response)
}

#[test]
fn pages_of_other_origins_read_what_they_may() {
    const EXPOSED: &str =
        "Access-Control-Expose-Headers: Accept-Ranges, Content-Encoding, Content-Range, ETag";
    const PREFLIGHT: &str = "Access-Control-Allow-Methods: GET, HEAD; Access-Control-Allow-Headers: *; \
         Access-Control-Max-Age: 7200";
    const ALLOW: &str = "204 Allow: GET, HEAD, OPTIONS";
    let (nobody, all) = (Cors::All(false), Cors::All(true));
    let some = Cors::Origins(vec!["https://a.example".into(), "https://b.example:8443".into()]);
    let ours = ("Origin", "https://a.example");
    let asks = ("Access-Control-Request-Method", "GET");
    let other = ("Origin", "https://a.example.evil.example");

    assert_eq!(cors(&nobody, "GET", &[ours]), "404 ");
    assert_eq!(cors(&nobody, "OPTIONS", &[ours, asks]), ALLOW);

    let any = "Access-Control-Allow-Origin: *";
    assert_eq!(cors(&all, "GET", &[]), format!("404 {any}; {EXPOSED}"));
    assert_eq!(cors(&all, "HEAD", &[other]), format!("404 {any}; {EXPOSED}"));
    assert_eq!(cors(&all, "OPTIONS", &[]), format!("{ALLOW}; {any}"));
    assert_eq!(cors(&all, "OPTIONS", &[other, asks]), format!("{ALLOW}; {PREFLIGHT}; {any}"));

    let own = "Vary: Origin; Access-Control-Allow-Origin: https://a.example";
    assert_eq!(cors(&some, "GET", &[ours]), format!("404 {own}; {EXPOSED}"));
    assert_eq!(cors(&some, "OPTIONS", &[ours, asks]), format!("{ALLOW}; {PREFLIGHT}; {own}"));
    assert_eq!(cors(&some, "OPTIONS", &[ours]), format!("{ALLOW}; {own}"));
    for lines in [&[][..], &[other], &[("Origin", "null")], &[("Origin", "http://a.example")], &[ours, ours]]
    {
        assert_eq!(cors(&some, "GET", lines), "404 Vary: Origin", "{lines:?}");
    }
    assert_eq!(cors(&some, "OPTIONS", &[other, asks]), format!("{ALLOW}; Vary: Origin"));
}

proptest! {
    #[test]
    fn whatever_is_asked_what_goes_is_of_the_file(
        names in prop::collection::vec(0usize..6, 0..6),
        values in prop::collection::vec("(bytes=)?[0-9,\\- ]{0,30}|W?/?\"?[a-z0-9]{0,4}\"?|\\*|\\PC{0,20}", 6),
        len in 0u64..2000,
    ) {
        let fields =
            ["Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"];
        let lines: Vec<_> = names.iter().zip(&values).map(|(&name, value)| (fields[name], value.trim_ascii())).collect();
        let mut response = Response::new();
        let content = answer(&spec(), &file(len), &request("GET", &lines), NOW, &mut response);
        match content {
            Content::Nothing => prop_assert!(matches!(response.status, 304 | 412 | 416)),
            Content::Part(part) => {
                prop_assert!(part.start <= part.end && part.end <= len);
                prop_assert_eq!(response.status == 206, response.fields.has(Known::ContentRange));
                prop_assert!(response.status == 206 || part == (0..len));
            }
            Content::Parts(parts) => {
                prop_assert_eq!(response.status, 206);
                prop_assert!(parts.len < len);
            }
        }
    }
}
