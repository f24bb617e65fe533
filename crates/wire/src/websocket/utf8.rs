//! UTF-8 that comes in pieces: wrong bytes are found as soon as they are there, not at the end of the message.

/// The bytes of a character that is not complete yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Utf8 {
    held: [u8; 3],
    len: u8,
}

/// No continuation whatsoever makes it UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl Utf8 {
    /// Takes the next bytes of the text.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Invalid> {
        while self.len > 0 {
            let Some((&first, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            let mut character = [0; 4];
            let held = usize::from(self.len);
            character[..held].copy_from_slice(&self.held[..held]);
            character[held] = first;
            self.hold(&character[..=held])?;
        }
        self.hold(bytes)
    }

    /// Whether the text may end here.
    pub(super) fn is_whole(&self) -> bool {
        self.len == 0
    }

    /// Checks `bytes`, and holds what lacks its end.
    fn hold(&mut self, bytes: &[u8]) -> Result<(), Invalid> {
        let rest = match std::str::from_utf8(bytes) {
            Ok(_) => &[][..],
            Err(error) if error.error_len().is_none() => &bytes[error.valid_up_to()..],
            Err(_) => return Err(Invalid),
        };
        // What lacks a byte has three at most.
        self.held[..rest.len()].copy_from_slice(rest);
        self.len = rest.len() as u8;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wrong_bytes_are_found_at_once() {
        // Autobahn 6.4: a character that would lie beyond U+10FFFF is wrong at its second byte.
        for (good, wrong) in [
            (&b"\xce\xba\xf4"[..], 0x90),
            (b"\xed", 0xa0),
            (b"\xe0", 0x80),
            (b"\xf0", 0x8f),
            (b"abc", 0xff),
            (b"", 0xc0),
            (b"\xe2\x82", 0x41),
        ] {
            let mut utf8 = Utf8::default();
            for byte in good {
                assert_eq!(utf8.take(&[*byte]), Ok(()), "{good:x?}");
            }
            assert_eq!(utf8.take(&[wrong]), Err(Invalid), "{good:x?} {wrong:x}");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_judged_as_the_whole(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                any::<String>().prop_map(String::into_bytes),
            ],
            cuts in prop::collection::vec(0..8usize, 0..10),
        ) {
            let mut utf8 = Utf8::default();
            let (mut rest, mut fine) = (&bytes[..], true);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                fine = fine && utf8.take(piece).is_ok();
                rest = after;
            }
            fine = fine && utf8.take(rest).is_ok() && utf8.is_whole();
            prop_assert_eq!(fine, std::str::from_utf8(&bytes).is_ok());
        }
    }
}
