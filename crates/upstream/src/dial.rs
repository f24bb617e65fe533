//! Connecting to a peer of a group, and to another one when that fails.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wmproxy_net::addr::Address;
use wmproxy_net::connect::{ConnectError, Fault, Visitor};
use wmproxy_net::preface::Introduction;
use wmproxy_net::record::Outcome;
use wmproxy_net::sockopt::PeerSocket;
use wmproxy_net::stream::{self, Stream};
use wmproxy_net::tls::TlsInfo;
use wmproxy_runtime::clock;
use wmproxy_wire::destination::{Destination, Host};

use crate::group::{Group, Lease, LeaseKey, NoPeer};
use crate::peer::{Blame, FailKind, Peer};

/// A connection to a peer.
#[derive(Debug)]
pub struct Dialed {
    /// The connected stream.
    pub stream: Stream,
    /// The peer; to be kept as long as the stream.
    pub lease: Lease,
    /// How long the attempt took that succeeded.
    pub connect_time: Duration,
}

/// Why no peer was connected to. No byte was sent, so that trying again later is always safe.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The group had no peer to try.
    #[error("{group}: {reason}")]
    NoPeer {
        /// The group's name.
        group: Arc<str>,
        /// Why it had none.
        reason: NoPeer,
    },
    /// The last peer that was tried did not connect.
    #[error("can't connect to {}: {source}", peer.address())]
    Failed {
        /// The last peer tried.
        peer: Arc<Peer>,
        /// How it failed.
        kind: FailKind,
        /// What the system said.
        source: io::Error,
    },
    /// A proxy on the way failed; the peer is not to blame.
    #[error("can't connect to {}: {source}", peer.address())]
    Hop {
        /// The peer that was to be connected to.
        peer: Arc<Peer>,
        /// A [`ConnectError`].
        source: io::Error,
    },
    /// This machine can't begin as it is configured to; the peer is not to blame.
    #[error("can't connect to {} as configured: {source}", peer.address())]
    NoWay {
        /// The peer that was to be connected to.
        peer: Arc<Peer>,
        /// A [`NoWay`](wmproxy_net::sockopt::NoWay).
        source: io::Error,
    },
    /// This machine could not even begin; the peer is not to blame.
    #[error("can't connect to {}, for want of resources here: {source}", peer.address())]
    Resources {
        /// The peer that was to be connected to.
        peer: Arc<Peer>,
        /// What the system said.
        source: io::Error,
    },
}

impl DialError {
    /// What to write into the connection's record.
    pub fn outcome(&self) -> Outcome {
        match self {
            DialError::NoPeer { reason, .. } => match reason {
                NoPeer::Unhealthy => Outcome::NoHealthyPeer,
                NoPeer::QueueFull => Outcome::QueueFull,
                NoPeer::QueueTimeout => Outcome::QueueTimeout,
                NoPeer::ClientGone => Outcome::QueueLeft,
                NoPeer::Unresolved | NoPeer::Down | NoPeer::Full | NoPeer::Tried => Outcome::NoPeer,
            },
            DialError::Failed { kind: FailKind::Timeout, .. } => Outcome::ConnectTimeout,
            DialError::Failed { kind: FailKind::Tls, .. } => Outcome::PeerTls,
            DialError::Failed { .. } => Outcome::ConnectFailed,
            DialError::Hop { source, .. } => Fault::of(source).outcome(),
            DialError::NoWay { .. } => Outcome::NoWay,
            DialError::Resources { .. } => Outcome::NoResources,
        }
    }

    /// Whether another peer may be tried: this one, or the way to it, was the trouble.
    pub fn leaves_others(&self) -> bool {
        match self {
            // The way to all of them is the same, and it has tried all that it can be.
            DialError::NoPeer { .. } | DialError::Hop { .. } => false,
            DialError::Resources { source, .. } => Blame::of(source) != Blame::Resources,
            DialError::Failed { .. } | DialError::NoWay { .. } => true,
        }
    }

    /// The last peer tried.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        match self {
            DialError::NoPeer { .. } => None,
            DialError::Failed { peer, .. }
            | DialError::Hop { peer, .. }
            | DialError::NoWay { peer, .. }
            | DialError::Resources { peer, .. } => Some(peer),
        }
    }
}

/// How one connection is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What is set on its socket.
    pub options: &'a PeerSocket,
    /// Who it is made for; peers see the client's address where the options say so.
    pub visitor: &'a Visitor,
    /// What the peer gets before anything else, a TLS handshake included.
    pub introduction: Option<&'a Introduction>,
    /// How long it may take, a TLS handshake included.
    pub limit: Duration,
}

impl Attempt<'_> {
    /// The address that peers see where the options say so.
    fn client(&self) -> Option<IpAddr> {
        self.visitor.client.map(|client| client.ip())
    }
}

/// A connection that one attempt made.
#[derive(Debug)]
pub struct Connected {
    /// The connected stream.
    pub stream: Stream,
    /// How long the attempt took.
    pub connect_time: Duration,
    /// What the TLS handshake agreed on, if there was one.
    pub tls: Option<TlsInfo>,
}

impl Connected {
    /// The protocol that was agreed on for the application layer (RFC 7301), if one was.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.alpn.as_deref()
    }
}

impl Group {
    /// How connections for requests are made, whoever asks: as the group's own options say. Only such may be kept by
    /// [`put_idle`](Group::put_idle).
    pub fn attempt(&self) -> Attempt<'_> {
        let spec = self.spec();
        let visitor = &Visitor::NOBODY;
        Attempt { options: &spec.socket, visitor, introduction: None, limit: spec.connect_timeout }
    }

    /// Connects to the leased peer, once, on the calling worker. A failure is told to the lease. A success is not, for that the peer takes
    /// connections is no answer yet: [`Lease::answered`] or [`Lease::failed`] is for the caller to say.
    ///
    /// # Errors
    /// Any but [`DialError::NoPeer`]. Whether another peer is worth a try, [`DialError::leaves_others`] tells.
    pub async fn connect(&self, lease: &mut Lease, attempt: Attempt<'_>) -> Result<Connected, DialError> {
        let connected = self.try_connect(lease, attempt).await?;
        lease.connected(connected.connect_time);
        self.count_opened();
        Ok(connected)
    }

    /// Does [`connect`](Group::connect) on any thread: through nothing that a worker's connections share.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn connect_alone(
        &self,
        lease: &mut Lease,
        attempt: Attempt<'_>,
    ) -> Result<Connected, DialError> {
        let reach = async |address: &Address| match self.via()? {
            Some(via) => Ok(via.connect_alone(&behind(address)?).await?),
            None => stream::connect(address, attempt.options, attempt.client()).await,
        };
        let connected = self.attempted(lease, attempt, reach).await?;
        lease.connected(connected.connect_time);
        self.count_opened();
        Ok(connected)
    }

    async fn try_connect(&self, lease: &mut Lease, attempt: Attempt<'_>) -> Result<Connected, DialError> {
        let reach = async |address: &Address| match self.via()? {
            Some(via) => Ok(via.connect_for(&behind(address)?, attempt.visitor).await?),
            None => stream::connect(address, attempt.options, attempt.client()).await,
        };
        self.attempted(lease, attempt, reach).await
    }

    /// Does an attempt to reach the leased peer, with all that comes before the data.
    async fn attempted(
        &self,
        lease: &mut Lease,
        attempt: Attempt<'_>,
        reach: impl AsyncFnOnce(&Address) -> io::Result<Stream>,
    ) -> Result<Connected, DialError> {
        let begun = Instant::now();
        let connecting = async {
            let stream = reach(lease.address()).await?;
            if let Some(introduction) = attempt.introduction {
                introduction.send(&stream).await?;
            }
            let tls = self.secure(&stream, lease.address()).await?;
            Ok((stream, tls))
        };
        let connected = match tokio::time::timeout(attempt.limit, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within connect_timeout")),
        };
        let source = match connected {
            Ok((stream, tls)) => return Ok(Connected { stream, connect_time: begun.elapsed(), tls }),
            Err(error) => error,
        };
        let peer = Arc::clone(lease.peer());
        Err(match Blame::of(&source) {
            Blame::Resources | Blame::LocalPort => DialError::Resources { peer, source },
            Blame::NoWay => DialError::NoWay { peer, source },
            Blame::Hop => DialError::Hop { peer, source },
            Blame::Peer(kind) => {
                lease.failed(kind, clock::now().0);
                DialError::Failed { peer, kind, source }
            }
        })
    }
}

/// A peer's address as proxies are asked for it.
pub(crate) fn behind(address: &Address) -> Result<Destination, ConnectError> {
    match address {
        Address::Inet(address) => Ok((*address).into()),
        Address::Name(name, port) => Ok(Destination { host: Host::Name((&**name).into()), port: *port }),
        Address::Unix(_) => Err(ConnectError::new(Fault::NoWay, "no proxy leads to a unix socket")),
    }
}

/// Connects to a peer of `group`, which has `connect_timeout` for it, and on failure to up to `retries` others,
/// each of them once and each with a time of its own. Waits for a peer that has room, if the group has a queue.
///
/// # Errors
/// What became of the last peer tried. Out of descriptors or memory, it gives up at once: no other peer could
/// change that. Out of ports towards one peer, another is tried.
pub async fn dial(group: &Group, key: &LeaseKey, options: &PeerSocket) -> Result<Dialed, DialError> {
    dial_for(group, key, options, Caller { stream: None, introduction: None, visitor: &Visitor::NOBODY })
        .await
}

/// For whom a peer is dialled.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The client's connection, which is watched while it waits in the group's queue.
    pub stream: Option<&'a Stream>,
    /// What the peer gets before anything else, a TLS handshake included.
    pub introduction: Option<&'a Introduction>,
    /// Who it is; peers see the client's address where the options say so.
    pub visitor: &'a Visitor,
}

/// Does [`dial`] for a client.
///
/// # Errors
/// As `dial`; and when the client left.
pub async fn dial_for(
    group: &Group,
    key: &LeaseKey,
    options: &PeerSocket,
    caller: Caller<'_>,
) -> Result<Dialed, DialError> {
    let Caller { introduction, visitor, .. } = caller;
    let attempt = Attempt { options, visitor, introduction, ..group.attempt() };
    let mut tried: Vec<Arc<Peer>> = vec![];
    let mut attempts_left = group.spec().retries.saturating_add(1);
    let mut last = None;
    while attempts_left > 0 {
        attempts_left -= 1;
        let mut lease = match group.lease_in_turn(key, &tried, caller.stream).await {
            Ok(lease) => lease,
            Err(reason) => {
                // That there is no other peer says less than how the one before failed.
                return Err(
                    last.unwrap_or_else(|| DialError::NoPeer { group: Arc::clone(group.name()), reason })
                );
            }
        };
        match group.try_connect(&mut lease, attempt).await {
            Ok(Connected { stream, connect_time, .. }) => {
                lease.succeeded(Some(connect_time), clock::now().0);
                return Ok(Dialed { stream, lease, connect_time });
            }
            Err(error) if error.leaves_others() => last = Some(error),
            Err(error) => return Err(error),
        }
        tried.push(Arc::clone(lease.peer()));
    }
    // There was at least one attempt, so that the last one is known.
    Err(last.unwrap_or_else(|| DialError::NoPeer { group: Arc::clone(group.name()), reason: NoPeer::Tried }))
}

#[cfg(test)]
mod tests;
