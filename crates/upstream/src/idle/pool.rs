//! What workers share of the idle connections of a group: how many there are, and those that any worker may take.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wmproxy_net::stream::{Parts, Stream};
use wmproxy_runtime::counter::{Counter, Sharded};
use wmproxy_runtime::worker;

use super::IdleKey;

/// How often the connections that are shared are looked at, by whichever worker comes first.
const LOOK_EVERY_MS: u64 = 1000;

/// How connections are made. Equal ways have equal ids as long as anybody has one.
#[derive(Debug)]
pub(crate) struct Way(u64);

impl Way {
    pub(crate) fn new() -> Way {
        Way(next_id())
    }

    pub(crate) fn id(&self) -> u64 {
        self.0
    }
}

/// Ids are given once: what is keyed by one never meets what was keyed by it before.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// How many idle connections a peer has, on all workers, and since when they count.
#[derive(Debug)]
pub(crate) struct Gauge {
    id: u64,
    idle: AtomicUsize,
    epoch: AtomicU64,
}

impl Gauge {
    pub(crate) fn new() -> Gauge {
        Gauge { id: next_id(), idle: AtomicUsize::new(0), epoch: AtomicU64::new(0) }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Relaxed)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// Has every worker close what is idle now, when it next looks.
    pub(crate) fn close_idle(&self) {
        self.epoch.fetch_add(1, Relaxed);
    }

    /// Counts one in, unless there are `max`.
    pub(super) fn enter(&self, max: usize) -> bool {
        // Not a loop of comparing and swapping: at the limit two may both turn back, and a connection is closed too many.
        let is_room = self.idle.fetch_add(1, Relaxed) < max;
        if !is_room {
            self.leave(1);
        }
        is_room
    }

    pub(super) fn leave(&self, count: usize) {
        self.idle.fetch_sub(count, Relaxed);
    }
}

/// What became of connections that are used for requests.
#[derive(Debug, Default)]
pub(crate) struct PoolCounts {
    /// Requests that got one that was idle.
    pub(crate) reused: Counter,
    /// Connections made.
    pub(crate) opened: Counter,
    /// Idle ones that the peer had closed, or said something on, before they were wanted.
    pub(crate) stale: Counter,
}

/// The part of a group's idle connections that belongs to no worker. Kept over reloads.
#[derive(Debug)]
pub(crate) struct Pool {
    counts: Sharded<PoolCounts>,
    /// A bit for each worker that ever kept a connection, modulo 64.
    workers: AtomicU64,
    /// How many are shared. Written under the lock, read without.
    len: AtomicUsize,
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By key, the newest last.
    spares: HashMap<IdleKey, Vec<Spare>>,
    looked_at: u64,
}

/// A connection that no worker watches.
#[derive(Debug)]
struct Spare {
    parts: Parts,
    until: u64,
    epoch: u64,
    place: Place,
}

/// Counts as one idle connection of a peer until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Gauge>);

impl Place {
    /// One that is kept elsewhere than here, and that no limit is for.
    pub(super) fn beyond_limits(gauge: &Arc<Gauge>) -> Place {
        gauge.enter(usize::MAX);
        Place(Arc::clone(gauge))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave(1);
    }
}

impl Spare {
    fn is_current(&self, now: u64) -> bool {
        now < self.until && self.epoch == self.place.0.epoch()
    }
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            counts: Sharded::new(worker::default_count()),
            workers: AtomicU64::new(0),
            len: AtomicUsize::new(0),
            shared: Mutex::default(),
        }
    }
}

impl Pool {
    pub(super) fn count(&self, which: fn(&PoolCounts) -> &Counter) {
        which(self.counts.local()).add(1);
    }

    /// The sum over all workers.
    pub(crate) fn sum(&self, which: fn(&PoolCounts) -> &Counter) -> u64 {
        self.counts.sum(which)
    }

    /// Notes that the calling worker keeps connections.
    pub(super) fn join(&self) {
        self.workers.fetch_or(1 << (worker::slot() % 64), Relaxed);
    }

    /// Whether there is another worker that could use what this one does not.
    pub(super) fn has_company(&self) -> bool {
        self.workers.load(Relaxed).count_ones() > 1
    }

    /// Gives a connection of the calling worker, which is counted in `gauge`, to all of them.
    pub(super) fn give(&self, key: IdleKey, gauge: &Arc<Gauge>, stream: Stream, until: u64) {
        let place = Place(Arc::clone(gauge));
        // One that can't move is closed: its own worker has enough.
        let Some(parts) = stream.dismantle() else { return };
        let spare = Spare { parts, until, epoch: gauge.epoch(), place };
        let mut shared = self.lock();
        shared.spares.entry(key).or_default().push(spare);
        self.len.fetch_add(1, Relaxed);
    }

    /// Takes the newest connection of a key, which belongs to the calling worker from then on.
    pub(super) fn take(&self, key: IdleKey, now: u64) -> Option<Stream> {
        while !self.is_empty() {
            // Not to be looked into while others wait for the lock.
            let spare = {
                let mut shared = self.lock();
                let spare = shared.spares.get_mut(&key)?.pop()?;
                self.len.fetch_sub(1, Relaxed);
                spare
            };
            if !spare.is_current(now) {
                continue;
            }
            if !spare.parts.is_quiet() {
                self.count(|counts| &counts.stale);
                continue;
            }
            // An event queue that takes no more has no room for a new connection either.
            return spare.parts.assemble().ok();
        }
        None
    }

    /// Whether nothing is shared.
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    /// Closes what is too old, belongs to a peer in disgrace, or was closed by its peer.
    pub(super) fn look_over(&self, now: u64) {
        if self.is_empty() {
            return;
        }
        let mut shared = self.lock();
        if now.saturating_sub(shared.looked_at) < LOOK_EVERY_MS {
            return;
        }
        shared.looked_at = now;
        let mut left = 0;
        shared.spares.retain(|_, spares| {
            spares.retain(|spare| {
                let is_quiet = spare.is_current(now).then(|| spare.parts.is_quiet());
                if is_quiet == Some(false) {
                    self.count(|counts| &counts.stale);
                }
                is_quiet == Some(true)
            });
            left += spares.len();
            !spares.is_empty()
        });
        self.len.store(left, Relaxed);
    }

    /// Closes what is shared of a key, or all.
    pub(super) fn close(&self, key: Option<IdleKey>) {
        let mut shared = self.lock();
        match key {
            Some(key) => drop(shared.spares.remove(&key)),
            None => shared.spares.clear(),
        }
        let left = shared.spares.values().map(Vec::len).sum();
        self.len.store(left, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Whole after each statement, so that a panic leaves it usable.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
