//! What a listener lets in: how many connections and flows, of whom how often, and how fast their bytes. And how often who
//! guesses at a secret.

mod budget;
mod clients;
mod guesses;

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use wmproxy_runtime::clock;
use wmproxy_wire::bucket::{Frequency, Pace, SharedBucket};
use wmproxy_wire::units::ByteRate;

use crate::eviction::Evictions;
use crate::record::Outcome;
pub use budget::Budget;
use clients::{Arrivals, Open};
pub use guesses::{GuessTerms, Guesses, Verdict};

/// What a [`Gate`] keeps to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most connections or flows at a time; 0 is no limit.
    pub max: u32,
    /// The most of one client; 0 is no limit.
    pub max_per_client: u32,
    /// How often one client may come.
    pub per_client: Option<Frequency>,
    /// How fast bytes pass from all clients together.
    pub up: Option<ByteRate>,
    /// How fast bytes pass to all clients together.
    pub down: Option<ByteRate>,
}

/// Counts what one listener has let in, over all workers. The limits may change while it is in use.
#[derive(Debug, Default)]
pub struct Gate {
    active: AtomicU32,
    /// 0 is no limit.
    max: AtomicU32,
    /// 0 is no limit.
    max_per_client: AtomicU32,
    freed: Notify,
    open: Open,
    arrivals: ArcSwapOption<Arrivals>,
    up: Meter,
    down: Meter,
    /// Who makes room where nobody waits for it.
    evictions: Evictions,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From clients to peers.
    Up,
    /// From peers to clients.
    Down,
}

/// How fast the bytes of a listener pass in one direction, over all workers.
#[derive(Debug, Default)]
pub struct Meter {
    /// Bytes in a second; 0 is no limit.
    rate: AtomicU64,
    bucket: SharedBucket,
    /// How often the rate was changed.
    changes: AtomicU32,
}

/// One place behind a [`Gate`], given back on drop.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    client: Option<IpAddr>,
}

impl Gate {
    /// A gate with limits on how many come in; 0 is none.
    pub fn new(max: u32, max_per_client: u32) -> Arc<Gate> {
        let gate = Gate::default();
        gate.set(&Limits { max, max_per_client, ..Limits::default() });
        Arc::new(gate)
    }

    /// Changes the limits. Who is in stays in.
    pub fn set(&self, limits: &Limits) {
        self.max.store(limits.max, Ordering::Relaxed);
        self.max_per_client.store(limits.max_per_client, Ordering::Relaxed);
        let known = self.arrivals.load_full();
        self.arrivals.store(limits.per_client.map(|often| Arc::new(Arrivals::new(often, known.as_deref()))));
        self.up.set(limits.up);
        self.down.set(limits.down);
        self.freed.notify_waiters();
    }

    /// The tables of flows that this gate lets in.
    pub fn evictions(&self) -> &Evictions {
        &self.evictions
    }

    /// How many are in.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// A place, if one is free.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        let max = self.max.load(Ordering::Relaxed);
        self.active
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (max == 0 || n < max).then_some(n + 1))
            .ok()
            .map(|_| Permit { gate: self.clone(), client: None })
    }

    /// A place, whether one is free or not: for who gives another one back at once.
    pub fn enter_anyway(self: &Arc<Self>) -> Permit {
        self.active.fetch_add(1, Ordering::AcqRel);
        Permit { gate: self.clone(), client: None }
    }

    /// Whether a client has fewer places than it may have. Another thread may take the last one meanwhile.
    pub fn has_room_for(&self, client: IpAddr) -> bool {
        let max = self.max_per_client.load(Ordering::Relaxed);
        max == 0 || self.open.count(client_of(client)) < max
    }

    /// Whether a client comes no more often than it may, and counts that it came if so. What memory there is for that,
    /// [`wmproxy_wire::arrivals`] says.
    pub fn admit(&self, client: IpAddr) -> bool {
        let arrivals = self.arrivals.load();
        arrivals.as_ref().is_none_or(|arrivals| arrivals.admit(client_of(client), clock::precise()))
    }

    /// The limit on the bytes of all connections or flows together.
    pub fn meter(&self, direction: Direction) -> &Meter {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// Waits for a place.
    pub async fn enter(self: &Arc<Self>) -> Permit {
        loop {
            if let Some(permit) = self.try_enter() {
                return permit;
            }
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Registered before the second look, or a place that is freed in between would be missed.
            freed.as_mut().enable();
            if let Some(permit) = self.try_enter() {
                return permit;
            }
            freed.await;
        }
    }
}

impl Meter {
    fn set(&self, rate: Option<ByteRate>) {
        let rate = rate.map_or(0, ByteRate::bytes_per_second);
        if self.rate.swap(rate, Ordering::Relaxed) != rate {
            // What was taken at the old rate would be waited for at the old rate.
            self.bucket.forget();
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rate(&self) -> Option<ByteRate> {
        NonZeroU64::new(self.rate.load(Ordering::Relaxed)).map(ByteRate::new)
    }

    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.rate().is_some()
    }

    /// The pace of a stream's bytes; none without a limit.
    pub(crate) fn pace(&self) -> Option<Pace> {
        self.rate().map(Pace::of_stream)
    }

    /// How often the rate was changed. What was reserved before the last change is forgotten.
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Takes bytes that are going to pass, and says from when on they may, by [`clock::precise`].
    pub(crate) fn reserve(&self, pace: &Pace, now: u64, bytes: u64) -> u64 {
        self.bucket.reserve(pace, now, bytes)
    }

    /// Puts back what was taken and did not pass.
    pub(crate) fn give_back(&self, bytes: u64) {
        if let Some(rate) = self.rate() {
            self.bucket.give_back(&Pace::of_stream(rate), bytes);
        }
    }

    /// Whether a datagram of so many bytes may pass at `now`, by [`clock::precise`], and takes them if so.
    pub fn admit(&self, now: u64, bytes: u64) -> bool {
        self.rate().is_none_or(|rate| self.bucket.admit(&Pace::of_datagrams(rate), now, bytes))
    }
}

impl Permit {
    /// The gate that it is of.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Lets its client in by name, once that is known: the address of the connection, or the one that a trusted PROXY
    /// header says. To be called once for each connection.
    ///
    /// # Errors
    /// The client comes too often, or has as many places as it may; the permit is then of no use, and the connection to
    /// be reset with this outcome.
    pub fn admit(&mut self, client: IpAddr) -> Result<(), Outcome> {
        if !self.gate.admit(client) {
            return Err(Outcome::RateLimited);
        }
        if self.claim(client) { Ok(()) } else { Err(Outcome::ClientLimit) }
    }

    /// Names who holds it. False when that client has as many as it may; the permit is then of no use.
    pub fn claim(&mut self, client: IpAddr) -> bool {
        let max = self.gate.max_per_client.load(Ordering::Relaxed);
        if max == 0 {
            return true;
        }
        let client = client_of(client);
        let has_room = self.gate.open.add(client, max);
        self.client = has_room.then_some(client);
        has_room
    }
}

/// Whom an address counts as: itself, but a whole /64 of IPv6, which is what one subscriber has (RFC 6177).
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            self.gate.open.remove(client);
        }
        self.gate.active.fetch_sub(1, Ordering::AcqRel);
        if self.gate.max.load(Ordering::Relaxed) != 0 {
            self.gate.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
