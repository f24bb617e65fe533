//! How fast bytes pass, and how often clients come. A busy machine may make anything slower, so what is asserted is that
//! nothing was faster than its rate, by the test's own clock.

use std::io::Read;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wmproxy_testkit::{Backend, Conn, Pattern, UdpBackend, UdpClient, eventually};

use crate::{ACCESS_LOG, start, tcp, udp};

const K: u64 = 1 << 10;

/// What may pass at once of a stream at 64 kB a second: two pieces.
const AT_ONCE: u64 = 8 * K;

/// Reads `total` bytes of the backend's pattern; at no moment may more have come than a rate allows.
fn read_at(conn: &Conn, seed: u64, total: u64, rate: u64, began: Instant) -> Duration {
    let pattern = Pattern::new(seed);
    let mut buffer = vec![0; 65_536];
    let mut got = 0;
    while got < total {
        let n = (&mut &*conn).read(&mut buffer).unwrap();
        assert_ne!(n, 0, "cut off after {got} bytes");
        pattern.check(got, &buffer[..n]);
        got += n as u64;
        let due = (rate as f64 * began.elapsed().as_secs_f64()) as u64 + AT_ONCE + rate / 50;
        assert!(got <= due, "{got} bytes after {:?}, and {due} are due", began.elapsed());
    }
    began.elapsed()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_download_comes_evenly_at_its_rate() {
    let backend = Backend::source(7, 140 * K);
    let proxy = start(&format!(
        "{ACCESS_LOG}{}",
        tcp(backend.addr(), "rate_limit = { down = \"64k/s\" }\nidle_timeout = \"1s\"")
    ));
    let began = Instant::now();
    let conn = Conn::connect(&proxy.tcp("t"));
    let took = read_at(&conn, 7, 140 * K, 64 * K, began);
    assert!(took >= Duration::from_secs(2), "{took:?}");
    // Some two seconds, had nothing else run here.
    assert!(took <= Duration::from_secs(12), "{took:?}");
    conn.finish();
    conn.expect_end();
    let record = proxy.access_log(1).remove(0);
    assert_eq!((record["outcome"].as_str(), record["bytes_out"].as_u64()), (Some("done"), Some(140 * K)));
}

#[test]
fn an_upload_waits_while_its_answer_does_not() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), "rate_limit = { up = \"32k/s\", down = \"1g/s\" }"));
    let began = Instant::now();
    let conn = Conn::connect(&proxy.tcp("t"));
    let pattern = Pattern::new(3);
    conn.send(&pattern.bytes(0, 48 << 10));
    // The half-close waits behind the bytes, and the answer comes after it.
    conn.finish();
    read_at(&conn, 3, 48 * K, 32 * K, began);
    conn.expect_end();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn the_connections_of_a_listener_share_its_rate_over_all_workers() {
    let backend = Backend::source(5, 50 * K);
    let more = "listener_rate_limit = { down = \"128k/s\" }";
    let proxy = start(&format!("workers = 2\n{}", tcp(backend.addr(), more)));
    let addr = proxy.tcp("t");
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let conn = Conn::connect(&addr);
                read_at(&conn, 5, 50 * K, 128 * K, began);
                conn.finish();
            });
        }
    });
    // 300 KiB; a bucket for each worker would have let them pass in half of the time.
    assert!(began.elapsed() >= Duration::from_millis(2100), "{:?}", began.elapsed());
}

#[test]
fn a_reload_changes_the_rate_of_a_listener_for_those_that_are_in() {
    let backend = Backend::source(9, 8 << 20);
    let config = |rate: &str| tcp(backend.addr(), &format!("listener_rate_limit = {{ down = \"{rate}\" }}"));
    let proxy = start(&config("64k/s"));
    let began = Instant::now();
    let conn = Conn::connect(&proxy.tcp("t"));
    read_at(&conn, 9, 20 * K, 64 * K, began);
    proxy.reload_with(&config("1g/s"));
    // Two minutes at the old rate, which is longer than this test waits for anything.
    let mut rest = vec![0; 1 << 20];
    let mut got = 0;
    loop {
        match (&mut &conn).read(&mut rest).unwrap() {
            0 => break,
            n => got += n as u64,
        }
    }
    assert!(got >= (8 << 20) - 64 * K && began.elapsed() < Duration::from_secs(60), "{got}");
    conn.finish();
}

#[test]
fn a_drain_lets_a_slow_connection_finish_and_a_reset_ends_one() {
    let backend = Backend::source(2, 80 * K);
    let mut proxy =
        start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "rate_limit = { down = \"64k/s\" }")));
    let addr = proxy.tcp("t");
    let began = Instant::now();
    let (conn, other) = (Conn::connect(&addr), Conn::connect(&addr));
    read_at(&other, 2, 8 * K, 64 * K, began);
    other.reset();
    read_at(&conn, 2, 16 * K, 64 * K, began);
    proxy.signal(Signal::TERM);
    eventually("the listener to be closed", || Conn::try_connect(&addr).is_err());
    let mut rest = Vec::new();
    (&mut &conn).read_to_end(&mut rest).unwrap();
    assert!(rest.len() as u64 >= 80 * K - 16 * K - 65_536);
    conn.finish();
    assert_eq!(proxy.wait(), Some(0));
    // Those that only looked whether the listener is still there got less.
    let mut records = proxy.access_log(2);
    records.retain(|record| record["bytes_out"].as_u64() >= Some(8 * K));
    let outcomes: Vec<_> = records.iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["client_reset", "done"]);
}

#[test]
fn splice_can_be_turned_off() {
    let total = 32 << 20;
    let backend = Backend::source(4, total);
    for (more, spliced) in [("", true), ("splice = \"auto\"", true), ("splice = \"off\"", false)] {
        let proxy = start(&tcp(backend.addr(), more));
        let conn = Conn::connect(&proxy.tcp("t"));
        conn.recv_pattern(&Pattern::new(4), total, &mut wmproxy_testkit::Rng::new(1));
        conn.finish();
        eventually("the connection to end", || proxy.active() == 0);
        let metrics = proxy.metrics();
        assert_eq!(metrics.sum("wmproxy_bytes_out_total", &[]) as u64, total);
        let bytes = metrics.sum("wmproxy_bytes_spliced_total", &[("listener", "t")]) as u64;
        assert!(bytes <= total && (bytes > 0) == spliced, "{more}: {bytes} bytes were spliced");
        assert_eq!(metrics.sum("wmproxy_splice_pipes", &[]) > 0.0, spliced);
        // A pipe that is kept is not a leak.
        proxy.rebase();
    }
}

#[test]
fn a_client_that_comes_too_often_is_reset() {
    let backend = Backend::echo();
    let more = "per_client_rate = \"4/h\"\nper_client_burst = 3";
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), more)));
    let addr = proxy.tcp("t");
    for _ in 0..3 {
        Conn::connect_from(ip("127.0.0.2"), &addr).echo(b"in");
    }
    for _ in 0..2 {
        Conn::connect_from(ip("127.0.0.2"), &addr).expect_closed();
    }
    // Nobody else suffers, and the peer has not heard of it.
    Conn::connect_from(ip("127.0.0.3"), &addr).echo(b"in");
    let refused: Vec<_> =
        proxy.access_log(6).into_iter().filter(|record| record["outcome"] != "done").collect();
    assert_eq!(refused.len(), 2);
    for record in refused {
        assert_eq!((&record["outcome"], &record["fault"]), (&"rate_limited".into(), &"client".into()));
        assert_eq!(record["client_ip"], "127.0.0.2");
    }
    let count = proxy.metrics().sum("wmproxy_connections_refused_total", &[("reason", "rate_limited")]);
    assert_eq!((count, backend.accepted()), (2.0, 4));
}

#[test]
fn datagrams_over_the_rate_are_dropped_and_counted() {
    let backend = UdpBackend::silent();
    let proxy = start(&udp(backend.addr(), "rate_limit = { up = \"16k/s\" }"));
    let client = UdpClient::connect(proxy.udp("u"));
    let began = Instant::now();
    for _ in 0..60 {
        client.send(&[0; 1000]);
    }
    let dropped = || proxy.metrics().sum("wmproxy_udp_dropped_total", &[("reason", "over_rate")]) as usize;
    eventually("all to be passed on or dropped", || backend.received() + dropped() == 60);
    // A burst of 3 kB, and what became due meanwhile.
    let due = 4 + (16.4 * began.elapsed().as_secs_f64()) as usize;
    assert!((1..=due).contains(&backend.received()), "{} passed", backend.received());
}

#[test]
fn datagrams_to_clients_keep_to_the_rate_of_the_listener() {
    let backend = UdpBackend::replies(50);
    let proxy = start(&udp(backend.addr(), "listener_rate_limit = { down = \"1k/s\" }"));
    let client = UdpClient::connect(proxy.udp("u"));
    client.send(&[0; 1000]);
    let metrics = || proxy.metrics();
    let dropped = || metrics().sum("wmproxy_udp_dropped_total", &[("reason", "over_rate")]) as u64;
    let passed = || metrics().sum("wmproxy_datagrams_out_total", &[]) as u64;
    eventually("all to be passed on or dropped", || dropped() + passed() == 50);
    assert!(dropped() >= 10 && passed() >= 1, "{} passed", passed());
}

#[test]
fn a_client_that_begins_flows_too_often_is_not_served() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), "per_client_rate = \"1/h\"\nper_client_burst = 2"));
    let addr = proxy.udp("u");
    let clients: Vec<UdpClient> = (0..3).map(|_| UdpClient::connect(addr)).collect();
    clients[0].echo(b"first");
    clients[1].echo(b"second");
    clients[2].send(b"third");
    let dropped = || proxy.metrics().sum("wmproxy_udp_dropped_total", &[("reason", "rate_limited")]);
    eventually("the third to be dropped", || dropped() == 1.0);
    clients[0].echo(b"a flow that is open goes on");
    assert_eq!(backend.received(), 3);
}
