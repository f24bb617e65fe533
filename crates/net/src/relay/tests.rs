use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::addr::{Address, Protocol};
use crate::record::ListenerMetrics;

/// A connected pair: the far end blocking, our end as a `Stream` of the running runtime.
pub(super) fn pair() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    near.set_nonblocking(true).unwrap();
    crate::sockopt::TcpOptions::default().apply(&near).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (far, near.into())
}

pub(super) fn record() -> Record {
    let address = Address::Inet("127.0.0.1:1".parse().unwrap());
    Record::open(Arc::new(ListenerMetrics::new("test".into(), Protocol::Tcp, address, 1)), None, None)
}

/// Relays between two far ends, which `script` plays on a thread of its own.
fn play(
    idle: Duration,
    script: impl FnOnce(TcpStream, TcpStream) + Send + 'static,
) -> (Outcome, Arc<ListenerMetrics>) {
    let ((client, near_client), (peer, near_peer)) = (pair(), pair());
    let thread = std::thread::spawn(move || script(client, peer));
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    let answer = runtime.block_on(async {
        let mut record = record();
        let (client, peer) = (Stream::new(near_client, true).unwrap(), Stream::new(near_peer, true).unwrap());
        let outcome = relay(&client, &peer, Terms::new(idle), &mut record).await;
        (outcome, record.metrics().clone())
    });
    thread.join().unwrap();
    answer
}

pub(super) const LONG: Duration = Duration::from_secs(30);

pub(super) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_half_close_passes_and_the_answer_still_comes() {
    let (outcome, metrics) = play(LONG, |mut client, mut peer| {
        client.write_all(b"question").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut got = String::new();
        peer.read_to_string(&mut got).unwrap();
        assert_eq!(got, "question");
        peer.write_all(b"the answer").unwrap();
        drop(peer);
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, "the answer");
    });
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(metrics.blocks.sum(|b| &b.bytes_in), 8);
    assert_eq!(metrics.blocks.sum(|b| &b.bytes_out), 10);
}

#[test]
fn a_reset_passes_as_a_reset_either_way() {
    let (outcome, _) = play(LONG, |mut client, mut peer| {
        client.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
        reset(client);
        assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
    assert_eq!(outcome, Outcome::ClientReset);
    let (outcome, _) = play(LONG, |mut client, mut peer| {
        client.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
        reset(peer);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
    assert_eq!(outcome, Outcome::PeerReset);
}

#[test]
fn an_early_answer_arrives_though_the_peer_stopped_reading() {
    let (outcome, _) = play(LONG, |mut client, mut peer| {
        client.write_all(b"begin").unwrap();
        peer.read_exact(&mut [0; 5]).unwrap();
        // Answers and closes with a question unread: the kernel sends a reset behind the answer.
        peer.write_all(b"too large").unwrap();
        client.write_all(&[0; 1000]).unwrap();
        let mut got = [0; 9];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"too large");
        drop(peer);
        let end = client.read(&mut [0]);
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    });
    assert_eq!(outcome, Outcome::PeerReset);
}

#[test]
fn a_reader_that_stops_stops_the_writer() {
    let (outcome, metrics) = play(LONG, |client, mut peer| {
        // The peer floods; the client reads nothing for as long as anything still moves.
        peer.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let mut quiet = 0;
        while quiet < 50 {
            match peer.write(&[7; 65536]) {
                Ok(n) => (sent, quiet) = (sent + n, 0),
                Err(_) => {
                    quiet += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            assert!(sent < 64 << 20, "nobody reads, and still bytes go");
        }
        drop(peer);
        let mut rest = 0;
        for got in io::BufReader::new(client).bytes() {
            assert_eq!(got.unwrap(), 7);
            rest += 1;
            if rest == sent {
                break;
            }
        }
    });
    assert_eq!(outcome, Outcome::Done);
    assert!(metrics.blocks.sum(|b| &b.bytes_out) > 0);
}

#[test]
fn silence_ends_with_the_name_of_who_was_silent() {
    let idle = Duration::from_millis(60);
    let hold = |client: TcpStream, peer: TcpStream| {
        let _ = (&client, &peer).0.read(&mut [0]);
        drop(peer);
    };
    assert_eq!(play(idle, hold).0, Outcome::ClientSilent);
    let ask = move |mut client: TcpStream, peer: TcpStream| {
        client.write_all(b"hello?").unwrap();
        hold(client, peer);
    };
    // The question has to be there before that.
    assert_eq!(play(10 * idle, ask).0, Outcome::PeerSilent);
}

#[test]
fn traffic_in_one_direction_keeps_a_connection_alive() {
    let idle = Duration::from_secs(1);
    let (outcome, metrics) = play(idle, |mut client, mut peer| {
        client.write_all(b"go").unwrap();
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(150));
            peer.write_all(b".").unwrap();
        }
        let _ = client.read_exact(&mut [0; 12]);
        let _ = client.read(&mut [0]);
    });
    assert_eq!(outcome, Outcome::IdleTimeout);
    assert_eq!(metrics.blocks.sum(|b| &b.bytes_out), 12);
}

/// A stream of bytes that has no period a buffer's length could hide.
fn noise(mut seed: u64) -> impl FnMut(&mut [u8]) {
    move |buffer| {
        for byte in buffer {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (seed >> 56) as u8;
        }
    }
}

/// Writes `total` bytes of noise in pieces that change from tiny to huge and back, and says that this was all.
pub(super) fn pour(mut to: &TcpStream, seed: u64, total: usize) {
    let mut next = noise(seed);
    let mut buffer = vec![0; 1 << 20];
    let mut sent = 0;
    for piece in [1 << 20, 100, 70_000, 1 << 20, 1 << 20, 3, 300_000].into_iter().cycle() {
        let piece = piece.min(total - sent);
        next(&mut buffer[..piece]);
        to.write_all(&buffer[..piece]).unwrap();
        sent += piece;
        if sent == total {
            return to.shutdown(std::net::Shutdown::Write).unwrap();
        }
    }
}

/// Reads to the end and compares, with a rest now and then.
pub(super) fn compare(mut from: &TcpStream, seed: u64, total: usize) {
    let (mut expected, mut next) = (vec![0; 200_000], noise(seed));
    let mut buffer = vec![0; 200_000];
    let (mut got, mut rested) = (0, 0);
    loop {
        let n = from.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        next(&mut expected[..n]);
        assert!(buffer[..n] == expected[..n], "other bytes after {got}");
        got += n;
        if got / (8 << 20) > rested {
            rested += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(got, total);
}

#[test]
fn bulk_passes_unchanged_both_ways_at_once() {
    let total = 24 << 20;
    let (outcome, metrics) = play(LONG, move |client, peer| {
        std::thread::scope(|scope| {
            scope.spawn(|| pour(&client, 1, total));
            scope.spawn(|| pour(&peer, 2, total));
            scope.spawn(|| compare(&peer, 1, total));
            compare(&client, 2, total);
        });
    });
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(metrics.blocks.sum(|b| &b.bytes_in), total as u64);
    assert_eq!(metrics.blocks.sum(|b| &b.bytes_out), total as u64);
}

#[test]
fn a_reset_after_bulk_passes_as_one_either_way() {
    // Enough to be spliced, and all of it taken before the reset.
    let total = 4 << 20;
    for client_resets in [true, false] {
        let (outcome, _) = play(LONG, move |client, peer| {
            let (mut from, mut to) = if client_resets { (client, peer) } else { (peer, client) };
            let writer = std::thread::spawn(move || {
                from.write_all(&vec![1; total]).unwrap();
                from
            });
            to.read_exact(&mut vec![0; total]).unwrap();
            reset(writer.join().unwrap());
            assert_eq!(to.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        });
        assert_eq!(outcome, if client_resets { Outcome::ClientReset } else { Outcome::PeerReset });
    }
}

#[test]
fn a_reset_is_seen_of_an_end_that_is_not_being_read() {
    // The client floods a peer that reads nothing, and then resets.
    let (outcome, _) = play(LONG, |mut client, peer| {
        client.set_nonblocking(true).unwrap();
        let mut quiet = 0;
        while quiet < 50 {
            match client.write(&[1; 65536]) {
                Ok(1..) => quiet = 0,
                _ => {
                    quiet += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
        reset(client);
        let end = io::copy(&mut &peer, &mut io::sink()).map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
    });
    assert_eq!(outcome, Outcome::ClientReset);
    // The client has said its FIN, waits for the answer, and resets.
    let (outcome, _) = play(LONG, |client, mut peer| {
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        reset(client);
        // Nothing more is read after a FIN, but a write meets the reset.
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while peer.write(b"x").is_ok() {
            assert!(std::time::Instant::now() < until, "no reset came");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(outcome, Outcome::ClientReset);
}

#[test]
fn urgent_data_stops_nothing_and_is_passed_on_in_its_place() {
    // By copying, all of it queued before the relay looks, and again in the midst of bulk.
    for before in [3, 8 << 20] {
        let (outcome, _) = play(LONG, move |mut client, mut peer| {
            let reader = std::thread::spawn(move || {
                let mut got = Vec::new();
                peer.read_to_end(&mut got).unwrap();
                got
            });
            client.write_all(&vec![1; before]).unwrap();
            socket2::SockRef::from(&client).send_out_of_band(b"!").unwrap();
            client.write_all(&[2; 60_000]).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let got = reader.join().unwrap();
            assert_eq!(got.len(), before + 1 + 60_000);
            assert_eq!(&got[before - 1..before + 2], [1, b'!', 2]);
        });
        assert_eq!(outcome, Outcome::Done);
    }
}

#[test]
fn a_relay_that_is_dropped_resets_both_sides() {
    let ((mut client, near_client), (mut peer, near_peer)) = (pair(), pair());
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    runtime.block_on(async {
        let mut record = record();
        let (near, far) = (Stream::new(near_client, true).unwrap(), Stream::new(near_peer, true).unwrap());
        let relayed = relay(&near, &far, Terms::new(LONG), &mut record);
        let cut = tokio::time::timeout(Duration::from_millis(20), relayed).await;
        assert!(cut.is_err());
    });
    for end in [&mut client, &mut peer] {
        assert_eq!(end.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
