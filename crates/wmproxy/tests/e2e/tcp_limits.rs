//! Who may come, and how many.

use std::net::IpAddr;
use std::time::Duration;

use wmproxy_testkit::{Addr, Backend, Conn, eventually};

use crate::{ACCESS_LOG, start, stream, tcp};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Expects that nothing comes for a while: the connection waits in the accept queue.
fn assert_waiting(conn: &Conn) {
    conn.patience(Duration::from_millis(200));
    let error = std::io::Read::read(&mut &*conn, &mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    conn.patience(wmproxy_testkit::PATIENCE);
}

#[test]
fn connections_above_the_limit_wait_their_turn() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), "max_connections = 4"));
    let addr = proxy.tcp("t");
    let served: Vec<Conn> = (0..4).map(|_| Conn::connect(&addr)).collect();
    for conn in &served {
        conn.echo(b"in");
    }
    let waiting: Vec<Conn> = (0..4).map(|_| Conn::connect(&addr)).collect();
    for conn in &waiting {
        conn.send(b"may I?");
    }
    assert_waiting(&waiting[0]);
    assert_eq!(backend.accepted(), 4);
    assert_eq!(proxy.listener_number("t", "active"), 4);
    // Those inside are served on, and each that leaves lets one in.
    for conn in &served {
        conn.echo(b"still here");
    }
    drop(served);
    for conn in &waiting {
        assert_eq!(conn.recv(6), b"may I?");
    }
    assert_eq!(backend.accepted(), 8);
}

#[test]
fn a_client_above_its_own_limit_is_refused() {
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), "per_client_connections = 2")));
    let addr = proxy.tcp("t");
    let first: Vec<Conn> = (0..2).map(|_| Conn::connect_from(ip("127.0.0.2"), &addr)).collect();
    for conn in &first {
        conn.echo(b"in");
    }
    Conn::connect_from(ip("127.0.0.2"), &addr).expect_closed();
    // Nobody else suffers.
    let other = Conn::connect_from(ip("127.0.0.3"), &addr);
    other.echo(b"in");
    let record = proxy.access_log(1).remove(0);
    assert_eq!(
        (record["outcome"].as_str(), record["fault"].as_str()),
        (Some("client_limit"), Some("client"))
    );
    assert_eq!(record["client_ip"], "127.0.0.2");
    // A place that is given back can be taken again.
    drop(first);
    eventually("the client's places to be free", || proxy.active() == 1);
    Conn::connect_from(ip("127.0.0.2"), &addr).echo(b"in again");
}

#[test]
fn the_longest_prefix_decides_who_may_come() {
    let backend = Backend::echo();
    let more = "allow = [\"127.0.0.0/24\", \"127.0.1.9\"]\ndeny = [\"127.0.0.8/29\", \"127.0.1.0/24\"]";
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), more)));
    let addr = proxy.tcp("t");
    for allowed in ["127.0.0.1", "127.0.0.7", "127.0.0.16", "127.0.1.9"] {
        Conn::connect_from(ip(allowed), &addr).echo(allowed.as_bytes());
    }
    for denied in ["127.0.0.8", "127.0.0.15", "127.0.1.8", "127.0.2.1"] {
        Conn::connect_from(ip(denied), &addr).expect_closed();
    }
    let records = proxy.access_log(8);
    assert_eq!(records.iter().filter(|record| record["outcome"] == "denied").count(), 4);
    // The denied never reach the peer.
    assert_eq!(backend.accepted(), 4);
}

#[test]
fn without_an_allow_only_the_denied_stay_out() {
    let backend = Backend::echo();
    let proxy = start(&stream("t", ":0", backend.addr(), "deny = [\"127.0.0.2\"]"));
    let addr = Addr::from((ip("127.0.0.1"), proxy.addrs("t", "tcp")[0].port()));
    Conn::connect_from(ip("127.0.0.2"), &addr).expect_closed();
    Conn::connect_from(ip("127.0.0.3"), &addr).echo(b"in");
    Conn::connect(&Addr::from((ip("::1"), addr.port()))).echo(b"in");
}

#[test]
fn a_limit_lowered_by_a_reload_holds_for_newcomers_and_spares_who_is_in() {
    let backend = Backend::echo();
    let config = |max: u32| tcp(backend.addr(), &format!("max_connections = {max}"));
    let proxy = start(&config(6));
    let addr = proxy.tcp("t");
    let mut served: Vec<Conn> = (0..6).map(|_| Conn::connect(&addr)).collect();
    for conn in &served {
        conn.echo(b"in");
    }
    proxy.reload_with(&config(2));
    let newcomer = Conn::connect(&addr);
    newcomer.send(b"may I?");
    for conn in &served {
        conn.echo(b"still in");
    }
    served.truncate(2);
    eventually("four to leave", || proxy.active() == 2);
    assert_waiting(&newcomer);
    served.truncate(1);
    assert_eq!(newcomer.recv(6), b"may I?");
    // Raised again, everybody comes in without anyone leaving.
    let crowd: Vec<Conn> = (0..4).map(|_| Conn::connect(&addr)).collect();
    assert_waiting(&crowd[3]);
    proxy.reload_with(&config(0));
    for conn in &crowd {
        conn.echo(b"in");
    }
}
