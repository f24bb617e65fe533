//! The proofs of a session: who has which key, bound to the TLS connection on which it is said.
//!
//! A proof is an HMAC-SHA256 over what both ends have said and over the connection's exported keying material (RFC 8446
//! section 7.5, RFC 9266), so that it is worth nothing on any other connection: not to who has recorded it, and not to who
//! stands in between with TLS of their own. That is why a client that knows neither the server's fingerprint nor a CA is
//! safe all the same: the server proves the key, too.
//!
//! What goes into the HMAC is a list of parts, each behind its length as 32 bits, so that no two lists are the same bytes.
//! The first part is a label, so that no proof stands for one of another kind.

use std::sync::LazyLock;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use wmproxy_runtime::entropy;
use wmproxy_wire::tunnel::message::{Challenge, Hello, Mac, Nonce, Purpose};
use wmproxy_wire::units::Secret;

/// Under which label a connection's keying material is exported, with an empty context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-wmproxy-tunnel";

/// Keying material of the TLS connection on which a proof is said.
pub type Exporter = [u8; 32];

/// A client's proof that it has its key.
pub fn client_proof(key: &Secret, exporter: &Exporter, hello: &Hello, challenge: &Challenge) -> Mac {
    login_proof(b"wmproxy-tunnel client", key, exporter, hello, challenge)
}

/// The server's proof, in the same login, that it has the client's key.
pub fn server_proof(key: &Secret, exporter: &Exporter, hello: &Hello, challenge: &Challenge) -> Mac {
    login_proof(b"wmproxy-tunnel server", key, exporter, hello, challenge)
}

/// The proof that a further connection, that of the exporter, belongs to the session with this secret.
pub fn join_proof(secret: &Nonce, exporter: &Exporter, purpose: Purpose) -> Mac {
    prove(secret, &[b"wmproxy-tunnel join", exporter, &[purpose as u8]])
}

/// A visitor's proof that it knows the secret of a private service, named as in `home/db`; with the owner's nonce and its
/// own. There is no exporter in it: both ends have connections of their own, to a server that is not to learn the secret.
pub fn visitor_proof(secret: &Secret, service: &str, owner: &Nonce, visitor: &Nonce) -> Mac {
    visit_proof(b"wmproxy-tunnel visitor", secret, service, owner, visitor)
}

/// The owner's proof, to the same visitor, that it knows the secret.
pub fn owner_proof(secret: &Secret, service: &str, owner: &Nonce, visitor: &Nonce) -> Mac {
    visit_proof(b"wmproxy-tunnel owner", secret, service, owner, visitor)
}

/// Whether both are the same. The time taken tells nothing about where they differ.
pub fn is_same(a: &Mac, b: &Mac) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

/// A key that nobody has, for names that nobody has: what they say is judged as long, and as wrong, as with a wrong key.
pub fn dummy_key() -> &'static Secret {
    static KEY: LazyLock<Secret> = LazyLock::new(|| {
        let hex: String = nonce().iter().map(|byte| format!("{byte:02x}")).collect();
        Secret::new(hex).unwrap_or_else(|_| unreachable!("it has 64 digits"))
    });
    &KEY
}

/// Random bytes for one use.
pub fn nonce() -> Nonce {
    let mut nonce = [0; 32];
    entropy::fill(&mut nonce);
    nonce
}

fn login_proof(label: &[u8], key: &Secret, exporter: &Exporter, hello: &Hello, challenge: &Challenge) -> Mac {
    prove(
        key.expose().as_bytes(),
        &[
            label,
            exporter,
            &hello.nonce,
            &challenge.nonce,
            hello.name.as_bytes(),
            // Both what was offered and what was taken: nobody talks the ends down to less than they can do.
            &hello.version.to_be_bytes(),
            &challenge.version.to_be_bytes(),
            &hello.capabilities.to_be_bytes(),
            &challenge.capabilities.to_be_bytes(),
        ],
    )
}

fn visit_proof(label: &[u8], secret: &Secret, service: &str, owner: &Nonce, visitor: &Nonce) -> Mac {
    prove(secret.expose().as_bytes(), &[label, service.as_bytes(), owner, visitor])
}

/// The HMAC under a key over parts, of which none has 4 GiB or more.
fn prove(key: &[u8], parts: &[&[u8]]) -> Mac {
    let mut context = Context::with_key(&Key::new(HMAC_SHA256, key));
    for part in parts {
        context.update(&(part.len() as u32).to_be_bytes());
        context.update(part);
    }
    let mut mac = [0; 32];
    mac.copy_from_slice(context.sign().as_ref());
    mac
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    /// Everything that goes into a login's proofs.
    #[derive(Clone)]
    struct Login {
        key: &'static str,
        exporter: Exporter,
        hello: Hello,
        challenge: Challenge,
    }

    type Change = fn(&mut Login);

    impl Login {
        fn new() -> Login {
            Login {
                key: "key",
                exporter: [1; 32],
                hello: Hello {
                    version: 1,
                    capabilities: 2,
                    name: "home".into(),
                    nonce: [3; 32],
                    agent: "a".into(),
                },
                challenge: Challenge { version: 1, capabilities: 2, nonce: [4; 32] },
            }
        }

        fn proofs(&self) -> [Mac; 2] {
            let key = secret(self.key);
            [client_proof, server_proof]
                .map(|proof| proof(&key, &self.exporter, &self.hello, &self.challenge))
        }
    }

    #[test]
    fn whatever_is_said_otherwise_in_a_login_gives_other_proofs() {
        let changes: [(&str, Change); 12] = [
            ("nothing", |_| {}),
            ("another key", |login| login.key = "kez"),
            ("a longer key", |login| login.key = "key "),
            ("another connection", |login| login.exporter[31] ^= 1),
            ("the client's nonce", |login| login.hello.nonce[0] ^= 1),
            ("the server's nonce", |login| login.challenge.nonce[0] ^= 1),
            ("nonces swapped", |login| std::mem::swap(&mut login.hello.nonce, &mut login.challenge.nonce)),
            ("another name", |login| login.hello.name = "hom".into()),
            ("a higher version offered", |login| login.hello.version = 2),
            ("a lower version taken", |login| login.challenge.version = 0),
            ("another capability offered", |login| login.hello.capabilities = 3),
            ("another capability taken", |login| login.challenge.capabilities = 0),
        ];
        let mut seen = HashMap::new();
        for (what, change) in changes {
            let mut login = Login::new();
            change(&mut login);
            for (mac, label) in login.proofs().into_iter().zip(["client", "server"]) {
                assert_eq!(seen.insert(mac, (what, label)), None, "{what}, of the {label}");
            }
        }
        assert_eq!(Login::new().proofs(), Login::new().proofs());
    }

    #[test]
    fn a_connection_joins_one_session_for_one_purpose() {
        let purposes = [Purpose::Wait, Purpose::Many, Purpose::Visit];
        let mut seen = HashMap::new();
        for purpose in purposes {
            for (what, mut secret, mut exporter) in [
                ("as is", [1; 32], [2; 32]),
                ("another session", [1; 32], [2; 32]),
                ("another connection", [1; 32], [2; 32]),
            ] {
                secret[7] ^= u8::from(what == "another session");
                exporter[7] ^= u8::from(what == "another connection");
                let mac = join_proof(&secret, &exporter, purpose);
                assert!(is_same(&mac, &join_proof(&secret, &exporter, purpose)));
                assert_eq!(seen.insert(mac, (what, purpose)), None);
            }
        }
    }

    #[test]
    fn a_visit_is_of_one_service_with_one_secret() {
        let (a, b) = ([1; 32], [2; 32]);
        let mut seen = HashMap::new();
        for (what, key, service, owner, visitor) in [
            ("as is", "s", "home/db", a, b),
            ("another secret", "t", "home/db", a, b),
            ("another service", "s", "home/d", a, b),
            ("nonces swapped", "s", "home/db", b, a),
            ("another nonce", "s", "home/db", a, a),
        ] {
            let proofs =
                [visitor_proof, owner_proof].map(|proof| proof(&secret(key), service, &owner, &visitor));
            for (mac, label) in proofs.into_iter().zip(["visitor", "owner"]) {
                assert_eq!(seen.insert(mac, (what, label)), None);
            }
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(prove(b"k", &[b"ab", b"c"]), prove(b"k", &[b"a", b"bc"]));
        assert_ne!(prove(b"k", &[b"abc"]), prove(b"k", &[b"abc", b""]));
    }

    #[test]
    fn macs_differ_by_any_bit() {
        let mac = nonce();
        assert!(is_same(&mac, &mac.clone()));
        for bit in 0..256 {
            let mut other = mac;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_same(&mac, &other));
        }
        assert_ne!(nonce(), nonce());
        assert_eq!(dummy_key(), dummy_key());
        assert_eq!(dummy_key().expose().len(), 64);
    }

    #[test]
    fn a_proof_is_an_hmac_of_lengths_and_parts() {
        let expected =
            aws_lc_rs::hmac::sign(&Key::new(HMAC_SHA256, b"Jefe"), b"\0\0\0\x04what\0\0\0\0\0\0\0\x01?");
        assert_eq!(prove(b"Jefe", &[b"what", b"", b"?"]), expected.as_ref());
    }
}
