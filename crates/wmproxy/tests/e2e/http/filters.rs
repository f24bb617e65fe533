//! What is done to requests and responses on their way, and endpoints that answer themselves.

use wmproxy_testkit::http::{Message, Reply};
use wmproxy_testkit::{Client, Origin, Proxy};

use super::{http, one_route, route};
use crate::start;

fn ask(proxy: &Proxy, target: &str, fields: &str) -> Message {
    let request = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
    Client::once(&proxy.tcp("h"), &request)
}

/// The target that the origin sees for this one.
fn rewritten(lines: &str, target: &str) -> String {
    let origin = Origin::named("o");
    let proxy = start(&one_route(&format!("reverse_proxy = \"{}\"\n{lines}", origin.addr())));
    assert_eq!(ask(&proxy, target, "").status(), 200);
    origin.request().head.target().to_owned()
}

#[test]
fn fields_of_requests_are_set_added_defaulted_and_removed() {
    let origin = Origin::named("o");
    let rules = "request_headers = { set = { X-Real-IP = \"{client_ip}\", X-Path = \"{path}\" }, \
                 add = { X-More = \"2\" }, default = { X-Def = \"d\", X-Has = \"no\" }, remove = [\"cookie\", \"x-gone-*\"] }";
    let proxy = start(&one_route(&format!("reverse_proxy = \"{}\"\n{rules}", origin.addr())));
    ask(
        &proxy,
        "/p?q",
        "X-Real-IP: 1.2.3.4\r\nx-real-ip: 5.6.7.8\r\nX-More: 1\r\nX-Has: yes\r\nCookie: a=b\r\nX-Gone-A: 1\r\nX-Gone-B: 1\r\n",
    );
    let head = origin.request().head;
    assert_eq!(head.get("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(head.get("x-path"), Some("/p"));
    assert_eq!(head.all("x-more"), ["1", "2"]);
    assert_eq!((head.get("x-def"), head.get("x-has")), (Some("d"), Some("yes")));
    for gone in ["cookie", "x-gone-a", "x-gone-b"] {
        assert!(!head.has(gone), "{gone}");
    }
}

#[test]
fn fields_of_responses_are_changed_too_whoever_answers() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nServer: x/1\r\nX-Has: yes\r\nContent-Length: 1\r\n\r\no");
    let rules = "response_headers = { set = { Strict-Transport-Security = \"max-age=9\", X-Peer = \"{peer}\" }, \
                 default = { X-Has = \"no\" }, remove = [\"server\"] }";
    let routes = [
        route(&format!("path = \"/o\"\nreverse_proxy = \"{}\"\n{rules}", origin.addr())),
        route(&format!("path = \"/r\"\nrespond = {{ body = \"r\" }}\n{rules}")),
    ]
    .concat();
    let proxy = start(&http("", &routes));
    let head = ask(&proxy, "/o", "").head;
    assert_eq!(head.get("x-peer"), Some(origin.addr().to_string().as_str()));
    assert_eq!(head.get("x-has"), Some("yes"));
    assert!(!head.has("server"));
    let head = ask(&proxy, "/r", "").head;
    assert_eq!(head.get("strict-transport-security"), Some("max-age=9"));
    assert_eq!(head.get("x-has"), Some("no"));
}

#[test]
fn what_a_client_sends_in_a_variable_stays_in_its_field() {
    let origin = Origin::named("o");
    let rules = "request_headers = { set = { X-Copy = \"{query:v}\", X-Path = \"{path}\" } }";
    let proxy = start(&one_route(&format!("reverse_proxy = \"{}\"\n{rules}", origin.addr())));
    for target in ["/%0d%0aX-Evil:%201?v=%0d%0aX-Evil:%201", "/a?v=b%00c", "/?v=%22;%0a"] {
        // A refusal is fine as well.
        let _ = ask(&proxy, target, "");
    }
    for request in origin.requests() {
        assert!(!request.head.has("x-evil"), "{request:?}");
    }
}

#[test]
fn prefixes_are_taken_off_and_put_on() {
    assert_eq!(rewritten("path = \"/api\"\nstrip_prefix = \"/api\"", "/api/x?y=z"), "/x?y=z");
    assert_eq!(rewritten("path = \"/api\"\nstrip_prefix = \"/api\"", "/api"), "/");
    assert_eq!(rewritten("path = \"/api\"\nstrip_prefix = \"/api\"", "/api?y"), "/?y");
    assert_eq!(rewritten("strip_prefix = \"/api\"", "/apis/x"), "/apis/x");
    assert_eq!(rewritten("add_prefix = \"/v2\"", "/x?y"), "/v2/x?y");
    assert_eq!(rewritten("strip_prefix = \"/a\"\nadd_prefix = \"/b\"", "/a/c"), "/b/c");
}

#[test]
fn paths_are_rewritten_by_a_regex() {
    let rewrite = "rewrite = [\"^/old/(.*)$\", \"/new/$1\"]";
    assert_eq!(rewritten(rewrite, "/old/a/b?q=1"), "/new/a/b?q=1");
    assert_eq!(rewritten(rewrite, "/other?q=1"), "/other?q=1");
    // What is decoded for the comparison is encoded again where it has to be.
    let target = rewritten(rewrite, "/old/a%20b%3Fc%0d%0aX:y");
    assert!(
        target.starts_with("/new/a%20b%3Fc%0D%0AX:y") || target.starts_with("/new/a%20b%3Fc%0d%0aX:y"),
        "{target}"
    );
}

#[test]
fn redirects_lead_where_they_say() {
    let routes = [
        route("path = \"/perm\"\nredirect = { to = \"https://{hostname}{uri}\" }"),
        route("path = \"/temp\"\nredirect = { to = \"/new{path}\", status = 302 }"),
        route("redirect = { to = \"{path}\", status = 307 }"),
    ]
    .concat();
    let proxy = start(&http("", &routes));
    let answer = ask(&proxy, "/perm/x?y=z", "");
    assert_eq!((answer.status(), answer.head.get("location")), (308, Some("https://a.example/perm/x?y=z")));
    let answer = ask(&proxy, "/temp", "");
    assert_eq!((answer.status(), answer.head.get("location")), (302, Some("/new/temp")));
    // Two slashes at the front would name another host.
    for target in ["//evil.example/a", "/%2f/evil.example", "/\\evil.example", "/%5cevil.example/..%2f"] {
        let answer = ask(&proxy, target, "");
        if answer.status() == 307 {
            let location = answer.head.get("location").unwrap();
            assert!(!location.starts_with("//") && !location.contains('\\'), "{target} -> {location}");
        }
    }
}

#[test]
fn responses_of_the_config_are_given() {
    let routes = [
        route("path = \"/hello\"\nrespond = { body = \"hello {client_ip}\\n\" }"),
        route("path = \"/json\"\nrespond = { status = 418, body = \"{{}}\", content_type = \"application/json\" }"),
        route("path = \"/none\"\nrespond = { status = 204 }"),
    ]
    .concat();
    let proxy = start(&http("", &routes));
    let mut client = Client::connect(&proxy.tcp("h"));
    let answer = client.get("/hello");
    assert_eq!((answer.status(), answer.text()), (200, "hello 127.0.0.1\n"));
    assert!(answer.head.get("content-type").unwrap().starts_with("text/plain"));
    let answer = client.get("/json");
    assert_eq!((answer.status(), answer.text()), (418, "{}"));
    assert_eq!(answer.head.get("content-type"), Some("application/json"));
    assert_eq!(client.get("/none").status(), 204);
    client.send("HEAD /hello HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let answer = client.response_to("HEAD");
    assert_eq!(answer.head.get("content-length"), Some("16"));
    // A body that nobody needs is no request.
    let answer = client.post("/hello", b"GET /none HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(answer.status(), 200);
    if answer.head.keeps_alive() {
        assert_eq!(client.get("/hello").status(), 200);
        client.expect_idle();
    }
}

#[test]
fn a_large_body_that_a_local_answer_does_not_need_ends_the_connection_or_is_read() {
    let proxy = start(&one_route("respond = { status = 403, body = \"no\" }"));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000000\r\n\r\n");
    let _ = client.try_send(vec![0; 1 << 20]);
    assert_eq!(client.response().status(), 403);
}

#[test]
fn addresses_are_let_in_or_not() {
    let routes = [
        route("path = \"/in\"\nrespond = { body = \"in\" }\nallow = [\"127.0.0.1\"]"),
        route("path = \"/out\"\nrespond = { body = \"out\" }\ndeny = [\"127.0.0.0/8\"]"),
        route("path = \"/other\"\nrespond = { body = \"other\" }\nallow = [\"10.0.0.0/8\"]"),
    ]
    .concat();
    let proxy = start(&http("trusted_proxies = [\"127.0.0.0/8\"]", &routes));
    assert_eq!(ask(&proxy, "/in", "").status(), 200);
    assert_eq!(ask(&proxy, "/out", "").status(), 403);
    assert_eq!(ask(&proxy, "/other", "").status(), 403);
    // By the client that a trusted proxy names.
    assert_eq!(ask(&proxy, "/in", "X-Forwarded-For: 10.1.2.3\r\n").status(), 403);
    assert_eq!(ask(&proxy, "/other", "X-Forwarded-For: 10.1.2.3\r\n").status(), 200);
}

#[test]
fn the_first_path_that_is_there_answers() {
    let origin = Origin::start(|call| {
        let target = call.head.target().to_owned();
        let found = ["/app.js", "/index.html"].contains(&target.as_str());
        call.reply(&Reply::new(if found { 200 } else { 404 }, target))
    });
    let route = |list: &str| one_route(&format!("reverse_proxy = \"{}\"\ntry = {list}", origin.addr()));
    let proxy = start(&route("[\"{path}\", \"/index.html\"]"));
    assert_eq!(ask(&proxy, "/app.js", "").text(), "/app.js");
    assert_eq!(ask(&proxy, "/deep/link", "").text(), "/index.html");
    drop(proxy);
    let proxy = start(&route("[\"{path}\", \"=404\"]"));
    assert_eq!(ask(&proxy, "/nowhere", "").status(), 404);
}

#[test]
fn compression_is_what_the_client_can_read() {
    let text = "compressible ".repeat(1_000);
    let fields = "Content-Type: text/html\r\nETag: \"x\"\r\n";
    let plain = Reply::with(200, fields, &text);
    let small = Reply::with(200, fields, "small");
    let image = Reply::with(200, "Content-Type: image/png\r\n", &text);
    let done = Reply::with(200, &format!("{fields}Content-Encoding: br\r\n"), &text);
    let origin = Origin::start(move |call| match call.head.target() {
        "/small" => call.reply(&small),
        "/image" => call.reply(&image),
        "/done" => call.reply(&done),
        _ => call.reply(&plain),
    });
    let lines = format!("reverse_proxy = \"{}\"\ncompress = [\"zstd\", \"br\", \"gzip\"]", origin.addr());
    let proxy = start(&one_route(&lines));
    for (accepts, coding) in [
        ("gzip", Some("gzip")),
        ("br, gzip", Some("br")),
        ("gzip, br;q=0.1, zstd;q=0", Some("gzip")),
        ("identity", None),
        ("gzip;q=0", None),
        ("deflate", None),
    ] {
        let answer = ask(&proxy, "/", &format!("Accept-Encoding: {accepts}\r\n"));
        assert_eq!(answer.head.get("content-encoding"), coding, "{accepts}");
        assert!(answer.head.lists("vary", "accept-encoding"), "{accepts}");
        if coding.is_some() {
            assert!(answer.body.len() < 1_000, "{accepts}: {} bytes", answer.body.len());
            assert_eq!(answer.head.get("etag"), Some("W/\"x\""));
        } else {
            assert_eq!(answer.text(), text);
            assert_eq!(answer.head.get("etag"), Some("\"x\""));
        }
    }
    for target in ["/small", "/image"] {
        assert!(!ask(&proxy, target, "Accept-Encoding: gzip\r\n").head.has("content-encoding"), "{target}");
    }
    assert_eq!(ask(&proxy, "/done", "Accept-Encoding: gzip\r\n").head.get("content-encoding"), Some("br"));
}
