//! What happened to a connection or a flow: its record, its outcome, its listener's counters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wmproxy_runtime::counter::{Counter, Log2Histogram, Sharded};

use crate::addr::{Address, Protocol};

/// Whose doing an outcome is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody's: it ended as it should.
    None,
    /// The client's.
    Client,
    /// The peer's behind us.
    Upstream,
    /// Ours, or this machine's.
    Us,
}

impl Fault {
    /// The word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::Client => "client",
            Fault::Upstream => "upstream",
            Fault::Us => "us",
        }
    }
}

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $fault:ident;)*) => {
        /// How a connection or a flow ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Outcome { $($(#[$doc])* $name,)* }

        impl Outcome {
            /// Every outcome, in the order of its index.
            pub const ALL: &[Outcome] = &[$(Outcome::$name,)*];

            /// The word in logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Outcome::$name => $word,)* }
            }

            /// Whose doing it is.
            pub fn fault(self) -> Fault {
                match self { $(Outcome::$name => Fault::$fault,)* }
            }
        }
    };
}

outcomes! {
    /// Both sides finished; a flow reached its `max_requests` or `max_responses`.
    Done = "done", None;
    /// No traffic for `idle_timeout`, after both sides had spoken; for a flow also the ordinary end.
    IdleTimeout = "idle_timeout", None;
    /// No traffic for `idle_timeout`, and the client never sent a byte.
    ClientSilent = "client_silent", Client;
    /// No traffic for `idle_timeout`, and the peer never answered.
    PeerSilent = "peer_silent", Upstream;
    /// The client reset the connection.
    ClientReset = "client_reset", Client;
    /// The peer reset the connection, or answered that its port is closed.
    PeerReset = "peer_reset", Upstream;
    /// No peer could be connected to.
    ConnectFailed = "connect_failed", Upstream;
    /// No peer answered within `connect_timeout`.
    ConnectTimeout = "connect_timeout", Upstream;
    /// Every peer is down, ejected, full or unresolved.
    NoPeer = "no_peer", Upstream;
    /// Refused by `allow` or `deny`.
    Denied = "denied", Client;
    /// Refused: the client has `per_client_connections` already.
    ClientLimit = "client_limit", Client;
    /// Refused: `max_connections` is reached and no flow could be evicted.
    ListenerLimit = "listener_limit", Us;
    /// The oldest idle flow, ended to make room for a new one.
    Evicted = "evicted", Us;
    /// Closed by force at the end of a drain.
    Drained = "drained", Us;
    /// This machine ran out of descriptors, ports or memory.
    NoResources = "no_resources", Us;
    /// A defect of this program; the log has it.
    Panicked = "panicked", Us;
}

/// The listener's view of every datagram that was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpDrop {
    /// The client may not come, or has too many flows.
    Refused,
    /// No peer, or no socket for a new flow.
    NoFlow,
    /// The peer's socket took no more.
    PeerFull,
    /// The client's side took no more.
    ClientFull,
    /// The kernel cut it, or its address made no sense.
    Malformed,
    /// The peer's port is closed (ICMP), or sending failed otherwise.
    Unreachable,
}

impl UdpDrop {
    /// Every reason, in the order of its index.
    pub const ALL: &[UdpDrop] = &[
        UdpDrop::Refused,
        UdpDrop::NoFlow,
        UdpDrop::PeerFull,
        UdpDrop::ClientFull,
        UdpDrop::Malformed,
        UdpDrop::Unreachable,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            UdpDrop::Refused => "refused",
            UdpDrop::NoFlow => "no_flow",
            UdpDrop::PeerFull => "peer_full",
            UdpDrop::ClientFull => "client_full",
            UdpDrop::Malformed => "malformed",
            UdpDrop::Unreachable => "unreachable",
        }
    }
}

/// What accept can answer instead of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptErrorKind {
    /// This client went away before it was accepted.
    Client,
    /// No descriptors or memory: accepting pauses.
    Resources,
    /// The listening socket itself failed.
    Socket,
}

impl AcceptErrorKind {
    /// Every kind, in the order of its index.
    pub const ALL: &[AcceptErrorKind] =
        &[AcceptErrorKind::Client, AcceptErrorKind::Resources, AcceptErrorKind::Socket];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AcceptErrorKind::Client => "client",
            AcceptErrorKind::Resources => "resources",
            AcceptErrorKind::Socket => "socket",
        }
    }
}

/// One worker's counters of one listener. `in` is from the client, `out` towards it.
#[derive(Debug, Default)]
pub struct ListenerBlock {
    /// Connections accepted and flows begun.
    pub accepted: Counter,
    /// Those of them that ended; the difference is what is active.
    pub closed: Counter,
    /// Bytes from clients to peers.
    pub bytes_in: Counter,
    /// Bytes from peers to clients.
    pub bytes_out: Counter,
    /// Datagrams from clients to peers.
    pub datagrams_in: Counter,
    /// Datagrams from peers to clients.
    pub datagrams_out: Counter,
    /// Ends by outcome; the refusals among them are what was turned away.
    pub outcomes: [Counter; Outcome::ALL.len()],
    /// Datagrams dropped by reason.
    pub udp_drops: [Counter; UdpDrop::ALL.len()],
    /// Datagrams in one receive from clients.
    pub udp_batch_in: Log2Histogram,
    /// Datagrams in one send to a client.
    pub udp_batch_out: Log2Histogram,
    /// Failures of accept by kind.
    pub accept_errors: [Counter; AcceptErrorKind::ALL.len()],
    /// How often accepting was paused for lack of resources, and how often it went on; the difference is who waits now.
    pub accept_pauses: Counter,
    /// See `accept_pauses`.
    pub accept_resumes: Counter,
}

/// The counters of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// The listener's name.
    pub name: Arc<str>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The address that it is bound to.
    pub address: Address,
    /// The counters, one block a worker.
    pub blocks: Sharded<ListenerBlock>,
}

impl ListenerMetrics {
    /// Counters at zero for `workers` workers.
    pub fn new(name: Arc<str>, protocol: Protocol, address: Address, workers: usize) -> Self {
        ListenerMetrics { name, protocol, address, blocks: Sharded::new(workers) }
    }

    /// Connections and flows that are open now.
    pub fn active(&self) -> u64 {
        let closed = self.blocks.sum(|b| &b.closed);
        self.blocks.sum(|b| &b.accepted).saturating_sub(closed)
    }
}

/// Everything known of a connection or a flow when it has ended: a line of the access log.
#[derive(Debug, Clone)]
pub struct ClosedRecord {
    /// Stream or datagrams.
    pub protocol: Protocol,
    /// The listener's name.
    pub listener: Arc<str>,
    /// Who came; none for a unix socket.
    pub client: Option<SocketAddr>,
    /// The address of ours that the client reached.
    pub local: Address,
    /// The upstream group's name.
    pub group: Option<Arc<str>>,
    /// The peer that it was connected to, or the last one tried.
    pub peer: Option<Address>,
    /// When it was accepted.
    pub started: SystemTime,
    /// How long connecting to the peer took, if it came to that.
    pub connect_time: Option<Duration>,
    /// From accept to the end.
    pub duration: Duration,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Datagrams from the client.
    pub datagrams_in: u64,
    /// Datagrams to the client.
    pub datagrams_out: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// Where closed records go. Must return at once: it is called on a worker.
pub trait AccessLog: Send + Sync {
    /// Takes one record.
    fn write(&self, record: &ClosedRecord);
}
