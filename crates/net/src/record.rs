//! What happened to a connection or a flow: its record, its outcome, its listener's counters.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use wmproxy_runtime::counter::{Counter, Counters, Log2Histogram, Sharded};

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
    /// Every peer that could be used is down by its health checks.
    NoHealthyPeer = "no_healthy_peer", Upstream;
    /// Every peer has its `max_connections`, and as many connections as may wait for one do.
    QueueFull = "queue_full", Upstream;
    /// No peer had room within the queue's `timeout`.
    QueueTimeout = "queue_timeout", Upstream;
    /// The client left while it waited in the queue.
    QueueLeft = "queue_left", Client;
    /// Refused by `allow` or `deny`.
    Denied = "denied", Client;
    /// The client left before it had said what the listener waits for: a PROXY header, a ClientHello.
    ClientLeft = "client_left", Client;
    /// What the client has to say first did not come within `preface_timeout`.
    PrefaceTimeout = "preface_timeout", Client;
    /// A proxy that is trusted did not begin with a whole and valid PROXY header.
    BadProxyHeader = "bad_proxy_header", Client;
    /// No TLS where the listener routes by it.
    NotTls = "not_tls", Client;
    /// A ClientHello that is broken, too large or cut off.
    BadClientHello = "bad_client_hello", Client;
    /// No route for the name that the client asks for, and no default.
    NoRoute = "no_route", Client;
    /// TLS with the client failed: no handshake was agreed on, a record was broken, or it was cut off without
    /// close_notify. The debug log says which.
    ClientTls = "client_tls", Client;
    /// TLS with the peer failed, or its certificate was not accepted.
    PeerTls = "peer_tls", Upstream;
    /// The client did not ask properly for a WebSocket, or for another host or path than the listener's.
    BadUpgrade = "bad_upgrade", Client;
    /// The peer did not answer the request for a WebSocket by granting it.
    UpgradeRefused = "upgrade_refused", Upstream;
    /// The client broke the WebSocket protocol.
    ClientWsViolation = "client_ws_violation", Client;
    /// The peer broke the WebSocket protocol.
    PeerWsViolation = "peer_ws_violation", Upstream;
    /// The client closed its WebSocket with a code that says that something went wrong.
    ClientWsClose = "client_ws_close", Client;
    /// The peer closed its WebSocket with a code that says that something went wrong.
    PeerWsClose = "peer_ws_close", Upstream;
    /// The client's end of the WebSocket did not answer a ping.
    ClientNoPong = "client_no_pong", Client;
    /// The peer's end of the WebSocket did not answer a ping.
    PeerNoPong = "peer_no_pong", Upstream;
    /// Refused: the client has `per_client_connections` already.
    ClientLimit = "client_limit", Client;
    /// Refused: the client comes more often than `per_client_rate`.
    RateLimited = "rate_limited", Client;
    /// The oldest idle flow, ended to make room for a new one.
    Evicted = "evicted", Us;
    /// Closed by force at the end of a drain.
    Drained = "drained", Us;
    /// This machine can't connect to a peer as it is configured to: from that address, through that device.
    NoWay = "no_way", Us;
    /// This machine ran out of descriptors, ports or memory.
    NoResources = "no_resources", Us;
    /// A defect of this program; the log has it.
    Panicked = "panicked", Us;
}

/// The listener's view of every datagram that was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpDrop {
    /// Refused by `allow` or `deny`.
    Denied,
    /// The client has `per_client_connections` flows already.
    ClientLimit,
    /// The client begins flows more often than `per_client_rate`.
    RateLimited,
    /// More than `rate_limit` or `listener_rate_limit` lets pass.
    OverRate,
    /// The listener is going: it begins no more flows.
    Draining,
    /// A proxy that is trusted sent a datagram that needs a PROXY header, and has none or a broken one.
    BadProxyHeader,
    /// Nothing that begins a QUIC connection, on a listener that routes by it and has no default.
    NotQuic,
    /// A QUIC hello that is broken, too large or in too many pieces.
    BadClientHello,
    /// No route for the name that the client asks for, and no default.
    NoRoute,
    /// Held until its client's hello is complete, which did not come within `preface_timeout`.
    PrefaceTimeout,
    /// Held until its client's hello is complete, and let go because there were too many.
    PrefaceLimit,
    /// No peer, or no socket for a new flow.
    NoFlow,
    /// The peer's socket took no more.
    PeerFull,
    /// The client's side took no more.
    ClientFull,
    /// The kernel cut it, or its address made no sense.
    Malformed,
    /// It can't be sent on: too large for the way there, or forbidden here.
    Unfit,
    /// The peer's port is closed (ICMP), or sending failed otherwise.
    Unreachable,
}

impl UdpDrop {
    /// Every reason, in the order of its index.
    pub const ALL: &[UdpDrop] = &[
        UdpDrop::Denied,
        UdpDrop::ClientLimit,
        UdpDrop::RateLimited,
        UdpDrop::OverRate,
        UdpDrop::Draining,
        UdpDrop::BadProxyHeader,
        UdpDrop::NotQuic,
        UdpDrop::BadClientHello,
        UdpDrop::NoRoute,
        UdpDrop::PrefaceTimeout,
        UdpDrop::PrefaceLimit,
        UdpDrop::NoFlow,
        UdpDrop::PeerFull,
        UdpDrop::ClientFull,
        UdpDrop::Malformed,
        UdpDrop::Unfit,
        UdpDrop::Unreachable,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            UdpDrop::Denied => "denied",
            UdpDrop::ClientLimit => "client_limit",
            UdpDrop::RateLimited => "rate_limited",
            UdpDrop::OverRate => "over_rate",
            UdpDrop::Draining => "draining",
            UdpDrop::BadProxyHeader => "bad_proxy_header",
            UdpDrop::NotQuic => "not_quic",
            UdpDrop::BadClientHello => "bad_client_hello",
            UdpDrop::NoRoute => "no_route",
            UdpDrop::PrefaceTimeout => "preface_timeout",
            UdpDrop::PrefaceLimit => "preface_limit",
            UdpDrop::NoFlow => "no_flow",
            UdpDrop::PeerFull => "peer_full",
            UdpDrop::ClientFull => "client_full",
            UdpDrop::Malformed => "malformed",
            UdpDrop::Unfit => "unfit",
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
    /// Those bytes of either direction that the kernel passed on without copying them.
    pub bytes_spliced: Counter,
    /// Datagrams from clients to peers.
    pub datagrams_in: Counter,
    /// Datagrams from peers to clients.
    pub datagrams_out: Counter,
    /// Ends by outcome; the refusals among them are what was turned away.
    pub outcomes: Counters<{ Outcome::ALL.len() }>,
    /// Datagrams dropped by reason.
    pub udp_drops: [Counter; UdpDrop::ALL.len()],
    /// Datagrams in one receive from clients.
    pub udp_batch_in: Log2Histogram,
    /// Datagrams in one send to a client.
    pub udp_batch_out: Log2Histogram,
    /// Datagrams in one send to a peer.
    pub udp_batch_to_peer: Log2Histogram,
    /// Datagrams in one receive from a peer.
    pub udp_batch_from_peer: Log2Histogram,
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
    /// What it told of itself before its data.
    pub preface: Option<Box<Preface>>,
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

/// What a connection tells of itself before its data: in a PROXY header, in the ClientHello, in the TLS session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preface {
    /// Who connected to us, where a PROXY header names somebody else as the client.
    pub via: Option<SocketAddr>,
    /// Where the client had connected to, as that header says.
    pub destination: Option<SocketAddr>,
    /// What else that header says, as `wmproxy_wire::proxy_protocol::Tlvs` reads it.
    pub proxy_tlvs: Box<[u8]>,
    /// The server name that the client asks for.
    pub sni: Option<Box<str>>,
    /// The application protocols that it offers, or the one that was agreed on: joined by commas.
    pub alpn: Option<Box<str>>,
}

/// Where closed records go. Must return at once: it is called on a worker.
pub trait AccessLog: Send + Sync {
    /// Takes one record.
    fn write(&self, record: &ClosedRecord);
}

/// The running account of one connection or flow. Whoever ends it says how; if nobody does, the drop tells why.
pub struct Record {
    metrics: Arc<ListenerMetrics>,
    log: Option<Arc<dyn AccessLog>>,
    began: Instant,
    /// Who came; none for a unix socket.
    pub client: Option<SocketAddr>,
    /// What it told of itself before its data, if anything; see [`Record::preface_mut`].
    pub preface: Option<Box<Preface>>,
    /// The address of ours that the client reached, where the listener's own does not say it.
    pub local: Option<IpAddr>,
    /// The upstream group's name.
    pub group: Option<Arc<str>>,
    /// The peer that it is connected to, or the last one tried.
    pub peer: Option<Address>,
    /// How long connecting to the peer took.
    pub connect_time: Option<Duration>,
    bytes_in: u64,
    bytes_out: u64,
    datagrams_in: u64,
    datagrams_out: u64,
    outcome: Option<Outcome>,
}

impl Record {
    /// Opens the account and counts the connection or flow as accepted.
    pub fn open(
        metrics: Arc<ListenerMetrics>,
        log: Option<Arc<dyn AccessLog>>,
        client: Option<SocketAddr>,
    ) -> Record {
        metrics.blocks.local().accepted.add(1);
        Record {
            metrics,
            log,
            began: Instant::now(),
            client,
            preface: None,
            local: None,
            group: None,
            peer: None,
            connect_time: None,
            bytes_in: 0,
            bytes_out: 0,
            datagrams_in: 0,
            datagrams_out: 0,
            outcome: None,
        }
    }

    /// The listener's counters.
    pub fn metrics(&self) -> &Arc<ListenerMetrics> {
        &self.metrics
    }

    /// The address of ours that the client reached.
    pub fn local_address(&self) -> Address {
        match (self.local, &self.metrics.address) {
            (Some(ip), Address::Inet(bound)) => Address::Inet((ip, bound.port()).into()),
            (_, bound) => bound.clone(),
        }
    }

    /// To note what the client told of itself.
    pub fn preface_mut(&mut self) -> &mut Preface {
        self.preface.get_or_insert_default()
    }

    /// Adds bytes from the client, and towards it.
    #[inline]
    pub fn add_bytes(&mut self, inward: u64, outward: u64) {
        let block = self.metrics.blocks.local();
        if inward != 0 {
            self.bytes_in += inward;
            block.bytes_in.add(inward);
        }
        if outward != 0 {
            self.bytes_out += outward;
            block.bytes_out.add(outward);
        }
    }

    /// Says how many of the bytes were spliced.
    #[inline]
    pub fn add_spliced(&self, bytes: u64) {
        if bytes != 0 {
            self.metrics.blocks.local().bytes_spliced.add(bytes);
        }
    }

    /// Adds datagrams from the client.
    #[inline]
    pub fn add_datagrams_in(&mut self, datagrams: u64, bytes: u64) {
        self.datagrams_in += datagrams;
        self.metrics.blocks.local().datagrams_in.add(datagrams);
        self.add_bytes(bytes, 0);
    }

    /// Adds datagrams towards the client.
    #[inline]
    pub fn add_datagrams_out(&mut self, datagrams: u64, bytes: u64) {
        self.datagrams_out += datagrams;
        self.metrics.blocks.local().datagrams_out.add(datagrams);
        self.add_bytes(0, bytes);
    }

    /// The outcome of silence: who never said anything is named.
    pub fn silence(&self) -> Outcome {
        let (client, peer) = (self.bytes_in + self.datagrams_in, self.bytes_out + self.datagrams_out);
        match (client, peer) {
            (0, _) => Outcome::ClientSilent,
            (_, 0) => Outcome::PeerSilent,
            _ => Outcome::IdleTimeout,
        }
    }

    /// How long ago it was opened.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Says how it ended. The first word counts.
    pub fn close(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("client", &self.client)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or_else(|| {
            // Nobody closed it: its task unwinds, or was ended from outside.
            if std::thread::panicking() { Outcome::Panicked } else { Outcome::Drained }
        });
        let block = self.metrics.blocks.local();
        block.closed.add(1);
        block.outcomes[outcome as usize].add(1);
        let Some(log) = self.log.take() else { return };
        let duration = self.began.elapsed();
        log.write(&ClosedRecord {
            protocol: self.metrics.protocol,
            listener: self.metrics.name.clone(),
            client: self.client,
            preface: self.preface.take(),
            local: self.local_address(),
            group: self.group.take(),
            peer: self.peer.take(),
            started: SystemTime::now() - duration,
            connect_time: self.connect_time,
            duration,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            datagrams_in: self.datagrams_in,
            datagrams_out: self.datagrams_out,
            outcome,
        });
    }
}
