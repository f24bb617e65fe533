//! What is measured: the shape and amount of work of each scenario, and the bar it is held to.

mod file_specs;
mod forward_specs;
mod http_specs;
mod specs;
mod tunnel_specs;

use anyhow::{Result, bail};
use clap::ValueEnum;

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
    /// Requests one after the other on connections that stay.
    HttpGet,
    /// As `HttpGet` with a body each way.
    HttpPost,
    /// As `HttpGet` with bodies so long that the backend gives each connection a thread.
    HttpLong,
    /// A new connection for each request.
    HttpConnect,
    /// Connections that make a request and go idle.
    HttpIdle,
    /// Requests at times that do not wait for answers.
    HttpPaced,
    HttpTls,
    HttpTlsIdle,
    /// Streams of HTTP/2 over TLS.
    HttpH2,
    /// Requests for files, one after the other on connections that stay.
    FileGet,
    FileTls,
    /// As `FileGet` by a client that has all the files already.
    FileUnchanged,
    /// Requests for a directory's listing, each on a connection of its own.
    FileListing,
    /// As `FileGet`, for no file twice.
    FileDistinct,
}

/// What the figure of a scenario is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// CPU a unit of work.
    Cpu,
    /// Memory that each unit of work holds.
    Memory,
    /// Memory that all of the work has left behind.
    Growth,
    /// The time that all but one in a hundred requests keep.
    Tail,
    /// The time until an answer begins.
    FirstByte,
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
    /// Itself as a relay of layer 4, of the same traffic.
    Relay,
    Squid,
    Tinyproxy,
    Dante,
    Microsocks,
    Rathole,
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
    /// They are proxies of HTTP.
    Http(Front),
    /// They serve files over HTTP, and there is no backend.
    Files(Front),
    /// They are forward proxies: the load says where it wants to go.
    Forward(Door),
    /// They are both ends of a tunnel.
    Tunnel(Carrier),
}

/// What carries a tunnel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Tls,
    Quic,
}

/// How the load says where it wants to go.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Door {
    /// CONNECT of HTTP.
    Connect,
    /// Requests of HTTP in absolute form.
    Http,
    /// SOCKS 5.
    Socks5,
    /// Datagrams by SOCKS 5.
    Udp,
}

/// What the clients of an HTTP proxy or server speak.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// HTTP/1.1 in the clear.
    Clear,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    H2,
}

/// Everything fixed about a scenario.
pub(crate) struct Spec {
    /// Its name in file names, progress lines and on the command line.
    pub(crate) slug: &'static str,
    pub(crate) title: &'static str,
    /// The work in one sentence.
    pub(crate) what: &'static str,
    /// What the first column of figures holds, with its unit.
    pub(crate) figure: &'static str,
    /// One unit of work, singular.
    pub(crate) unit: &'static str,
    pub(crate) kind: Kind,
    /// Bytes of a message, body or datagram; of a listing, its entries.
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
    /// All that it is held to; the first one's rival is the one that figures are told as multiples of in the overview.
    pub(crate) bars: &'static [Bar],
}

impl Bar {
    /// Whom wmproxy's figure is told as a multiple of; nginx where the bar is no multiple.
    pub(crate) fn rival(&self) -> Rival {
        match self {
            Self::Times(rival, _) => *rival,
            Self::AtMost(_) => Rival::Nginx,
        }
    }
}

impl Rival {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Better => "the better peer",
            Self::Plain => "plain",
            Self::Relay => "layer 4",
            Self::Squid => "Squid",
            Self::Tinyproxy => "tinyproxy",
            Self::Dante => "Dante",
            Self::Microsocks => "microsocks",
            Self::Rathole => "rathole",
        }
    }
}

impl Door {
    /// The value as the hidden roles take it on their command line.
    pub(crate) fn arg(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Kind {
    /// The value as the hidden roles take it on their command line.
    pub(crate) fn arg(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
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

    /// Of `wanted` rounds, how many are run. Memory that a million requests leave behind is the same each time, and each
    /// time takes minutes.
    pub(crate) fn rounds(&self, wanted: u32) -> u32 {
        if self.measure() == Measure::Growth { 1 } else { wanted }
    }

    /// Whom figures are told as multiples of, without repetition; nobody where the best figure is 0.
    pub(crate) fn rivals(&self) -> Vec<Rival> {
        if self.measure() == Measure::Growth {
            return Vec::new();
        }
        let mut rivals: Vec<Rival> = self.bars.iter().map(|bar| bar.rival()).collect();
        rivals.dedup();
        rivals
    }

    pub(crate) fn is_http(&self) -> bool {
        matches!(self.feature, Feature::Http(_))
    }

    /// Whether files are served, and nothing is behind the servers.
    pub(crate) fn is_files(&self) -> bool {
        matches!(self.feature, Feature::Files(_))
    }

    /// How the load says to forward proxies where it wants to go; none where they are others.
    pub(crate) fn door(&self) -> Option<Door> {
        match self.feature {
            Feature::Forward(door) => Some(door),
            _ => None,
        }
    }

    /// What carries the tunnel; none where the proxies are others.
    pub(crate) fn carrier(&self) -> Option<Carrier> {
        match self.feature {
            Feature::Tunnel(carrier) => Some(carrier),
            _ => None,
        }
    }

    /// Whether the proxies are told by their config where everything goes, and take it as it comes.
    pub(crate) fn is_plain_udp(&self) -> bool {
        self.is_udp() && self.door().is_none()
    }

    /// Whether the proxies end TLS.
    pub(crate) fn is_tls(&self) -> bool {
        let front = match self.feature {
            Feature::Http(front) | Feature::Files(front) => front,
            feature => return feature == Feature::Tls,
        };
        front != Front::Clear
    }

    pub(crate) fn is_udp(&self) -> bool {
        matches!(self.kind, Kind::Udp | Kind::UdpFlows | Kind::Quic)
    }

    pub(crate) fn measure(&self) -> Measure {
        match self.kind {
            Kind::Idle | Kind::TlsIdle | Kind::HttpIdle | Kind::HttpTlsIdle => Measure::Memory,
            Kind::FileDistinct => Measure::Growth,
            Kind::HttpPaced => Measure::Tail,
            Kind::FileListing => Measure::FirstByte,
            _ => Measure::Cpu,
        }
    }

    /// Whether the figure is memory of either sort.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.measure(), Measure::Memory | Measure::Growth)
    }

    /// Factor from nanoseconds of CPU to the figure's unit: seconds for a GB, microseconds for the rest.
    pub(crate) fn per_ns(&self) -> f64 {
        if self.kind.moves_bytes() { 1e-9 } else { 1e-3 }
    }
}

/// The scenarios that `only` names, in the order of the report; all when it is empty. `tcp-bulk` names every one that
/// begins so, unless one is called just that.
pub(crate) fn chosen(only: &[String]) -> Result<Vec<&'static Spec>> {
    let is_named = |name: &str| all().any(|spec| spec.slug == name);
    let covers = |name: &str, spec: &Spec| match spec.slug.strip_prefix(name) {
        Some(rest) => rest.is_empty() || rest.starts_with('-') && !is_named(name),
        None => false,
    };
    if let Some(stray) = only.iter().find(|name| !all().any(|spec| covers(name, spec))) {
        let slugs: Vec<_> = all().map(|spec| spec.slug).collect();
        bail!("no scenario is called {stray}; there are {}", slugs.join(", "));
    }
    let wanted = |spec: &&Spec| only.is_empty() || only.iter().any(|name| covers(name, spec));
    Ok(all().filter(wanted).collect())
}

/// Every scenario, in the order of the report.
pub(crate) fn all() -> impl Iterator<Item = &'static Spec> {
    let (files, http) = (&file_specs::SPECS, &http_specs::SPECS);
    let (forward, tunnel) = (&forward_specs::SPECS, &tunnel_specs::SPECS);
    files.iter().chain(http).chain(tunnel).chain(forward).chain(&specs::SPECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_covers_itself_or_all_that_begin_with_it() {
        let slugs = |name: &str| -> Vec<_> {
            chosen(&[name.to_owned()]).unwrap().iter().map(|spec| spec.slug).collect()
        };
        assert_eq!(slugs("setup"), ["setup"]);
        assert_eq!(slugs("tcp-bulk"), ["tcp-bulk-down", "tcp-bulk-up"]);
        assert!(chosen(&["tcp-b".to_owned()]).is_err());
        assert_eq!(chosen(&[]).unwrap().len(), all().count());
    }
}
