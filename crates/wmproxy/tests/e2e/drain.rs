//! The end of the process: nothing new comes in, what runs may finish, and there is a limit to that.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use wmproxy_testkit::{Addr, Backend, Conn, Pattern, Proxy, Rng, UdpBackend, UdpClient, eventually};

use crate::{ACCESS_LOG, start, tcp, udp};

const TOTAL: u64 = 24 << 20;

/// Starts a long transfer, has `end` end the proxy in its midst, and expects every byte of it.
fn assert_transfer_survives(end: impl FnOnce(&Proxy)) {
    let backend = Backend::source(1, TOTAL);
    let mut proxy = start(&tcp(backend.addr(), ""));
    let addr = proxy.tcp("t");
    let conn = Conn::connect(&addr);
    let pattern = Pattern::new(1);
    // Stalled after the first megabyte, with the larger part still at the peer.
    let mut first = vec![0; 1 << 20];
    std::io::Read::read_exact(&mut &conn, &mut first).unwrap();
    pattern.check(0, &first);
    end(&proxy);
    eventually("the listener to be closed", || Conn::try_connect(&addr).is_err());
    assert!(proxy.running(), "a transfer is still in flight");
    let mut got = first.len() as u64;
    let mut buffer = vec![0; 65_536];
    while got < TOTAL {
        let n = std::io::Read::read(&mut &conn, &mut buffer).unwrap();
        assert_ne!(n, 0, "the transfer was cut off after {got} bytes");
        pattern.check(got, &buffer[..n]);
        got += n as u64;
    }
    conn.finish();
    conn.expect_end();
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn term_lets_a_transfer_finish() {
    assert_transfer_survives(|proxy| proxy.signal(Signal::TERM));
}

#[test]
fn int_lets_a_transfer_finish() {
    assert_transfer_survives(|proxy| proxy.signal(Signal::INT));
}

#[test]
fn stop_by_the_api_lets_a_transfer_finish() {
    assert_transfer_survives(|proxy| {
        let answer = proxy.api("POST", "/api/v1/stop");
        assert!((200..300).contains(&answer.status), "{answer:?}");
    });
}

#[test]
fn a_draining_proxy_says_so() {
    let backend = Backend::echo();
    let mut proxy = start(&tcp(backend.addr(), ""));
    assert_eq!(proxy.status()["draining"], false);
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.echo(b"hello");
    proxy.signal(Signal::TERM);
    eventually("the status to say draining", || proxy.status()["draining"] == true);
    conn.echo(b"still served");
    drop(conn);
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn stop_by_the_command_line_ends_the_process() {
    let backend = Backend::echo();
    let mut proxy = start(&tcp(backend.addr(), ""));
    Conn::connect(&proxy.tcp("t")).echo(b"hello");
    proxy.command(&["stop"]).success();
    assert_eq!(proxy.wait(), Some(0));
    // Nobody is there to be stopped any more: that is a failure, with a reason.
    let finished = proxy.command(&["stop"]);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    assert!(finished.stderr.contains("admin.sock"), "{}", finished.stderr);
}

#[test]
fn a_second_signal_stops_at_once() {
    let backend = Backend::echo();
    let mut proxy = start(&format!("shutdown_timeout = \"60s\"\n{}", tcp(backend.addr(), "")));
    let addr = proxy.tcp("t");
    let conn = Conn::connect(&addr);
    conn.echo(b"hello");
    proxy.signal(Signal::TERM);
    eventually("the listener to be closed", || Conn::try_connect(&addr).is_err());
    let second = Instant::now();
    proxy.signal(Signal::TERM);
    proxy.wait();
    assert!(second.elapsed() < Duration::from_secs(15), "it took {:?}", second.elapsed());
    conn.expect_closed();
}

#[test]
fn shutdown_timeout_ends_what_does_not_end_itself() {
    let backend = Backend::echo();
    let config = format!("shutdown_timeout = \"500ms\"\n{ACCESS_LOG}{}", tcp(backend.addr(), ""));
    let mut proxy = start(&config);
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.echo(b"hello");
    let began = Instant::now();
    proxy.signal(Signal::TERM);
    conn.expect_closed();
    assert!(began.elapsed() >= Duration::from_millis(450), "closed after only {:?}", began.elapsed());
    assert_eq!(proxy.wait(), Some(0));
    let record = proxy.access_log(1).remove(0);
    assert_eq!((record["outcome"].as_str(), record["fault"].as_str()), (Some("drained"), Some("us")));
    assert_eq!(record["bytes_in"], 5);
}

#[test]
fn an_idle_proxy_stops_at_once() {
    let backend = Backend::echo();
    let mut proxy = start(&format!("shutdown_timeout = \"60s\"\n{}", tcp(backend.addr(), "")));
    let began = Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
}

#[test]
fn a_flow_that_waits_for_its_answer_gets_it_during_a_drain() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let backend = UdpBackend::start(move |bytes, _| {
        let _ = wait.recv();
        vec![bytes.to_vec()]
    });
    let mut proxy = start(&udp(backend.addr(), "idle_timeout = \"9s\""));
    let client = UdpClient::connect(proxy.udp("u"));
    client.send(b"a slow question");
    eventually("the flow to begin", || proxy.active() == 1);
    proxy.signal(Signal::TERM);
    eventually("the drain to begin", || proxy.status()["draining"] == true);
    release.send(()).unwrap();
    assert_eq!(client.recv(), b"a slow question");
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn a_stopped_port_is_free_for_the_next() {
    let backend = Backend::echo();
    let port = wmproxy_testkit::tcp::free_port();
    let config = crate::stream("t", &format!("127.0.0.1:{port}"), backend.addr(), "");
    for _ in 0..3 {
        let proxy = start(&config);
        let Addr::Inet(addr) = proxy.tcp("t") else { unreachable!("an IP listener") };
        assert_eq!(addr.port(), port);
        Conn::connect(&proxy.tcp("t")).echo(b"hello");
        proxy.finish();
    }
}

#[test]
fn a_drain_under_load_drops_no_connection_that_was_accepted() {
    let backend = Backend::echo();
    let mut proxy = start(&tcp(backend.addr(), ""));
    let addr = proxy.tcp("t");
    let conns: Vec<Conn> = (0..200).map(|_| Conn::connect(&addr)).collect();
    for conn in &conns {
        conn.echo(b"accepted");
    }
    let pattern = Pattern::new(3);
    std::thread::scope(|scope| {
        for (i, conn) in conns.iter().enumerate() {
            let pattern = &pattern;
            scope.spawn(move || {
                conn.echo(&pattern.bytes(i as u64, 20_000));
                std::thread::sleep(Duration::from_millis(50));
                conn.echo(&pattern.bytes(0, 1 + Rng::new(i as u64).up_to(20_000)));
                conn.finish();
                conn.expect_end();
            });
        }
        proxy.signal(Signal::TERM);
    });
    assert_eq!(proxy.wait(), Some(0));
}
