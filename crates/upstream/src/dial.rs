//! Connecting to a peer of a group, and to another one when that fails.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wmproxy_net::preface::Introduction;
use wmproxy_net::record::Outcome;
use wmproxy_net::sockopt::PeerSocket;
use wmproxy_net::stream::{self, Stream};
use wmproxy_runtime::clock;

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
            DialError::NoWay { .. } => Outcome::NoWay,
            DialError::Resources { .. } => Outcome::NoResources,
        }
    }

    /// The last peer tried.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        match self {
            DialError::NoPeer { .. } => None,
            DialError::Failed { peer, .. }
            | DialError::NoWay { peer, .. }
            | DialError::Resources { peer, .. } => Some(peer),
        }
    }
}

/// Connects to a peer of `group`, which has `connect_timeout` for it, and on failure to up to `retries` others,
/// each of them once and each with a time of its own. Waits for a peer that has room, if the group has a queue.
///
/// # Errors
/// What became of the last peer tried. Out of descriptors or memory, it gives up at once: no other peer could
/// change that. Out of ports towards one peer, another is tried.
pub async fn dial(group: &Group, key: &LeaseKey, options: &PeerSocket) -> Result<Dialed, DialError> {
    dial_for(group, key, options, Caller::default()).await
}

/// For whom a peer is dialled.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'a> {
    /// The client's connection, which is watched while it waits in the group's queue.
    pub stream: Option<&'a Stream>,
    /// What the peer gets before anything else, a TLS handshake included.
    pub introduction: Option<&'a Introduction>,
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
    let client = key.client.map(|client| client.ip());
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
        let begun = Instant::now();
        let connecting = async {
            let stream = stream::connect(lease.address(), options, client).await?;
            if let Some(introduction) = caller.introduction {
                introduction.send(&stream).await?;
            }
            group.secure(&stream, lease.address()).await?;
            Ok(stream)
        };
        let connected = match tokio::time::timeout(group.spec().connect_timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within connect_timeout")),
        };
        let source = match connected {
            Ok(stream) => {
                let connect_time = begun.elapsed();
                lease.succeeded(Some(connect_time), clock::now().0);
                return Ok(Dialed { stream, lease, connect_time });
            }
            Err(error) => error,
        };
        let peer = Arc::clone(lease.peer());
        match Blame::of(&source) {
            Blame::Resources => return Err(DialError::Resources { peer, source }),
            Blame::NoWay => last = Some(DialError::NoWay { peer: Arc::clone(&peer), source }),
            Blame::LocalPort => last = Some(DialError::Resources { peer: Arc::clone(&peer), source }),
            Blame::Peer(kind) => {
                lease.failed(kind, clock::now().0);
                last = Some(DialError::Failed { peer: Arc::clone(&peer), kind, source });
            }
        }
        tried.push(peer);
    }
    // There was at least one attempt, so that the last one is known.
    Err(last.unwrap_or_else(|| DialError::NoPeer { group: Arc::clone(group.name()), reason: NoPeer::Tried }))
}

#[cfg(test)]
mod tests;
