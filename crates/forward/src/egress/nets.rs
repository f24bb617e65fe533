//! Networks, and what is said of each: a lookup halves their list, and then goes up through those that lie around the address.

use std::net::IpAddr;

use ipnet::IpNet;

use super::sets::{Collected, SetId, Sets};

/// A table of networks. What is said of them are numbers, whose meaning is the caller's.
#[derive(Debug)]
pub(super) struct Nets {
    v4: Nested<u32>,
    v6: Nested<u128>,
    sets: Sets,
}

/// Networks by where they begin, the wider first. Two of them never overlap in part.
#[derive(Debug)]
struct Nested<A>(Box<[Net<A>]>);

#[derive(Debug)]
struct Net<A> {
    first: A,
    last: A,
    /// The next one around this, plus 1; 0 for none.
    around: u32,
    set: SetId,
}

impl Nets {
    /// The table of these, which are canonical: none is IPv4 inside IPv6.
    pub(super) fn new(said: impl IntoIterator<Item = (IpNet, u32)>) -> Nets {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, item) in said {
            match net {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits(), item)),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits(), item)),
            }
        }
        let mut sets = Collected::default();
        let (v4, v6) = (Nested::new(v4, &mut sets), Nested::new(v6, &mut sets));
        Nets { v4, v6, sets: sets.finish() }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.v4.0.is_empty() && self.v6.0.is_empty()
    }

    /// Shows all that is said of a canonical address.
    pub(super) fn find(&self, ip: IpAddr, mut see: impl FnMut(&[u32])) {
        let see = |set| see(self.sets.get(set));
        match ip {
            IpAddr::V4(ip) => self.v4.find(ip.to_bits(), see),
            IpAddr::V6(ip) => self.v6.find(ip.to_bits(), see),
        }
    }
}

impl<A: Ord + Copy> Nested<A> {
    fn new(mut said: Vec<(A, A, u32)>, sets: &mut Collected) -> Nested<A> {
        said.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        let mut nets: Vec<Net<A>> = Vec::new();
        for same in said.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (first, last, _) = same[0];
            let mut around = nets.len();
            while around != 0 && nets[around - 1].last < last {
                around = nets[around - 1].around as usize;
            }
            let set = sets.id(same.iter().map(|(.., item)| *item).collect());
            nets.push(Net { first, last, around: u32::try_from(around).unwrap_or(0), set });
        }
        Nested(nets.into())
    }

    fn find(&self, ip: A, mut see: impl FnMut(SetId)) {
        // What holds the address is the last that begins before it, or lies around that.
        let mut at = self.0.partition_point(|net| net.first <= ip);
        while let Some(net) = at.checked_sub(1).map(|index| &self.0[index]) {
            if net.last >= ip {
                see(net.set);
            }
            at = net.around as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    /// Few bits that differ, so that networks nest and addresses hit.
    fn ip() -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), any::<u16>()).prop_map(|(is_v4, bits)| {
            let bits = u32::from(bits & 0xf0f0) * 0x10001;
            match is_v4 {
                true => Ipv4Addr::from_bits(bits).into(),
                false => Ipv6Addr::from_bits(u128::from(bits) * 0x1_0000_0001_0000_0001_0000_0001).into(),
            }
        })
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (ip(), 0..=128u8).prop_map(|(ip, length)| match ip {
            IpAddr::V4(ip) => IpNet::from(Ipv4Net::new(ip, length / 4).unwrap().trunc()),
            IpAddr::V6(ip) => IpNet::from(Ipv6Net::new(ip, length).unwrap().trunc()),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn the_table_finds_what_the_list_does(
            nets in proptest::collection::vec(net(), 0..40),
            ips in proptest::collection::vec(ip(), 1..20),
        ) {
            let table = Nets::new(nets.iter().copied().zip(0..));
            prop_assert_eq!(table.is_empty(), nets.is_empty());
            for ip in ips {
                let mut found = Vec::new();
                table.find(ip, |items| found.extend_from_slice(items));
                found.sort_unstable();
                let plainly: Vec<u32> = (0..).zip(&nets).filter(|(_, net)| net.contains(&ip)).map(|(i, _)| i).collect();
                prop_assert_eq!(found, plainly, "{}", ip);
            }
        }
    }
}
