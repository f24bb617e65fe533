use std::net::UdpSocket as Plain;

use super::*;
use wmproxy_runtime::counter::Log2Histogram;

fn on_local_runtime<F: Future>(test: F) -> F::Output {
    tokio::runtime::LocalRuntime::new().expect("a runtime").block_on(test)
}

/// A socket of ours connected to a plain one.
fn pair() -> (UdpSocket, Plain) {
    let far = Plain::bind("127.0.0.1:0").unwrap();
    far.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let near = UdpSocket::connect(far.local_addr().unwrap(), &PeerSocket::default(), None).unwrap();
    far.connect(socket2::SockRef::from(&near).local_addr().unwrap().as_socket().unwrap()).unwrap();
    (near, far)
}

fn receive(far: &Plain) -> Vec<u8> {
    let mut buffer = vec![0; 65536];
    let n = far.recv(&mut buffer).unwrap();
    buffer.truncate(n);
    buffer
}

#[test]
fn a_train_of_mixed_sizes_arrives_whole_and_in_order() {
    on_local_runtime(async {
        let (near, far) = pair();
        let sizes = Log2Histogram::default();
        let lens = [100, 100, 100, 60, 100, 0, 0, 1, 1472, 1472, 1472, 1473, 65507, 9000, 9000];
        let data: Vec<Vec<u8>> = lens.iter().enumerate().map(|(i, &len)| vec![i as u8; len]).collect();
        let mut train = Train::to_peer(&near, &sizes);
        for datagram in &data {
            train.push(datagram, 0);
        }
        let sent = train.finish();
        assert_eq!((sent.datagrams, sent.dropped), (lens.len(), 0), "{:?}", sent.error);
        assert_eq!(sent.bytes, lens.iter().sum::<usize>());
        for datagram in &data {
            assert_eq!(&receive(&far), datagram);
        }
        assert!(sizes.bucket(0).get() < lens.len() as u64, "nothing was joined");
    });
}

#[test]
fn without_gso_the_same_arrives_one_by_one() {
    on_local_runtime(async {
        let sizes = Log2Histogram::default();
        let (near, far) = pair();
        near.gso_limit.set(0);
        let data: Vec<[u8; 200]> = (0..10).map(|i| [i; 200]).collect();
        let joined = data.concat();
        let mut train = Train::to_peer(&near, &sizes);
        train.push(&joined, 200);
        assert_eq!(train.finish().datagrams, 10);
        for datagram in &data {
            assert_eq!(receive(&far), datagram);
        }
    });
}

#[test]
fn a_batch_can_be_sent_on_in_parts() {
    on_local_runtime(async {
        let sizes = Log2Histogram::default();
        let ((near, far), (out, target)) = (pair(), pair());
        for i in 0..20u8 {
            far.send(&[i; 50]).unwrap();
        }
        let count = near
            .receive(|mut batch| {
                let messages: Vec<_> = (0..batch.len()).map(|i| batch.take(i)).collect();
                for range in [0..7, 7..messages.len()] {
                    let mut train = Train::to_peer(&out, &sizes);
                    for message in &messages[range] {
                        batch.load(message, 0, message.count(), &mut train);
                    }
                    assert!(train.finish().error.is_none());
                }
                messages.iter().map(Message::count).sum::<usize>()
            })
            .await
            .unwrap();
        assert_eq!(count, 20);
        for i in 0..20u8 {
            assert_eq!(receive(&target), [i; 50]);
        }
    });
}

#[test]
fn a_closed_port_is_an_error_of_the_connected_socket() {
    on_local_runtime(async {
        let sizes = Log2Histogram::default();
        let (near, far) = pair();
        drop(far);
        let mut train = Train::to_peer(&near, &sizes);
        train.push(b"anybody?", 0);
        assert_eq!(train.finish().datagrams, 1);
        let error = near.receive(|_| ()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_datagram_that_can_not_be_sent_stops_no_other() {
    on_local_runtime(async {
        let sizes = Log2Histogram::default();
        let (near, far) = pair();
        // As one over IPv6 may be, and IPv4 has no room for.
        let data: Vec<Vec<u8>> = [10, 65_520, 20].iter().map(|&len| vec![1; len]).collect();
        let mut train = Train::to_peer(&near, &sizes);
        data.iter().for_each(|datagram| train.push(datagram, 0));
        let sent = train.finish();
        assert_eq!((sent.datagrams, sent.unfit, sent.settled()), (2, 1, 3), "{:?}", sent.error);
        assert_eq!((receive(&far).len(), receive(&far).len()), (10, 20));
    });
}

#[test]
fn trains_go_together_as_far_as_one_call_can_carry_them() {
    // So many datagrams of so many bytes, the last of so many.
    type Pushed = (usize, usize, usize);
    // What is pushed, and the calls that it takes.
    let cases: [(&[Pushed], u64); 6] = [
        (&[(10, 1200, 1200); 4], 1),
        (&[(10, 1200, 1200), (10, 1200, 7)], 1),
        (&[(10, 1200, 7), (10, 1200, 1200)], 2),
        (&[(10, 1200, 1200), (10, 1100, 1100)], 2),
        // Six of them would be 72,000 bytes, and seven 70 datagrams.
        (&[(10, 1200, 1200); 6], 2),
        (&[(10, 100, 100); 7], 2),
    ];
    on_local_runtime(async {
        let (near, far) = pair();
        for (trains, calls) in cases {
            let sizes = Log2Histogram::default();
            let data: Vec<Vec<u8>> = trains
                .iter()
                .enumerate()
                .map(|(i, &(count, segment, last))| vec![i as u8; (count - 1) * segment + last])
                .collect();
            let mut train = Train::to_peer(&near, &sizes);
            for (data, (_, segment, _)) in data.iter().zip(trains) {
                train.push(data, *segment);
            }
            let sent = train.finish();
            assert_eq!(sent.datagrams, trains.iter().map(|(count, ..)| count).sum::<usize>(), "{trains:?}");
            let made: u64 = (0..Log2Histogram::BUCKETS).map(|i| sizes.bucket(i).get()).sum();
            assert_eq!(made, calls, "{trains:?}");
            for (data, (_, segment, _)) in data.iter().zip(trains) {
                for datagram in data.chunks(*segment) {
                    assert_eq!(receive(&far), datagram, "{trains:?}");
                }
            }
        }
    });
}

#[test]
fn a_header_stands_before_each_datagram_and_costs_no_call() {
    // So many datagrams of so many bytes in one piece, the last of so many, and the calls that they take.
    let cases = [
        (10, 1200, 1200, 1),
        (10, 1200, 7, 1),
        (1, 1200, 1200, 1),
        (1, 0, 0, 1),
        (1, 65_000, 65_000, 1),
        (64, 100, 100, 1),
        // With headers 65,610 bytes.
        (45, 1448, 1448, 2),
    ];
    on_local_runtime(async {
        let (near, far) = pair();
        for (count, segment, last, calls) in cases {
            for limit in [u16::MAX, 0] {
                let sizes = Log2Histogram::default();
                near.gso_limit.set(limit);
                let data: Vec<u8> = (0..(count - 1) * segment + last).map(|i| (i / 7) as u8).collect();
                let mut train = Train::to_peer(&near, &sizes).headed(b"0123456789");
                train.push(&data, segment);
                let sent = train.finish();
                assert_eq!((sent.datagrams, sent.bytes), (count, data.len()), "{:?}", sent.error);
                let made: u64 = (0..Log2Histogram::BUCKETS).map(|i| sizes.bucket(i).get()).sum();
                assert_eq!(made, if limit == 0 { count as u64 } else { calls }, "{count} of {segment}");
                let mut pieces = data.chunks(segment.max(1));
                for _ in 0..count {
                    let wanted = [b"0123456789", pieces.next().unwrap_or_default()].concat();
                    assert!(receive(&far) == wanted, "{count} of {segment}");
                }
            }
        }
    });
}

#[test]
fn a_socket_without_a_peer_sends_to_many_from_one_port() {
    on_local_runtime(async {
        let sizes = Log2Histogram::default();
        for (is_ipv4, loopback) in [(true, "127.0.0.1:0"), (false, "[::1]:0")] {
            let near = UdpSocket::outward(is_ipv4, &PeerSocket::default(), None).unwrap();
            let far = [Plain::bind(loopback).unwrap(), Plain::bind(loopback).unwrap()];
            let mut ports = Vec::new();
            for far in &far {
                let mut train = Train::to_client(&near, far.local_addr().unwrap(), None, &sizes);
                train.push(b"hello", 0);
                assert_eq!(train.finish().datagrams, 1);
                let mut buffer = [0; 8];
                let (n, from) = far.recv_from(&mut buffer).unwrap();
                far.send_to(&buffer[..n], from).unwrap();
                ports.push(from.port());
            }
            assert_eq!(ports[0], ports[1]);
            assert_eq!(near.local_address().unwrap().port(), ports[0]);
            assert!(has_way(far[0].local_addr().unwrap()));
            let senders =
                near.receive(|mut batch| (0..batch.len()).map(|i| batch.take(i).from).collect::<Vec<_>>());
            assert_eq!(senders.await.unwrap(), far.map(|far| far.local_addr().ok()));
        }
    });
}

#[test]
fn a_bound_socket_tells_which_address_was_reached_where_there_are_many() {
    on_local_runtime(async {
        for (bound, is_told) in [("0.0.0.0:0", true), ("127.0.0.1:0", false)] {
            let socket = UdpSocket::bind(bound.parse().unwrap(), Senders::One).unwrap();
            let port = socket.local_address().unwrap().port();
            let far = Plain::bind("127.0.0.1:0").unwrap();
            far.send_to(b"hello", ("127.0.0.1", port)).unwrap();
            let local = socket.receive(|mut batch| batch.take(0).local).await.unwrap();
            assert_eq!(local.is_some(), is_told, "{bound}");
            assert!(UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, port).into(), Senders::Many).is_err());
        }
    });
}
