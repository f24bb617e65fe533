//! Smooth weighted round robin, the method of nginx: exact shares without bursts, so that weights 5, 1, 1
//! give `a a b a c a a` and not `a a a a a b c`.
//!
//! Each pick adds to every member its weight, takes the member that stands highest, and subtracts from it
//! what was added in all. The state is shared by all workers behind a lock that is held for one pass over
//! the members: once a connection, that is cheaper than shares which are only right per worker.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Members;

/// How high each member stands.
#[derive(Debug)]
pub(crate) struct RoundRobin(Mutex<Vec<i64>>);

impl RoundRobin {
    pub(super) fn new(count: usize) -> RoundRobin {
        RoundRobin(Mutex::new(vec![0; count]))
    }

    /// Picks among those members for which `eligible` holds.
    pub(super) fn pick(&self, members: &impl Members, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let mut standing = self.standing();
        let mut total = 0;
        let mut best: Option<usize> = None;
        for i in (0..members.len()).filter(|&i| eligible(i)) {
            let weight = i64::from(members.weight(i));
            total += weight;
            standing[i] += weight;
            if best.is_none_or(|best| standing[i] > standing[best]) {
                best = Some(i);
            }
        }
        if let Some(best) = best {
            standing[best] -= total;
        }
        best
    }

    pub(super) fn inherit(&self, old: &RoundRobin, old_index: impl Fn(usize) -> Option<usize>) {
        let old = old.standing().clone();
        let mut standing = self.standing();
        for (i, own) in standing.iter_mut().enumerate() {
            *own = old_index(i).map_or(0, |j| old[j]);
        }
    }

    fn standing(&self) -> MutexGuard<'_, Vec<i64>> {
        // Numbers only: one that a panic left behind can at worst cost a turn.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Plain;
    use super::*;
    use crate::random::{scale, split_mix};

    fn pick(turn: &RoundRobin, members: &Plain) -> Option<usize> {
        turn.pick(members, |i| members.usable(i))
    }

    #[test]
    fn the_order_is_the_known_one() {
        let members = Plain::new(&[5, 1, 1]);
        let turn = RoundRobin::new(3);
        let order: Vec<_> = (0..14).filter_map(|_| pick(&turn, &members)).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn shares_are_exact_and_smooth_for_random_weights() {
        for seed in 0..500u64 {
            let mut state = seed;
            let count = 1 + scale(split_mix(&mut state), 8) as usize;
            let weights: Vec<u32> = (0..count).map(|_| 1 + scale(split_mix(&mut state), 12) as u32).collect();
            let total: u32 = weights.iter().sum();
            let members = Plain::new(&weights);
            let turn = RoundRobin::new(count);
            let mut given = vec![0u32; count];
            for step in 1..=total * 3 {
                given[pick(&turn, &members).unwrap()] += 1;
                for (i, &weight) in weights.iter().enumerate() {
                    // Never further from the ideal share than the number of members.
                    let ideal = f64::from(step) * f64::from(weight) / f64::from(total);
                    let off = (f64::from(given[i]) - ideal).abs();
                    assert!(off <= count as f64, "seed {seed}: member {i} is {off} off after {step}");
                }
                if step % total == 0 {
                    let exact: Vec<_> = weights.iter().map(|weight| weight * (step / total)).collect();
                    assert_eq!(given, exact, "seed {seed}: after {step}");
                }
            }
        }
    }

    /// The method as its inventor wrote it down: a list of records, one pass.
    fn reference(standing: &mut [(i64, i64)], usable: &[bool]) -> Option<usize> {
        let total: i64 = standing.iter().zip(usable).filter(|(_, u)| **u).map(|((_, w), _)| w).sum();
        for ((current, weight), _) in standing.iter_mut().zip(usable).filter(|(_, u)| **u) {
            *current += *weight;
        }
        // `max_by_key` takes the last of equals, the method the first: hence the reversal.
        let best = (0..standing.len()).rev().filter(|&i| usable[i]).max_by_key(|&i| standing[i].0)?;
        standing[best].0 -= total;
        Some(best)
    }

    #[test]
    fn picks_agree_with_the_reference_while_members_come_and_go() {
        for seed in 0..300u64 {
            let mut state = seed;
            let count = 1 + scale(split_mix(&mut state), 10) as usize;
            let weights: Vec<u32> =
                (0..count).map(|_| 1 + scale(split_mix(&mut state), 100) as u32).collect();
            let mut members = Plain::new(&weights);
            let mut standing: Vec<_> = weights.iter().map(|&weight| (0, i64::from(weight))).collect();
            let mut usable = vec![true; count];
            let turn = RoundRobin::new(count);
            for step in 0..400 {
                if scale(split_mix(&mut state), 10) == 0 {
                    let i = scale(split_mix(&mut state), count as u64) as usize;
                    usable[i] = !usable[i];
                    members.unusable = (0..count).filter(|&i| !usable[i]).collect();
                }
                let expected = reference(&mut standing, &usable);
                assert_eq!(pick(&turn, &members), expected, "seed {seed}, step {step}");
            }
        }
    }

    #[test]
    fn shares_are_exact_over_threads() {
        let members = Plain::new(&[3, 2, 1]);
        let turn = RoundRobin::new(3);
        let given: [std::sync::atomic::AtomicU32; 3] = Default::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1500 {
                        let i = pick(&turn, &members).unwrap();
                        given[i].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(given.map(std::sync::atomic::AtomicU32::into_inner), [3000, 2000, 1000]);
    }

    #[test]
    fn a_new_set_goes_on_where_the_old_one_stood() {
        let members = Plain::new(&[1, 1, 1]);
        let old = RoundRobin::new(3);
        assert_eq!((pick(&old, &members), pick(&old, &members)), (Some(0), Some(1)));
        let new = RoundRobin::new(3);
        // The third member is the second now, and somebody new is third.
        new.inherit(&old, |i| [Some(0), Some(2), None][i]);
        assert_eq!(pick(&new, &members), Some(1));
    }
}
