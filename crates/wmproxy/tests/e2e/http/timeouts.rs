//! Nobody may take for ever: not to ask, not to send, not to read, not to answer.

use std::time::{Duration, Instant};

use serde_json::json;
use wmproxy_testkit::http::Reply;
use wmproxy_testkit::{Client, Gate, Origin, eventually};

use super::{http, route, site_with};
use crate::{ACCESS_LOG, group, start};

const HALF: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nX-A";

#[test]
fn a_head_that_does_not_come_is_a_408() {
    let origin = Origin::named("o");
    let config = site_with(origin.addr(), "timeouts = { header = \"400ms\" }");
    let proxy = start(&format!("{ACCESS_LOG}{config}"));
    for sent in ["G", HALF] {
        let mut client = Client::connect(&proxy.tcp("h"));
        client.send(sent);
        let response = client.response();
        assert_eq!(response.status(), 408, "{sent:?}");
        assert!(response.head.lists("connection", "close"));
        client.expect_closed();
    }
    assert_eq!(origin.backend().accepted(), 0);
    for record in proxy.access_log(2) {
        assert_eq!((&record["status"], &record["outcome"]), (&json!(408), &json!("client_slow")), "{record}");
    }
    let closed = [("listener", "h"), ("outcome", "client_slow")];
    eventually("both connections to be counted", || {
        proxy.metrics().sum("wmproxy_connections_closed_total", &closed) == 2.0
    });
}

#[test]
fn a_client_that_says_nothing_at_all_is_sent_away_without_a_word() {
    let origin = Origin::named("o");
    let timeouts = "timeouts = { header = \"300ms\", keepalive = \"300ms\" }";
    let proxy = start(&site_with(origin.addr(), timeouts));
    let mut client = Client::connect(&proxy.tcp("h"));
    // What is not asked for would be taken for the answer to a request that was sent just then.
    client.expect_closed();
}

#[test]
fn a_head_byte_by_byte_has_the_same_time_as_any() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), "timeouts = { header = \"500ms\" }"));
    let mut client = Client::connect(&proxy.tcp("h"));
    let begun = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\nX-A: ");
    let dripper = client.conn().again().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while begun.elapsed() < Duration::from_secs(15) && dripper.try_send(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert_eq!(client.response().status(), 408);
        assert!(begun.elapsed() < Duration::from_secs(10), "each byte bought time");
        client.reset();
    });
}

#[test]
fn a_body_that_stops_is_given_up() {
    let origin = Origin::named("o");
    let proxy = start(&format!(
        "{ACCESS_LOG}{}",
        site_with(origin.addr(), "timeouts = { body = \"400ms\", keepalive = \"75s\" }")
    ));
    let addr = proxy.tcp("h");
    for head in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let mut client = Client::connect(&addr);
        client.send(format!("POST / HTTP/1.1\r\nHost: a.example\r\n{head}"));
        match client.try_response_to("POST") {
            Ok(response) => assert_eq!(response.status(), 408),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
        }
        client.expect_closed();
    }
    for record in proxy.access_log(2) {
        assert_eq!((&record["status"], &record["bytes_in"]), (&json!(408), &json!(4)), "{record}");
        assert_eq!(record["outcome"], "client_slow", "{record}");
    }
    origin.backend().wait_idle();
}

#[test]
fn a_body_that_goes_on_has_its_time() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), "timeouts = { body = \"2s\" }"));
    let mut client = Client::connect(&proxy.tcp("h"));
    // Twice as long as the limit in all, and never silent for so long.
    let total = 12 * 16_384;
    client.send(format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {total}\r\n\r\n"));
    for _ in 0..12 {
        client.send([7; 16_384]);
        std::thread::sleep(Duration::from_millis(350));
    }
    assert_eq!(client.response().body.len(), total);
}

/// An origin whose answers have no end.
fn endless() -> Origin {
    Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let chunk = [b"10000\r\n", &[7; 65_536][..], b"\r\n"].concat();
        while call.send(&chunk).is_ok() {}
        call.close();
        Ok(())
    })
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let origin = endless();
    let config = site_with(origin.addr(), "timeouts = { write = \"500ms\" }");
    let proxy = start(&format!("{ACCESS_LOG}{config}"));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.read_slowly();
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    // The origin is freed although nobody read to the end.
    origin.wait_requests(1);
    origin.backend().wait_idle();
    let record = proxy.access_log(1).remove(0);
    assert_eq!(record["outcome"], "client_slow", "{record}");
}

/// The kernel holds more for it than it reads within the timeout.
#[test]
fn a_client_that_reads_slowly_has_its_time_until_it_stops() {
    let origin = endless();
    let proxy = start(&site_with(origin.addr(), "timeouts = { write = \"500ms\" }"));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.read_slowly();
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    client.conn().sip(Duration::from_secs(3));
    let stopped = Instant::now();
    origin.backend().wait_idle();
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
}

#[test]
fn the_time_for_an_answer_is_the_routes() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        if call.head.target() != "/slow/patient" {
            wait.wait();
        } else {
            std::thread::sleep(Duration::from_millis(600));
        }
        call.reply(&Reply::new(200, "there"))
    });
    let upstream = group("g", &[origin.addr().to_string()], "max_fails = 1000\nretries = 0");
    let routes = [
        route("path = \"=/slow/patient\"\nreverse_proxy = \"g\""),
        route("reverse_proxy = { upstream = \"g\", timeout = \"300ms\" }"),
    ]
    .concat();
    let proxy = start(&format!("{upstream}{}", http("", &routes)));
    let mut client = Client::connect(&proxy.tcp("h"));
    assert_eq!(client.get("/fast").status(), 504);
    assert_eq!(client.get("/slow/patient").text(), "there");
    gate.open();
}
