//! Connections to peers that speak HTTP/2: each is shared by the requests of its worker.
//!
//! A request takes the first connection that has room for one more stream, and makes a new one where none has. Whoever
//! comes while one is being made waits for that one, so a burst after a quiet time does not open one for each. A
//! connection without requests is closed after the group's `idle_timeout`, and one to a peer that was ejected, found down
//! or taken out gets no new ones.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::sync::Notify;
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock;
use wmproxy_runtime::scope::Scope;
use wmproxy_upstream::{Connected, IdleKey, Peer};
use wmproxy_wire::head::Scheme;

use super::body::{FRAME, PIECE, TUNNEL_FRAME};
use super::common::{Common, Entered};
use super::io::Io;
use super::peer::PeerStream;
use crate::exchange::Line;
use crate::timer::Timer;

/// The largest head of a response; as for HTTP/1.
const HEAD: u32 = 64 * 1024;

/// What a connection carries, by which it has more room for one thing or the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// How much of a stream may be on its way before it is taken; see the same for requests of clients.
    stream: u32,
    /// The same for all streams of a connection together.
    connection: u32,
    /// How much of a stream waits for its turn to be written.
    sending: usize,
    /// The largest frame that may come.
    frame: u32,
    /// Streams of one connection before the next is opened, where the peer would take more.
    streams: usize,
}

/// For requests. The window of the connection is wider than for one of them, or a client that does not read would stop the
/// responses of the others; beyond so many streams one slow reader of it is felt by too many.
pub(super) const REQUESTS: Room =
    Room { stream: 256 * 1024, connection: 16 * 1024 * 1024, sending: 2 * PIECE, frame: FRAME, streams: 100 };

/// For tunnels, which last, and of which many may have a reader that stopped: the window of the connection has room for all of
/// them, so that none stops another. More is sent at a time than of requests, for a tunnel may have a gigabyte to carry.
pub(super) const TUNNELS: Room = Room {
    stream: 256 * 1024,
    connection: 64 * 256 * 1024,
    sending: 4 * PIECE,
    frame: TUNNEL_FRAME,
    streams: 64,
};

/// What tells connections apart that may stand in for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// To a peer of a group.
    Peer(IdleKey),
    /// To a proxy: the number of the [hop](super::hop::Hop), and which of its proxies.
    Hop(u64, u64),
}

thread_local! {
    static POOL: RefCell<HashMap<Key, Rc<Slot>>> = RefCell::default();
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
    common: Arc<Common>,
    scheme: Scheme,
    /// So many streams it may have.
    streams: usize,
    /// The peer's [epoch](wmproxy_upstream::Peer::idle_epoch) when it was made.
    epoch: u64,
    number: u64,
}

/// The right to make a connection; the others wait until it is used or dropped.
#[derive(Debug)]
pub(crate) struct Making {
    /// None where nobody waits.
    key: Option<Key>,
    room: Room,
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

/// A connection with room for a stream, and the stream's place on it.
#[derive(Debug)]
pub(super) struct Free {
    /// It has just said that it is ready for one.
    pub(super) connection: SendRequest<Bytes>,
    pub(super) scheme: Scheme,
    pub(super) place: Entered,
}

/// Looks for a connection with room for a request. To be called on a worker.
pub(crate) async fn find(key: IdleKey, peer: &Arc<Peer>) -> Found {
    match find_free(Key::Peer(key), Some(peer), REQUESTS).await {
        Ok(free) => Found::Stream(PeerStream::new(free)),
        Err(making) => Found::Nothing(making),
    }
}

/// Looks for a connection with room for a tunnel to a proxy, or gives the right to make one. To be called on a worker.
pub(super) async fn find_tunnel(hop: u64, proxy: u64) -> Result<Free, Making> {
    find_free(Key::Hop(hop, proxy), None, TUNNELS).await
}

async fn find_free(key: Key, peer: Option<&Arc<Peer>>, room: Room) -> Result<Free, Making> {
    let epoch = peer.map_or(0, |peer| peer.idle_epoch());
    let slot = POOL.with_borrow_mut(|pool| pool.entry(key).or_default().clone());
    loop {
        if let Some(free) = slot.take(epoch) {
            return Ok(free);
        }
        let made = slot.made.notified();
        if !slot.is_making.replace(true) {
            let peer = peer.cloned();
            return Err(Making { key: Some(key), room, peer, slot: slot.clone(), epoch });
        }
        made.await;
    }
}

impl Slot {
    /// The first connection that has room. Those that take no more requests are forgotten.
    fn take(&self, epoch: u64) -> Option<Free> {
        let mut shared = self.shared.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        let mut at = 0;
        while let Some(Shared { connection, scheme, epoch: own, common, streams, .. }) = shared.get_mut(at) {
            let is_usable = *own == epoch
                && !common.is_worn()
                && !matches!(connection.poll_ready(&mut cx), Poll::Ready(Err(_)));
            if !is_usable {
                // Its requests go on; it ends with the last of them.
                shared.swap_remove(at);
                continue;
            }
            let most = connection.current_max_send_streams().min(*streams);
            if common.active() < most {
                let (connection, place) = (connection.clone(), common.enter());
                return Some(Free { connection, scheme: *scheme, place });
            }
            at += 1;
        }
        None
    }
}

impl Making {
    /// The right to make a connection that nobody else is to use.
    pub(crate) fn alone() -> Making {
        Making { key: None, room: REQUESTS, peer: None, slot: Rc::default(), epoch: 0 }
    }

    /// The same for a tunnel.
    pub(super) fn tunnel() -> Making {
        let mut making = Making::alone();
        making.room = TUNNELS;
        making
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
        let free = self.begin_h2(connected.stream, scheme, idle_timeout).await?;
        Ok(Line::H2(Box::new(PeerStream::new(free))))
    }

    /// Begins HTTP/2 on a new connection, and gives the first place on it.
    ///
    /// # Errors
    /// It ended before it had begun.
    pub(super) async fn begin_h2(
        self,
        stream: Stream,
        scheme: Scheme,
        idle_timeout: Duration,
    ) -> Result<Free, h2::Error> {
        let bytes = Arc::default();
        let (connection, mut driven) = Builder::new()
            .enable_push(false)
            .initial_window_size(self.room.stream)
            .initial_connection_window_size(self.room.connection)
            .max_frame_size(self.room.frame)
            .max_header_list_size(HEAD)
            .max_send_buffer_size(self.room.sending)
            .handshake(Io::counting(stream, Arc::clone(&bytes)))
            .await?;
        let number = clock::precise();
        let common = Common::new(driven.ping_pong(), bytes, self.peer.clone());
        let place = common.enter();
        let (streams, epoch) = (self.room.streams, self.epoch);
        let shared =
            Shared { connection: connection.clone(), common: common.clone(), scheme, streams, epoch, number };
        if self.key.is_some() {
            self.slot.shared.borrow_mut().push(shared);
        }
        let (slot, key) = (self.slot.clone(), self.key);
        DRIVERS.with(|drivers| {
            drivers.spawn(async move {
                drive(driven, &slot, &common, number, idle_timeout).await;
                if let Some(key) = key {
                    slot.forget(key, number);
                }
            });
        });
        Ok(Free { connection: connection.ready().await?, scheme, place })
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.slot.is_making.set(false);
        self.slot.made.notify_waiters();
    }
}

impl Slot {
    fn forget(self: &Rc<Self>, key: Key, number: u64) {
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

    /// Gives no more streams of a connection away; false if that was so already.
    fn release(&self, number: u64) -> bool {
        let mut shared = self.shared.borrow_mut();
        let before = shared.len();
        shared.retain(|shared| shared.number != number);
        shared.len() < before
    }
}

/// Lets a connection do its work until it ends, which it does by itself when nobody has a handle of it.
async fn drive(
    mut driven: Connection<Io, Bytes>,
    slot: &Slot,
    common: &Common,
    number: u64,
    idle_timeout: Duration,
) {
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
            if common.active() > 0 {
                busy = clock::now();
            }
            ready!(timer.poll_until(cx, busy + idle_timeout));
            // One that nobody holds and that is still there has something left for a peer that does not take it.
            if common.active() == 0 && !slot.release(number) {
                return Poll::Ready(Ok(()));
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
pub(crate) fn close_all() {
    POOL.with_borrow(|pool| pool.values().for_each(|slot| slot.shared.borrow_mut().clear()));
}
