//! A connected byte stream: a TCP connection or a unix socket, with TLS or without.

mod file;
mod gone;
mod parts;
mod stall;
mod transport;

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg, socket_with, sockopt,
};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::addr::Address;
use crate::pressure;
use crate::sockopt::PeerSocket;
use crate::sys;
use crate::tls::Session;

pub use parts::Parts;
pub use stall::Stall;
pub use transport::Transport;

/// A connected stream that belongs to the worker it was made on.
#[derive(Debug)]
pub struct Stream {
    fd: AsyncFd<OwnedFd>,
    inet: bool,
    /// Whether there is a layer: all that a stream without one pays for it.
    layered: AtomicBool,
    /// What stands between the socket and who reads and writes here. Locked by one thread only, so never waited for;
    /// a cell would do, were it not that the control runtime's tasks may hold streams, too.
    layer: Mutex<Option<Box<Layer>>>,
}

/// What is between a socket and its reader and writer.
#[derive(Debug, Default)]
struct Layer {
    /// Bytes that were read but not consumed, in the order of arrival.
    unread: Vec<u8>,
    /// So many of them were read again.
    consumed: usize,
    /// What decrypts and encrypts.
    session: Option<Box<Session>>,
}

impl Stream {
    /// Takes a connected, non-blocking socket. `inet` says that it is TCP.
    ///
    /// # Errors
    /// The worker's event queue takes no more.
    pub fn new(fd: OwnedFd, inet: bool) -> io::Result<Stream> {
        let all = Interest::READABLE | Interest::WRITABLE | Interest::ERROR | Interest::PRIORITY;
        let fd = sys::watch(fd, all)?;
        Ok(Stream { fd, inet, layered: AtomicBool::new(false), layer: Mutex::default() })
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

    /// Puts a TLS session between the socket and who reads and writes from now on.
    pub(crate) fn set_session(&self, session: Box<Session>) {
        self.layer().get_or_insert_default().session = Some(session);
        self.layered.store(true, Ordering::Relaxed);
    }

    /// Drops a layer that has nothing left to do.
    fn settle(&self, slot: &mut Option<Box<Layer>>) {
        if slot.as_ref().is_some_and(|layer| layer.unread.is_empty() && layer.session.is_none()) {
            *slot = None;
            self.layered.store(false, Ordering::Relaxed);
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
        self.poll_read_socket(cx, buffer)
    }

    /// Whether a read would have something to say. It may still find nothing, but not say so twice in a row.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_readable = |layer: &Layer| {
            !layer.unread.is_empty() || layer.session.as_ref().is_some_and(|session| session.is_readable())
        };
        if self.layered.load(Ordering::Relaxed) && self.layer().as_deref().is_some_and(is_readable) {
            return Poll::Ready(Ok(()));
        }
        self.fd.poll_read_ready(cx).map_ok(drop)
    }

    #[inline(never)]
    fn poll_read_layer(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut slot = self.layer();
        let Some(layer) = slot.as_mut() else {
            return self.poll_read_socket(cx, buffer);
        };
        if layer.unread.is_empty() {
            return match &mut layer.session {
                Some(session) => session.poll_read(cx, self, buffer),
                None => self.poll_read_socket(cx, buffer),
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

    /// Reads what the socket has, past any layer.
    #[inline]
    pub(crate) fn poll_read_socket(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
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

    /// Writes as much as is taken, at least one byte. While it is pending it may have begun with the data, so the next
    /// call has to come with the same, or with more behind it.
    #[inline]
    pub fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.layered.load(Ordering::Relaxed) {
            return self.poll_write_layer(cx, data);
        }
        self.poll_write_socket(cx, data)
    }

    #[inline(never)]
    fn poll_write_layer(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.layer().as_mut().and_then(|layer| layer.session.as_mut()) {
            Some(session) => session.poll_write(cx, self, data),
            None => self.poll_write_socket(cx, data),
        }
    }

    /// Writes to the socket, past any layer.
    #[inline]
    pub(crate) fn poll_write_socket(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |fd| rustix::net::send(fd, data, SendFlags::NOSIGNAL), |n| n < data.len())
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

    /// Whether urgent data (RFC 9293 section 3.8.5) may have come since the socket was last drained. It is passed on as
    /// ordinary data, in its place. Also true once the other side has ended, for the event queue's view is asked.
    pub(crate) fn is_urgent(&self) -> bool {
        self.fd.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
    }

    fn forget_urgent(&self) {
        // The answer clears the mark, if there is one.
        let _ = self.fd.try_io(Interest::PRIORITY, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    /// Reads by a call that says EAGAIN when nothing is there. `is_drained` tells by its answer that nothing is left, which
    /// spares the call that would say so.
    #[inline]
    pub(crate) fn poll_reading(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
        is_drained: impl FnOnce(usize) -> bool,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.fd.poll_read_ready(cx))?;
            match read(self.fd.as_fd()) {
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

    /// Writes by a call that says EAGAIN when there is no room. `is_full` tells by its answer that no room is left.
    #[inline]
    pub(crate) fn poll_writing(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
        is_full: impl FnOnce(usize) -> bool,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.fd.poll_write_ready(cx))?;
            match write(self.fd.as_fd()) {
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
        match self.fd.poll_read_ready(cx) {
            // Each direction tells of itself alone: a FIN closes what is read, a reset what is written, too.
            Poll::Ready(Ok(read)) => {
                let written = self.fd.poll_write_ready(cx);
                read.ready().is_read_closed()
                    && matches!(written, Poll::Ready(Ok(write)) if write.ready().is_write_closed())
            }
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// Waits until the connection has failed: a reset, or no answer to what was sent. An end in good order is none.
    pub async fn failed(&self) {
        // An error of the event queue is as good as the end.
        let _ = self.fd.ready(Interest::ERROR).await;
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
        Poll::Ready(self.shutdown_socket())
    }

    /// Sends a FIN.
    pub(crate) fn shutdown_socket(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.fd, Shutdown::Write)?)
    }

    /// Has the close, whenever it comes, send a RST in place of a FIN and throw away what is still unsent. A unix socket
    /// knows no reset, and is closed as ever.
    pub fn reset_on_close(&self) {
        if self.inet {
            // Fails only on a socket that is no socket.
            let _ = SockRef::from(&self.fd).set_linger(Some(Duration::ZERO));
        }
    }

    /// The address of ours that the other side reached.
    ///
    /// # Errors
    /// The socket has none.
    pub fn local_address(&self) -> io::Result<Address> {
        address_of(SockRef::from(&self.fd).local_addr()?)
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

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The config's form of a system address.
pub(crate) fn address_of(addr: socket2::SockAddr) -> io::Result<Address> {
    if let Some(inet) = addr.as_socket() {
        return Ok(Address::Inet(inet));
    }
    if addr.is_unix() {
        return Ok(Address::Unix(addr.as_pathname().unwrap_or(std::path::Path::new("")).into()));
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "neither an internet nor a unix socket"))
}

/// Connects, for `client` where the peer is to see its address. Sets no deadline of its own: drop the future to give up.
///
/// # Errors
/// As connect(2) says; see [`is_exhaustion`] and [`NoWay`](crate::sockopt::NoWay) for those that are this machine's own.
pub async fn connect(address: &Address, options: &PeerSocket, client: Option<IpAddr>) -> io::Result<Stream> {
    let connected = connect_inner(address, options, client).await;
    if let Err(error) = &connected {
        pressure::note(error);
    }
    connected
}

async fn connect_inner(
    address: &Address,
    options: &PeerSocket,
    client: Option<IpAddr>,
) -> io::Result<Stream> {
    let inet = matches!(address, Address::Inet(_));
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, begun) = match address {
        Address::Inet(to) => {
            let fd = OwnedFd::from(options.open_tcp(*to)?);
            pressure::check(&fd)?;
            options.prepare_tcp(&fd, *to, client)?;
            let begun = rustix::net::connect(&fd, to);
            (fd, begun)
        }
        Address::Unix(path) => {
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            pressure::check(&fd)?;
            let begun = rustix::net::connect(&fd, &SocketAddrUnix::new(path)?);
            (fd, begun)
        }
    };
    match begun {
        Ok(()) => return Stream::new(fd, inet),
        // A unix socket whose queue is full says EAGAIN and never becomes ready (connect(2)): a refusal.
        Err(Errno::AGAIN) if !inet => return Err(io::ErrorKind::ConnectionRefused.into()),
        Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = Stream::new(fd, inet)?;
    // A socket that is still connecting is not ready for anything (tcp_poll), so the first event is the result.
    drop(stream.fd.writable().await?);
    sockopt::socket_error(&stream.fd)??;
    Ok(stream)
}

/// Whether an error means that this machine ran out of descriptors, ports or memory: nobody else's fault.
pub fn is_exhaustion(error: &io::Error) -> bool {
    // EADDRNOTAVAIL is what connect(2) says when no ephemeral port is free.
    pressure::is_exhaustion(error) || Errno::from_io_error(error) == Some(Errno::ADDRNOTAVAIL)
}

#[cfg(test)]
mod tests;
