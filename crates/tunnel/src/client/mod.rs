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
use wmproxy_wire::destination::Destination;

use crate::options::ServiceSpec;

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
    /// Gives each flow its socket.
    Datagrams(Arc<dyn DatagramEnd>),
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
