//! BIND.

use std::net::{IpAddr, SocketAddr};

use wmproxy_net::addr::Address;
use wmproxy_net::record::Outcome;
use wmproxy_testkit::tcp::{Addr, Conn};

use super::gateway::Doorman;
use super::house::House;

fn house() -> House {
    House::with(Doorman::default(), |options| options.bind_command = true)
}

/// The address of a reply of SOCKS 5 that grants.
fn address(reply: &[u8]) -> SocketAddr {
    assert_eq!(reply[..4], [5, 0, 0, 1]);
    let ip = IpAddr::from([reply[4], reply[5], reply[6], reply[7]]);
    SocketAddr::new(ip, u16::from_be_bytes([reply[8], reply[9]]))
}

#[test]
fn who_is_expected_comes_in_and_nobody_else() {
    let house = house();
    let client = house.connect();
    client.send(b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x02\x00\x50early");
    client.recv(2);
    let bound = address(&client.recv(10));
    assert!(bound.ip().is_loopback() && bound.port() != 0);
    let stranger = Conn::connect_from([127, 0, 0, 3].into(), &Addr::from(bound));
    stranger.expect_reset();
    let peer = Conn::connect_from([127, 0, 0, 2].into(), &Addr::from(bound));
    assert_eq!(address(&client.recv(10)), peer.local());
    assert_eq!(peer.recv(5), b"early");
    peer.send(b"hello");
    assert_eq!(client.recv(5), b"hello");
    // One was expected.
    assert!(Conn::try_connect(&Addr::from(bound)).is_err());
    client.finish();
    peer.expect_end();
    let from = peer.local();
    drop(peer);
    client.expect_end();
    let record = house.record();
    assert_eq!((record.outcome, record.peer), (Outcome::Done, Some(Address::Inet(from))));
    assert_eq!(house.asked(), ["way 127.0.0.2:80", "resolve 127.0.0.2:80"]);
}

#[test]
fn anybody_may_come_if_the_rules_let_them() {
    let house = house();
    let client = house.connect();
    client.send(b"\x04\x02\x00\x00\x00\x00\x00\x00\x00");
    let reply = client.recv(8);
    assert_eq!(reply[..2], [0, 0x5a]);
    let ip = IpAddr::from([reply[4], reply[5], reply[6], reply[7]]);
    assert!(ip.is_loopback(), "the address by which the client came");
    let bound = SocketAddr::new(ip, u16::from_be_bytes([reply[2], reply[3]]));
    Conn::connect_from([127, 0, 0, 9].into(), &Addr::from(bound)).expect_reset();
    let peer = Conn::connect_from([127, 0, 0, 8].into(), &Addr::from(bound));
    let reply = client.recv(8);
    assert_eq!(reply[..2], [0, 0x5a]);
    assert_eq!(reply[2..4], peer.local().port().to_be_bytes());
    assert_eq!(reply[4..], [127, 0, 0, 8]);
    client.send(b"hello");
    assert_eq!(peer.recv(5), b"hello");
    let permits: Vec<_> = house.asked().into_iter().filter(|asked| asked.starts_with("permits")).collect();
    assert_eq!(permits, ["permits 127.0.0.9", "permits 127.0.0.8"]);
}

#[test]
fn a_port_ends_with_who_asked_for_it() {
    let house = house();
    let client = house.connect();
    client.send(b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x02\x00\x50");
    client.recv(2);
    let bound = address(&client.recv(10));
    drop(client);
    assert_eq!(house.record().outcome, Outcome::ClientLeft);
    assert!(Conn::try_connect(&Addr::from(bound)).is_err());
}

#[test]
fn what_may_not_be_asked_for_is_refused() {
    for (request, code) in [
        (&b"\x05\x02\x00\x03\x0bdenied.test\x00\x50"[..], 2),
        (b"\x05\x02\x00\x03\x0funresolved.test\x00\x50", 4),
        (b"\x05\x02\x00\x03\x0cchained.test\x00\x50", 7),
    ] {
        let house = house();
        let client = house.connect();
        client.send(&[&[5, 1, 0], request].concat());
        client.recv(2);
        assert_eq!(client.recv(10), [5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
        client.expect_end();
    }
}
