//! Clients that stay with their peer by a cookie: which one it was, and telling them of another.

use std::sync::Arc;

use wmproxy_runtime::clock;
use wmproxy_upstream::{Group, Lease, Peer};
use wmproxy_wire::head::{Scheme, cookie};

use crate::exchange::Exchange;

/// The peer that the client of a request had before, if its group keeps clients with their peers.
pub(super) fn peer_of(group: &Group, ex: &Exchange<'_, '_>) -> Option<Arc<Peer>> {
    let sticky = group.sticky()?;
    group.sticky_peer(cookie(&ex.request.fields, sticky.cookie.as_bytes())?)
}

/// Leases the peer that the client had before, unless it was tried for this request already.
pub(super) fn lease(group: &Group, stuck: Option<&Arc<Peer>>, tried: &[Arc<Peer>]) -> Option<Lease> {
    let peer = stuck.filter(|peer| !tried.iter().any(|other| Arc::ptr_eq(other, peer)))?;
    group.lease_sticky(peer, clock::now().0)
}

/// Gives the client a cookie with the response that it gets from `peer`, unless it was there before.
pub(super) fn remember(
    group: &Group,
    ex: &mut Exchange<'_, '_>,
    stuck: Option<&Arc<Peer>>,
    peer: &Arc<Peer>,
) {
    let Some(sticky) = group.sticky() else { return };
    if stuck.is_some_and(|stuck| Arc::ptr_eq(stuck, peer)) {
        return;
    }
    if let Some(value) = group.sticky_value(peer) {
        let attributes = sticky.attributes(ex.facts.scheme == Scheme::Https);
        let cookie = format!("{}={value}{attributes}", sticky.cookie);
        ex.response.fields.push(b"Set-Cookie", cookie.as_bytes());
    }
}
