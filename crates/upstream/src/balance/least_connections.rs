//! The member with the fewest connections for its weight. Equals take turns, or the first of them would get
//! every connection of a group whose connections are short.

use super::round_robin::RoundRobin;
use super::{Members, less_busy};

pub(super) fn pick(turn: &RoundRobin, members: &impl Members) -> Option<usize> {
    let mut least = None;
    let mut equals = 0;
    for i in (0..members.len()).filter(|&i| members.usable(i)) {
        match least {
            Some(best) if less_busy(members, best, i) => {}
            Some(best) if !less_busy(members, i, best) => equals += 1,
            _ => (least, equals) = (Some(i), 1),
        }
    }
    let best = least?;
    if equals == 1 {
        return Some(best);
    }
    // Other workers may change the counts in between; the least of a moment ago is as good.
    turn.pick(members, |i| members.usable(i) && !less_busy(members, best, i)).or(least)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Plain;
    use super::*;
    use crate::random::{scale, split_mix};

    #[test]
    fn the_least_busy_for_its_weight_is_picked() {
        let turn = RoundRobin::new(3);
        let mut members = Plain::new(&[1, 2, 4]);
        for (in_flight, expected) in [([1, 3, 5], 0), ([2, 3, 8], 1), ([2, 4, 7], 2), ([0, 0, 1], 1)] {
            members.in_flight = in_flight.to_vec();
            let picked = pick(&turn, &members).unwrap();
            // In the last case the first two are equal, and the heavier one comes first.
            assert_eq!(picked, expected, "{in_flight:?}");
        }
        members.unusable = vec![0, 1];
        assert_eq!(pick(&turn, &members), Some(2));
    }

    #[test]
    fn equals_take_turns() {
        let turn = RoundRobin::new(3);
        let members = Plain::new(&[1, 1, 1]);
        let order: Vec<_> = (0..6).filter_map(|_| pick(&turn, &members)).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn connections_that_stay_spread_by_weight() {
        let mut members = Plain::new(&[1, 2, 5]);
        let turn = RoundRobin::new(3);
        for _ in 0..800 {
            let i = pick(&turn, &members).unwrap();
            members.in_flight[i] += 1;
        }
        assert_eq!(members.in_flight, [100, 200, 500]);
    }

    #[test]
    fn a_slow_member_does_not_pile_up() {
        for seed in 0..50u64 {
            let mut state = seed;
            let mut members = Plain::new(&[1, 1, 1, 1]);
            let turn = RoundRobin::new(4);
            for _ in 0..2000 {
                let i = pick(&turn, &members).unwrap();
                members.in_flight[i] += 1;
                // The first never finishes anything; of the others each finishes now and then.
                for j in 1..4 {
                    if members.in_flight[j] > 0 && scale(split_mix(&mut state), 2) == 0 {
                        members.in_flight[j] -= 1;
                    }
                }
            }
            assert!(members.in_flight[0] <= 1 + *members.in_flight[1..].iter().max().unwrap_or(&0).max(&20));
        }
    }
}
