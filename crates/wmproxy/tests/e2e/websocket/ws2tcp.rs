//! WebSocket clients before a TCP server.

use std::time::Duration;

use tungstenite::protocol::Role;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};
use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Backend, Conn, Pattern, Rng, eventually};

use super::*;
use crate::{ACCESS_LOG, start};

/// Reads messages until so many bytes have come.
fn collect(socket: &mut WebSocket<Io<'_>>, bytes: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < bytes {
        match socket.read().unwrap() {
            Message::Binary(part) => got.extend_from_slice(&part),
            other => panic!("{other:?}"),
        }
    }
    got
}

#[test]
fn text_and_binary_go_in_and_binary_comes_out() {
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    let mut socket = open(&conn, "/any/path?and=query");
    socket.send(Message::text("grüße")).unwrap();
    assert_eq!(collect(&mut socket, 7), "grüße".as_bytes());
    socket.send(Message::binary(vec![0xff; 70_000])).unwrap();
    assert_eq!(collect(&mut socket, 70_000), [0xff; 70_000]);
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    let record = record(&proxy);
    assert_end(&record, "done", "none");
    // The payload, without frames and handshake.
    assert_eq!((record["bytes_in"].as_u64(), record["bytes_out"].as_u64()), (Some(70_007), Some(70_007)));
    assert_eq!(backend.next_end().bytes, 70_007);
}

#[test]
fn fragments_are_joined_and_pings_between_them_answered() {
    let backend = Backend::echo();
    let proxy = start(&ws2tcp(backend.addr(), ""));
    let conn = Conn::connect(&proxy.tcp("t"));
    let mut socket = open(&conn, "/");
    let frame = |part: &str, data, fin| Frame::message(part.to_owned(), OpCode::Data(data), fin);
    socket.write(Message::Frame(frame("one, ", Data::Text, false))).unwrap();
    socket.write(Message::Frame(Frame::ping("are you there?"))).unwrap();
    socket.write(Message::Frame(frame("two, ", Data::Continue, false))).unwrap();
    socket.write(Message::Frame(frame("", Data::Continue, false))).unwrap();
    socket.write(Message::Frame(frame("three", Data::Continue, true))).unwrap();
    socket.flush().unwrap();
    let (mut got, mut pongs) = (Vec::new(), 0);
    while got.len() < 15 || pongs < 1 {
        match socket.read().unwrap() {
            Message::Binary(part) => got.extend_from_slice(&part),
            Message::Pong(body) => {
                assert_eq!(body, "are you there?");
                pongs += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, b"one, two, three");
}

#[test]
fn a_flood_of_pings_is_answered_by_the_last_of_them() {
    let backend = Backend::echo();
    let proxy = start(&ws2tcp(backend.addr(), ""));
    let conn = Conn::connect(&proxy.tcp("t"));
    let before = proxy.memory_kb();
    let mut socket = open(&conn, "/");
    const COUNT: u32 = 50_000;
    std::thread::scope(|scope| {
        let [mut sender, _] = halves(&conn, Role::Client);
        scope.spawn(move || {
            for i in 0..COUNT {
                sender.write(Message::Ping(i.to_be_bytes().to_vec().into())).unwrap();
            }
            sender.flush().unwrap();
        });
        // Nobody reads for a while, and then all of it.
        std::thread::sleep(Duration::from_millis(300));
        let mut last = None;
        while last != Some(COUNT - 1) {
            let Message::Pong(body) = socket.read().unwrap() else { panic!("no pong") };
            let number = u32::from_be_bytes(body.as_ref().try_into().unwrap());
            assert!(last.is_none_or(|last| last < number), "in order");
            last = Some(number);
        }
    });
    let grown = proxy.memory_kb().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB more");
}

#[test]
fn a_message_of_16_megabytes_passes_without_being_held() {
    const TOTAL: usize = 16 << 20;
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::start(move |conn| {
        let _ = wait.lock().unwrap().recv();
        conn.recv_pattern(&Pattern::new(1), TOTAL as u64, &mut Rng::new(1));
        conn.expect_end();
        Ok(TOTAL as u64)
    });
    let proxy = start(&ws2tcp(backend.addr(), ""));
    let conn = Conn::connect(&proxy.tcp("t"));
    let mut socket = open(&conn, "/");
    let before = proxy.memory_kb();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            socket.send(Message::binary(Pattern::new(1).bytes(0, TOTAL))).unwrap();
            socket.close(None).unwrap();
            while socket.read().is_ok() {}
        });
        // The server does not read: what does not fit in the sockets stays with the client.
        let stalled = || proxy.listener_number("t", "bytes_in");
        let mut last = 0;
        eventually("the sender to stall", || {
            let now = std::mem::replace(&mut last, stalled());
            now > 0 && now == last && !holds_within(Duration::from_millis(200), || stalled() != now)
        });
        let grown = proxy.memory_kb().saturating_sub(before);
        assert!(grown < 1024, "{grown} KiB more with half a message in between");
        release.send(()).unwrap();
        sender.join().unwrap();
    });
    assert_eq!(backend.next_end().error, None);
}

#[test]
fn a_client_that_does_not_read_stalls_the_server_and_not_our_memory() {
    let backend = Backend::start(|conn| {
        let pattern = Pattern::new(1);
        let mut offset = 0;
        while let Ok(()) = conn.try_send(pattern.slice(offset, 65_536)) {
            offset += pattern.slice(offset, 65_536).len() as u64;
        }
        Ok(offset)
    });
    let proxy = start(&ws2tcp(backend.addr(), ""));
    let before = proxy.memory_kb();
    let conns: Vec<Conn> = (0..10).map(|_| open_raw(&proxy.tcp("t"))).collect();
    let mut last = 0;
    eventually("the server to stall", || {
        let sent = || proxy.listener_number("t", "bytes_out");
        let now = std::mem::replace(&mut last, sent());
        now > 0 && now == last && !holds_within(Duration::from_millis(200), || sent() != now)
    });
    let grown = proxy.memory_kb().saturating_sub(before);
    assert!(grown < 10 * 256, "{grown} KiB more with 10 stalled bridges");
    // And it goes on where it stood.
    let [mut socket, _] = halves(&conns[0], Role::Client);
    let (mut got, pattern) = (0, Pattern::new(1));
    while got < 16 << 20 {
        let Message::Binary(part) = socket.read().unwrap() else { panic!("no bytes") };
        pattern.check(got, &part);
        got += part.len() as u64;
    }
    for conn in conns {
        conn.reset();
    }
    backend.wait_idle();
}

#[test]
fn idle_bridges_cost_no_cpu_and_little_memory() {
    let backend = Backend::echo();
    let proxy = start(&ws2tcp(backend.addr(), "bridge_ping = \"1m\""));
    let addr = proxy.tcp("t");
    let open_all = |count| -> Vec<Conn> {
        let conns: Vec<Conn> = (0..count).map(|_| open_raw(&addr)).collect();
        for conn in &conns {
            // A masked frame of one byte under a key of zeros.
            conn.send(b"\x82\x81\0\0\0\0x");
        }
        for conn in &conns {
            assert_eq!(conn.recv(3), b"\x82\x01x");
        }
        conns
    };
    let warm = open_all(50);
    let before = (proxy.memory_kb(), proxy.cpu_ticks());
    let more = open_all(1_000);
    let memory = proxy.memory_kb().saturating_sub(before.0);
    assert!(memory < 4_000, "{memory} KiB for 1000 idle bridges");
    let ticks = proxy.cpu_ticks();
    std::thread::sleep(Duration::from_millis(500));
    let used = proxy.cpu_ticks() - ticks;
    assert!(used <= 10, "{used} ticks of 10 ms in half a second of silence");
    drop((warm, more));
    backend.wait_idle();
}

#[test]
fn pings_keep_a_bridge_and_find_who_is_gone() {
    let backend = Backend::echo();
    let config = format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), "bridge_ping = \"2s\""));
    let proxy = start(&config);
    let alive = Conn::connect(&proxy.tcp("t"));
    let mut alive = open(&alive, "/");
    let gone = open_raw(&proxy.tcp("t"));
    // Its pongs are sent by its reads.
    for _ in 0..3 {
        assert_eq!(alive.read().unwrap(), Message::Ping(Vec::new().into()));
    }
    // Who answers nothing has been asked once, and is then cut off.
    assert_eq!(gone.recv(2), [0x89, 0]);
    gone.expect_reset();
    assert_end(&record(&proxy), "client_no_pong", "client");
    alive.send(Message::text("still here")).unwrap();
    assert_eq!(collect(&mut alive, 10), b"still here");
}

#[test]
fn a_bridge_ends_by_its_idle_timeout_though_it_is_pinged() {
    let backend = Backend::echo();
    let more = "bridge_ping = \"2s\"\nidle_timeout = \"5s\"";
    let proxy = start(&format!("{ACCESS_LOG}{}", ws2tcp(backend.addr(), more)));
    let conn = Conn::connect(&proxy.tcp("t"));
    let mut socket = open(&conn, "/");
    socket.send(Message::text("x")).unwrap();
    let mut seen = Vec::new();
    let close = loop {
        match socket.read().unwrap() {
            Message::Close(close) => break close.unwrap(),
            message => seen.push(message),
        }
    };
    assert_eq!(u16::from(close.code), 1001);
    assert!(seen.len() >= 2, "{seen:?}");
    let _ = socket.flush();
    assert_end(&record(&proxy), "idle_timeout", "none");
}

#[test]
fn a_rate_limit_holds_for_a_bridge() {
    let backend = Backend::echo();
    let proxy = start(&ws2tcp(backend.addr(), "rate_limit = { up = \"1m/s\" }"));
    let conn = Conn::connect(&proxy.tcp("t"));
    let mut socket = open(&conn, "/");
    let began = std::time::Instant::now();
    socket.send(Message::binary(vec![1; 1 << 20])).unwrap();
    collect(&mut socket, 1 << 20);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(600), "{took:?} for 1 MiB at 1 MiB a second");
}
