//! The UDP flow table: which datagrams belong together, and when that ends.
//!
//! UDP has no connections, so the proxy makes them: a *flow* is what one client sends to one of the
//! listener's addresses, together with the answers. The table decides; its owner, one worker of one
//! listener, holds the sockets and does what the table says. No socket and no clock lives here: time comes
//! in as [`Now`], what the owner keeps for a flow is the table's `T`, and the table hands it back when the
//! flow ends, exactly once.
//!
//! # Rules
//! - **Identity.** A flow is found by its [`FlowKey`]: the client's address, the local address that it hit,
//!   and the lane where the owner tells several conversations between them apart. A [`FlowId`] is never used
//!   twice: once its flow has ended it names nothing, whatever takes the place in memory.
//! - **Life.** A flow lives on datagrams in either direction, and ends after [`Limits::idle_timeout`]
//!   without one. It ends when the owner asks for what has expired ([`FlowTable::pop_expired`]) and not
//!   before: a datagram that comes between the timeout and the asking keeps the flow.
//! - **`max_requests`.** So many datagrams of the client pass. With the last of them the flow is *spent*:
//!   the client's next datagram finds no flow and begins a new one, while the spent flow stays open, by its
//!   id, for the answers still under way. It ends by its other limits. The owner can declare a flow spent
//!   before that ([`FlowTable::spend`]).
//! - **`max_responses`.** With the last of so many datagrams from the peer the flow ends at once; but not before
//!   there are as many of them as the client has sent, so that questions asked in one go (a resolver's for A and
//!   AAAA) all get their answers.
//! - **Batches.** A batch may be larger than what is left: the first so many pass. Requests beyond are for
//!   the next flow, responses beyond are for nobody.
//! - **Room.** How many flows there may be, and of one client, is the owner's to say, for a limit over several
//!   tables is none of one. It asks for the flow that has been idle for longest, spent or not
//!   ([`FlowTable::evict_oldest`]), where another needs the room.
//! - **Reload.** [`FlowTable::set_limits`] leaves the flows there are untouched: they keep the limits that they
//!   began with.
//! - **Time** does not run backwards: an earlier `now` than the latest counts as the latest.
//!
//! # Cost
//! Every operation is O(1), growing and shrinking amortised: a slab for the flows, a list in order of
//! activity through it for each set of limits in use (one, and one more for each reload that changed them
//! while flows of the old ones live), and a hash map. A datagram takes some 75 ns. Memory is given back
//! when most flows are gone (`slab.rs`). The map moves all entries when it grows, which at 100,000 flows
//! takes under 20 ms and at a million under 250 ms: an owner that expects more than that gives each worker its own table.

mod cids;
mod list;
mod slab;
mod table;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub use cids::{Cid, CidMap, Claim, ClaimMap};
pub use table::FlowTable;

/// A moment on the owner's monotonic clock, in milliseconds since any fixed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now(u64);

/// What bounds the flows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A flow ends after so long without a datagram in either direction; a part of a millisecond counts as a
    /// whole one.
    pub idle_timeout: Duration,
    /// A flow takes so many datagrams from its client; 0 is no limit.
    pub max_requests: u64,
    /// A flow ends with so many datagrams from its peer, or with as many as its client sent if those are more; 0 is
    /// no limit.
    pub max_responses: u64,
}

/// What makes two datagrams of clients belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    client: SocketAddr,
    local: IpAddr,
    /// Which of several conversations between the two, where the owner can tell them apart.
    lane: u16,
}

/// One flow for as long as it lives, and nothing ever after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    index: u32,
    /// Unlike a count per place, which would have to outlive the memory of the place, a number for each flow
    /// of the table's life cannot come again: 64 bits do not run out.
    serial: u64,
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// It had its `max_responses`; or its `max_requests`, and then no more answers for the idle timeout.
    Limit,
    /// No datagram in either direction for the idle timeout.
    Idle,
    /// It had been idle for longest when its owner needed the room.
    Evicted,
    /// The owner ended it, and knows why.
    Closed,
}

/// A flow that is no more, and all that the table knew of it.
#[derive(Debug)]
pub struct Ended<T, K = FlowKey> {
    /// What it was called; this id names nothing any more.
    pub id: FlowId,
    /// Whose it was.
    pub key: K,
    /// What the owner kept for it.
    pub value: T,
    /// Why it ended.
    pub reason: EndReason,
    /// When it began.
    pub began: Now,
    /// When the last datagram passed, or when it began if none did.
    pub active: Now,
    /// Datagrams of the client that passed.
    pub requests: u64,
    /// Datagrams of the peer that passed.
    pub responses: u64,
}

/// What becomes of a batch of responses.
#[derive(Debug)]
#[must_use]
pub struct Responses<T, K = FlowKey> {
    /// So many datagrams, the first ones, go to the client.
    pub pass: u64,
    /// The flow, if it ended with them.
    pub ended: Option<Ended<T, K>>,
}

impl Now {
    /// The moment so many milliseconds after the fixed point.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the fixed point.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` until this moment; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl FlowKey {
    /// The key for datagrams from `client` to `local`, which is the unspecified address when the listener
    /// cannot tell. An IPv6 flow label in `client` is dropped: it may differ between datagrams of one sender.
    pub fn new(mut client: SocketAddr, local: IpAddr) -> Self {
        if let SocketAddr::V6(address) = &mut client {
            address.set_flowinfo(0);
        }
        Self { client, local, lane: 0 }
    }

    /// The key where the local address is unknown.
    pub fn from_client(client: SocketAddr) -> Self {
        Self::new(client, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// Whose datagrams these are, and where answers go.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// The address that the client hit, and that answers leave from.
    pub fn local(&self) -> IpAddr {
        self.local
    }

    /// The same client and address in another lane. A client may have several conversations at a time from one address,
    /// as with QUIC; who tells them apart makes each a flow of its own.
    pub fn in_lane(self, lane: u16) -> Self {
        Self { lane, ..self }
    }

    /// Its lane; 0 unless it was put into another.
    pub fn lane(&self) -> u16 {
        self.lane
    }
}
