//! How TCP connections end, and whose fault the access log says it was.

use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use serde_json::Value;
use wmproxy_testkit::backend::{Unreachable, drain};
use wmproxy_testkit::tcp::Closed;
use wmproxy_testkit::{Backend, Conn, Proxy};

use crate::{ACCESS_LOG, group, start, tcp};

/// The one line of the access log.
fn record(proxy: &Proxy) -> Value {
    proxy.access_log(1).remove(0)
}

fn assert_end(record: &Value, outcome: &str, fault: &str) {
    assert_eq!(
        (record["outcome"].as_str(), record["fault"].as_str()),
        (Some(outcome), Some(fault)),
        "{record}"
    );
}

#[test]
fn an_orderly_end_is_done_and_counted() {
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.echo(b"hello");
    let from = conn.local();
    conn.finish();
    conn.expect_end();
    let record = record(&proxy);
    assert_end(&record, "done", "none");
    assert_eq!(record["listener"], "t");
    assert_eq!(record["protocol"], "tcp");
    assert_eq!(record["client_addr"], from.to_string());
    assert_eq!(record["peer"], backend.addr().to_string());
    assert_eq!((record["bytes_in"].as_u64(), record["bytes_out"].as_u64()), (Some(5), Some(5)));
    assert!(record["connect_time"].as_f64().unwrap() <= record["duration"].as_f64().unwrap());
}

#[test]
fn a_clients_reset_reaches_the_peer_as_a_reset() {
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.echo(b"hello");
    conn.reset();
    assert_eq!(backend.next_end().error, Some(io::ErrorKind::ConnectionReset));
    assert_end(&record(&proxy), "client_reset", "client");
}

#[test]
fn a_peers_reset_reaches_the_client_as_a_reset() {
    let backend = Backend::start(|conn| {
        (&*conn).read_exact(&mut [0; 5])?;
        conn.socket().set_linger(Some(Duration::ZERO)).map(|()| 5)
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.send(b"hello");
    conn.expect_reset();
    assert_end(&record(&proxy), "peer_reset", "upstream");
}

#[test]
fn a_peer_that_resets_at_once_resets_the_client() {
    let backend = Backend::resets();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.expect_reset();
    // A reset that comes before the connection is looked at is a failure to connect.
    proxy.expect_warn("ejected");
    let record = record(&proxy);
    let outcome = record["outcome"].as_str().unwrap();
    assert!(["peer_reset", "connect_failed"].contains(&outcome), "{record}");
    assert_end(&record, outcome, "upstream");
}

#[test]
fn a_client_that_says_nothing_ends_by_its_timeout() {
    let backend = Backend::silent();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "idle_timeout = \"400ms\"")));
    Conn::connect(&proxy.tcp("t")).expect_closed();
    assert_end(&record(&proxy), "client_silent", "client");
    backend.wait_idle();
}

#[test]
fn a_peer_that_never_answers_ends_by_its_timeout() {
    let backend = Backend::silent();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "idle_timeout = \"2s\"")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.send(b"anybody there?");
    conn.expect_closed();
    assert_end(&record(&proxy), "peer_silent", "upstream");
    backend.wait_idle();
}

#[test]
fn a_conversation_that_stops_ends_by_its_timeout() {
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "idle_timeout = \"2s\"")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.echo(b"hello");
    conn.expect_closed();
    assert_end(&record(&proxy), "idle_timeout", "none");
    backend.wait_idle();
}

#[test]
fn traffic_in_one_direction_keeps_a_connection() {
    let backend = Backend::start(|conn| {
        for _ in 0..20 {
            conn.try_send(b"tick\n")?;
            std::thread::sleep(Duration::from_millis(500));
        }
        conn.finish();
        drain(conn)
    });
    // Half of the whole, and several times the pause between two words.
    let proxy = start(&tcp(backend.addr(), "idle_timeout = \"5s\""));
    let conn = Conn::connect(&proxy.tcp("t"));
    assert_eq!(conn.recv_all().len(), 100);
}

/// What the kernel holds for it is more than it reads within the timeout.
#[test]
fn a_slow_reader_is_not_idle_and_one_who_stops_is() {
    let backend = Backend::start(|conn| {
        while conn.try_send(&[7; 65_536]).is_ok() {}
        Ok(0)
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "idle_timeout = \"500ms\"")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.read_slowly();
    conn.sip(Duration::from_secs(3));
    let stopped = Instant::now();
    backend.wait_idle();
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
    assert_end(&record(&proxy), "client_silent", "client");
}

#[test]
fn an_answer_after_the_client_left_harms_nobody() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::start(move |conn| {
        (&*conn).read_exact(&mut [0; 5])?;
        let _ = wait.lock().unwrap().recv();
        // More than a socket's buffer: the failure must come back to us, too.
        while conn.try_send(&[0; 65_536]).is_ok() {}
        Ok(5)
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.send(b"hello");
    backend.wait_accepted(1);
    drop(conn);
    release.send(()).unwrap();
    backend.wait_idle();
    let record = record(&proxy);
    assert_end(&record, "client_reset", "client");
}

#[test]
fn without_any_peer_a_connection_is_reset_and_says_so() {
    let backend = Backend::echo();
    let servers = [format!("{{ address = \"{}\", down = true }}", backend.addr())];
    let proxy = start(&format!("{ACCESS_LOG}{}{}", group("g", &servers, ""), tcp("g", "")));
    // Not an orderly end, which would look like an answer without content.
    Conn::connect(&proxy.tcp("t")).expect_reset();
    assert_end(&record(&proxy), "no_peer", "upstream");
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_refused_connection_counts_against_the_peer() {
    let closed = Closed::new();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(closed.addr(), "")));
    proxy.expect_warn("ejected");
    Conn::connect(&proxy.tcp("t")).expect_closed();
    assert_end(&record(&proxy), "connect_failed", "upstream");
}

#[test]
fn a_peer_that_does_not_answer_the_handshake_ends_by_the_connect_timeout() {
    let unreachable = Unreachable::new();
    let upstream = group("g", &[unreachable.addr().to_string()], "connect_timeout = \"300ms\"");
    let proxy = start(&format!("{ACCESS_LOG}{upstream}{}", tcp("g", "")));
    proxy.expect_warn("ejected");
    Conn::connect(&proxy.tcp("t")).expect_closed();
    let record = record(&proxy);
    assert_end(&record, "connect_timeout", "upstream");
    assert!(record["duration"].as_f64().unwrap() >= 0.3, "{record}");
}

#[test]
fn the_next_peer_is_tried_when_one_does_not_connect() {
    let (closed, unreachable, good) = (Closed::new(), Unreachable::new(), Backend::echo());
    let servers = [closed.addr().to_string(), unreachable.addr().to_string(), good.addr().to_string()];
    let upstream = group("g", &servers, "connect_timeout = \"300ms\"\nretries = 2\nfail_timeout = \"1s\"");
    let proxy = start(&format!("{ACCESS_LOG}{upstream}{}", tcp("g", "")));
    proxy.expect_warn("ejected");
    let addr = proxy.tcp("t");
    for _ in 0..6 {
        let conn = Conn::connect(&addr);
        conn.echo(b"served all the same");
    }
    for record in proxy.access_log(6) {
        assert_end(&record, "done", "none");
        assert_eq!(record["peer"], good.addr().to_string());
    }
}

#[test]
fn bytes_sent_before_the_peer_is_there_are_not_lost() {
    let (unreachable, good) = (Unreachable::new(), Backend::echo());
    let servers = [unreachable.addr().to_string(), good.addr().to_string()];
    let upstream = group("g", &servers, "connect_timeout = \"300ms\"\nmax_fails = 100");
    let proxy = start(&format!("{upstream}{}", tcp("g", "")));
    let addr = proxy.tcp("t");
    for _ in 0..4 {
        let conn = Conn::connect(&addr);
        conn.send(b"early bytes");
        conn.finish();
        assert_eq!(conn.recv_all(), b"early bytes");
    }
}
