//! Which of the usable peers takes the next connection.
//!
//! A balancer sees `Members`: weights, whether each may be used, and how busy it is. What makes a peer
//! usable is none of its business. It picks an index or nothing, and nothing only if no member is usable.
//! To add one: a file here, a variant of [`Balance`] and one of `Balancer`.

#[cfg(test)]
mod costs;
mod hash;
mod key;
mod least_connections;
mod maglev;
mod peak_ewma;
mod random_two;
mod round_robin;

use hash::Ring;
pub use key::HashKey;
pub(crate) use key::is_token;

use maglev::Table;
use round_robin::RoundRobin;

use crate::LeaseKey;
use crate::random;

/// How a group spreads connections over its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, exact over all workers.
    RoundRobin,
    /// The fewest connections for its weight; among equals, round robin.
    LeastConnections,
    /// Two at random, and the less busy of them.
    RandomTwo,
    /// Two at random, and the one that is expected to answer sooner.
    PeakEwma,
    /// A consistent hash of something about the client: nobody moves needlessly.
    Hash(HashKey),
    /// A consistent hash of something about the client: shares are exact.
    Maglev(HashKey),
}

impl Balance {
    /// The word in the config and in the status.
    pub fn as_str(&self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
            Balance::LeastConnections => "least_connections",
            Balance::RandomTwo => "random_two",
            Balance::PeakEwma => "peak_ewma",
            Balance::Hash(_) => "hash",
            Balance::Maglev(_) => "maglev",
        }
    }
}

/// The peers to choose from, numbered from zero.
pub(crate) trait Members {
    /// How many there are, usable or not.
    fn len(&self) -> usize;
    /// The share of a member at this moment, at least 1.
    fn weight(&self, i: usize) -> u32;
    /// Whether a member may be picked now.
    fn usable(&self, i: usize) -> bool;
    /// How many connections a member has.
    fn in_flight(&self, i: usize) -> u32;
    /// What one more connection costs at a member, in whatever unit, smaller being better.
    fn cost(&self, i: usize) -> f64;
    /// Whether a member whose share is still growing has grown enough for the client at `point`. By and by it takes
    /// back all its clients, and each of them once.
    fn admits(&self, i: usize, point: u64) -> bool;

    /// Whether the client at `point` may go to a member.
    fn takes(&self, i: usize, point: u64) -> bool {
        self.usable(i) && self.admits(i, point)
    }
}

/// Finds a member for a client whose own can't take it.
struct Fallback<'a, M> {
    members: &'a M,
    point: u64,
    /// A bit for each member that was looked at.
    seen: Vec<u64>,
}

impl<'a, M: Members> Fallback<'a, M> {
    fn new(members: &'a M, point: u64) -> Self {
        Fallback { members, point, seen: vec![0; members.len().div_ceil(64)] }
    }

    /// The first of `candidates`, which may name members again and again, that takes the client; or else the first
    /// that could, for who is new is better than nobody.
    fn choose(mut self, candidates: impl Iterator<Item = usize>) -> Option<usize> {
        let mut left = self.members.len();
        let mut reluctant = None;
        for i in candidates {
            if !self.is_new(i) {
                continue;
            }
            if self.members.usable(i) {
                if self.members.admits(i, self.point) {
                    return Some(i);
                }
                reluctant.get_or_insert(i);
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
        reluctant
    }

    fn is_new(&mut self, i: usize) -> bool {
        let (word, bit) = (i / 64, 1 << (i % 64));
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }
}

/// Whether the client at `point` is among the first `percent` of a hundred.
pub(crate) fn admits(percent: u32, point: u64) -> bool {
    // Mixed once more: where the point lies on the ring must not tell.
    percent >= 100 || random::scale(random::mix(!point), 100) < u64::from(percent)
}

/// Whether member `a` is less busy for its weight than `b`.
fn less_busy(members: &impl Members, a: usize, b: usize) -> bool {
    // a.in_flight / a.weight < b.in_flight / b.weight, without the rounding.
    u64::from(members.in_flight(a)) * u64::from(members.weight(b))
        < u64::from(members.in_flight(b)) * u64::from(members.weight(a))
}

/// A method with its state over one set of members.
#[derive(Debug)]
pub(crate) enum Balancer {
    RoundRobin(RoundRobin),
    LeastConnections(RoundRobin),
    RandomTwo,
    PeakEwma,
    Hash(HashKey, Ring),
    Maglev(HashKey, Table),
}

impl Balancer {
    /// Prepares `balance` for members with these names and weights. The names place them on the ring and in the
    /// table.
    pub(crate) fn new(balance: &Balance, members: &[(String, u32)]) -> Balancer {
        match balance {
            Balance::RoundRobin => Balancer::RoundRobin(RoundRobin::new(members.len())),
            Balance::LeastConnections => Balancer::LeastConnections(RoundRobin::new(members.len())),
            Balance::RandomTwo => Balancer::RandomTwo,
            Balance::PeakEwma => Balancer::PeakEwma,
            Balance::Hash(key) => Balancer::Hash(key.clone(), Ring::new(members)),
            Balance::Maglev(key) => Balancer::Maglev(key.clone(), Table::new(members)),
        }
    }

    /// Picks a usable member for a client.
    pub(crate) fn pick(&self, members: &impl Members, key: &LeaseKey) -> Option<usize> {
        if members.len() <= 1 {
            // The commonest group has one peer, and it needs neither a lock nor a ring.
            return (members.len() == 1 && members.usable(0)).then_some(0);
        }
        match self {
            Balancer::RoundRobin(turn) => turn.pick(members, |i| members.usable(i)),
            Balancer::LeastConnections(turn) => least_connections::pick(turn, members),
            Balancer::RandomTwo => random_two::pick(members, random::next),
            Balancer::PeakEwma => peak_ewma::pick(members, random::next),
            Balancer::Hash(by, ring) => ring.pick(members, by.point(key)),
            Balancer::Maglev(by, table) => table.pick(members, by.point(key)),
        }
    }

    /// Takes over whose turn it was from the balancer of an older set: `old_index` tells where a member
    /// of this set was in that one. Without it, a name whose addresses change at every answer would send
    /// most connections to whichever address comes first.
    pub(crate) fn inherit(&self, old: &Balancer, old_index: impl Fn(usize) -> Option<usize>) {
        use Balancer::{LeastConnections, RoundRobin};
        if let (RoundRobin(new) | LeastConnections(new), RoundRobin(old) | LeastConnections(old)) =
            (self, old)
        {
            new.inherit(old, old_index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members as plain numbers.
    #[derive(Debug, Clone, Default)]
    pub(super) struct Plain {
        pub(super) weights: Vec<u32>,
        pub(super) unusable: Vec<usize>,
        pub(super) in_flight: Vec<u32>,
        pub(super) costs: Vec<f64>,
        /// How many of a hundred clients a member admits, where that is not all.
        pub(super) admitted: Vec<u32>,
    }

    pub(super) fn named(weights: &[u32]) -> Vec<(String, u32)> {
        weights.iter().enumerate().map(|(i, weight)| (format!("10.0.0.{}:80", i + 1), *weight)).collect()
    }

    /// The point of the n-th client.
    pub(super) fn client(n: u32) -> u64 {
        let client = Some((std::net::Ipv4Addr::from(n + 0x0a00_0000), 1).into());
        HashKey::ClientIp.point(&LeaseKey::of_client(client))
    }

    impl Plain {
        pub(super) fn new(weights: &[u32]) -> Plain {
            Plain {
                weights: weights.to_vec(),
                in_flight: vec![0; weights.len()],
                costs: vec![0.0; weights.len()],
                ..Plain::default()
            }
        }
    }

    impl Members for Plain {
        fn len(&self) -> usize {
            self.weights.len()
        }
        fn weight(&self, i: usize) -> u32 {
            self.weights[i]
        }
        fn usable(&self, i: usize) -> bool {
            !self.unusable.contains(&i)
        }
        fn in_flight(&self, i: usize) -> u32 {
            self.in_flight[i]
        }
        fn cost(&self, i: usize) -> f64 {
            self.costs[i]
        }
        fn admits(&self, i: usize, point: u64) -> bool {
            self.admitted.get(i).is_none_or(|&percent| admits(percent, point))
        }
    }

    const ALL: [Balance; 9] = [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::RandomTwo,
        Balance::PeakEwma,
        Balance::Maglev(HashKey::ClientIp),
        Balance::Hash(HashKey::ClientIp),
        Balance::Hash(HashKey::ClientAddr),
        Balance::Hash(HashKey::Sni),
        Balance::Hash(HashKey::QuicCid),
    ];

    #[test]
    fn every_balancer_picks_the_last_usable_member_and_nothing_else() {
        for balance in ALL {
            for count in 1..6 {
                let names: Vec<_> = (0..count).map(|i| (format!("10.0.0.{i}:80"), 1 + i % 3)).collect();
                let weights: Vec<_> = names.iter().map(|(_, weight)| *weight).collect();
                let balancer = Balancer::new(&balance, &names);
                for only in 0..names.len() {
                    let mut members = Plain::new(&weights);
                    members.unusable = (0..names.len()).filter(|&i| i != only).collect();
                    let key = LeaseKey::of_client(Some("192.0.2.1:5000".parse().unwrap()));
                    assert_eq!(balancer.pick(&members, &key), Some(only), "{balance:?} of {count}");
                    members.unusable.push(only);
                    assert_eq!(balancer.pick(&members, &key), None, "{balance:?} of {count}");
                }
            }
            assert_eq!(Balancer::new(&balance, &[]).pick(&Plain::default(), &LeaseKey::default()), None);
        }
    }

    #[test]
    fn a_member_whose_share_grows_gets_its_clients_back_once_each() {
        let weights = [1; 4];
        for balance in [Balance::Hash(HashKey::ClientIp), Balance::Maglev(HashKey::ClientIp)] {
            let balancer = Balancer::new(&balance, &named(&weights));
            let mut members = Plain::new(&weights);
            let keys: Vec<_> = (0..4000u32)
                .map(|n| LeaseKey::of_client(Some((std::net::Ipv4Addr::from(n + 0x0a00_0000), 1).into())))
                .collect();
            let pick = |members: &Plain| -> Vec<usize> {
                keys.iter().map(|key| balancer.pick(members, key).unwrap()).collect()
            };
            let settled = pick(&members);
            let own = settled.iter().filter(|i| **i == 1).count();
            members.unusable = vec![1];
            let mut before = pick(&members);
            members.unusable.clear();
            for percent in [10, 25, 50, 75, 100] {
                members.admitted = vec![100, percent, 100, 100];
                let now = pick(&members);
                let back = now.iter().filter(|i| **i == 1).count();
                assert!(
                    back.abs_diff(own * percent as usize / 100) < own / 15 + 1,
                    "{balance:?}, {percent} %"
                );
                for ((before, now), settled) in before.iter().zip(&now).zip(&settled) {
                    assert!(before == now || (*now == 1 && *settled == 1), "{balance:?}: moved elsewhere");
                }
                before = now;
            }
            assert_eq!(before, settled);
            members.admitted = vec![0; 4];
            assert!(pick(&members).len() == 4000, "new ones are better than nobody");
        }
    }
}
