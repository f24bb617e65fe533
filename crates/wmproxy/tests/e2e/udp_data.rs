//! Datagrams: of every legal size, whole, in order, from and to the right address.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use wmproxy_testkit::{Pattern, Proxy, UdpBackend, UdpClient};

use crate::{start, stream, udp};

/// RFC 768 and RFC 791: 65,535 less the IP header's 20 and the UDP header's 8 bytes.
const LARGEST: usize = 65_507;

#[test]
fn every_size_passes_whole_both_ways() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), ""));
    let client = UdpClient::connect(proxy.udp("u"));
    let pattern = Pattern::new(1);
    for size in
        [0, 1, 2, 511, 512, 513, 1_471, 1_472, 1_473, 2_048, 4_096, 9_000, 16_384, 32_768, 65_000, LARGEST]
    {
        client.echo(&pattern.bytes(size as u64, size));
        backend.wait_received(1);
        assert!(backend.last().0 == pattern.bytes(size as u64, size), "{size} bytes differ at the backend");
    }
}

#[test]
fn every_size_passes_over_ipv6() {
    let backend = UdpBackend::echo_at("[::1]:0".parse().unwrap());
    let proxy = start(&stream("u", "udp://[::1]:0", backend.addr(), "idle_timeout = \"1s\""));
    let client = UdpClient::connect(proxy.udp("u"));
    for size in [0, 1, 512, 1_452, 9_000, LARGEST] {
        client.echo(&Pattern::new(2).bytes(0, size));
    }
}

/// Sends 500 numbered datagrams at once and expects each of them, in order.
fn assert_burst(proxy: &Proxy, size: impl Fn(usize) -> usize + Copy + Sync) {
    let client = UdpClient::connect(proxy.udp("u"));
    let message = move |i: usize| {
        let mut bytes = vec![i as u8; size(i).max(4)];
        bytes[..4].copy_from_slice(&(i as u32).to_be_bytes());
        bytes
    };
    std::thread::scope(|scope| {
        scope.spawn(|| (0..500).for_each(|i| client.send(&message(i))));
        for i in 0..500 {
            let got = client.recv();
            let number = got.first_chunk().map(|head| u32::from_be_bytes(*head));
            assert_eq!(number, Some(i as u32), "out of order or lost: {} bytes", got.len());
            assert!(got == message(i), "datagram {i} differs: {} bytes", got.len());
        }
    });
}

#[test]
fn a_burst_of_five_hundred_arrives_in_order() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), ""));
    for _ in 0..3 {
        assert_burst(&proxy, |_| 100);
    }
    assert_eq!(proxy.metrics().sum("wmproxy_udp_dropped_total", &[]), 0.0);
}

#[test]
fn a_burst_of_mixed_sizes_arrives_in_order() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), ""));
    // Runs of one size with shorter and longer ones between: where batches by size have their edges.
    assert_burst(&proxy, |i| match i % 7 {
        3 => 40,
        5 => 300,
        _ => 120,
    });
}

#[test]
fn a_burst_with_empty_datagrams_keeps_their_places() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), ""));
    let client = UdpClient::connect(proxy.udp("u"));
    let message = |i: u32| if i % 3 == 1 { Vec::new() } else { i.to_be_bytes().to_vec() };
    std::thread::scope(|scope| {
        scope.spawn(|| (0..200).for_each(|i| client.send(&message(i))));
        for i in 0..200 {
            assert_eq!(client.recv(), message(i), "at {i}");
        }
    });
}

#[test]
fn many_answers_to_one_question_all_arrive() {
    let backend = UdpBackend::replies(50);
    let proxy = start(&udp(backend.addr(), ""));
    let client = UdpClient::connect(proxy.udp("u"));
    client.send(b"all of it");
    for _ in 0..50 {
        assert_eq!(client.recv(), b"all of it");
    }
}

#[test]
fn answers_leave_from_the_address_that_the_client_reached() {
    let backend = UdpBackend::echo();
    let proxy = start(&stream("u", "udp://0.0.0.0:0", backend.addr(), "idle_timeout = \"1s\""));
    let port = proxy.udp("u").port();
    for host in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]] {
        // A connected socket takes answers from that address alone.
        UdpClient::connect(SocketAddr::from((host, port))).echo(&host);
    }
    // One unconnected client that reaches two of our addresses has two conversations.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(wmproxy_testkit::PATIENCE)).unwrap();
    for host in [[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 2]] {
        let to = SocketAddr::from((host, port));
        socket.send_to(b"hello", to).unwrap();
        let mut buffer = [0; 16];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"hello"[..], to));
    }
    assert_eq!(proxy.listener_number("u", "accepted"), 5);
}

#[test]
fn a_wildcard_of_both_families_answers_from_the_right_address() {
    let backend = UdpBackend::echo();
    let proxy = start(&stream("u", "udp://:0", backend.addr(), "idle_timeout = \"1s\""));
    let port = proxy.addrs("u", "udp")[0].port();
    for host in ["127.0.0.1", "127.0.0.2", "::1"] {
        let to: SocketAddr = (host.parse::<std::net::IpAddr>().unwrap(), port).into();
        UdpClient::connect(to).echo(host.as_bytes());
    }
}

#[test]
fn a_stranger_can_not_speak_into_a_flow() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), "idle_timeout = \"2s\""));
    let client = UdpClient::connect(proxy.udp("u"));
    client.echo(b"hello");
    // The port from which the proxy speaks to its peer, as a stranger would have to guess it.
    let inside = backend.last().1;
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for _ in 0..10 {
        let _ = stranger.send_to(b"forged", inside);
    }
    client.expect_nothing(Duration::from_millis(200));
    // And the flow is none the worse for it.
    client.echo(b"still us");
    // While the peer itself may speak at any time.
    backend.send_to(b"unasked", inside);
    assert_eq!(client.recv(), b"unasked");
}

#[test]
fn clients_behind_different_addresses_do_not_mix() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), ""));
    let to = proxy.udp("u");
    // The same port on different addresses: a key of the port alone would mix them up.
    let first = UdpClient::connect_from(SocketAddr::from(([127, 0, 0, 5], 0)), to);
    let port = first.local().port();
    let second = UdpClient::connect_from(SocketAddr::from(([127, 0, 0, 6], port)), to);
    for i in 0..50_u8 {
        first.send(&[1, i]);
        second.send(&[2, i]);
        assert_eq!((first.recv(), second.recv()), (vec![1, i], vec![2, i]));
    }
}

#[test]
fn streams_of_datagrams_from_many_clients_stay_apart() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), ""));
    let to = proxy.udp("u");
    std::thread::scope(|scope| {
        for id in 0..8_u8 {
            scope.spawn(move || {
                let client = UdpClient::connect(to);
                for round in 0..60_u8 {
                    for i in 0..8 {
                        client.send(&[id, round, i]);
                    }
                    for i in 0..8 {
                        assert_eq!(client.recv(), [id, round, i]);
                    }
                }
            });
        }
    });
    assert_eq!(backend.received(), 8 * 60 * 8);
}
