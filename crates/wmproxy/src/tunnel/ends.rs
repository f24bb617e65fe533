//! What serves the visitors of a client's services: connections and flows to the service itself, or a forward proxy.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use wmproxy_forward::service::ForwardService;
use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::limit::{Gate, Limits};
use wmproxy_net::record::{AccessLog, ListenerMetrics};
use wmproxy_net::udp::UdpSocket;
use wmproxy_runtime::clock;
use wmproxy_stream::options::{StreamOptions, StreamSpec};
use wmproxy_stream::route::Routes;
use wmproxy_stream::tcp::TcpService;
use wmproxy_tunnel::client::{DatagramEnd, End, Offer};
use wmproxy_tunnel::options::ServiceSpec;
use wmproxy_upstream::{Group, LeaseKey};
use wmproxy_wire::proxy_protocol::{Command, Endpoints, TlvList, Transport, encode_v2};

use crate::observe::visits::VisitFile;

/// What is counted of a client's services, over reloads: by their names.
pub(crate) struct Counters {
    workers: usize,
    known: Mutex<HashMap<(Arc<str>, Protocol), Known>>,
}

/// What is counted of a service, and what it lets in, as long as anybody uses them.
type Known = (Weak<ListenerMetrics>, Weak<Gate>);

impl Counters {
    /// Nothing yet, for so many workers.
    pub(crate) fn new(workers: usize) -> Counters {
        Counters { workers, known: Mutex::default() }
    }

    /// An offer of a service that `end` serves, and that is able to while the checks of `group`'s peers say so, if there are
    /// any. What is counted of it goes by `name`.
    pub(crate) fn offer(&self, name: &Arc<str>, spec: ServiceSpec, end: End, group: Option<&Group>) -> Offer {
        let protocol = match end {
            End::Bytes { .. } => Protocol::Tcp,
            End::Datagrams { .. } => Protocol::Udp,
        };
        let (metrics, gate) = self.of(name, protocol);
        if let End::Datagrams { end, .. } = &end {
            // For all that carries its flows together: a server may have several.
            gate.set(&Limits { max: end.max_flows(), ..Limits::default() });
        }
        let is_up = group.filter(|group| group.spec().health.is_some()).map(Group::health);
        Offer { spec, end, metrics, gate, is_up }
    }

    fn of(&self, name: &Arc<str>, protocol: Protocol) -> (Arc<ListenerMetrics>, Arc<Gate>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.clone(), protocol);
        let alive = known.get(&key).and_then(|(metrics, gate)| Some((metrics.upgrade()?, gate.upgrade()?)));
        if let Some(alive) = alive {
            return alive;
        }
        known.retain(|_, (metrics, _)| metrics.strong_count() > 0);
        // It has no address here: visitors come by the tunnel.
        let address = Address::Name(Box::from(&**name), 0);
        let metrics = Arc::new(ListenerMetrics::new(name.clone(), protocol, address, self.workers));
        let gate = Gate::new(0, 0);
        known.insert(key, (Arc::downgrade(&metrics), Arc::downgrade(&gate)));
        (metrics, gate)
    }
}

/// Passes visitors on to the service, which is the peer of `group`.
pub(crate) fn stream(
    name: &Arc<str>,
    group: Arc<Group>,
    idle_timeout: Duration,
    log: Option<Arc<dyn AccessLog>>,
) -> End {
    let routes = Arc::new(Routes::to(name.clone()));
    let spec = StreamOptions::default().spec(name.clone(), routes, Protocol::Tcp);
    let spec = StreamSpec { idle_timeout, ..spec };
    End::Bytes { serve: TcpService::new(spec, Arc::new(Routes::to(group)), None), log }
}

/// Lets visitors go from here wherever the proxy's egress says that they may.
pub(crate) fn proxy(service: Arc<ForwardService>, log: Option<Arc<VisitFile>>) -> End {
    End::Bytes { serve: service, log: log.map(|log| log as Arc<dyn AccessLog>) }
}

/// Passes the datagrams of visitors on to the service, which is the peer of `group`, in at most `max_flows` flows at a time.
pub(crate) fn datagrams(
    group: Arc<Group>,
    idle_timeout: Duration,
    max_flows: u32,
    log: Option<Arc<dyn AccessLog>>,
) -> End {
    End::Datagrams { end: Arc::new(LocalDatagrams { group, idle_timeout, max_flows }), log }
}

/// Flows to a local service.
struct LocalDatagrams {
    group: Arc<Group>,
    idle_timeout: Duration,
    max_flows: u32,
}

impl DatagramEnd for LocalDatagrams {
    fn open(&self, visitor: Option<SocketAddr>) -> io::Result<UdpSocket> {
        // The lease is for the choice alone: there is one server, and its flows are counted by who holds the sockets.
        let lease = self.group.lease(&LeaseKey::of_client(visitor), &[], clock::now().0);
        let lease = lease.map_err(io::Error::other)?;
        match lease.address() {
            Address::Inet(address) => UdpSocket::connect(*address, &self.group.spec().socket, None),
            Address::Unix(_) | Address::Name(..) => Err(io::Error::other("no address to send datagrams to")),
        }
    }

    fn header(&self, visitor: Option<SocketAddr>, local: Option<SocketAddr>) -> Option<Vec<u8>> {
        // The config allows no other version for datagrams.
        self.group.spec().send_proxy_protocol?;
        let endpoints = match (visitor, local) {
            (Some(source), Some(destination)) => Endpoints::inet(Transport::Datagram, source, destination),
            _ => Endpoints::Unknown,
        };
        let mut header = Vec::new();
        encode_v2(&mut header, Command::Proxy, &endpoints, &TlvList::new(), false);
        Some(header)
    }

    fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    fn max_flows(&self) -> u32 {
        self.max_flows
    }
}
