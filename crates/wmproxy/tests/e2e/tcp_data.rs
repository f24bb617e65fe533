//! Bytes through the TCP relay: whole, in order, however they are cut, and never more in memory than a socket holds.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wmproxy_testkit::backend::drain;
use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Addr, Backend, Conn, Pattern, Rng, eventually};

use crate::{start, stream, tcp};

const MIB: u64 = 1 << 20;

#[test]
fn a_hundred_megabytes_pass_each_way_at_once() {
    const TOTAL: u64 = 100 * MIB;
    let backend = Backend::start(|conn| {
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                conn.send_pattern(&Pattern::new(2), TOTAL, &mut Rng::new(3))?;
                conn.finish();
                std::io::Result::Ok(())
            });
            conn.recv_pattern(&Pattern::new(1), TOTAL, &mut Rng::new(4));
            conn.expect_end();
            sender.join().unwrap().map(|()| TOTAL)
        })
    });
    let proxy = start(&tcp(backend.addr(), ""));
    let conn = Conn::connect(&proxy.tcp("t"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            conn.send_pattern(&Pattern::new(1), TOTAL, &mut Rng::new(5)).unwrap();
            conn.finish();
        });
        conn.recv_pattern(&Pattern::new(2), TOTAL, &mut Rng::new(6));
        conn.expect_end();
    });
    let end = backend.next_end();
    assert_eq!((end.bytes, end.error), (TOTAL, None));
}

#[test]
fn streams_of_every_shape_come_back_whole() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    let addr = proxy.tcp("t");
    std::thread::scope(|scope| {
        for seed in 0..16 {
            let addr = &addr;
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                let total = 1 + rng.next_u64() % (4 * MIB);
                let (pattern, conn) = (Pattern::new(seed), Conn::connect(addr));
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        conn.send_pattern(&pattern, total, &mut Rng::new(seed + 100)).unwrap();
                        conn.finish();
                    });
                    conn.recv_pattern(&pattern, total, &mut rng);
                    conn.expect_end();
                });
            });
        }
    });
}

#[test]
fn bulk_and_chatter_alternate_on_one_connection() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    let conn = Conn::connect(&proxy.tcp("t"));
    let pattern = Pattern::new(9);
    for round in 0..4 {
        for size in 1..40 {
            conn.echo(&pattern.bytes(round, size));
        }
        std::thread::scope(|scope| {
            scope.spawn(|| conn.send_pattern(&pattern, 8 * MIB, &mut Rng::new(round)).unwrap());
            conn.recv_pattern(&pattern, 8 * MIB, &mut Rng::new(round + 50));
        });
    }
}

#[test]
fn two_thousand_connections_live_at_once() {
    const COUNT: usize = 2_000;
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    let addr = proxy.tcp("t");
    let conns: Vec<Conn> = (0..COUNT).map(|_| Conn::connect(&addr)).collect();
    let message = |i: usize| format!("this is connection {i:05}").into_bytes();
    // First said by all, then answered to all: one after the other takes longer than the backend waits for a word.
    let echo_all = || {
        for (i, conn) in conns.iter().enumerate() {
            conn.send(&message(i));
        }
        for (i, conn) in conns.iter().enumerate().rev() {
            assert_eq!(conn.recv(message(i).len()), message(i));
        }
    };
    echo_all();
    assert_eq!(proxy.listener_number("t", "active"), COUNT as u64);
    assert_eq!(backend.accepted(), COUNT);
    echo_all();
    drop(conns);
    backend.wait_idle();
}

#[test]
fn a_storm_of_connections_leaves_nothing_behind() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    let addr = proxy.tcp("t");
    let storm = || {
        let conns: Vec<Conn> = (0..400).map(|_| Conn::connect(&addr)).collect();
        for conn in &conns {
            conn.echo(b"storm");
        }
        drop(conns);
        eventually("the connections to end", || proxy.active() == 0);
    };
    storm();
    let before = proxy.memory_kb();
    for _ in 0..4 {
        storm();
    }
    let grown = proxy.memory_kb().saturating_sub(before);
    assert!(grown < 1_024, "{grown} KiB more after five storms than after the first");
}

#[test]
fn the_client_may_finish_first_and_still_read() {
    let backend = Backend::start(|conn| {
        let got = drain(conn)?;
        conn.send_pattern(&Pattern::new(1), 3 * MIB, &mut Rng::new(1))?;
        Ok(got)
    });
    let proxy = start(&tcp(backend.addr(), ""));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.send(b"that is all");
    conn.finish();
    conn.recv_pattern(&Pattern::new(1), 3 * MIB, &mut Rng::new(2));
    conn.expect_end();
    assert_eq!(backend.next_end().bytes, 11);
}

#[test]
fn the_peer_may_finish_first_and_still_read() {
    let backend = Backend::start(|conn| {
        conn.try_send(b"that is all")?;
        conn.finish();
        conn.recv_pattern(&Pattern::new(1), 3 * MIB, &mut Rng::new(1));
        conn.expect_end();
        Ok(3 * MIB)
    });
    let proxy = start(&tcp(backend.addr(), ""));
    let conn = Conn::connect(&proxy.tcp("t"));
    assert_eq!(conn.recv_all(), b"that is all");
    conn.send_pattern(&Pattern::new(1), 3 * MIB, &mut Rng::new(2)).unwrap();
    conn.finish();
    assert_eq!(backend.next_end().bytes, 3 * MIB);
}

#[test]
fn a_client_that_finishes_without_a_word_ends_the_peers_stream() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.finish();
    conn.expect_end();
    assert_eq!(backend.next_end().bytes, 0);
}

/// Waits until `sent` has stood still for a while; says where.
fn stalled(sent: &AtomicU64) -> u64 {
    let mut last = 0;
    eventually("the senders to stall", || {
        let now = sent.load(Ordering::SeqCst);
        let still = now > 0
            && now == last
            && !holds_within(Duration::from_millis(300), || sent.load(Ordering::SeqCst) != now);
        last = now;
        still
    });
    last
}

/// The most bytes that the kernel holds of one direction through the proxy: the buffers of four sockets, as large as it may
/// make them.
fn in_flight() -> u64 {
    let largest = |name: &str| {
        let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        limits.split_whitespace().next_back().unwrap().parse::<u64>().unwrap()
    };
    2 * (largest("tcp_rmem") + largest("tcp_wmem"))
}

/// Some bulk over enough connections that every worker has had some.
fn warm_up(addr: &Addr) {
    let conns: Vec<Conn> = (0..16).map(|_| Conn::connect(addr)).collect();
    for conn in &conns {
        conn.echo(&Pattern::new(1).bytes(0, 60_000));
    }
}

#[test]
fn a_slow_client_stalls_the_peer_and_not_our_memory() {
    const CONNS: u64 = 20;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let backend = Backend::start(move |conn| {
        let pattern = Pattern::new(1);
        let mut offset = 0;
        // Until the client has had enough.
        while let Ok(()) = conn.try_send(pattern.slice(offset, 65_536)) {
            let n = pattern.slice(offset, 65_536).len() as u64;
            counter.fetch_add(n, Ordering::SeqCst);
            offset += n;
        }
        Ok(offset)
    });
    let proxy = start(&tcp(backend.addr(), ""));
    let addr = proxy.tcp("t");
    let before = proxy.memory_kb();
    let conns: Vec<Conn> = (0..CONNS).map(|_| Conn::connect(&addr)).collect();
    let total = stalled(&sent);
    let grown = proxy.memory_kb().saturating_sub(before);
    // What is under way lies in four socket buffers and a pipe; the kernel's, which stop at some megabytes each.
    assert!(total <= CONNS * in_flight(), "{total} bytes were taken from the peers");
    assert!(grown < CONNS * 256, "{grown} KiB more with {CONNS} stalled connections");
    // And it goes on from where it stood.
    conns[0].recv_pattern(&Pattern::new(1), 64 * MIB, &mut Rng::new(1));
    for conn in conns {
        conn.reset();
    }
    backend.wait_idle();
}

#[test]
fn a_slow_peer_stalls_the_client_and_not_our_memory() {
    let most = in_flight();
    let total = most + 32 * MIB;
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::start(move |conn| {
        let _ = wait.lock().unwrap().recv();
        conn.recv_pattern(&Pattern::new(1), total, &mut Rng::new(1));
        drain(conn)
    });
    let echo = Backend::echo();
    let proxy = start(&(tcp(backend.addr(), "") + &stream("warm", "127.0.0.1:0", echo.addr(), "")));
    // What workers keep for all connections is there before.
    warm_up(&proxy.tcp("warm"));
    let conn = Conn::connect(&proxy.tcp("t"));
    let before = proxy.memory_kb();
    let sent = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let pattern = Pattern::new(1);
            while sent.load(Ordering::SeqCst) < total {
                let offset = sent.load(Ordering::SeqCst);
                let part = pattern.slice(offset, (total - offset).min(65_536) as usize);
                conn.send(part);
                sent.fetch_add(part.len() as u64, Ordering::SeqCst);
            }
            conn.finish();
        });
        let taken = stalled(&sent);
        assert!(taken <= most, "{taken} bytes were taken from the client");
        let grown = proxy.memory_kb().saturating_sub(before);
        assert!(grown < 1024, "{grown} KiB more with one stalled connection");
        release.send(()).unwrap();
    });
    conn.expect_end();
}

#[test]
fn an_idle_connection_costs_no_cpu() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    let addr = proxy.tcp("t");
    let conns: Vec<Conn> = (0..100).map(|_| Conn::connect(&addr)).collect();
    for conn in &conns {
        conn.echo(b"hello");
    }
    // One side finished: a relay that polls a half-closed socket again and again burns a core here.
    conns[0].finish();
    let mut byte = [0];
    assert_eq!((&conns[0]).read(&mut byte).unwrap(), 0);
    let before = proxy.cpu_ticks();
    std::thread::sleep(Duration::from_millis(500));
    let used = proxy.cpu_ticks() - before;
    assert!(used <= 10, "{used} ticks of 10 ms in half a second of silence");
}
