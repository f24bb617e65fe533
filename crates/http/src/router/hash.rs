//! A hash for short names of the config.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys come from the config. Who asks can choose what to ask for, but not what is in it, so that nobody can
/// make a search long, and the hash need not be a keyed one.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Short>>;

/// A wide multiplication for each eight bytes, its halves folded together, as wyhash has it: names have some ten, and
/// such as `app1` to `app999` differ in few bits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Short(u64);

/// An odd number without a pattern in its bits: the first digits of pi.
const FACTOR: u64 = 0x243f_6a88_85a3_08d3;

impl Short {
    fn add(&mut self, word: u64) {
        let wide = u128::from(self.0.rotate_left(23) ^ word ^ FACTOR.rotate_left(32)) * u128::from(FACTOR);
        self.0 = wide as u64 ^ (wide >> 64) as u64;
    }
}

impl Hasher for Short {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last));
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(byte.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
