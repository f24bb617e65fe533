//! Datagrams through both ends of the tunnel, over loopback.

#![allow(clippy::unwrap_used, reason = "a test; what is missing is the failure")]

mod rig;
mod scripts;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wmproxy_net::limit::Limits;
use wmproxy_net::record::{Outcome, UdpDrop};
use wmproxy_testkit::PATIENCE;
use wmproxy_testkit::udp::{UdpBackend, UdpClient};
use wmproxy_testkit::wait::eventually;

use rig::{Kind, Rig, Setup};

const BOTH: [Kind; 2] = [Kind::Stream, Kind::Quic];

fn visitor(rig: &Rig) -> UdpClient {
    UdpClient::connect(rig.addr)
}

#[test]
fn datagrams_of_every_size_come_back_whole() {
    for kind in BOTH {
        let echo = UdpBackend::echo();
        let rig = Rig::start(echo.addr(), Setup::new(kind));
        let visitor = visitor(&rig);
        for size in [1, 0, 2, 1023, 1200, 1452, 1472, 1473, 9000, 20_000, 65_506, 65_507, 0, 1] {
            let data: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
            visitor.echo(&data);
        }
        assert_eq!(rig.outer.blocks.sum(|block| &block.accepted), 1, "{kind:?}");
        assert_eq!(rig.inner.blocks.sum(|block| &block.accepted), 1, "{kind:?}");
        assert_eq!(rig.way.asked.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn the_order_of_a_flow_stays_over_a_stream() {
    let echo = UdpBackend::echo();
    let rig = Rig::start(echo.addr(), Setup::new(Kind::Stream));
    let visitor = visitor(&rig);
    visitor.echo(b"first");
    let mut sent = 0u32;
    while sent < 5_000 {
        // As many at a time as no queue on the way drops.
        let burst: Vec<u32> = (sent..sent + 50).collect();
        burst.iter().for_each(|number| visitor.send(&[&number.to_be_bytes()[..], &[0; 300]].concat()));
        for number in burst {
            assert_eq!(visitor.recv()[..4], number.to_be_bytes());
        }
        sent += 50;
    }
}

#[test]
fn every_visitor_has_a_flow_of_its_own() {
    for kind in BOTH {
        let whoami = UdpBackend::whoami();
        let rig = Rig::start(whoami.addr(), Setup::new(kind));
        let visitors: Vec<_> = (0..200).map(|_| visitor(&rig)).collect();
        visitors.iter().for_each(|visitor| visitor.send(b"who am I?"));
        let seen: HashSet<_> = visitors.iter().map(UdpClient::recv).collect();
        assert_eq!(seen.len(), visitors.len(), "{kind:?}");
        assert_eq!((rig.outer.active(), rig.inner.active()), (200, 200));
        // Again the same.
        let again: HashSet<_> = visitors.iter().map(|visitor| visitor.ask(b"and now?")).collect();
        assert_eq!(again, seen);
    }
}

#[test]
fn the_first_datagram_of_a_flow_comes_with_its_header() {
    for kind in BOTH {
        let echo = UdpBackend::echo();
        let rig = Rig::start(echo.addr(), Setup { with_header: true, ..Setup::new(kind) });
        let visitor = visitor(&rig);
        let local = visitor.local().port();
        let expected = format!("127.0.0.1:{local} {}\nquestion", rig.addr);
        assert_eq!(visitor.ask_text(b"question"), expected);
        assert_eq!(visitor.ask_text(b"another"), "another");
    }
}

#[test]
fn a_flow_ends_at_both_ends_when_either_has_waited_long_enough() {
    let short = Duration::from_millis(150);
    for kind in BOTH {
        for (outer_idle, inner_idle) in [(short, Duration::from_secs(60)), (Duration::from_secs(60), short)] {
            let echo = UdpBackend::echo();
            let rig = Rig::start(echo.addr(), Setup { outer_idle, inner_idle, ..Setup::new(kind) });
            let visitor = visitor(&rig);
            visitor.echo(b"once");
            eventually("both ends are idle", || (rig.outer.active(), rig.inner.active()) == (0, 0));
            assert_eq!(rig.ended(Outcome::IdleTimeout), (1, 1), "{kind:?}");
            visitor.echo(b"again");
            assert_eq!(rig.outer.blocks.sum(|block| &block.accepted), 2);
        }
    }
}

#[test]
fn the_oldest_flow_makes_room_where_no_more_may_be() {
    for kind in BOTH {
        let echo = UdpBackend::echo();
        let limits = Limits { max: 2, ..Limits::default() };
        let rig = Rig::start(echo.addr(), Setup { limits, ..Setup::new(kind) });
        let visitors = [(); 3].map(|()| visitor(&rig));
        visitors.iter().for_each(|visitor| visitor.echo(b"here"));
        eventually("one had to go", || (rig.outer.active(), rig.inner.active()) == (2, 2));
        assert_eq!(rig.ended(Outcome::Evicted), (1, 1), "{kind:?}");
        let rig = Rig::start(echo.addr(), Setup { inner_max: 2, ..Setup::new(kind) });
        let visitors = [(); 3].map(|()| visitor(&rig));
        visitors.iter().for_each(|visitor| visitor.echo(b"here"));
        eventually("one had to go", || (rig.outer.active(), rig.inner.active()) == (2, 2));
        assert_eq!(rig.ended(Outcome::Evicted), (1, 1), "{kind:?}");
    }
}

#[test]
fn limits_of_a_client_and_of_the_way_are_kept() {
    let echo = UdpBackend::echo();
    let limits = Limits { max_per_client: 2, ..Limits::default() };
    let rig = Rig::start(echo.addr(), Setup { limits, ..Setup::new(Kind::Stream) });
    let visitors = [(); 3].map(|()| visitor(&rig));
    visitors[..2].iter().for_each(|visitor| visitor.echo(b"here"));
    visitors[2].send(b"one too many");
    eventually("it was dropped", || rig.dropped(UdpDrop::ClientLimit) == 1);

    let way_limits = Some(Limits { max: 1, up: Some("10k/s".parse().unwrap()), ..Limits::default() });
    let rig = Rig::start(echo.addr(), Setup { way_limits, ..Setup::new(Kind::Stream) });
    let visitors = [(); 2].map(|()| visitor(&rig));
    visitors[0].echo(b"here");
    visitors[1].send(b"one too many");
    eventually("it was dropped", || rig.dropped(UdpDrop::NoFlow) == 1);
    (0..100).for_each(|_| visitors[0].send(&[0; 1000]));
    eventually("most were too fast", || rig.dropped(UdpDrop::OverRate) > 50);
}

#[test]
fn a_closed_port_ends_the_flow_and_the_next_datagram_begins_another() {
    for kind in BOTH {
        let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let rig = Rig::start(nobody, Setup::new(kind));
        let visitor = visitor(&rig);
        visitor.send(b"is anybody there?");
        eventually("both ends know", || rig.ended(Outcome::PeerReset) == (1, 1));
        let echo = UdpBackend::echo_at(nobody);
        visitor.echo(b"now there is");
        drop(echo);
    }
}

fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_way_that_breaks_off_ends_its_flows_and_the_next_datagram_asks_for_another() {
    for kind in BOTH {
        let echo = UdpBackend::echo();
        let rig = Rig::start(echo.addr(), Setup::new(kind));
        let visitors: Vec<_> = (0..10).map(|_| visitor(&rig)).collect();
        visitors.iter().for_each(|visitor| visitor.echo(b"before"));
        rig.way.cut();
        eventually("all have ended", || (rig.outer.active(), rig.inner.active()) == (0, 0));
        assert_eq!(rig.ended(Outcome::PeerReset).0, 10, "{kind:?}");
        let until = Instant::now() + PATIENCE;
        let mut back = false;
        while !back && Instant::now() < until {
            visitors[0].socket().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            visitors[0].send(b"after");
            back = visitors[0].try_recv().is_ok();
        }
        assert!(back);
        visitors[1..].iter().for_each(|visitor| visitor.echo(b"after"));
        assert_eq!(rig.way.asked.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn a_drain_ends_flows_at_their_first_silence_and_begins_none() {
    for kind in BOTH {
        let echo = UdpBackend::echo();
        let rig = Rig::start(echo.addr(), Setup::new(kind));
        let (visitor, late) = (visitor(&rig), visitor(&rig));
        visitor.echo(b"before");
        rig.drain();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1200) {
            visitor.echo(b"busy");
            std::thread::sleep(Duration::from_millis(20));
        }
        late.send(b"too late");
        eventually("it was dropped", || rig.dropped(UdpDrop::Draining) == 1);
        eventually("the last flow ended", || rig.outer.active() == 0);
    }
}

#[test]
fn without_a_way_datagrams_are_dropped_and_few_attempts_are_made() {
    let echo = UdpBackend::echo();
    let rig = Rig::start(echo.addr(), Setup::new(Kind::Stream));
    rig.way.is_refused.store(true, Ordering::SeqCst);
    let visitors: Vec<_> = (0..20).map(|_| visitor(&rig)).collect();
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < Duration::from_millis(500) {
        visitors.iter().for_each(|visitor| visitor.send(b"hello?"));
        sent += visitors.len() as u64;
        // More at once might be too much for a socket's queue.
        eventually("all were dropped", || rig.dropped(UdpDrop::NoFlow) == sent);
        std::thread::sleep(Duration::from_millis(5));
    }
    let attempts = rig.way.asked.load(Ordering::SeqCst);
    assert!((1..=4).contains(&attempts), "{attempts}");
    assert_eq!(rig.outer.blocks.sum(|block| &block.accepted), 0);
    rig.way.is_refused.store(false, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(250));
    visitors[0].echo(b"now");
}

#[test]
fn an_end_that_does_not_read_costs_a_bounded_buffer() {
    let echo = UdpBackend::echo();
    let rig = Rig::start(echo.addr(), Setup::new(Kind::Deaf));
    let visitor = visitor(&rig);
    let before = resident();
    let mut sent = 0u64;
    // As much as the kernel's buffers take, and then ten times of ours.
    while rig.dropped(UdpDrop::PeerFull) < 10_000 {
        visitor.send(&[7; 1200]);
        sent += 1;
        assert!(sent < 1_000_000, "nothing was dropped");
        if sent.is_multiple_of(100) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}

/// The bytes of memory that this process holds.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// What a datagram costs both ends together. For a release build, and to be read: `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_datagram() {
    for kind in BOTH {
        let echo = UdpBackend::echo();
        let rig = Rig::start(echo.addr(), Setup::new(kind));
        let visitors: Vec<_> = (0..8).map(|_| visitor(&rig)).collect();
        let ask = |rounds: u32| {
            for _ in 0..rounds {
                for visitor in &visitors {
                    (0..20).for_each(|_| visitor.send(&[3; 1200]));
                }
                for visitor in &visitors {
                    visitor.socket().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                    (0..20).for_each(|_| drop(visitor.try_recv()));
                }
            }
        };
        ask(50);
        let before = (rig.cpu(), Instant::now(), rig.outer.blocks.sum(|block| &block.datagrams_out));
        ask(1000);
        let passed = rig.outer.blocks.sum(|block| &block.datagrams_out) - before.2;
        let cpu = rig.cpu() - before.0;
        println!(
            "{kind:?}: {passed} echoes, {:.2} us each way, {:.0} a second",
            cpu.as_micros() as f64 / passed as f64 / 2.0,
            passed as f64 / before.1.elapsed().as_secs_f64()
        );
    }
}
