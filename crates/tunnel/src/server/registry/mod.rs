//! Who offers what: the state of all clients' services, without a socket or a clock.
//!
//! What lives here: which client is here, what it has registered, whether its [grants](grants) allow it and nobody else
//! [has it](judge), what is therefore [to be open](exposures), and what each client is to be told. What must not: streams,
//! locks, waiting. `now` is an argument, sessions are numbers, and whoever opens ports says afterwards what became of them.
//!
//! A change is only noted; [`Registry::settle`] then judges everything again. So it does not matter in which order changes come: what
//! was refused because another had it is granted when that one leaves, and its client is told.

mod claim;
mod exposures;
mod grants;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wmproxy_runtime::clock::Ticks;
use wmproxy_wire::tunnel::message::{Refusal, RefusalCode, Register, Registered, Service, State};

use super::Place;
use crate::options::ServerSpec;
use claim::Claim;
pub(crate) use exposures::Report;
use grants::Grants;

/// Numbers sessions, upwards.
pub(crate) type SessionNumber = u64;

/// What all clients offer.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    grants: BTreeMap<Arc<str>, Grants>,
    owners: BTreeMap<Arc<str>, Owner>,
    grace: Duration,
    /// The number of the entry that comes next: who came first has the right.
    next_order: u64,
    /// What became of what is to be open, by the names of the exposures.
    places: BTreeMap<Arc<str>, Result<Vec<Place>, Refusal>>,
}

/// A client with a session, or whose services are kept for it.
#[derive(Debug)]
struct Owner {
    presence: Presence,
    /// The last registration of the session; none before its first.
    epoch: Option<u64>,
    /// In the order of that registration.
    entries: Vec<Entry>,
    /// What the session was told last.
    told: Option<Registered>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here(SessionNumber),
    Gone { until: Ticks },
}

/// A service, and what became of it.
#[derive(Debug, Clone)]
struct Entry {
    service: Arc<Service>,
    /// What it asks for, or why that makes no sense.
    claim: Result<Claim, Refusal>,
    /// When it was first asked for.
    order: u64,
    standing: Standing,
    /// The port that was picked, where any does.
    picked: Option<u16>,
    /// Ports that were picked and could not be had.
    avoid: BTreeSet<u16>,
}

#[derive(Debug, Clone, PartialEq)]
enum Standing {
    /// Not judged yet.
    New,
    /// It has what it asked for: a name, and where it is public what leads to it.
    Held { exposure: Option<Arc<str>>, port: u16 },
    /// It has nothing.
    Refused(Refusal),
}

impl Registry {
    /// Nobody is there.
    pub(crate) fn new(spec: &ServerSpec) -> Registry {
        let mut registry = Registry::default();
        registry.configure(spec);
        registry
    }

    /// Goes by another spec from now on. Clients that it does not name are forgotten.
    pub(crate) fn configure(&mut self, spec: &ServerSpec) {
        self.grace = spec.grace;
        self.grants = spec.clients.iter().map(|grant| (grant.name.clone(), Grants::new(grant))).collect();
        let grants = &self.grants;
        self.owners.retain(|name, _| grants.contains_key(name));
    }

    /// A client has proven who it is, and has this session now. Answers with the one that it had, which is to end. What that
    /// has offered passes to the new one, which says what it is to be from now on.
    pub(crate) fn login(&mut self, client: &Arc<str>, session: SessionNumber) -> Option<SessionNumber> {
        let here = Presence::Here(session);
        let owner = self.owners.entry(client.clone()).or_insert_with(|| Owner {
            presence: here,
            epoch: None,
            entries: Vec::new(),
            told: None,
        });
        let before = std::mem::replace(&mut owner.presence, here);
        (owner.epoch, owner.told) = (None, None);
        match before {
            Presence::Here(old) if old != session => Some(old),
            _ => None,
        }
    }

    /// A session registers all that its client offers. False if it is not the client's session, or has registered later
    /// things before: nothing changes then.
    pub(crate) fn register(&mut self, client: &str, session: SessionNumber, register: Register) -> bool {
        let Some(owner) = self.owners.get_mut(client).filter(|owner| owner.is_of(session)) else {
            return false;
        };
        if owner.epoch.is_some_and(|epoch| epoch >= register.epoch) {
            return false;
        }
        owner.epoch = Some(register.epoch);
        let mut old: BTreeMap<String, Entry> = std::mem::take(&mut owner.entries)
            .into_iter()
            .rev() // Of two with the same name only the first is of any worth.
            .map(|entry| (entry.service.name.clone(), entry))
            .collect();
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for service in register.services {
            let is_second = !names.insert(service.name.clone()) | !ids.insert(service.id);
            let before = if is_second { None } else { old.remove(&service.name) };
            let claim = if is_second {
                Err(refusal(
                    RefusalCode::Invalid,
                    "another service of this client has the same name or number",
                ))
            } else {
                Claim::of(client, &service)
            };
            owner.entries.push(Entry::new(service, claim, before, &mut self.next_order));
        }
        true
    }

    /// A session says whether a service is able to serve. False if there is none such, or nothing changes.
    pub(crate) fn set_state(&mut self, client: &str, session: SessionNumber, state: State) -> bool {
        let Some(owner) = self.owners.get_mut(client).filter(|owner| owner.is_of(session)) else {
            return false;
        };
        // Before its first registration the numbers are those of the session before.
        let entries = if owner.epoch.is_some() { &mut owner.entries[..] } else { &mut [] };
        let Some(entry) = entries.iter_mut().find(|entry| entry.service.id == state.id) else { return false };
        let changes = entry.service.is_up != state.is_up;
        Arc::make_mut(&mut entry.service).is_up = state.is_up;
        changes
    }

    /// A session broke off. What it offered is kept for its client for the grace time. False if it was not the client's
    /// session any more.
    pub(crate) fn lost(&mut self, client: &str, session: SessionNumber, now: Ticks) -> bool {
        let until = now + self.grace;
        match self.owners.get_mut(client).filter(|owner| owner.is_of(session)) {
            Some(owner) => owner.presence = Presence::Gone { until },
            None => return false,
        }
        true
    }

    /// A client has taken its leave, and what it offered with it. False as for [`lost`](Registry::lost).
    pub(crate) fn left(&mut self, client: &str, session: SessionNumber) -> bool {
        let is_owner = self.owners.get(client).is_some_and(|owner| owner.is_of(session));
        if is_owner {
            self.owners.remove(client);
        }
        is_owner
    }

    /// When a client's grace is over next.
    pub(crate) fn deadline(&self) -> Option<Ticks> {
        self.owners.values().filter_map(|owner| owner.gone_until()).min()
    }

    /// Forgets whoever's grace is over, and judges all that is registered.
    pub(crate) fn settle(&mut self, now: Ticks) {
        self.owners.retain(|_, owner| owner.gone_until().is_none_or(|until| now < until));
        judge::judge(self);
        let exposed: BTreeSet<Arc<str>> = self
            .owners
            .values()
            .flat_map(|owner| &owner.entries)
            .filter_map(Entry::exposure)
            .cloned()
            .collect();
        self.places.retain(|name, _| exposed.contains(name));
    }
}

impl Owner {
    fn is_of(&self, session: SessionNumber) -> bool {
        self.presence == Presence::Here(session)
    }

    fn gone_until(&self) -> Option<Ticks> {
        match self.presence {
            Presence::Here(_) => None,
            Presence::Gone { until } => Some(until),
        }
    }

    /// The session whose numbers the entries have, if that is here: not before its first registration.
    fn registered(&self) -> Option<SessionNumber> {
        match self.presence {
            Presence::Here(session) => self.epoch.map(|_| session),
            Presence::Gone { .. } => None,
        }
    }
}

impl Entry {
    /// A service, which takes over from the entry of the same name as much as it still asks for.
    fn new(
        service: Service,
        claim: Result<Claim, Refusal>,
        before: Option<Entry>,
        next_order: &mut u64,
    ) -> Entry {
        let service = Arc::new(service);
        if let Some(before) = before {
            let keeps = matches!((&before.claim, &claim), (Ok(old), Ok(new)) if new.keeps_place_of(old));
            if keeps || before.claim == claim {
                return Entry { service, claim, ..before };
            }
        }
        *next_order += 1;
        let order = *next_order;
        Entry { service, claim, order, standing: Standing::New, picked: None, avoid: BTreeSet::new() }
    }

    fn exposure(&self) -> Option<&Arc<str>> {
        match &self.standing {
            Standing::Held { exposure, .. } => exposure.as_ref(),
            Standing::New | Standing::Refused(_) => None,
        }
    }

    fn is_held(&self) -> bool {
        matches!(self.standing, Standing::Held { .. })
    }
}

fn refusal(code: RefusalCode, text: impl Into<String>) -> Refusal {
    Refusal { code, text: text.into() }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
