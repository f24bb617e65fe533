//! UDP listeners: one task of each worker receives from clients, one task of each flow receives from its peer.
//!
//! What a flow is and when it ends, [`wmproxy_wire::flow`] decides; here are the sockets, the leases and the records.
//! A datagram mostly belongs to the flow of the address that it came from, and takes the short way (`requests`). Where
//! a PROXY header or QUIC has a say in it, `opening` finds out first what there is to know.

mod cargo;
mod cids;
mod flows;
mod greeting;
mod held;
mod lanes;
mod opening;
mod police;
mod requests;
mod responses;

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use wmproxy_net::eviction::Holder;
use wmproxy_net::listen::Listener;
use wmproxy_net::record::{AccessLog, UdpDrop};
use wmproxy_net::udp::{BATCH, Batch, UdpSocket};
use wmproxy_runtime::clock::{self, Ticks};
use wmproxy_runtime::scope::Scope;
use wmproxy_upstream::Group;
use wmproxy_upstream::balance::HashKey;
use wmproxy_wire::flow::{FlowTable, Limits, Now};

use crate::options::StreamSpec;
use crate::route::Routes;
use cids::Cids;
use flows::{Flow, Shunned};
use held::Held;
use lanes::Lanes;
use opening::Opening;

/// A flow without a datagram for so long counts as finished when the process wants to stop: any answer that is still
/// under way comes sooner, and a stop should not wait for a whole idle timeout.
const DRAIN_QUIET: Duration = Duration::from_secs(1);

/// How often ended flows are looked for. Expiry may come so much late.
const SWEEP: Duration = Duration::from_millis(100);

/// What is done with the datagrams of a listener; a reload puts another in its place.
#[derive(Clone)]
pub struct UdpService {
    /// The listener's settings.
    pub spec: StreamSpec,
    /// Where datagrams go.
    pub routes: Arc<Routes<Arc<Group>>>,
    /// Where records go.
    pub log: Option<Arc<dyn AccessLog>>,
}

/// A listener at work on this worker. It ends when it was told to and its last flow has; its socket goes with it.
pub struct UdpListener(Weak<Inner>);

struct Inner {
    listener: RefCell<Arc<Listener>>,
    socket: UdpSocket,
    /// Shared with those flows that began under it.
    service: RefCell<Rc<UdpService>>,
    table: RefCell<FlowTable<Flow>>,
    /// Peers that just failed a client, so that its next datagram goes elsewhere.
    shunned: RefCell<Shunned>,
    /// Flows depend on more than where datagrams come from: on a PROXY header, or on what QUIC tells.
    is_special: Cell<bool>,
    /// Clients that have not said yet whom they want.
    held: RefCell<Held<Opening>>,
    lanes: Lanes,
    /// Where QUIC connections go, if the listener is to follow them.
    cids: RefCell<Option<Arc<Cids>>>,
    mode: Cell<Mode>,
    /// The table as the other workers see it, for the limit is one for all.
    holder: Arc<Holder>,
    /// A flow has begun that may end before all others.
    is_sooner: Cell<bool>,
    changed: Notify,
    scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// New flows are welcome.
    Open,
    /// Those there are may go on as long as they like.
    Finishing,
    /// Those there are end at the first silence.
    Draining,
}

impl UdpListener {
    /// Begins to receive on this worker. The listener and its flows are tasks of `scope`.
    ///
    /// # Errors
    /// The worker's event queue takes no more.
    pub fn start(
        listener: Arc<Listener>,
        worker: usize,
        service: UdpService,
        scope: Scope,
    ) -> io::Result<UdpListener> {
        let socket = UdpSocket::new(listener.bound.socket(worker))?;
        let table = FlowTable::new(limits(&service.spec));
        let holder = listener.gate.evictions().join();
        let inner = Rc::new(Inner {
            listener: RefCell::new(listener),
            socket,
            service: RefCell::new(Rc::new(service)),
            table: RefCell::new(table),
            shunned: RefCell::default(),
            is_special: Cell::new(false),
            held: RefCell::default(),
            lanes: Lanes::default(),
            cids: RefCell::default(),
            mode: Cell::new(Mode::Open),
            holder,
            is_sooner: Cell::new(false),
            changed: Notify::new(),
            scope: scope.clone(),
        });
        inner.specialise();
        let listener = UdpListener(Rc::downgrade(&inner));
        scope.spawn(inner.run());
        Ok(listener)
    }

    /// Begins flows from now on with something else, and counts them in `listener`, which has the same sockets. Those
    /// there are keep what they have. Opens a listener again that was told to finish; false when it has ended.
    pub fn replace(&self, listener: &Arc<Listener>, service: &UdpService) -> bool {
        let Some(inner) = self.0.upgrade() else { return false };
        inner.listener.replace(listener.clone());
        inner.table.borrow_mut().set_limits(limits(&service.spec));
        inner.service.replace(Rc::new(service.clone()));
        inner.specialise();
        inner.turn(Mode::Open);
        true
    }

    /// Begins no more flows, and ends with the last one there is.
    pub fn finish(&self) {
        self.turn(Mode::Finishing);
    }

    /// Begins no more flows, and ends each at its first silence: the process wants to stop.
    pub fn drain(&self) {
        self.turn(Mode::Draining);
    }

    fn turn(&self, mode: Mode) {
        if let Some(inner) = self.0.upgrade() {
            inner.turn(mode);
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl UdpService {
    /// Whether QUIC connections are to be known again from another address.
    fn follows_quic(&self) -> bool {
        let by_cid = |group: &Arc<Group>| group.spec().balance.hash_key() == Some(&HashKey::QuicCid);
        self.spec.quic || !self.routes.is_plain() || self.routes.destinations().any(by_cid)
    }
}

fn limits(spec: &StreamSpec) -> Limits {
    Limits {
        idle_timeout: spec.idle_timeout,
        max_requests: spec.max_requests,
        max_responses: spec.max_responses,
    }
}

fn now() -> Now {
    Now::from_millis(clock::now().0)
}

impl Inner {
    async fn run(self: Rc<Self>) {
        let sweep = tokio::time::sleep(SWEEP);
        tokio::pin!(sweep);
        // Moved when it fires, for most often the flow that it was set for has had traffic since; and when a flow with a
        // shorter timeout comes, after a reload.
        let mut is_set = false;
        loop {
            tokio::select! {
                biased;
                () = self.changed.notified() => is_set = false,
                () = self.holder.asked() => self.make_room(),
                () = &mut sweep, if is_set => {
                    self.sweep();
                    is_set = false;
                }
                received = self.receive() => if let Err(error) = received {
                    // Nothing is known to fail here; if something does, it must not spin.
                    tracing::warn!(listener = %self.listener.borrow().metrics.name, %error, "receiving failed");
                    tokio::time::sleep(SWEEP).await;
                },
            }
            if (!is_set || self.is_sooner.take())
                && let Some(wait) = self.next_sweep()
            {
                sweep.as_mut().reset(tokio::time::Instant::now() + wait);
                is_set = true;
            }
            while self.mode.get() != Mode::Open && self.table.borrow().is_empty() {
                // The tasks of the last flows are gone with their next turn, and hold the socket until then.
                if Rc::strong_count(&self) == 1 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Gets ready for what the service asks for. What flows there are have learned stays known.
    fn specialise(&self) {
        let service = self.service.borrow().clone();
        let follows = service.follows_quic() || !self.lanes.is_empty();
        if follows && self.cids.borrow().is_none() {
            self.cids.replace(Some(Cids::of(&self.listener.borrow().gate)));
        } else if !follows {
            self.cids.replace(None);
        }
        self.is_special.set(follows || service.spec.trusted.is_some());
    }

    fn turn(&self, mode: Mode) {
        self.mode.set(mode);
        if mode != Mode::Open {
            self.drop_held();
        }
        self.changed.notify_one();
    }

    /// How long until the next flow may have ended.
    fn next_sweep(&self) -> Option<Duration> {
        let (flow, held) = (self.table.borrow().next_expiry(), self.held.borrow().next_deadline());
        let expiry = flow.into_iter().chain(held).min()?;
        let wait = expiry.since(now()).max(SWEEP);
        Some(if self.mode.get() == Mode::Draining { wait.min(SWEEP) } else { wait })
    }

    fn sweep(&self) {
        self.expire_held();
        let now = now();
        loop {
            let mut table = self.table.borrow_mut();
            let ended = match self.mode.get() {
                Mode::Draining => table.pop_quiet(now, DRAIN_QUIET),
                _ => None,
            };
            let ended = ended.or_else(|| table.pop_expired(now));
            drop(table);
            match ended {
                Some(ended) => flows::close(ended),
                None => return self.tell_oldest(),
            }
        }
    }

    /// Receives one batch from clients and sends it on.
    async fn receive(self: &Rc<Self>) -> io::Result<()> {
        // A panic here is a defect like any other: it may cost this batch, but not the listener and its other flows.
        let forward = |batch: Batch<'_>| {
            let is_full = batch.len() == BATCH;
            let _ = catch_unwind(AssertUnwindSafe(|| self.forward(batch)));
            self.tell_oldest();
            is_full
        };
        if self.socket.receive(forward).await? {
            // More has queued up. Bounded work for each turn: first the other tasks have theirs, and those of ended
            // flows let their sockets go.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Ends as many flows, the oldest idle ones first, as other workers need places.
    fn make_room(&self) {
        for _ in 0..self.holder.take_asked() {
            let oldest = self.table.borrow_mut().evict_oldest();
            let Some(oldest) = oldest else { break };
            flows::close(oldest);
        }
        self.tell_oldest();
    }

    /// Lets the other workers know since when the oldest idle flow here is idle.
    fn tell_oldest(&self) {
        self.holder.tell_oldest(self.table.borrow().oldest().map(|now| Ticks(now.as_millis())));
    }

    fn count_drop(&self, why: UdpDrop, datagrams: u64) {
        self.listener.borrow().metrics.blocks.local().udp_drops[why as usize].add(datagrams);
    }
}
