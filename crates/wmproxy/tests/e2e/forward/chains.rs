//! Three instances behind each other: the first plain, the second by TLS with certificates on both sides, the third by SOCKS
//! inside TLS inside that. What reaches the destination is to be what was sent, whatever happens on the way.

use std::io::Read as _;
use std::time::Duration;

use wmproxy_testkit::backend::drain;
use wmproxy_testkit::tcp::Closed;
use wmproxy_testkit::{
    Addr, Authority, Backend, Conn, Pattern, Proxy, Rng, UdpBackend, UdpClient, eventually,
};

use super::forward;
use crate::{ACCESS_LOG, group, start, tcp};

/// Alice, whose password is `open sesame`.
const USERS: &str =
    "users = { alice = { password = \"$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu\" } }";

/// Everything that is asked of the first goes through the chain `out`.
const ROUTE: &str = "[[egress.default.route]]\nvia = \"out\"\n";

/// For machines that have hundreds of handshakes to do at once.
const PATIENT: &str = "connect_timeout = \"60s\"\n";

/// 100 MB where time does not matter.
fn size() -> u64 {
    if std::env::var_os("WMPROXY_LONG").is_some() { 100_000_000 } else { 12_000_000 }
}

/// So many connections are enough for all tunnels of a test together.
const SHARED: u64 = 4;

struct House {
    first: Proxy,
    second: Proxy,
    third: Proxy,
    /// Whether one connection between the first two carries many.
    multiplex: bool,
    /// Where the first one listens.
    door: Addr,
    _authority: Authority,
}

impl House {
    fn new(multiplex: bool, more: &str) -> House {
        let authority = Authority::new();
        let server = authority.issue("server", &["localhost"]);
        let client = authority.issue("client", &["first.test"]);
        let third = start(&forward(format!("{PATIENT}tls = {}\n{USERS}", server.toml())));
        let known =
            server.toml().replace(" }", &format!(", client_ca = \"{}\" }}", authority.ca().display()));
        let second = start(&forward(format!("{PATIENT}tls = {known}")));
        let (two, three) = (second.tcp("f").port(), third.tcp("f").port());
        let (ca, cert, key) = (authority.ca(), client.cert.display(), client.key.display());
        let ca = ca.display();
        let chain = format!(
            "[chain.out]\nconnect_timeout = \"20s\"\nhops = [\n\
             {{ url = \"https://localhost:{two}\", ca = \"{ca}\", cert = \"{cert}\", key = \"{key}\", multiplex = {multiplex} }},\n\
             {{ url = \"socks5+tls://alice:open%20sesame@localhost:{three}\", ca = \"{ca}\" }},\n]\n"
        );
        let first = start(&format!("workers = 1\n{ACCESS_LOG}{}{ROUTE}{chain}{more}", forward(PATIENT)));
        let door = first.tcp("f");
        House { first, second, third, multiplex, door, _authority: authority }
    }

    /// A tunnel to a destination, once it stands.
    fn tunnel(&self, to: &Addr) -> Conn {
        let conn = Conn::connect(&self.door);
        conn.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes());
        assert_eq!(conn.line(), "HTTP/1.1 200 OK\r");
        while conn.line() != "\r" {}
        conn
    }

    /// Expects that all is over, but for the connections that are kept for the next tunnels.
    fn expect_idle(&self) {
        let kept = if self.multiplex { SHARED } else { 0 };
        for (proxy, kept) in [(&self.first, 0), (&self.second, kept), (&self.third, 0)] {
            eventually("all connections are over", || proxy.active() <= kept);
        }
        if self.multiplex {
            self.first.rebase();
        }
    }
}

fn goes_whole_both_ways(multiplex: bool) {
    let house = House::new(multiplex, "");
    let (up, down) = (Pattern::new(1), Pattern::new(2));
    let backend = Backend::start(|conn| {
        let sending = conn.again()?;
        let sender = std::thread::spawn(move || {
            sending.send_pattern(&Pattern::new(2), size(), &mut Rng::new(3)).unwrap();
            sending.finish();
        });
        conn.recv_pattern(&Pattern::new(1), size(), &mut Rng::new(4));
        sender.join().unwrap();
        drain(conn)
    });
    let conn = house.tunnel(backend.addr());
    let sending = conn.again().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| sending.send_pattern(&up, size(), &mut Rng::new(5)).unwrap());
        conn.recv_pattern(&down, size(), &mut Rng::new(6));
    });
    conn.expect_end();
    conn.finish();
    backend.wait_idle();
    let record = &house.first.access_log(1)[0];
    assert_eq!((record["way"].as_str(), record["outcome"].as_str()), (Some("out"), Some("done")), "{record}");
    assert!(
        record["bytes_in"].as_u64().unwrap() >= size() && record["bytes_out"].as_u64().unwrap() >= size()
    );
    house.expect_idle();
}

#[test]
fn bytes_go_through_three_instances_whole() {
    goes_whole_both_ways(false);
}

#[test]
fn bytes_go_whole_where_one_connection_carries_many() {
    goes_whole_both_ways(true);
}

fn many_at_once(multiplex: bool) {
    let house = House::new(multiplex, "");
    let backend = Backend::echo();
    let count = if std::env::var_os("WMPROXY_LONG").is_some() { 200 } else { 40 };
    let rounds = size() / 12_000_000;
    std::thread::scope(|scope| {
        for seed in 0..count {
            let (house, backend) = (&house, &backend);
            scope.spawn(move || {
                let conn = house.tunnel(backend.addr());
                let (pattern, total) = (Pattern::new(seed), 500_000 * rounds);
                let sending = conn.again().unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        sending.send_pattern(&pattern, total, &mut Rng::new(seed)).unwrap();
                        sending.finish();
                    });
                    conn.recv_pattern(&pattern, total, &mut Rng::new(seed + 1));
                });
                conn.expect_end();
            });
        }
    });
    let connections = house.second.metrics().sum("wmproxy_listener_connections_total", &[("listener", "f")]);
    if multiplex {
        assert!(connections <= SHARED as f64, "{connections} connections for {count} tunnels");
    }
    house.expect_idle();
}

#[test]
fn many_tunnels_stand_side_by_side() {
    many_at_once(false);
}

#[test]
fn many_tunnels_share_a_connection() {
    many_at_once(true);
}

#[test]
fn an_end_and_a_reset_are_passed_on_through_all() {
    for multiplex in [false, true] {
        let house = House::new(multiplex, "");
        // An end of one direction leaves the other one open.
        let lines = Backend::start(|conn| {
            let said = conn.recv_all();
            conn.send(&said.to_ascii_uppercase());
            Ok(said.len() as u64)
        });
        let conn = house.tunnel(lines.addr());
        conn.send(b"half of it");
        conn.finish();
        assert_eq!(conn.recv_all(), b"HALF OF IT");
        // What breaks off does not look like an end.
        let resets = Backend::start(|conn| {
            conn.recv(1);
            conn.socket().set_linger(Some(Duration::ZERO)).map(|()| 0)
        });
        let conn = house.tunnel(resets.addr());
        conn.send(b"x");
        conn.expect_reset();
        house.expect_idle();
    }
}

#[test]
fn who_has_said_all_still_hears_the_rest() {
    for multiplex in [false, true] {
        let house = House::new(multiplex, "");
        let backend = Backend::start(|conn| {
            conn.send(b"all of it");
            conn.finish();
            conn.recv_pattern(&Pattern::new(1), size(), &mut Rng::new(2));
            drain(conn)
        });
        let conn = house.tunnel(backend.addr());
        assert_eq!(conn.recv_all(), b"all of it");
        conn.send_pattern(&Pattern::new(1), size(), &mut Rng::new(3)).unwrap();
        conn.finish();
        assert_eq!(backend.next_end().error, None);
        house.expect_idle();
    }
}

#[test]
fn who_does_not_read_stops_who_sends() {
    for multiplex in [false, true] {
        let house = House::new(multiplex, "");
        let total = 64_000_000;
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = sent.clone();
        let backend = Backend::start(move |conn| {
            let piece = [7; 65_536];
            while counted.load(std::sync::atomic::Ordering::Relaxed) < total {
                conn.try_send(&piece)?;
                counted.fetch_add(piece.len() as u64, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(0)
        });
        let conn = house.tunnel(backend.addr());
        let count = || sent.load(std::sync::atomic::Ordering::Relaxed);
        // It has come to a halt when it does not move for a while.
        let mut before = u64::MAX;
        eventually("the sender is held back", || {
            std::thread::sleep(Duration::from_millis(100));
            std::mem::replace(&mut before, count()) == count()
        });
        assert!(before < total, "all of it is held somewhere on the way");
        let mut got = 0;
        let mut buffer = vec![0; 262_144];
        while got < total {
            match (&conn).read(&mut buffer).unwrap() {
                0 => panic!("the end after {got} bytes"),
                n => got += n as u64,
            }
        }
        drop(conn);
        house.expect_idle();
    }
}

#[test]
fn what_a_hop_says_reaches_the_client() {
    let house = House::new(false, "");
    let closed = Closed::new();
    let to = closed.addr();
    let conn = Conn::connect(&house.door);
    conn.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes());
    assert!(conn.line().starts_with("HTTP/1.1 502 "));
    drop(conn);
    let conn = Conn::connect(&house.door);
    conn.send(&[5, 1, 0]);
    assert_eq!(conn.recv(2), [5, 0]);
    conn.send(&[&[5, 1, 0, 1, 127, 0, 0, 1][..], &to.port().to_be_bytes()].concat());
    assert_eq!(conn.recv(10)[..2], [5, 5], "refused, says the third, and the first says it, too");
    drop(conn);
    house.expect_idle();
}

#[test]
fn upstreams_are_reached_through_a_chain_with_their_checks() {
    let backend = Backend::echo();
    let servers = [format!("localhost:{}", backend.addr().port())];
    let more = format!(
        "{}{}",
        group("far", &servers, "via = \"out\"\n[upstream.far.health]\ninterval = \"400ms\""),
        tcp("far", "")
    );
    let house = House::new(false, &more);
    let conn = Conn::connect(&house.first.tcp("t"));
    conn.send(b"by the way");
    conn.echo(b"by the way");
    drop(conn);
    let peer = || {
        house.first.status()["upstreams"].as_array().unwrap().iter().find(|g| g["name"] == "far").unwrap()["peers"][0].clone()
    };
    eventually("the check passes", || peer()["health"]["state"] == "up");
    assert_eq!(peer()["address"], servers[0].as_str(), "{}", peer());
    drop(backend);
    eventually("the check fails", || peer()["health"]["state"] == "down");
    house.first.expect_warn("peer is down");
}

#[test]
fn datagrams_go_through_proxies_behind_each_other() {
    let backend = UdpBackend::echo();
    let second = start(&forward("udp = { enabled = true }"));
    let third = start(&forward("udp = { enabled = true }"));
    let hops = format!("\"socks5://{}\", \"socks5://{}\"", second.tcp("f"), third.tcp("f"));
    for hops in [format!("\"socks5://{}\"", second.tcp("f")), hops] {
        let chain = format!("[chain.out]\nhops = [{hops}]\n");
        let first = start(&format!("{}{ROUTE}{chain}", forward("udp = { enabled = true }")));
        let control = Conn::connect(&first.tcp("f"));
        control.send(&[5, 1, 0]);
        assert_eq!(control.recv(2), [5, 0]);
        control.send(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]);
        let reply = control.recv(10);
        assert_eq!(reply[..4], [5, 0, 0, 1], "{reply:?}");
        let relay = ([reply[4], reply[5], reply[6], reply[7]], u16::from_be_bytes([reply[8], reply[9]]));
        let client = UdpClient::connect(relay.into());
        let port = backend.addr().port().to_be_bytes();
        let datagram = [&[0, 0, 0, 1, 127, 0, 0, 1, port[0], port[1]][..], b"whole"].concat();
        assert_eq!(client.ask(&datagram), datagram, "the header names who answers, who is who was asked");
        drop((client, control));
        for (name, proxy) in [("first", &first), ("second", &second), ("third", &third)] {
            eventually(&format!("it is over at the {name}"), || proxy.active() == 0);
        }
    }
}
