//! The way of a tunnel client to its servers.

use std::net::SocketAddr;
use std::sync::Arc;

use wmproxy_net::connect::{Connect, ConnectError, Connecting, ConnectingAlone, Fault};
use wmproxy_net::sockopt::{PeerSocket, TcpOptions};
use wmproxy_net::stream::Stream;
use wmproxy_tunnel::client::{Reach, Resolving};
use wmproxy_upstream::{Finder, connect_first};
use wmproxy_wire::destination::{Destination, Host};

/// At once: whatever address of a server answers first.
#[derive(Debug)]
struct Direct {
    finder: Arc<Finder>,
    socket: PeerSocket,
}

/// Through proxies.
#[derive(Debug)]
struct Chained(Arc<dyn Connect>);

/// The way through `via`, or without it at once, by names that `finder` finds out and sockets with these options.
pub(crate) fn reach(
    finder: Arc<Finder>,
    socket: TcpOptions,
    via: Option<Arc<dyn Connect>>,
) -> Arc<dyn Reach> {
    match via {
        Some(via) => Arc::new(Chained(via)),
        None => Arc::new(Direct { finder, socket: PeerSocket::default().with(socket, None) }),
    }
}

impl Direct {
    async fn addresses(&self, to: &Destination) -> Result<Vec<SocketAddr>, ConnectError> {
        match &to.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, to.port)]),
            Host::Name(name) => {
                let found = self.finder.find(name, None).await?;
                Ok(found.iter().map(|ip| SocketAddr::new(*ip, to.port)).collect())
            }
        }
    }

    async fn dial(&self, to: &Destination) -> Result<Stream, ConnectError> {
        let addresses = self.addresses(to).await?;
        Ok(connect_first(&addresses, &self.socket, None).await?.0)
    }
}

impl Connect for Direct {
    fn connect<'a>(&'a self, to: &'a Destination) -> Connecting<'a> {
        Box::pin(self.dial(to))
    }

    fn connect_alone<'a>(&'a self, to: &'a Destination) -> ConnectingAlone<'a> {
        Box::pin(self.dial(to))
    }
}

impl Reach for Direct {
    fn resolve<'a>(&'a self, to: &'a Destination) -> Resolving<'a> {
        Box::pin(self.addresses(to))
    }
}

impl Connect for Chained {
    fn connect<'a>(&'a self, to: &'a Destination) -> Connecting<'a> {
        self.0.connect(to)
    }

    fn connect_alone<'a>(&'a self, to: &'a Destination) -> ConnectingAlone<'a> {
        self.0.connect_alone(to)
    }
}

impl Reach for Chained {
    fn resolve<'a>(&'a self, _: &'a Destination) -> Resolving<'a> {
        // Most proxies pass no datagrams, and a tunnel that sometimes can and sometimes can't is none.
        let error =
            ConnectError::new(Fault::Unsupported, "there is no way for QUIC through a chain of proxies");
        Box::pin(std::future::ready(Err(error)))
    }
}
