//! How a peer lets a connection down, and whose doing an error is.

use std::io;

use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::sockopt::NoWay;

/// How a peer let a connection down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailKind {
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// The network knows no way to it.
    Unreachable,
    /// It hung up before it could be used.
    Reset,
    /// TLS with it failed: no handshake was agreed on, or it did not prove who it is.
    Tls,
    /// It is a proxy, and does not let us in.
    Unauthorized,
    /// Anything else.
    Other,
    /// It answered a request with a status that counts as a failure.
    Status,
    /// It took a request and did not answer in time.
    AnswerTimeout,
    /// It took a request, and what came was no answer, or broke off.
    Broken,
}

impl FailKind {
    /// Every kind, in the order of its index.
    pub const ALL: &[FailKind] = &[
        FailKind::Refused,
        FailKind::Timeout,
        FailKind::Unreachable,
        FailKind::Reset,
        FailKind::Tls,
        FailKind::Unauthorized,
        FailKind::Other,
        FailKind::Status,
        FailKind::AnswerTimeout,
        FailKind::Broken,
    ];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            FailKind::Refused => "refused",
            FailKind::Timeout => "timeout",
            FailKind::Unreachable => "unreachable",
            FailKind::Reset => "reset",
            FailKind::Tls => "tls",
            FailKind::Unauthorized => "unauthorized",
            FailKind::Other => "other",
            FailKind::Status => "status",
            FailKind::AnswerTimeout => "answer timeout",
            FailKind::Broken => "broken answer",
        }
    }
}

/// Whose doing a socket's error towards a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The peer's, or the network's between: trying another one is right.
    Peer(FailKind),
    /// A proxy's on the way to it: no peer can be reached that way now.
    Hop,
    /// This machine is not configured so that it could connect to this address; to another one it may be.
    NoWay,
    /// This machine has no port left towards this address; towards another one it may have.
    LocalPort,
    /// This machine is out of descriptors or memory, whatever the peer.
    Resources,
}

impl Blame {
    /// Sorts an error of connecting to a peer, or of a connected datagram socket.
    pub fn of(error: &io::Error) -> Blame {
        use io::ErrorKind as K;
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectError>()) {
            return Blame::of_fault(error.fault);
        }
        if NoWay::is_in(error) {
            return Blame::NoWay;
        }
        if wmproxy_net::stream::is_exhaustion(error) {
            let port = error.kind() == K::AddrNotAvailable;
            return if port { Blame::LocalPort } else { Blame::Resources };
        }
        if wmproxy_net::tls::is_failure(error) {
            return Blame::Peer(FailKind::Tls);
        }
        match error.kind() {
            // A unix socket whose path is gone is a port that nobody listens on.
            K::ConnectionRefused | K::NotFound => Blame::Peer(FailKind::Refused),
            K::TimedOut => Blame::Peer(FailKind::Timeout),
            K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown => Blame::Peer(FailKind::Unreachable),
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => Blame::Peer(FailKind::Reset),
            _ => Blame::Peer(FailKind::Other),
        }
    }

    /// Sorts what came of asking proxies for a peer.
    fn of_fault(fault: Fault) -> Blame {
        match fault {
            Fault::Refused => Blame::Peer(FailKind::Refused),
            Fault::TimedOut => Blame::Peer(FailKind::Timeout),
            Fault::Unresolved
            | Fault::NetworkUnreachable
            | Fault::HostUnreachable
            // There may be others that the proxy does allow.
            | Fault::Denied => Blame::Peer(FailKind::Unreachable),
            Fault::Reset => Blame::Peer(FailKind::Reset),
            Fault::Other => Blame::Peer(FailKind::Other),
            Fault::HopDown
            | Fault::Tls
            | Fault::Unauthorized
            | Fault::Broken
            | Fault::Unsupported
            | Fault::Limited => Blame::Hop,
            Fault::Resources => Blame::Resources,
            Fault::NoWay => Blame::NoWay,
        }
    }
}
