//! Lanes under a limit. Time is measured by the tests themselves, and what a busy machine can break is not asserted: it
//! may make a connection slower than its rate, but never faster.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wmproxy_wire::bucket::Pace;
use wmproxy_wire::units::ByteRate;

use super::tests::{LONG, compare, pair, pour, record, reset};
use super::*;
use crate::limit::{Direction, Gate, Limits};
use crate::record::ListenerMetrics;

fn rate(bytes_per_second: u64) -> ByteRate {
    ByteRate::new(NonZeroU64::new(bytes_per_second).unwrap())
}

fn limited(gate: &Arc<Gate>, own: Option<u64>) -> Terms {
    let brake = |direction| Brake::new(own.map(rate), gate, direction);
    Terms { up: brake(Direction::Up), down: brake(Direction::Down), ..Terms::new(LONG) }
}

/// The most that may pass in a time at a rate, and the least time for so many bytes.
fn most(rate_of: u64, took: Duration) -> u64 {
    let pace = Pace::of_stream(rate(rate_of));
    (took.as_secs_f64() * rate_of as f64) as u64 + pace.burst_bytes() + pace.piece() as u64
}

/// Relays on the terms between two far ends, which `script` plays on a thread of its own.
fn play<T: Send + 'static>(
    terms: Terms,
    script: impl FnOnce(TcpStream, TcpStream) -> T + Send + 'static,
) -> (Outcome, Arc<ListenerMetrics>, T) {
    play_after(|_, _| {}, terms, script)
}

/// The same, where something has been said before the relay begins.
fn play_after<T: Send + 'static>(
    say: impl FnOnce(&mut TcpStream, &mut TcpStream),
    terms: Terms,
    script: impl FnOnce(TcpStream, TcpStream) -> T + Send + 'static,
) -> (Outcome, Arc<ListenerMetrics>, T) {
    let ((mut client, near_client), (mut peer, near_peer)) = (pair(), pair());
    say(&mut client, &mut peer);
    let thread = std::thread::spawn(move || script(client, peer));
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    let (outcome, metrics) = runtime.block_on(async {
        let mut record = record();
        let (client, peer) = (Stream::new(near_client, true).unwrap(), Stream::new(near_peer, true).unwrap());
        (relay(&client, &peer, terms, &mut record).await, record.metrics().clone())
    });
    (outcome, metrics, thread.join().unwrap())
}

#[test]
fn a_rate_holds_each_way_and_changes_no_byte() {
    let (up, down) = (256 << 10, 8 << 20);
    let gate = Gate::new(0, 0);
    let terms = Terms {
        up: Brake::new(Some(rate(up)), &gate, Direction::Up),
        down: Brake::new(Some(rate(down)), &gate, Direction::Down),
        ..Terms::new(LONG)
    };
    let (outcome, metrics, ()) = play(terms, move |client, peer| {
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| pour(&client, 1, 200_000));
            scope.spawn(|| pour(&peer, 2, 6_000_000));
            scope.spawn(|| {
                compare(&peer, 1, 200_000);
                assert!(200_000 <= most(up, began.elapsed()));
            });
            compare(&client, 2, 6_000_000);
            assert!(6_000_000 <= most(down, began.elapsed()));
        });
    });
    assert_eq!(outcome, Outcome::Done);
    let moved = (metrics.blocks.sum(|b| &b.bytes_in), metrics.blocks.sum(|b| &b.bytes_out));
    assert_eq!(moved, (200_000, 6_000_000));
}

#[test]
fn slow_bytes_come_evenly() {
    let of = 64 << 10;
    let (outcome, ..) = play(limited(&Gate::new(0, 0), Some(of)), move |client, mut peer| {
        let began = Instant::now();
        let writer = std::thread::spawn(move || pour(&client, 1, 96 << 10));
        let (mut got, mut buffer) = (0, vec![0; 1 << 20]);
        loop {
            // However late this thread is: at no moment has more come than is due.
            let n = peer.read(&mut buffer).unwrap();
            got += n as u64;
            assert!(got <= most(of, began.elapsed()), "{got} bytes after {:?}", began.elapsed());
            if n == 0 {
                break;
            }
        }
        assert_eq!(got, 96 << 10);
        writer.join().unwrap();
        drop(peer);
    });
    assert_eq!(outcome, Outcome::Done);
}

#[test]
fn bulk_is_spliced_at_its_rate_unless_that_is_turned_off() {
    let (of, total) = (64 << 20, 24 << 20);
    for splice in [Splice::Auto, Splice::Off] {
        let terms = Terms { splice, ..limited(&Gate::new(0, 0), Some(of)) };
        let (outcome, metrics, ()) = play(terms, move |client, peer| {
            let began = Instant::now();
            std::thread::scope(|scope| {
                scope.spawn(|| pour(&client, 1, total));
                compare(&peer, 1, total);
            });
            assert!(total as u64 <= most(of, began.elapsed()));
        });
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(metrics.blocks.sum(|b| &b.bytes_in), total as u64);
        let spliced = metrics.blocks.sum(|b| &b.bytes_spliced);
        assert_eq!(spliced > 0, splice == Splice::Auto, "{spliced} bytes");
    }
}

#[test]
fn who_waits_for_its_rate_is_not_idle() {
    // A piece every 62 ms; without the rate's account each of these pauses would be an idle timeout.
    let terms = Terms { idle_timeout: Duration::from_millis(30), ..limited(&Gate::new(0, 0), Some(1000)) };
    let say = |client: &mut TcpStream, peer: &mut TcpStream| {
        client.write_all(&[1; 500]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
    };
    let (outcome, metrics, _client) = play_after(say, terms, |client, mut peer| {
        peer.read_exact(&mut [0; 500]).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        client
    });
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(metrics.blocks.sum(|b| &b.bytes_in), 500);
}

#[test]
fn a_reset_is_seen_of_a_client_that_waits_for_its_rate() {
    let (outcome, metrics, ()) = play(limited(&Gate::new(0, 0), Some(1000)), |mut client, mut peer| {
        client.write_all(&[1; 100_000]).unwrap();
        peer.read_exact(&mut [0]).unwrap();
        reset(client);
        // Far sooner than the hundred seconds that the rest would take; the far ends wait for twenty.
        let end = io::copy(&mut peer, &mut io::sink()).map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
    });
    assert_eq!(outcome, Outcome::ClientReset);
    assert!(metrics.blocks.sum(|b| &b.bytes_in) < 50_000);
}

#[test]
fn connections_share_what_their_listener_may_pass() {
    let of = 1 << 20;
    let gate = Gate::new(0, 0);
    gate.set(&Limits { up: Some(rate(of)), ..Limits::default() });
    let began = Instant::now();
    let relays: Vec<_> = (0..4)
        .map(|_| {
            let terms = limited(&gate, None);
            assert!(terms.up.is_some() && terms.down.is_none());
            std::thread::spawn(move || {
                play(terms, |client, peer| {
                    std::thread::scope(|scope| {
                        scope.spawn(|| pour(&client, 1, 200_000));
                        compare(&peer, 1, 200_000);
                    });
                })
            })
        })
        .collect();
    for relay in relays {
        assert_eq!(relay.join().unwrap().0, Outcome::Done);
    }
    assert!(800_000 <= most(of, began.elapsed()));
}

#[test]
fn a_limit_that_a_reload_takes_away_or_raises_holds_nobody_up() {
    for up in [None, Some(rate(1 << 30))] {
        let gate = Gate::new(0, 0);
        gate.set(&Limits { up: Some(rate(64 << 10)), ..Limits::default() });
        let (terms, other) = (limited(&gate, None), gate.clone());
        let (outcome, ..) = play(terms, move |mut client, mut peer| {
            client.write_all(&[1; 20_000]).unwrap();
            peer.read_exact(&mut [0; 10_000]).unwrap();
            other.set(&Limits { up, ..Limits::default() });
            // This would take minutes at the old rate.
            let writer = std::thread::spawn(move || pour(&client, 1, 32 << 20));
            assert_eq!(io::copy(&mut peer, &mut io::sink()).unwrap(), (32 << 20) + 10_000);
            writer.join().unwrap();
        });
        assert_eq!(outcome, Outcome::Done);
    }
}

#[test]
fn who_waits_for_a_piece_at_a_slow_rate_has_it_at_once_when_that_is_raised() {
    let gate = Gate::new(0, 0);
    gate.set(&Limits { up: Some(rate(1)), ..Limits::default() });
    let (terms, other) = (limited(&gate, None), gate.clone());
    let (outcome, metrics, ()) = play(terms, move |mut client, mut peer| {
        client.write_all(&[1; 10_000]).unwrap();
        peer.read_exact(&mut [0]).unwrap();
        // The rest of it would come in hours, and its next byte in longer than the far ends wait.
        other.set(&Limits { up: Some(rate(1 << 30)), ..Limits::default() });
        peer.read_exact(&mut [0; 9_999]).unwrap();
        drop(client);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    });
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(metrics.blocks.sum(|b| &b.bytes_in), 10_000);
}

/// Relays from a client to a peer that answers at the end, on the terms. In the midst of it the way to the peer is cut,
/// which lets what was written before arrive. Answers what the peer got, and what was counted.
fn play_cut(
    terms: Terms,
    flood: impl FnOnce(&mut TcpStream, &mut TcpStream, &dyn Fn()) -> u64 + Send + 'static,
) -> (u64, Arc<ListenerMetrics>) {
    let ((mut client, near_client), (mut peer, near_peer)) = (pair(), pair());
    let near = TcpStream::from(near_peer.try_clone().unwrap());
    let script = std::thread::spawn(move || {
        let got = flood(&mut client, &mut peer, &|| near.shutdown(Shutdown::Write).unwrap());
        // The lane back still works, and ends the relay.
        peer.write_all(b"answer").unwrap();
        drop((near, peer));
        client.read_exact(&mut [0; 6]).unwrap();
        let _ = client.read(&mut [0]);
        got
    });
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    let metrics = runtime.block_on(async {
        let mut record = record();
        let ends = (Stream::new(near_client, true).unwrap(), Stream::new(near_peer, true).unwrap());
        let outcome = relay(&ends.0, &ends.1, terms, &mut record).await;
        assert_eq!(outcome, Outcome::PeerReset);
        record.metrics().clone()
    });
    (script.join().unwrap(), metrics)
}

/// Copied, spliced, and at a rate.
fn ways() -> [Terms; 3] {
    let copied = Terms { splice: Splice::Off, ..Terms::new(LONG) };
    [copied, Terms::new(LONG), limited(&Gate::new(0, 0), Some(64 << 20))]
}

#[test]
fn what_is_read_after_the_way_is_cut_does_not_count() {
    for terms in ways() {
        let passed = 2 << 20;
        let (got, metrics) = play_cut(terms, move |client, peer, cut| {
            let mut writer = client.try_clone().unwrap();
            let writer = std::thread::spawn(move || writer.write_all(&vec![1; passed]).unwrap());
            peer.read_exact(&mut vec![0; passed]).unwrap();
            writer.join().unwrap();
            cut();
            client.write_all(&[2; 40_000]).unwrap();
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
            passed as u64
        });
        assert_eq!(metrics.blocks.sum(|b| &b.bytes_in), got);
        assert_eq!(metrics.blocks.sum(|b| &b.bytes_out), 6);
    }
}

#[test]
fn what_is_kept_when_the_way_is_cut_does_not_count() {
    for terms in ways() {
        let (got, metrics) = play_cut(terms, |client, peer, cut| {
            // Until the peer's buffers are full, and then the relay's.
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
            client.set_nonblocking(false).unwrap();
            cut();
            io::copy(peer, &mut io::sink()).unwrap()
        });
        assert_eq!(metrics.blocks.sum(|b| &b.bytes_in), got);
        assert!(metrics.blocks.sum(|b| &b.bytes_spliced) <= got);
    }
}

#[test]
fn a_user_s_rate_holds_for_its_connections_together_beside_the_listener_s() {
    let (of, each) = (4 << 20, 1_000_000);
    let (listener, user) = (Gate::new(0, 0), Gate::new(0, 0));
    listener.set(&Limits { up: Some(rate(64 << 20)), ..Limits::default() });
    user.set(&Limits { up: Some(rate(of)), ..Limits::default() });
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let brake = Brake::and(Brake::new(None, &listener, Direction::Up), &user, Direction::Up);
                let terms = Terms { up: brake, ..Terms::new(LONG) };
                let (outcome, ..) = play(terms, move |client, peer| {
                    std::thread::scope(|scope| {
                        scope.spawn(|| pour(&client, 1, each));
                        compare(&peer, 1, each);
                    });
                });
                assert_eq!(outcome, Outcome::Done);
            });
        }
    });
    assert!(2 * each as u64 <= most(of, began.elapsed()));
    let unlimited = Gate::new(0, 0);
    assert!(Brake::and(Brake::new(None, &unlimited, Direction::Up), &unlimited, Direction::Up).is_none());
    assert!(Brake::and(None, &user, Direction::Up).is_some());
}

#[test]
fn a_budget_ends_a_relay_to_the_byte() {
    for (splice, left) in [(Splice::Auto, 5_000_000), (Splice::Off, 5_000_000), (Splice::Auto, 1000)] {
        let budget = Arc::new(Budget::default());
        budget.spend(77);
        budget.set_end(Some(77 + left));
        let terms = Terms { splice, budget: Some(budget.clone()), ..Terms::new(LONG) };
        let (outcome, metrics, got) = play(terms, move |mut client, mut peer| {
            let writer = std::thread::spawn(move || {
                // It ends with an error when the relay does.
                let piece = vec![7; 1 << 20];
                while peer.write_all(&piece).is_ok() {}
            });
            // The end is a reset, of which the bytes before it may be lost.
            let (mut got, mut buffer) = (0, vec![0; 1 << 20]);
            while let Ok(n @ 1..) = client.read(&mut buffer) {
                got += n as u64;
            }
            writer.join().unwrap();
            got
        });
        assert_eq!((outcome, budget.left()), (Outcome::Quota, 0));
        assert!(got <= left);
        assert_eq!(metrics.blocks.sum(|b| &b.bytes_out), left, "{splice:?}");
        assert_eq!(budget.passed(), 77 + left);
    }
}

#[test]
fn relays_of_one_budget_pass_no_more_than_a_turn_above_it() {
    let budget = Arc::new(Budget::default());
    budget.set_end(Some(8 << 20));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let terms = Terms { budget: Some(budget.clone()), ..Terms::new(LONG) };
                let (outcome, ..) = play(terms, |mut client, mut peer| {
                    let writer = std::thread::spawn(move || {
                        let piece = vec![7; 1 << 20];
                        while peer.write_all(&piece).is_ok() {}
                    });
                    let mut buffer = vec![0; 1 << 20];
                    while let Ok(1..) = client.read(&mut buffer) {}
                    writer.join().unwrap();
                });
                assert_eq!(outcome, Outcome::Quota);
            });
        }
    });
    // A turn, and a pipe that was full before, of each thread but the first.
    let most = (8 << 20) + 2 * (lane::TURN + (1 << 20)) + (1 << 20);
    assert!((8 << 20..=most).contains(&budget.passed()), "{}", budget.passed());
}
