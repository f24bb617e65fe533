//! A hundred reloads while TCP, TLS, UDP and WebSockets all carry load: nothing is lost, and memory does not grow.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tungstenite::Message;
use wmproxy_testkit::{Authority, Backend, Conn, Proxy, TlsClient, UdpBackend, UdpClient};

use crate::websocket::open;
use crate::{start, stream};

const KINDS: [&str; 6] = ["tcp", "tls", "udp", "ws", "kept tls", "kept ws"];

/// How often each kind of traffic went there and back.
type Tally = [AtomicUsize; KINDS.len()];

/// Runs `turn` again and again until it is told to stop, and counts.
fn keep_up(stop: &AtomicBool, done: &AtomicUsize, mut turn: impl FnMut()) {
    while !stop.load(Ordering::SeqCst) {
        turn();
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Keeps every kind of traffic going while `during` runs. Whatever does not come back fails the test.
fn under_load(proxy: &Proxy, client: &TlsClient, tally: &Tally, during: impl FnOnce()) {
    let (tcp, tls, ws, udp) = (proxy.tcp("t"), proxy.tcp("s"), proxy.tcp("w"), proxy.udp("u"));
    let stop = AtomicBool::new(false);
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let stop = &stop;
        scope.spawn(|| {
            keep_up(stop, &tally[0], || {
                let conn = Conn::connect(&tcp);
                conn.echo(b"a new connection");
                conn.finish();
                conn.expect_end();
            });
        });
        scope.spawn(|| {
            keep_up(stop, &tally[1], || {
                let mut conn = client.connect(&tls, "a.test").unwrap();
                conn.echo(b"a new session");
                conn.finish();
                assert_eq!(conn.recv_all().unwrap(), b"");
            });
        });
        scope.spawn(|| {
            let kept = UdpClient::connect(udp);
            keep_up(stop, &tally[2], || kept.echo(b"a datagram"));
        });
        scope.spawn(|| {
            keep_up(stop, &tally[3], || {
                let conn = Conn::connect(&ws);
                let mut socket = open(&conn, "/");
                socket.send(Message::binary(&b"a new WebSocket"[..])).unwrap();
                assert_eq!(socket.read().unwrap().into_data(), &b"a new WebSocket"[..]);
                socket.close(None).unwrap();
                while socket.read().is_ok() {}
            });
        });
        scope.spawn(|| {
            let mut kept = client.connect(&tls, "a.test").unwrap();
            keep_up(stop, &tally[4], || kept.echo(&[7; 30_000]));
            kept.finish();
        });
        scope.spawn(|| {
            let conn = Conn::connect(&ws);
            let mut kept = open(&conn, "/");
            keep_up(stop, &tally[5], || {
                kept.send(Message::binary(&b"kept open"[..])).unwrap();
                assert_eq!(kept.read().unwrap().into_data(), &b"kept open"[..]);
            });
            kept.close(None).unwrap();
            while kept.read().is_ok() {}
        });
        during();
    });
}

#[test]
fn a_hundred_reloads_under_mixed_load_lose_nothing_and_hold_no_memory() {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let (echo, udp_echo) = (Backend::echo(), UdpBackend::echo());
    let config = |round: usize| {
        let timeout = format!("idle_timeout = \"{}s\"", 30 + round % 7);
        let mut text = stream("t", "127.0.0.1:0", echo.addr(), &timeout);
        text += &stream("s", "127.0.0.1:0", echo.addr(), &format!("tls = {}\n{timeout}", pair.toml()));
        text += &stream("u", "udp://127.0.0.1:0", udp_echo.addr(), "idle_timeout = \"2s\"");
        text += &stream("w", "127.0.0.1:0", echo.addr(), &format!("bridge = \"ws2tcp\"\n{timeout}"));
        if round % 2 == 1 {
            text += &stream("guest", "127.0.0.1:0", echo.addr(), "per_client_rate = \"100/s\"");
        }
        text
    };
    let proxy = start(&config(0));
    let client = TlsClient::new(&authority);
    let tally = Tally::default();
    let (first, before) = (proxy.generation(), Instant::now());
    let mut warm = 0;
    under_load(&proxy, &client, &tally, || {
        for round in 1..=100 {
            proxy.reload_with(&config(round));
            if round == 30 {
                warm = proxy.memory_kb();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(proxy.generation(), first + 100);
    for (kind, done) in KINDS.iter().zip(&tally) {
        let done = done.load(Ordering::SeqCst);
        assert!(done >= 20, "{kind} was no load: {done} in {:?}", before.elapsed());
    }
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("wmproxy_udp_dropped_total", &[]), 0.0);
    // What 70 reloads left behind, were it a few KB each, would show; the allocator's own ups and downs do not.
    let grown = proxy.memory_kb().saturating_sub(warm);
    assert!(grown < 3 * 1024, "{grown} KB more than the {warm} KB after 30 reloads");
}
