//! The same requests to nginx and to us, over the same tree. Where the answers differ, the table says why.

use std::collections::BTreeSet;

use wmproxy_testkit::exec::Service;
use wmproxy_testkit::http::Message;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Pattern, Proxy, TempDir};

use super::asked;
use super::http::nginx;
use crate::files::{MODIFIED, Tree, ask_at};

const EARLIER: &str = "If-Modified-Since: Sat, 03 Feb 2024 04:05:05 GMT\r\n";
const LATER: &str = "If-Modified-Since: Sat, 03 Feb 2024 04:05:07 GMT\r\n";

/// Requests that both answer alike.
const ALIKE: &[(&str, &str, &str)] = &[
    ("GET", "/", ""),
    ("HEAD", "/", ""),
    ("GET", "/index.html", ""),
    ("GET", "/a.txt", ""),
    ("HEAD", "/a.txt", ""),
    ("GET", "/a.txt?query", ""),
    ("GET", "//a.txt", ""),
    ("GET", "/sub//b.css", ""),
    ("GET", "/%61.txt", ""),
    ("GET", "/sub/b.css", ""),
    ("GET", "/picture.png", ""),
    ("GET", "/picture.jpg", ""),
    ("GET", "/film.mp4", ""),
    ("GET", "/font.woff2", ""),
    ("GET", "/data.json", ""),
    ("GET", "/noend", ""),
    ("GET", "/a%20b.txt", ""),
    ("GET", "/caf%C3%A9.txt", ""),
    ("GET", "/empty.txt", ""),
    ("HEAD", "/empty.txt", ""),
    ("GET", "/data.bin", ""),
    ("HEAD", "/data.bin", ""),
    ("GET", "/none", ""),
    ("HEAD", "/none", ""),
    ("GET", "/a.txt/", ""),
    ("GET", "/a.txt/b", ""),
    ("GET", "/A.TXT", ""),
    ("GET", "/%00", ""),
    ("GET", "/a.txt%00", ""),
    ("GET", "/..", ""),
    ("GET", "/../etc/passwd", ""),
    ("GET", "/%2e%2e/secret/file.txt", ""),
    ("GET", "/sub/../../secret/file.txt", ""),
    ("GET", "/%252e%252e/secret/file.txt", ""),
    ("GET", "/%zz", ""),
    ("POST", "/a.txt", ""),
    ("PUT", "/a.txt", ""),
    ("DELETE", "/a.txt", ""),
    ("GET", "/a.txt", EARLIER),
    ("GET", "/a.txt", "If-Modified-Since: Sat, 03 Feb 2024 04:05:06 GMT\r\n"),
    ("HEAD", "/a.txt", "If-Modified-Since: Sat, 03 Feb 2024 04:05:06 GMT\r\n"),
    ("GET", "/a.txt", "If-Modified-Since: x\r\n"),
    ("GET", "/a.txt", "If-Unmodified-Since: Sat, 03 Feb 2024 04:05:06 GMT\r\n"),
    ("GET", "/a.txt", "If-Unmodified-Since: Sat, 03 Feb 2024 04:05:05 GMT\r\n"),
    ("GET", "/a.txt", "If-None-Match: *\r\n"),
    ("GET", "/a.txt", "If-None-Match: \"x\"\r\n"),
    ("GET", "/a.txt", "If-Match: *\r\n"),
    ("GET", "/a.txt", "If-Match: \"x\"\r\n"),
    ("GET", "/data.bin", "Range: bytes=0-0\r\n"),
    ("GET", "/data.bin", "Range: bytes=1000-1999\r\n"),
    ("GET", "/data.bin", "Range: bytes=299000-\r\n"),
    ("GET", "/data.bin", "Range: bytes=-1000\r\n"),
    ("GET", "/data.bin", "Range: bytes=299000-400000\r\n"),
    ("GET", "/data.bin", "Range: bytes=300000-\r\n"),
    ("GET", "/data.bin", "Range: bytes=-0\r\n"),
    ("GET", "/data.bin", "Range: bytes=0-0,-1\r\n"),
    ("GET", "/data.bin", "Range: bytes=0-9,100-109,200-209\r\n"),
    ("GET", "/data.bin", "Range: bytes=0-9,300000-\r\n"),
    ("GET", "/data.bin", "Range: items=0-9\r\n"),
    ("GET", "/data.bin", "Range: bytes=10-\r\nIf-Range: Sat, 03 Feb 2024 04:05:06 GMT\r\n"),
    ("GET", "/data.bin", "Range: bytes=10-\r\nIf-Range: Sat, 03 Feb 2024 04:05:05 GMT\r\n"),
    ("GET", "/data.bin", "Range: bytes=10-\r\nIf-Range: \"x\"\r\n"),
    ("GET", "/zipped.txt", ""),
    ("GET", "/zipped.txt", "Accept-Encoding: gzip\r\n"),
    ("HEAD", "/zipped.txt", "Accept-Encoding: gzip\r\n"),
    ("GET", "/zipped.txt", "Accept-Encoding: gzip;q=0\r\n"),
    ("GET", "/a.txt", "Accept-Encoding: gzip\r\n"),
    ("GET", "/list/", ""),
];

/// Requests that we answer otherwise, and why.
const APART: &[(&str, &str, &str, &str)] = &[
    ("GET", "/sub", "", "308: the method of what follows is to stay"),
    ("GET", "/plain/", "", "404: that there is something which is not shown is nobody's business"),
    ("GET", "/plain", "", "404: where the path with a slash is not there, nothing leads to it"),
    ("GET", "/sub/../a.txt", "", "400: no client sends dot segments but to try what they do"),
    ("GET", "/a.txt%2f", "", "400: an escaped slash is part of no name"),
    ("GET", "/sub%2fb.css", "", "400: an escaped slash is part of no name"),
    ("GET", "/sub\\b.css", "", "400: a backslash is part of no name"),
    ("GET", "/.hidden", "", "404: names with a dot in front are hidden unless asked for"),
    ("GET", "/out.txt", "", "404: a link out of the root is not followed, whatever the options"),
    ("OPTIONS", "/a.txt", "", "204: it tells which methods there are"),
    ("GET", "/a.txt", LATER, "304: not modified since then (RFC 9110); nginx wants the very date"),
    ("HEAD", "/data.bin", "Range: bytes=0-9\r\n", "200: only GET has ranges (RFC 9110 section 14.2)"),
    (
        "GET",
        "/data.bin",
        "Range: bytes=9-5\r\n",
        "200: what is no range is not looked at (RFC 9110 section 14.2)",
    ),
    ("GET", "/data.bin", "Range: bytes=0-9,5-20\r\n", "ranges that overlap are one"),
    (
        "GET",
        "/zipped.txt",
        "Accept-Encoding: gzip\r\nRange: bytes=2-4\r\n",
        "206: a compressed form has ranges, too; a download of it can go on",
    ),
    ("GET", "/script.js", "", "text/javascript: application/javascript is obsolete (RFC 9239)"),
];

/// What must be alike: status, type, length, place, date and content of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    fields: Vec<(&'static str, Option<String>)>,
    body: Vec<u8>,
}

impl Seen {
    fn of(answer: &Message) -> Self {
        let is_good = answer.status() < 300;
        let (mut body, mut fields) = (Vec::new(), Vec::new());
        let names = ["content-type", "content-length", "content-range", "last-modified", "content-encoding"];
        if is_good {
            body.clone_from(&answer.body);
            fields.extend(names.map(|name| (name, answer.head.get(name).map(str::to_owned))));
        } else {
            // The page of an error is everybody's own.
            fields.push(("content-range", answer.head.get("content-range").map(str::to_owned)));
        }
        let kind = answer.head.get("content-type").unwrap_or_default();
        if let Some(boundary) = kind.strip_prefix("multipart/byteranges; boundary=") {
            // So is the boundary, and with it the length.
            body = replace(&body, boundary.as_bytes(), b"BOUNDARY");
            body = body.strip_prefix(b"\r\n").map(<[u8]>::to_vec).unwrap_or(body);
            fields.drain(..2);
        }
        Seen { status: answer.status(), fields, body }
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), bytes);
    while let Some(at) = rest.windows(from.len()).position(|part| part == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn tree() -> Tree {
    let tree = Tree::new(&[
        ("index.html", "<p>home</p>"),
        ("a.txt", "alpha"),
        ("a b.txt", "a space"),
        ("caf\u{e9}.txt", "coffee"),
        ("empty.txt", ""),
        ("sub/b.css", "p { }"),
        ("sub/index.html", "sub"),
        ("plain/c.txt", "gamma"),
        ("script.js", "1"),
        ("data.json", "{}"),
        ("noend", "bytes"),
        (".hidden", "hidden"),
        ("zipped.txt", "zipped"),
        ("zipped.txt.gz", "as gzip"),
        ("list/one.txt", "1"),
        ("list/two & <three>.txt", "2"),
        ("list/caf\u{e9} \"q\".txt", "3"),
        ("list/folder/x", "4"),
    ]);
    for name in ["picture.png", "picture.jpg", "film.mp4", "font.woff2"] {
        tree.file(name, name);
    }
    tree.file("data.bin", Pattern::new(8).bytes(0, 300_000));
    tree.link("out.txt", "../secret/file.txt");
    tree
}

/// Both servers over one tree.
struct Pair {
    ours: Proxy,
    addrs: [Addr; 2],
    _nginx: Service,
    _dir: TempDir,
    _tree: Tree,
}

impl Pair {
    fn new() -> Self {
        let (tree, dir, port) = (tree(), TempDir::new(), free_port());
        let config = format!(
            "include /etc/nginx/mime.types; default_type application/octet-stream; sendfile on; gzip_static on;\n\
             charset utf-8; charset_types text/html text/css text/plain application/javascript;\n\
             server {{ listen 127.0.0.1:{port}; root {root}; location /list/ {{ autoindex on; }} }}",
            root = tree.root().display()
        );
        let _nginx = nginx(&dir, &config, port);
        let routes =
            [tree.route("browse = true", "path = \"/list/\""), tree.route("precompressed = [\"gzip\"]", "")]
                .concat();
        let ours = crate::files::start_routes(&routes);
        let addrs = [Addr::local(port), ours.tcp("h")];
        Pair { ours, addrs, _nginx, _dir: dir, _tree: tree }
    }

    /// What nginx and what we say.
    fn ask(&self, method: &str, target: &str, fields: &str) -> [Message; 2] {
        [0, 1].map(|index| ask_at(&self.addrs[index], method, target, fields))
    }
}

#[test]
fn nginx_answers_alike() {
    if !asked() {
        return;
    }
    let pair = Pair::new();
    let mut wrong = Vec::new();
    for (method, target, fields) in ALIKE {
        let [theirs, ours] = pair.ask(method, target, fields).map(|answer| Seen::of(&answer));
        // The page of a directory is ours: see below.
        let is_alike = if *target == "/list/" { theirs.status == ours.status } else { theirs == ours };
        if !is_alike {
            wrong.push(format!(
                "{method} {target} {fields:?}\n  nginx: {} {:?}, {} bytes\n  ours:  {} {:?}, {} bytes",
                theirs.status,
                theirs.fields,
                theirs.body.len(),
                ours.status,
                ours.fields,
                ours.body.len()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (method, target, fields, why) in APART {
        let [theirs, ours] = pair.ask(method, target, fields).map(|answer| Seen::of(&answer));
        assert_ne!(theirs, ours, "{method} {target} {fields:?} is alike; no word is needed of: {why}");
        if let Some((status, _)) = why.split_once(':')
            && let Ok(status) = status.parse::<u16>()
        {
            assert_eq!(ours.status, status, "{method} {target}: {why}");
        }
    }
    let first = ask_at(&pair.addrs[0], "GET", "/a.txt", "");
    assert_eq!(first.head.get("last-modified"), Some(MODIFIED));
    assert_eq!(pair.ours.log().count("WARN"), 0, "{}", pair.ours.log().text());
}

#[test]
fn listings_lead_to_the_same_files() {
    if !asked() {
        return;
    }
    let pair = Pair::new();
    let pages = pair.ask("GET", "/list/", "");
    let contents = [0, 1].map(|index| {
        let links = pages[index].text().split("href=\"").skip(1).map(|part| part.split('"').next().unwrap());
        let own = links
            .map(|link| link.trim_start_matches("./"))
            .filter(|link| !link.starts_with(['.', '/', '?', '#']) && !link.contains(':'));
        let own = own.map(|link| link.replace("&amp;", "&"));
        let answers = own.map(|link| ask_at(&pair.addrs[index], "GET", &format!("/list/{link}"), ""));
        answers
            .filter(|answer| {
                answer.head.get("content-type").is_some_and(|kind| kind.starts_with("text/plain"))
            })
            .map(|answer| answer.body)
            .collect::<BTreeSet<_>>()
    });
    assert_eq!(contents[0], contents[1]);
    assert_eq!(contents[0].len(), 3, "{contents:?}");
}
