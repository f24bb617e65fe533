//! Who may be reached, as visitors look it up: without a lock, and the same until something changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use wmproxy_net::limit::{Gate, Limits};
use wmproxy_wire::tunnel::message::{Form, Kind, Service};
use wmproxy_wire::units::ByteRate;

use super::client::Client;
use super::registry::{Registry, SessionNumber};

/// All that may be reached.
#[derive(Debug, Default)]
pub(super) struct Directory {
    members: HashMap<Arc<str>, Arc<Reachable>>,
    /// The clients that may visit private services.
    visitors: HashSet<Arc<str>>,
}

/// A service that may be reached.
#[derive(Debug)]
pub(super) struct Reachable {
    /// `home/ssh`.
    pub(super) name: Arc<str>,
    pub(super) client: Arc<Client>,
    /// The session in which it has its number; none while its client is away.
    pub(super) session: Option<SessionNumber>,
    pub(super) service: Arc<Service>,
    /// Its own limits, the same from its first registration to its last.
    pub(super) gate: Arc<Gate>,
}

impl Reachable {
    /// Whether its client is here, as far as that is known at this moment: it may go before anything is written anew here.
    pub(super) fn is_here(&self) -> bool {
        let current = self.client.session();
        self.session.is_some() && current.map(|session| session.number) == self.session
    }
}

impl Directory {
    /// Who may be reached now. What was there before keeps its gate.
    pub(super) fn new(
        registry: &Registry,
        clients: &BTreeMap<Arc<str>, Arc<Client>>,
        before: &Directory,
    ) -> Directory {
        let mut members = HashMap::new();
        for member in registry.members() {
            let Some(client) = clients.get(&member.client) else { continue };
            let gate = before.members.get(&member.name).map_or_else(Arc::default, |old| old.gate.clone());
            set_limits(&gate, &member.service);
            let (name, session, service) = (member.name, member.session, member.service);
            let reachable = Reachable { name: name.clone(), client: client.clone(), session, service, gate };
            members.insert(name, Arc::new(reachable));
        }
        let visitors = clients.keys().filter(|name| registry.may_visit(name)).cloned().collect();
        Directory { members, visitors }
    }

    /// A service by its name.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<Reachable>> {
        self.members.get(name)
    }

    /// A private service, for a client that may visit it, in a form that is its own.
    pub(super) fn find_private(&self, name: &str, form: Form, visitor: &Arc<str>) -> Option<&Arc<Reachable>> {
        let found = self.find(name).filter(|_| self.visitors.contains(visitor))?;
        let Service { kind, is_private, clients, .. } = &*found.service;
        let is_form = (*kind == Kind::Udp) == (form == Form::Datagrams);
        let is_listed = clients.is_empty() || clients.iter().any(|client| **client == **visitor);
        (*is_private && is_form && is_listed).then_some(found)
    }

    /// Visitors that have a stream to a service.
    pub(super) fn visitors_of(&self, client: &str, service: &str) -> u32 {
        self.find(&format!("{client}/{service}")).map_or(0, |found| found.gate.active())
    }
}

fn set_limits(gate: &Gate, service: &Service) {
    let rate = |bytes| NonZeroU64::new(bytes).map(ByteRate::new);
    gate.set(&Limits {
        max: service.max_connections,
        up: rate(service.rate_up),
        down: rate(service.rate_down),
        ..Limits::default()
    });
}
