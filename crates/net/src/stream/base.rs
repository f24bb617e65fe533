//! What a stream lies upon, below any layer: a socket of its own, or something else that carries its bytes.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Stream, Transport, address_of};
use crate::addr::Address;

/// How much is read ahead to find out whether there is anything: what a small message has.
const AHEAD: usize = 1024;

/// The bottom of a stream.
pub(super) enum Base {
    /// A socket of its own, in the worker's event queue.
    Socket(AsyncFd<OwnedFd>),
    /// Something else. Like the layer it is locked by one thread only, so never waited for.
    Over(Mutex<Box<dyn Transport>>),
}

impl Base {
    pub(super) fn is_socket(&self) -> bool {
        matches!(self, Base::Socket(_))
    }

    /// The socket.
    ///
    /// # Errors
    /// There is none.
    #[inline]
    pub(super) fn socket(&self) -> io::Result<&AsyncFd<OwnedFd>> {
        match self {
            Base::Socket(fd) => Ok(fd),
            Base::Over(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn locked(transport: &Mutex<Box<dyn Transport>>) -> MutexGuard<'_, Box<dyn Transport>> {
    // One that has panicked in the middle is as good as one that misbehaves: its own stream suffers.
    transport.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    /// Reads what the base has, past any layer.
    #[inline]
    pub(crate) fn poll_read_base(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Base::Over(transport) = &self.base {
            return locked(transport).poll_read(cx, buffer);
        }
        let room = buffer.len();
        let receive = |fd: BorrowedFd<'_>| match rustix::net::recv(fd, &mut *buffer, RecvFlags::empty()) {
            Ok((n, _)) => Ok(n),
            Err(error) => {
                if error == Errno::AGAIN {
                    self.forget_urgent();
                }
                Err(error)
            }
        };
        self.poll_reading(cx, receive, |n| n > 0 && n < room && self.inet && !self.is_urgent())
    }

    /// Writes to the base, past any layer.
    #[inline]
    pub(crate) fn poll_write_base(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if let Base::Over(transport) = &self.base {
            return locked(transport).poll_write(cx, data);
        }
        self.poll_writing(cx, |fd| rustix::net::send(fd, data, SendFlags::NOSIGNAL), |n| n < data.len())
    }

    /// Whether the base has something to read. Without a socket that is found out by reading, and what came is unread.
    pub(super) fn poll_readable_base(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Base::Socket(fd) = &self.base {
            return fd.poll_read_ready(cx).map_ok(drop);
        }
        let mut ahead = [0; AHEAD];
        let n = ready!(self.poll_read(cx, &mut ahead))?;
        // At the end there is nothing to give back, and the next read finds it again.
        self.unread(ahead[..n].to_vec());
        Poll::Ready(Ok(()))
    }

    /// Sends a FIN, or what is one below.
    pub(crate) fn poll_shutdown_base(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.base {
            Base::Socket(fd) => {
                Poll::Ready(rustix::net::shutdown(fd, Shutdown::Write).map_err(io::Error::from))
            }
            Base::Over(transport) => locked(transport).poll_shutdown_write(cx),
        }
    }

    /// Whether urgent data (RFC 9293 section 3.8.5) may have come since the socket was last drained. It is passed on as
    /// ordinary data, in its place. Also true once the other side has ended, for the event queue's view is asked.
    pub(crate) fn is_urgent(&self) -> bool {
        self.base.socket().is_ok_and(|fd| fd.try_io(Interest::PRIORITY, |_| Ok(())).is_ok())
    }

    fn forget_urgent(&self) {
        if let Base::Socket(fd) = &self.base {
            // The answer clears the mark, if there is one.
            let _ = fd.try_io(Interest::PRIORITY, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }

    /// Reads from the socket by a call that says EAGAIN when nothing is there. `is_drained` tells by its answer that nothing is
    /// left, which spares the call that would say so.
    #[inline]
    pub(crate) fn poll_reading(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
        is_drained: impl FnOnce(usize) -> bool,
    ) -> Poll<io::Result<usize>> {
        let fd = self.base.socket()?;
        loop {
            let mut ready = ready!(fd.poll_read_ready(cx))?;
            match read(fd.as_fd()) {
                Ok(n) => {
                    if is_drained(n) {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes to the socket by a call that says EAGAIN when there is no room. `is_full` tells by its answer that no room is
    /// left.
    #[inline]
    pub(crate) fn poll_writing(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
        is_full: impl FnOnce(usize) -> bool,
    ) -> Poll<io::Result<usize>> {
        let fd = self.base.socket()?;
        loop {
            let mut ready = ready!(fd.poll_write_ready(cx))?;
            match write(fd.as_fd()) {
                Ok(n) => {
                    if is_full(n) {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Whether the connection has certainly failed: it was reset, as far as the event queue has told. Who has only said that
    /// no more follows may still wait for an answer. If nothing has come, the task is woken by whatever comes first.
    pub fn is_reset(&self, cx: &mut Context<'_>) -> bool {
        let fd = match &self.base {
            Base::Socket(fd) => fd,
            Base::Over(transport) => return locked(transport).is_reset(cx),
        };
        match fd.poll_read_ready(cx) {
            // Each direction tells of itself alone: a FIN closes what is read, a reset what is written, too.
            Poll::Ready(Ok(read)) => {
                let written = fd.poll_write_ready(cx);
                read.ready().is_read_closed()
                    && matches!(written, Poll::Ready(Ok(write)) if write.ready().is_write_closed())
            }
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// Waits until the connection has failed: a reset, or no answer to what was sent. An end in good order is none.
    pub async fn failed(&self) {
        match &self.base {
            // An error of the event queue is as good as the end.
            Base::Socket(fd) => drop(fd.ready(Interest::ERROR).await),
            Base::Over(transport) => {
                poll_fn(|cx| if locked(transport).is_reset(cx) { Poll::Ready(()) } else { Poll::Pending })
                    .await;
            }
        }
    }

    /// Has the close, whenever it comes, send a RST in place of a FIN and throw away what is still unsent; without a socket,
    /// what means the same below. A unix socket knows no reset, and is closed as ever.
    pub fn reset_on_close(&self) {
        match &self.base {
            Base::Socket(fd) if self.inet => {
                // Fails only on a socket that is no socket.
                let _ = SockRef::from(fd).set_linger(Some(Duration::ZERO));
            }
            Base::Socket(_) => {}
            Base::Over(transport) => locked(transport).reset_on_drop(),
        }
    }

    /// The address of ours that the other side reached.
    ///
    /// # Errors
    /// The socket has none, or there is no socket.
    pub fn local_address(&self) -> io::Result<Address> {
        address_of(SockRef::from(self.base.socket()?).local_addr()?)
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Base::Socket(fd) => fd.fmt(f),
            Base::Over(transport) => transport.fmt(f),
        }
    }
}
