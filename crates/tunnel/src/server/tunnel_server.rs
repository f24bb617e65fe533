//! The server itself, and where clients come in.

use std::sync::Arc;

use arc_swap::ArcSwap;
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::connect::{Connect, ConnectError, Connecting, ConnectingAlone, Fault};
use wmproxy_net::tls::Acceptor;
use wmproxy_wire::destination::Destination;

use super::Ports;
use super::status::{Counters, ServerStatus};
use crate::datagrams::{Carrying, DatagramWay};
use crate::options::ServerSpec;

/// A tunnel server.
#[derive(Debug)]
pub struct TunnelServer {
    spec: ArcSwap<ServerSpec>,
    counters: Counters,
}

impl TunnelServer {
    /// A server that nobody has come to.
    pub fn new(spec: ServerSpec) -> Arc<TunnelServer> {
        Arc::new(TunnelServer { spec: ArcSwap::from_pointee(spec), counters: Counters::default() })
    }

    /// Goes by another spec from now on: sessions of clients that are no longer there, or have another key, end; what is
    /// offered is judged again.
    pub fn configure(&self, spec: ServerSpec) {
        self.spec.store(Arc::new(spec));
    }

    /// Keeps open what is offered, until the future is dropped. One at a time, on the control runtime.
    pub async fn keep_published(self: Arc<Self>, ports: Arc<dyn Ports>) {
        drop(ports.publish(Vec::new()).await);
    }

    /// The way for the datagrams of a listener, to whichever of these members is there.
    pub fn datagram_way(self: &Arc<Self>, members: Vec<Arc<str>>) -> Arc<dyn DatagramWay> {
        Arc::new(Way { server: self.clone(), members })
    }

    /// As it is now.
    pub fn status(&self) -> ServerStatus {
        ServerStatus { counts: self.counters.read(), ..ServerStatus::default() }
    }

    /// Begins no new session, and tells the clients that this end is about to go. Their sessions end with their last stream.
    pub fn drain(&self) {}
}

impl Connect for TunnelServer {
    fn connect<'a>(&'a self, _: &'a Destination) -> Connecting<'a> {
        Box::pin(async { Err(ConnectError::new(Fault::HostUnreachable, "the client is not there")) })
    }

    fn connect_alone<'a>(&'a self, _: &'a Destination) -> ConnectingAlone<'a> {
        Box::pin(async { Err(ConnectError::new(Fault::HostUnreachable, "the client is not there")) })
    }
}

struct Way {
    server: Arc<TunnelServer>,
    members: Vec<Arc<str>>,
}

impl DatagramWay for Way {
    fn carry(&self) -> Carrying<'_> {
        let _ = (&self.server, &self.members);
        Box::pin(async { Err(ConnectError::new(Fault::HostUnreachable, "the client is not there")) })
    }
}

/// Where clients come in over TCP: does TLS, and has them log in or join. A listener's mode.
pub struct Entrance {
    server: Arc<TunnelServer>,
    tls: Arc<Acceptor>,
}

impl Entrance {
    /// Leads to a server, behind TLS. `tls` has to offer [`ALPN`](wmproxy_wire::tunnel::message::ALPN) and nothing below
    /// TLS 1.3.
    pub fn new(server: Arc<TunnelServer>, tls: Arc<Acceptor>) -> Arc<Entrance> {
        Arc::new(Entrance { server, tls })
    }
}

impl Serve for Entrance {
    fn serve(self: Arc<Self>, conn: Conn) -> Served {
        Box::pin(async move {
            let _ = (&self.server, &self.tls);
            drop(conn);
        })
    }
}
