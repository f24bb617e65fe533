//! Two members at random, by weight, and the less busy of them (the power of two choices, Mitzenmacher 2001):
//! nearly as even as the least busy of all, without state, and without the herd that runs to one member when
//! many proxies see the same one idle.

use super::{Members, less_busy};
use crate::random::scale;

pub(super) fn pick(members: &impl Members, mut number: impl FnMut() -> u64) -> Option<usize> {
    let first = draw(members, number(), |i| members.usable(i))?;
    let Some(second) = draw(members, number(), |i| i != first && members.usable(i)) else {
        return Some(first);
    };
    Some(if less_busy(members, second, first) { second } else { first })
}

/// One of the members for which `eligible` holds, each as often as its weight says.
fn draw(members: &impl Members, number: u64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
    let total = (0..members.len()).filter(|&i| eligible(i)).map(|i| u64::from(members.weight(i))).sum();
    let mut left = scale(number, total);
    let mut last = None;
    for i in (0..members.len()).filter(|&i| eligible(i)) {
        let weight = u64::from(members.weight(i));
        if left < weight {
            return Some(i);
        }
        left -= weight;
        last = Some(i);
    }
    // Members that became unusable between the two passes made the total too high.
    last
}

#[cfg(test)]
mod tests {
    use super::super::tests::Plain;
    use super::*;
    use crate::random::split_mix;

    #[test]
    fn draws_follow_the_weights() {
        let members = Plain::new(&[1, 2, 5]);
        let mut state = 7;
        let mut given = [0u32; 3];
        for _ in 0..80_000 {
            given[draw(&members, split_mix(&mut state), |_| true).unwrap()] += 1;
        }
        for (count, ideal) in given.into_iter().zip([10_000u32, 20_000, 50_000]) {
            assert!(count.abs_diff(ideal) < 600, "{given:?}");
        }
    }

    #[test]
    fn the_busiest_of_all_is_never_picked() {
        let mut members = Plain::new(&[1, 1, 1]);
        members.in_flight = vec![3, 9, 3];
        let mut state = 1;
        for _ in 0..1000 {
            assert_ne!(pick(&members, || split_mix(&mut state)), Some(1));
        }
    }

    #[test]
    fn two_choices_stay_far_more_even_than_one() {
        let mut members = Plain::new(&[1; 50]);
        let mut state = 42;
        for _ in 0..50_000 {
            let i = pick(&members, || split_mix(&mut state)).unwrap();
            members.in_flight[i] += 1;
        }
        // Mean 1000. One choice would leave a spread of some 3 sqrt(1000) = 95; two leave log log n.
        let (min, max) = (members.in_flight.iter().min().unwrap(), members.in_flight.iter().max().unwrap());
        assert!(max - min <= 8, "{min} to {max}");
    }
}
