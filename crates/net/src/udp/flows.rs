//! The flows of a listener on one worker: who gets a place, whose place is taken, and when all of them have to go.
//!
//! What a flow is and when it ends, [`wmproxy_wire::flow`] decides. What it holds, and where its datagrams go, is for its
//! [`Keeper`] to say.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::hash::Hash;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use wmproxy_runtime::clock::{self, Ticks};
use wmproxy_wire::flow::{EndReason, Ended, FlowId, FlowKey, FlowTable, Limits, Now};

use super::{BATCH, Batch, Sent, UdpSocket};
use crate::eviction::{Holder, Victim};
use crate::limit::{Gate, Permit};
use crate::record::{ListenerMetrics, Outcome, Record, UdpDrop};

/// A flow without a datagram for so long counts as finished when the process wants to stop: any answer that is still
/// under way comes sooner, and a stop should not wait for a whole idle timeout.
const DRAIN_QUIET: Duration = Duration::from_secs(1);

/// How often ended flows are looked for. Expiry may come so much late.
const SWEEP: Duration = Duration::from_millis(100);

/// The flows there are, and whether there may be more. `K` tells them apart, and `T` is what their keeper has for each.
pub struct Flows<T, K = FlowKey> {
    table: RefCell<FlowTable<T, K>>,
    metrics: RefCell<Arc<ListenerMetrics>>,
    gate: RefCell<Arc<Gate>>,
    mode: Cell<Mode>,
    /// The table as the other workers see it, for the limit is one for all.
    holder: Arc<Holder>,
    /// Something may have to be done before what is waited for.
    changed: Notify,
}

/// What becomes of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// New flows are welcome.
    Open,
    /// Those there are may go on as long as they like.
    Finishing,
    /// Those there are end at the first silence.
    Draining,
}

/// Has flows, and sees to their ends.
pub trait Keeper {
    /// What tells its flows apart.
    type Key: Copy + Eq + Hash;
    /// What it has for each.
    type Flow;

    /// Its flows.
    fn flows(&self) -> &Flows<Self::Flow, Self::Key>;

    /// Closes the record of a flow that is no longer among them, and frees what it held.
    fn settle(&self, ended: Ended<Self::Flow, Self::Key>);

    /// When something besides its flows expires.
    fn next_deadline(&self) -> Option<Now> {
        None
    }

    /// Lets that go.
    fn expire(&self) {}
}

/// A keeper whose flows begin at a listener.
pub trait Listening: Keeper {
    /// The listener's socket.
    fn socket(&self) -> &UdpSocket;

    /// Sends on what clients sent.
    fn forward(self: &Rc<Self>, batch: Batch<'_>);
}

/// The present moment of flow tables.
pub fn now() -> Now {
    Now::from_millis(clock::now().0)
}

/// How a flow ended that the table ended for this reason.
pub fn outcome(reason: EndReason, record: &Record) -> Outcome {
    match reason {
        EndReason::Limit => Outcome::Done,
        EndReason::Idle => record.silence(),
        EndReason::Evicted => Outcome::Evicted,
        EndReason::Closed => Outcome::Drained,
    }
}

impl<T, K: Copy + Eq + Hash> Flows<T, K> {
    /// None yet. They get their places from `gate`, and are counted in `metrics`.
    pub fn new(metrics: Arc<ListenerMetrics>, gate: Arc<Gate>, limits: Limits) -> Flows<T, K> {
        Flows {
            table: RefCell::new(FlowTable::new(limits)),
            metrics: RefCell::new(metrics),
            holder: gate.evictions().join(),
            gate: RefCell::new(gate),
            mode: Cell::new(Mode::Open),
            changed: Notify::new(),
        }
    }

    /// Begins flows from now on with other limits and counters; those there are keep what they have.
    pub fn replace(&self, metrics: &Arc<ListenerMetrics>, gate: &Arc<Gate>, limits: Limits) {
        self.metrics.replace(metrics.clone());
        self.gate.replace(gate.clone());
        self.table.borrow_mut().set_limits(limits);
    }

    /// The table, to look something up. Not to be held while a keeper works.
    pub fn table(&self) -> RefMut<'_, FlowTable<T, K>> {
        self.table.borrow_mut()
    }

    /// The counters.
    pub fn metrics(&self) -> Ref<'_, Arc<ListenerMetrics>> {
        self.metrics.borrow()
    }

    /// The limits in common with other workers.
    pub fn gate(&self) -> Ref<'_, Arc<Gate>> {
        self.gate.borrow()
    }

    /// What becomes of flows now.
    pub fn mode(&self) -> Mode {
        self.mode.get()
    }

    /// Lets something else become of them.
    pub fn turn(&self, mode: Mode) {
        self.mode.set(mode);
        self.changed.notify_one();
    }

    /// Has its keeper look again for when to do something.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Whether the last one has gone, and no other will come.
    pub fn is_over(&self) -> bool {
        self.mode.get() != Mode::Open && self.table.borrow().is_empty()
    }

    /// Counts dropped datagrams.
    pub fn count_drop(&self, why: UdpDrop, datagrams: u64) {
        if datagrams > 0 {
            self.metrics.borrow().blocks.local().udp_drops[why as usize].add(datagrams);
        }
    }

    /// Counts what did not go to a client of the `may` datagrams that were to.
    pub fn count_unsent(&self, sent: &Sent, may: usize) {
        // With an error the client's address can't be reached. The flow ends by its timeout if that stays so.
        let unreachable = if sent.error.is_some() { may - sent.settled() } else { 0 };
        self.count_drop(UdpDrop::ClientFull, sent.dropped as u64);
        self.count_drop(UdpDrop::Unreachable, unreachable as u64);
        self.count_drop(UdpDrop::Unfit, sent.unfit as u64);
    }

    /// Puts a flow among the others.
    pub fn insert(&self, key: K, flow: T) -> FlowId {
        // It may end before all others: after a reload timeouts are shorter.
        self.changed.notify_one();
        self.table.borrow_mut().insert(now(), key, flow)
    }

    /// Lets the other workers know since when the oldest idle flow here is idle.
    pub fn tell_oldest(&self) {
        self.holder.tell_oldest(self.table.borrow().oldest().map(|now| Ticks(now.as_millis())));
    }

    /// Whether one more flow of a client may begin, and counts that it came if so. Comes before [`admit`]: who is refused
    /// must not cost another its flow.
    ///
    /// # Errors
    /// Why its datagram is dropped.
    pub fn welcome(&self, client: IpAddr) -> Result<(), UdpDrop> {
        let gate = self.gate.borrow();
        if !gate.has_room_for(client) {
            return Err(UdpDrop::ClientLimit);
        }
        if !gate.admit(client) {
            return Err(UdpDrop::RateLimited);
        }
        Ok(())
    }

    /// How long until the next flow may have ended, or something else has to be done.
    fn next_sweep(&self, deadline: Option<Now>) -> Option<Duration> {
        let expiry = self.table.borrow().next_expiry().into_iter().chain(deadline).min()?;
        let wait = expiry.since(now()).max(SWEEP);
        Some(if self.mode.get() == Mode::Draining { wait.min(SWEEP) } else { wait })
    }

    /// A flow whose time is over.
    fn pop(&self, now: Now) -> Option<Ended<T, K>> {
        let mut table = self.table.borrow_mut();
        let quiet = match self.mode.get() {
            Mode::Draining => table.pop_quiet(now, DRAIN_QUIET),
            Mode::Open | Mode::Finishing => None,
        };
        quiet.or_else(|| table.pop_expired(now))
    }
}

/// Closes a flow that its table ended. A panic in that is logged and goes no further: it must not cost all the others, in
/// whose task most flows end.
pub fn close<K: Keeper>(keeper: &K, ended: Ended<K::Flow, K::Key>) {
    let _ = catch_unwind(AssertUnwindSafe(|| keeper.settle(ended)));
}

/// A place behind the limits. If none is free, the flow that has been idle for longest on any worker makes room; one by one,
/// so that a limit lowered by a reload ends no more flows than there are newcomers.
///
/// # Errors
/// Why the newcomer's datagram is dropped.
pub fn admit<K: Keeper>(keeper: &K, client: IpAddr) -> Result<Permit, UdpDrop> {
    let flows = keeper.flows();
    let gate = flows.gate().clone();
    let mut permit = match gate.try_enter() {
        Some(permit) => permit,
        None => {
            flows.tell_oldest();
            let victim = gate.evictions().make_room(&flows.holder);
            if victim == Victim::Nobody {
                return Err(UdpDrop::NoFlow);
            }
            // Entered first: another worker could be quicker to take the place that is made.
            let permit = gate.enter_anyway();
            if victim == Victim::Own {
                evict_oldest(keeper);
            }
            permit
        }
    };
    if permit.claim(client) { Ok(permit) } else { Err(UdpDrop::ClientLimit) }
}

/// Ends the flow that has been idle for longest. False when there is none.
pub fn evict_oldest<K: Keeper>(keeper: &K) -> bool {
    let oldest = keeper.flows().table().evict_oldest();
    oldest.map(|oldest| close(keeper, oldest)).is_some()
}

/// Ends flows when their time is over, and when other workers need their places, until the last one has gone and no other
/// will come.
pub async fn tend<K: Keeper>(keeper: &K) {
    let flows = keeper.flows();
    let mut sweep = pin!(tokio::time::sleep(SWEEP));
    // Moved when it fires, for most often the flow that it was set for has had traffic since.
    let mut is_set = false;
    while !flows.is_over() {
        if !is_set && let Some(wait) = flows.next_sweep(keeper.next_deadline()) {
            sweep.as_mut().reset(tokio::time::Instant::now() + wait);
            is_set = true;
        }
        tokio::select! {
            biased;
            () = flows.changed.notified() => is_set = false,
            () = flows.holder.asked() => make_room(keeper),
            () = &mut sweep, if is_set => {
                is_set = false;
                keeper.expire();
                let now = now();
                while let Some(ended) = flows.pop(now) {
                    close(keeper, ended);
                }
                flows.tell_oldest();
            }
        }
    }
}

/// Ends as many flows, the oldest idle ones first, as other workers need places.
fn make_room<K: Keeper>(keeper: &K) {
    for _ in 0..keeper.flows().holder.take_asked() {
        if !evict_oldest(keeper) {
            break;
        }
    }
    keeper.flows().tell_oldest();
}

/// Sees a listener through to its end: receives, and [tends](tend) the flows.
pub async fn serve<K: Listening>(keeper: Rc<K>) {
    loop {
        let mut tended = pin!(tend(&*keeper));
        loop {
            tokio::select! {
                biased;
                () = &mut tended => break,
                received = receive(&keeper) => if let Err(error) = received {
                    // Nothing is known to fail here; if something does, it must not spin.
                    tracing::warn!(listener = %keeper.flows().metrics().name, %error, "receiving failed");
                    tokio::time::sleep(SWEEP).await;
                },
            }
        }
        while keeper.flows().is_over() {
            // The tasks of the last flows are gone with their next turn, and hold the socket until then.
            if Rc::strong_count(&keeper) == 1 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Receives one batch from clients and sends it on.
async fn receive<K: Listening>(keeper: &Rc<K>) -> io::Result<()> {
    // A panic here is a defect like any other: it may cost this batch, but not the listener and its other flows.
    let forward = |batch: Batch<'_>| {
        let is_full = batch.len() == BATCH;
        let _ = catch_unwind(AssertUnwindSafe(|| keeper.forward(batch)));
        keeper.flows().tell_oldest();
        is_full
    };
    if keeper.socket().receive(forward).await? {
        // More has queued up. Bounded work for each turn: first the other tasks have theirs, and those of ended flows let
        // their sockets go.
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
