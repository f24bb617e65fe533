//! The words for how things ended: outcomes, dropped datagrams, failed accepts, and whose doing each was.

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
    /// The client began and did not go on in time: with the head or the body of a request, with a handshake of SOCKS, or with
    /// taking its response.
    ClientSlow = "client_slow", Client;
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
    /// The client left before it had said what the listener waits for: a PROXY header, a ClientHello, a request of SOCKS.
    ClientLeft = "client_left", Client;
    /// What the client has to say first did not come within `preface_timeout`.
    PrefaceTimeout = "preface_timeout", Client;
    /// A proxy that is trusted did not begin with a whole and valid PROXY header.
    BadProxyHeader = "bad_proxy_header", Client;
    /// No TLS where the listener routes by it.
    NotTls = "not_tls", Client;
    /// A ClientHello that is broken, too large or cut off.
    BadClientHello = "bad_client_hello", Client;
    /// No route for the name that the client asks for, and no default; or no certificate, where `strict_sni` wants one.
    NoRoute = "no_route", Client;
    /// TLS with the client failed: no handshake was agreed on, a record was broken, or it was cut off without
    /// close_notify. The debug log says which.
    ClientTls = "client_tls", Client;
    /// TLS with the peer failed, or its certificate was not accepted.
    PeerTls = "peer_tls", Upstream;
    /// What the client sent is no request of HTTP, or one that is refused whatever it asks for.
    BadRequest = "bad_request", Client;
    /// What the client sent is no SOCKS, or nothing that its protocol has a word for.
    BadSocks = "bad_socks", Client;
    /// The client speaks a protocol that the listener does not: SOCKS, HTTP.
    NotSpoken = "not_spoken", Client;
    /// The client did not prove who it is: with a wrong password, or with none, or in a way that is not taken.
    Unauthenticated = "unauthenticated", Client;
    /// The client made more work on an HTTP/2 connection than anybody needs: resets, pings, settings.
    Flood = "flood", Client;
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
    /// Refused: the client comes more often than `per_client_rate`, or after too many wrong secrets too soon.
    RateLimited = "rate_limited", Client;
    /// The user's quota of bytes was used up.
    Quota = "quota", Client;
    /// The file that was being sent was changed meanwhile.
    FileChanged = "file_changed", Us;
    /// What was being sent could not be read to its end.
    FileUnreadable = "file_unreadable", Us;
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
    /// No peer, no way through the tunnel, or no socket for a new flow.
    NoFlow,
    /// The peer's socket, or what carries datagrams through the tunnel, took no more.
    PeerFull,
    /// The client's side took no more.
    ClientFull,
    /// The kernel cut it, or its address or its SOCKS header made no sense.
    Malformed,
    /// A part of a larger one (FRAG of SOCKS 5), which is not put together.
    Fragment,
    /// From somebody else than the client of an association, or than the peers that this client has sent to.
    Stranger,
    /// For a name that has no addresses, or waited for them and was let go because there were too many.
    Unresolved,
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
        UdpDrop::Fragment,
        UdpDrop::Stranger,
        UdpDrop::Unresolved,
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
            UdpDrop::Fragment => "fragment",
            UdpDrop::Stranger => "stranger",
            UdpDrop::Unresolved => "unresolved",
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
