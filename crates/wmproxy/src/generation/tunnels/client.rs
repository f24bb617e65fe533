//! The tunnel client of this process.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use wmproxy_net::connect::{Connect, Connecting, ConnectingAlone};
use wmproxy_net::record::ListenerMetrics;
use wmproxy_net::sockopt::{Keepalive, TcpOptions};
use wmproxy_net::tls::Connector;
use wmproxy_runtime::scope::Leash;
use wmproxy_tunnel::client::{Offer, Reach, Resolving, TunnelClient};
use wmproxy_wire::destination::Destination;

use super::Tunnels;
use crate::config::tunnel::plan::TunnelClientPlan;
use crate::tunnel::ends::Counters;
use crate::tunnel::reach::reach;

/// When a silent connection to a server is probed. Those that wait for visitors are silent for hours, and a NAT on the way
/// forgets them after some minutes; few do so within half of one.
const PROBE: Duration = Duration::from_secs(25);

/// A tunnel client with all that belongs to it.
pub(super) struct ClientEnd {
    pub(super) client: Arc<TunnelClient>,
    way: Arc<Way>,
    counters: Arc<Counters>,
    services: Mutex<Vec<Arc<ListenerMetrics>>>,
    has_ended: Arc<AtomicBool>,
    /// Keeps the sessions, once it is at work.
    running: Mutex<Option<Leash>>,
}

/// What a generation makes of it.
pub(crate) struct PreparedClient {
    end: Arc<ClientEnd>,
    way: Arc<dyn Reach>,
    offers: Vec<Offer>,
}

/// The client of a plan, for those who lead through it.
#[derive(Clone)]
pub(crate) struct Client(Arc<ClientEnd>);

/// The way to the servers of the generation at work, whose chains are its own.
struct Way(ArcSwap<Arc<dyn Reach>>);

impl Tunnels {
    /// The client of a plan: the one at work if that goes by the same options, or a new one that has no session yet.
    pub(in crate::generation) fn client(&self, plan: &TunnelClientPlan, tls: Arc<Connector>) -> Client {
        let at_work = self.at_work.client();
        if let Some(same) = at_work.as_ref().filter(|old| *old.client.spec() == plan.spec) {
            return Client(same.clone());
        }
        let way = Arc::new(Way(ArcSwap::from_pointee(self.reach(None))));
        let (workers, scope) = (self.means.workers.clone(), self.means.scopes.connections.clone());
        // What is counted of services goes on, whatever they are offered through.
        let counters =
            at_work.map_or_else(|| Arc::new(Counters::new(workers.count())), |old| old.counters.clone());
        let client = TunnelClient::new(plan.spec.clone(), way.clone(), tls, workers, scope);
        Client(Arc::new(ClientEnd {
            client,
            way,
            counters,
            services: Mutex::default(),
            has_ended: Arc::default(),
            running: Mutex::default(),
        }))
    }

    fn reach(&self, via: Option<Arc<dyn Connect>>) -> Arc<dyn Reach> {
        let tcp = TcpOptions { keepalive: Some(Keepalive::after(PROBE)), ..TcpOptions::default() };
        reach(self.finder.clone(), tcp, via)
    }

    /// What takes the place of the client's present way and offers.
    pub(in crate::generation) fn prepare_client(
        &self,
        client: Client,
        via: Option<Arc<dyn Connect>>,
        offers: Vec<Offer>,
    ) -> PreparedClient {
        PreparedClient { end: client.0, way: self.reach(via), offers }
    }

    /// Lets a prepared client take over. The one at work leaves, unless it is the same.
    pub(in crate::generation) fn take_over_client(&self, prepared: Option<PreparedClient>) {
        let next = prepared.map(|prepared| {
            let PreparedClient { end, way, offers } = prepared;
            end.way.0.store(Arc::new(way));
            *end.services.lock().unwrap_or_else(PoisonError::into_inner) =
                offers.iter().map(|offer| offer.metrics.clone()).collect();
            end.client.configure(offers);
            end
        });
        let old = self.at_work.set_client(next.clone());
        let is_same = |old: &Arc<ClientEnd>| next.as_ref().is_some_and(|next| Arc::ptr_eq(next, old));
        let mut leaving = self.leaving.borrow_mut();
        leaving.retain(|old| !old.has_ended.load(Ordering::Relaxed));
        if let Some(old) = old.filter(|old| !is_same(old)) {
            old.client.leave();
            leaving.push(old);
        }
        if let Some(next) = next {
            let mut running = next.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.get_or_insert_with(|| {
                let (client, has_ended) = (next.client.clone(), next.has_ended.clone());
                self.control.spawn_control(async move {
                    client.run().await;
                    has_ended.store(true, Ordering::Relaxed);
                })
            });
        }
    }
}

impl Client {
    /// The client itself.
    pub(in crate::generation) fn tunnel(&self) -> &Arc<TunnelClient> {
        &self.0.client
    }

    /// What counts its services.
    pub(in crate::generation) fn counters(&self) -> &Counters {
        &self.0.counters
    }
}

impl ClientEnd {
    /// The counters of the services that are offered.
    pub(super) fn services(&self) -> Vec<Arc<ListenerMetrics>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Way {
    fn now(&self) -> Arc<dyn Reach> {
        self.0.load().as_ref().clone()
    }
}

impl Connect for Way {
    fn connect<'a>(&'a self, to: &'a Destination) -> Connecting<'a> {
        let way = self.now();
        Box::pin(async move { way.connect(to).await })
    }

    fn connect_alone<'a>(&'a self, to: &'a Destination) -> ConnectingAlone<'a> {
        let way = self.now();
        Box::pin(async move { way.connect_alone(to).await })
    }
}

impl Reach for Way {
    fn resolve<'a>(&'a self, to: &'a Destination) -> Resolving<'a> {
        let way = self.now();
        Box::pin(async move { way.resolve(to).await })
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}
