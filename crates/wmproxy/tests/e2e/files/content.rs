//! What a site serves beside the bytes of a file: types, compressed forms, pages for directories and errors, and what the
//! filters of a route do to it.

use std::time::{Duration, Instant};

use wmproxy_testkit::http::Message;
use wmproxy_testkit::{Client, Origin};

use super::{By, Tree, Web, ask, get, set_modified, start_routes};
use crate::http::{http, route};
use crate::{ACCESS_LOG, setup};

/// The password is `open sesame`, hashed by bcrypt with the least cost.
const USERS: &str = "alice:$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu\n";
const ALICE: &str = "Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n";

fn kind(answer: &Message) -> &str {
    answer.head.get("content-type").unwrap()
}

#[test]
fn names_tell_types() {
    let types = [
        ("a.html", "text/html; charset=utf-8"),
        ("a.HTM", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.map", "application/json"),
        ("a.wasm", "application/wasm"),
        ("a.png", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.avif", "image/avif"),
        ("a.woff2", "font/woff2"),
        ("a.mp4", "video/mp4"),
        ("a.pdf", "application/pdf"),
        ("a.webmanifest", "application/manifest+json"),
        ("noend", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        ("a.foo", "text/x-foo"),
        ("a.bar.foo", "text/x-bar-foo"),
        ("A.FOO", "text/x-foo"),
        ("a.md", "text/special"),
    ];
    let tree = Tree::new(&types.map(|(name, _)| (name, "x")));
    let mime =
        "mime = { \".foo\" = \"text/x-foo\", \".bar.foo\" = \"text/x-bar-foo\", \".md\" = \"text/special\" }";
    let proxy = tree.serve(mime, "");
    let mut client = Client::connect(&proxy.tcp("h"));
    for (name, expected) in types {
        let answer = client.get(&format!("/{name}"));
        assert_eq!((answer.status(), kind(&answer)), (200, expected), "{name}");
    }
}

#[test]
fn a_compressed_form_beside_a_file_goes_to_who_can_read_it() {
    let forms = [
        ("page.html", "plain"),
        ("page.html.gz", "by gzip"),
        ("page.html.br", "by brotli"),
        ("page.html.zst", "by zstd"),
    ];
    let tree = Tree::new(&forms);
    tree.file("only.txt", "plain");
    tree.file("old.txt", "new");
    set_modified(&tree.file("old.txt.gz", "stale"), 1_600_000_000);
    std::fs::create_dir_all(tree.path("dir.txt.gz")).unwrap();
    tree.file("dir.txt", "plain");
    let web = Web::new(&tree, "precompressed = [\"zstd\", \"br\", \"gzip\"]", "");
    let plain_tag = web.get(By::H1, "/page.html", "").head.get("etag").unwrap().to_owned();
    let mut tags = vec![plain_tag];
    for (accepts, coding, body) in [
        ("", None, "plain"),
        ("identity", None, "plain"),
        ("deflate", None, "plain"),
        ("gzip", Some("gzip"), "by gzip"),
        ("br", Some("br"), "by brotli"),
        ("zstd", Some("zstd"), "by zstd"),
        ("gzip, deflate, br, zstd", Some("zstd"), "by zstd"),
        ("*", Some("zstd"), "by zstd"),
        ("gzip;q=1, br;q=0.9, zstd;q=0.1", Some("gzip"), "by gzip"),
        ("gzip;q=0.2, br;q=0.7", Some("br"), "by brotli"),
        ("gzip;q=0, br;q=0, zstd;q=0", None, "plain"),
        ("*;q=0, identity", None, "plain"),
        ("br;q=0, *", Some("zstd"), "by zstd"),
        ("GZIP", Some("gzip"), "by gzip"),
    ] {
        let fields =
            if accepts.is_empty() { String::new() } else { format!("Accept-Encoding: {accepts}\r\n") };
        for by in By::ALL {
            let answer = web.get(by, "/page.html", &fields);
            assert_eq!((answer.status(), answer.text()), (200, body), "{by:?} {accepts}");
            assert_eq!(answer.head.get("content-encoding"), coding, "{by:?} {accepts}");
            assert_eq!(kind(&answer), "text/html; charset=utf-8");
            assert_eq!(answer.head.get("content-length"), Some(body.len().to_string().as_str()));
            assert!(answer.head.lists("vary", "accept-encoding"), "{by:?} {accepts}");
            tags.push(answer.head.get("etag").unwrap().to_owned());
        }
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "a tag for each form: {tags:?}");
    // Conditions and ranges are about the form that is chosen.
    let zipped = web.get(By::H1, "/page.html", "Accept-Encoding: gzip\r\n");
    let tag = zipped.head.get("etag").unwrap();
    let same = format!("Accept-Encoding: gzip\r\nIf-None-Match: {tag}\r\n");
    assert_eq!(web.get(By::H1, "/page.html", &same).status(), 304);
    assert_eq!(web.get(By::H1, "/page.html", &format!("If-None-Match: {tag}\r\n")).status(), 200);
    let part = web.get(By::H1, "/page.html", "Accept-Encoding: gzip\r\nRange: bytes=3-\r\n");
    assert_eq!((part.status(), part.text(), part.head.get("content-encoding")), (206, "gzip", Some("gzip")));
    // Asked for by its own name it is a file like any other.
    let own = web.get(By::H1, "/page.html.gz", "");
    assert_eq!((own.text(), own.head.get("content-encoding")), ("by gzip", None));
    // None that is older than what it stands for, and none that is no file.
    for (target, body) in [("/only.txt", "plain"), ("/old.txt", "new"), ("/dir.txt", "plain")] {
        let answer = web.get(By::H1, target, "Accept-Encoding: gzip, br, zstd\r\n");
        assert_eq!((answer.text(), answer.head.get("content-encoding")), (body, None), "{target}");
    }
}

#[test]
fn files_are_compressed_on_the_fly_like_any_answer() {
    let text = "compressible ".repeat(3_000);
    let tree = Tree::new(&[("a.txt", &text), ("small.txt", "small"), ("a.png", &text)]);
    tree.file("ready.txt", &text);
    tree.file("ready.txt.br", "ready");
    let web = Web::new(&tree, "precompressed = [\"br\"]", "compress = [\"zstd\", \"br\", \"gzip\"]");
    let plain = web.get(By::H1, "/a.txt", "");
    let tag = plain.head.get("etag").unwrap();
    for by in By::ALL {
        for coding in ["gzip", "br", "zstd"] {
            let answer = web.get(by, "/a.txt", &format!("Accept-Encoding: {coding}\r\n"));
            assert_eq!(answer.head.get("content-encoding"), Some(coding), "{by:?}");
            assert!(answer.body.len() < 2_000, "{by:?} {coding}: {} bytes", answer.body.len());
            assert!(answer.head.lists("vary", "accept-encoding") && !answer.head.has("accept-ranges"));
            assert_eq!(answer.head.get("etag"), Some(format!("W/{tag}").as_str()));
        }
        let answer = web.get(by, "/a.txt", "");
        assert!(answer.text() == text && answer.head.lists("vary", "accept-encoding"), "{by:?}");
        // What a client has of a compressed one is still good.
        let fields = format!("Accept-Encoding: gzip\r\nIf-None-Match: W/{tag}\r\n");
        assert_eq!(web.get(by, "/a.txt", &fields).status(), 304, "{by:?}");
        // A part is one of the file as it is.
        let answer = web.get(by, "/a.txt", "Accept-Encoding: gzip\r\nRange: bytes=0-99\r\n");
        assert_eq!((answer.status(), answer.text()), (206, &text[..100]), "{by:?}");
        assert!(!answer.head.has("content-encoding"));
        for target in ["/small.txt", "/a.png"] {
            let answer = web.get(by, target, "Accept-Encoding: gzip\r\n");
            assert!(!answer.head.has("content-encoding"), "{by:?} {target}");
        }
        let answer = web.get(by, "/ready.txt", "Accept-Encoding: br, gzip\r\n");
        assert_eq!((answer.text(), answer.head.get("content-encoding")), ("ready", Some("br")), "{by:?}");
        let head = web.ask(by, "HEAD", "/a.txt", "Accept-Encoding: gzip\r\n");
        assert_eq!(
            (head.status(), head.body.len(), head.head.get("content-encoding")),
            (200, 0, Some("gzip"))
        );
    }
}

#[test]
fn a_directory_is_its_index() {
    let tree = Tree::new(&[
        ("index.html", "home"),
        ("sub/index.htm", "sub"),
        ("none/a.txt", "alpha"),
        ("a b%c/index.html", "odd"),
        ("deep/index.html/a.txt", "a folder that is named like an index"),
        ("deep/index.htm", "deep"),
    ]);
    let proxy = tree.serve("index = [\"index.html\", \"index.htm\"], cache_control = \"no-cache\"", "");
    for (target, body) in
        [("/", "home"), ("/sub/", "sub"), ("/a%20b%25c/", "odd"), ("/index.html", "home"), ("/deep/", "deep")]
    {
        let answer = get(&proxy, target, "");
        assert_eq!((answer.status(), answer.text()), (200, body), "{target}");
        assert_eq!(answer.head.get("cache-control"), Some("no-cache"), "{target}");
        assert_eq!(kind(&answer), "text/html; charset=utf-8");
    }
    assert_eq!(get(&proxy, "/none/", "").status(), 404);
    assert_eq!(get(&proxy, "/none", "").status(), 404);
    assert_eq!(get(&proxy, "/index.html/", "").status(), 404);
}

#[test]
fn a_directory_without_its_slash_gets_one_and_no_other_host() {
    let tree = Tree::new(&[
        ("sub/index.html", "sub"),
        ("sub/deep/index.html", "deep"),
        ("evil.example/index.html", "here"),
        ("evil.example/a/index.html", "here"),
        ("a b/index.html", "odd"),
        ("\u{e9}<>\"/index.html", "odd"),
    ]);
    let routes = [tree.route("", "path = \"/app\"\nstrip_prefix = \"/app\""), tree.route("", "")].concat();
    let web = Web::routes(&routes);
    for by in By::ALL {
        for (target, location) in [
            ("/sub", "/sub/"),
            ("/sub?a=b&c", "/sub/?a=b&c"),
            ("/sub?", "/sub/?"),
            ("/sub/deep", "/sub/deep/"),
            ("/a%20b", "/a%20b/"),
            ("/%C3%A9%3C%3E%22", "/%C3%A9%3C%3E%22/"),
            ("/%73ub", "/%73ub/"),
            // Nothing that a browser takes for the name of a host.
            ("//evil.example", "/evil.example/"),
            ("///evil.example", "/evil.example/"),
            ("//evil.example/a", "/evil.example/a/"),
            ("//evil.example//a?//b", "/evil.example/a/?//b"),
            // As the client sees it, and not as it was rewritten.
            ("/app/sub", "/app/sub/"),
            ("/app//sub", "/app/sub/"),
            ("/app//evil.example", "/app/evil.example/"),
        ] {
            for method in ["GET", "HEAD"] {
                let answer = web.ask(by, method, target, "");
                assert_eq!(answer.status(), 308, "{by:?} {target}");
                let to = answer.head.get("location").unwrap();
                assert!(
                    to.starts_with('/') && !to.starts_with("//") && !to.starts_with("/\\"),
                    "{target} -> {to}"
                );
                let (path, query) = location.split_once('?').unwrap_or((location, ""));
                let (to_path, to_query) = to.split_once('?').unwrap_or((to, ""));
                // Slashes within it do no harm.
                assert_eq!((collapse(to_path).as_str(), to_query), (path, query), "{by:?} {target} -> {to}");
            }
        }
    }
    let answer = web.get(By::H1, "/app/sub/", "");
    assert_eq!((answer.status(), answer.text()), (200, "sub"));
}

fn collapse(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

#[test]
fn an_app_of_one_page_answers_for_its_own_paths_and_not_for_files() {
    let tree = Tree::new(&[("index.html", "app"), ("app.js", "script"), ("dir/a.txt", "alpha")]);
    let proxy = tree.serve("spa = \"/index.html\"", "");
    for target in ["/", "/users/7", "/users/", "/deep/link?x=y", "/dir", "/dir/"] {
        let answer = get(&proxy, target, "");
        assert_eq!((answer.status(), answer.text()), (200, "app"), "{target}");
        assert_eq!(kind(&answer), "text/html; charset=utf-8");
    }
    assert_eq!(get(&proxy, "/app.js", "").text(), "script");
    // A page is no script: who asks for a file that is gone is told so.
    for target in ["/old.js", "/img/none.png", "/.env"] {
        assert_eq!(get(&proxy, target, "").status(), 404, "{target}");
    }
    assert_eq!(get(&proxy, "/users/%2e%2e", "").status(), 400);
    assert_eq!(ask(&proxy, "POST", "/users/7", "").status(), 405);
}

#[test]
fn errors_have_pages_of_the_site() {
    let tree = Tree::new(&[
        ("404.html", "<p>not here</p>"),
        ("errors/405.html", "<p>not so</p>"),
        ("a.txt", "alpha"),
    ]);
    let web = Web::new(
        &tree,
        "error_pages = { 404 = \"404.html\", 405 = \"/errors/405.html\", 416 = \"none.html\" }",
        "",
    );
    web.proxy.expect_warn("there is no file");
    for by in By::ALL {
        let answer = web.get(by, "/none", "Range: bytes=0-1\r\nIf-None-Match: *\r\n");
        assert_eq!((answer.status(), answer.text()), (404, "<p>not here</p>"), "{by:?}");
        assert_eq!(kind(&answer), "text/html; charset=utf-8");
        assert!(
            !answer.head.has("etag")
                && !answer.head.has("last-modified")
                && !answer.head.has("accept-ranges")
        );
        let head = web.ask(by, "HEAD", "/none", "");
        assert_eq!((head.status(), head.head.get("content-length")), (404, Some("15")), "{by:?}");
        // The page itself is a file, and one that is missing leaves the usual answer.
        assert_eq!(web.get(by, "/404.html", "").status(), 200);
        let answer = web.get(by, "/a.txt", "Range: bytes=99-\r\n");
        assert_eq!((answer.status(), answer.head.get("content-range")), (416, Some("bytes */5")), "{by:?}");
    }
}

#[test]
fn pages_of_other_origins_may_read_where_they_are_let() {
    let tree = Tree::new(&[("a.txt", "alpha")]);
    const ORIGIN: &str = "Origin: https://app.example.com\r\n";
    const PREFLIGHT: &str = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: range\r\n";
    let all = Web::new(&tree, "cors = true", "");
    for by in By::ALL {
        for target in ["/a.txt", "/none"] {
            let answer = all.get(by, target, ORIGIN);
            assert_eq!(answer.head.get("access-control-allow-origin"), Some("*"), "{by:?} {target}");
            assert!(!answer.head.has("access-control-allow-credentials"));
        }
        let answer = all.ask(by, "OPTIONS", "/a.txt", &format!("{ORIGIN}{PREFLIGHT}"));
        assert_eq!((answer.status(), answer.body.len()), (204, 0), "{by:?}");
        assert_eq!(answer.head.get("access-control-allow-origin"), Some("*"));
        assert!(answer.head.lists("access-control-allow-methods", "GET"), "{answer:?}");
        assert!(answer.head.has("access-control-allow-headers"), "{answer:?}");
    }
    drop(all);
    let some = Web::new(&tree, "cors = [\"https://app.example.com\", \"http://localhost:3000\"]", "");
    for by in By::ALL {
        let answer = some.get(by, "/a.txt", ORIGIN);
        assert_eq!(answer.head.get("access-control-allow-origin"), Some("https://app.example.com"), "{by:?}");
        assert!(answer.head.lists("vary", "origin"));
        for fields in [
            "",
            "Origin: https://evil.example\r\n",
            "Origin: null\r\n",
            "Origin: https://app.example.com.evil.example\r\n",
        ] {
            let answer = some.get(by, "/a.txt", fields);
            assert!(!answer.head.has("access-control-allow-origin"), "{by:?} {fields}");
            assert!(answer.head.lists("vary", "origin"), "a cache has to know: {by:?} {fields}");
        }
        let answer =
            some.ask(by, "OPTIONS", "/a.txt", &format!("Origin: https://evil.example\r\n{PREFLIGHT}"));
        assert!(
            !answer.head.has("access-control-allow-origin")
                && !answer.head.has("access-control-allow-methods")
        );
    }
    drop(some);
    let none = tree.serve("", "");
    let answer = get(&none, "/a.txt", ORIGIN);
    assert!(!answer.head.has("access-control-allow-origin") && !answer.head.has("vary"));
}

#[test]
fn filters_do_to_files_what_they_do_to_all() {
    let tree = Tree::new(&[("a.txt", "alpha"), ("private/b.txt", "beta")]);
    let lines = "response_headers = { set = { X-Site = \"{hostname}\" }, default = { X-Frame-Options = \"DENY\" }, remove = [\"etag\"] }";
    let routes = [
        tree.route("", "path = \"/private/\"\nbasic_auth = { users_file = \"users\", realm = \"private\" }"),
        tree.route("", "path = \"/denied/\"\nstrip_prefix = \"/denied\"\ndeny = [\"127.0.0.0/8\"]"),
        tree.route("", lines),
    ]
    .concat();
    let proxy = setup(&format!("{ACCESS_LOG}{}", http("", &routes))).file("users", USERS).start();
    let answer = get(&proxy, "/a.txt", "");
    assert_eq!(
        (answer.head.get("x-site"), answer.head.get("x-frame-options")),
        (Some("a.example"), Some("DENY"))
    );
    assert!(!answer.head.has("etag") && answer.head.has("last-modified"));
    assert_eq!(get(&proxy, "/none", "").head.get("x-site"), Some("a.example"));
    // Who may not ask learns nothing of what is there.
    for target in ["/private/b.txt", "/private/none", "/private/"] {
        let answer = get(&proxy, target, "");
        assert_eq!(answer.status(), 401, "{target}");
        assert!(answer.head.has("www-authenticate") && !answer.head.has("etag"), "{target}");
        assert_eq!(get(&proxy, target, "Range: bytes=0-\r\nIf-None-Match: *\r\n").status(), 401, "{target}");
    }
    assert_eq!(get(&proxy, "/private/b.txt", ALICE).text(), "beta");
    assert_eq!(get(&proxy, "/private/none", ALICE).status(), 404);
    assert_eq!(get(&proxy, "/denied/a.txt", "").status(), 403);
    let line = proxy.access_log(1).remove(0);
    assert_eq!((line["status"].as_u64(), line["bytes_out"].as_u64()), (Some(200), Some(5)), "{line}");
    assert_eq!(line["outcome"], "done", "{line}");
}

#[test]
fn a_rate_holds_for_files() {
    let tree = Tree::new(&[]);
    let bytes = vec![7; 1 << 20];
    tree.file("data.bin", &bytes);
    let web = Web::new(&tree, "", "rate_limit = \"2m/s\"");
    for by in By::ALL {
        let begun = Instant::now();
        assert!(web.get(by, "/data.bin", "").body == bytes, "{by:?}");
        // What may come at once is part of the first second.
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(200) && took < Duration::from_secs(15), "{by:?}: {took:?}");
    }
}

#[test]
fn what_is_no_file_may_be_somebody_elses() {
    let origin = Origin::named("o");
    let tree = Tree::new(&[("a.txt", "alpha"), ("page.html", "page"), ("index.html", "home")]);
    let routes = [
        route(&format!("path = \"/api/\"\nreverse_proxy = \"{}\"", origin.addr())),
        tree.route(
            "",
            "path = \"/clean/\"\nstrip_prefix = \"/clean\"\ntry = [\"{path}\", \"{path}.html\", \"=410\"]",
        ),
        tree.route("", "try = [\"{path}\", \"/index.html\"]"),
    ]
    .concat();
    let proxy = start_routes(&routes);
    for (target, status, body) in [
        ("/clean/a.txt", 200, "alpha"),
        ("/clean/page", 200, "page"),
        ("/a.txt", 200, "alpha"),
        ("/deep/link", 200, "home"),
    ] {
        let answer = get(&proxy, target, "");
        assert_eq!((answer.status(), answer.text()), (status, body), "{target}");
    }
    assert_eq!(get(&proxy, "/clean/none", "").status(), 410);
    assert_eq!(get(&proxy, "/api/x", "").status(), 200);
    assert_eq!(origin.request().head.target(), "/api/x");
}

#[test]
fn a_reload_changes_sites_and_lets_downloads_end() {
    let (old, new) = (Tree::new(&[("a.txt", "old")]), Tree::new(&[("a.txt", "new")]));
    let bytes = vec![7; 32 << 20];
    old.file("data.bin", &bytes);
    let proxy = old.serve("", "");
    let mut client = Client::connect(&proxy.tcp("h"));
    client.read_slowly();
    client.send(super::request("GET", "/data.bin", ""));
    let head = client.head();
    proxy.reload_with(&http("", &new.route("", "")));
    assert_eq!(get(&proxy, "/a.txt", "").text(), "new");
    let mut count = 0;
    client.body(head.response_framing("GET").unwrap(), |part| count += part.len()).unwrap();
    assert_eq!(count, bytes.len());
}
