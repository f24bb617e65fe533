//! Making hashes of passwords, for files and configs.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use wmproxy_runtime::entropy;

use super::LONGEST;

/// How a password is hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HashKind {
    /// Argon2id (RFC 9106), which costs who guesses memory as well as time.
    #[default]
    Argon2id,
    /// bcrypt, which other programs know, too.
    Bcrypt,
}

/// Why there is no hash of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnfitPassword {
    /// It is empty.
    #[error("a password is not empty")]
    Empty,
    /// It can't be sent (RFC 7617 section 2).
    #[error("a password has no control characters in it")]
    Control,
    /// No login would take it. SOCKS has one byte for its length (RFC 1929).
    #[error("a password has at most 255 bytes")]
    TooLong,
    /// bcrypt would leave off its end.
    #[error("bcrypt takes at most 72 bytes of a password; argon2id takes all of them")]
    TooLongForBcrypt,
}

/// 19 MiB in two passes on one core: the least that OWASP's password storage cheat sheet asks of Argon2id, some 20 ms. A
/// proxy compares each user's password once a minute and not once a day, so that more would be felt.
const MEMORY: u32 = 19 << 10;
const PASSES: u32 = 2;

/// As long as RFC 9106 section 4 has them, in bytes.
const SALT: usize = 16;
const LENGTH: usize = 32;

/// Some 200 ms. OWASP asks for 10 at least.
const BCRYPT_COST: u32 = 12;

/// The longest that SOCKS can carry, which is within what HTTP may.
const LONGEST_PASSWORD: usize = 255;
const _: () = assert!(LONGEST_PASSWORD < LONGEST);

/// Makes a hash of a password, as it stands in a config or a file of users. No two are the same.
///
/// # Errors
/// The password can't be one, or not all of it would count.
pub fn hash_password(password: &str, kind: HashKind) -> Result<String, UnfitPassword> {
    if password.is_empty() {
        return Err(UnfitPassword::Empty);
    }
    if password.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(UnfitPassword::Control);
    }
    if password.len() > LONGEST_PASSWORD {
        return Err(UnfitPassword::TooLong);
    }
    match kind {
        HashKind::Argon2id => argon2id(password),
        // The length is all that it finds fault with.
        HashKind::Bcrypt => {
            bcrypt::non_truncating_hash(password, BCRYPT_COST).map_err(|_| UnfitPassword::TooLongForBcrypt)
        }
    }
}

fn argon2id(password: &str) -> Result<String, UnfitPassword> {
    let mut salt = [0; SALT];
    entropy::fill(&mut salt);
    let mut hash = [0; LENGTH];
    // Neither fails with parameters that are right and a password of this length.
    let params = Params::new(MEMORY, PASSES, 1, Some(LENGTH)).map_err(|_| UnfitPassword::TooLong)?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), &salt, &mut hash)
        .map_err(|_| UnfitPassword::TooLong)?;
    let [salt, hash] = [&salt[..], &hash[..]].map(|bytes| STANDARD_NO_PAD.encode(bytes));
    Ok(format!("$argon2id$v=19$m={MEMORY},t={PASSES},p=1${salt}${hash}"))
}

#[cfg(test)]
mod tests {
    use super::super::Hash;
    use super::*;

    #[test]
    fn what_is_made_is_taken() {
        for kind in [HashKind::Argon2id, HashKind::Bcrypt] {
            let text = hash_password("pass phrase: \u{e9}", kind).unwrap();
            let hash: Hash = text.parse().unwrap();
            assert!(hash.verify("pass phrase: \u{e9}".as_bytes()) && !hash.verify(b"pass phrase"), "{text}");
        }
        let [one, other] = [1, 2].map(|_| hash_password("same", HashKind::Argon2id).unwrap());
        assert_ne!(one, other, "each has a salt of its own");
    }

    #[test]
    fn what_would_not_count_in_full_is_refused() {
        let make = |password: &str, kind| hash_password(password, kind).map(drop);
        assert_eq!(make("", HashKind::Argon2id), Err(UnfitPassword::Empty));
        assert_eq!(make("a\tb", HashKind::Bcrypt), Err(UnfitPassword::Control));
        assert_eq!(make(&"x".repeat(73), HashKind::Bcrypt), Err(UnfitPassword::TooLongForBcrypt));
        assert_eq!(make(&"x".repeat(255), HashKind::Argon2id), Ok(()));
        assert_eq!(make(&"x".repeat(256), HashKind::Argon2id), Err(UnfitPassword::TooLong));
    }
}
