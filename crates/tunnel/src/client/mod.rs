//! The client's end: its sessions, what it offers in them, and how they come back.
//!
//! What lives here: the login, the conversation with a server (`control`), connections that wait (`pool`) or one that is
//! `shared`, what becomes of a visitor (`serve`, `flows`), visits of private services, their secrets and who guesses at them,
//! and the pauses after which all of that begins again (`reconnect`). What must not: local services, which are behind [`Serve`] and
//! [`DatagramEnd`], and the way to the servers, which is behind [`Reach`].
//!
//! The conversation is a task of the control runtime; what the bytes of visitors pass through belongs to workers.

mod backoff;
mod control;
mod flows;
mod guesses;
mod link;
mod login;
mod offers;
mod pool;
mod reconnect;
mod secret;
mod serve;
mod session;
mod shared;
mod status;
mod visits;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use wmproxy_net::changes::NetworkChanges;
use wmproxy_net::conn::Serve;
use wmproxy_net::connect::{Connect, ConnectError};
use wmproxy_net::limit::Gate;
use wmproxy_net::record::{AccessLog, ListenerMetrics};
use wmproxy_net::tls::Connector;
use wmproxy_net::udp::UdpSocket;
use wmproxy_runtime::scope::Scope;
use wmproxy_runtime::worker;
use wmproxy_wire::destination::Destination;

use crate::datagrams::DatagramWay;
use crate::options::{ClientSpec, ServiceSpec, VisitSpec};
use crate::pace::Pace;
use guesses::Guesses;
use link::Link;
use offers::{Offered, Offers};
use visits::Visits;

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
    pub is_up: Option<watch::Receiver<bool>>,
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
    links: Vec<Arc<Link>>,
    offers: ArcSwap<Offers>,
    /// Who was wrong about secrets, at whichever server.
    guesses: Guesses,
    /// Of what the log has of visitors that are not let in.
    pace: Pace,
    /// Changes with the offers, and with whether they are up.
    news: watch::Sender<u64>,
    /// Changes with the addresses and routes of this machine.
    network: watch::Sender<u64>,
    leaving: watch::Sender<bool>,
    /// Changes with how sessions stand.
    changed: watch::Sender<u64>,
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
        let changed = watch::Sender::new(0);
        let link = |(index, server)| Link::new(index, server, changed.clone());
        Arc::new(TunnelClient {
            links: spec.servers.iter().enumerate().map(link).collect(),
            spec,
            reach,
            tls,
            workers,
            scope,
            offers: ArcSwap::default(),
            guesses: Guesses::default(),
            pace: Pace::default(),
            news: watch::Sender::new(0),
            network: watch::Sender::new(0),
            leaving: watch::Sender::new(false),
            changed,
        })
    }

    /// What it is made of.
    pub fn spec(&self) -> &ClientSpec {
        &self.spec
    }

    /// Keeps a session with each server. For the control runtime, once; ends when the client [has left](TunnelClient::leave) and
    /// its visitors have gone. If it is dropped, the sessions break off.
    pub async fn run(self: Arc<Self>) {
        tokio::select! {
            () = reconnect::keep_all(&self) => {}
            () = self.follow_health() => {}
            () = self.follow_network() => {}
        }
    }

    /// Offers exactly these services from now on, to all servers. Visitors of those that are gone stay to their end, new ones
    /// are refused.
    pub fn configure(&self, offers: Vec<Offer>) {
        self.offers.store(Arc::new(self.offers.load().followed_by(offers)));
        bump(&self.news);
        bump(&self.changed);
    }

    /// The way to a private service of another client: a connection to it, whatever the destination.
    pub fn visit(self: &Arc<Self>, spec: VisitSpec) -> Arc<dyn Connect> {
        Arc::new(Visits::new(self.clone(), spec))
    }

    /// The same for datagrams.
    pub fn visit_datagrams(self: &Arc<Self>, spec: VisitSpec) -> Arc<dyn DatagramWay> {
        Arc::new(Visits::new(self.clone(), spec))
    }

    /// How it is.
    pub fn status(&self) -> ClientStatus {
        ClientStatus {
            name: self.spec.name.to_string(),
            sessions: self.links.iter().map(|link| link.status()).collect(),
            services: self.offers.load().list.iter().map(|offered| offered.status()).collect(),
        }
    }

    /// Changes with what [`status`](TunnelClient::status) says of sessions and services; counters move without it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Begins to end: servers are told, nobody new is let in, and visitors that are there may stay.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Has the sessions know when services become able to serve, or unable.
    async fn follow_health(&self) {
        let mut news = self.news.subscribe();
        let mut epoch = None;
        let mut changing = FuturesUnordered::new();
        loop {
            let offers = self.offers.load_full();
            if epoch.replace(offers.epoch) != Some(offers.epoch) {
                let watched = |offered: &Arc<Offered>| offered.offer.is_up.clone();
                changing = offers.list.iter().filter_map(watched).map(next_change).collect();
            }
            tokio::select! {
                // None is looked at again as long as its sender is there.
                Some(changed) = changing.next(), if !changing.is_empty() => {
                    if let Some(is_up) = changed {
                        changing.push(next_change(is_up));
                        bump(&self.news);
                        bump(&self.changed);
                    }
                }
                _ = news.changed() => {}
            }
        }
    }

    /// Has the sessions know when there may be other ways to their servers.
    async fn follow_network(&self) {
        let mut changes = match NetworkChanges::open() {
            Ok(changes) => changes,
            Err(error) => {
                tracing::debug!(%error, "changes of the network are not followed");
                return std::future::pending().await;
            }
        };
        loop {
            changes.changed().await;
            bump(&self.network);
        }
    }
}

/// The next change of a state, with what tells of the one after that; none if nobody is there who could change it.
async fn next_change(mut is_up: watch::Receiver<bool>) -> Option<watch::Receiver<bool>> {
    is_up.changed().await.ok().map(|()| is_up)
}

fn bump(version: &watch::Sender<u64>) {
    version.send_modify(|version| *version += 1);
}

impl fmt::Debug for TunnelClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelClient").field("name", &self.spec.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
