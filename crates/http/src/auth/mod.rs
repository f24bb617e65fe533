//! What every kind of login shares: passwords and their hashes.
//!
//! What lives here: the form in which a name and a password come (RFC 7617); hashes as they stand in files; the work of
//! comparing a password with one, which is made to be slow and is done by threads beside the workers; and the memory of
//! what was right, so that it is not done for each request. What must not: who the users
//! are, which is a filter's or a mode's to know.

mod cache;
mod checks;
mod hash;
mod make;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

pub use cache::{Cache, Tag};
pub use checks::Running;
pub use hash::Hash;
pub use make::{HashKind, UnfitPassword, hash_password};

/// Longer names and passwords, together in bytes, are nobody's; a browser sends whatever its user pastes.
pub const LONGEST: usize = 512;

/// As browsers send it, and as those do that leave the padding out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Name and password of an `Authorization` or a `Proxy-Authorization` (RFC 7617); none for what can't be any.
pub fn credentials<'a>(value: &[u8], buffer: &'a mut [u8; LONGEST]) -> Option<(&'a str, &'a [u8])> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let encoded = rest.trim_ascii();
    // What might not fit is refused before it is looked at.
    if encoded.len() > LONGEST / 3 * 4 {
        return None;
    }
    let length = LENIENT.decode_slice(encoded, &mut buffer[..]).ok()?;
    let pair = &buffer[..length];
    let colon = pair.iter().position(|&byte| byte == b':')?;
    // RFC 7617 section 2 has no control characters in either.
    if pair.iter().any(u8::is_ascii_control) {
        return None;
    }
    Some((std::str::from_utf8(&pair[..colon]).ok()?, &pair[colon + 1..]))
}

/// An `Authorization` for tests.
#[cfg(test)]
pub(crate) fn authorization(name: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
}
