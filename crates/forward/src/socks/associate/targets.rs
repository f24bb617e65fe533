//! What the client of an association has sent to: what came of it, and so who may answer.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;

use wmproxy_net::record::UdpDrop;
use wmproxy_runtime::clock::Ticks;

/// How many destinations of each of the two generations are known: the 512 latest at least. A DHT asks a few dozen nodes at
/// a time, and an entry takes some 100 bytes.
const GENERATION: usize = 512;

/// What is done with datagrams for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// They are sent there.
    Direct(SocketAddr),
    /// An address that a name stands for: it may answer, but to send there by its address is another question to the rules.
    Heard,
    /// They go through the parent with this number.
    Link(usize),
    /// They are dropped.
    Refused(UdpDrop),
}

/// A destination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) target: Target,
    /// When the rules are asked again.
    pub(super) until: Ticks,
}

/// Destinations by the bytes that stand for them in a header: type, address or name, port.
pub(super) type Targets = Generations<Box<[u8]>, Entry>;

/// The latest of many entries, in bounded memory and without a list to keep: when the new generation is full it becomes
/// the old one, which is forgotten; what is asked for in the old one moves to the new.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    size: usize,
    new: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq, V> Generations<K, V> {
    pub(super) fn new(size: usize) -> Self {
        Generations { size, new: HashMap::new(), old: HashMap::new() }
    }

    pub(super) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        if !self.old.is_empty()
            && let Some((key, value)) = self.old.remove_entry(key)
        {
            self.insert(key, value);
        }
        self.new.get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.new.len() >= self.size && !self.new.contains_key(&key) {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(key, value);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.new.len() + self.old.len()
    }
}

impl Default for Targets {
    fn default() -> Self {
        Generations::new(GENERATION)
    }
}

impl Targets {
    /// What is done with datagrams for a destination; none if that is to be found out, for the first time or anew.
    pub(super) fn course(&mut self, key: &[u8], now: Ticks) -> Option<Target> {
        let entry = self.get(key)?;
        (entry.until > now && entry.target != Target::Heard).then_some(entry.target)
    }

    /// Whether this address may answer.
    pub(super) fn may_answer(&mut self, key: &[u8]) -> bool {
        self.get(key).is_some_and(|entry| matches!(entry.target, Target::Direct(_) | Target::Heard))
    }

    /// Notes that this address may answer, if it may not be sent to anyway.
    pub(super) fn hear(&mut self, key: &[u8], until: Ticks) {
        if !self.may_answer(key) {
            self.insert(key.into(), Entry { target: Target::Heard, until });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: Ticks = Ticks(1000);

    fn entry(target: Target) -> Entry {
        Entry { target, until: NOW + Duration::from_secs(60) }
    }

    #[test]
    fn an_address_of_a_name_may_answer_and_is_asked_about_before_it_is_sent_to() {
        let mut targets = Targets::default();
        let address: SocketAddr = "192.0.2.1:53".parse().unwrap();
        targets.insert(b"name"[..].into(), entry(Target::Direct(address)));
        targets.hear(b"address", NOW);
        assert_eq!(targets.course(b"name", NOW), Some(Target::Direct(address)));
        assert!(targets.may_answer(b"address"));
        assert_eq!(targets.course(b"address", NOW), None);
        targets.insert(b"address"[..].into(), entry(Target::Direct(address)));
        targets.hear(b"address", NOW);
        assert_eq!(targets.course(b"address", NOW), Some(Target::Direct(address)));
        targets.insert(b"no"[..].into(), entry(Target::Refused(UdpDrop::Denied)));
        assert!(!targets.may_answer(b"no") && !targets.may_answer(b"unknown"));
    }

    #[test]
    fn what_is_known_is_asked_again_in_time() {
        let mut targets = Targets::default();
        targets.insert(b"no"[..].into(), entry(Target::Refused(UdpDrop::Denied)));
        let later = NOW + Duration::from_secs(59);
        assert_eq!(targets.course(b"no", later), Some(Target::Refused(UdpDrop::Denied)));
        assert_eq!(targets.course(b"no", later + Duration::from_secs(1)), None);
    }

    proptest! {
        #[test]
        fn the_latest_are_known_and_memory_is_bounded(keys in prop::collection::vec(0u8..40, 0..200)) {
            let mut all = Generations::new(8);
            for (at, key) in keys.iter().enumerate() {
                all.insert(*key, at);
                prop_assert!(all.len() <= 16);
            }
            let mut latest = Vec::new();
            for (at, key) in keys.iter().enumerate().rev() {
                if !latest.iter().any(|(_, known)| known == key) {
                    latest.push((at, *key));
                }
            }
            // The oldest of them first: each that is asked for moves others on.
            for (at, key) in latest.iter().take(8).rev() {
                prop_assert_eq!(all.get(key), Some(at));
            }
        }
    }
}
