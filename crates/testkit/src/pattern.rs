//! Bytes whose place in a stream can be told, and seeded chance.

/// A small generator (SplitMix64): the same seed gives the same test.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `1..=most`.
    pub fn up_to(&mut self, most: usize) -> usize {
        (self.next_u64() % most as u64) as usize + 1
    }

    /// A chunk size for a stream: mostly large, often tiny, as real senders are.
    pub fn chunk(&mut self) -> usize {
        match self.next_u64() % 8 {
            0 => self.up_to(16),
            1 | 2 => self.up_to(2_000),
            3..=5 => self.up_to(65_536),
            _ => self.up_to(262_144),
        }
    }
}

/// The period of a [`Pattern`]: prime, so that no buffer size divides it and a swapped or repeated buffer shows.
const PERIOD: usize = 65_521;

/// An endless stream of bytes that differs by seed. Comparing against it finds any lost, doubled, swapped or foreign
/// byte, which a checksum finds too, and says where, which a checksum does not.
#[derive(Clone)]
pub struct Pattern {
    table: Box<[u8]>,
}

impl Pattern {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Pattern { table: (0..PERIOD).map(|_| rng.next_u64() as u8).collect() }
    }

    /// Bytes from `offset` on: at least one, at most `most` of them.
    pub fn slice(&self, offset: u64, most: usize) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        &self.table[start..PERIOD.min(start + most)]
    }

    /// Fills `out` with the bytes from `offset` on.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let part = self.slice(offset + done as u64, out.len() - done);
            out[done..done + part.len()].copy_from_slice(part);
            done += part.len();
        }
    }

    /// The first `len` bytes from `offset` on.
    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.fill(offset, &mut out);
        out
    }

    /// Compares what came at `offset`.
    ///
    /// # Panics
    /// On a difference; says where the first one is.
    pub fn check(&self, offset: u64, got: &[u8]) {
        let mut done = 0;
        while done < got.len() {
            let part = self.slice(offset + done as u64, got.len() - done);
            let other = &got[done..done + part.len()];
            if part != other {
                let at = part.iter().zip(other).take_while(|(a, b)| a == b).count();
                panic!("the stream differs at byte {}", offset + (done + at) as u64);
            }
            done += part.len();
        }
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pattern")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_knows_its_own_bytes() {
        let pattern = Pattern::new(1);
        let bytes = pattern.bytes(65_000, 200_000);
        pattern.check(65_000, &bytes);
    }

    #[test]
    #[should_panic(expected = "differs at byte 7")]
    fn a_pattern_finds_the_first_wrong_byte() {
        let pattern = Pattern::new(1);
        let mut bytes = pattern.bytes(0, 100);
        bytes[7] ^= 1;
        pattern.check(0, &bytes);
    }

    #[test]
    #[should_panic(expected = "differs at byte")]
    fn a_pattern_finds_a_swapped_block() {
        let pattern = Pattern::new(1);
        let mut bytes = pattern.bytes(0, 131_072);
        bytes.rotate_left(65_536);
        pattern.check(0, &bytes);
    }
}
