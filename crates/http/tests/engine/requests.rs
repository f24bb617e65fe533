//! Requests, their answers, and what is kept between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wmproxy_http::options::{EndpointSpec, HttpOptions, ReverseSpec};
use wmproxy_testkit::http::{Origin, Reply};

use crate::house::{House, reverse, spec};

#[test]
fn requests_of_one_client_use_one_connection_to_the_origin() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let house = House::before(&[origin.addr().inet()]);
    let mut client = house.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/a?b").text(), "hello");
    }
    client.expect_idle();
    assert_eq!(origin.ways(), [0; 5]);
    assert_eq!(house.lines(5), ["GET /a?b 200 0/5"; 5]);
    drop(client);
    house.assert_nothing_left();
}

#[test]
fn bodies_pass_whatever_frames_them() {
    let origin = Origin::start(|call| {
        let body = call.read_body()?;
        call.reply(&Reply::new(200, body))
    });
    let house = House::before(&[origin.addr().inet()]);
    let mut client = house.connect();
    assert_eq!(client.post("/known", b"some bytes").body, b"some bytes");
    let large = wmproxy_testkit::Pattern::new(1).bytes(0, 3_000_000);
    assert_eq!(client.post("/large", &large).body, large);
    client.send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_chunk(b"one ");
    client.send_chunk(&large);
    client.send("0\r\n\r\n");
    let echoed = client.response();
    assert_eq!((&echoed.body[..4], &echoed.body[4..]), (&b"one "[..], large.as_slice()));
    client.expect_idle();
    house.lines(3);
    assert_eq!(origin.ways(), [0; 3]);
}

#[test]
fn who_can_not_be_reached_is_a_bad_gateway() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let house = House::before(&[nobody]);
    let mut client = house.connect();
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.text()), (502, "502 Bad Gateway\n"));
    assert_eq!(client.get("/again").status(), 502, "the connection goes on");
    house.lines(2);
}

#[test]
fn a_body_that_is_held_is_sent_again_whole() {
    let has_failed = Arc::new(AtomicBool::new(false));
    let origin = || {
        let has_failed = has_failed.clone();
        Origin::start(move |call| {
            let body = call.read_body()?;
            if !has_failed.swap(true, Ordering::Relaxed) {
                call.close();
                return Ok(());
            }
            call.reply(&Reply::new(200, body))
        })
    };
    let (one, other) = (origin(), origin());
    let EndpointSpec::Reverse(plain) = reverse() else { unreachable!("it is one") };
    let holding = EndpointSpec::Reverse(ReverseSpec { buffer: true, ..plain });
    let house = House::with(spec(HttpOptions::default(), holding), &[one.addr().inet(), other.addr().inet()]);
    let mut client = house.connect();
    let large = wmproxy_testkit::Pattern::new(1).bytes(0, 300_000);
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", large.len()));
    client.send(&large);
    let answer = client.response();
    assert_eq!((answer.status(), answer.body == large), (200, true));
    assert_eq!((one.requests().len(), other.requests().len()), (1, 1));
    house.lines(1);
}

#[test]
fn every_response_has_a_date_and_only_one() {
    let dated = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::start(move |call| match call.head.target() {
        "/dated" => call.reply(&Reply::with(200, &format!("date: {dated}\r\n"), "")),
        _ => call.reply(&Reply::new(200, "")),
    });
    let house = House::before(&[origin.addr().inet()]);
    let mut client = house.connect();
    let mut dates = |request: &str| {
        client.send(request);
        let fields = client.response().head.fields;
        let dates = fields.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("date"));
        dates.map(|(_, value)| value).collect::<Vec<_>>()
    };
    assert_eq!(dates("GET /dated HTTP/1.1\r\nHost: a\r\n\r\n"), [dated]);
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let dates = dates(request);
        assert!(dates.len() == 1 && dates[0].ends_with(" GMT") && dates[0] != dated, "{request}: {dates:?}");
    }
    house.lines(3);
}

#[test]
fn a_body_that_drips_is_not_held_for_ever() {
    let EndpointSpec::Reverse(plain) = reverse() else { unreachable!("it is one") };
    let holding = EndpointSpec::Reverse(ReverseSpec { buffer: true, ..plain });
    let mut options = HttpOptions::default();
    options.timeouts.body = "150ms".parse().unwrap();
    let origin = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let house = House::with(spec(options, holding), &[origin.addr().inet()]);
    let mut client = house.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n");
    // Each byte is in time, and all of them never are.
    for _ in 0..500 {
        if client.try_send("a").is_err() || !house.log.lines.lock().unwrap().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(client.response().status(), 408);
    assert_eq!(origin.requests().len(), 0);
}
