//! A consistent hash ring (ketama): each member owns many points, and a client belongs to the member that
//! owns the first point at or after the client's own. When a member leaves, its clients spread over the
//! others and everybody else stays; so too when it is merely unusable for a while.
//!
//! The points depend on nothing but addresses, weights and this file, so that every process, restart and
//! machine sends a client to the same peer.

use super::{Fallback, Members};
use crate::random::{fnv1a, mix};

/// Points for each unit of weight. With 160, as in libketama, shares lie within some 8 % of the ideal.
const POINTS_PER_WEIGHT: u32 = 160;

/// The most points of a ring: 16 MB, and 20 steps of binary search. Weights that would need more get
/// fewer points for each unit, all in proportion.
const MAX_POINTS: u64 = 1 << 20;

/// The points in order, each with the member that owns it.
#[derive(Debug)]
pub(crate) struct Ring(Box<[(u64, u32)]>);

impl Ring {
    pub(super) fn new(members: &[(String, u32)]) -> Ring {
        let total: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let wanted = total * u64::from(POINTS_PER_WEIGHT);
        // By powers of two, so that the loss of one member changes the scale rarely and with it nothing else.
        let shift = wanted.div_ceil(MAX_POINTS).next_power_of_two().trailing_zeros();
        let mut points = Vec::new();
        for (member, (name, weight)) in (0u32..).zip(members) {
            let seed = fnv1a(name.bytes());
            let count = ((u64::from(*weight) * u64::from(POINTS_PER_WEIGHT)) >> shift).max(1);
            // Mixing twice takes apart the points of one member, whose seeds differ in a few bits only.
            points.extend((0..count).map(|n| (mix(seed ^ mix(n + 1)), member)));
        }
        points.sort_unstable();
        Ring(points.into_boxed_slice())
    }

    pub(super) fn pick(&self, members: &impl Members, point: u64) -> Option<usize> {
        let start = self.0.partition_point(|(at, _)| *at < point);
        let (before, after) = self.0.split_at(start);
        let mut owners = after.iter().chain(before).map(|(_, member)| *member as usize);
        let first = owners.next()?;
        if members.takes(first, point) {
            return Some(first);
        }
        // Walking on to find that out would be to pass every point of the ring in the worst case.
        if !(0..members.len()).any(|i| members.usable(i)) {
            return None;
        }
        Fallback::new(members, point).choose(std::iter::once(first).chain(owners))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Plain, client, named};
    use super::*;

    #[test]
    fn shares_follow_the_weights() {
        let weights = [1, 1, 2, 4];
        let ring = Ring::new(&named(&weights));
        let mut given = [0u32; 4];
        for n in 0..80_000 {
            given[ring.pick(&Plain::new(&weights), client(n)).unwrap()] += 1;
        }
        for (count, weight) in given.into_iter().zip(weights) {
            let ideal = 10_000 * weight;
            assert!(count.abs_diff(ideal) < ideal / 5, "{given:?}");
        }
    }

    #[test]
    fn a_member_that_leaves_moves_its_own_clients_only() {
        let all = named(&[1, 3, 1, 2, 1]);
        let full = Ring::new(&all);
        let members = Plain::new(&[1, 3, 1, 2, 1]);
        for gone in 0..all.len() {
            let mut rest = all.clone();
            rest.remove(gone);
            let weights: Vec<_> = rest.iter().map(|(_, weight)| *weight).collect();
            let (smaller, fewer) = (Ring::new(&rest), Plain::new(&weights));
            let mut ejected = members.clone();
            ejected.unusable = vec![gone];
            for n in 0..10_000 {
                let before = full.pick(&members, client(n)).unwrap();
                let after = &rest[smaller.pick(&fewer, client(n)).unwrap()].0;
                let meanwhile = &all[full.pick(&ejected, client(n)).unwrap()].0;
                assert!(before == gone || *after == all[before].0, "client {n} moved needlessly");
                assert_eq!(after, meanwhile, "ejection and removal send client {n} to the same peer");
            }
        }
    }

    #[test]
    fn the_ring_is_the_same_in_every_process() {
        // Pinned: a change here sends every client of every installation to another peer.
        let ring = Ring::new(&named(&[1, 1, 1]));
        let picks: Vec<_> = (0..16).map(|n| ring.pick(&Plain::new(&[1, 1, 1]), client(n)).unwrap()).collect();
        assert_eq!(fnv1a(*b"foobar"), 0x8594_4171_f739_67e8, "the published test vector");
        assert_eq!(picks, PINNED);
    }

    const PINNED: [usize; 16] = [2, 1, 0, 1, 2, 2, 1, 2, 0, 0, 0, 0, 2, 2, 1, 0];

    #[test]
    fn huge_weights_keep_the_ring_small_and_in_proportion() {
        let ring = Ring::new(&named(&[65_534, 65_534, 32_767, 1]));
        assert!(ring.0.len() as u64 <= MAX_POINTS);
        let own = |member: u32| ring.0.iter().filter(|(_, m)| *m == member).count();
        assert_eq!(own(0), own(1));
        assert_eq!(own(0), 2 * own(2));
        assert!(own(3) >= 1);
    }
}
