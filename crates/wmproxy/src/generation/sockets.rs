//! The listening sockets of a generation: which it takes over from the one before, which it binds, and whether they take
//! the options that it asks for.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use wmproxy_net::addr::{Address, AddressSpec, Protocol};
use wmproxy_net::limit::Gate;
use wmproxy_net::listen::{self, Bound, Listener};
use wmproxy_net::privileges::Rights;
use wmproxy_net::sockopt::{ListenSocket, PeerSocket, Source};

use super::{Active, Generation, House, Inherited, Key, Lingering, Origin, Part};
use crate::config::plan::{ListenerPlan, ModePlan, Plan};
use crate::modes::Mode;

/// How often a reload looks whether sockets have closed that it waits for. A look costs next to nothing.
const LOOK_FOR_LEAVING: Duration = Duration::from_millis(2);

impl House {
    /// A listener with the sockets of an old one, whose counters go on if it has the same name.
    pub(super) fn inherit(&self, wanted: &ListenerPlan, parts: &[Inherited]) -> Active {
        let workers = self.workers.count();
        let part = |old: &Inherited| {
            let name = wanted.name.clone();
            let listener = match &old.from {
                Origin::Listener(same) if same.metrics.name == name => same.clone(),
                // The sockets and whoever is in stay; the counters begin again.
                Origin::Listener(other) => {
                    Listener::new(name, other.bound.clone(), other.gate.clone(), workers)
                }
                Origin::Sockets(bound, gate) => Listener::new(name, bound.clone(), gate.clone(), workers),
            };
            Part { id: old.id, listener }
        };
        Active { key: key(wanted), parts: parts.iter().map(part).collect() }
    }

    /// A listener with sockets of its own. Those in `going` are in nobody's way.
    ///
    /// # Errors
    /// `address`, which is its own or what that has come to, can't be had.
    pub(super) fn bind(
        &self,
        wanted: &ListenerPlan,
        going: &[Arc<Listener>],
        address: &AddressSpec,
    ) -> anyhow::Result<Active> {
        let socket = wanted.mode.socket();
        let workers = self.workers.count();
        // Those of QUIC have to come together at one, whatever worker the kernel would choose.
        let sockets = if matches!(wanted.mode, ModePlan::TunnelQuic(_)) { 1 } else { workers };
        let protocol = wanted.protocol;
        let bound = listen::bind(protocol, address, sockets, socket).or_else(|error| {
            let old = going.iter().map(|listener| &listener.bound);
            let old: Vec<_> = old.filter(|bound| overlaps(bound, wanted)).cloned().collect();
            if !is_taken(&error) || protocol == Protocol::Udp || old.is_empty() {
                return Err(error);
            }
            listen::bind_beside(&old, protocol, address, sockets, socket)
        });
        let bound = bound.map_err(|error| name_own(error, wanted, going))?;
        // All addresses that one text stands for have one limit.
        let gate = Gate::new(0, 0);
        let part = |bound| {
            let id = self.next_id.get();
            self.next_id.set(id + 1);
            Part { id, listener: Listener::new(wanted.name.clone(), Arc::new(bound), gate.clone(), workers) }
        };
        Ok(Active { key: key(wanted), parts: bound.into_iter().map(part).collect() })
    }
}

/// The address to bind for a listener: its own, but where the system picks the port and clients look for another listener at
/// the same one, that of the other. `bound` are those of the plan before it.
pub(super) fn beside(wanted: &ListenerPlan, plan: &Plan, bound: &[(Active, Mode, bool)]) -> AddressSpec {
    let AddressSpec::Inet { host, first_port: 0, .. } = &wanted.address else {
        return wanted.address.clone();
    };
    if !matches!(wanted.mode, ModePlan::TunnelQuic(_)) {
        return wanted.address.clone();
    }
    let is_other = |other: &ListenerPlan| {
        matches!(other.mode, ModePlan::TunnelDoor(_)) && other.address == wanted.address
    };
    let others = plan.listeners.iter().zip(bound).filter(|(other, _)| is_other(other));
    let port = others.flat_map(|(_, (active, ..))| &active.parts).find_map(|part| {
        match part.listener.bound.address {
            Address::Inet(address) => Some(address.port()),
            Address::Unix(_) | Address::Name(..) => None,
        }
    });
    let port = port.unwrap_or_default();
    AddressSpec::Inet { host: host.clone(), first_port: port, last_port: port }
}

fn key(wanted: &ListenerPlan) -> Key {
    // Elsewhere it means nothing, and must not make another address of the same.
    let may_be_mptcp = wanted.protocol == Protocol::Tcp && matches!(wanted.address, AddressSpec::Inet { .. });
    let mptcp = wanted.mode.socket().mptcp && may_be_mptcp;
    Key { protocol: wanted.protocol, address: wanted.address.clone(), mptcp }
}

/// Which of the listeners wanted, by index, takes over the sockets of which old one. Each goes to one only: to that of
/// the same name first, then to any at that address.
pub(super) fn heirs(wanted: &[ListenerPlan], old: &Generation) -> HashMap<usize, Vec<Inherited>> {
    let mut heirs = HashMap::new();
    let mut left: Vec<&Active> = old.active.iter().collect();
    for by_name in [true, false] {
        for (index, wanted) in wanted.iter().enumerate() {
            let key = key(wanted);
            let fits = |active: &&Active| {
                let named = |part: &Part| part.listener.metrics.name == wanted.name;
                active.key == key && (!by_name || active.parts.iter().any(named))
            };
            if !heirs.contains_key(&index)
                && let Some(at) = left.iter().position(fits)
            {
                let parts = left.swap_remove(at).parts.iter();
                let inherit =
                    |part: &Part| Inherited { id: part.id, from: Origin::Listener(part.listener.clone()) };
                heirs.insert(index, parts.map(inherit).collect());
            }
        }
    }
    let mut lingering: Vec<_> =
        old.lingering.iter().filter_map(|old| Some((old, old.bound.upgrade()?))).collect();
    for (index, wanted) in wanted.iter().enumerate().filter(|(_, wanted)| wanted.protocol == Protocol::Udp) {
        let key = key(wanted);
        if let Entry::Vacant(heir) = heirs.entry(index) {
            let fits = |(lingering, _): &mut (&Lingering, Arc<Bound>)| lingering.key == key;
            let parts: Vec<_> = lingering.extract_if(.., fits).collect();
            if !parts.is_empty() {
                let inherit = |(old, bound): (&Lingering, _)| Inherited {
                    id: old.id,
                    from: Origin::Sockets(bound, old.gate.clone()),
                };
                heir.insert(parts.into_iter().map(inherit).collect());
            }
        }
    }
    heirs
}

/// The TCP sockets in service that nobody inherits: what is to replace them may join them on their port.
pub(super) fn going(old: &Generation, heirs: &HashMap<usize, Vec<Inherited>>) -> Vec<Arc<Listener>> {
    let kept: HashSet<u64> = heirs.values().flatten().map(|heir| heir.id).collect();
    let parts = old.active.iter().flat_map(|active| &active.parts).filter(|part| !kept.contains(&part.id));
    parts.map(|part| part.listener.clone()).collect()
}

/// Waits until those `leaving` that are in a new listener's way have closed. They let in whom they had promised it, and
/// that takes a round trip as a rule; [`Accepting::finish`](wmproxy_net::accept::Accepting::finish) says how long at most.
pub(super) async fn way_is_clear(wanted: &ListenerPlan, leaving: &[Weak<Bound>]) {
    let in_the_way = || leaving.iter().filter_map(Weak::upgrade).any(|bound| overlaps(&bound, wanted));
    while in_the_way() {
        tokio::time::sleep(LOOK_FOR_LEAVING).await;
    }
}

/// Whether two addresses may be in each other's way.
fn overlaps(bound: &Bound, wanted: &ListenerPlan) -> bool {
    let port = wanted.address.ports().map(|ports| *ports.start());
    match bound.address {
        Address::Inet(address) => bound.protocol == wanted.protocol && Some(address.port()) == port,
        Address::Unix(_) | Address::Name(..) => false,
    }
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Says so when the address that is taken is taken by this very process. A UDP socket that still answers its flows
/// would take the datagrams of the new one; and who is another user now can't join what root has bound.
fn name_own(error: io::Error, wanted: &ListenerPlan, going: &[Arc<Listener>]) -> anyhow::Error {
    let own = going.iter().find(|listener| overlaps(&listener.bound, wanted));
    match own.filter(|_| is_taken(&error)) {
        Some(own) => anyhow::Error::new(error).context(format!(
            "`{}` listens on {} now; to change the form of its address, remove it with one reload and add it with the next",
            own.metrics.name, own.bound.address
        )),
        None => error.into(),
    }
}

/// What the sockets of a configuration need of root's rights once they are bound: for connections to peers, and for
/// listeners that a reload adds.
pub(crate) fn rights(plan: &Plan) -> Rights {
    let modes = || plan.listeners.iter().map(|listener| &listener.mode);
    let groups = || plan.groups.values().map(|group| &group.socket);
    let as_client = |source: Option<Source>| source == Some(Source::Client);
    Rights {
        raw: modes().any(|mode| mode.socket().transparent || as_client(mode.source()))
            || groups().any(|socket| as_client(socket.source))
            || plan.egresses.values().any(|egress| as_client(egress.source)),
        admin: modes().any(|mode| mode.socket().way.mark != 0) || groups().any(|socket| socket.way.mark != 0),
    }
}

/// What was tried of socket options for a configuration: each combination once, however many listeners share it.
#[derive(Default)]
pub(super) struct Tried {
    peer: Vec<PeerSocket>,
    listen: Vec<(ListenSocket, ListenSocket, Protocol, bool)>,
    /// What will not work as it is asked for.
    pub(super) warnings: Vec<String>,
}

impl Tried {
    /// Tries what is to be set on connections; `to` says of whom these are.
    pub(super) fn peer_socket(&mut self, socket: &PeerSocket, to: &str) -> anyhow::Result<()> {
        if self.peer.contains(socket) {
            return Ok(());
        }
        socket.probe().with_context(|| format!("can't connect to {to} as configured"))?;
        self.warnings.extend(socket.shortcomings().into_iter().map(|text| format!("{to}: {text}")));
        self.peer.push(socket.clone());
        Ok(())
    }

    /// Tries what is to be set on the sockets of a listener.
    pub(super) fn listen_socket(
        &mut self,
        socket: &ListenSocket,
        wanted: &ListenerPlan,
        active: &Active,
    ) -> anyhow::Result<()> {
        for part in &active.parts {
            let bound = &part.listener.bound;
            let Some(ip) = bound.address.ip() else { continue };
            let tried = (socket.clone(), bound.options(), bound.protocol, ip.is_ipv4());
            if self.listen.contains(&tried) {
                continue;
            }
            socket
                .probe(&tried.1, bound.protocol, ip)
                .with_context(|| format!("can't change the listener `{}` as configured", wanted.name))?;
            let known = self.listen.iter().any(|(other, ..)| other == socket);
            if !known && bound.protocol == Protocol::Tcp {
                let texts = socket.shortcomings().into_iter();
                self.warnings.extend(texts.map(|text| format!("listener `{}`: {text}", wanted.name)));
            }
            self.listen.push(tried);
        }
        Ok(())
    }
}
