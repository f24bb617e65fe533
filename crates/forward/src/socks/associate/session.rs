//! An association at work: its sockets, its clock and its account.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use wmproxy_http::forward::Guest;
use wmproxy_net::limit::{Direction, Gate};
use wmproxy_net::record::{ListenerMetrics, Outcome, Record, UdpDrop};
use wmproxy_net::udp::{BATCH, Batch, Message, Sent, UdpSocket};
use wmproxy_runtime::clock::{self, Ticks};
use wmproxy_runtime::scope::{Leash, Scope};

use super::held::Held;
use super::link::Link;
use super::targets::Targets;
use crate::socks::{Allowance, SocksGateway};

/// An association without a datagram for so long counts as finished when its listener is going, as a flow of a UDP listener
/// does: any answer that is still under way comes sooner.
const DRAIN_QUIET: Duration = Duration::from_secs(1);

/// How often silence is looked for at most. The end may come so much late.
pub(super) const SWEEP: Duration = Duration::from_millis(100);

thread_local! {
    /// The tasks of associations. Nobody waits for their end: it is the end of their control connections.
    pub(super) static SCOPE: Scope = Scope::new();
}

/// What an association keeps to.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) client: IpAddr,
    /// The port that the client announced.
    pub(super) announced: Option<u16>,
    pub(super) guest: Arc<dyn Guest>,
    pub(super) gateway: Arc<dyn SocksGateway>,
    /// How fast the bytes of the listener's connections pass together.
    pub(super) listener: Arc<Gate>,
    /// The same of the guest's, and more.
    pub(super) allowance: Allowance,
    pub(super) idle_timeout: Duration,
    pub(super) retired: watch::Receiver<bool>,
}

/// An association, on the worker that its datagrams come to.
pub(super) struct Session {
    pub(super) terms: Terms,
    /// What the client sends to, its own or everybody's.
    pub(super) inlet: Rc<UdpSocket>,
    /// Where the client sends from, once that is known.
    source: Cell<Option<SocketAddr>>,
    /// The address of ours that the client sent to last, where there are several.
    pub(super) local: Cell<Option<IpAddr>>,
    /// What leaves by IPv4 and by IPv6, opened for the first destination of each.
    outlets: [OnceCell<UdpSocket>; 2],
    pub(super) targets: RefCell<Targets>,
    pub(super) held: RefCell<Held>,
    pub(super) links: RefCell<Vec<Rc<Link>>>,
    record: RefCell<Record>,
    metrics: Arc<ListenerMetrics>,
    /// When a datagram passed last.
    last: Cell<Ticks>,
    ended: Cell<Option<Outcome>>,
    bell: Notify,
    /// The tasks that receive from peers.
    tasks: RefCell<Vec<Leash>>,
}

/// Ends the tasks of a session, which hold it.
struct Tidy(Rc<Session>);

impl Drop for Tidy {
    fn drop(&mut self) {
        self.0.tasks.borrow_mut().clear();
        self.0.held.borrow_mut().clear();
        // The task of a link holds that, too.
        self.0.links.borrow_mut().drain(..).for_each(|link| link.end());
    }
}

impl Session {
    pub(super) fn new(terms: Terms, inlet: Rc<UdpSocket>, record: Record) -> Rc<Session> {
        let metrics = record.metrics().clone();
        Rc::new(Session {
            terms,
            inlet,
            source: Cell::default(),
            local: Cell::default(),
            outlets: Default::default(),
            targets: RefCell::default(),
            held: RefCell::default(),
            links: RefCell::default(),
            record: RefCell::new(record),
            metrics,
            last: Cell::new(clock::now()),
            ended: Cell::default(),
            bell: Notify::new(),
            tasks: RefCell::default(),
        })
    }

    /// Where the client sends from, once that is known.
    pub(super) fn source(&self) -> Option<SocketAddr> {
        self.source.get()
    }

    /// The address that the client sends from.
    pub(super) fn client(&self) -> IpAddr {
        self.terms.client
    }

    /// The port that the client announced.
    pub(super) fn announced(&self) -> Option<u16> {
        self.terms.announced
    }

    pub(super) fn metrics(&self) -> &Arc<ListenerMetrics> {
        &self.metrics
    }

    /// The whole life of an association. `hears` says that its client's datagrams come to a socket of its own, and
    /// nobody else hands them over.
    pub(super) async fn run(self: Rc<Self>, hears: bool) {
        let _tidy = Tidy(self.clone());
        let mut retired = self.terms.retired.clone();
        let mut may_retire = true;
        let sleep = tokio::time::sleep(self.terms.idle_timeout);
        tokio::pin!(sleep);
        loop {
            if let Some(outcome) = self.ended.get() {
                return self.record.borrow_mut().close(outcome);
            }
            let forward = |batch: Batch<'_>| self.guarded(|| self.forward_all(batch));
            tokio::select! {
                biased;
                () = self.bell.notified() => {}
                // Moved when it fires, for most often there has been traffic since it was set.
                () = &mut sleep => sleep.as_mut().reset(tokio::time::Instant::now() + self.look()),
                told = retired.changed(), if may_retire => {
                    may_retire = told.is_ok() && !*retired.borrow();
                    sleep.as_mut().reset(tokio::time::Instant::now());
                }
                received = self.inlet.receive(forward), if hears => if let Err(error) = received {
                    // Nothing is known to fail here; if something does, it must not spin.
                    tracing::warn!(listener = %self.metrics.name, %error, "receiving datagrams of SOCKS failed");
                    self.end(Outcome::NoResources);
                },
            }
            tokio::task::consume_budget().await;
        }
    }

    fn forward_all(self: &Rc<Self>, mut batch: Batch<'_>) {
        let mut messages: [Option<Message>; BATCH] = [None; BATCH];
        for (index, slot) in messages.iter_mut().enumerate().take(batch.len()) {
            *slot = Some(batch.take(index));
        }
        self.forward(&batch, messages.iter().flatten());
    }

    /// Ends the association if it has been silent for too long; answers when to look again.
    fn look(&self) -> Duration {
        let limit = match *self.terms.retired.borrow() {
            true => self.terms.idle_timeout.min(DRAIN_QUIET),
            false => self.terms.idle_timeout,
        };
        let silent = clock::now().since(self.last.get());
        if silent >= limit {
            let silence = self.record.borrow().silence();
            self.end(silence);
        }
        limit.saturating_sub(silent).max(SWEEP)
    }

    /// Ends the association. The first word counts.
    pub(super) fn end(&self, outcome: Outcome) {
        if self.ended.get().is_none() {
            self.ended.set(Some(outcome));
            self.bell.notify_one();
        }
    }

    /// Does work whose panic, a defect like any other, costs this association and no other.
    pub(super) fn guarded(&self, work: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.end(Outcome::Panicked);
        }
    }

    /// Starts a task that ends with the session.
    pub(super) fn start(&self, task: impl Future<Output = ()> + 'static) {
        let leash = SCOPE.with(|scope| scope.spawn_leashed(task));
        self.tasks.borrow_mut().push(leash);
    }

    /// Whether a message comes from the client, as far as that is known.
    pub(super) fn is_from_client(&self, message: &Message) -> bool {
        match (self.source.get(), message.from) {
            (Some(source), Some(from)) => source == from,
            (None, Some(from)) => {
                let is_announced = self.terms.announced.is_none_or(|port| port == from.port());
                // Nobody can be answered at port 0.
                from.ip().to_canonical() == self.terms.client && is_announced && from.port() != 0
            }
            (_, None) => false,
        }
    }

    /// Takes whoever sent a datagram that makes sense for the client from now on.
    pub(super) fn lock_to(&self, message: &Message) {
        if self.source.get().is_none() {
            self.source.set(message.from);
        }
        if message.local.is_some() {
            self.local.set(message.local);
        }
    }

    /// The socket for destinations of a family.
    ///
    /// # Errors
    /// There is none yet, and none can be opened.
    pub(super) fn outlet(self: &Rc<Self>, is_ipv4: bool) -> io::Result<&UdpSocket> {
        let slot = &self.outlets[usize::from(!is_ipv4)];
        if let Some(socket) = slot.get() {
            return Ok(socket);
        }
        let socket = UdpSocket::outward(is_ipv4, &self.terms.allowance.socket, Some(self.terms.client))?;
        self.start(self.clone().hear(is_ipv4));
        Ok(slot.get_or_init(|| socket))
    }

    /// The task of such a socket: receives from peers until the association has ended.
    async fn hear(self: Rc<Self>, is_ipv4: bool) {
        let Some(socket) = self.outlets[usize::from(!is_ipv4)].get() else { return };
        loop {
            let received = socket.receive(|batch: Batch<'_>| self.guarded(|| self.pass_back(batch))).await;
            if let Err(error) = received {
                tracing::warn!(listener = %self.metrics.name, %error, "receiving datagrams for SOCKS failed");
                return self.end(Outcome::NoResources);
            }
            tokio::task::consume_budget().await;
        }
    }

    fn paces(&self) -> impl Iterator<Item = &Arc<Gate>> {
        self.terms.allowance.pace.iter().chain([&self.terms.listener])
    }

    /// Whether bytes are limited in a direction at all.
    pub(super) fn is_paced(&self, direction: Direction) -> bool {
        self.paces().any(|gate| gate.meter(direction).is_limited())
    }

    /// Whether a datagram may pass now.
    pub(super) fn admits(&self, direction: Direction, bytes: usize) -> bool {
        let now = clock::precise();
        self.paces().all(|gate| gate.meter(direction).admit(now, bytes as u64))
    }

    /// Accounts for datagrams of which `pushed` were to be sent; so many of the bytes that were are headers.
    pub(super) fn settle(&self, direction: Direction, sent: &Sent, pushed: usize, headers: usize) {
        self.last.set(clock::now());
        let full = match direction {
            Direction::Up => UdpDrop::PeerFull,
            Direction::Down => UdpDrop::ClientFull,
        };
        self.count_drop(full, sent.dropped);
        self.count_drop(UdpDrop::Unfit, sent.unfit);
        self.count_drop(UdpDrop::Unreachable, pushed.saturating_sub(sent.settled()));
        let (datagrams, bytes) = (sent.datagrams as u64, sent.bytes.saturating_sub(headers) as u64);
        let mut record = self.record.borrow_mut();
        match direction {
            Direction::Up => record.add_datagrams_in(datagrams, bytes),
            Direction::Down => record.add_datagrams_out(datagrams, bytes),
        }
        if !self.terms.guest.spend(bytes) {
            self.end(Outcome::Quota);
        }
    }

    pub(super) fn count_drop(&self, why: UdpDrop, datagrams: usize) {
        if datagrams > 0 {
            self.metrics.blocks.local().udp_drops[why as usize].add(datagrams as u64);
        }
    }

    /// To note where the first datagram went.
    pub(super) fn record(&self) -> std::cell::RefMut<'_, Record> {
        self.record.borrow_mut()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("client", &self.terms.client).finish_non_exhaustive()
    }
}
