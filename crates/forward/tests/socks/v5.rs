//! SOCKS 5: methods, passwords, CONNECT.

use std::time::Duration;

use wmproxy_http::forward::Unknown;
use wmproxy_net::addr::Address;
use wmproxy_net::record::Outcome;
use wmproxy_testkit::tcp::Conn;

use super::gateway::Doorman;
use super::house::{House, Peer, hurry};

fn with_user() -> House {
    House::with(Doorman { user: Some(("alice", "secret")), ..Doorman::default() }, |_| {})
}

/// A request for an address of 127.0.0.1.
fn connect_to(port: [u8; 2]) -> Vec<u8> {
    [&[5, 1, 0, 1, 127, 0, 0, 1][..], &port].concat()
}

/// A request for a name.
fn connect_to_name(name: &[u8], port: [u8; 2]) -> Vec<u8> {
    [&[5, 1, 0, 3, name.len() as u8][..], name, &port].concat()
}

/// What a peer and a client then say to each other.
fn talk(client: &Conn, peer: &Conn) {
    client.send(b"ping");
    assert_eq!(peer.recv(4), b"ping");
    peer.send(b"pong");
    assert_eq!(client.recv(4), b"pong");
    client.finish();
    peer.expect_end();
    peer.finish();
    client.expect_end();
}

#[test]
fn a_tunnel_is_granted_once_it_is_there() {
    let (house, peer) = (House::new(), Peer::new());
    let client = house.connect();
    client.send(&[5, 1, 0]);
    assert_eq!(client.recv(2), [5, 0]);
    client.send(&connect_to(peer.port()));
    let (far, from) = peer.accept();
    let reply = client.recv(10);
    assert_eq!(reply[..8], [5, 0, 0, 1, 127, 0, 0, 1]);
    assert_eq!(reply[8..], from.port().to_be_bytes(), "the address that we have towards the peer");
    talk(&client, &far);
    let record = house.record();
    assert_eq!((record.outcome, record.bytes_in, record.bytes_out), (Outcome::Done, 4, 4));
    assert_eq!(record.peer, Some(Address::Inet(peer.addr())));
    let forwarded = record.forwarded.unwrap();
    assert_eq!(forwarded.kind, Some("socks5"));
    assert_eq!(forwarded.way.as_deref(), Some("direct"));
    assert_eq!(forwarded.destination.unwrap().to_string(), peer.addr().to_string());
    assert_eq!(forwarded.user, None);
}

#[test]
fn one_byte_at_a_time_is_as_good() {
    let (house, peer) = (with_user(), Peer::new());
    let client = house.connect();
    let drip = |bytes: &[u8]| bytes.iter().for_each(|byte| client.send(&[*byte]));
    drip(&[5, 3, 0, 1, 2]);
    assert_eq!(client.recv(2), [5, 2]);
    drip(b"\x01\x05alice\x06secret");
    assert_eq!(client.recv(2), [1, 0]);
    drip(&connect_to_name(b"Peer.TEST.", peer.port()));
    let (far, _) = peer.accept();
    assert_eq!(client.recv(10)[..4], [5, 0, 0, 1]);
    talk(&client, &far);
    assert_eq!(house.asked()[..2], ["password".to_owned(), format!("way peer.test:{}", peer.addr().port())]);
    let forwarded = house.record().forwarded.unwrap();
    assert_eq!(forwarded.user.as_deref(), Some("alice"));
    assert_eq!(forwarded.destination.unwrap().to_string(), format!("peer.test:{}", peer.addr().port()));
}

#[test]
fn all_at_once_is_as_good_and_what_follows_is_for_the_peer() {
    let (house, peer) = (with_user(), Peer::new());
    let client = house.connect();
    let early = vec![b'e'; 3000];
    client.send(&[&[5, 1, 2][..], b"\x01\x05alice\x06secret", &connect_to(peer.port()), &early].concat());
    let (far, _) = peer.accept();
    assert_eq!(far.recv(early.len()), early);
    let said = client.recv(2 + 2 + 10);
    assert_eq!(said[..8], [5, 2, 1, 0, 5, 0, 0, 1]);
    talk(&client, &far);
    assert_eq!(house.record().bytes_in, 3004);
}

#[test]
fn ipv6_is_named_as_such() {
    let house = House::at("[::1]:0", Doorman::default(), |_| {});
    let peer = Peer::v6();
    let client = house.connect();
    client.send(&[5, 1, 0]);
    client.recv(2);
    client.send(&[&[5, 1, 0, 4][..], &[0; 15], &[1], &peer.port()].concat());
    let (far, from) = peer.accept();
    let reply = client.recv(22);
    assert_eq!(reply[..4], [5, 0, 0, 4]);
    assert_eq!(reply[20..], from.port().to_be_bytes());
    talk(&client, &far);
}

#[test]
fn behind_a_chain_no_address_is_told() {
    let (house, peer) = (House::new(), Peer::new());
    let client = house.connect();
    client.send(&[5, 1, 0]);
    client.recv(2);
    client.send(&connect_to_name(b"chained.test", peer.port()));
    let (far, _) = peer.accept();
    assert_eq!(client.recv(10), [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    talk(&client, &far);
    let record = house.record();
    assert_eq!(record.forwarded.unwrap().way.as_deref(), Some("tor"));
    assert_eq!(record.peer, None);
}

#[test]
fn where_no_method_fits_the_client_is_told_and_let_go() {
    for (house, methods) in [
        (with_user(), &[5, 1, 0][..]),
        (with_user(), &[5, 2, 0, 1]),
        (with_user(), &[5, 0]),
        (House::new(), &[5, 1, 2]),
        (House::new(), &[5, 1, 1]),
    ] {
        let client = house.connect();
        // What else it says is not heard.
        client.send(&[methods, b"\x01\x05alice\x06secret", &connect_to([0, 80])].concat());
        assert_eq!(client.recv(2), [5, 0xff]);
        client.expect_end();
        drop(client);
        assert_eq!(house.record().outcome, Outcome::Unauthenticated);
        assert!(house.asked().is_empty(), "{:?}", house.asked());
    }
}

#[test]
fn a_wrong_password_is_told_before_anything_is_looked_at() {
    let longest = [&[1, 255][..], &[b'n'; 255], &[255], &[b'p'; 255]].concat();
    for said in [&b"\x01\x05alice\x05wrong"[..], b"\x01\x03bob\x06secret", b"\x01\x00\x00", &longest] {
        let house = with_user();
        let client = house.connect();
        client.send(&[&[5, 1, 2][..], said, &connect_to([0, 80])].concat());
        assert_eq!(client.recv(4), [5, 2, 1, 1]);
        client.expect_end();
        drop(client);
        assert_eq!(house.record().outcome, Outcome::Unauthenticated);
        assert_eq!(house.asked(), ["password"]);
    }
}

#[test]
fn who_has_enough_is_told_in_reply_to_the_request() {
    let turns_away = Some(Unknown::Limited("too many connections"));
    for user in [None, Some(("alice", "secret"))] {
        let house = House::with(Doorman { user, turns_away, ..Doorman::default() }, |_| {});
        let client = house.connect();
        let greeting = if user.is_some() { &b"\x05\x01\x02\x01\x05alice\x06secret"[..] } else { &[5, 1, 0] };
        client.send(&[greeting, &connect_to([0, 80])].concat());
        let said = if user.is_some() { &[5, 2, 1, 0][..] } else { &[5, 0] };
        assert_eq!(client.recv(said.len()), said);
        assert_eq!(client.recv(10), [5, 2, 0, 1, 0, 0, 0, 0, 0, 0]);
        client.expect_end();
        drop(client);
        assert_eq!(house.record().outcome, Outcome::Denied);
        assert!(!house.asked().iter().any(|asked| asked.starts_with("way")));
    }
}

#[test]
fn who_is_to_come_later_waits() {
    let turns_away = Some(Unknown::Later(Duration::from_millis(60)));
    let user = Some(("alice", "secret"));
    let house = House::with(Doorman { user, turns_away, ..Doorman::default() }, |_| {});
    let client = house.connect();
    let began = std::time::Instant::now();
    client.send(b"\x05\x01\x02\x01\x05alice\x06secret");
    assert_eq!(client.recv(4), [5, 2, 1, 1]);
    assert!(began.elapsed() >= Duration::from_millis(60));
    client.expect_end();
    drop(client);
    assert_eq!(house.record().outcome, Outcome::Unauthenticated);
}

#[test]
fn each_failure_has_its_code() {
    for (name, code, outcome) in [
        ("denied.test", 2, Outcome::Denied),
        ("network.test", 3, Outcome::ConnectFailed),
        ("host.test", 4, Outcome::ConnectFailed),
        ("unresolved.test", 4, Outcome::ConnectFailed),
        ("refused.test", 5, Outcome::ConnectFailed),
        ("late.test", 6, Outcome::ConnectTimeout),
        ("reset.test", 1, Outcome::ConnectFailed),
        ("tls.test", 1, Outcome::PeerTls),
        ("no host", 4, Outcome::ConnectFailed),
        ("", 4, Outcome::ConnectFailed),
    ] {
        let house = House::new();
        let client = house.connect();
        // Garbage behind the request does not cost the client the answer.
        let garbage = vec![0xa5; 10_000];
        client.send(&[&[5, 1, 0][..], &connect_to_name(name.as_bytes(), [0, 80]), &garbage].concat());
        assert_eq!(client.recv(2), [5, 0]);
        assert_eq!(client.recv(10), [5, code, 0, 1, 0, 0, 0, 0, 0, 0], "{name}");
        client.expect_end();
        drop(client);
        assert_eq!(house.record().outcome, outcome, "{name}");
    }
}

#[test]
fn what_nobody_does_here_is_told() {
    // BIND and datagrams are off, 9 is nothing, and there is no address of type 2.
    for (request, code) in [
        (&[5, 2, 0, 1, 127, 0, 0, 1, 0, 80][..], 7),
        (&[5, 9, 0, 1, 127, 0, 0, 1, 0, 80], 7),
        (&[5, 1, 0, 2], 8),
    ] {
        let house = House::new();
        let client = house.connect();
        client.send(&[&[5, 1, 0][..], request].concat());
        assert_eq!(client.recv(2), [5, 0]);
        assert_eq!(client.recv(10)[1], code);
        client.expect_end();
        drop(client);
        house.record();
        assert!(house.asked().is_empty());
    }
}

#[test]
fn what_is_no_socks_is_no_more_listened_to() {
    for garbage in [&b"\x05\x01\x00\x04\x01"[..], b"\x05\x01\x00GET / HTTP/1.1\r\n\r\n"] {
        let house = House::new();
        let client = house.connect();
        client.send(garbage);
        assert_eq!(client.recv(2), [5, 0]);
        client.expect_end();
        drop(client);
        assert_eq!(house.record().outcome, Outcome::BadSocks);
    }
}

#[test]
fn a_half_handshake_does_not_last() {
    for (begun, outcome) in [
        (&b""[..], Outcome::PrefaceTimeout),
        (b"\x05", Outcome::ClientSlow),
        (b"\x05\x02\x00", Outcome::ClientSlow),
        (b"\x05\x01\x02", Outcome::ClientSlow),
        (b"\x05\x01\x02\x01\x05alice", Outcome::ClientSlow),
        (b"\x05\x01\x02\x01\x05alice\x06secret\x05\x01\x00\x03\xff", Outcome::ClientSlow),
        (b"\x04\x01", Outcome::ClientSlow),
    ] {
        let user = Some(("alice", "secret"));
        let house = House::with(Doorman { user, ..Doorman::default() }, hurry);
        let client = house.connect();
        client.send(begun);
        let record = house.record();
        assert_eq!(record.outcome, outcome, "{begun:?}");
        assert!(record.duration < Duration::from_secs(5), "{:?}", record.duration);
    }
}

#[test]
fn who_leaves_is_let_go() {
    for begun in [&b""[..], b"\x05", b"\x05\x01\x00", b"\x05\x01\x00\x05\x01"] {
        let house = House::new();
        let client = house.connect();
        client.send(begun);
        client.finish();
        drop(client);
        assert_eq!(house.record().outcome, Outcome::ClientLeft, "{begun:?}");
    }
    // While a connection is being made, too.
    let house = House::new();
    let client = house.connect();
    client.send(&[&[5, 1, 0][..], &connect_to_name(b"never.test", [0, 80])].concat());
    super::house::eventually(|| house.asked().len() == 2);
    client.reset();
    assert_eq!(house.record().outcome, Outcome::ClientReset);
}

#[test]
fn a_protocol_that_is_off_is_not_spoken() {
    use wmproxy_forward::options::ForwardProtocol as P;
    for (protocols, said) in [
        (vec![P::Http, P::Socks4], &b"\x05\x01\x00"[..]),
        (vec![P::Http, P::Socks5], b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00"),
        (vec![P::Socks4, P::Socks5], b"GET http://a.test/ HTTP/1.1\r\n\r\n"),
        (vec![P::Socks5], b"\x16\x03\x01"),
    ] {
        let house = House::with(Doorman::default(), |options| options.protocols.0 = protocols);
        let client = house.connect();
        client.send(said);
        client.expect_closed();
        assert_eq!(house.record().outcome, Outcome::NotSpoken);
    }
}

#[test]
fn http_is_spoken_on_the_same_port() {
    let house = House::new();
    let client = house.connect();
    client.send(b"GET http://a.test/ HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n");
    assert_eq!(client.recv(12), b"HTTP/1.1 407");
}
