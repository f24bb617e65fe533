//! Which of the usable peers takes the next connection.
//!
//! A balancer sees `Members`: weights, whether each may be used, and how busy it is. What makes a peer
//! usable is none of its business. It picks an index or nothing, and nothing only if no member is usable.
//! To add one: a file here, a variant of [`Balance`] and one of `Balancer`.

mod hash;
mod least_connections;
mod random_two;
mod round_robin;

use std::net::SocketAddr;

use hash::Ring;
use round_robin::RoundRobin;

use crate::random;

/// How a group spreads connections over its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, exact over all workers.
    RoundRobin,
    /// The fewest connections for its weight; among equals, round robin.
    LeastConnections,
    /// Two at random, and the less busy of them.
    RandomTwo,
    /// A consistent hash of something about the client.
    Hash(HashKey),
}

impl Balance {
    /// The word in the config and in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
            Balance::LeastConnections => "least_connections",
            Balance::RandomTwo => "random_two",
            Balance::Hash(_) => "hash",
        }
    }
}

/// What about a client decides its peer under [`Balance::Hash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The client's IP address: all its connections go to one peer.
    ClientIp,
    /// The client's IP address and port: each of its connections may go to another peer.
    ClientAddr,
}

impl HashKey {
    /// The point on the ring of a client. An IPv4 address counts the same when it came in over an IPv6
    /// socket. Clients without an address, those of a unix socket, count as one client.
    fn point(self, client: Option<SocketAddr>) -> u64 {
        let Some(client) = client else { return 0 };
        let ip = match client.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => u128::from(u32::from(ip)),
            std::net::IpAddr::V6(ip) => u128::from(ip),
        };
        let ip = random::mix((ip >> 64) as u64 ^ random::mix(ip as u64));
        match self {
            HashKey::ClientIp => ip,
            HashKey::ClientAddr => random::mix(ip ^ u64::from(client.port())),
        }
    }
}

/// The peers to choose from, numbered from zero.
pub(crate) trait Members {
    /// How many there are, usable or not.
    fn len(&self) -> usize;
    /// The share of a member, at least 1.
    fn weight(&self, i: usize) -> u32;
    /// Whether a member may be picked now.
    fn usable(&self, i: usize) -> bool;
    /// How many connections a member has.
    fn in_flight(&self, i: usize) -> u32;
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
    Hash(HashKey, Ring),
}

impl Balancer {
    /// Prepares `balance` for members with these names and weights. The names place them on the ring.
    pub(crate) fn new(balance: Balance, members: &[(String, u32)]) -> Balancer {
        match balance {
            Balance::RoundRobin => Balancer::RoundRobin(RoundRobin::new(members.len())),
            Balance::LeastConnections => Balancer::LeastConnections(RoundRobin::new(members.len())),
            Balance::RandomTwo => Balancer::RandomTwo,
            Balance::Hash(key) => Balancer::Hash(key, Ring::new(members)),
        }
    }

    /// Picks a usable member for a client.
    pub(crate) fn pick(&self, members: &impl Members, client: Option<SocketAddr>) -> Option<usize> {
        if members.len() <= 1 {
            // The commonest group has one peer, and it needs neither a lock nor a ring.
            return (members.len() == 1 && members.usable(0)).then_some(0);
        }
        match self {
            Balancer::RoundRobin(turn) => turn.pick(members, |i| members.usable(i)),
            Balancer::LeastConnections(turn) => least_connections::pick(turn, members),
            Balancer::RandomTwo => random_two::pick(members, random::next),
            Balancer::Hash(key, ring) => ring.pick(members, key.point(client)),
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
    }

    impl Plain {
        pub(super) fn new(weights: &[u32]) -> Plain {
            Plain { weights: weights.to_vec(), unusable: vec![], in_flight: vec![0; weights.len()] }
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
    }

    const ALL: [Balance; 5] = [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::RandomTwo,
        Balance::Hash(HashKey::ClientIp),
        Balance::Hash(HashKey::ClientAddr),
    ];

    #[test]
    fn every_balancer_picks_the_last_usable_member_and_nothing_else() {
        for balance in ALL {
            for count in 1..6 {
                let names: Vec<_> = (0..count).map(|i| (format!("10.0.0.{i}:80"), 1 + i % 3)).collect();
                let weights: Vec<_> = names.iter().map(|(_, weight)| *weight).collect();
                let balancer = Balancer::new(balance, &names);
                for only in 0..names.len() {
                    let mut members = Plain::new(&weights);
                    members.unusable = (0..names.len()).filter(|&i| i != only).collect();
                    let client = Some("192.0.2.1:5000".parse().unwrap());
                    assert_eq!(balancer.pick(&members, client), Some(only), "{balance:?} of {count}");
                    members.unusable.push(only);
                    assert_eq!(balancer.pick(&members, client), None, "{balance:?} of {count}");
                }
            }
            assert_eq!(Balancer::new(balance, &[]).pick(&Plain::default(), None), None);
        }
    }

    #[test]
    fn a_clients_point_ignores_what_its_key_leaves_out() {
        let point = |key: HashKey, text: &str| key.point(Some(text.parse().unwrap()));
        assert_eq!(point(HashKey::ClientIp, "192.0.2.1:1"), point(HashKey::ClientIp, "192.0.2.1:2"));
        assert_eq!(point(HashKey::ClientIp, "192.0.2.1:1"), point(HashKey::ClientIp, "[::ffff:192.0.2.1]:1"));
        assert_ne!(point(HashKey::ClientIp, "192.0.2.1:1"), point(HashKey::ClientIp, "192.0.2.2:1"));
        assert_ne!(point(HashKey::ClientAddr, "192.0.2.1:1"), point(HashKey::ClientAddr, "192.0.2.1:2"));
        assert_ne!(point(HashKey::ClientIp, "[2001:db8::1]:1"), point(HashKey::ClientIp, "[2001:db9::1]:1"));
    }
}
