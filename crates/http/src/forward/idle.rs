//! Connections to origins that nobody uses at the moment, kept by the worker that used them for its next request to the same
//! origin by the same way.
//!
//! A forward proxy meets more origins than it will see again, so unlike those to peers of a group these are few, are shared with
//! no other worker, and go soon.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock::{self, Ticks};
use wmproxy_runtime::scope::Scope;
use wmproxy_wire::destination::Destination;

/// How long one is kept: what a page loads bit by bit comes within it, and most servers keep theirs no shorter.
const LIFE: Duration = Duration::from_secs(30);

/// The most of one worker. Each costs a descriptor here and one there.
const MOST: usize = 512;

/// The most to one origin: browsers open six, and several may read the same site.
const MOST_EACH: usize = 16;

/// How often a worker looks for what is to be closed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// By which way, and where to.
type Key = (u64, Destination);

thread_local! {
    static SHELF: RefCell<Shelf> = RefCell::default();
}

/// A connection that was used before.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) stream: Stream,
    /// The address that it goes to.
    pub(super) address: Option<SocketAddr>,
}

#[derive(Default)]
struct Shelf {
    /// The newest of each last.
    rows: HashMap<Key, Vec<Parked>>,
    count: usize,
    /// Whether somebody looks it over from time to time.
    is_tended: bool,
}

struct Parked {
    idle: Idle,
    until: Ticks,
    _counted: Counted,
}

/// How many all workers keep.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Counts as one of them until it is dropped.
struct Counted;

impl Counted {
    fn new() -> Counted {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections to origins are kept for requests to come.
pub fn idle_connections() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// Takes the connection that was used last, if one is fit to be used.
pub(super) fn take(key: &Key) -> Option<Idle> {
    SHELF.with_borrow_mut(|shelf| {
        let row = shelf.rows.get_mut(key)?;
        let mut found = None;
        while let Some(Parked { idle, until, .. }) = row.pop() {
            shelf.count -= 1;
            if clock::now() < until && idle.stream.is_quiet() {
                found = Some(idle);
                break;
            }
        }
        found
    })
}

/// Keeps a connection, of which both messages are over to the last byte. `limit` is how long its server says that it keeps it.
/// What is too much is closed, the newest first: what is in use most is on the shelf already.
pub(super) fn put(key: Key, idle: Idle, limit: Option<Duration>) {
    if !idle.stream.is_quiet() {
        return;
    }
    SHELF.with_borrow_mut(|shelf| {
        if shelf.count >= MOST {
            return;
        }
        let row = shelf.rows.entry(key).or_default();
        if row.len() >= MOST_EACH {
            return;
        }
        let until = clock::now() + limit.map_or(LIFE, |limit| limit.min(LIFE));
        row.push(Parked { idle, until, _counted: Counted::new() });
        shelf.count += 1;
        if !std::mem::replace(&mut shelf.is_tended, true) {
            // Not one of those that a drain waits for: it ends with its worker.
            Scope::new().spawn(tend(Cleared));
        }
    });
}

/// Closes everything that the calling worker keeps: for when the process drains.
pub(crate) fn close_all() {
    SHELF.with_borrow_mut(|shelf| {
        shelf.rows.clear();
        shelf.count = 0;
    });
}

/// Looks over the shelf of the calling worker as long as there is something on it.
async fn tend(_end: Cleared) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if !look_over() {
            return;
        }
    }
}

/// Closes what is too old and what its server has closed. Tells whether anything is left.
fn look_over() -> bool {
    let now = clock::now();
    SHELF.with_borrow_mut(|shelf| {
        let mut count = 0;
        shelf.rows.retain(|_, row| {
            row.retain(|parked| now < parked.until && parked.idle.stream.is_quiet());
            count += row.len();
            !row.is_empty()
        });
        shelf.count = count;
        count > 0
    })
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
