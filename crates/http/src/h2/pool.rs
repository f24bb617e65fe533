//! Connections to peers that speak HTTP/2: each is shared by the requests of its worker.
//!
//! A request takes the first connection that has room for one more stream, and makes a new one where none has. Whoever
//! comes while one is being made waits for that one, so a burst after a quiet time does not open one for each. A
//! connection without requests is closed after the group's `idle_timeout`, and one to a peer that was ejected, found down
//! or taken out gets no new ones.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::sync::{Notify, OnceCell};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock;
use wmproxy_runtime::scope::Scope;
use wmproxy_upstream::idle::Place;
use wmproxy_upstream::{Connected, IdleKey, Peer};
use wmproxy_wire::head::Scheme;

use super::body::PIECE;
use super::io::Io;
use super::peer::PeerStream;
use crate::exchange::Line;
use crate::timer::Timer;

/// How much of a response may be on its way before its client takes it; see the same for requests.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all responses of a connection together. Wider than for one, or a client that does not read would stop
/// those of the others.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// The largest head of a response; as for HTTP/1.
const HEAD: u32 = 64 * 1024;

/// Streams of one connection before the next is opened, where the peer would take more: beyond that one slow reader of the
/// connection's window is felt by too many.
const STREAMS: usize = 100;

thread_local! {
    static POOL: RefCell<HashMap<IdleKey, Rc<Slot>>> = RefCell::default();
    /// The tasks that drive connections. Nobody waits for their end: it is the end of their last request.
    static DRIVERS: Scope = Scope::new();
}

/// The connections that may stand in for each other.
#[derive(Debug, Default)]
struct Slot {
    shared: RefCell<Vec<Shared>>,
    /// Told when a connection that was being made is there, or is not to be.
    made: Notify,
    is_making: Cell<bool>,
}

#[derive(Debug)]
struct Shared {
    connection: SendRequest<Bytes>,
    common: Rc<Common>,
    scheme: Scheme,
    /// The peer's [epoch](wmproxy_upstream::Peer::idle_epoch) when it was made.
    epoch: u64,
    number: u64,
}

/// What the streams of a connection have in common.
struct Common {
    /// How many are in use.
    active: Cell<usize>,
    /// Filled when the peer is known to have said what it takes.
    heard: OnceCell<()>,
    ping: RefCell<Option<PingPong>>,
    /// Whose connection it is, where it outlives its requests.
    peer: Option<Arc<Peer>>,
    /// While none is in use.
    idle: Cell<Option<Place>>,
}

impl Common {
    fn new(ping: Option<PingPong>, peer: Option<Arc<Peer>>) -> Rc<Common> {
        let (active, idle) = (Cell::new(0), Cell::new(None));
        Rc::new(Common { active, heard: OnceCell::new(), ping: RefCell::new(ping), peer, idle })
    }

    fn enter(self: &Rc<Self>) -> Entered {
        self.idle.take();
        self.active.set(self.active.get() + 1);
        Entered(Rc::clone(self))
    }
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").field("active", &self.active).finish_non_exhaustive()
    }
}

/// One of a connection's streams, until it is dropped.
#[derive(Debug)]
pub(super) struct Entered(Rc<Common>);

impl Entered {
    /// Waits until the peer has said what it takes. Its settings come before everything else, so that the answer to a PING says
    /// that they are here; one that does not answer is heard as far as it ever will be.
    pub(super) async fn hear(&self) {
        let ping = &self.0.ping;
        let heard = self.0.heard.get_or_init(|| async {
            // One that is on its way already, for somebody who waited no longer, does as well.
            let _ = ping.borrow_mut().as_mut().map(|ping| ping.send_ping(Ping::opaque()));
            poll_fn(|cx| match ping.borrow_mut().as_mut() {
                Some(ping) => ping.poll_pong(cx).map(drop),
                None => Poll::Ready(()),
            })
            .await;
        });
        heard.await;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let left = self.0.active.get() - 1;
        self.0.active.set(left);
        if left == 0 {
            self.0.idle.set(self.0.peer.as_ref().map(|peer| peer.count_idle()));
        }
    }
}

/// The right to make a connection; the others wait until it is used or dropped.
#[derive(Debug)]
pub(crate) struct Making {
    /// None where nobody waits.
    key: Option<IdleKey>,
    /// Whom the connection is to, where it is to be shared.
    peer: Option<Arc<Peer>>,
    slot: Rc<Slot>,
    epoch: u64,
}

/// Either a stream, or the right to make a connection for one.
#[derive(Debug)]
pub(crate) enum Found {
    /// A stream of a connection that is there.
    Stream(PeerStream),
    /// None has room.
    Nothing(Making),
}

/// Looks for a connection with room for a request. To be called on a worker.
pub(crate) async fn find(key: IdleKey, peer: &Arc<Peer>) -> Found {
    let epoch = peer.idle_epoch();
    let slot = POOL.with_borrow_mut(|pool| pool.entry(key).or_default().clone());
    loop {
        if let Some(stream) = slot.take(epoch) {
            return Found::Stream(stream);
        }
        let made = slot.made.notified();
        if !slot.is_making.replace(true) {
            return Found::Nothing(Making {
                key: Some(key),
                peer: Some(Arc::clone(peer)),
                slot: slot.clone(),
                epoch,
            });
        }
        made.await;
    }
}

impl Slot {
    /// A stream of the first connection that has room. Those that take no more requests are forgotten.
    fn take(&self, epoch: u64) -> Option<PeerStream> {
        let mut shared = self.shared.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        let mut at = 0;
        while let Some(Shared { connection, scheme, epoch: own, common, .. }) = shared.get_mut(at) {
            let is_usable = *own == epoch && !matches!(connection.poll_ready(&mut cx), Poll::Ready(Err(_)));
            if !is_usable {
                // Its requests go on; it ends with the last of them.
                shared.swap_remove(at);
                continue;
            }
            let most = connection.current_max_send_streams().min(STREAMS);
            if common.active.get() < most {
                return Some(PeerStream::new(connection.clone(), *scheme, common.enter()));
            }
            at += 1;
        }
        None
    }
}

impl Making {
    /// The right to make a connection that nobody else is to use.
    pub(crate) fn alone() -> Making {
        Making { key: None, peer: None, slot: Rc::default(), epoch: 0 }
    }

    /// Begins what a new connection speaks: HTTP/2, of which the first stream is given, unless TLS agreed on something
    /// else.
    ///
    /// # Errors
    /// It ended before it had begun.
    pub(crate) async fn begin(self, connected: Connected, idle_timeout: Duration) -> Result<Line, h2::Error> {
        let scheme = match (&connected.tls, connected.alpn()) {
            (None, _) => Scheme::Http,
            (Some(_), Some(b"h2")) => Scheme::Https,
            (Some(_), _) => return Ok(Line::H1(connected.stream)),
        };
        let stream = self.first_stream(connected.stream, scheme, idle_timeout).await?;
        Ok(Line::H2(Box::new(stream)))
    }

    async fn first_stream(
        self,
        stream: Stream,
        scheme: Scheme,
        idle_timeout: Duration,
    ) -> Result<PeerStream, h2::Error> {
        let (connection, mut driven) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD)
            .max_send_buffer_size(2 * PIECE)
            .handshake(Io::new(stream, None))
            .await?;
        let number = clock::precise();
        let common = Common::new(driven.ping_pong(), self.peer.clone());
        let entered = common.enter();
        let shared = Shared { connection: connection.clone(), common, scheme, epoch: self.epoch, number };
        if self.key.is_some() {
            self.slot.shared.borrow_mut().push(shared);
        }
        let (slot, key) = (self.slot.clone(), self.key);
        DRIVERS.with(|drivers| {
            drivers.spawn(async move {
                drive(driven, &slot, number, idle_timeout).await;
                if let Some(key) = key {
                    slot.forget(key, number);
                }
            });
        });
        Ok(PeerStream::new(connection.ready().await?, scheme, entered))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.slot.is_making.set(false);
        self.slot.made.notify_waiters();
    }
}

impl Slot {
    fn forget(self: &Rc<Self>, key: IdleKey, number: u64) {
        self.shared.borrow_mut().retain(|shared| shared.number != number);
        let is_empty = self.shared.borrow().is_empty() && !self.is_making.get();
        // At the end of the thread the pool may be gone first.
        let _ = POOL.try_with(|pool| {
            if is_empty
                && let Ok(mut pool) = pool.try_borrow_mut()
                // Nobody is about to look into it: there are this handle and the pool's.
                && pool.get(&key).is_some_and(|slot| Rc::ptr_eq(slot, self) && Rc::strong_count(slot) <= 2)
            {
                pool.remove(&key);
            }
        });
    }

    fn active(&self, number: u64) -> Option<usize> {
        let shared = self.shared.borrow();
        let own = shared.iter().find(|shared| shared.number == number)?;
        Some(own.common.active.get())
    }
}

/// Lets a connection do its work until it ends, which it does by itself when nobody has a handle of it.
async fn drive(mut driven: Connection<Io, Bytes>, slot: &Slot, number: u64, idle_timeout: Duration) {
    let sleep = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(sleep);
    let mut timer = Timer::new(sleep);
    let mut busy = clock::now();
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = std::pin::Pin::new(&mut driven).poll(cx) {
                return Poll::Ready(ended);
            }
            // With requests under way it looks again only after another while.
            if slot.active(number) != Some(0) {
                busy = clock::now();
            }
            ready!(timer.poll_until(cx, busy + idle_timeout));
            if slot.active(number) == Some(0) {
                slot.shared.borrow_mut().retain(|shared| shared.number != number);
            }
            busy = clock::now();
        }
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "an HTTP/2 connection to a peer ends");
    }
}

/// Lets go of the connections to peers that the calling worker's requests of HTTP/2 share, for when the process drains: each
/// ends with the last of its requests.
pub fn close_all() {
    POOL.with_borrow(|pool| pool.values().for_each(|slot| slot.shared.borrow_mut().clear()));
}
