//! Numbers that need to be spread, not secret: which peers to compare, how long to wait.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
}

/// The next number of this thread's sequence, which begins somewhere else in every thread and process.
pub(crate) fn next() -> u64 {
    STATE.with(|state| {
        let mut next = state.get();
        let number = split_mix(&mut next);
        state.set(next);
        number
    })
}

/// A number below `bound`; 0 when `bound` is 0.
pub(crate) fn below(bound: u64) -> u64 {
    scale(next(), bound)
}

/// Maps `number` from the whole range of 64 bits to the numbers below `bound`.
///
/// Lemire's multiplication instead of a modulo: no division, and a bias below `bound / 2^64`.
pub(crate) fn scale(number: u64, bound: u64) -> u64 {
    ((u128::from(number) * u128::from(bound)) >> 64) as u64
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): any state will do, zero too.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*state)
}

/// The finalizer of SplitMix64: every bit of the input moves about half of the bits of the output.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a of 64 bits: short, stable over processes and machines, and well enough spread for what `mix` follows.
pub(crate) fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A hash of which every bit is spread, the same in every process.
pub(crate) fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    mix(fnv1a(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // The first outputs of SplitMix64 from state 1234567, as in Vigna's reference.
        let mut state = 1_234_567;
        let first: Vec<u64> = (0..3).map(|_| split_mix(&mut state)).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[usize::try_from(below(7)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!((below(0), below(1)), (0, 0));
    }
}
