//! What a QUIC listener knows of connections that go on from another address, and how a flow learns it.
//!
//! A moved client gets a flow of its own, to the peer of the old one. So nothing that anybody else receives depends on
//! what a stranger claims, and the server sees the new address and validates the path as it should (RFC 9000, section
//! 9.3).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use wmproxy_net::limit::Gate;
use wmproxy_upstream::{Group, Peer};
use wmproxy_wire::flow::{Cid, CidMap, Claim, ClaimMap};
use wmproxy_wire::quic_initial::long_header;

use super::lanes::Taken;
use super::opening::Opening;

/// How many ids a flow claims at most. A server has one for its handshake, and one more in a Retry.
const MAX_CLAIMS: usize = 4;

/// How many datagrams of a server are looked at. The first one shows its id, or the first after a Retry; several may be
/// lost and come again.
const MAX_LOOKS: u8 = 32;

/// Where a connection goes.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) group: Arc<Group>,
    pub(super) peer: Arc<Peer>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Target) -> bool {
        Arc::ptr_eq(&self.peer, &other.peer)
    }
}

/// What one listener knows. Its workers share it: a client's new address may be another worker's. One lock will do, for
/// it is taken when a flow begins, learns and ends, and never for a datagram in between.
#[derive(Debug, Default)]
pub(super) struct Cids(Mutex<Maps>);

#[derive(Debug, Default)]
struct Maps {
    ids: CidMap<Target>,
    /// Where the latest flow of an address went.
    clients: ClaimMap<IpAddr, Target>,
}

/// Those of all listeners in use, by the address of their gate: what the listeners of all workers have in common, and
/// keep over reloads. The weak ones die with the last worker's listener, which holds the gate as long.
static ALL: LazyLock<Mutex<HashMap<usize, Weak<Cids>>>> = LazyLock::new(Mutex::default);

impl Cids {
    /// Those of the listener with this gate.
    pub(super) fn of(gate: &Arc<Gate>) -> Arc<Cids> {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, cids| cids.strong_count() > 0);
        let place = all.entry(Arc::as_ptr(gate).addr()).or_default();
        place.upgrade().unwrap_or_else(|| {
            let cids = Arc::new(Cids::default());
            *place = Arc::downgrade(&cids);
            cids
        })
    }

    /// Where the connection goes that `datagram` belongs to, which came from `client` and begins no connection. Its
    /// connection id says so. A client that moved on purpose has one that was never shown: then it is taken for the
    /// latest from the same address, which is a guess, and better than any other server.
    pub(super) fn find(&self, datagram: &[u8], client: IpAddr) -> Option<Known> {
        let maps = self.maps();
        if let Some((cid, target)) = maps.ids.find(datagram) {
            return Some(Known { cid: Some(cid), target: target.clone() });
        }
        // The second bit is set in QUIC, but both sides may agree to set it at random (RFC 9287).
        let is_short = datagram.first().is_some_and(|first| first & 0x80 == 0);
        let target = maps.clients.get(&client.to_canonical()).filter(|_| is_short)?;
        Some(Known { cid: None, target: target.clone() })
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that goes on from another address.
#[derive(Debug)]
pub(super) struct Known {
    cid: Option<Cid>,
    pub(super) target: Target,
}

impl Known {
    /// Whether its connection id was shown, and not only its client's address.
    pub(super) fn is_certain(&self) -> bool {
        self.cid.is_some()
    }
}

/// What a flow knows of its QUIC connection, and claims. Releases it when dropped.
#[derive(Debug)]
pub(super) struct Learner {
    cids: Arc<Cids>,
    target: Target,
    client: IpAddr,
    lane: Option<Taken>,
    ids: Vec<Claim>,
    client_claim: Option<Claim<IpAddr>>,
    looks_left: u8,
}

impl Learner {
    /// For a flow of `client` to `target`, begun with `opening`.
    pub(super) fn new(cids: Arc<Cids>, target: Target, client: IpAddr, opening: Opening) -> Learner {
        let Opening { known, lane, .. } = opening;
        let client = client.to_canonical();
        let looks_left = MAX_LOOKS;
        let mut learner = Learner { cids, target, client, lane, ids: vec![], client_claim: None, looks_left };
        if let Some(known) = known {
            // The handshake is over: nothing more will be shown.
            learner.looks_left = 0;
            learner.claim(known.cid);
        }
        learner
    }

    /// Whether the server may still show an id.
    #[inline]
    pub(super) fn is_learning(&self) -> bool {
        self.looks_left > 0
    }

    /// Looks at a datagram of the server.
    pub(super) fn look(&mut self, datagram: &[u8]) {
        if !self.is_learning() {
            return;
        }
        self.looks_left -= 1;
        match long_header(datagram) {
            // Of version negotiation the id is an echo of what the client made up.
            Some(header) if header.version != 0 => self.claim(Cid::new(header.scid)),
            Some(_) => {}
            // Short headers come when the handshake is done. One may overtake it.
            None if self.client_claim.is_some() => self.looks_left = 0,
            None => {}
        }
    }

    fn claim(&mut self, cid: Option<Cid>) {
        let mut maps = self.cids.maps();
        if self.client_claim.is_none() {
            self.client_claim = Some(maps.clients.claim(self.client, self.target.clone()));
        }
        if let Some(cid) = cid
            && self.ids.len() < MAX_CLAIMS
            && self.ids.iter().all(|claim| *claim.key() != cid)
        {
            self.ids.push(maps.ids.claim(cid, self.target.clone()));
            if let Some(lane) = &self.lane {
                lane.learn(cid);
            }
        }
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        let mut maps = self.cids.maps();
        self.ids.iter().for_each(|claim| maps.ids.release(claim));
        if let Some(claim) = &self.client_claim {
            maps.clients.release(claim);
        }
    }
}
