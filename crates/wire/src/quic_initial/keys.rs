//! The keys of Initial packets (RFC 9001, section 5), which follow from the connection id that the client made up for
//! its first packet: they keep the packets from being changed by accident, not from being read.

use aws_lc_rs::aead::quic::{self, HeaderProtectionKey};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use super::packet::{LongPacket, Version};

/// RFC 9001, section 5.2.
const SALT_V1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
    0xbb, 0x7f, 0x0a,
];

/// RFC 9369, section 3.3.1.
const SALT_V2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9,
    0xbd, 0x2e, 0xd9,
];

/// The sample for header protection is taken as if the packet number had four bytes (RFC 9001, section 5.4.2).
const SAMPLE_AFTER: usize = 4;

/// One side's keys for its Initial packets.
pub(super) struct InitialKeys {
    aead: LessSafeKey,
    iv: [u8; NONCE_LEN],
    header: HeaderProtectionKey,
}

/// Whose packets are meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Client,
    #[cfg(test)]
    Server,
}

/// A packet without its protection.
pub(super) struct Opened<'a> {
    pub(super) number: u64,
    pub(super) frames: &'a [u8],
}

impl InitialKeys {
    /// The keys of the connection whose client began with `dcid`. None only if the library fails.
    pub(super) fn new(version: Version, dcid: &[u8], side: Side) -> Option<InitialKeys> {
        let (salt, labels) = match version {
            Version::V1 => (&SALT_V1, ["quic key", "quic iv", "quic hp"]),
            Version::V2 => (&SALT_V2, ["quicv2 key", "quicv2 iv", "quicv2 hp"]),
        };
        let initial = Salt::new(HKDF_SHA256, salt).extract(dcid);
        let label = match side {
            Side::Client => "client in",
            #[cfg(test)]
            Side::Server => "server in",
        };
        let secret: [u8; 32] = expand(&initial, label)?;
        let secret = Prk::new_less_safe(HKDF_SHA256, &secret);
        let [key, iv, header] = labels;
        let key: [u8; 16] = expand(&secret, key)?;
        let header: [u8; 16] = expand(&secret, header)?;
        Some(InitialKeys {
            aead: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?),
            iv: expand(&secret, iv)?,
            header: HeaderProtectionKey::new(&quic::AES_128, &header).ok()?,
        })
    }

    /// Takes the protection off `packet`, in `scratch`. `expected` is the number after the highest one seen, 0 before
    /// the first. None when the packet was not made with these keys.
    pub(super) fn open<'a>(
        &self,
        packet: &LongPacket<'_>,
        expected: u64,
        scratch: &'a mut Vec<u8>,
    ) -> Option<Opened<'a>> {
        let at = packet.number_at;
        let sample = packet.bytes.get(at + SAMPLE_AFTER..at + SAMPLE_AFTER + quic::AES_128.sample_len())?;
        let mask = self.header.new_mask(sample).ok()?;
        scratch.clear();
        scratch.extend_from_slice(packet.bytes);
        scratch[0] ^= mask[0] & 0x0f;
        let length = usize::from(scratch[0] & 0b11) + 1;
        let mut truncated = 0;
        for (byte, mask) in scratch[at..at + length].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
            truncated = truncated << 8 | u64::from(*byte);
        }
        let number = full_number(expected, truncated, length);
        let (header, payload) = scratch.split_at_mut(at + length);
        let frames = self.aead.open_in_place(self.nonce(number), Aad::from(&*header), payload).ok()?;
        // The reserved bits are under protection so that they stay free for later use (RFC 9000, section 17.2): a
        // receiver has to refuse a packet that sets them.
        if header[0] & 0x0c != 0 {
            return None;
        }
        Some(Opened { number, frames })
    }

    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
impl InitialKeys {
    /// Protects a packet whose header ends with a packet number of four bytes; the inverse of `open`.
    pub(super) fn seal(&self, header: &[u8], frames: &[u8]) -> Vec<u8> {
        let at = header.len() - 4;
        let number = u32::from_be_bytes(*header.last_chunk().unwrap());
        let mut payload = frames.to_vec();
        self.aead
            .seal_in_place_append_tag(self.nonce(number.into()), Aad::from(header), &mut payload)
            .unwrap();
        let mut packet = [header, &payload].concat();
        let mask = self.header.new_mask(&packet[at + 4..at + 20]).unwrap();
        packet[0] ^= mask[0] & 0x0f;
        for (byte, mask) in packet[at..at + 4].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
        packet
    }
}

/// The number that is nearest to the expected one among those that end in the bytes sent (RFC 9000, appendix A.3).
fn full_number(expected: u64, truncated: u64, bytes: usize) -> u64 {
    let window = 1u64 << (bytes * 8);
    let candidate = (expected & !(window - 1)) | truncated;
    if candidate + window / 2 <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

/// HKDF-Expand-Label of TLS 1.3 without a context (RFC 8446, section 7.1).
fn expand<const N: usize>(secret: &Prk, label: &str) -> Option<[u8; N]> {
    let length = u16::try_from(N).ok()?.to_be_bytes();
    let label_length = [u8::try_from("tls13 ".len() + label.len()).ok()?];
    let info = [&length[..], &label_length, b"tls13 ", label.as_bytes(), &[0]];
    let mut out = [0; N];
    secret.expand(&info, Length(N)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

/// So many bytes are wanted.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_completed_as_in_the_appendix() {
        assert_eq!(full_number(0xa82f_30eb, 0x9b32, 2), 0xa82f_9b32);
        assert_eq!(full_number(0, 7, 1), 7);
        assert_eq!(full_number(0, 0xffff_ffff, 4), 0xffff_ffff);
        assert_eq!(full_number(0x100, 0xff, 1), 0xff);
        assert_eq!(full_number(0x1ff, 0x00, 1), 0x200);
    }
}
