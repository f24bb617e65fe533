//! The other way round: servers whose answers are doubtful. The client gets a 502, or an end where the head had gone
//! out already, and what is left over never answers anybody.

use wmproxy_testkit::{Client, Origin};

use crate::http::{http, route};
use crate::{group, start};

const HEAD: &str = "HTTP/1.1 200 OK\r\n";
/// An answer that nobody asked for.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// Answers that must not be passed on.
fn bad() -> Vec<(&'static str, String)> {
    let fields = |lines: &str, rest: &str| format!("{HEAD}{lines}\r\n\r\n{rest}");
    vec![
        ("both", fields("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
        ("lengths-differ", fields("Content-Length: 5\r\nContent-Length: 6", "hello!")),
        ("length-list", fields("Content-Length: 5, 6", "hello!")),
        ("length-letters", fields("Content-Length: abc", "hello")),
        ("length-minus", fields("Content-Length: -1", "hello")),
        ("length-plus", fields("Content-Length: +5", "hello")),
        ("length-empty", fields("Content-Length:", "hello")),
        ("length-large", fields("Content-Length: 99999999999999999999999", "hello")),
        ("coding-unknown", fields("Transfer-Encoding: xchunked", "hello")),
        ("coding-gzip", fields("Transfer-Encoding: gzip", "hello")),
        ("coding-chunked-gzip", fields("Transfer-Encoding: chunked, gzip", "0\r\n\r\n")),
        ("coding-twice", fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
        ("coding-on-1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        ("fold", fields("X-A: b\r\n c\r\nContent-Length: 5", "hello")),
        ("bare-lf", fields("X-A: b\nContent-Length: 5", "hello")),
        ("bare-cr", fields("X-A: b\rX-C: d\r\nContent-Length: 5", "hello")),
        ("only-bare-lf", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello".into()),
        ("space-before-colon", fields("Content-Length : 5", "hello")),
        ("nul", fields("X-A: \0\r\nContent-Length: 5", "hello")),
        ("control", fields("X-A: \x01\r\nContent-Length: 5", "hello")),
        ("name-empty", fields(": b\r\nContent-Length: 5", "hello")),
        ("name-space", fields("X A: b\r\nContent-Length: 5", "hello")),
        ("no-colon", fields("X-A\r\nContent-Length: 5", "hello")),
        ("status-short", "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello".into()),
        ("status-long", "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello".into()),
        ("status-letters", "HTTP/1.1 2x0 OK\r\nContent-Length: 5\r\n\r\nhello".into()),
        ("status-099", "HTTP/1.1 099 Low\r\nContent-Length: 5\r\n\r\nhello".into()),
        ("version-2", "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello".into()),
        ("version-name", "HTTQ/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".into()),
        ("version-0.9", "hello\r\n".into()),
        ("ssh", "SSH-2.0-OpenSSH_9.2\r\n\r\n".into()),
        ("nothing", String::new()),
        (
            "101-unasked",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".into(),
        ),
        ("head-large", fields(&format!("X-A: {}", "b".repeat(1 << 20)), "hello")),
        ("fields-many", fields(&vec!["X-A: b"; 20_000].join("\r\n"), "hello")),
        ("status-line-large", format!("HTTP/1.1 200 {}\r\n\r\n", "b".repeat(1 << 20))),
    ]
}

/// Answers whose head is right and whose body is not.
fn broken() -> Vec<(&'static str, String)> {
    let chunked = |rest: &str| format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{rest}");
    vec![
        ("size-empty", chunked("\r\nhello\r\n0\r\n\r\n")),
        ("size-0x", chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        ("size-plus", chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("size-minus", chunked("-1\r\nhello\r\n0\r\n\r\n")),
        ("size-overflow", chunked("10000000000000005\r\nhello\r\n0\r\n\r\n")),
        ("size-space-inside", chunked("0 5\r\nhello\r\n0\r\n\r\n")),
        ("size-without-end", chunked(&"0".repeat(1 << 20))),
        ("size-bare-lf", chunked("5\nhello\r\n0\r\n\r\n")),
        ("data-bare-lf", chunked("5\r\nhello\n0\r\n\r\n")),
        ("data-spills", chunked(&format!("2\r\nhello\r\n0\r\n\r\n{POISON}"))),
        ("ext-without-end", chunked(&format!("5;{}", "a".repeat(1 << 20)))),
        ("ext-bare-lf", chunked("5;a\nb\r\nhello\r\n0\r\n\r\n")),
        ("trailer-fold", chunked("5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n")),
        ("trailer-no-colon", chunked("5\r\nhello\r\n0\r\nX-A\r\n\r\n")),
        ("trailers-without-end", chunked(&format!("0\r\n{}", "X-A: b\r\n".repeat(100_000)))),
    ]
}

/// Answers that are right, with something behind them that is not.
fn leftovers() -> Vec<(&'static str, &'static str, String)> {
    let after = |head: &str| format!("{head}{POISON}");
    vec![
        ("GET", "length", after("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")),
        ("GET", "length-0", after("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
        (
            "GET",
            "chunked",
            after("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ),
        ("GET", "204", after("HTTP/1.1 204 No Content\r\n\r\n")),
        ("GET", "304", after("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")),
        ("HEAD", "head", after("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")),
        ("HEAD", "head-chunked", after("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")),
        ("GET", "crlf", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\r\n".into()),
        ("POST", "length", after("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")),
    ]
}

/// Says `answer` to `/bad` and keeps the connection; a good word to everything else.
fn says(answer: String) -> Origin {
    Origin::start(move |call| {
        call.read_body()?;
        if call.head.target() != "/bad" {
            return call.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
        }
        // A proxy that has had enough of it closes on the way.
        let sent = call.send(&answer);
        if sent.is_err() || answer.is_empty() {
            call.close();
        }
        Ok(())
    })
}

fn config(origin: &Origin) -> String {
    let upstream = group("g", &[origin.addr().to_string()], "max_fails = 0");
    format!("workers = 1\n{upstream}{}", http("", &route("reverse_proxy = \"g\"")))
}

#[track_caller]
fn next_is_good(addr: &wmproxy_testkit::Addr, name: &str) {
    for _ in 0..3 {
        let mut client = Client::connect(addr);
        assert_eq!(client.get("/good").text(), "good", "after {name}");
        assert_eq!(client.get("/good").text(), "good", "after {name}");
    }
}

#[test]
fn doubtful_answers_become_a_502() {
    let mut findings = Vec::new();
    for (name, answer) in bad() {
        let origin = says(answer);
        let proxy = start(&config(&origin));
        let addr = proxy.tcp("h");
        for method in ["GET", "POST"] {
            let mut client = Client::connect(&addr);
            client.send(format!("{method} /bad HTTP/1.1\r\nHost: a.example\r\n\r\n"));
            match client.try_response_to(method) {
                Ok(response) if response.status() == 502 => {}
                other => findings.push(format!("{name}: {method} got {other:?}")),
            }
        }
        next_is_good(&addr, name);
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn broken_bodies_never_look_whole() {
    let mut findings = Vec::new();
    for (name, answer) in broken() {
        let origin = says(answer);
        let proxy = start(&config(&origin));
        let addr = proxy.tcp("h");
        let mut client = Client::connect(&addr);
        client.send("GET /bad HTTP/1.1\r\nHost: a.example\r\n\r\n");
        match client.try_response_to("GET") {
            Ok(response) if response.status() == 502 => {}
            Err(_) => {}
            other => findings.push(format!("{name}: {other:?}")),
        }
        next_is_good(&addr, name);
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn what_an_answer_leaves_behind_is_thrown_away_with_its_connection() {
    for (method, name, answer) in leftovers() {
        let origin = says(answer);
        let proxy = start(&config(&origin));
        let addr = proxy.tcp("h");
        let mut client = Client::connect(&addr);
        for _ in 0..3 {
            client.send(format!("{method} /bad HTTP/1.1\r\nHost: a.example\r\n\r\n"));
            let response = client.response_to(method);
            assert!(response.status() < 400, "{name}: {response:?}");
            assert!([&b""[..], b"hello"].contains(&&response.body[..]), "{name}: {response:?}");
            assert_eq!(client.get("/good").text(), "good", "after {name}");
        }
        next_is_good(&addr, name);
    }
}
