//! How the end of one side becomes the end of the other.

use std::io::{self, Read as _};
use std::time::Duration;

use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use wmproxy_testkit::backend::drain;
use wmproxy_testkit::{Backend, Conn};

use super::*;
use crate::{ACCESS_LOG, start};

/// What a client with a Close of `code` gets for an answer, and what the server sees.
fn close_with(code: Option<u16>) -> (Option<u16>, Value, Option<io::ErrorKind>) {
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    let mut socket = open(&conn, "/");
    socket.send(Message::text("x")).unwrap();
    socket.read().unwrap();
    socket.close(code.map(|code| CloseFrame { code: code.into(), reason: "why".into() })).unwrap();
    let answer = match socket.read() {
        Ok(Message::Close(close)) => close.map(|close| close.code.into()),
        other => panic!("{other:?}"),
    };
    while socket.read().is_ok() {}
    (answer, record(&proxy), backend.next_end().error)
}

#[test]
fn an_orderly_close_is_a_fin_and_any_other_a_reset() {
    for code in [None, Some(1000), Some(1001)] {
        let (answer, record, seen) = close_with(code);
        assert_eq!((answer, seen), (Some(1000), None), "{code:?}");
        assert_end(&record, "done", "none");
    }
    for code in [1002, 1011, 3000, 4999] {
        let (answer, record, seen) = close_with(Some(code));
        assert_eq!((answer, seen), (Some(code), Some(io::ErrorKind::ConnectionReset)));
        assert_end(&record, "client_ws_close", "client");
    }
}

#[test]
fn a_close_lets_the_server_finish() {
    let backend = Backend::start(|conn| {
        let got = drain(conn)?;
        conn.try_send(b"all of it")?;
        Ok(got)
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "")));
    let conn = open_raw(&proxy.tcp("t"));
    conn.send(b"\x82\x81\0\0\0\0x\x88\x80\0\0\0\0");
    // What the server says after the FIN still comes, then our Close, then the end.
    assert_eq!(conn.recv(2), [0x82, 9]);
    assert_eq!(conn.recv(9), b"all of it");
    assert_eq!(conn.recv(4), b"\x88\x02\x03\xe8");
    conn.expect_end();
    assert_end(&record(&proxy), "done", "none");
}

#[test]
fn a_fin_is_a_close_and_what_the_client_still_says_arrives() {
    let backend = Backend::start(|conn| {
        conn.try_send(b"bye")?;
        conn.finish();
        drain(conn)
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "")));
    let conn = open_raw(&proxy.tcp("t"));
    assert_eq!(conn.recv(9), b"\x82\x03bye\x88\x02\x03\xe8");
    conn.send(b"\x82\x84\0\0\0\0last\x88\x82\0\0\0\0\x03\xe8");
    conn.expect_end();
    let end = backend.next_end();
    assert_eq!((end.bytes, end.error), (4, None));
    assert_end(&record(&proxy), "done", "none");
}

#[test]
fn a_reset_of_the_server_is_a_close_that_says_so() {
    let backend = Backend::start(|conn| {
        (&*conn).read_exact(&mut [0])?;
        conn.socket().set_linger(Some(Duration::ZERO)).map(|()| 1)
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    let mut socket = open(&conn, "/");
    socket.send(Message::text("x")).unwrap();
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("no close") };
    assert_eq!(u16::from(close.code), 1011);
    while socket.read().is_ok() {}
    assert_end(&record(&proxy), "peer_reset", "upstream");
}

#[test]
fn a_reset_in_the_middle_of_an_upload_is_a_close_that_says_so() {
    let backend = Backend::start(|conn| {
        (&*conn).read_exact(&mut [0])?;
        conn.socket().set_linger(Some(Duration::ZERO)).map(|()| 1)
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    let mut socket = open(&conn, "/");
    // Mostly it is a write that meets the reset.
    let _ = (0..200).try_for_each(|_| socket.send(Message::binary(vec![7; 1000])));
    let Ok(Message::Close(Some(close))) = socket.read() else { panic!("no close") };
    assert_eq!(u16::from(close.code), 1011);
    while socket.read().is_ok() {}
    assert_end(&record(&proxy), "peer_reset", "upstream");
}

#[test]
fn a_client_that_vanishes_resets_the_server() {
    for reset in [true, false] {
        let backend = Backend::echo();
        let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "")));
        let conn = open_raw(&proxy.tcp("t"));
        conn.send(b"\x82\x81\0\0\0\0x");
        assert_eq!(conn.recv(3), b"\x82\x01x");
        // An end of the connection without a Close tells nobody whether all was said.
        if reset {
            conn.reset()
        } else {
            drop(conn)
        }
        assert_eq!(backend.next_end().error, Some(io::ErrorKind::ConnectionReset));
        assert_end(&record(&proxy), "client_reset", "client");
    }
}

#[test]
fn a_reset_is_seen_of_a_client_that_is_not_being_read() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::start(move |conn| {
        let _ = wait.lock().unwrap().recv();
        drain(conn)
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "")));
    let conn = open_raw(&proxy.tcp("t"));
    conn.patience(Duration::from_millis(300));
    conn.socket().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    // One frame without an end, until nobody takes more of it.
    conn.send(b"\x82\xff\0\0\0\x01\0\0\0\0\0\0\0\0");
    while conn.try_send(&[0; 65_536]).is_ok() {}
    conn.reset();
    assert_end(&record(&proxy), "client_reset", "client");
    release.send(()).unwrap();
    assert_eq!(backend.next_end().error, Some(io::ErrorKind::ConnectionReset));
}

#[test]
fn who_breaks_the_protocol_is_told_and_the_server_reset() {
    let long = [&b"\x89\xfe\x00\x7e\0\0\0\0"[..], &[0; 126]].concat();
    let cases: [(&str, &[u8], u16); 10] = [
        ("no mask", b"\x82\x01x", 1002),
        ("a reserved bit", b"\xc2\x81\0\0\0\0x", 1002),
        ("a reserved opcode", b"\x83\x80\0\0\0\0", 1002),
        ("a ping of 126 bytes", &long, 1002),
        ("a ping in fragments", b"\x09\x80\0\0\0\0", 1002),
        ("a length too long", b"\x82\xfe\x00\x01\0\0\0\0x", 1002),
        ("a continuation of nothing", b"\x80\x80\0\0\0\0", 1002),
        ("a close with half a code", b"\x88\x81\0\0\0\0\x03", 1002),
        ("text that is none", b"\x81\x81\0\0\0\0\xff", 1007),
        ("garbage", b"\xff\xff\xff\xff\xff\xff\xff\xff", 1002),
    ];
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "")));
    for (index, (what, bytes, code)) in cases.into_iter().enumerate() {
        let conn = open_raw(&proxy.tcp("t"));
        conn.send(b"\x82\x82\0\0\0\0ok");
        assert_eq!(conn.recv(4), b"\x82\x02ok", "{what}");
        conn.send(bytes);
        let head = conn.recv(4);
        assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, code), "{what}");
        conn.recv(usize::from(head[1]) - 2);
        conn.expect_end();
        drop(conn);
        assert_eq!(backend.next_end().error, Some(io::ErrorKind::ConnectionReset), "{what}");
        let records = proxy.access_log(index + 1);
        assert_end(&records[index], "client_ws_violation", "client");
    }
    assert_eq!(proxy.active(), 0);
}

/// A config whose connections are cut off soon after the proxy is told to stop.
fn impatient(stream: &str) -> String {
    format!("shutdown_timeout = \"300ms\"\n{ACCESS_LOG}{stream}")
}

#[test]
fn a_stopped_proxy_says_so_and_resets_the_server() {
    let backend = Backend::echo();
    let mut proxy = start(&impatient(&ws2tcp(backend.addr(), "")));
    proxy.expect_warn("drain");
    let conn = open_raw(&proxy.tcp("t"));
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(conn.recv(17), b"\x88\x0f\x03\xe9shutting down");
    conn.expect_end();
    assert_eq!(proxy.wait(), Some(0));
    assert_end(&record(&proxy), "drained", "us");
    assert_eq!(backend.next_end().error, Some(io::ErrorKind::ConnectionReset));
}

#[test]
fn a_proxy_that_is_stopped_in_a_chain_ends_nothing_in_good_order() {
    for outer_stops in [true, false] {
        let backend = Backend::echo();
        let mut inner = start(&impatient(&ws2tcp(backend.addr(), "")));
        let mut outer = start(&impatient(&tcp2ws(&inner.tcp("t"), "")));
        let conn = Conn::connect(&outer.tcp("t"));
        conn.echo(b"x");
        let (stopped, goes_on, outcome, fault) = match outer_stops {
            true => (&mut outer, &inner, "client_ws_close", "client"),
            false => (&mut inner, &outer, "peer_ws_close", "upstream"),
        };
        stopped.expect_warn("drain");
        stopped.signal(rustix::process::Signal::TERM);
        conn.expect_reset();
        assert_eq!(backend.next_end().error, Some(io::ErrorKind::ConnectionReset));
        assert_end(&record(goes_on), outcome, fault);
        assert_eq!(stopped.wait(), Some(0));
    }
}
