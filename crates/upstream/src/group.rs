//! A group of peers, and the lease of one of them.

mod wait;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use wmproxy_net::addr::{Address, TargetSpec};
use wmproxy_net::connect::{Connect, ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_net::tls::{Connector, TlsInfo};
use wmproxy_runtime::clock;

use crate::health::Slots;
use crate::idle::{Pool, Way};
use crate::names::Name;
use crate::options::GroupSpec;
use crate::peer::{EjectPolicy, FailKind, Peer};
use crate::queue::Line;
use crate::random;
use crate::registry::Shared;
use crate::set::{PeerSet, Place, Request};

/// Peers that connections are spread over. Built by [`Registry::build`](crate::Registry::build).
#[derive(Debug)]
pub struct Group {
    spec: GroupSpec,
    policy: Arc<EjectPolicy>,
    slow_start_ms: u64,
    names: Vec<Arc<Name>>,
    connector: Option<Arc<Connector>>,
    check_connector: Option<Arc<Connector>>,
    via: Option<Arc<dyn Connect>>,
    set: ArcSwap<PeerSet>,
    /// Held while the set is replaced, so that an older one never replaces a newer.
    rebuilding: Mutex<()>,
    /// Told whenever the set was replaced. One listens: who checks the health of the peers.
    changed: Arc<Notify>,
    /// Whether any of them may serve, as far as health checks tell.
    health: watch::Sender<bool>,
    /// Connections that wait for a peer that has room.
    line: Line,
    /// What workers share of its idle connections.
    pool: Arc<Pool>,
    /// How its connections are made.
    way: Arc<Way>,
    registry: Arc<Shared>,
}

/// What a balancer may know of the connection that wants a peer.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeaseKey {
    /// Who came; none for a unix socket.
    pub client: Option<SocketAddr>,
    /// The hash of the server name that the client asks for; see [`with_sni`](LeaseKey::with_sni).
    pub sni: Option<u64>,
    /// The hash of the first destination connection id of a QUIC client; see
    /// [`with_quic_cid`](LeaseKey::with_quic_cid).
    pub quic_cid: Option<u64>,
    /// The hash of what the request has of the group's `hash_key`; see [`with_request`](LeaseKey::with_request).
    pub request: Option<u64>,
}

impl LeaseKey {
    /// The key of a client of whom the address is known, if that; none for a unix socket.
    pub fn of_client(client: Option<SocketAddr>) -> LeaseKey {
        LeaseKey { client, ..LeaseKey::default() }
    }

    /// With the server name that the client asks for. Names that differ in case only are one, and so are those with
    /// and without a dot at the end.
    pub fn with_sni(mut self, name: &str) -> LeaseKey {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.sni = Some(random::hash(name.bytes().map(|byte| byte.to_ascii_lowercase())));
        self
    }

    /// With the destination connection id of a QUIC client's first Initial.
    pub fn with_quic_cid(mut self, id: &[u8]) -> LeaseKey {
        self.quic_cid = Some(random::hash(id.iter().copied()));
        self
    }

    /// With what the request has of the group's [`hash_key`](crate::balance::Balance::hash_key): the value of the header
    /// or cookie, the path. To be left out for a request that has none of it, which then goes by the client's address.
    pub fn with_request(mut self, value: &[u8]) -> LeaseKey {
        self.request = Some(random::hash(value.iter().copied()));
        self
    }
}

/// Why a group has no peer to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPeer {
    /// None of its names has ever been resolved.
    #[error("no name of the group could be resolved yet")]
    Unresolved,
    /// The config takes every server out.
    #[error("every server is down or draining by the config")]
    Down,
    /// Every peer that was not tried is down by its health checks.
    #[error("every peer is down by its health checks")]
    Unhealthy,
    /// Every peer has its `max_connections`.
    #[error("every peer has its max_connections")]
    Full,
    /// Every peer was tried for this connection already.
    #[error("every peer was tried")]
    Tried,
    /// As many connections as may wait for a peer do so already.
    #[error("every peer has its max_connections, and the queue is full")]
    QueueFull,
    /// No peer had room within the queue's timeout.
    #[error("no peer had room within the queue's timeout")]
    QueueTimeout,
    /// The client went away while it waited for a peer that has room.
    #[error("the client left while it was queued")]
    ClientGone,
}

/// The right to use a peer for one connection or flow. Counts as in flight until it is dropped.
///
/// Whoever holds it says how it went: [`succeeded`](Lease::succeeded) or [`failed`](Lease::failed). That
/// decides about ejection, and a lease that is dropped without a word decides nothing.
pub struct Lease {
    peer: Arc<Peer>,
    policy: Arc<EjectPolicy>,
    leased_at: u64,
    /// Until when this is the peer's trial; 0 when it is none.
    trial: u64,
}

impl Group {
    pub(crate) fn new(
        spec: GroupSpec,
        names: Vec<Arc<Name>>,
        [connector, check_connector]: [Option<Arc<Connector>>; 2],
        via: Option<Arc<dyn Connect>>,
        registry: Arc<Shared>,
    ) -> Group {
        let places = places(&spec, &names);
        let set =
            PeerSet::new(&spec, places, None, clock::now().0, |address| registry.peer(&spec.name, address));
        let health = watch::Sender::new(set.may_serve());
        let policy = Arc::new(spec.eject_policy());
        let slow_start_ms = u64::try_from(spec.slow_start.as_millis()).unwrap_or(u64::MAX);
        let line = Line::new(registry.lobby(&spec.name));
        // What a chain says of itself tells it from one of the same name that leads elsewhere.
        let (pool, way) = (registry.pool(&spec.name), registry.way(format!("{} {via:?}", spec.way())));
        Group {
            spec,
            policy,
            slow_start_ms,
            names,
            connector,
            check_connector,
            via,
            set: ArcSwap::from_pointee(set),
            rebuilding: Mutex::new(()),
            changed: Arc::default(),
            health,
            line,
            pool,
            way,
            registry,
        }
    }

    /// What it was built from.
    pub fn spec(&self) -> &GroupSpec {
        &self.spec
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.spec.name
    }

    /// Makes a connection to one of its peers one by TLS, if that is how they are talked to: never does data go in the
    /// clear where TLS was asked for. Gives what the handshake agreed on, if there was one.
    ///
    /// # Errors
    /// As the handshake failed; the stream is of no more use.
    pub async fn secure(&self, stream: &Stream, address: &Address) -> io::Result<Option<TlsInfo>> {
        if self.spec.tls.is_none() {
            return Ok(None);
        }
        let connector = self.connector.as_ref().ok_or_else(|| io::Error::other("no TLS is at hand"))?;
        connector.secure(stream, &address.to_string(), &self.host_of(address)).await.map(Some)
    }

    /// Which of the spec's servers a peer belongs to; none if it is no longer of this group.
    pub fn server_of(&self, peer: &Arc<Peer>) -> Option<usize> {
        let set = self.set.load();
        set.live().find(|slot| Arc::ptr_eq(&slot.peer, peer)).map(|slot| slot.server)
    }

    /// What the server at an address is called in the config: a name, or else its IP address.
    fn host_of(&self, address: &Address) -> String {
        let set = self.set.load();
        let place = set.places.iter().find(|place| place.address == *address);
        match (place.map(|place| &self.spec.servers[place.server].target), address) {
            (Some(TargetSpec::Name { host, .. }), _) => host.clone(),
            (_, Address::Inet(addr)) => addr.ip().to_string(),
            (_, Address::Unix(_)) => String::new(),
            (_, Address::Name(host, _)) => host.to_string(),
        }
    }

    /// Leases a peer that is none of `tried`, at `now_ms` of the monotonic clock.
    ///
    /// Backups are used only while no primary can be. When all peers are ejected, they are used as if none were; those that
    /// their health checks hold for down never are.
    ///
    /// # Errors
    /// When there is no peer to give; an error says nothing about later.
    pub fn lease(&self, key: &LeaseKey, tried: &[Arc<Peer>], now_ms: u64) -> Result<Lease, NoPeer> {
        self.set.load().lease(&self.request(key, tried, now_ms))
    }

    /// Leases `peer` once more, for a connection that it has already and that goes on from elsewhere: nobody else could
    /// take it, so neither the state of the peer nor its `max_connections` counts.
    pub fn lease_again(&self, peer: &Arc<Peer>, now_ms: u64) -> Lease {
        peer.enter(0);
        peer.count_lease();
        Lease::new(Arc::clone(peer), Arc::clone(&self.policy), now_ms, 0)
    }

    /// Leases this very peer for something new, if it could be leased: it is in use, not ejected and not full.
    pub fn lease_peer(&self, peer: &Arc<Peer>, now_ms: u64) -> Option<Lease> {
        self.set.load().lease_peer(peer, &self.request(&LeaseKey::default(), &[], now_ms))
    }

    /// Leases this very peer of `set` for a client that had it before, also if it takes no others any more.
    pub(crate) fn lease_slot(&self, set: &PeerSet, peer: &Arc<Peer>, now_ms: u64) -> Option<Lease> {
        set.lease_again(peer, &self.request(&LeaseKey::default(), &[], now_ms))
    }

    fn request<'a>(&'a self, key: &'a LeaseKey, tried: &'a [Arc<Peer>], now: u64) -> Request<'a> {
        Request { key, tried, now, policy: &self.policy, slow_start_ms: self.slow_start_ms }
    }

    /// How long the slow start of its peers takes; 0 for none.
    pub(crate) fn slow_start_ms(&self) -> u64 {
        self.slow_start_ms
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn way(&self) -> &Way {
        &self.way
    }

    pub(crate) fn names(&self) -> &[Arc<Name>] {
        &self.names
    }

    pub(crate) fn set(&self) -> Arc<PeerSet> {
        self.set.load_full()
    }

    /// What its peers are connected to through.
    ///
    /// # Errors
    /// There is to be something, and is not: never is a peer connected to by another way.
    pub(crate) fn via(&self) -> Result<Option<&Arc<dyn Connect>>, ConnectError> {
        match (&self.via, &self.spec.via) {
            (None, Some(name)) => {
                Err(ConnectError::new(Fault::NoWay, format!("the chain {name} is not at hand")))
            }
            (via, _) => Ok(via.as_ref()),
        }
    }

    /// Whether any of its peers may serve, as far as its health checks tell, and whenever that changes.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.health.subscribe()
    }

    /// Tells if what its health checks say has changed anything.
    pub(crate) fn tell_health(&self) {
        let now = self.set.load().may_serve();
        self.health.send_if_modified(|known| std::mem::replace(known, now) != now);
    }

    /// Has connections closed that are kept for requests to come, each worker's when that next looks at them: for a group that
    /// there will be none to.
    pub fn close_idle(&self) {
        self.set.load().live().for_each(|slot| slot.peer.gauge().close_idle());
    }

    /// What health checks do TLS with.
    pub(crate) fn check_connector(&self) -> Option<Arc<Connector>> {
        self.check_connector.clone()
    }

    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// The process's right to check.
    pub(crate) fn check_slots(&self) -> Slots {
        self.registry.check_slots.clone()
    }

    /// Brings the peers in line with what its names resolve to now.
    pub(crate) fn follow_names(&self) {
        let _turn = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let places = places(&self.spec, &self.names);
        let old = self.set.load();
        if old.places != places {
            let peer = |address: &Address| self.registry.peer(&self.spec.name, address);
            let new = PeerSet::new(&self.spec, places, Some(&old), clock::now().0, peer);
            old.live().filter(|slot| !new.has(&slot.peer)).for_each(|slot| slot.peer.gauge().close_idle());
            self.set.store(Arc::new(new));
            self.changed.notify_one();
            self.tell_health();
        }
    }
}

/// Every address that the servers stand for at this moment.
fn places(spec: &GroupSpec, names: &[Arc<Name>]) -> Vec<Place> {
    let mut places = vec![];
    for (server, options) in spec.servers.iter().enumerate() {
        match &options.target {
            TargetSpec::Address(address) => {
                places.push(Place { address: address.clone(), server, standby: false });
            }
            TargetSpec::Name { host, port } => {
                let addresses = names.iter().find(|name| name.host() == host).map(|name| name.addresses());
                places.extend(addresses.unwrap_or_default().into_iter().map(|ip| Place {
                    address: Address::Inet(SocketAddr::new(ip, *port)),
                    server,
                    // `localhost` is one machine with two addresses, and most services listen on one of
                    // them. As equals, every second connection would begin with a refusal.
                    standby: ip == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) && host == "localhost",
                }));
            }
        }
    }
    places
}

impl Lease {
    pub(crate) fn new(peer: Arc<Peer>, policy: Arc<EjectPolicy>, leased_at: u64, trial: u64) -> Lease {
        Lease { peer, policy, leased_at, trial }
    }

    /// The peer.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Notes that the peer works: it was connected to in `connect_time`, or a flow ended without an
    /// error (no time then). Ends an ejection.
    pub fn succeeded(&mut self, connect_time: Option<Duration>, now_ms: u64) {
        self.peer.succeeded(self.leased_at, connect_time, now_ms);
    }

    /// Notes that a connection was made in `time`, which is no verdict yet.
    pub(crate) fn connected(&mut self, time: Duration) {
        self.peer.connected(time);
    }

    /// Notes that a flow or a request got its first answer, `time` after its first byte was sent. Ends an ejection.
    pub fn answered(&mut self, time: Duration, now_ms: u64) {
        self.peer.answered(time, now_ms);
        self.peer.succeeded(self.leased_at, None, now_ms);
    }

    /// Notes that the peer could not be used. May eject it.
    pub fn failed(&mut self, kind: FailKind, now_ms: u64) {
        self.peer.failed(self.leased_at, kind, now_ms, &self.policy);
    }
}

impl Deref for Lease {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.peer.address())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.peer.leave();
        if self.trial != 0 {
            self.peer.abandon_trial(self.trial);
        }
    }
}

#[cfg(test)]
mod tests;
