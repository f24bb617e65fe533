//! Whatever visitors do and wherever the way breaks off: what comes back is what was sent, to whom it was sent, once and in
//! order; and every datagram is accounted for.

use std::time::Duration;

use proptest::prelude::*;
use wmproxy_net::record::UdpDrop;
use wmproxy_testkit::udp::{UdpBackend, UdpClient};
use wmproxy_testkit::wait::eventually;

use crate::rig::{Kind, Rig, Setup};

const VISITORS: usize = 4;

/// Sent ahead of what the listener has taken: less than any kernel's buffer, so that none is lost where nobody can count it.
const AHEAD: usize = 64 * 1024;

#[derive(Debug, Clone)]
enum Step {
    /// A visitor sends so many datagrams of that size.
    Send { visitor: usize, count: usize, size: usize },
    /// What carries them breaks off.
    Cut,
    /// The visitors take what has come.
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![8..200usize, 1100..1500usize, 8..20_000usize, Just(65_507)];
    prop_oneof![
        6 => (0..VISITORS, 1..12usize, size).prop_map(|(visitor, count, size)| Step::Send { visitor, count, size }),
        1 => Just(Step::Cut),
        3 => Just(Step::Take),
    ]
}

/// A datagram that says whose it is, which, and how it goes on.
fn datagram(visitor: usize, serial: u32, size: usize) -> Vec<u8> {
    let mut data: Vec<u8> = (0..size).map(|at| (at as u32).wrapping_mul(serial | 1) as u8).collect();
    data[..4].copy_from_slice(&(visitor as u32).to_be_bytes());
    data[4..8].copy_from_slice(&serial.to_be_bytes());
    data
}

struct Visitor {
    number: usize,
    client: UdpClient,
    sent: u32,
    seen: Vec<u32>,
}

impl Visitor {
    fn take(&mut self) {
        self.client.socket().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        while let Ok(data) = self.client.try_recv() {
            let serial = u32::from_be_bytes(data[4..8].try_into().unwrap());
            assert!(data == datagram(self.number, serial, data.len()), "a datagram came back changed");
            assert!(serial < self.sent);
            self.seen.push(serial);
        }
    }
}

fn play(kind: Kind, script: &[Step]) {
    let echo = UdpBackend::echo();
    let rig = Rig::start(echo.addr(), Setup::new(kind));
    let visitor = |number| Visitor { number, client: UdpClient::connect(rig.addr), sent: 0, seen: vec![] };
    let mut visitors: Vec<_> = (0..VISITORS).map(visitor).collect();
    let (mut sent, mut ahead) = (0, 0);
    let all_taken = |sent: u64| {
        eventually("all is accounted for", || {
            let passed = rig.outer.blocks.sum(|block| &block.datagrams_in);
            passed + rig.dropped(UdpDrop::NoFlow) + rig.dropped(UdpDrop::PeerFull) == sent
        });
    };
    for step in script {
        match *step {
            Step::Send { visitor, count, size } => {
                let visitor = &mut visitors[visitor];
                for _ in 0..count {
                    visitor.client.send(&datagram(visitor.number, visitor.sent, size));
                    visitor.sent += 1;
                    sent += 1;
                    ahead += size;
                    if ahead > AHEAD {
                        all_taken(sent);
                        ahead = 0;
                    }
                }
            }
            Step::Cut => rig.way.cut(),
            Step::Take => visitors.iter_mut().for_each(Visitor::take),
        }
    }
    visitors.iter_mut().for_each(Visitor::take);
    all_taken(sent);
    // What was accounted for may still be on its way back, so nothing is judged before it had its time.
    let cut = script.iter().any(|step| matches!(step, Step::Cut));
    if sent > 0 && !cut && rig.dropped(UdpDrop::PeerFull) == 0 {
        eventually("something comes back", || {
            visitors.iter_mut().for_each(Visitor::take);
            visitors.iter().any(|visitor| !visitor.seen.is_empty())
        });
    }
    for visitor in &mut visitors {
        let came = visitor.seen.clone();
        visitor.seen.sort_unstable();
        assert_eq!(came, visitor.seen, "out of order");
        visitor.seen.dedup();
        assert_eq!(came.len(), visitor.seen.len(), "something came twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scripts_over_a_stream(script in prop::collection::vec(step(), 1..25)) {
        play(Kind::Stream, &script);
    }

    #[test]
    fn scripts_over_quic(script in prop::collection::vec(step(), 1..25)) {
        play(Kind::Quic, &script);
    }
}
