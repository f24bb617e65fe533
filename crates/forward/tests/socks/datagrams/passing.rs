//! What passes, and how it looks on the other side.

use std::net::SocketAddr;

use wmproxy_net::record::Outcome;
use wmproxy_testkit::UdpBackend;

use super::*;

#[test]
fn datagrams_of_every_size_come_back_whole_with_their_source() {
    let house = House::new();
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    assert_eq!(client.relay.ip(), client.control.local().ip());
    // What goes back has a header of 10 bytes, too.
    for size in [0, 1, 2, 1200, 1472, 8900, 65_000, 65_497] {
        client.echo(server.addr(), &vec![size as u8; size]);
    }
    let Client { control, .. } = client;
    control.finish();
    control.expect_end();
    let record = house.record();
    assert_eq!((record.outcome, record.datagrams_in, record.datagrams_out), (Outcome::Done, 8, 8));
    let bytes = 1 + 2 + 1200 + 1472 + 8900 + 65_000 + 65_497;
    assert_eq!((record.bytes_in, record.bytes_out), (bytes, bytes));
    let forwarded = record.forwarded.unwrap();
    assert_eq!((forwarded.kind, forwarded.way.as_deref()), (Some("udp"), Some("direct")));
    assert_eq!(forwarded.destination.unwrap().to_string(), server.addr().to_string());
}

#[test]
fn bursts_keep_their_order_and_their_borders() {
    let house = House::new();
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    for round in 0..10 {
        let sent: Vec<Vec<u8>> =
            (0..16).map(|i| vec![round * 16 + i; 700 + 40 * usize::from(i / 5)]).collect();
        sent.iter().for_each(|data| client.send(server.addr(), data));
        for data in sent {
            assert!(client.recv() == (server.addr(), data));
        }
    }
}

#[test]
fn each_datagram_goes_where_it_says() {
    let house = House::new();
    let servers = [UdpBackend::named("a"), UdpBackend::named("b"), UdpBackend::named("c")];
    let client = Client::new(&house);
    for round in 0..30 {
        client.send(servers[round * 7 % 3].addr(), b"who is there?");
    }
    let mut heard: Vec<(SocketAddr, Vec<u8>)> = (0..30).map(|_| client.recv()).collect();
    heard.sort();
    let mut wanted: Vec<_> =
        servers.iter().zip([b"a", b"b", b"c"]).map(|(s, name)| (s.addr(), name.to_vec())).collect();
    wanted.sort();
    for (heard, wanted) in heard.chunks(10).zip(wanted) {
        assert!(heard.iter().all(|one| *one == wanted), "{heard:?}");
    }
    // One port of ours towards all of them.
    let ports: Vec<u16> = servers.iter().map(|server| server.last().1.port()).collect();
    assert!(ports.iter().all(|port| *port == ports[0]));
}

#[test]
fn names_are_resolved_here_and_asked_for_once() {
    let house = House::new();
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    let port = server.addr().port();
    let largest = vec![7; 65_000];
    for data in [b"one", b"two", &largest[..]] {
        client.send(("Name.TEST", port), data);
        assert!(client.recv() == (server.addr(), data.to_vec()));
    }
    let resolved = house.asked().iter().filter(|asked| asked.starts_with("resolve")).count();
    assert_eq!((resolved, house.dropped(UdpDrop::Stranger)), (1, 0), "{:?}", house.asked());
    // Its address may answer, but to send there is another question.
    let asked = house.asked().len();
    client.echo(server.addr(), b"by its address");
    assert_eq!(house.asked()[asked..], [format!("way {}", server.addr()), "permits 127.0.0.1".to_owned()]);
}

#[test]
fn what_comes_while_a_name_is_looked_up_waits_in_its_order() {
    let house = House::new();
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    for i in 0..40u8 {
        client.send(("name.test", server.addr().port()), &[i; 100]);
    }
    for i in 0..40u8 {
        assert_eq!(client.recv(), (server.addr(), vec![i; 100]));
    }
}

#[test]
fn both_families_go_out_and_come_back() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let house = House::at(listen, Doorman::default(), |_| {});
        let client = Client::new(&house);
        assert_eq!(client.relay.ip(), client.control.local().ip());
        for server in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpBackend::echo_at(server.parse().unwrap());
            client.echo(server.addr(), b"hello");
            client.echo(server.addr(), &[9; 60_000]);
        }
    }
}

#[test]
fn fragments_and_what_has_no_header_are_dropped_and_counted() {
    let house = House::new();
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    for bad in [&b""[..], &[0, 0], &[0, 0, 0], &[0, 0, 0, 1, 127, 0, 0], &[0, 0, 0, 7, 1, 2, 3, 4, 5, 6]] {
        client.send_raw(bad);
    }
    // Nobody listens at port 0, and this is no name.
    client.send(SocketAddr::from(([127, 0, 0, 1], 0)), b"x");
    client.send(("a..b", 53), b"x");
    wait_dropped(&house, UdpDrop::Malformed, 7);
    for fragment in [1, 127, 128, 255] {
        let mut header = datagram::header(server.addr()).to_vec();
        header[2] = fragment;
        client.send_raw(&[&header[..], b"part"].concat());
    }
    wait_dropped(&house, UdpDrop::Fragment, 4);
    client.echo(server.addr(), b"whole");
    assert_eq!(server.received(), 1);
}
