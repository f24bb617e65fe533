//! What is measured: the shape and amount of work of each scenario, and the bar it is held to.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a user names with `--only`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    TcpSmall,
    TcpPingpong,
    TcpBulk,
    #[value(name = "udp-1200")]
    Udp1200,
    #[value(name = "udp-100")]
    Udp100,
    UdpFlows,
    UdpGso,
    Idle,
    Setup,
    SetupProxy,
    SetupSni,
    TlsHandshake,
    TlsBulk,
    TlsIdle,
}

/// One table of the report.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    TcpSmall,
    TcpPingpong,
    TcpBulkDown,
    TcpBulkUp,
    #[serde(rename = "udp-1200")]
    Udp1200,
    #[serde(rename = "udp-100")]
    Udp100,
    UdpFlows,
    UdpGso,
    Idle,
    Setup,
    SetupProxy,
    SetupSni,
    TlsHandshake,
    TlsBulkDown,
    TlsBulkUp,
    TlsIdle,
}

/// Which pair of load generator and backend does the work.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    TcpSmall,
    BulkDown,
    BulkUp,
    Udp,
    UdpFlows,
    Quic,
    Idle,
    Setup,
    /// As `Setup`, and the backend strips a PROXY header.
    SetupProxied,
    /// As `Setup` with a ClientHello for a message.
    SetupHello,
    TlsHandshake,
    TlsBulkDown,
    TlsBulkUp,
    TlsIdle,
}

/// What wmproxy is held to.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    /// At most this many times a rival's figure.
    Times(Rival, f64),
    /// At most this much, in the scenario's own unit.
    AtMost(f64),
}

/// Whom wmproxy is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    Nginx,
    /// The better of nginx and HAProxy.
    Better,
    /// Itself, without the scenario's feature.
    Plain,
}

/// What the proxies do besides relaying.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    None,
    /// They tell the backend of the client in a PROXY header.
    ProxyHeader,
    /// They choose the backend by the server name in the ClientHello.
    ServerName,
    /// They may splice, as they do by default; the plain variant of wmproxy must not.
    Splice,
    /// They end the clients' TLS.
    Tls,
}

/// Everything fixed about a scenario.
pub(crate) struct Spec {
    pub(crate) scenario: Scenario,
    /// Its name in file names and progress lines.
    pub(crate) slug: &'static str,
    pub(crate) title: &'static str,
    /// The work in one sentence.
    pub(crate) what: &'static str,
    /// What the first column of figures holds, with its unit.
    pub(crate) figure: &'static str,
    /// One unit of work, singular.
    pub(crate) unit: &'static str,
    pub(crate) kind: Kind,
    pub(crate) size: usize,
    pub(crate) parallel: usize,
    /// Work of a full run, chosen so that the proxies are busy for seconds, hundreds of times the granularity of
    /// anything read from /proc.
    work: u64,
    /// Work of a quick run.
    quick: u64,
    pub(crate) warmup: u64,
    /// Units that the proxy handles per piece of work: a UDP echo passes the proxy as two datagrams.
    pub(crate) units_per_work: f64,
    pub(crate) feature: Feature,
    pub(crate) bar: Bar,
}

const KIB_64: usize = 64 * 1024;

const SPECS: [Spec; 16] = [
    Spec {
        scenario: Scenario::TcpSmall,
        slug: "tcp-small",
        title: "Small-message TCP relay",
        what: "50 connections play ping-pong with a TCP echo backend, 100 bytes each way.",
        figure: "CPU per request, µs",
        unit: "request",
        kind: Kind::TcpSmall,
        size: 100,
        parallel: 50,
        work: 200_000,
        quick: 20_000,
        warmup: 5_000,
        units_per_work: 1.0,
        feature: Feature::None,
        bar: Bar::Times(Rival::Nginx, 1.05),
    },
    Spec {
        scenario: Scenario::TcpPingpong,
        slug: "tcp-pingpong",
        title: "Ping-pong where splicing is allowed",
        what: "As above with 64 bytes each way. The plain variant is not allowed to splice.",
        figure: "CPU per request, µs",
        unit: "request",
        kind: Kind::TcpSmall,
        size: 64,
        parallel: 50,
        work: 200_000,
        quick: 20_000,
        warmup: 5_000,
        units_per_work: 1.0,
        feature: Feature::Splice,
        bar: Bar::Times(Rival::Plain, 1.0),
    },
    Spec {
        scenario: Scenario::TcpBulkDown,
        slug: "tcp-bulk-down",
        title: "TCP bulk, download",
        what: "4 connections fetch 4 GB (10^9 bytes) in all from the backend.",
        figure: "CPU per GB, s",
        unit: "GB",
        kind: Kind::BulkDown,
        size: KIB_64,
        parallel: 4,
        work: 4_000_000_000,
        quick: 400_000_000,
        warmup: 0,
        units_per_work: 1e-9,
        feature: Feature::None,
        bar: Bar::Times(Rival::Better, 0.45),
    },
    Spec {
        scenario: Scenario::TcpBulkUp,
        slug: "tcp-bulk-up",
        title: "TCP bulk, upload",
        what: "4 connections send 4 GB (10^9 bytes) in all to the backend, which confirms what it has read.",
        figure: "CPU per GB, s",
        unit: "GB",
        kind: Kind::BulkUp,
        size: KIB_64,
        parallel: 4,
        work: 4_000_000_000,
        quick: 400_000_000,
        warmup: 0,
        units_per_work: 1e-9,
        feature: Feature::None,
        bar: Bar::Times(Rival::Better, 0.45),
    },
    Spec {
        scenario: Scenario::Udp1200,
        slug: "udp-1200",
        title: "UDP, 1200-byte datagrams",
        what: "8 client sockets keep up to 20 datagrams each in flight, sent in bursts of 10 or more, to a UDP echo \
               backend; an echo is two datagrams for the proxy. Client and backend use one syscall a datagram.",
        figure: "CPU per datagram, µs",
        unit: "datagram",
        kind: Kind::Udp,
        size: 1200,
        parallel: 8,
        work: 150_000,
        quick: 15_000,
        warmup: 3_000,
        units_per_work: 2.0,
        feature: Feature::None,
        bar: Bar::Times(Rival::Nginx, 0.5),
    },
    Spec {
        scenario: Scenario::Udp100,
        slug: "udp-100",
        title: "UDP, 100-byte datagrams",
        what: "As above with 100 bytes a datagram.",
        figure: "CPU per datagram, µs",
        unit: "datagram",
        kind: Kind::Udp,
        size: 100,
        parallel: 8,
        work: 150_000,
        quick: 15_000,
        warmup: 3_000,
        units_per_work: 2.0,
        feature: Feature::None,
        bar: Bar::Times(Rival::Nginx, 0.8),
    },
    Spec {
        scenario: Scenario::UdpFlows,
        slug: "udp-flows",
        title: "UDP, 10,000 flows",
        what: "10,000 client sockets send one datagram of 100 bytes in turn, 160 in flight over all, to a UDP echo \
               backend; an echo is two datagrams for the proxy.",
        figure: "CPU per datagram, µs",
        unit: "datagram",
        kind: Kind::UdpFlows,
        size: 100,
        parallel: 10_000,
        work: 150_000,
        quick: 15_000,
        warmup: 10_000,
        units_per_work: 2.0,
        feature: Feature::None,
        bar: Bar::Times(Rival::Nginx, 1.0),
    },
    Spec {
        scenario: Scenario::UdpGso,
        slug: "udp-gso",
        title: "UDP, QUIC bulk from GSO senders",
        what: "2 QUIC connections (quinn) fetch 1 GB (10^9 bytes) in all through the proxy.",
        figure: "CPU per GB, s",
        unit: "GB",
        kind: Kind::Quic,
        size: 0,
        parallel: 2,
        work: 1_000_000_000,
        quick: 100_000_000,
        warmup: 20_000_000,
        units_per_work: 1e-9,
        feature: Feature::None,
        bar: Bar::Times(Rival::Nginx, 0.2),
    },
    Spec {
        scenario: Scenario::Setup,
        slug: "setup",
        title: "Connection set-up",
        what: "32 clients at a time connect, exchange 34 bytes each way and close.",
        figure: "CPU per connection, µs",
        unit: "connection",
        kind: Kind::Setup,
        size: 34,
        parallel: 32,
        work: 20_000,
        quick: 2_000,
        warmup: 500,
        units_per_work: 1.0,
        feature: Feature::None,
        bar: Bar::Times(Rival::Nginx, 1.1),
    },
    Spec {
        scenario: Scenario::SetupProxy,
        slug: "setup-proxy",
        title: "Connection set-up with a PROXY header",
        what: "As above, and the proxy tells the backend of the client: wmproxy and HAProxy by PROXY v2, nginx, which \
               writes nothing else, by v1. The plain variant tells nothing.",
        figure: "CPU per connection, µs",
        unit: "connection",
        kind: Kind::SetupProxied,
        size: 34,
        parallel: 32,
        work: 20_000,
        quick: 2_000,
        warmup: 500,
        units_per_work: 1.0,
        feature: Feature::ProxyHeader,
        bar: Bar::Times(Rival::Plain, 1.1),
    },
    Spec {
        scenario: Scenario::SetupSni,
        slug: "setup-sni",
        title: "Connection set-up routed by server name",
        what: "As above with a ClientHello of 517 bytes for a message, by whose server name the proxy chooses the \
               backend. The plain variant has one for all.",
        figure: "CPU per connection, µs",
        unit: "connection",
        kind: Kind::SetupHello,
        size: 517,
        parallel: 32,
        work: 20_000,
        quick: 2_000,
        warmup: 500,
        units_per_work: 1.0,
        feature: Feature::ServerName,
        bar: Bar::Times(Rival::Plain, 1.1),
    },
    Spec {
        scenario: Scenario::Idle,
        slug: "idle",
        title: "Memory of an idle TCP session",
        what: "4,000 sessions are opened, exchange 34 bytes each way once and go idle; the growth of the proxy's \
               Pss over the fresh process, divided by the sessions. Kernel memory of sockets is not in it.",
        figure: "Memory per session, KB (1024 bytes)",
        unit: "session",
        kind: Kind::Idle,
        size: 34,
        parallel: 1,
        work: 4_000,
        quick: 500,
        warmup: 0,
        units_per_work: 1.0,
        feature: Feature::None,
        bar: Bar::AtMost(2.5),
    },
    Spec {
        scenario: Scenario::TlsHandshake,
        slug: "tls-handshake",
        title: "TLS handshakes",
        what: "16 clients at a time make a whole handshake (TLS 1.3, X25519, ECDSA with P-256), exchange 34 bytes each \
               way and close; the proxy ends the TLS and relays in the clear.",
        figure: "CPU per connection, µs",
        unit: "connection",
        kind: Kind::TlsHandshake,
        size: 34,
        parallel: 16,
        work: 10_000,
        quick: 1_000,
        warmup: 200,
        units_per_work: 1.0,
        feature: Feature::Tls,
        bar: Bar::Times(Rival::Nginx, 1.0),
    },
    Spec {
        scenario: Scenario::TlsBulkDown,
        slug: "tls-bulk-down",
        title: "TLS bulk, download",
        what: "4 connections fetch 2 GB (10^9 bytes) in all from the backend through TLS 1.3 that the proxy ends.",
        figure: "CPU per GB, s",
        unit: "GB",
        kind: Kind::TlsBulkDown,
        size: KIB_64,
        parallel: 4,
        work: 2_000_000_000,
        quick: 200_000_000,
        warmup: 0,
        units_per_work: 1e-9,
        feature: Feature::Tls,
        bar: Bar::Times(Rival::Nginx, 1.0),
    },
    Spec {
        scenario: Scenario::TlsBulkUp,
        slug: "tls-bulk-up",
        title: "TLS bulk, upload",
        what: "4 connections send 2 GB (10^9 bytes) in all to the backend, through TLS 1.3 that the proxy ends.",
        figure: "CPU per GB, s",
        unit: "GB",
        kind: Kind::TlsBulkUp,
        size: KIB_64,
        parallel: 4,
        work: 2_000_000_000,
        quick: 200_000_000,
        warmup: 0,
        units_per_work: 1e-9,
        feature: Feature::Tls,
        bar: Bar::Times(Rival::Nginx, 1.0),
    },
    Spec {
        scenario: Scenario::TlsIdle,
        slug: "tls-idle",
        title: "Memory of an idle TLS session",
        what: "As for an idle TCP session, with 1,000 sessions of TLS 1.3 that the proxy ends.",
        figure: "Memory per session, KB (1024 bytes)",
        unit: "session",
        kind: Kind::TlsIdle,
        size: 34,
        parallel: 1,
        work: 1_000,
        quick: 250,
        warmup: 0,
        units_per_work: 1.0,
        feature: Feature::Tls,
        bar: Bar::AtMost(12.0),
    },
];

impl Choice {
    fn covers(self, scenario: Scenario) -> bool {
        match self {
            Self::TcpSmall => scenario == Scenario::TcpSmall,
            Self::TcpPingpong => scenario == Scenario::TcpPingpong,
            Self::TcpBulk => matches!(scenario, Scenario::TcpBulkDown | Scenario::TcpBulkUp),
            Self::Udp1200 => scenario == Scenario::Udp1200,
            Self::Udp100 => scenario == Scenario::Udp100,
            Self::UdpFlows => scenario == Scenario::UdpFlows,
            Self::UdpGso => scenario == Scenario::UdpGso,
            Self::Idle => scenario == Scenario::Idle,
            Self::Setup => scenario == Scenario::Setup,
            Self::SetupProxy => scenario == Scenario::SetupProxy,
            Self::SetupSni => scenario == Scenario::SetupSni,
            Self::TlsHandshake => scenario == Scenario::TlsHandshake,
            Self::TlsBulk => matches!(scenario, Scenario::TlsBulkDown | Scenario::TlsBulkUp),
            Self::TlsIdle => scenario == Scenario::TlsIdle,
        }
    }
}

impl Rival {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Better => "the better peer",
            Self::Plain => "plain",
        }
    }
}

impl Kind {
    /// The value as the hidden roles take it on their command line.
    pub(crate) fn arg(self) -> &'static str {
        match self {
            Self::TcpSmall => "tcp-small",
            Self::BulkDown => "bulk-down",
            Self::BulkUp => "bulk-up",
            Self::Udp => "udp",
            Self::UdpFlows => "udp-flows",
            Self::Quic => "quic",
            Self::Idle => "idle",
            Self::Setup => "setup",
            Self::SetupProxied => "setup-proxied",
            Self::SetupHello => "setup-hello",
            Self::TlsHandshake => "tls-handshake",
            Self::TlsBulkDown => "tls-bulk-down",
            Self::TlsBulkUp => "tls-bulk-up",
            Self::TlsIdle => "tls-idle",
        }
    }

    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::BulkDown | Self::BulkUp)
    }

    /// Whether work is counted in bytes.
    pub(crate) fn moves_bytes(self) -> bool {
        self.is_bulk() || matches!(self, Self::Quic | Self::TlsBulkDown | Self::TlsBulkUp)
    }
}

impl Spec {
    pub(crate) fn work(&self, quick: bool) -> u64 {
        if quick { self.quick } else { self.work }
    }

    /// Whom wmproxy's figure is told as a multiple of; nginx where the bar is no multiple.
    pub(crate) fn rival(&self) -> Rival {
        match self.bar {
            Bar::Times(rival, _) => rival,
            Bar::AtMost(_) => Rival::Nginx,
        }
    }

    pub(crate) fn is_udp(&self) -> bool {
        matches!(self.kind, Kind::Udp | Kind::UdpFlows | Kind::Quic)
    }

    /// Whether the figure is memory rather than CPU.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.kind, Kind::Idle | Kind::TlsIdle)
    }

    /// Factor from nanoseconds of CPU to the figure's unit: seconds for a GB, microseconds for the rest.
    pub(crate) fn per_ns(&self) -> f64 {
        if self.kind.moves_bytes() { 1e-9 } else { 1e-3 }
    }
}

/// The scenarios that `only` names, in the order of the report; all when it is empty.
pub(crate) fn chosen(only: &[Choice]) -> Vec<&'static Spec> {
    let wanted = |spec: &&Spec| only.is_empty() || only.iter().any(|choice| choice.covers(spec.scenario));
    SPECS.iter().filter(wanted).collect()
}

/// Every scenario, in the order of the report.
pub(crate) fn all() -> &'static [Spec] {
    &SPECS
}
