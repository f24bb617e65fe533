//! SOCKS 4 and 4a.

use wmproxy_http::forward::Unknown;
use wmproxy_net::record::Outcome;

use super::gateway::Doorman;
use super::house::{House, Peer};

#[test]
fn addresses_and_names_are_connected_to() {
    let peer = Peer::new();
    let four = [&[4, 1][..], &peer.port(), &[127, 0, 0, 1], b"fred\0"].concat();
    let four_a = [&[4, 1][..], &peer.port(), &[0, 0, 0, 7], b"fred\0peer.test\0"].concat();
    let port = peer.addr().port();
    for (request, to) in [(four, format!("127.0.0.1:{port}")), (four_a, format!("peer.test:{port}"))] {
        for is_slow in [false, true] {
            let house = House::new();
            let client = house.connect();
            if is_slow {
                request.iter().for_each(|byte| client.send(&[*byte]));
            } else {
                client.send(&[&request[..], b"early"].concat());
            }
            let (far, from) = peer.accept();
            let reply = client.recv(8);
            assert_eq!((reply[0], reply[1], &reply[4..]), (0, 0x5a, &[127, 0, 0, 1][..]));
            assert_eq!(reply[2..4], from.port().to_be_bytes());
            if !is_slow {
                assert_eq!(far.recv(5), b"early");
            }
            client.send(b"ping");
            assert_eq!(far.recv(4), b"ping");
            drop((client, far));
            let forwarded = house.record().forwarded.unwrap();
            assert_eq!(forwarded.kind, Some("socks4"));
            assert_eq!(forwarded.destination.unwrap().to_string(), to);
            assert_eq!(forwarded.user.as_deref(), Some("fred"), "as it says of itself");
        }
    }
}

#[test]
fn a_name_that_is_an_address_is_one() {
    let (house, peer) = (House::new(), Peer::new());
    let client = house.connect();
    client.send(&[&[4, 1][..], &peer.port(), &[0, 0, 0, 1], b"\x000x7f.1\0"].concat());
    peer.accept();
    assert_eq!(client.recv(2), [0, 0x5a]);
    assert_eq!(house.asked()[0], format!("way 127.0.0.1:{}", peer.addr().port()));
}

#[test]
fn failures_have_the_one_code_there_is() {
    for name in ["refused.test", "denied.test", "no host", ""] {
        let house = House::new();
        let client = house.connect();
        client.send(&[b"\x04\x01\x00\x50\x00\x00\x00\x01\x00", name.as_bytes(), b"\0garbage"].concat());
        assert_eq!(client.recv(8), [0, 0x5b, 0, 0, 0, 0, 0, 0], "{name}");
        client.expect_end();
    }
}

#[test]
fn without_a_password_users_are_not_let_in() {
    let limited = Some(Unknown::Limited("enough"));
    for (doorman, code, outcome) in [
        (Doorman { user: Some(("a", "b")), ..Doorman::default() }, 0x5d, Outcome::Unauthenticated),
        (Doorman { turns_away: limited, ..Doorman::default() }, 0x5b, Outcome::Denied),
    ] {
        let house = House::with(doorman, |_| {});
        let client = house.connect();
        client.send(b"\x04\x01\x00\x50\x7f\x00\x00\x01alice\0");
        assert_eq!(client.recv(8), [0, code, 0, 0, 0, 0, 0, 0]);
        client.expect_end();
        drop(client);
        assert_eq!(house.record().outcome, outcome);
        assert!(house.asked().is_empty());
    }
}

#[test]
fn texts_without_end_are_not_waited_for() {
    let house = House::new();
    let client = house.connect();
    client.send(&[&b"\x04\x01\x00\x50\x7f\x00\x00\x01"[..], &[b'u'; 300]].concat());
    client.expect_end();
    drop(client);
    assert_eq!(house.record().outcome, Outcome::BadSocks);
    // Datagrams are nothing of this version.
    let house = House::new();
    let client = house.connect();
    client.send(b"\x04\x03\x00\x50\x7f\x00\x00\x01\x00");
    assert_eq!(client.recv(2), [0, 0x5b]);
}
