//! Connections to peers that nobody uses at the moment, kept for the next request.
//!
//! What lives here: where they lie, who gets which, and when they are closed. What must not: whether a connection may be
//! used again, which whoever spoke on it knows, and everything about requests.
//!
//! A connection lies on the shelf of the worker that used it last, and the next request there takes the newest
//! one, without a lock and without a call of the kernel. Once a second each worker looks over its shelf: it closes what
//! is too old, what the peer has closed, and what belongs to a peer that was ejected, found down or taken out; and of
//! what lay untouched since, all but the newest goes to the pool that the workers share. So a worker with little
//! to do does not hold what another could use, and one with much to do shares nothing.
//!
//! Connections are told apart by peer and by the *way* in which they were made: the TLS and the socket options of the
//! group. After a reload that changes these, nobody takes what was made before it. Where a connection speaks for one
//! client, by a PROXY header or by the client's own address, it is never used for another: such groups keep none.
//!
//! A lease is one request in flight, so a connection that lies here holds none, and `max_connections` of a server limits
//! requests and not these.

mod pool;
mod shelf;

use std::time::Duration;

use wmproxy_net::sockopt::Source;
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock;

use crate::group::{Group, Lease};
use crate::options::GroupSpec;
use crate::peer::Peer;
pub use pool::Place;
pub(crate) use pool::{Gauge, Pool, Way};

/// What tells connections apart that may stand in for each other from those that may not: the peer, and how they were
/// made. Never given twice within a process.
///
/// For others who keep connections of their own kind, such as one of HTTP/2 that many requests share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdleKey {
    peer: u64,
    way: u64,
}

impl Group {
    /// Takes the connection to the leased peer that was used last, if one is idle. Nobody else has it then, and nothing
    /// had come on it that was not asked for. That the peer closes it at this very moment can't be known: a request
    /// that fails on it before the first byte of an answer says nothing about the peer.
    pub fn take_idle(&self, lease: &Lease) -> Option<Stream> {
        if !self.keeps_idle() {
            return None;
        }
        let (key, now) = (self.idle_key(lease), clock::now().0);
        let taken = shelf::take(key, self.pool(), now).or_else(|| self.pool().take(key, now));
        if taken.is_some() {
            self.pool().count(|counts| &counts.reused);
        }
        taken
    }

    /// Keeps a connection to the leased peer for the next request, or closes it: where the group keeps none, where
    /// enough are idle, and where something has come on it. `limit` is how long the peer said it would keep it, if it
    /// did. To be called on a worker.
    ///
    /// It must be one that [`connect`](Group::connect) made for this group with the group's own socket options, and
    /// both its request and its answer must be over to the last byte.
    pub fn put_idle(&self, lease: &Lease, stream: Stream, limit: Option<Duration>) {
        let keepalive = self.spec().keepalive;
        if !self.keeps_idle() || !stream.is_quiet() || !lease.gauge().enter(keepalive.max_idle) {
            return;
        }
        let lives = limit.map_or(keepalive.idle_timeout, |limit| limit.min(keepalive.idle_timeout));
        let now = clock::now().0;
        let until = now.saturating_add(u64::try_from(lives.as_millis()).unwrap_or(u64::MAX));
        shelf::put(
            self.idle_key(lease),
            lease.peer(),
            self.pool(),
            shelf::Parked { stream, since: now, until },
        );
    }

    /// Whether connections to its peers may be used for one request after the other, whoever asks.
    pub fn keeps_idle(&self) -> bool {
        self.spec().keeps_idle()
    }

    /// What connections to `peer` that this group makes are known by.
    pub fn idle_key(&self, peer: &Peer) -> IdleKey {
        IdleKey { peer: peer.gauge().id(), way: self.way().id() }
    }

    /// Counts a connection that was made to be used for requests.
    pub(crate) fn count_opened(&self) {
        self.pool().count(|counts| &counts.opened);
    }
}

impl GroupSpec {
    pub(crate) fn keeps_idle(&self) -> bool {
        self.keepalive.max_idle > 0
            && self.send_proxy_protocol.is_none()
            && self.socket.source != Some(Source::Client)
    }

    /// What a connection of this group was made with that another group's may not have been.
    pub(crate) fn way(&self) -> String {
        // Whom a peer has to prove to be goes by the name under which it is listed.
        let names: Vec<_> = match self.tls {
            Some(_) => self.servers.iter().map(|server| server.target.to_string()).collect(),
            None => vec![],
        };
        format!("{:?} {:?} {names:?}", self.tls, self.socket)
    }
}

impl Peer {
    /// Changes when connections to the peer that were made before are to be used for nothing new: it was ejected, found
    /// down or taken out of its group.
    pub fn idle_epoch(&self) -> u64 {
        self.gauge().epoch()
    }

    /// Counts a connection that is kept elsewhere than in a group, for many requests at once, and that has none now.
    pub fn count_idle(&self) -> Place {
        Place::beyond_limits(self.gauge())
    }
}

/// Closes what is idle on the calling worker, and what it shares with others: for when the process drains.
pub fn close_all() {
    shelf::close_all();
}

#[cfg(test)]
mod tests;
