//! What happens beside a response: copies for a mirror, pages in the place of errors, coding while it comes.

use wmproxy_testkit::http::{Framing, Reply};
use wmproxy_testkit::tcp::Closed;
use wmproxy_testkit::{Client, Gate, Origin};

use super::{http, one_route, route};
use crate::{setup, start};

#[test]
fn a_mirror_sees_what_the_origin_sees() {
    let (origin, watcher) = (Origin::start(|call| call.reply(&Reply::new(200, "o"))), Origin::named("w"));
    let lines = format!(
        "reverse_proxy = \"http://{}/base\"\nmirror = \"http://{}/copies\"\nstrip_prefix = \"/api\"\n\
         request_headers = {{ set = {{ X-Seen = \"{{path}}\" }} }}",
        origin.addr(),
        watcher.addr()
    );
    let proxy = start(&one_route(&lines));
    let mut client = Client::connect(&proxy.tcp("h"));
    assert_eq!(client.get("/api/a?b").text(), "o");
    assert_eq!(client.post("/api/c", b"hello").text(), "o");
    client.send("POST /api/d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(client.response().text(), "o");
    watcher.wait_requests(3);
    let mut copies: Vec<_> = watcher.requests();
    copies.sort_by_key(|copy| copy.head.target().to_owned());
    let seen: Vec<_> = copies
        .iter()
        .map(|copy| (copy.head.method(), copy.head.target(), copy.head.get("x-seen").unwrap(), copy.text()))
        .collect();
    assert_eq!(
        seen,
        [
            ("GET", "/copies/a?b", "/api/a", ""),
            ("POST", "/copies/c", "/api/c", "hello"),
            ("POST", "/copies/d", "/api/d", "abcde"),
        ]
    );
    assert_eq!(origin.requests()[0].head.target(), "/base/a?b");
}

#[test]
fn a_mirror_that_sleeps_or_is_gone_slows_nobody() {
    let gate = Gate::new();
    let sleeper = gate.clone();
    let (origin, watcher) = (
        Origin::named("o"),
        Origin::start(move |call| {
            sleeper.wait();
            call.reply(&Reply::new(200, "late"))
        }),
    );
    let closed = Closed::new();
    let lines = |mirror: &dyn std::fmt::Display| {
        format!("reverse_proxy = \"{}\"\nmirror = \"{mirror}\"", origin.addr())
    };
    let routes =
        [route(&format!("path = \"/slow\"\n{}", lines(&watcher.addr()))), route(&lines(&closed.addr()))]
            .concat();
    let proxy = start(&http("", &routes));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    // More than may be under way: the others have no copy.
    for _ in 0..100 {
        assert_eq!(client.get("/slow").text(), "o");
        assert_eq!(client.get("/gone").text(), "o");
    }
    assert!(watcher.requests().len() <= 64);
    gate.open();
}

#[test]
fn pages_stand_for_errors_whoever_made_them() {
    let origin = Origin::start(|call| match call.head.target() {
        "/missing" => {
            call.reply(&Reply::with(404, "ETag: \"x\"\r\nContent-Type: text/plain\r\n", "not here"))
        }
        _ => call.reply(&Reply::new(200, "fine")),
    });
    let closed = Closed::new();
    let pages = "error_pages = { 404 = \"{dir}/404.html\", 5xx = \"{dir}/sorry.html\" }";
    let routes = [
        route(&format!("path = \"/gone\"\nreverse_proxy = \"{}\"\n{pages}", closed.addr())),
        route(&format!("path = \"/fixed\"\nrespond = {{ status = 404, body = \"plain\" }}\n{pages}")),
        route(&format!("reverse_proxy = \"{}\"\n{pages}", origin.addr())),
    ]
    .concat();
    let setup =
        setup(&http("", &routes)).file("404.html", "<p>nothing</p>").file("sorry.html", "<p>sorry</p>");
    let proxy = setup.start();
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    let missing = client.get("/missing");
    assert_eq!((missing.status(), missing.text()), (404, "<p>nothing</p>"));
    assert!(missing.head.get("content-type").unwrap().starts_with("text/html"));
    assert!(!missing.head.has("etag"), "that was of another body");
    assert_eq!(client.get("/fixed").text(), "<p>nothing</p>");
    let gone = client.get("/gone");
    assert_eq!((gone.status(), gone.text()), (502, "<p>sorry</p>"));
    assert_eq!(client.get("/fine").text(), "fine");
}

#[test]
fn events_come_through_when_they_happen() {
    let gate = Gate::new();
    let next = gate.clone();
    let origin = Origin::start(move |call| {
        call.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        call.send("9\r\ndata: 1\n\n\r\n")?;
        next.wait();
        call.send("9\r\ndata: 2\n\n\r\n0\r\n\r\n")
    });
    let proxy = start(&one_route(&format!("reverse_proxy = \"{}\"\ncompress = [\"gzip\"]", origin.addr())));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = client.head();
    assert_eq!(head.get("content-encoding"), Some("gzip"));
    let mut pieces = 0;
    client
        .body(Framing::Chunked, |piece| {
            // The second event is not sent before the first one is here.
            pieces += usize::from(!piece.is_empty());
            gate.open();
        })
        .unwrap();
    assert!(pieces >= 2, "{pieces}");
}

#[test]
fn answers_that_nobody_gets_leave_their_connection_in_use() {
    let origin = Origin::start(|call| {
        let status = if call.head.target() == "/there" { 200 } else { 404 };
        call.reply(&Reply::new(status, "some words"))
    });
    let tries = "path = \"/there\"\ntry = [\"/missing\", \"/there\"]";
    let pages = "error_pages = { 404 = \"{dir}/404.html\" }";
    let to = |lines: &str| route(&format!("{lines}\nreverse_proxy = \"{}\"", origin.addr()));
    let setup = setup(&http("", &(to(tries) + &to(pages)))).file("404.html", "not here");
    let proxy = setup.start();
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..3 {
        assert_eq!(client.get("/there").text(), "some words");
        assert_eq!(client.get("/nowhere").text(), "not here");
    }
    assert_eq!(origin.ways(), [0; 9], "one connection to the origin");
}
