//! How often requests may come, how many may be under way, how fast responses go.
//!
//! What lives here: the keys that requests are counted by, [how often](requests) they may come, [how many](running) may
//! be under way, and the [pace](pacer) of a response's bytes. Counts are shared by all workers and kept over reloads.

pub mod pacer;
pub mod requests;
pub mod running;

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use crate::facts::Scene;
use crate::vars::{Piece, Plain, Template, Value, Var, with_scratch};

/// What requests are counted by.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    template: Template,
    /// Nothing but the client's address, which is most usual and needs no text.
    is_client: bool,
}

impl Key {
    /// What a template says; by default the client's address.
    pub(crate) fn new(template: Option<&Template>) -> Key {
        let client = [Piece::Var(Var::Plain(Plain::ClientIp))];
        match template {
            Some(template) => Key { template: template.clone(), is_client: template.pieces() == client },
            None => Key { template: Template::of(client.into()), is_client: true },
        }
    }

    /// Whether it asks who has authenticated, so that it comes after that.
    pub(crate) fn needs_user(&self) -> bool {
        self.template.has(Plain::User)
    }

    /// A number for whom a request counts; none for one without what it is counted by, which is not limited.
    pub(crate) fn hash(&self, scene: &Scene<'_>, hasher: &RandomState) -> Option<u64> {
        if self.is_client {
            return scene.facts.client.map(|client| hasher.hash_one(subscriber(client.ip())));
        }
        with_scratch(|text| {
            for piece in self.template.pieces() {
                match piece {
                    Piece::Text(plain) => text.extend_from_slice(plain.as_bytes()),
                    Piece::Var(var) => match var.value(scene) {
                        Value::Ip(ip) => Value::Ip(subscriber(ip)).push(text),
                        other => other.push(text),
                    },
                }
            }
            // Two of them must not run into one another: `{a}{b}` is up to who wrote it, but nothing at all is none.
            (!text.is_empty()).then(|| hasher.hash_one(&text[..]))
        })
    }
}

/// Whom an address counts as: itself, but a whole /64 of IPv6, which is what one subscriber has (RFC 6177).
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{conn, get};

    fn hash(key: &Key, hasher: &RandomState, client: Option<&str>, target: &str) -> Option<u64> {
        let ((request, mut facts), conn) = (get(target), conn());
        facts.client = client.map(|client| client.parse().unwrap());
        key.hash(&Scene { conn: &conn, request: &request, response: None, facts: &facts }, hasher)
    }

    #[test]
    fn a_key_is_what_the_template_says() {
        let hasher = RandomState::new();
        let key = Key::new(Some(&"{client_ip} {query:id}".parse().unwrap()));
        let one = hash(&key, &hasher, Some("192.0.2.1:1"), "/?id=1");
        assert_eq!(one, hash(&key, &hasher, Some("192.0.2.1:9"), "/other?id=1"));
        assert_ne!(one, hash(&key, &hasher, Some("192.0.2.2:1"), "/?id=1"));
        assert_ne!(one, hash(&key, &hasher, Some("192.0.2.1:1"), "/?id=2"));
        let header = Key::new(Some(&"{header:X-Api-Key}".parse().unwrap()));
        assert_eq!(hash(&header, &hasher, None, "/"), None);
        assert!(Key::new(Some(&"{user}".parse().unwrap())).needs_user() && !key.needs_user());
    }

    #[test]
    fn a_subscriber_is_one_client() {
        let hasher = RandomState::new();
        let written = Key::new(Some(&"{client_ip}".parse().unwrap()));
        let within = Key::new(Some(&"x{client_ip}".parse().unwrap()));
        for key in [Key::new(None), written, within] {
            let of = |client| hash(&key, &hasher, Some(client), "/").unwrap();
            assert_eq!(of("[2001:db8:0:1::1]:1"), of("[2001:db8:0:1:ffff::2]:2"));
            assert_ne!(of("[2001:db8:0:1::1]:1"), of("[2001:db8:0:2::1]:1"));
            assert_eq!(of("[::ffff:192.0.2.1]:1"), of("192.0.2.1:2"));
        }
        // A unix socket has no address, and so no limit by it.
        assert_eq!(hash(&Key::new(None), &hasher, None, "/"), None);
    }
}
