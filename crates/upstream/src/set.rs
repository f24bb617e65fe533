//! The peers of a group at one moment: immutable, replaced as a whole when a name's addresses change.

use std::collections::HashSet;
use std::sync::Arc;

use wmproxy_net::addr::Address;

use crate::balance::{Balancer, Members, admits};
use crate::group::{Lease, LeaseKey, NoPeer};
use crate::health::Health;
use crate::options::GroupSpec;
use crate::peer::{EjectPolicy, Gate, Peer};
use crate::sticky::Tokens;

/// A peer in the role that the config gives it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) peer: Arc<Peer>,
    pub(crate) weight: u32,
    pub(crate) max_connections: u32,
    /// Whether the group checks its health.
    pub(crate) checked: bool,
    /// The index in `GroupSpec::servers` of the server that it belongs to.
    pub(crate) server: usize,
}

/// An address with the server that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: Address,
    pub(crate) server: usize,
    /// Used only while no other can be, whatever the config says.
    pub(crate) standby: bool,
}

/// Peers that are balanced among each other.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) slots: Vec<Slot>,
    balancer: Balancer,
}

/// The peers of a group.
#[derive(Debug)]
pub(crate) struct PeerSet {
    /// What this was built from, to see whether it is still right.
    pub(crate) places: Vec<Place>,
    pub(crate) primary: Tier,
    pub(crate) backup: Tier,
    /// Only for clients that stay with them.
    pub(crate) draining: Vec<Slot>,
    pub(crate) down: Vec<Slot>,
    /// What cookies say of all but those that are down.
    pub(crate) tokens: Tokens,
    /// The config takes every server out, so that names have nothing to do with there being no peer.
    all_down: bool,
}

/// What a lease is asked for.
pub(crate) struct Request<'a> {
    pub(crate) key: &'a LeaseKey,
    pub(crate) tried: &'a [Arc<Peer>],
    pub(crate) now: u64,
    pub(crate) policy: &'a Arc<EjectPolicy>,
    /// 0 for none.
    pub(crate) slow_start_ms: u64,
}

impl PeerSet {
    /// Builds the set for `places`; `peer` gives the shared peer of an address.
    pub(crate) fn new(
        spec: &GroupSpec,
        places: Vec<Place>,
        old: Option<&PeerSet>,
        now: u64,
        peer: impl Fn(&Address) -> Arc<Peer>,
    ) -> PeerSet {
        let [mut primary, mut backup, mut draining, mut down]: [Vec<Slot>; 4] = Default::default();
        let mut seen = HashSet::new();
        let role = |place: &Place| {
            let server = &spec.servers[place.server];
            (server.down, server.drain, server.backup || place.standby)
        };
        // Two names may share an address. It gets one role, the most useful that any of them gives it.
        let mut ordered: Vec<&Place> = places.iter().collect();
        ordered.sort_by_key(|place| role(place));
        for place in ordered.into_iter().filter(|place| seen.insert(&place.address)) {
            let server = &spec.servers[place.server];
            let slot = Slot {
                peer: peer(&place.address),
                weight: server.weight,
                max_connections: server.max_connections,
                checked: spec.health.is_some(),
                server: place.server,
            };
            match role(place) {
                (true, ..) => down.push(slot),
                (_, true, _) => draining.push(slot),
                (_, _, true) => backup.push(slot),
                _ => primary.push(slot),
            }
        }
        let tokens = Tokens::new(spec, primary.iter().chain(&backup).chain(&draining));
        greet(primary.iter().chain(&backup), now);
        let primary = Tier::new(spec, primary, old.map(|set| &set.primary));
        let backup = Tier::new(spec, backup, old.map(|set| &set.backup));
        let all_down = spec.servers.iter().all(|server| server.down || server.drain);
        PeerSet { places, primary, backup, draining, down, tokens, all_down }
    }

    /// The peers that may be used, were it by clients that stay with them.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Slot> {
        self.slots().chain(&self.draining)
    }

    /// The peers that may be used by everybody.
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.primary.slots.iter().chain(&self.backup.slots)
    }

    /// Whether not every peer is held for down by its checks. Without any peer nobody says that.
    pub(crate) fn may_serve(&self) -> bool {
        self.slots().next().is_none() || !self.slots().all(Slot::is_unhealthy)
    }

    /// Whether a peer may be used.
    pub(crate) fn has(&self, peer: &Arc<Peer>) -> bool {
        self.live().any(|slot| Arc::ptr_eq(&slot.peer, peer))
    }

    /// Leases a peer: a primary, else a backup, else, when all that are left are ejected, any that has room.
    /// An ejection is a guess, and with nobody else to turn to it is better to find out than to refuse. What health
    /// checks say is none, so that a peer they hold for down is never leased.
    pub(crate) fn lease(&self, request: &Request<'_>) -> Result<Lease, NoPeer> {
        self.search(request, false)
    }

    /// The same, but a peer that could serve if it were not full counts as one that will: neither backups are used in
    /// its place, nor peers that are ejected.
    pub(crate) fn lease_or_full(&self, request: &Request<'_>) -> Result<Lease, NoPeer> {
        self.search(request, true)
    }

    /// Leases this very peer for a client that had it before, if it could be leased.
    pub(crate) fn lease_again(&self, peer: &Arc<Peer>, request: &Request<'_>) -> Option<Lease> {
        let slot = self.live().find(|slot| Arc::ptr_eq(&slot.peer, peer) && !slot.is_unhealthy())?;
        slot.claim(request, false)
    }

    /// Leases this very peer, if it could be leased.
    pub(crate) fn lease_peer(&self, peer: &Arc<Peer>, request: &Request<'_>) -> Option<Lease> {
        let slot =
            self.slots().filter(|slot| Arc::ptr_eq(&slot.peer, peer)).find(|slot| !slot.is_unhealthy())?;
        slot.claim(request, false)
    }

    /// Whether some peer could serve, be it full or not.
    pub(crate) fn is_worth_a_wait(&self, request: &Request<'_>) -> bool {
        self.primary.is_worth_a_wait(request) || self.backup.is_worth_a_wait(request)
    }

    fn search(&self, request: &Request<'_>, patient: bool) -> Result<Lease, NoPeer> {
        for despite_ejection in [false, true] {
            for tier in [&self.primary, &self.backup] {
                if let Some(lease) = tier.lease(request, despite_ejection) {
                    return Ok(lease);
                }
                if patient && !despite_ejection && tier.is_worth_a_wait(request) {
                    return Err(NoPeer::Full);
                }
            }
        }
        let mut untried = self.slots().filter(|slot| !slot.is_tried(request)).peekable();
        Err(if self.all_down {
            NoPeer::Down
        } else if self.primary.slots.is_empty() && self.backup.slots.is_empty() {
            NoPeer::Unresolved
        } else if untried.peek().is_none() {
            NoPeer::Tried
        } else if untried.all(Slot::is_unhealthy) {
            NoPeer::Unhealthy
        } else {
            NoPeer::Full
        })
    }
}

/// Has those peers start slowly that come to others which are at work already. Where nobody has worked yet, at start,
/// nobody is warmer than the rest.
fn greet<'a>(slots: impl Iterator<Item = &'a Slot> + Clone, now: u64) {
    let is_warm = |slot: &&Slot| slot.peer.leases() > 0;
    if slots.clone().any(|slot| is_warm(&slot)) {
        slots.filter(|slot| !is_warm(slot)).for_each(|slot| slot.peer.came_back(now));
    }
}

impl Tier {
    fn new(spec: &GroupSpec, slots: Vec<Slot>, old: Option<&Tier>) -> Tier {
        let members: Vec<_> = slots.iter().map(|s| (s.peer.address().to_string(), s.weight)).collect();
        let balancer = Balancer::new(&spec.balance, &members);
        if let Some(old) = old {
            let same = |i: usize| old.slots.iter().position(|s| Arc::ptr_eq(&s.peer, &slots[i].peer));
            balancer.inherit(&old.balancer, same);
        }
        Tier { slots, balancer }
    }

    fn is_worth_a_wait(&self, request: &Request<'_>) -> bool {
        let could = |slot: &Slot| slot.peer.gate(request.now) != Gate::Shut && !slot.is_unhealthy();
        self.slots.iter().any(|slot| could(slot) && !slot.is_tried(request))
    }

    fn lease(&self, request: &Request<'_>, despite_ejection: bool) -> Option<Lease> {
        // Peers that another worker took the last place of between the pick and the claim.
        let mut lost = vec![];
        loop {
            let candidates = Candidates { slots: &self.slots, request, despite_ejection, lost: &lost };
            let i = self.balancer.pick(&candidates, request.key)?;
            if let Some(lease) = self.slots[i].claim(request, despite_ejection) {
                return Some(lease);
            }
            lost.push(i);
        }
    }
}

impl Slot {
    /// Whether its checks hold it for down. What they said counts only while the group has any.
    pub(crate) fn is_unhealthy(&self) -> bool {
        self.checked && self.peer.checks().health() == Health::Down
    }

    fn is_tried(&self, request: &Request<'_>) -> bool {
        request.tried.iter().any(|peer| Arc::ptr_eq(peer, &self.peer))
    }

    fn claim(&self, request: &Request<'_>, despite_ejection: bool) -> Option<Lease> {
        if !self.peer.enter(self.max_connections) {
            return None;
        }
        let trial = match self.peer.gate(request.now) {
            _ if despite_ejection => Some(0),
            Gate::Open => Some(0),
            Gate::Trial => self.peer.begin_trial(request.now, request.policy),
            Gate::Shut => None,
        };
        let Some(trial) = trial else {
            self.peer.leave();
            return None;
        };
        self.peer.count_lease();
        Some(Lease::new(Arc::clone(&self.peer), Arc::clone(request.policy), request.now, trial))
    }
}

struct Candidates<'a> {
    slots: &'a [Slot],
    request: &'a Request<'a>,
    despite_ejection: bool,
    lost: &'a [usize],
}

impl Members for Candidates<'_> {
    fn len(&self) -> usize {
        self.slots.len()
    }

    fn weight(&self, i: usize) -> u32 {
        let slot = &self.slots[i];
        match self.request.slow_start_ms {
            0 => slot.weight,
            // All of a group's in the same unit, at any time: what the balancer remembers must stay comparable.
            ms => slot.weight * slot.peer.percent(ms, self.request.now),
        }
    }

    fn usable(&self, i: usize) -> bool {
        let slot = &self.slots[i];
        (self.despite_ejection || slot.peer.gate(self.request.now) != Gate::Shut)
            && !slot.is_unhealthy()
            && slot.peer.has_room(slot.max_connections)
            && !slot.is_tried(self.request)
            && !self.lost.contains(&i)
    }

    fn in_flight(&self, i: usize) -> u32 {
        self.slots[i].peer.in_flight()
    }

    fn cost(&self, i: usize) -> f64 {
        self.slots[i].peer.cost(self.weight(i), self.request.now)
    }

    fn admits(&self, i: usize, point: u64) -> bool {
        match self.request.slow_start_ms {
            0 => true,
            ms => admits(self.slots[i].peer.percent(ms, self.request.now), point),
        }
    }
}
