//! Which of the usable peers takes the next connection.
//!
//! A balancer sees `Members`: weights, whether each may be used, and how busy it is. What makes a peer
//! usable is none of its business. It picks an index or nothing, and nothing only if no member is usable.
//! To add one: a file here, a variant of [`Balance`] and one of `Balancer`.

mod hash;
mod least_connections;
mod random_two;
mod round_robin;

use std::net::IpAddr;

use hash::Ring;
use round_robin::RoundRobin;

use crate::LeaseKey;
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
    /// The server name that the client asks for, in TLS or QUIC.
    Sni,
    /// The connection id that a QUIC client chose for its first Initial.
    QuicCid,
}

impl HashKey {
    /// The point on the ring of a client. An IPv4 address counts the same when it came in over an IPv6
    /// socket. Clients without an address, those of a unix socket, count as one client. Who did not send what
    /// the key goes by is known by the IP address, rather than being one of many at the same point.
    fn point(self, key: &LeaseKey) -> u64 {
        match self {
            HashKey::Sni => key.sni.unwrap_or_else(|| HashKey::ClientIp.point(key)),
            HashKey::QuicCid => key.quic_cid.unwrap_or_else(|| HashKey::ClientIp.point(key)),
            HashKey::ClientIp => key.client.map_or(0, |client| ip_point(client.ip())),
            HashKey::ClientAddr => {
                key.client.map_or(0, |client| random::mix(ip_point(client.ip()) ^ u64::from(client.port())))
            }
        }
    }
}

fn ip_point(ip: IpAddr) -> u64 {
    let ip = match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    random::mix((ip >> 64) as u64 ^ random::mix(ip as u64))
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
    pub(crate) fn pick(&self, members: &impl Members, key: &LeaseKey) -> Option<usize> {
        if members.len() <= 1 {
            // The commonest group has one peer, and it needs neither a lock nor a ring.
            return (members.len() == 1 && members.usable(0)).then_some(0);
        }
        match self {
            Balancer::RoundRobin(turn) => turn.pick(members, |i| members.usable(i)),
            Balancer::LeastConnections(turn) => least_connections::pick(turn, members),
            Balancer::RandomTwo => random_two::pick(members, random::next),
            Balancer::Hash(by, ring) => ring.pick(members, by.point(key)),
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

    #[test]
    fn the_key_goes_by_what_the_client_sent_and_by_its_address_without() {
        let client = LeaseKey::of_client(Some("192.0.2.1:1".parse().unwrap()));
        let named = |name: &str| HashKey::Sni.point(&client.with_sni(name));
        assert_eq!(named("Example.com"), named("example.com."));
        assert_ne!(named("example.com"), named("example.org"));
        let other = LeaseKey::of_client(Some("192.0.2.9:1".parse().unwrap()));
        assert_eq!(named("example.com"), HashKey::Sni.point(&other.with_sni("example.com")));
        let with_id = |id: &[u8]| HashKey::QuicCid.point(&client.with_quic_cid(id));
        assert_ne!(with_id(&[1; 8]), with_id(&[2; 8]));
        for by in [HashKey::Sni, HashKey::QuicCid] {
            assert_eq!(by.point(&client), HashKey::ClientIp.point(&client));
        }
    }

    const ALL: [Balance; 7] = [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::RandomTwo,
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
                let balancer = Balancer::new(balance, &names);
                for only in 0..names.len() {
                    let mut members = Plain::new(&weights);
                    members.unusable = (0..names.len()).filter(|&i| i != only).collect();
                    let key = LeaseKey::of_client(Some("192.0.2.1:5000".parse().unwrap()));
                    assert_eq!(balancer.pick(&members, &key), Some(only), "{balance:?} of {count}");
                    members.unusable.push(only);
                    assert_eq!(balancer.pick(&members, &key), None, "{balance:?} of {count}");
                }
            }
            assert_eq!(Balancer::new(balance, &[]).pick(&Plain::default(), &LeaseKey::default()), None);
        }
    }

    #[test]
    fn a_clients_point_ignores_what_its_key_leaves_out() {
        let point = |by: HashKey, text: &str| by.point(&LeaseKey::of_client(Some(text.parse().unwrap())));
        assert_eq!(point(HashKey::ClientIp, "192.0.2.1:1"), point(HashKey::ClientIp, "192.0.2.1:2"));
        assert_eq!(point(HashKey::ClientIp, "192.0.2.1:1"), point(HashKey::ClientIp, "[::ffff:192.0.2.1]:1"));
        assert_ne!(point(HashKey::ClientIp, "192.0.2.1:1"), point(HashKey::ClientIp, "192.0.2.2:1"));
        assert_ne!(point(HashKey::ClientAddr, "192.0.2.1:1"), point(HashKey::ClientAddr, "192.0.2.1:2"));
        assert_ne!(point(HashKey::ClientIp, "[2001:db8::1]:1"), point(HashKey::ClientIp, "[2001:db9::1]:1"));
    }
}
