//! What a config comes to: every default filled in, every name resolved, nothing left to be wrong but the
//! machine. A generation is built from it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_forward::options::{ChainSpec, EgressSpec, ForwardSpec};
use wmproxy_http::options::HttpSpec;
use wmproxy_net::addr::{AddressSpec, Host, Protocol};
use wmproxy_net::limit::Limits;
use wmproxy_net::sockopt::{ListenSocket, Source};
use wmproxy_stream::options::StreamSpec;
use wmproxy_tunnel::options::VisitSpec;
use wmproxy_upstream::GroupSpec;
use wmproxy_wire::units::Secret;

use super::tunnel::plan::{DatagramVisitorPlan, TunnelClientPlan, TunnelServerPlan};

/// The whole of a config.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How many worker threads, at least 1.
    pub(crate) workers: usize,
    /// Who to become after binding.
    pub(crate) user: Option<String>,
    /// Which group to become after binding; the user's own without it.
    pub(crate) group: Option<String>,
    /// How long a drain may take.
    pub(crate) shutdown_timeout: Duration,
    pub(crate) log: LogPlan,
    /// The admin endpoint, unless it is turned off.
    pub(crate) admin: Option<AdminPlan>,
    /// Name servers to ask instead of the system's; empty for the system's.
    pub(crate) resolver: Vec<SocketAddr>,
    /// The upstream groups by name, inline targets among them.
    pub(crate) groups: BTreeMap<Arc<str>, GroupSpec>,
    /// Where clients of forward proxies may go, by name; the `default` one is always there.
    pub(crate) egresses: BTreeMap<Arc<str>, EgressSpec>,
    /// Proxies to go through, by name. The groups of their parents are among `groups`.
    pub(crate) chains: BTreeMap<Arc<str>, ChainSpec>,
    /// One for each socket to listen on, in the order of the config.
    pub(crate) listeners: Vec<ListenerPlan>,
    /// The public end of tunnels, with listeners of its own.
    pub(crate) tunnel_server: Option<Arc<TunnelServerPlan>>,
    /// The end of tunnels behind NAT.
    pub(crate) tunnel_client: Option<TunnelClientPlan>,
    /// The groups among `groups` that are private services of other clients, which the tunnel client leads to.
    pub(crate) visits: BTreeMap<Arc<str>, VisitSpec>,
}

impl Plan {
    /// Whether nobody is served anywhere.
    pub(crate) fn is_idle(&self) -> bool {
        self.listeners.is_empty() && self.tunnel_server.is_none() && self.tunnel_client.is_none()
    }
}

/// The program's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogPlan {
    /// As `[log] level`, known to be readable.
    pub(crate) level: String,
    pub(crate) format: LogFormat,
    /// None is stderr.
    pub(crate) file: Option<PathBuf>,
}

/// How the program's log looks.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Where closed records go and how they look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessLogPlan {
    pub(crate) file: LogFile,
    pub(crate) format: AccessFormat,
}

/// Where lines of an access log go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LogFile {
    Stdout,
    Path(PathBuf),
}

/// What a line of an access log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AccessFormat {
    Json,
    /// As Apache has it, which tools read; for HTTP only.
    Combined,
    /// A template that compiles for the listener's mode.
    Template(String),
}

/// The admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminPlan {
    /// One port or a unix socket.
    pub(crate) listen: AddressSpec,
    /// What a request has to present; always there unless `listen` is loopback or a unix socket.
    pub(crate) token: Option<Secret>,
}

impl AdminPlan {
    /// Whether only those can give orders who may: the others do not reach the address, or lack the token.
    pub(crate) fn is_guarded(&self) -> bool {
        let is_local = match &self.listen {
            AddressSpec::Unix(_) => true,
            AddressSpec::Inet { host: Host::Ip(ip), .. } => ip.to_canonical().is_loopback(),
            AddressSpec::Inet { host: Host::Name(name), .. } => name == "localhost",
            AddressSpec::Inet { host: Host::Any, .. } => false,
        };
        is_local || self.token.is_some()
    }
}

/// One socket to listen on.
#[derive(Debug, Clone)]
pub(crate) struct ListenerPlan {
    /// The name in logs and metrics; several listeners of one table share it.
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    /// Exactly one port, or a unix socket.
    pub(crate) address: AddressSpec,
    pub(crate) mode: ModePlan,
    /// Its own or the default one; none if neither is there or it is turned off.
    pub(crate) access_log: Option<AccessLogPlan>,
}

/// What is served on a listener.
#[derive(Debug, Clone)]
pub(crate) enum ModePlan {
    Stream(Box<StreamSpec>),
    Http(Box<HttpSpec>),
    /// The listeners of one table share it.
    Forward(Arc<ForwardSpec>),
    /// Where the clients of a tunnel server log in.
    TunnelDoor(Arc<TunnelServerPlan>),
    /// The same over QUIC. Its listener has one socket.
    TunnelQuic(Arc<TunnelServerPlan>),
    /// Where visitors come to the services of type http of tunnel clients.
    TunnelHttp(Arc<TunnelServerPlan>),
    /// The same for https.
    TunnelHttps(Arc<TunnelServerPlan>),
    /// Where a private service of datagrams of another tunnel client is reached.
    Visit(Box<DatagramVisitorPlan>),
}

impl ModePlan {
    /// What is set on the listening sockets.
    pub(crate) fn socket(&self) -> &ListenSocket {
        match self {
            ModePlan::Stream(spec) => &spec.socket,
            ModePlan::Http(spec) => &spec.socket,
            ModePlan::Forward(spec) => &spec.listener.socket,
            ModePlan::TunnelDoor(plan) | ModePlan::TunnelQuic(plan) => &plan.socket,
            ModePlan::TunnelHttp(plan) | ModePlan::TunnelHttps(plan) => &plan.front.socket,
            ModePlan::Visit(plan) => &plan.listener.socket,
        }
    }

    /// What the listener's gate keeps to.
    pub(crate) fn limits(&self) -> Limits {
        match self {
            ModePlan::Stream(spec) => spec.limits(),
            ModePlan::Http(spec) => spec.limits(),
            ModePlan::Forward(spec) => spec.listener.limits(),
            // Who has not logged in is counted by the server, over all transports; who has is one that it knows.
            ModePlan::TunnelDoor(_) | ModePlan::TunnelQuic(_) => Limits::default(),
            ModePlan::TunnelHttp(plan) | ModePlan::TunnelHttps(plan) => plan.front.limits(),
            ModePlan::Visit(plan) => plan.listener.limits(),
        }
    }

    /// The address that peers see, unless their group says another.
    pub(crate) fn source(&self) -> Option<Source> {
        match self {
            ModePlan::Stream(spec) => spec.source,
            ModePlan::Http(spec) => spec.source,
            // That of an egress.
            ModePlan::Forward(_) => None,
            ModePlan::TunnelDoor(_)
            | ModePlan::TunnelQuic(_)
            | ModePlan::TunnelHttp(_)
            | ModePlan::TunnelHttps(_)
            | ModePlan::Visit(_) => None,
        }
    }
}
