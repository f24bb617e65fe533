//! What dials: the seam through which every mode goes out, be it at once, through a chain of proxies, or through a tunnel.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use rustix::io::Errno;
use wmproxy_wire::destination::Destination;

use crate::record::Outcome;
use crate::stream::{self, Stream};
use crate::tls;

/// A connection on its way. Sets no deadline of its own over all: drop it to give up.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + 'a>>;

/// The same where the task may move from thread to thread.
pub type ConnectingAlone<'a> = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send + 'a>>;

/// A way out.
pub trait Connect: fmt::Debug + Send + Sync {
    /// Connects to a destination, on the calling worker. A name is resolved by whoever is the last on the way.
    fn connect<'a>(&'a self, to: &'a Destination) -> Connecting<'a>;

    /// The same on any thread, as health checks on the control runtime do: through nothing that a worker's connections share.
    fn connect_alone<'a>(&'a self, to: &'a Destination) -> ConnectingAlone<'a>;

    /// Does [`connect`](Connect::connect) for a visitor, where the other end of the way is to know who comes. By default it is
    /// not told.
    fn connect_for<'a>(&'a self, to: &'a Destination, _visitor: &'a Visitor) -> Connecting<'a> {
        self.connect(to)
    }
}

/// For whom a connection is made. Of one that may serve several clients one after the other nothing is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Visitor {
    /// The client's address; none too for one of a unix socket.
    pub client: Option<SocketAddr>,
    /// The address of ours that it came to.
    pub local: Option<SocketAddr>,
}

impl Visitor {
    /// Nobody in particular.
    pub const NOBODY: Visitor = Visitor { client: None, local: None };
}

/// What went wrong on the way to a destination, in the words of those who have to tell a client: the replies of SOCKS and the
/// statuses of HTTP are made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The rules forbid it.
    Denied,
    /// Whoever asks has as many connections, or has used as many bytes, as they may.
    Limited,
    /// The name has no addresses.
    Unresolved,
    /// Nobody listens there.
    Refused,
    /// There is no way to that network.
    NetworkUnreachable,
    /// There is no way to that host.
    HostUnreachable,
    /// No answer in time.
    TimedOut,
    /// The connection ended before it could be used.
    Reset,
    /// TLS with a proxy on the way failed: no handshake was agreed on, or it did not prove who it is.
    Tls,
    /// A proxy on the way can't be connected to, or does not answer in time. It says nothing of the destination.
    HopDown,
    /// A proxy on the way does not let us in.
    Unauthorized,
    /// A proxy on the way says something that is no answer.
    Broken,
    /// What is asked for can't be done this way, such as datagrams over a proxy that knows none.
    Unsupported,
    /// This machine is out of descriptors, ports or memory.
    Resources,
    /// This machine can't begin as it is configured to.
    NoWay,
    /// Anything else.
    Other,
}

/// Why there is no connection. Nothing was sent to the destination, so that trying another way is always safe.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct ConnectError {
    /// The kind of it.
    pub fault: Fault,
    /// In plain words, for logs and for the client. No secret is in it.
    pub text: Cow<'static, str>,
}

impl ConnectError {
    /// An error of this kind.
    pub fn new(fault: Fault, text: impl Into<Cow<'static, str>>) -> ConnectError {
        ConnectError { fault, text: text.into() }
    }
}

impl From<io::Error> for ConnectError {
    /// Sorts what the system, or TLS, said of one connection.
    fn from(error: io::Error) -> ConnectError {
        ConnectError { fault: Fault::of(&error), text: Cow::Owned(error.to_string()) }
    }
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> io::Error {
        let kind = match error.fault {
            Fault::Refused => io::ErrorKind::ConnectionRefused,
            Fault::NetworkUnreachable => io::ErrorKind::NetworkUnreachable,
            Fault::HostUnreachable => io::ErrorKind::HostUnreachable,
            Fault::TimedOut => io::ErrorKind::TimedOut,
            Fault::Reset => io::ErrorKind::ConnectionReset,
            Fault::Denied | Fault::Limited => io::ErrorKind::PermissionDenied,
            Fault::Unresolved => io::ErrorKind::NotFound,
            Fault::Unsupported => io::ErrorKind::Unsupported,
            Fault::Tls
            | Fault::HopDown
            | Fault::Unauthorized
            | Fault::Broken
            | Fault::Resources
            | Fault::NoWay
            | Fault::Other => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl Fault {
    /// Sorts an error of connecting.
    pub fn of(error: &io::Error) -> Fault {
        use io::ErrorKind as K;
        if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectError>()) {
            return inner.fault;
        }
        if crate::sockopt::NoWay::is_in(error) {
            return Fault::NoWay;
        }
        if stream::is_exhaustion(error) {
            return Fault::Resources;
        }
        if tls::is_failure(error) {
            return Fault::Tls;
        }
        match error.kind() {
            K::ConnectionRefused => Fault::Refused,
            K::TimedOut => Fault::TimedOut,
            K::HostUnreachable => Fault::HostUnreachable,
            K::NetworkUnreachable | K::NetworkDown => Fault::NetworkUnreachable,
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof => Fault::Reset,
            // A firewall of this machine says so.
            _ if Errno::from_io_error(error) == Some(Errno::PERM) => Fault::HostUnreachable,
            _ => Fault::Other,
        }
    }

    /// What to write into the client's record.
    pub fn outcome(self) -> Outcome {
        match self {
            Fault::Denied | Fault::Limited | Fault::Unsupported => Outcome::Denied,
            Fault::TimedOut => Outcome::ConnectTimeout,
            Fault::Tls => Outcome::PeerTls,
            Fault::Resources => Outcome::NoResources,
            Fault::NoWay => Outcome::NoWay,
            Fault::Unresolved
            | Fault::Refused
            | Fault::NetworkUnreachable
            | Fault::HostUnreachable
            | Fault::Reset
            | Fault::HopDown
            | Fault::Unauthorized
            | Fault::Broken
            | Fault::Other => Outcome::ConnectFailed,
        }
    }
}
