//! A hash for short names of the config.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys come from the config. Who asks can choose what to ask for, but not what is in it, so that nobody can
/// make a search long, and the hash need not be a keyed one.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Short>>;

/// FxHash as rustc has it: a multiplication for each eight bytes, where names have some ten.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Short(u64);

const SEED: u64 = 0x51_7c_c1_b7_27_22_0a_95;

impl Short {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(SEED);
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
        // The map takes its bucket from the low bits, which a multiplication mixes least.
        self.0 ^ (self.0 >> 32)
    }
}
