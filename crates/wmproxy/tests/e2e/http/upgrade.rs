//! Upgraded connections, WebSockets above all: from the 101 on bytes pass as they are, and not one before it.

use std::time::Duration;

use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};
use wmproxy_testkit::http::Reply;
use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Backend, Client, Conn, Gate, Origin, PATIENCE, Pattern};

use super::{http, one_route, route, site, site_with};
use crate::websocket::{Io, echo_server, open, other};
use crate::{ACCESS_LOG, start};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Grants every upgrade, then sends back what comes.
fn switching() -> Origin {
    Origin::start(|call| {
        if !call.head.lists("connection", "upgrade") {
            return call.reply(&Reply::new(200, "plain"));
        }
        call.send(SWITCH)?;
        call.echo()
    })
}

#[test]
fn a_websocket_passes_by_itself() {
    let backend = echo_server();
    let proxy = start(&format!("{ACCESS_LOG}{}", site(backend.addr())));
    let conn = Conn::connect(&proxy.tcp("h"));
    let mut socket = open(&conn, "/chat");
    for message in [Message::text("hello"), Message::binary(vec![7; 100_000]), Message::text("")] {
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
    }
    assert_eq!(proxy.active(), 1, "it counts as a connection");
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    drop(conn);
    let record = &proxy.access_log(1)[0];
    assert_eq!(record["status"], 101, "{record}");
    assert!(record["bytes_in"].as_u64().unwrap() > 100_000, "{record}");
}

#[test]
fn a_large_message_passes_in_both_directions() {
    let backend = Backend::start(|conn| {
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let mut socket: WebSocket<Io<'_>> =
            tungstenite::accept_with_config(Io(conn), Some(config)).map_err(other)?;
        let message = socket.read().map_err(other)?;
        let length = message.len() as u64;
        socket.send(message).map_err(other)?;
        while socket.read().is_ok() {}
        Ok(length)
    });
    let proxy = start(&site(backend.addr()));
    let conn = Conn::connect(&proxy.tcp("h"));
    let mut socket = open(&conn, "/");
    socket.set_config(|config| {
        config.max_message_size = None;
        config.max_frame_size = None;
    });
    let bytes = Pattern::new(4).bytes(0, 32 << 20);
    socket.send(Message::binary(bytes.clone())).unwrap();
    assert!(socket.read().unwrap().into_data() == bytes);
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
}

#[test]
fn the_fields_of_the_handshake_pass() {
    let origin = switching();
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(
        UPGRADE.replace("Version: 13", "Version: 13\r\nSec-WebSocket-Protocol: a, b\r\nOrigin: http://x"),
    );
    let head = client.head();
    assert_eq!(head.status(), 101);
    assert_eq!(head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(head.lists("connection", "upgrade") && head.lists("upgrade", "websocket"), "{head:?}");
    let seen = origin.request().head;
    assert!(seen.lists("connection", "upgrade") && seen.lists("upgrade", "websocket"), "{seen:?}");
    assert_eq!(seen.get("sec-websocket-protocol"), Some("a, b"));
    assert_eq!(seen.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(seen.get("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn bytes_after_the_request_wait_for_the_101() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        wait.wait();
        call.send(SWITCH)?;
        call.echo()
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(format!("{UPGRADE}early bird"));
    origin.wait_requests(1);
    std::thread::sleep(Duration::from_millis(50));
    // Only the head is there; the origin reads on after the gate.
    gate.open();
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.recv(10), b"early bird");
    client.finish();
    client.expect_closed();
    let bytes = origin.bytes().remove(0);
    assert!(bytes.ends_with(b"\r\n\r\nearly bird"), "{}", String::from_utf8_lossy(&bytes));
}

#[test]
fn bytes_after_a_refused_upgrade_are_a_request_or_nothing() {
    let origin = Origin::start(|call| {
        let target = call.head.target().to_owned();
        call.reply(&Reply::new(200, target))
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(format!("{UPGRADE}GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    let first = client.response();
    assert_eq!(first.text(), "/ws");
    if first.head.keeps_alive() {
        assert_eq!(client.response().text(), "/next");
        assert_eq!(origin.requests().len(), 2);
    } else {
        client.expect_closed();
        assert_eq!(origin.requests().len(), 1);
    }
    // Our own account and the origin's are one: a second head on the origin's connection was a request of ours.
    assert!(origin.bytes().iter().all(|bytes| bytes.windows(4).filter(|part| *part == b"GET ").count() <= 2));
}

#[test]
fn a_refusal_passes_and_the_connection_stays_good() {
    let origin = Origin::start(|call| {
        let status = if call.head.has("upgrade") { 403 } else { 200 };
        call.reply(&Reply::new(status, "no"))
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..3 {
        client.send(UPGRADE);
        assert_eq!(client.response().status(), 403);
    }
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn an_origin_that_speaks_with_its_101_is_heard() {
    let origin = Origin::start(|call| {
        call.send(format!("{SWITCH}welcome"))?;
        call.echo()
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(UPGRADE);
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.recv(7), b"welcome");
}

#[test]
fn each_side_may_end_first() {
    let origin = switching();
    let proxy = start(&site(origin.addr()));
    let addr = proxy.tcp("h");
    let open = || {
        let mut client = Client::connect(&addr);
        client.send(UPGRADE);
        assert_eq!(client.head().status(), 101);
        client.send("ping");
        assert_eq!(client.recv(4), b"ping");
        client
    };
    let mut client = open();
    client.finish();
    client.expect_closed();
    open().reset();
    drop(open());
    origin.backend().wait_idle();
    assert!(holds_within(PATIENCE, || proxy.active() == 0));
}

#[test]
fn a_silent_one_is_ended_and_a_talking_one_is_not() {
    let origin = switching();
    let proxy = start(&site_with(origin.addr(), "timeouts = { upgrade = \"2s\", keepalive = \"100ms\" }"));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(UPGRADE);
    assert_eq!(client.head().status(), 101);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(500));
        client.send("ping");
        assert_eq!(client.recv(4), b"ping");
    }
    client.expect_closed();
    origin.backend().wait_idle();
}

#[test]
fn routes_and_their_filters_hold_for_upgrades() {
    let origin = switching();
    let routes = [
        route(&format!(
            "path = \"/denied\"\nreverse_proxy = \"{}\"\ndeny = [\"127.0.0.0/8\"]",
            origin.addr()
        )),
        route(&format!("path = \"/\"\nreverse_proxy = \"{}\"", origin.addr())),
    ]
    .concat();
    let proxy = start(&http("", &routes));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(UPGRADE.replace("/ws", "/denied"));
    assert_eq!(client.response().status(), 403);
    client.send(UPGRADE);
    assert_eq!(client.head().status(), 101);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_101_that_nobody_asked_for_is_a_502() {
    let origin = Origin::says(SWITCH);
    let proxy = start(&one_route(&format!("reverse_proxy = \"{}\"", origin.addr())));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    assert_eq!(client.get("/").status(), 502);
}

#[test]
fn an_upgrade_to_h2c_is_not_passed_on() {
    let origin = switching();
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(
        "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    );
    assert_eq!(client.response().text(), "plain");
    let head = origin.request().head;
    assert!(!head.has("upgrade") && !head.has("http2-settings"), "{head:?}");
}
