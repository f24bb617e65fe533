//! One port for all associations of a listener.
//!
//! The kernel would spread datagrams over the sockets of several workers by hashing addresses, among them the client's port,
//! which nobody knows before its first datagram: most would meet a worker that has never heard of them. So there is one
//! socket, and the worker whose client came first owns it; all datagrams of its associations are that worker's, whoever has
//! their control connections. Who needs more than one worker for datagrams configures more than one port.
//!
//! Where clients are told apart by nothing but their addresses, two associations of one address that announced no port are
//! given the ports of that address in the order in which the associations were made.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};
use wmproxy_net::connect::ConnectError;
use wmproxy_net::record::{Outcome, Record, UdpDrop};
use wmproxy_net::udp::{BATCH, Batch, Message, Senders, UdpSocket};

use super::places::Places;
use super::session::{SCOPE, Session, Terms};
use crate::lock::lock;

/// A hub as other workers know it.
#[derive(Debug)]
pub(super) struct Handle {
    address: SocketAddr,
    words: mpsc::UnboundedSender<Word>,
    /// How many associations have, or will have, to do with it.
    seats: AtomicUsize,
}

/// What a hub is told. There are no more of them than associations.
#[derive(Debug)]
enum Word {
    Join(Box<Transfer>),
    /// The last seat was left.
    Empty,
}

/// The right to join a hub, and to have it there.
#[derive(Debug)]
pub(super) struct Seat(Arc<Handle>);

/// An association on its way to the hub's worker.
#[derive(Debug)]
pub(super) struct Transfer {
    seat: Seat,
    terms: Terms,
    record: Record,
    stop: Option<oneshot::Receiver<Outcome>>,
    /// Dropped when the association has ended.
    _ended: oneshot::Sender<()>,
}

/// The socket's owner.
pub(super) struct Hub {
    places: Arc<Places>,
    handle: Arc<Handle>,
    /// Those whose client's port is known.
    known: RefCell<HashMap<SocketAddr, Rc<Session>>>,
    /// The others, the oldest first.
    waiting: RefCell<HashMap<IpAddr, Vec<Rc<Session>>>>,
}

impl Hub {
    /// A seat at the hub at `address`; the calling worker opens it if there is none.
    ///
    /// # Errors
    /// The port is taken by somebody else, or is none of ours.
    pub(super) fn seat(places: &Arc<Places>, address: SocketAddr) -> Result<Seat, ConnectError> {
        let mut hubs = lock(&places.hubs);
        let handle = match hubs.get(&address) {
            Some(handle) => handle.clone(),
            None => {
                let socket = Rc::new(UdpSocket::bind(address, Senders::Many)?);
                let (words, heard) = mpsc::unbounded_channel();
                let handle = Arc::new(Handle { address, words, seats: AtomicUsize::new(0) });
                hubs.insert(address, handle.clone());
                let hub = Hub {
                    places: places.clone(),
                    handle: handle.clone(),
                    known: RefCell::default(),
                    waiting: RefCell::default(),
                };
                SCOPE.with(|scope| scope.spawn(Rc::new(hub).run(socket, heard)));
                handle
            }
        };
        handle.seats.fetch_add(1, Ordering::Relaxed);
        Ok(Seat(handle))
    }

    async fn run(self: Rc<Self>, mut socket: Rc<UdpSocket>, mut heard: mpsc::UnboundedReceiver<Word>) {
        loop {
            let forward = |batch: Batch<'_>| {
                let _ = catch_unwind(AssertUnwindSafe(|| self.forward(batch)));
            };
            tokio::select! {
                biased;
                word = heard.recv() => match word {
                    Some(Word::Join(transfer)) => self.clone().admit(*transfer, &socket),
                    Some(Word::Empty) => while self.is_empty() {
                        match self.close(socket) {
                            Ok(()) => return,
                            Err(still_open) => socket = still_open,
                        }
                        // The tasks of the last sessions are gone with their next turn, and hold the socket until then.
                        tokio::task::yield_now().await;
                    },
                    None => return,
                },
                received = socket.receive(forward) => if let Err(error) = received {
                    tracing::warn!(address = %self.handle.address, %error, "receiving datagrams of SOCKS failed");
                    tokio::time::sleep(super::session::SWEEP).await;
                },
            }
            tokio::task::consume_budget().await;
        }
    }

    fn is_empty(&self) -> bool {
        self.handle.seats.load(Ordering::Relaxed) == 0
    }

    /// Gives the port back, if nobody is there who needs it. Whoever finds no hub finds the port free: the socket is closed
    /// before anybody can look.
    fn close(&self, socket: Rc<UdpSocket>) -> Result<(), Rc<UdpSocket>> {
        let mut hubs = lock(&self.places.hubs);
        if !self.is_empty() {
            return Err(socket);
        }
        drop(Rc::try_unwrap(socket)?);
        hubs.remove(&self.handle.address);
        Ok(())
    }

    fn admit(self: Rc<Self>, transfer: Transfer, socket: &Rc<UdpSocket>) {
        let Transfer { seat, terms, record, stop, _ended } = transfer;
        let Some(stop) = stop else { return };
        let session = Session::new(terms, socket.clone(), record);
        self.waiting.borrow_mut().entry(session.client()).or_default().push(session.clone());
        SCOPE.with(|scope| {
            scope.clone().spawn(async move {
                let stopped = async {
                    session.end(stop.await.unwrap_or(Outcome::Drained));
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    biased;
                    () = session.clone().run(false) => {}
                    () = stopped => {}
                }
                self.forget(&session);
                drop(session);
                drop((seat, _ended));
            });
        });
    }

    fn forget(&self, session: &Rc<Session>) {
        if let Some(source) = session.source() {
            self.known.borrow_mut().remove(&source);
        }
        let mut waiting = self.waiting.borrow_mut();
        if let Some(sessions) = waiting.get_mut(&session.client()) {
            sessions.retain(|other| !Rc::ptr_eq(other, session));
            if sessions.is_empty() {
                waiting.remove(&session.client());
            }
        }
    }

    /// Sends a batch on, the messages of each sender together and in their order.
    fn forward(&self, mut batch: Batch<'_>) {
        let mut messages: [Option<Message>; BATCH] = [None; BATCH];
        let count = batch.len();
        for (index, slot) in messages.iter_mut().enumerate().take(count) {
            *slot = Some(batch.take(index));
        }
        let mut together = Vec::with_capacity(count);
        for first in 0..count {
            let Some(message) = messages[first].take() else { continue };
            let from = message.from;
            together.clear();
            together.push(message);
            for later in &mut messages[first + 1..count] {
                together.extend(later.take_if(|later| later.from == from));
            }
            self.forward_sender(from, &batch, &together);
        }
    }

    fn forward_sender(&self, from: Option<SocketAddr>, batch: &Batch<'_>, messages: &[Message]) {
        let known = from.and_then(|from| self.known.borrow().get(&from).cloned());
        if let Some(session) = known {
            return session.guarded(|| session.forward(batch, messages.iter()));
        }
        let waiting = from.and_then(|from| {
            let waiting = self.waiting.borrow();
            let sessions = waiting.get(&from.ip().to_canonical())?;
            let expects = |session: &&Rc<Session>| session.announced() == Some(from.port());
            let first = || sessions.iter().find(|session| session.announced().is_none());
            sessions.iter().find(expects).or_else(first).cloned()
        });
        let Some(session) = waiting else {
            let metrics = self.any_metrics();
            if let Some(metrics) = metrics {
                let datagrams: usize = messages.iter().map(Message::count).sum();
                metrics.blocks.local().udp_drops[UdpDrop::Stranger as usize].add(datagrams as u64);
            }
            return;
        };
        session.guarded(|| session.forward(batch, messages.iter()));
        if let Some(source) = session.source() {
            self.forget(&session);
            self.known.borrow_mut().insert(source, session);
        }
    }

    /// The counters of the listener, which all sessions have.
    fn any_metrics(&self) -> Option<Arc<wmproxy_net::record::ListenerMetrics>> {
        let known = self.known.borrow().values().next().cloned();
        let any = known.or_else(|| self.waiting.borrow().values().flatten().next().cloned());
        any.map(|session| session.metrics().clone())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // At the end of its worker.
        let mut hubs = lock(&self.places.hubs);
        if hubs.get(&self.handle.address).is_some_and(|handle| Arc::ptr_eq(handle, &self.handle)) {
            hubs.remove(&self.handle.address);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.0.seats.fetch_sub(1, Ordering::AcqRel) == 1 {
            // A hub that is gone needs no telling.
            let _ = self.0.words.send(Word::Empty);
        }
    }
}

impl Transfer {
    /// One to send, and what is closed when the association has ended.
    pub(super) fn new(seat: Seat, terms: Terms, record: Record) -> (Transfer, oneshot::Receiver<()>) {
        let (ended, told) = oneshot::channel();
        (Transfer { seat, terms, record, stop: None, _ended: ended }, told)
    }

    /// Hands it to the hub. Answers by what it is told to stop; none if there is no hub any more.
    pub(super) fn send(mut self) -> Option<oneshot::Sender<Outcome>> {
        let (stop, told) = oneshot::channel();
        self.stop = Some(told);
        let handle = self.seat.0.clone();
        handle.words.send(Word::Join(Box::new(self))).ok().map(|()| stop)
    }
}
