//! Connections that wait for a server with room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wmproxy_testkit::{Backend, Conn, Proxy, UdpBackend, UdpClient, eventually};

use crate::{ACCESS_LOG, group, start, tcp, udp};

/// A stream to one server with room for `max`, and a queue.
fn config(backend: &Backend, max: usize, queue: &str) -> String {
    let servers = [format!("{{ address = \"{}\", max_connections = {max} }}", backend.addr())];
    format!("{ACCESS_LOG}{}{}", group("g", &servers, &format!("queue = {queue}")), tcp("g", ""))
}

fn queued(proxy: &Proxy) -> usize {
    let metric = proxy.metrics().sum("wmproxy_upstream_queued", &[("group", "g")]) as usize;
    let status = proxy.status();
    assert!(status["upstreams"][0]["queued"].as_u64().is_some(), "{status}");
    metric
}

/// Connects and waits until that many are queued.
fn join_queue(proxy: &Proxy, count: usize) -> Conn {
    let conn = Conn::connect(&proxy.tcp("t"));
    eventually("the connection to be queued", || queued(proxy) == count);
    conn
}

fn outcomes(proxy: &Proxy, count: usize) -> Vec<String> {
    let lines = proxy.access_log(count);
    lines.iter().map(|line| line["outcome"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn who_waits_is_served_in_order() {
    let backend = Backend::named("a");
    let proxy = start(&config(&backend, 1, "{ max = 10, timeout = \"30s\" }"));
    let held = Conn::connect(&proxy.tcp("t"));
    assert_eq!(held.line(), "a");
    let waiting: Vec<Conn> = (1..=3).map(|count| join_queue(&proxy, count)).collect();
    assert_eq!(backend.accepted(), 1);
    let mut served = held;
    for (n, next) in waiting.into_iter().enumerate() {
        drop(served);
        assert_eq!(next.line(), "a", "its turn");
        assert_eq!((backend.accepted(), queued(&proxy)), (n + 2, 2 - n));
        served = next;
    }
}

#[test]
fn a_crowd_gets_through_a_narrow_gate() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let backend = Backend::start({
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        move |conn| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let received = conn.recv(4);
            // Counted out before the client can know that it was served, and so before the next is let in.
            now.fetch_sub(1, Ordering::SeqCst);
            conn.try_send(&received)?;
            wmproxy_testkit::backend::drain(conn)
        }
    });
    let proxy = start(&format!("workers = 2\n{}", config(&backend, 3, "{ max = 200, timeout = \"30s\" }")));
    let addr = proxy.tcp("t");
    std::thread::scope(|scope| {
        for client in 0..20u8 {
            let addr = &addr;
            scope.spawn(move || {
                for n in 0..20 {
                    let conn = Conn::connect(addr);
                    conn.echo(&[client, n, 0, 1]);
                }
            });
        }
    });
    let most = most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} at a time");
    assert_eq!(backend.accepted(), 400);
    assert!(outcomes(&proxy, 400).iter().all(|outcome| outcome == "done"));
    assert_eq!(queued(&proxy), 0);
}

#[test]
fn a_full_queue_and_a_long_wait_have_outcomes_of_their_own() {
    let backend = Backend::named("a");
    let proxy = start(&config(&backend, 1, "{ max = 1, timeout = \"3s\" }"));
    let held = Conn::connect(&proxy.tcp("t"));
    assert_eq!(held.line(), "a");
    let waiting = join_queue(&proxy, 1);
    Conn::connect(&proxy.tcp("t")).expect_reset();
    assert_eq!(outcomes(&proxy, 1), ["queue_full"]);
    waiting.expect_reset();
    assert_eq!(outcomes(&proxy, 2), ["queue_full", "queue_timeout"]);
    drop(held);
    let metrics = proxy.metrics();
    for outcome in ["queue_full", "queue_timeout"] {
        assert_eq!(metrics.sum("wmproxy_connections_closed_total", &[("outcome", outcome)]), 1.0);
    }
    eventually("room", || backend.active() == 0);
    assert_eq!(Conn::connect(&proxy.tcp("t")).line(), "a");
}

#[test]
fn who_leaves_the_queue_gives_its_place_up() {
    let backend = Backend::named("a");
    let proxy = start(&config(&backend, 1, "{ max = 2, timeout = \"30s\" }"));
    let held = Conn::connect(&proxy.tcp("t"));
    assert_eq!(held.line(), "a");
    drop(join_queue(&proxy, 1));
    eventually("its place to be free", || queued(&proxy) == 0);
    let resets = join_queue(&proxy, 1);
    resets.send(b"a request");
    let stays = join_queue(&proxy, 2);
    resets.reset();
    eventually("its place to be free", || queued(&proxy) == 1);
    assert_eq!(outcomes(&proxy, 2), ["queue_left"; 2]);
    drop(held);
    assert_eq!(stays.line(), "a");
}

#[test]
fn what_a_client_sent_before_it_was_served_and_its_end_arrive() {
    let backend = Backend::echo();
    let proxy = start(&config(&backend, 1, "{ max = 2, timeout = \"30s\" }"));
    let held = Conn::connect(&proxy.tcp("t"));
    held.echo(b"x");
    let waiting = join_queue(&proxy, 1);
    waiting.send(b"early bird");
    waiting.finish();
    drop(held);
    assert_eq!(waiting.recv_all(), b"early bird");
}

#[test]
fn the_queue_outlives_a_reload() {
    let backend = Backend::named("a");
    let queue = "{ max = 10, timeout = \"30s\" }";
    let proxy = start(&config(&backend, 1, queue));
    let held = Conn::connect(&proxy.tcp("t"));
    assert_eq!(held.line(), "a");
    let before = join_queue(&proxy, 1);
    proxy.reload();
    let after = join_queue_after_reload(&proxy);
    drop(held);
    // Each generation has its line, and whoever leaves calls both.
    let served = [before, after].map(|conn| std::thread::spawn(move || conn.line()));
    assert_eq!(served.map(|thread| thread.join().unwrap()), ["a", "a"]);
}

fn join_queue_after_reload(proxy: &Proxy) -> Conn {
    let conn = Conn::connect(&proxy.tcp("t"));
    // The older generation's line is no longer counted.
    eventually("the connection to be queued", || queued(proxy) >= 1);
    conn
}

#[test]
fn flows_never_wait() {
    let backend = UdpBackend::named("a");
    let servers = [format!("{{ address = \"{}\", max_connections = 1 }}", backend.addr())];
    let upstream = group("g", &servers, "queue = { max = 10, timeout = \"30s\" }");
    let proxy = start(&format!("{upstream}{}", udp("g", "")));
    let first = UdpClient::connect(proxy.udp("u"));
    assert_eq!(first.ask_text(b"who?"), "a");
    let second = UdpClient::connect(proxy.udp("u"));
    second.send(b"who?");
    let dropped = || proxy.metrics().sum("wmproxy_udp_dropped_total", &[("reason", "no_flow")]);
    eventually("the datagram to be dropped", || dropped() == 1.0);
    assert_eq!(queued(&proxy), 0);
}
