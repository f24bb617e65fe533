//! What outlives a generation: the state of peers and the addresses of names.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wmproxy_net::addr::{Address, TargetSpec};
use wmproxy_net::connect::Connect;
use wmproxy_net::tls::Connector;

use crate::group::Group;
use crate::health::Slots;
use crate::idle::{Pool, Way};
use crate::names::Name;
use crate::options::GroupSpec;
use crate::peer::Peer;
use crate::queue::Lobby;

/// The process's peers and names. One is made at start; every generation builds its groups with it. Clones are the same one.
///
/// A peer is known by its group's name and its address. As long as any group, old or new, or any connection
/// holds it, a group that is built anew finds it with its counters and its ejection; then it is forgotten.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    peers: Kept<(Arc<str>, Address), Peer>,
    names: Kept<String, Name>,
    lobbies: Kept<Arc<str>, Lobby>,
    pools: Kept<Arc<str>, Pool>,
    ways: Kept<String, Way>,
    pub(crate) check_slots: Slots,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Builds a group. Names that no living group knows have no addresses yet: see
    /// [`Group::resolve_once`] and [`keep_resolved`](crate::keep_resolved).
    pub fn build(&self, spec: GroupSpec) -> Arc<Group> {
        self.build_with(spec, [None, None])
    }

    /// Builds a group whose peers are talked to by TLS: the first connector is for connections and the second for health
    /// checks (see [`GroupSpec::check_tls`]). One whose spec asks for TLS and which gets no connector connects to nobody.
    pub fn build_with(&self, spec: GroupSpec, connectors: [Option<Arc<Connector>>; 2]) -> Arc<Group> {
        self.build_through(spec, connectors, None)
    }

    /// Builds a group whose peers are connected to through `via`, the chain that its spec names. One whose spec names a chain
    /// and which gets none connects to nobody.
    pub fn build_through(
        &self,
        mut spec: GroupSpec,
        connectors: [Option<Arc<Connector>>; 2],
        via: Option<Arc<dyn Connect>>,
    ) -> Arc<Group> {
        let mut names: Vec<Arc<Name>> = vec![];
        // Those behind proxies are for the last of these to resolve.
        for server in spec.servers.iter_mut().filter(|_| spec.via.is_some()) {
            if let TargetSpec::Name { host, port } = &server.target {
                server.target = TargetSpec::Address(Address::Name(host.as_str().into(), *port));
            }
        }
        for server in &spec.servers {
            if let TargetSpec::Name { host, .. } = &server.target
                && !names.iter().any(|name| name.host() == host)
            {
                names.push(self.shared.names.get(host.clone(), || Name::new(host.clone())));
            }
        }
        Arc::new(Group::new(spec, names, connectors, via, Arc::clone(&self.shared)))
    }
}

impl Shared {
    /// The peer of a group at an address, with what is known of it.
    pub(crate) fn peer(&self, group: &Arc<str>, address: &Address) -> Arc<Peer> {
        let new = || Peer::new(Arc::clone(group), address.clone(), self.lobby(group));
        self.peers.get((Arc::clone(group), address.clone()), new)
    }

    /// Where those wait who want a peer of a group.
    pub(crate) fn lobby(&self, group: &Arc<str>) -> Arc<Lobby> {
        self.lobbies.get(Arc::clone(group), Lobby::default)
    }

    /// What workers share of the idle connections of a group.
    pub(crate) fn pool(&self, group: &Arc<str>) -> Arc<Pool> {
        self.pools.get(Arc::clone(group), Pool::default)
    }

    /// The way in which connections are made that is described so.
    pub(crate) fn way(&self, description: String) -> Arc<Way> {
        self.ways.get(description, Way::new)
    }
}

/// Values that live as long as somebody uses them.
#[derive(Debug)]
struct Kept<K, V>(Mutex<Table<K, V>>);

#[derive(Debug)]
struct Table<K, V> {
    entries: HashMap<K, Weak<V>>,
    /// At how many entries the dead ones are next looked for.
    sweep_at: usize,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Kept(Mutex::new(Table { entries: HashMap::new(), sweep_at: Self::SWEEP_FLOOR }))
    }
}

impl<K, V> Kept<K, V> {
    /// So many dead entries are not worth looking for.
    const SWEEP_FLOOR: usize = 64;
}

impl<K: Eq + Hash, V> Kept<K, V> {
    fn get(&self, key: K, new: impl FnOnce() -> V) -> Arc<V> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = table.entries.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        if table.entries.len() >= table.sweep_at {
            table.entries.retain(|_, value| value.strong_count() > 0);
            // At twice what lives, so that sweeping costs each insertion a constant share.
            table.sweep_at = (table.entries.len() * 2).max(Self::SWEEP_FLOOR);
        }
        let value = Arc::new(new());
        table.entries.insert(key, Arc::downgrade(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_keeps_its_state_while_anybody_uses_it() {
        let registry = Registry::new();
        let spec = |port: u16| GroupSpec::inline("g", vec![format!("10.0.0.1:{port}").parse().unwrap()]);
        let old = registry.build(spec(1));
        let mut lease = old.lease(&Default::default(), &[], 0).unwrap();
        lease.failed(crate::FailKind::Refused, 0);
        let new = registry.build(spec(1));
        drop(old);
        let again = new.lease(&Default::default(), &[], 0).unwrap();
        assert!(Arc::ptr_eq(lease.peer(), again.peer()));
        assert_eq!((again.in_flight(), again.ejections()), (2, 1));
        drop((lease, again, new));
        assert_eq!(registry.build(spec(1)).set().primary.slots[0].peer.ejections(), 0, "all were gone");
    }

    #[test]
    fn groups_of_different_names_share_nothing() {
        let registry = Registry::new();
        let target = || vec!["10.0.0.1:1".parse().unwrap()];
        let (a, b) = (
            registry.build(GroupSpec::inline("a", target())),
            registry.build(GroupSpec::inline("b", target())),
        );
        assert!(!Arc::ptr_eq(&a.set().primary.slots[0].peer, &b.set().primary.slots[0].peer));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let registry = Registry::new();
        for port in 1..=5000u16 {
            registry.build(GroupSpec::inline("g", vec![format!("10.0.0.1:{port}").parse().unwrap()]));
        }
        assert!(registry.shared.peers.0.lock().unwrap().entries.len() <= Kept::<(), ()>::SWEEP_FLOOR);
    }
}
