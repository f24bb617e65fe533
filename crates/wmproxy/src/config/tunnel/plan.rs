//! What `[tunnel_server]` and `[tunnel_client]` come to.

use std::sync::Arc;
use std::time::Duration;

use wmproxy_forward::options::ForwardSpec;
use wmproxy_http::options::HttpSpec;
use wmproxy_net::addr::AddressSpec;
use wmproxy_net::sockopt::ListenSocket;
use wmproxy_net::tls::{AcceptorSpec, ConnectorSpec};
use wmproxy_stream::options::StreamSpec;
use wmproxy_tunnel::options::{ClientSpec, ServerSpec, ServiceSpec, TransportKind, VisitSpec, VisitorsSpec};

use crate::config::plan::AccessLogPlan;

/// A tunnel server: where it listens, and what it is built from.
#[derive(Debug, Clone)]
pub(crate) struct TunnelServerPlan {
    pub(crate) spec: ServerSpec,
    /// Where clients log in; each has one port. Over TCP and UDP, as `transports` has it.
    pub(crate) listen: Vec<AddressSpec>,
    /// How clients may come, each at most once.
    pub(crate) transports: Vec<TransportKind>,
    /// The identity: TLS 1.3 only, with the protocol's name.
    pub(crate) tls: AcceptorSpec,
    /// Where visitors of http services come to; each has one port or is a unix socket.
    pub(crate) http: Vec<AddressSpec>,
    /// The same for https.
    pub(crate) https: Vec<AddressSpec>,
    /// The certificates for services whose TLS the server ends.
    pub(crate) terminate: Option<AcceptorSpec>,
    /// The name or address that others are told for this machine.
    pub(crate) advertise: Option<Arc<str>>,
    pub(crate) visitors: VisitorsSpec,
    /// What is set on the sockets of clients.
    pub(crate) socket: ListenSocket,
    /// How visitors of http and https are served, whatever they ask for: it has no routes.
    pub(crate) front: HttpSpec,
    /// For connections and flows of visitors.
    pub(crate) access_log: Option<AccessLogPlan>,
    /// The same for requests of http.
    pub(crate) request_log: Option<AccessLogPlan>,
}

/// A tunnel client, what it offers and whom it visits.
#[derive(Debug, Clone)]
pub(crate) struct TunnelClientPlan {
    pub(crate) spec: ClientSpec,
    /// How the servers' certificates are judged: TLS 1.3 only, with the protocol's name.
    pub(crate) tls: ConnectorSpec,
    pub(crate) services: Vec<TunnelServicePlan>,
    /// For visitors of the services.
    pub(crate) access_log: Option<AccessLogPlan>,
    /// The same for what goes through services of type proxy.
    pub(crate) visit_log: Option<AccessLogPlan>,
}

/// A service, and what serves its visitors at the client.
#[derive(Debug, Clone)]
pub(crate) struct TunnelServicePlan {
    pub(crate) spec: ServiceSpec,
    pub(crate) end: TunnelEndPlan,
}

/// What serves a service's visitors at the client.
#[derive(Debug, Clone)]
pub(crate) enum TunnelEndPlan {
    /// A layer-4 proxy towards a group of one peer.
    Stream {
        /// The group, one of the plan's: its health is that of the service.
        group: Arc<str>,
        idle_timeout: Duration,
    },
    /// A socket for each flow towards such a group.
    Datagrams { group: Arc<str>, idle_timeout: Duration },
    /// A forward proxy.
    Forward(Arc<ForwardSpec>),
}

/// Where a private service of datagrams of another client is reached on this machine.
#[derive(Debug, Clone)]
pub(crate) struct DatagramVisitorPlan {
    pub(crate) visit: VisitSpec,
    /// The listener's name, who may come, limits and times. Its route leads nowhere.
    pub(crate) listener: StreamSpec,
}

impl TunnelServerPlan {
    /// Whether clients may come so.
    pub(crate) fn takes(&self, transport: TransportKind) -> bool {
        self.transports.contains(&transport)
    }
}
