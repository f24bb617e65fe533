//! TCP clients before a WebSocket server.

use std::io::{self, Read as _};
use std::sync::mpsc;
use std::time::Duration;

use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use wmproxy_testkit::{Backend, Conn, Pattern, Rng};

use super::*;
use crate::{ACCESS_LOG, group, start};

#[test]
fn bytes_pass_both_ways_and_the_end_is_orderly() {
    let backend = echo_server();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp2ws(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    for len in [1, 125, 126, 65_535, 65_536, 300_000] {
        conn.echo(&Pattern::new(len as u64).bytes(0, len));
    }
    conn.finish();
    conn.expect_end();
    let total: u64 = [1_u64, 125, 126, 65_535, 65_536, 300_000].iter().sum();
    let record = record(&proxy);
    assert_end(&record, "done", "none");
    assert_eq!((record["bytes_in"].as_u64(), record["bytes_out"].as_u64()), (Some(total), Some(total)));
    assert_eq!(record["peer"], backend.addr().to_string());
    assert_eq!(backend.next_end().bytes, total);
}

#[test]
fn the_server_is_asked_as_the_options_say() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let backend = Backend::start(move |conn| {
        #[expect(clippy::result_large_err, reason = "it is tungstenite's")]
        let callback = |request: &Request, mut response: Response| {
            let field = |name: &str| {
                request.headers().get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
            };
            let seen = [request.uri().to_string(), field("host"), field("authorization")];
            let _ = tell.lock().unwrap().send((seen, field("sec-websocket-protocol")));
            response.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
            Ok(response)
        };
        let mut socket = tungstenite::accept_hdr(Io(conn), callback).map_err(other)?;
        // In the same segment as the head, so that it is read with it.
        socket.send(Message::text("welcome")).map_err(other)?;
        while socket.read().is_ok() {}
        Ok(0)
    });
    let upstream = group("g", &[backend.addr().to_string()], "");
    let stream = "[[stream]]\nname = \"t\"\nlisten = \"127.0.0.1:0\"\nupstream = \"g\"\nbridge = \"tcp2ws\"\n\
        bridge_url = \"ws://shop.example:8080/a/b?c=d\"\nbridge_subprotocol = [\"mqtt\", \"binary\"]\n\
        bridge_headers = { Authorization = \"Bearer tok-en\" }\n";
    let proxy = start(&format!("{upstream}{stream}"));
    let conn = Conn::connect(&proxy.tcp("t"));
    assert_eq!(conn.recv(7), b"welcome");
    let (seen, protocols) = told.recv().unwrap();
    assert_eq!(seen, ["/a/b?c=d", "shop.example:8080", "Bearer tok-en"]);
    assert_eq!(protocols, "mqtt, binary");
    // What is secret is not printed.
    let printed = proxy.command(&["check", "-c", "wmproxy.toml", "--print"]).success().stdout;
    assert!(!printed.contains("tok-en") && printed.contains("Authorization"), "{printed}");
}

#[test]
fn a_message_of_16_megabytes_comes_out_as_it_is_read() {
    const TOTAL: usize = 16 << 20;
    let backend = Backend::start(|conn| {
        let config = WebSocketConfig::default().max_frame_size(Some(TOTAL)).write_buffer_size(0);
        let mut socket = tungstenite::accept_with_config(Io(conn), Some(config)).map_err(other)?;
        socket.send(Message::binary(Pattern::new(1).bytes(0, TOTAL))).map_err(other)?;
        while socket.read().is_ok() {}
        Ok(TOTAL as u64)
    });
    let proxy = start(&tcp2ws(backend.addr(), ""));
    let before = proxy.memory_kb();
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.recv_pattern(&Pattern::new(1), TOTAL as u64, &mut Rng::new(1));
    let grown = proxy.memory_kb().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB more after a message of 16 MiB");
}

#[test]
fn a_close_of_the_server_is_a_fin_or_a_reset() {
    for (code, outcome) in
        [(1000, "done"), (1001, "peer_ws_close"), (1011, "peer_ws_close"), (4000, "peer_ws_close")]
    {
        let backend = Backend::start(move |conn| {
            let mut socket = tungstenite::accept(Io(conn)).map_err(other)?;
            socket.send(Message::text("bye")).map_err(other)?;
            let close = CloseFrame { code: code.into(), reason: "".into() };
            socket.close(Some(close)).map_err(other)?;
            while socket.read().is_ok() {}
            Ok(0)
        });
        let proxy = start(&format!("{ACCESS_LOG}{}", tcp2ws(backend.addr(), "")));
        let conn = Conn::connect(&proxy.tcp("t"));
        if outcome == "done" {
            assert_eq!(conn.recv_all(), b"bye");
            conn.finish();
        } else {
            conn.expect_reset();
        }
        let fault = if outcome == "done" { "none" } else { "upstream" };
        assert_end(&record(&proxy), outcome, fault);
    }
}

#[test]
fn a_server_that_does_not_upgrade_resets_the_client() {
    let refusals: [(&str, &[u8]); 5] = [
        ("another page", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        ("no http", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("no proof", b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        (
            "the proof of another",
            b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        ),
        ("a long head", &[b'x'; 20_000]),
    ];
    for (what, answer) in refusals {
        let answer = answer.to_vec();
        let backend = Backend::start(move |conn| {
            conn.try_send(&answer)?;
            wmproxy_testkit::backend::drain(conn)
        });
        let proxy = start(&format!("{ACCESS_LOG}{}", tcp2ws(backend.addr(), "")));
        proxy.expect_warn("peer ejected");
        let conn = Conn::connect(&proxy.tcp("t"));
        conn.expect_reset();
        assert_end(&record(&proxy), "upgrade_refused", "upstream");
        drop(conn);
        assert_eq!(proxy.active(), 0, "{what}");
    }
}

#[test]
fn a_server_that_does_not_answer_ends_by_the_connect_timeout() {
    let backend = Backend::silent();
    let upstream = group("g", &[backend.addr().to_string()], "connect_timeout = \"300ms\"");
    let config = format!("{ACCESS_LOG}{upstream}{}", tcp2ws(backend.addr(), "upstream = \"g\""));
    let proxy = start(&config);
    proxy.expect_warn("peer ejected");
    Conn::connect(&proxy.tcp("t")).expect_reset();
    assert_end(&record(&proxy), "connect_timeout", "upstream");
}

#[test]
fn a_server_that_masks_or_vanishes_resets_the_client() {
    for (last, outcome) in [(&b"\x82\x81\0\0\0\0x"[..], "peer_ws_violation"), (b"", "peer_reset")] {
        let backend = Backend::start(move |conn| {
            let socket = tungstenite::accept(Io(conn)).map_err(other)?;
            socket.get_ref().0.try_send(b"\x82\x02ok")?;
            socket.get_ref().0.try_send(last)?;
            if last.is_empty() {
                return Ok(0);
            }
            wmproxy_testkit::backend::drain(conn)
        });
        let proxy = start(&format!("{ACCESS_LOG}{}", tcp2ws(backend.addr(), "")));
        let conn = Conn::connect(&proxy.tcp("t"));
        conn.expect_reset();
        assert_end(&record(&proxy), outcome, "upstream");
    }
}

#[test]
fn a_reset_of_the_client_is_a_close_that_says_so() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let backend = Backend::start(move |conn| {
        let mut socket = tungstenite::accept(Io(conn)).map_err(other)?;
        while let Ok(message) = socket.read() {
            if let Message::Close(close) = message {
                let _ = tell.lock().unwrap().send(close.map(|close| u16::from(close.code)));
            }
        }
        Ok(0)
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp2ws(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.send(b"x");
    backend.wait_accepted(1);
    wmproxy_testkit::eventually("the byte to pass", || proxy.listener_number("t", "bytes_in") == 1);
    conn.reset();
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(Some(1011)));
    assert_end(&record(&proxy), "client_reset", "client");
}

#[test]
fn a_server_that_answers_no_ping_is_cut_off() {
    let backend = Backend::start(|conn| {
        let socket = tungstenite::accept(Io(conn)).map_err(other)?;
        let mut ping = [0; 6];
        let mut raw = socket.get_ref().0;
        raw.read_exact(&mut ping)?;
        assert_eq!(ping[..2], [0x89, 0x80], "an empty ping with a mask");
        wmproxy_testkit::backend::drain(conn)
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp2ws(backend.addr(), "bridge_ping = \"1s\"")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.expect_reset();
    assert_end(&record(&proxy), "peer_no_pong", "upstream");
    assert_eq!(backend.next_end().error, Some(io::ErrorKind::ConnectionReset));
}
