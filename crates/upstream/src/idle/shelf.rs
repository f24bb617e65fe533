//! The idle connections of one worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock;
use wmproxy_runtime::scope::Scope;

use super::{Gauge, IdleKey, Pool};
use crate::peer::Peer;
use crate::random;

/// How often a worker looks over its shelf. What a peer has closed is noticed so late at the most, and what is due later;
/// a worker with a thousand idle connections spends some ten microseconds a second on it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a connection lies untouched before others may have it: at one request a second there is one at hand, and
/// where more come the newest few are in use all the time.
const SHARE_AFTER_MS: u64 = 1000;

thread_local! {
    static SHELF: RefCell<Shelf> = RefCell::default();
}

/// A connection that is kept.
pub(super) struct Parked {
    pub(super) stream: Stream,
    /// When it was put here and when it is to be closed, in milliseconds of the monotonic clock.
    pub(super) since: u64,
    pub(super) until: u64,
}

#[derive(Default)]
struct Shelf {
    rows: HashMap<IdleKey, Row, BuildHasherDefault<KeyHasher>>,
    /// Whether somebody looks it over from time to time.
    is_tended: bool,
}

/// What is kept of one key.
struct Row {
    /// Gone when no group has it any more and nobody a lease.
    peer: Weak<Peer>,
    gauge: Arc<Gauge>,
    pool: Arc<Pool>,
    epoch: u64,
    /// The newest last.
    parked: Vec<Parked>,
    /// Whether anything was put here since the last look.
    is_used: bool,
}

/// Takes the newest connection of a key that is fit to be used.
pub(super) fn take(key: IdleKey, pool: &Pool, now: u64) -> Option<Stream> {
    SHELF.with_borrow_mut(|shelf| {
        let row = shelf.rows.get_mut(&key)?;
        if row.epoch != row.gauge.epoch() {
            row.clear();
            return None;
        }
        while let Some(Parked { stream, until, .. }) = row.parked.pop() {
            row.gauge.leave(1);
            if now >= until {
                continue;
            }
            if stream.is_quiet() {
                return Some(stream);
            }
            pool.count(|counts| &counts.stale);
        }
        None
    })
}

/// Keeps a connection that its peer's gauge has counted in.
pub(super) fn put(key: IdleKey, peer: &Arc<Peer>, pool: &Arc<Pool>, parked: Parked) {
    SHELF.with_borrow_mut(|shelf| {
        let row = shelf.rows.entry(key).or_insert_with(|| Row::new(peer, pool));
        if row.epoch != row.gauge.epoch() {
            row.clear();
        }
        row.is_used = true;
        row.parked.push(parked);
        if !std::mem::replace(&mut shelf.is_tended, true) {
            // Not one of those that a drain waits for: it ends with its worker.
            Scope::new().spawn(tend(Cleared));
        }
    });
}

/// Closes everything that is kept here, and what is shared with others.
pub(super) fn close_all() {
    SHELF.with_borrow_mut(|shelf| {
        for (_, row) in shelf.rows.drain() {
            row.pool.close(None);
        }
    });
}

/// Looks over the shelf of the calling worker as long as there is something on it.
async fn tend(_end: Cleared) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if !look_over(clock::now().0) {
            return;
        }
    }
}

/// Clears the shelf when the one who tends it goes, which he does before it is empty only with the worker: the
/// connections must not outlive its event queue.
struct Cleared;

impl Drop for Cleared {
    fn drop(&mut self) {
        // The thread's own end may have come first.
        let _ = SHELF.try_with(|shelf| *shelf.borrow_mut() = Shelf::default());
    }
}

/// Closes what is not to be kept, and shares what nobody uses here. Tells whether anything is left to look after.
pub(super) fn look_over(now: u64) -> bool {
    SHELF.with_borrow_mut(|shelf| {
        shelf.rows.retain(|key, row| row.look_over(*key, now));
        !shelf.rows.is_empty()
    })
}

impl Row {
    fn new(peer: &Arc<Peer>, pool: &Arc<Pool>) -> Row {
        pool.join();
        let gauge = Arc::clone(peer.gauge());
        let epoch = gauge.epoch();
        Row {
            peer: Arc::downgrade(peer),
            gauge,
            pool: Arc::clone(pool),
            epoch,
            parked: vec![],
            is_used: true,
        }
    }

    fn clear(&mut self) {
        self.gauge.leave(self.parked.len());
        self.parked.clear();
        self.epoch = self.gauge.epoch();
    }

    /// Whether the row is still of use.
    fn look_over(&mut self, key: IdleKey, now: u64) -> bool {
        if self.peer.strong_count() == 0 {
            self.pool.close(Some(key));
            return false;
        }
        if self.epoch != self.gauge.epoch() {
            self.clear();
        }
        let before = self.parked.len();
        self.parked.retain(|parked| {
            let is_quiet = (now < parked.until).then(|| parked.stream.is_quiet());
            if is_quiet == Some(false) {
                self.pool.count(|counts| &counts.stale);
            }
            is_quiet == Some(true)
        });
        self.gauge.leave(before - self.parked.len());
        if self.pool.has_company() {
            self.share(key, now);
        }
        self.pool.look_over(now);
        let is_used = std::mem::take(&mut self.is_used);
        is_used || !self.parked.is_empty() || !self.pool.is_empty()
    }

    /// Gives away what has lain here for long, but for the newest.
    fn share(&mut self, key: IdleKey, now: u64) {
        let is_long = |parked: &Parked| now.saturating_sub(parked.since) >= SHARE_AFTER_MS;
        let long = self.parked.iter().take_while(|parked| is_long(parked)).count();
        let count = long.min(self.parked.len().saturating_sub(1));
        for Parked { stream, until, .. } in self.parked.drain(..count) {
            self.pool.give(key, &self.gauge, stream, until);
        }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        self.gauge.leave(self.parked.len());
    }
}

/// Hashes keys that are two small numbers which nobody outside chooses.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = random::mix(self.0.rotate_left(32) ^ number);
    }
}
