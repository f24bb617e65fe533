//! Many streams on one connection of TCP and TLS, by yamux (version 0, as HashiCorp specified it).
//!
//! Why it is written here: a tunnel has to tell a reset from an end, and to hear of it when nobody reads; a stream must be for
//! any worker; and one whose reader stands still must cost no more than its window. The `yamux` crate makes an end of each
//! reset, and refuses the 257th stream until one of the others is answered. The tests hold this one to it all the same.
//!
//! How it works: frames that streams write are put one behind the other under the connection's lock, and the connection's
//! driver writes them with as few calls as it can; what it reads it gives to the streams' buffers. Both lie on the worker
//! that [`start`] was called on, and streams on any. An end is FIN, a reset RST. One thing is said that yamux has no word
//! for: who has ended and will not read any more sends a window update with RST behind its FIN, so that the other side does
//! not wait for room for ever. For who does not know that, it is the reset that a socket would send.

mod core;
mod driver;
mod entry;
mod frame;
mod parser;
mod transport;

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use wmproxy_net::stream::Stream;
use wmproxy_runtime::scope::Scope;

use super::{Incoming, Kind, Many, Source, Unplaced};
use core::Core;
use driver::Driver;
use transport::Lane;

/// Which of both ends this is; each numbers the streams that it opens in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that connected.
    Client,
    /// The other.
    Server,
}

/// Opens streams; see [`Many`].
#[derive(Debug, Clone)]
pub(super) struct Opener(Arc<Opening>);

/// As long as it is there, streams may be opened.
#[derive(Debug)]
struct Opening(Arc<Shared>);

/// The other side's streams; see [`Incoming`].
#[derive(Debug)]
pub(super) struct Accepted(Arc<Shared>);

/// What the driver and all streams have in common.
#[derive(Debug)]
struct Shared {
    /// Held for the time of a copy of some kilobytes, never across a call to the system.
    core: Mutex<Core>,
    over: Notify,
}

/// Has a stream carry many. Its driver is a task of `scope` on the calling worker. It ends when it is told to, when the
/// connection fails, or when nobody is left who could open, take or use a stream.
pub fn start(stream: Stream, side: Side, scope: &Scope) -> (Many, Incoming) {
    start_beating(stream, side, scope, driver::BEAT)
}

/// The same, and how often the other side is asked whether it is there.
fn start_beating(stream: Stream, side: Side, scope: &Scope, beat: Duration) -> (Many, Incoming) {
    let shared = Arc::new(Shared { core: Mutex::new(Core::new(side)), over: Notify::new() });
    scope.spawn(Driver::new(shared.clone(), stream, beat));
    let opener = Opener(Arc::new(Opening(shared.clone())));
    (Many(Kind::Mux(opener)), Incoming(Source::Mux(Accepted(shared))))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        // No code of ours panics with it half changed.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the connection, and wakes its driver if that has left it something to do.
    fn with<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let (answer, driver) = {
            let mut core = self.lock();
            let answer = act(&mut core);
            (answer, core.driver_if_needed())
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        answer
    }

    /// Ends the connection for everybody, unless it is over already.
    fn end(&self, kind: io::ErrorKind, why: &'static str) {
        let wakers = self.lock().end(kind, why);
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.over.notify_waiters();
    }
}

impl Opener {
    pub(super) fn open(&self) -> io::Result<Stream> {
        let shared = &self.0.0;
        let id = shared.with(Core::open)?;
        Ok(Lane::stream(shared.clone(), id))
    }

    pub(super) fn close(&self) {
        self.0.0.end(io::ErrorKind::ConnectionAborted, "the connection was closed");
    }

    pub(super) async fn closed(&self) -> io::Error {
        let shared = &self.0.0;
        loop {
            let over = shared.over.notified();
            tokio::pin!(over);
            // Registered before it is asked, or an end in between would be missed.
            over.as_mut().enable();
            if let Some(over) = shared.lock().over() {
                return over;
            }
            over.await;
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.with(Core::forget_opener);
    }
}

impl Accepted {
    pub(super) async fn next(&mut self) -> Option<Unplaced> {
        let id = poll_fn(|cx| self.0.with(|core| core.poll_take(cx))).await?;
        Some(Unplaced(Lane::stream(self.0.clone(), id)))
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.with(Core::forget_taker);
    }
}

#[cfg(test)]
mod tests;
