//! A connected byte stream: a TCP connection, a unix socket, or what lies upon something else that carries bytes both ways;
//! with TLS or without.

mod base;
mod connect;
mod file;
mod gone;
mod parts;
mod stall;
mod throttle;
mod transport;

use std::any::Any;
use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::Interest;

use crate::sys;
use crate::tls::Session;

use base::Base;
pub(crate) use connect::address_of;
pub use connect::{connect, is_exhaustion};
pub use parts::Parts;
pub use stall::Stall;
pub use throttle::throttle;
pub use transport::Transport;

/// A connected stream that belongs to the worker it was made on.
#[derive(Debug)]
pub struct Stream {
    base: Base,
    inet: bool,
    /// Whether there is a layer, or no socket: all that a stream that is as its socket pays for others that are not.
    layered: AtomicBool,
    /// What stands between the base and who reads and writes here. Locked by one thread only, so never waited for;
    /// a cell would do, were it not that the control runtime's tasks may hold streams, too.
    layer: Mutex<Option<Box<Layer>>>,
}

/// What is between a base and its reader and writer.
#[derive(Debug, Default)]
struct Layer {
    /// Bytes that were read but not consumed, in the order of arrival.
    unread: Vec<u8>,
    /// So many of them were read again.
    consumed: usize,
    /// What decrypts and encrypts; where sessions lie upon each other, the uppermost.
    session: Option<Box<Session>>,
    /// What lives as long as the stream; it stands in nobody's way.
    kept: Vec<Box<dyn Any + Send>>,
}

impl Layer {
    /// Whether bytes pass it as they are.
    fn is_idle(&self) -> bool {
        self.unread.is_empty() && self.session.is_none()
    }
}

impl Stream {
    /// Takes a connected, non-blocking socket. `inet` says that it is TCP.
    ///
    /// # Errors
    /// The worker's event queue takes no more.
    pub fn new(fd: OwnedFd, inet: bool) -> io::Result<Stream> {
        let all = Interest::READABLE | Interest::WRITABLE | Interest::ERROR | Interest::PRIORITY;
        let base = Base::Socket(sys::watch(fd, all)?);
        Ok(Stream { base, inet, layered: AtomicBool::new(false), layer: Mutex::default() })
    }

    /// A stream without a socket of its own, upon what carries its bytes. TLS, relays and all else that takes a stream take
    /// it, too; what only the kernel could do for it is done by copying, or not at all where that can be said.
    pub fn over(transport: Box<dyn Transport>) -> Stream {
        let base = Base::Over(Mutex::new(transport));
        Stream { base, inet: false, layered: AtomicBool::new(true), layer: Mutex::default() }
    }

    /// Gives back bytes that were read but not consumed: the next reads yield them before anything else.
    pub fn unread(&self, mut bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let mut slot = self.layer();
        let layer = slot.get_or_insert_default();
        bytes.extend_from_slice(&layer.unread[layer.consumed..]);
        bytes.shrink_to_fit();
        layer.unread = bytes;
        layer.consumed = 0;
        self.layered.store(true, Ordering::Relaxed);
    }

    /// Keeps something until the stream is dropped: the lease of a proxy that it goes through, say.
    pub fn keep(&self, what: Box<dyn Any + Send>) {
        self.layer().get_or_insert_default().kept.push(what);
    }

    /// Whether what passes here is the same as on the socket, so that the kernel may move it without us.
    #[inline]
    pub fn can_splice(&self) -> bool {
        !self.layered.load(Ordering::Relaxed)
    }

    /// Takes back what was unread, to consume it otherwise.
    pub(crate) fn take_unread(&self) -> Vec<u8> {
        let mut slot = self.layer();
        let Some(layer) = slot.as_mut() else { return Vec::new() };
        let mut unread = std::mem::take(&mut layer.unread);
        unread.drain(..std::mem::take(&mut layer.consumed));
        self.settle(&mut slot);
        unread
    }

    /// Takes out the TLS session that stands here, for another one to lie upon it.
    pub(crate) fn take_session(&self) -> Option<Box<Session>> {
        let mut slot = self.layer();
        let session = slot.as_mut().and_then(|layer| layer.session.take());
        self.settle(&mut slot);
        session
    }

    /// Puts a TLS session between the base and who reads and writes from now on.
    pub(crate) fn set_session(&self, session: Box<Session>) {
        self.layer().get_or_insert_default().session = Some(session);
        self.layered.store(true, Ordering::Relaxed);
    }

    /// Has TLS alone say that one direction has ended, by its close_notify (RFC 8446 section 6.1). The FIN goes when the
    /// stream is dropped: on the way there may be others, such as proxies, that take the first FIN for the end of both
    /// directions. Nothing happens without a TLS session.
    pub fn end_within_tls(&self) {
        if let Some(session) = self.layer().as_mut().and_then(|layer| layer.session.as_mut()) {
            session.hold_fin();
        }
    }

    /// Keying material of the TLS session, the uppermost if there are several, that only both its ends know (RFC 8446
    /// section 7.5). None without TLS, and where the session's spec does not hold to TLS 1.3 only.
    pub fn export_keying_material(&self, label: &[u8], context: &[u8]) -> Option<[u8; 32]> {
        self.layer().as_ref()?.session.as_ref()?.export(label, context)
    }

    /// Drops a layer that has nothing left to do.
    fn settle(&self, slot: &mut Option<Box<Layer>>) {
        if let Some(layer) = slot.as_ref().filter(|layer| layer.is_idle()) {
            if layer.kept.is_empty() {
                *slot = None;
            }
            self.layered.store(!self.base.is_socket(), Ordering::Relaxed);
        }
    }

    fn layer(&self) -> MutexGuard<'_, Option<Box<Layer>>> {
        // No code of ours panics with it half changed.
        self.layer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is there, up to the buffer's length. 0 is the end of the stream.
    ///
    /// A read that does not fill the buffer has mostly drained the socket, so the next poll waits for the event queue
    /// instead of asking the kernel in vain. It has not where the kernel stops a read early: at TCP's urgent mark, and
    /// on unix sockets at descriptors that were sent along.
    #[inline]
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.layered.load(Ordering::Relaxed) {
            return self.poll_read_layer(cx, buffer);
        }
        self.poll_read_base(cx, buffer)
    }

    /// Whether a read would have something to say. It may still find nothing, but not say so twice in a row.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_readable = |layer: &Layer| {
            !layer.unread.is_empty() || layer.session.as_ref().is_some_and(|session| session.is_readable())
        };
        if self.layered.load(Ordering::Relaxed) && self.layer().as_deref().is_some_and(is_readable) {
            return Poll::Ready(Ok(()));
        }
        self.poll_readable_base(cx)
    }

    #[inline(never)]
    fn poll_read_layer(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut slot = self.layer();
        let Some(layer) = slot.as_mut() else {
            return self.poll_read_base(cx, buffer);
        };
        if layer.unread.is_empty() {
            return match &mut layer.session {
                Some(session) => session.poll_read(cx, self, buffer),
                None => self.poll_read_base(cx, buffer),
            };
        }
        let rest = &layer.unread[layer.consumed..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        layer.consumed += n;
        if layer.consumed == layer.unread.len() {
            layer.unread = Vec::new();
            layer.consumed = 0;
            self.settle(&mut slot);
        }
        Poll::Ready(Ok(n))
    }

    /// Writes as much as is taken, at least one byte. While it is pending it may have begun with the data, so the next
    /// call has to come with the same, or with more behind it.
    #[inline]
    pub fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.layered.load(Ordering::Relaxed) {
            return self.poll_write_layer(cx, data);
        }
        self.poll_write_base(cx, data)
    }

    #[inline(never)]
    fn poll_write_layer(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.layer().as_mut().and_then(|layer| layer.session.as_mut()) {
            Some(session) => session.poll_write(cx, self, data),
            None => self.poll_write_base(cx, data),
        }
    }

    /// Writes two pieces by one call, as if they were one: as much as is taken, at least one byte. Only for a stream that
    /// [can splice](Stream::can_splice).
    #[inline]
    pub fn poll_write_both(
        &self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.can_splice());
        let both = [IoSlice::new(first), IoSlice::new(second)];
        let send =
            |fd: BorrowedFd<'_>| sendmsg(fd, &both, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL);
        self.poll_writing(cx, send, |n| n < first.len() + second.len())
    }

    /// Says that nothing more will be written: a FIN, and before it what TLS has to say. Until that is sent it is
    /// pending.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn poll_shutdown_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.layered.load(Ordering::Relaxed)
            && let Some(session) = self.layer().as_mut().and_then(|layer| layer.session.as_mut())
        {
            return session.poll_shutdown_write(cx, self);
        }
        self.poll_shutdown_base(cx)
    }
}

/// Resets a stream unless it is told that it ended well: whoever is cut off, by a forced stop or a defect of ours, must
/// not take what it got for the whole.
#[derive(Debug)]
pub struct ResetOnDrop<'a>(Option<&'a Stream>);

impl<'a> ResetOnDrop<'a> {
    /// Guards a stream.
    pub fn new(stream: &'a Stream) -> Self {
        ResetOnDrop(Some(stream))
    }

    /// Lets it be closed as ever.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for ResetOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0 {
            stream.reset_on_close();
        }
    }
}

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;
