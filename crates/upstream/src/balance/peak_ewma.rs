//! Two members at random, and the one that is expected to answer sooner: its recent latency times the connections that
//! would share it, for its weight. That is what Finagle and linkerd call peak EWMA; see [`crate::latency`].
//!
//! The two are drawn without regard to weights, which count in the cost already.

use super::Members;
use crate::random::scale;

/// How often a member is drawn that can't be used before the members are gone through in order. If half of them are out,
/// one pick in 256 does the latter.
const DRAWS: u32 = 8;

pub(super) fn pick(members: &impl Members, mut number: impl FnMut() -> u64) -> Option<usize> {
    let first = draw(members, &mut number, |i| members.usable(i))?;
    let Some(second) = draw(members, &mut number, |i| i != first && members.usable(i)) else {
        return Some(first);
    };
    Some(if members.cost(second) < members.cost(first) { second } else { first })
}

/// One of the members for which `eligible` holds, each as often as the others.
fn draw(
    members: &impl Members,
    number: &mut impl FnMut() -> u64,
    eligible: impl Fn(usize) -> bool,
) -> Option<usize> {
    let below = |bound: usize, number: u64| scale(number, bound as u64) as usize;
    let lucky = (0..DRAWS).map(|_| below(members.len(), number())).find(|&i| eligible(i));
    if lucky.is_some() {
        return lucky;
    }
    let count = (0..members.len()).filter(|&i| eligible(i)).count();
    // A member may have become unusable between the two passes; then any will do.
    let nth = below(count, number());
    let mut all = (0..members.len()).filter(|&i| eligible(i));
    all.nth(nth).or_else(|| (0..members.len()).find(|&i| eligible(i)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::Plain;
    use super::*;
    use crate::latency::Latency;
    use crate::random::split_mix;

    #[test]
    fn every_usable_member_is_drawn_as_often() {
        let mut members = Plain::new(&[1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        members.unusable = vec![0, 2, 4, 5, 6, 7, 9, 10, 11];
        let mut state = 3;
        let mut given = [0u32; 12];
        for _ in 0..30_000 {
            given[draw(&members, &mut || split_mix(&mut state), |i| members.usable(i)).unwrap()] += 1;
        }
        assert!([1, 3, 8].iter().all(|&i| given[i].abs_diff(10_000) < 400), "{given:?}");
        assert_eq!(given.iter().sum::<u32>(), 30_000);
    }

    #[test]
    fn the_costlier_of_two_is_never_picked() {
        let mut members = Plain::new(&[1, 1, 1]);
        members.costs = vec![1.0, 5.0, 2.0];
        let mut state = 1;
        let mut given = [0u32; 3];
        for _ in 0..3000 {
            given[pick(&members, || split_mix(&mut state)).unwrap()] += 1;
        }
        assert!(given[1] == 0 && given[0] > given[2] && given[2] > 800, "{given:?}");
    }

    /// Members whose connections take as long as their latency says, 32 of them open at any time.
    struct World {
        latencies: Vec<Latency>,
        took_us: Vec<u64>,
        members: Plain,
        open: Vec<(u64, usize)>,
        now_us: u64,
        state: u64,
    }

    impl World {
        fn new(weights: &[u32], took_us: &[u64], seed: u64) -> World {
            World {
                latencies: weights.iter().map(|_| Latency::default()).collect(),
                took_us: took_us.to_vec(),
                members: Plain::new(weights),
                open: vec![],
                now_us: 0,
                state: seed,
            }
        }

        /// Runs `count` connections and counts who got them.
        fn run(&mut self, count: usize) -> Vec<usize> {
            let mut given = vec![0; self.took_us.len()];
            for _ in 0..count {
                if self.open.len() == 32 {
                    let first = (0..self.open.len()).min_by_key(|&i| self.open[i].0).unwrap();
                    let (ends, i) = self.open.swap_remove(first);
                    self.now_us = self.now_us.max(ends);
                    self.members.in_flight[i] -= 1;
                    self.latencies[i].observe(Duration::from_micros(self.took_us[i]), ends / 1000);
                }
                for (i, latency) in self.latencies.iter().enumerate() {
                    let (in_flight, weight) = (self.members.in_flight[i], self.members.weights[i]);
                    self.members.costs[i] = latency.cost(in_flight, weight, self.now_us / 1000);
                }
                let state = &mut self.state;
                let i = pick(&self.members, || split_mix(state)).unwrap();
                given[i] += 1;
                self.members.in_flight[i] += 1;
                // A tenth more or less, so that they do not march in step.
                let jitter = 90 + scale(split_mix(&mut self.state), 21);
                self.open.push((self.now_us + self.took_us[i] * jitter / 100, i));
            }
            given
        }
    }

    #[test]
    fn equals_share_evenly_and_weights_are_respected() {
        for seed in 0..20 {
            let given = World::new(&[1; 4], &[1000; 4], seed).run(20_000);
            assert!(given.iter().all(|count| count.abs_diff(5000) < 500), "seed {seed}: {given:?}");
            let given = World::new(&[1, 1, 2, 4], &[1000; 4], seed).run(20_000);
            for (count, ideal) in given.iter().zip([2500usize, 2500, 5000, 10_000]) {
                assert!(count.abs_diff(ideal) < ideal / 4, "seed {seed}: {given:?}");
            }
        }
    }

    #[test]
    fn a_member_that_turns_slow_is_left_within_moments_and_found_again() {
        for seed in 0..20 {
            let mut world = World::new(&[1; 4], &[1000; 4], seed);
            world.run(5000);
            world.took_us[0] = 50_000;
            let given = world.run(5000);
            assert!(given[0] < 150, "seed {seed}: {given:?}");
            world.took_us[0] = 1000;
            world.now_us += 60_000_000;
            let again = world.run(5000);
            assert!(again[0].abs_diff(1250) < 300, "seed {seed}: {again:?}");
        }
    }
}
