//! Clients that stay with their peer: what their cookie says, and whom that stands for.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wmproxy_net::addr::Address;

use crate::group::{Group, Lease};
use crate::options::{GroupSpec, StickySpec};
use crate::peer::Peer;
use crate::set::Slot;

/// How many bytes of the hash a cookie holds: enough that no two of any number of peers meet, and no more.
const LENGTH: usize = 12;

/// What a cookie says of each peer of a set.
#[derive(Debug, Default)]
pub(crate) struct Tokens(BTreeMap<Arc<str>, Arc<Peer>>);

impl Tokens {
    /// Those of `slots`, if the clients of the group stay with their peers.
    pub(crate) fn new<'a>(spec: &GroupSpec, slots: impl Iterator<Item = &'a Slot>) -> Tokens {
        let Some(sticky) = &spec.sticky else { return Tokens::default() };
        let token = |slot: &Slot| (token(sticky, &spec.name, slot.peer.address()), slot.peer.clone());
        Tokens(slots.map(token).collect())
    }

    pub(crate) fn peer(&self, token: &[u8]) -> Option<&Arc<Peer>> {
        self.0.get(str::from_utf8(token).ok()?)
    }

    fn of(&self, peer: &Peer) -> Option<Arc<str>> {
        self.0
            .iter()
            .find(|(_, other)| std::ptr::eq(Arc::as_ptr(other), peer))
            .map(|(token, _)| token.clone())
    }
}

/// The value of the cookie for a peer: the same in every process with the same config, and in itself without meaning.
fn token(sticky: &StickySpec, group: &str, address: &Address) -> Arc<str> {
    let secret = sticky.secret.as_ref().map_or("", |secret| secret.expose());
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("wmproxy sticky\0{group}\0{address}").as_bytes());
    URL_SAFE_NO_PAD.encode(&tag.as_ref()[..LENGTH]).into()
}

impl Group {
    /// The cookie by which its clients stay with their peers, if they do.
    pub fn sticky(&self) -> Option<&StickySpec> {
        self.spec().sticky.as_ref()
    }

    /// The peer that a client had before, by the value of its cookie. None for one that is not in use any more.
    pub fn sticky_peer(&self, value: &[u8]) -> Option<Arc<Peer>> {
        self.set().tokens.peer(value).cloned()
    }

    /// Leases the peer that a client had before; also one that takes no other clients any more. None where it can't be
    /// leased now: ejected, held for down by its health checks, full or not in use. Then [`lease`](Group::lease) finds
    /// another, and the client gets a new cookie.
    pub fn lease_sticky(&self, peer: &Arc<Peer>, now_ms: u64) -> Option<Lease> {
        self.lease_slot(&self.set(), peer, now_ms)
    }

    /// The value of the cookie by which a client comes back to `peer`. None in a group without such.
    pub fn sticky_value(&self, peer: &Peer) -> Option<Arc<str>> {
        self.set().tokens.of(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FailKind, GroupOptions, LeaseKey, NoPeer, Registry};

    fn group(registry: &Registry, servers: &str, sticky: &str) -> Arc<Group> {
        let json = format!(r#"{{ "servers": [{servers}], "sticky": {{ "cookie": "route"{sticky} }} }}"#);
        let options: GroupOptions = serde_json::from_str(&json).unwrap();
        registry.build(options.spec("web").unwrap())
    }

    fn lease_by(group: &Group, value: &[u8], now: u64) -> Option<Lease> {
        group.lease_sticky(&group.sticky_peer(value)?, now)
    }

    const THREE: &str = r#""10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1""#;

    fn values(group: &Group) -> Vec<Arc<str>> {
        group.peers().iter().map(|peer| group.sticky_value(peer).unwrap()).collect()
    }

    #[test]
    fn a_client_comes_back_to_its_peer_over_restarts_and_changes() {
        let group_of = |servers: &str| group(&Registry::new(), servers, "");
        let (first, second) = (group_of(THREE), group_of(r#""10.0.0.9:1", "10.0.0.2:1""#));
        assert_eq!(values(&first)[1], values(&second)[1]);
        for (peer, value) in first.peers().iter().zip(values(&first)) {
            for _ in 0..4 {
                let lease = lease_by(&first, value.as_bytes(), 0).unwrap();
                assert!(Arc::ptr_eq(lease.peer(), peer));
            }
            assert!(Arc::ptr_eq(&first.sticky_peer(value.as_bytes()).unwrap(), peer));
        }
        assert!(lease_by(&second, values(&first)[0].as_bytes(), 0).is_none(), "this one is gone");
        for forged in [&b""[..], b"10.0.0.1:1", b"\xff\xfe", b"AAAAAAAAAAAAAAAA"] {
            assert!(lease_by(&first, forged, 0).is_none());
        }
    }

    #[test]
    fn new_clients_are_spread_and_values_tell_nothing() {
        let group = group(&Registry::new(), THREE, "");
        let mut given: Vec<_> = (0..6)
            .map(|_| group.sticky_value(&group.lease(&LeaseKey::default(), &[], 0).unwrap()).unwrap())
            .collect();
        given.sort();
        given.dedup();
        assert_eq!(given.len(), 3);
        assert!(given.iter().all(|value| value.len() == 16), "{given:?}");
        let plain = Registry::new().build(GroupSpec::inline("web", vec!["10.0.0.1:1".parse().unwrap()]));
        assert!(plain.sticky().is_none() && plain.sticky_value(&plain.peers()[0]).is_none());
    }

    #[test]
    fn a_secret_changes_every_value() {
        let plain = values(&group(&Registry::new(), THREE, ""));
        let secret =
            |text: &str| values(&group(&Registry::new(), THREE, &format!(r#", "secret": "{text}""#)));
        assert_eq!(secret("a"), secret("a"));
        for (a, b) in [(&plain, &secret("a")), (&secret("a"), &secret("b"))] {
            assert!(a.iter().all(|value| !b.contains(value)));
        }
    }

    #[test]
    fn a_draining_peer_keeps_its_clients_and_gets_no_others() {
        let registry = Registry::new();
        let before = group(&registry, THREE, "");
        let value = values(&before)[0].clone();
        let servers = r#"{ "address": "10.0.0.1:1", "drain": true }, "10.0.0.2:1",
             { "address": "10.0.0.3:1", "down": true }"#;
        let after = group(&registry, servers, "");
        let stuck = lease_by(&after, value.as_bytes(), 0).unwrap();
        assert_eq!(stuck.address().to_string(), "10.0.0.1:1");
        for _ in 0..5 {
            let lease = after.lease(&LeaseKey::default(), &[], 0).unwrap();
            assert_eq!(lease.address().to_string(), "10.0.0.2:1");
        }
        assert!(lease_by(&after, values(&before)[2].as_bytes(), 0).is_none(), "down is down");
        let states: Vec<_> = after.snapshot(0).peers.iter().map(|peer| peer.state).collect();
        use crate::status::PeerState::{Down, Drain, Up};
        assert_eq!(states, [Drain, Up, Down]);
        let all = group(&registry, r#"{ "address": "10.0.0.1:1", "drain": true }"#, "");
        assert_eq!(all.lease(&LeaseKey::default(), &[], 0).unwrap_err(), NoPeer::Down);
    }

    #[test]
    fn a_client_of_a_peer_that_fails_goes_elsewhere() {
        let group = group(&Registry::new(), THREE, "");
        let value = values(&group)[0].clone();
        let mut lease = lease_by(&group, value.as_bytes(), 0).unwrap();
        lease.failed(FailKind::Status, 0);
        assert!(lease_by(&group, value.as_bytes(), 1).is_none());
        // Its ejection is over: the next request is the trial.
        assert!(lease_by(&group, value.as_bytes(), 10_000).is_some());
    }

    #[test]
    fn attributes_are_safe_unless_said_otherwise() {
        let registry = Registry::new();
        let of = |sticky: &str| group(&registry, THREE, sticky).sticky().unwrap().clone();
        let spec = of("");
        assert_eq!(spec.attributes(false), "; Path=/; SameSite=Lax; HttpOnly");
        assert_eq!(spec.attributes(true), "; Path=/; SameSite=Lax; HttpOnly; Secure");
        let spec = of(
            r#", "path": "/app", "domain": "example.com", "max_age": "1h", "secure": false, "http_only": false,
               "same_site": "strict""#,
        );
        let expected = "; Path=/app; Domain=example.com; Max-Age=3600; SameSite=Strict";
        assert_eq!((spec.attributes(false), spec.attributes(true)), (expected, expected));
        assert!(
            of(r#", "same_site": "none""#).attributes(false).ends_with("; SameSite=None; HttpOnly; Secure")
        );
        let wrong = r#"{ "servers": ["a:1"], "sticky": { "cookie": "a b", "path": "x;", "domain": "",
             "secure": false, "same_site": "none" } }"#;
        let options: GroupOptions = serde_json::from_str(wrong).unwrap();
        let places: Vec<_> = options.spec("g").unwrap_err().into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, ["sticky.cookie", "sticky.path", "sticky.domain", "sticky.secure"]);
    }
}
