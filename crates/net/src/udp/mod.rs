//! Datagrams in batches.
//!
//! A receive takes whatever has queued up ([`Batch`]: recvmmsg with GRO), a send joins datagrams of one length for one
//! receiver ([`Train`]: GSO). Both leave each datagram whole and in its order. A machine or device that can't do GSO
//! is found out by the first failure and not asked again. What modes have in common that make [flows] of datagrams is
//! here, too.

mod cargo;
pub mod flows;
mod open;
mod train;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wmproxy_runtime::moderation;

use crate::pressure;
use crate::sockopt::PeerSocket;
use crate::sys;
use crate::sys::datagram::Inbox;

pub use cargo::Cargo;
pub use open::{Senders, has_way};
pub use train::{Sent, Train};

/// Messages of one receive. Under load most receives are full at 16 already, and more only makes others wait.
pub const BATCH: usize = 32;

/// What the kernel may queue for us while the worker is elsewhere: some 3,000 full-size datagrams as it counts them.
/// Memory is taken only as datagrams wait. More than net.core.rmem_max needs a privilege; without it the kernel gives
/// what it may.
const LISTENER_QUEUE: i32 = 8 << 20;

/// The same for the answers of one flow: a burst of 500 datagrams of 1472 bytes, each counted as 2.3 KB, and again.
const FLOW_QUEUE: i32 = 2 << 20;

thread_local! {
    static INBOX: RefCell<Inbox> = RefCell::new(Inbox::new(BATCH));
}

/// A socket of this worker: a listener's, or one that is connected to a peer.
#[derive(Debug)]
pub struct UdpSocket {
    fd: AsyncFd<Arc<OwnedFd>>,
    /// The largest segment that GSO took no offence at; 0 when it is not to be had.
    gso_limit: Cell<u16>,
    connected: bool,
}

/// What one receive brought. Lives in the worker's buffers, so it is dealt with before anything is awaited.
pub struct Batch<'a> {
    inbox: &'a mut Inbox,
    messages: usize,
}

/// One message of a [`Batch`]: a datagram, or a train of them from one sender.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    index: usize,
    len: usize,
    segment: usize,
    /// Who sent it; none if the address made no sense, and on a connected socket.
    pub from: Option<SocketAddr>,
    /// The address of ours that it came to, where the socket reports it.
    pub local: Option<IpAddr>,
    /// Whether the kernel cut it.
    pub truncated: bool,
}

impl Message {
    /// How many datagrams it holds.
    pub fn count(&self) -> usize {
        if self.segment == 0 { 1 } else { self.len.div_ceil(self.segment).max(1) }
    }

    /// The bytes of each of them.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + use<> {
        let message = *self;
        (0..self.count()).map(move |at| message.range(at + 1) - message.range(at))
    }

    /// How many bytes its first `datagrams` take.
    fn range(&self, datagrams: usize) -> usize {
        if self.segment == 0 {
            if datagrams == 0 { 0 } else { self.len }
        } else {
            (datagrams * self.segment).min(self.len)
        }
    }
}

impl Batch<'_> {
    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Describes message `index`; once for each.
    pub fn take(&mut self, index: usize) -> Message {
        let message = self.inbox.take(index);
        let segment = if message.segment < message.data.len() { message.segment } else { 0 };
        let message = Message {
            index,
            len: message.data.len(),
            segment,
            from: message.from,
            local: message.local,
            truncated: message.truncated,
        };
        moderation::note(message.count());
        message
    }

    /// Datagram number `index` of a message; empty behind the last.
    pub fn datagram(&self, message: &Message, index: usize) -> &[u8] {
        &self.inbox.data(message.index, message.len)[message.range(index)..message.range(index + 1)]
    }

    /// Puts the datagrams `skip .. skip + count` of a message on a train.
    pub fn load<'a>(&'a self, message: &Message, skip: usize, count: usize, train: &mut Train<'a>) {
        let data = self.inbox.data(message.index, message.len);
        let (start, end) = (message.range(skip), message.range(skip + count));
        train.push(&data[start..end], message.segment);
    }
}

impl UdpSocket {
    /// A listener's socket, bound by [`crate::listen`].
    ///
    /// # Errors
    /// The worker's event queue takes no more.
    pub fn new(fd: Arc<OwnedFd>) -> io::Result<UdpSocket> {
        UdpSocket::watch(fd, false)
    }

    fn watch(fd: Arc<OwnedFd>, connected: bool) -> io::Result<UdpSocket> {
        let fd = sys::watch(fd, Interest::READABLE | Interest::ERROR)?;
        Ok(UdpSocket { fd, gso_limit: Cell::new(u16::MAX), connected })
    }

    /// A socket that sends to `peer` and hears nobody else; for `client` where the peer is to see its address.
    ///
    /// # Errors
    /// No descriptors or ports are left, or there is no way to that address; see [`NoWay`](crate::sockopt::NoWay), too.
    pub fn connect(peer: SocketAddr, options: &PeerSocket, client: Option<IpAddr>) -> io::Result<UdpSocket> {
        let open = || {
            let socket = Socket::new(Domain::for_address(peer), Type::DGRAM.nonblocking().cloexec(), None)?;
            pressure::check(&socket)?;
            set_queue(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, FLOW_QUEUE);
            enable_gro(&socket);
            allow_fragments(&socket, peer.ip())?;
            options.prepare(&socket, peer, client)?;
            socket.connect(&SockAddr::from(peer))?;
            UdpSocket::watch(Arc::new(socket.into()), true)
        };
        open().inspect_err(pressure::note)
    }

    /// Waits for datagrams and hands those that are there to `handle`, at once and on this thread. A receive that does
    /// not fill the batch has drained the socket. Cancel safe.
    ///
    /// # Errors
    /// On a connected socket what the network said of an earlier send: the peer's port is closed, for one.
    pub async fn receive<R>(&self, handle: impl FnOnce(Batch<'_>) -> R) -> io::Result<R> {
        loop {
            // An ICMP error makes a socket neither readable nor closed, only erroneous.
            let mut ready = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
            let received = INBOX.with_borrow_mut(|inbox| inbox.receive(self.fd.as_fd(), !self.connected));
            match received {
                Ok(messages) => {
                    if messages < BATCH {
                        ready.clear_ready();
                    }
                    return Ok(INBOX.with_borrow_mut(|inbox| handle(Batch { inbox, messages })));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Readies a listener's socket that is to be bound to `ip`, or is already. `many` says that it may be reached at more than
/// one address.
pub(crate) fn prepare_listener(socket: &Socket, ip: IpAddr, many: bool) -> io::Result<()> {
    set_queue(socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, LISTENER_QUEUE);
    set_queue(socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, LISTENER_QUEUE);
    enable_gro(socket);
    allow_fragments(socket, ip)?;
    if many { report_local(socket, ip) } else { Ok(()) }
}

/// Has each message say which address of ours it came to: the one that the answer must leave from.
fn report_local(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    let (level, name) = match ip {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    sys::set_int(socket.as_fd(), level, name, 1)
}

fn set_queue(socket: &Socket, forced: i32, plain: i32, bytes: i32) {
    // The forced form needs CAP_NET_ADMIN; the plain one is capped by the system and never fails.
    if sys::set_int(socket.as_fd(), libc::SOL_SOCKET, forced, bytes).is_err() {
        let _ = sys::set_int(socket.as_fd(), libc::SOL_SOCKET, plain, bytes);
    }
}

/// Lets the network cut what is too large for it. By default the kernel forbids that and makes the sender find out the
/// size by losing datagrams (RFC 1191); but here the sender is somebody else, who hears nothing of it.
fn allow_fragments(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    let (level, name, value) = match ip {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
    };
    sys::set_int(socket.as_fd(), level, name, value)
}

fn enable_gro(socket: &Socket) {
    // Kernels before 5.0 have no GRO for UDP; datagrams then come one by one.
    let _ = sys::set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
}

#[cfg(test)]
mod tests;
