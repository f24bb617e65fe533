//! What the streams of a connection to a peer have in common.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::sync::OnceCell;
use wmproxy_upstream::Peer;
use wmproxy_upstream::idle::Place;

/// Streams that may be broken off before a connection gets no new ones. Servers close connections on which too many are (ours
/// at 1000 within a moment), with all that is under way there: one client that gives up all the time would take others along.
const MOST_BROKEN: usize = 500;

/// Of one connection. One thread has to do with it, so that nothing here is waited for; cells would do, were it not that a
/// stream that lies upon a tunnel is a stream like any other.
pub(super) struct Common {
    /// How many are in use.
    active: AtomicUsize,
    /// How many were broken off, so far.
    broken: AtomicUsize,
    /// Filled when the peer is known to have said what it takes.
    heard: OnceCell<()>,
    ping: Mutex<Option<PingPong>>,
    /// How many bytes have come.
    bytes: Arc<AtomicU64>,
    /// Whether nobody is at the other end any more, as far as can be told.
    is_dead: AtomicBool,
    /// Whose connection it is, where it outlives its requests.
    peer: Option<Arc<Peer>>,
    /// While none is in use.
    idle: Mutex<Option<Place>>,
}

impl Common {
    /// That of a connection whose `bytes` are counted as they come.
    pub(super) fn new(ping: Option<PingPong>, bytes: Arc<AtomicU64>, peer: Option<Arc<Peer>>) -> Arc<Common> {
        let (active, broken, idle) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(None));
        let (ping, is_dead) = (Mutex::new(ping), AtomicBool::new(false));
        Arc::new(Common { active, broken, heard: OnceCell::new(), ping, bytes, is_dead, peer, idle })
    }

    pub(super) fn enter(self: &Arc<Self>) -> Entered {
        drop(locked(&self.idle).take());
        self.active.fetch_add(1, Ordering::Relaxed);
        Entered { common: Arc::clone(self), is_whole: false }
    }

    /// How many of its streams are in use.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether it is to have no more streams: nobody is there, or as many were broken off as it should have; see
    /// [`MOST_BROKEN`].
    pub(super) fn is_worn(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed) || self.broken.load(Ordering::Relaxed) >= MOST_BROKEN
    }
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").field("active", &self.active).finish_non_exhaustive()
    }
}

/// One of a connection's streams, until it is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    common: Arc<Common>,
    is_whole: bool,
}

impl Entered {
    /// Says that the stream came to its end in both directions, so that nothing has to be broken off.
    pub(super) fn mark_whole(&mut self) {
        self.is_whole = true;
    }

    /// Waits until the peer has said what it takes. Its settings come before everything else, so that the answer to a PING says
    /// that they are here; one that does not answer is heard as far as it ever will be.
    pub(super) async fn hear(&self) {
        let ping = &self.common.ping;
        let heard = self.common.heard.get_or_init(|| async {
            // One that is on its way already, for somebody who waited no longer, does as well.
            let _ = locked(ping).as_mut().map(|ping| ping.send_ping(Ping::opaque()));
            poll_fn(|cx| match locked(ping).as_mut() {
                Some(ping) => ping.poll_pong(cx).map(drop),
                None => Poll::Ready(()),
            })
            .await;
        });
        heard.await;
    }

    /// Waits until the connection is known to lead to nobody: for so long nothing has come, not even the answer to a PING. Of
    /// packets that are lost on the way TCP by itself says so after a quarter of an hour.
    pub(super) async fn died(&self, silence: Duration) {
        let common = &self.common;
        loop {
            tokio::time::sleep(silence).await;
            let before = common.bytes.load(Ordering::Relaxed);
            if let Some(ping) = locked(&common.ping).as_mut() {
                // An answer that nobody has taken is in the way. One that is on its way to another does as well.
                let _ = ping.poll_pong(&mut Context::from_waker(Waker::noop()));
                let _ = ping.send_ping(Ping::opaque());
            }
            tokio::time::sleep(silence).await;
            if common.bytes.load(Ordering::Relaxed) == before {
                return common.is_dead.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let common = &self.common;
        if !self.is_whole {
            common.broken.fetch_add(1, Ordering::Relaxed);
        }
        if common.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            *locked(&common.idle) = common.peer.as_ref().map(|peer| peer.count_idle());
        }
    }
}

fn locked<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
