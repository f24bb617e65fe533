//! The tools for HTTP before they judge anybody: the client and the origin, face to face.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io;

use wmproxy_testkit::http::{Framing, Reply};
use wmproxy_testkit::{Authority, Client, Gate, Origin, TlsClient};

#[test]
fn requests_of_one_connection_are_answered_in_turn() {
    let origin = Origin::named("one");
    let mut client = Client::connect(origin.addr());
    assert_eq!(client.get("/a").text(), "one");
    assert_eq!(client.post("/b", b"hello").text(), "hello");
    client.expect_idle();
    client.send("POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    client.send_chunk(b"in ");
    client.send_chunk(b"chunks");
    client.send("0\r\nx-sum: 9\r\n\r\n");
    assert_eq!(client.response().text(), "in chunks");
    client.expect_closed();
    let requests = origin.requests();
    let targets: Vec<&str> = requests.iter().map(|request| request.head.target()).collect();
    assert_eq!(targets, ["/a", "/b", "/c"]);
    assert_eq!(requests[2].trailers, [("x-sum".to_owned(), "9".to_owned())]);
    assert_eq!(origin.ways(), [0, 0, 0]);
    assert!(origin.bytes()[0].starts_with(b"GET /a HTTP/1.1\r\n"));
}

#[test]
fn an_answer_can_wait_for_a_gate_and_come_before_the_body() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        call.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")?;
        wait.wait();
        call.send(Reply::new(200, "soon").0)
    });
    let mut client = Client::connect(origin.addr());
    client.send("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.head().status(), 103);
    gate.open();
    assert_eq!(client.response().text(), "soon");
    client.send("late");
    client.expect_idle();
    assert_eq!(client.get("/").text(), "soon");
    assert_eq!(origin.requests()[0].body, b"late");
}

#[test]
fn a_reset_and_what_is_no_http_are_told() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
        call.reset();
        Ok(())
    });
    let mut client = Client::connect(origin.addr());
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.head().response_framing("GET").unwrap(), Framing::Length(10));
    let error = client.body(Framing::Length(10), |_| {}).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let mut client = Client::connect(origin.addr());
    client.send("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.expect_closed();
    origin.backend().wait_idle();
    assert_eq!(origin.take_violations().len(), 1);
}

#[test]
fn both_speak_tls() {
    let authority = Authority::new();
    let origin =
        Origin::start_tls(&authority.issue("o", &["o.example"]), |call| call.reply(&Reply::new(200, "s")));
    let mut client = Client::over(TlsClient::new(&authority).connect(origin.addr(), "o.example").unwrap());
    assert_eq!(client.get("/").text(), "s");
    assert_eq!(client.post("/", &[7; 100_000]).text(), "s");
}
