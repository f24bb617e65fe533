//! The bytes that travel, and how their arrival is checked.

/// Bytes after which the bulk pattern repeats. A multiple of the stride, and no multiple of any buffer size a proxy
/// is likely to use, so that a buffer delivered twice or dropped shows.
const PERIOD: usize = 67 * STRIDE;

/// Bulk data is checked at every so many bytes: cheap beside the copy, and any shift still shows.
const STRIDE: usize = 4096;

/// An endless stream of known bytes, addressed by offset.
pub(crate) struct Pattern {
    /// The period, and one more stretch of the same so that a slice never has to wrap.
    bytes: Vec<u8>,
    stretch: usize,
}

impl Pattern {
    /// `stretch` is the longest slice that will be asked for.
    pub(crate) fn new(stretch: usize) -> Self {
        let bytes = (0..PERIOD + stretch).map(|at| byte_at(at % PERIOD)).collect();
        Self { bytes, stretch }
    }

    /// As `new`, of zeros: what a file holds that is all hole.
    pub(crate) fn zeros(stretch: usize) -> Self {
        Self { bytes: vec![0; PERIOD + stretch], stretch }
    }

    /// The stream's bytes from `offset`, `len` of them or as many as the stretch.
    pub(crate) fn at(&self, offset: u64, len: u64) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        let len = len.min(self.stretch as u64) as usize;
        &self.bytes[start..start + len]
    }

    /// Whether `got`, received at `offset`, agrees with the stream: at its ends and at every stride.
    pub(crate) fn agrees(&self, offset: u64, got: &[u8]) -> bool {
        let want = self.at(offset, got.len() as u64);
        let same = |from: usize| {
            let to = (from + 8).min(got.len());
            got[from..to] == want[from..to]
        };
        want.len() == got.len()
            && (0..got.len()).step_by(STRIDE).all(same)
            && same(got.len().saturating_sub(8))
    }
}

/// A message of `size` bytes that only its `seq` and `lane` produce: both at its head as far as they fit, filler after.
pub(crate) fn message(size: usize, lane: usize, seq: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(byte_at).collect();
    stamp(&mut bytes, lane, seq);
    bytes
}

/// Rewrites the head of a `message`.
pub(crate) fn stamp(message: &mut [u8], lane: usize, seq: u64) {
    message[..8].copy_from_slice(&seq.to_le_bytes());
    message[8..12].copy_from_slice(&(lane as u32).to_le_bytes());
}

/// The `seq` of a stamped message.
pub(crate) fn seq_of(message: &[u8]) -> u64 {
    message.iter().take(8).rev().fold(0, |seq, byte| seq << 8 | u64::from(*byte))
}

/// Fibonacci hashing: neighbours differ, and no short run of bytes repeats nearby.
fn byte_at(at: usize) -> u8 {
    ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_or_a_hole_shows() {
        let pattern = Pattern::new(1 << 16);
        let got = pattern.at(12_345, 50_000).to_vec();
        assert!(pattern.agrees(12_345, &got));
        assert!(!pattern.agrees(12_346, &got));
        assert!(!pattern.agrees(12_345 + 16_384, &got));
    }

    #[test]
    fn the_stream_does_not_jump_where_it_repeats() {
        let pattern = Pattern::new(1 << 16);
        let end = PERIOD as u64 - 10;
        assert_eq!(pattern.at(end, 100)[10..], *pattern.at(end + 10, 90));
    }

    #[test]
    fn stamps_read_back() {
        let bytes = message(34, 7, 0x0102_0304_0506);
        assert_eq!(seq_of(&bytes), 0x0102_0304_0506);
        assert_ne!(bytes, message(34, 8, 0x0102_0304_0506));
    }
}
