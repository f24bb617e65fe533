//! What is measured: the shape and amount of work of each scenario, and the bar it is held to.

mod specs;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use specs::SPECS;

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
