//! What exposures are made of, and where visitors find them.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::addr::{Address, Host, Protocol};
use wmproxy_net::record::AccessLog;
use wmproxy_stream::options::{StreamOptions, StreamSpec};
use wmproxy_stream::route::Routes;
use wmproxy_tunnel::options::VisitorsSpec;
use wmproxy_tunnel::server::{Exposure, Place};
use wmproxy_wire::bucket::Frequency;
use wmproxy_wire::tunnel::message::{Kind, Refusal};

use super::rules;

/// What a configuration says of ports.
#[derive(Clone)]
pub(crate) struct PortsSpec {
    /// The addresses of this machine at which ports are opened.
    pub(crate) host: Host,
    /// What visitors are kept to.
    pub(crate) visitors: VisitorsSpec,
    /// How long a visitor may wait for a stream: longer than the server has them wait.
    pub(crate) patience: Duration,
    /// Where connections and flows are written down.
    pub(crate) log: Option<Arc<dyn AccessLog>>,
    /// The port of the first http front, if there is one.
    pub(crate) http: Option<u16>,
    /// The port of the first https front, if there is one.
    pub(crate) https: Option<u16>,
    /// The name or address that others are told for this machine, if it is not that of its sockets.
    pub(crate) advertise: Option<Arc<str>>,
    /// Where this process listens, and the names of those listeners: nobody else gets their ports.
    pub(crate) own: Vec<Own>,
}

/// A listener of this process that no exposure made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) protocol: Protocol,
    pub(crate) address: Address,
    pub(crate) name: Arc<str>,
}

impl PortsSpec {
    /// Whether exposures that were made as another one says have to be made anew.
    pub(super) fn makes_others_than(&self, other: &PortsSpec) -> bool {
        let log = |spec: &PortsSpec| spec.log.as_ref().map(|log| Arc::as_ptr(log).cast::<()>());
        self.visitors != other.visitors
            || self.patience != other.patience
            || self.advertise != other.advertise
            || log(self) != log(other)
            || self.has_http(other)
    }

    fn has_http(&self, other: &PortsSpec) -> bool {
        (self.http, self.https) != (other.http, other.https)
    }
}

/// How the connections of an exposure are served, or its flows.
pub(super) fn stream(exposure: &Exposure, spec: &PortsSpec) -> StreamSpec {
    let VisitorsSpec { idle_timeout, max_connections, per_client_connections, per_client_rate, .. } =
        spec.visitors;
    let name = &exposure.name;
    let made = StreamOptions::default().spec(name.clone(), Arc::new(Routes::to(name.clone())), Protocol::Tcp);
    StreamSpec {
        acl: rules::acl(exposure),
        idle_timeout,
        max_connections: least(exposure.max_connections, max_connections),
        per_client_connections,
        per_client: per_client_rate.map(|rate| Frequency::new(rate, None)),
        ..made
    }
}

/// The lower of two limits, of which 0 is none.
pub(super) fn least(a: u32, b: u32) -> u32 {
    match (a, b) {
        (0, limit) | (limit, 0) => limit,
        (a, b) => a.min(b),
    }
}

/// Where visitors reach an exposure whose listener is bound to an address.
pub(super) fn place(exposure: &Exposure, bound: SocketAddr, spec: &PortsSpec) -> Place {
    let Some(host) = &spec.advertise else { return Place::Address(bound) };
    let kind = exposure.kind.as_str();
    Place::Url(match host.parse::<IpAddr>() {
        Ok(ip) => format!("{kind}://{}", SocketAddr::new(ip, bound.port())),
        Err(_) => format!("{kind}://{host}:{}", bound.port()),
    })
}

/// Where visitors reach an exposure of http or https.
///
/// # Errors
/// There is no front for it.
pub(super) fn urls(exposure: &Exposure, spec: &PortsSpec) -> Result<Vec<Place>, Refusal> {
    let (scheme, usual, port) = match exposure.kind {
        Kind::Https => ("https", 443, spec.https),
        _ => ("http", 80, spec.http),
    };
    let Some(port) = port else {
        return Err(rules::invalid(format!("the server serves no {scheme}")));
    };
    let port = NonZeroU16::new(port).filter(|port| port.get() != usual);
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let paths = match exposure.paths.as_slice() {
        [] => &[String::new()],
        paths => paths,
    };
    let hosts = exposure.hosts.iter();
    let url = |(host, path): (&String, &String)| Place::Url(format!("{scheme}://{host}{port}{path}"));
    Ok(hosts.flat_map(|host| paths.iter().map(move |path| (host, path))).map(url).collect())
}
