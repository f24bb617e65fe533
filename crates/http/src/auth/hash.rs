//! Hashes of passwords as they stand in files.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// A hash of bcrypt or argon2id, which a password can be compared with.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Hash {
    /// `$2y$`, `$2b$` or `$2a$`.
    Bcrypt(Box<str>),
    /// `$argon2id$`.
    Argon2 {
        /// Memory in KiB.
        memory: u32,
        /// How often all of it is gone over.
        passes: u32,
        /// How many threads could do that at once.
        lanes: u32,
        /// What makes two hashes of one password differ.
        salt: Box<[u8]>,
        /// The hash itself.
        hash: Box<[u8]>,
    },
}

impl fmt::Debug for Hash {
    /// Only the kind, for with the rest passwords could be guessed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hash::Bcrypt(_) => "Bcrypt(***)",
            Hash::Argon2 { .. } => "Argon2(***)",
        })
    }
}

/// The highest cost of bcrypt that is taken: 5 seconds of a core. Twelve is usual.
const BCRYPT_COST: u32 = 16;

/// The most memory that comparing one password may take, in KiB: 256 MiB. 19 MiB to 64 MiB are usual.
const ARGON2_MEMORY: u32 = 256 << 10;

/// The most memory times passes: some 5 seconds of a core.
const ARGON2_WORK: u64 = 4 << 20;

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Hash, String> {
        match text.as_bytes() {
            [b'$', b'2', b'a' | b'b' | b'y', b'$', ..] => bcrypt_hash(text),
            _ if text.starts_with("$argon2id$") => {
                argon2_hash(text).ok_or_else(|| "this argon2id hash is damaged".to_owned()).and_then(bounded)
            }
            _ => {
                let kind = kind(text);
                Err(format!(
                    "{kind} is not taken: use bcrypt, as `htpasswd -B` makes it, or argon2id, as `argon2 SALT -id -e` does"
                ))
            }
        }
    }
}

/// What a hash is that is not taken.
fn kind(text: &str) -> &'static str {
    let kinds = [
        ("$apr1$", "an MD5 hash (`$apr1$`)"),
        ("$1$", "an MD5 hash (`$1$`)"),
        ("$5$", "a SHA-256 hash (`$5$`)"),
        ("$6$", "a SHA-512 hash (`$6$`)"),
        ("{SHA}", "a SHA-1 hash (`{SHA}`)"),
        ("$argon2", "argon2 other than argon2id"),
        ("$2", "this form of bcrypt"),
    ];
    kinds
        .iter()
        .find(|(start, _)| text.starts_with(start))
        .map_or("a password that is no hash", |(_, kind)| kind)
}

fn bcrypt_hash(text: &str) -> Result<Hash, String> {
    let parts: bcrypt::HashParts = text.parse().map_err(|_| "this bcrypt hash is damaged".to_owned())?;
    if parts.get_cost() > BCRYPT_COST {
        return Err(format!("its cost of {} is above {BCRYPT_COST}", parts.get_cost()));
    }
    Ok(Hash::Bcrypt(text.into()))
}

/// Reads `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`.
fn argon2_hash(text: &str) -> Option<Hash> {
    let mut parts = text.split('$').skip(2);
    if parts.next()? != "v=19" {
        return None;
    }
    let (mut memory, mut passes, mut lanes) = (None, None, None);
    for pair in parts.next()?.split(',') {
        let (name, value) = pair.split_once('=')?;
        let value = Some(value.parse().ok()?);
        match name {
            "m" => memory = value,
            "t" => passes = value,
            "p" => lanes = value,
            _ => return None,
        }
    }
    let mut bytes = || STANDARD_NO_PAD.decode(parts.next()?).ok();
    let (salt, hash) = (bytes()?, bytes()?);
    let fits = parts.next().is_none() && (8..=64).contains(&salt.len()) && (12..=64).contains(&hash.len());
    let (memory, passes, lanes) = (memory?, passes?, lanes?);
    // What the algorithm itself can't do is refused here and not at the first login.
    Params::new(memory, passes, lanes, Some(hash.len())).ok()?;
    fits.then(|| Hash::Argon2 { memory, passes, lanes, salt: salt.into(), hash: hash.into() })
}

fn bounded(hash: Hash) -> Result<Hash, String> {
    match &hash {
        Hash::Argon2 { memory, .. } if *memory > ARGON2_MEMORY => {
            Err(format!("its m={memory} is above {ARGON2_MEMORY}"))
        }
        Hash::Argon2 { memory, passes, .. } if u64::from(*memory) * u64::from(*passes) > ARGON2_WORK => {
            Err(format!("its m={memory},t={passes} takes more than some seconds for each login"))
        }
        _ => Ok(hash),
    }
}

impl Hash {
    /// Whether this is the password. It takes as long as whoever made the hash wanted, and argon2 as much memory: not for
    /// a worker.
    pub fn verify(&self, password: &[u8]) -> bool {
        match self {
            // More than 72 bytes don't count in bcrypt, for whoever made the hash neither.
            Hash::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Hash::Argon2 { memory, passes, lanes, salt, hash } => {
                let Ok(params) = Params::new(*memory, *passes, *lanes, Some(hash.len())) else {
                    return false;
                };
                let mut out = vec![0; hash.len()];
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon2.hash_password_into(password, salt, &mut out).is_ok()
                    && verify_slices_are_equal(&out, hash).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `htpasswd -nbB -C 4` and `argon2 -id`.
    const BCRYPT: &str = "$2y$04$/L1zkYPSiBmkzmqmXdqQGelZcmvTkFtPlbYKE7bJJgKzCSPJ4L7AG";

    #[test]
    fn a_bcrypt_hash_knows_its_password() {
        let made = bcrypt::hash("secret", 4).unwrap();
        for text in [made.clone(), made.replacen("$2b$", "$2y$", 1), made.replacen("$2b$", "$2a$", 1)] {
            let hash: Hash = text.parse().unwrap();
            assert!(hash.verify(b"secret") && !hash.verify(b"Secret") && !hash.verify(b""), "{text}");
        }
        assert!(BCRYPT.parse::<Hash>().is_ok());
    }

    #[test]
    fn an_argon2_hash_knows_its_password() {
        // The reference implementation's own test: password "password", salt "somesalt", t=2, m=64 MiB, p=1.
        let known = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let hash: Hash = known.parse().unwrap();
        assert!(hash.verify(b"password") && !hash.verify(b"passwore"));
    }

    #[test]
    fn what_is_not_taken_is_named() {
        for (text, reason) in [
            ("$apr1$x$y", "MD5"),
            ("{SHA}2fd4e1c67a2d28fced849ee1bb76e7391b93eb12", "SHA-1"),
            ("$6$salt$x", "SHA-512"),
            (
                "$argon2i$v=19$m=64,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8",
                "other than argon2id",
            ),
            ("secret", "no hash"),
            ("", "no hash"),
            ("$2y$31$/L1zkYPSiBmkzmqmXdqQGelZcmvTkFtPlbYKE7bJJgKzCSPJ4L7AG", "above 16"),
            ("$2y$04$short", "damaged"),
            ("$argon2id$v=19$m=65536,t=2$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "damaged"),
            ("$argon2id$v=16$m=64,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "damaged"),
            ("$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "above 262144"),
            ("$argon2id$v=19$m=65536,t=900,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "seconds"),
        ] {
            let error = text.parse::<Hash>().unwrap_err();
            assert!(error.contains(reason) && (text.is_empty() || !error.contains(text)), "{text}: {error}");
        }
    }
}
