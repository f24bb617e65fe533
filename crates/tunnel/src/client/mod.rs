//! The client's end: its sessions, what it offers in them, and how they come back.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use wmproxy_net::conn::Serve;
use wmproxy_net::connect::{Connect, ConnectError};
use wmproxy_net::limit::Gate;
use wmproxy_net::record::{AccessLog, ListenerMetrics};
use wmproxy_net::udp::UdpSocket;
use wmproxy_net::tls::Connector;
use wmproxy_runtime::scope::Scope;
use wmproxy_runtime::worker;
use wmproxy_wire::destination::Destination;

use crate::datagrams::DatagramWay;
use crate::options::{ClientSpec, ServiceSpec, VisitSpec};

mod status;
mod visits;

pub use status::{ClientStatus, PlacedStatus, ServiceStatus, SessionState, SessionStatus};

/// The way to the servers: directly, or through a chain of proxies.
pub trait Reach: Connect {
    /// The addresses of a server, for QUIC. An error where there is no way for datagrams.
    fn resolve<'a>(&'a self, to: &'a Destination) -> Resolving<'a>;
}

/// Answers [`Reach::resolve`].
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, ConnectError>> + Send + 'a>>;

/// A service, and what serves its visitors here.
#[derive(Clone)]
pub struct Offer {
    /// As it is registered.
    pub spec: ServiceSpec,
    /// What serves its visitors.
    pub end: End,
    /// The counters of its visitors.
    pub metrics: Arc<ListenerMetrics>,
    /// What it lets in.
    pub gate: Arc<Gate>,
    /// Whether what it leads to is able to serve; follows its health checks. Without it, it always is.
    pub is_up: Option<tokio::sync::watch::Receiver<bool>>,
}

/// What serves a service's visitors.
#[derive(Clone)]
pub enum End {
    /// Takes each visitor's stream as a connection.
    Bytes {
        /// The mode.
        serve: Arc<dyn Serve>,
        /// Where the records go.
        log: Option<Arc<dyn AccessLog>>,
    },
    /// Gives each flow a socket.
    Datagrams {
        /// Makes them.
        end: Arc<dyn DatagramEnd>,
        /// Where the records go.
        log: Option<Arc<dyn AccessLog>>,
    },
}

/// Makes the sockets of flows towards a local service.
pub trait DatagramEnd: Send + Sync {
    /// A connected socket for the flow of a visitor, of the calling worker. It does not wait.
    ///
    /// # Errors
    /// There is no address to go to now, or the system gives no socket.
    fn open(&self, visitor: Option<SocketAddr>) -> io::Result<UdpSocket>;

    /// What goes in front of a flow's first datagram, if anything does: a PROXY header.
    fn header(&self, visitor: Option<SocketAddr>, local: Option<SocketAddr>) -> Option<Vec<u8>>;

    /// How long a flow may be without a datagram.
    fn idle_timeout(&self) -> std::time::Duration;

    /// The most flows at a time.
    fn max_flows(&self) -> u32;
}

/// A client: a session with each of its servers, in which it offers the same services.
pub struct TunnelClient {
    spec: ClientSpec,
    reach: Arc<dyn Reach>,
    tls: Arc<Connector>,
    workers: worker::Handle,
    scope: Scope,
    changed: tokio::sync::watch::Sender<u64>,
}

impl TunnelClient {
    /// A client without sessions and offers. `tls` is what its servers are known by and has the protocol's ALPN; streams of
    /// visitors are tasks of `scope`.
    pub fn new(
        spec: ClientSpec,
        reach: Arc<dyn Reach>,
        tls: Arc<Connector>,
        workers: worker::Handle,
        scope: Scope,
    ) -> Arc<TunnelClient> {
        let changed = tokio::sync::watch::Sender::new(0);
        Arc::new(TunnelClient { spec, reach, tls, workers, scope, changed })
    }

    /// What it is made of.
    pub fn spec(&self) -> &ClientSpec {
        &self.spec
    }

    /// Keeps a session with each server. For the control runtime; ends when the client [has left](TunnelClient::leave) and
    /// its visitors have gone.
    pub async fn run(self: Arc<Self>) {
        std::future::pending().await
    }

    /// Offers exactly these services from now on. Visitors of those that are gone stay to their end, new ones are refused.
    pub fn configure(&self, _offers: Vec<Offer>) {}

    /// The way to a private service of another client: a connection to it, whatever the destination.
    pub fn visit(self: &Arc<Self>, spec: VisitSpec) -> Arc<dyn Connect> {
        Arc::new(visits::Visits { client: self.clone(), spec })
    }

    /// The same for datagrams.
    pub fn visit_datagrams(self: &Arc<Self>, spec: VisitSpec) -> Arc<dyn DatagramWay> {
        Arc::new(visits::Visits { client: self.clone(), spec })
    }

    /// How it is.
    pub fn status(&self) -> ClientStatus {
        ClientStatus { name: self.spec.name.to_string(), sessions: vec![], services: vec![] }
    }

    /// Changes with what [`status`](TunnelClient::status) says of sessions and places; counters move without it.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Begins to end: servers are told, nobody new is let in, and visitors that are there may stay.
    pub fn leave(&self) {}
}

impl std::fmt::Debug for TunnelClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelClient").field("name", &self.spec.name).finish_non_exhaustive()
    }
}
