//! Masking (RFC 6455 section 5.3): payload is combined with a key of four bytes by exclusive or, over and over.

/// A key, turned to the byte of the payload that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask([u8; 4]);

/// Bytes that are masked in one go: a multiple of the key's four that fills a few vector registers.
const BLOCK: usize = 32;

impl Mask {
    /// Starts with the first byte of a payload.
    pub fn new(key: [u8; 4]) -> Mask {
        Mask(key)
    }

    /// Masks or unmasks the next bytes of the payload.
    pub fn apply(&mut self, payload: &mut [u8]) {
        // Four keys wide of the block's 32 bytes; the compiler makes vector instructions of this.
        let word = u32::from_ne_bytes(self.0);
        let wide = u64::from(word) << 32 | u64::from(word);
        let (blocks, rest) = payload.as_chunks_mut::<BLOCK>();
        for block in blocks {
            for lane in block.as_chunks_mut::<8>().0 {
                *lane = (u64::from_ne_bytes(*lane) ^ wide).to_ne_bytes();
            }
        }
        for (byte, key) in rest.iter_mut().zip(self.0.iter().cycle()) {
            *byte ^= key;
        }
        self.0.rotate_left(rest.len() % 4);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_of_any_length_mask_as_the_whole_byte_by_byte(
            key: [u8; 4],
            payload in prop::collection::vec(any::<u8>(), 0..300),
            cuts in prop::collection::vec(0..300usize, 0..6),
        ) {
            let expected: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            let mut got = payload.clone();
            let mut mask = Mask::new(key);
            let mut rest = &mut got[..];
            for cut in cuts {
                let (piece, after) = rest.split_at_mut(cut.min(rest.len()));
                mask.apply(piece);
                rest = after;
            }
            mask.apply(rest);
            prop_assert_eq!(got, expected);
        }
    }
}
