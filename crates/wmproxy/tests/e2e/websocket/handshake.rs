//! Who is let in, and what the others are told.

use std::time::{Duration, Instant};

use tungstenite::handshake::client::generate_key;
use tungstenite::http::Request;
use wmproxy_testkit::tcp::Closed;
use wmproxy_testkit::{Backend, Conn};

use super::*;
use crate::{ACCESS_LOG, assert_quick, start};

const REQUEST: &str = "GET /in?x=y HTTP/1.1\r\nHost: ws.example:8080\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Origin: https://app.example\r\n\r\n";

#[test]
fn a_request_that_is_not_for_this_bridge_gets_an_answer_of_http() {
    let backend = Backend::echo();
    let more =
        "bridge_path = \"/in\"\nbridge_host = [\"ws.example\"]\nbridge_origin = \"https://app.example\"";
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), more)));
    let addr = proxy.tcp("t");
    let large = format!("X: {}\r\n\r\n", "x".repeat(20_000));
    let cases = [
        ("GET", "POST", "405"),
        ("/in?x=y", "/out", "404"),
        ("ws.example:8080", "other.example", "403"),
        ("https://app.example", "https://evil.example", "403"),
        ("Upgrade: websocket", "Upgrade: h2c", "426"),
        ("Version: 13", "Version: 12", "426"),
        ("HTTP/1.1", "HTTP/1.0", "400"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "x", "400"),
        ("Host: ws.example:8080\r\n", "", "400"),
        ("GET /in", "\u{16}\u{3}\u{1}", "400"),
        ("\r\n\r\n", &format!("\r\n{large}"), "431"),
    ];
    for (from, to, status) in &cases {
        let conn = Conn::connect(&addr);
        conn.send(REQUEST.replacen(from, to, 1).as_bytes());
        let answer = String::from_utf8(conn.recv_all()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{from} => {to}: {answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert_eq!(answer.contains("Sec-WebSocket-Version: 13"), *status == "426", "{answer}");
    }
    for record in proxy.access_log(cases.len()) {
        assert_end(&record, "bad_upgrade", "client");
    }
    // Nobody of them came to the server.
    assert_eq!(backend.accepted(), 0);
    // Whoever is asked for properly is let in, byte by byte if need be.
    let conn = Conn::connect(&addr);
    for byte in REQUEST.as_bytes() {
        conn.send(&[*byte]);
    }
    assert!(head(&conn).starts_with("HTTP/1.1 101 "));
    conn.send(b"\x82\x82\0\0\0\0ok");
    assert_eq!(conn.recv(4), b"\x82\x02ok");
}

#[test]
fn frames_right_behind_the_request_are_not_lost() {
    let backend = Backend::echo();
    let proxy = start(&ws2tcp(backend.addr(), ""));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.send(&[REQUEST.as_bytes(), b"\x82\x82\0\0\0\0ok"].concat());
    assert!(head(&conn).starts_with("HTTP/1.1 101 "));
    assert_eq!(conn.recv(4), b"\x82\x02ok");
}

#[test]
fn a_subprotocol_that_both_have_is_granted_and_fields_are_added() {
    let backend = Backend::echo();
    let more = "bridge_subprotocol = [\"binary\", \"base64\"]\nbridge_headers = { X-Served-By = \"me\" }";
    let proxy = start(&ws2tcp(backend.addr(), more));
    let granted = |offered: &str| {
        let conn = Conn::connect(&proxy.tcp("t"));
        let request = Request::builder()
            .uri("ws://a.example/")
            .header("Host", "a.example")
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Key", generate_key())
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
            .header("Sec-WebSocket-Protocol", offered)
            .body(())
            .unwrap();
        let (_, response) = tungstenite::client(request, Io(&conn)).map_err(|error| error.to_string())?;
        let field = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(field("X-Served-By").as_deref(), Some("me"));
        assert_eq!(field("Sec-WebSocket-Extensions"), None);
        Ok::<_, String>(field("Sec-WebSocket-Protocol"))
    };
    // The client's liking decides.
    assert_eq!(granted("chat, base64, binary"), Ok(Some("base64".into())));
    // Without one in common tungstenite, like a browser, does not go on.
    assert!(granted("chat").unwrap_err().contains("SubProtocol"), "{:?}", granted("chat"));
}

#[test]
fn a_client_that_does_not_ask_in_time_is_told_so() {
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "preface_timeout = \"1s\"")));
    let (silent, slow) = (Conn::connect(&proxy.tcp("t")), Conn::connect(&proxy.tcp("t")));
    slow.send(&REQUEST.as_bytes()[..40]);
    let began = Instant::now();
    for conn in [silent, slow] {
        let answer = String::from_utf8(conn.recv_all()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert!(began.elapsed() < Duration::from_secs(15));
    for record in proxy.access_log(2) {
        assert_end(&record, "preface_timeout", "client");
    }
    // One that leaves instead.
    Conn::connect(&proxy.tcp("t")).finish();
    assert_end(&proxy.access_log(3)[2], "client_left", "client");
}

#[test]
fn one_deadline_holds_for_the_request_and_what_comes_before_it() {
    let backend = Backend::echo();
    let more = "accept_proxy_protocol = [\"127.0.0.1\"]\npreface_timeout = \"4s\"";
    let proxy = start(&ws2tcp(backend.addr(), more));
    // Less than the whole time from where the header was there.
    assert_quick(Duration::from_millis(5_900), || {
        let began = Instant::now();
        let conn = Conn::connect(&proxy.tcp("t"));
        std::thread::sleep(Duration::from_secs(2));
        conn.send(b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\nGET /");
        assert!(conn.recv_all().starts_with(b"HTTP/1.1 408 "));
        began.elapsed()
    });
}

#[test]
fn a_client_is_told_that_no_server_is_there() {
    let closed = Closed::new();
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(&closed.addr(), "")));
    proxy.expect_warn("ejected");
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.send(REQUEST.as_bytes());
    let answer = String::from_utf8(conn.recv_all()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_end(&record(&proxy), "connect_failed", "upstream");
}
