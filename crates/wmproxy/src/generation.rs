//! A generation: one configuration at work.
//!
//! A new one is built whole beside the old: files opened, names resolved, addresses bound, and only when nothing can
//! fail any more do the workers change over. Sockets, peer states and open connections belong to the process and pass
//! from one generation to the next.

mod build;
mod ends;
pub(crate) mod sockets;
pub(crate) mod tunnels;
mod ways;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, anyhow};
use wmproxy_forward::options::UserSpec;
use wmproxy_http::filter::Tables;
use wmproxy_http::traffic::Traffic;
use wmproxy_net::addr::{AddressSpec, Protocol};
use wmproxy_net::limit::{Gate, Limits};
use wmproxy_net::listen::{Bound, Listener};
use wmproxy_net::privileges::{Identity, Rights};
use wmproxy_net::record::ListenerMetrics;
use wmproxy_net::sockopt::ListenSocket;
use wmproxy_net::tls::{Renewal, Store};
use wmproxy_runtime::scope::{Leash, Scope};
use wmproxy_runtime::worker::Workers;
use wmproxy_upstream::{Group, Registry, Resolver, keep_checked, keep_resolved, resolve_all};

use crate::config::plan::Plan;
use crate::modes::{self, Job, Mode, Scopes};
use crate::observe::sinks::Sinks;
use crate::tunnel::ports::Means;
use build::Modes;
use sockets::Tried;
use tunnels::{PreparedTunnels, Tunnels};
use ways::{Outside, Ways};

/// How long names may take before the generation starts without them. A peer without an address is left out until its
/// name resolves, so this only spares the first connections of a slow start.
const RESOLVE_AT_START: Duration = Duration::from_secs(3);

/// How often the files of certificates are looked at. Those that have changed are read when they have not changed
/// further by the next look.
const FOLLOW_CERTIFICATES: Duration = Duration::from_secs(1);

/// What outlives generations.
pub(crate) struct House {
    pub(crate) workers: Workers,
    pub(crate) scopes: Scopes,
    pub(crate) sinks: Arc<Sinks>,
    peers: Registry,
    /// Counters of HTTP requests.
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) tls: Arc<Store>,
    /// What the filters of HTTP know of clients.
    filters: Arc<Tables>,
    /// What forward proxies know of their users, and of the world.
    pub(crate) outside: Outside,
    /// The ends of tunnels.
    pub(crate) tunnels: Tunnels,
    /// Tasks of the control runtime.
    control: Scope,
    next_id: std::cell::Cell<u64>,
}

/// A configuration at work.
#[derive(Default)]
pub(crate) struct Generation {
    groups: BTreeMap<Arc<str>, Arc<Group>>,
    active: Vec<Active>,
    /// UDP listeners that were taken out of service and still have flows.
    lingering: Vec<Lingering>,
    /// TCP sockets that were taken out of service, and still wait for handshakes that had begun.
    leaving: Vec<Weak<Bound>>,
    /// Listeners that are gone, until their last connection is.
    gone: Vec<Arc<ListenerMetrics>>,
    /// What keeps its groups up to date: their names' addresses, their peers' health, the files of certificates.
    _upkeep: Vec<Leash>,
}

/// What the config calls an address; unlike the bound address the same for port 0 at each reload. Several listeners
/// may have the same one then.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    protocol: Protocol,
    address: AddressSpec,
    /// Sockets of another kind are other sockets.
    mptcp: bool,
}

struct Active {
    key: Key,
    /// More than one for `:port` and for names.
    parts: Vec<Part>,
}

/// A UDP listener out of service: its address, and what it takes to put it into service again.
struct Lingering {
    key: Key,
    id: u64,
    bound: Weak<Bound>,
    gate: Arc<Gate>,
}

#[derive(Clone)]
struct Part {
    id: u64,
    listener: Arc<Listener>,
}

/// A part that a new listener takes over.
struct Inherited {
    id: u64,
    from: Origin,
}

enum Origin {
    /// One in service.
    Listener(Arc<Listener>),
    /// One that was taken out of service and still has flows.
    Sockets(Arc<Bound>, Arc<Gate>),
}

/// A generation that is ready to take over.
pub(crate) struct Prepared {
    groups: BTreeMap<Arc<str>, Arc<Group>>,
    /// Each with its mode, and whether its workers run it already.
    listeners: Vec<(Active, Mode, bool)>,
    limits: Vec<Limits>,
    /// What is to be set on each one's sockets.
    sockets: Vec<ListenSocket>,
    /// What will not work as it is asked for; a line each.
    pub(crate) warnings: Vec<String>,
    /// Those of all forward proxies.
    users: Vec<UserSpec>,
    resolver: Arc<Resolver>,
    /// Certificates that changed since those in use were loaded.
    certificates: Renewal,
    tunnels: PreparedTunnels,
}

impl House {
    /// A house with running workers and nothing else.
    pub(crate) fn new(workers: Workers, sinks: Arc<Sinks>) -> House {
        let traffic = Arc::new(Traffic::new(workers.count()));
        let control = Scope::new();
        let (scopes, peers, filters) = (Scopes::default(), Registry::new(), Arc::new(Tables::new()));
        let outside = Outside::new(&control);
        let means = Means {
            workers: workers.handle(),
            scopes: scopes.clone(),
            peers: peers.clone(),
            filters: filters.clone(),
            traffic: traffic.clone(),
            own: outside.own.clone(),
        };
        let tunnels = Tunnels::new(means, control.clone(), outside.finder.clone());
        House {
            workers,
            scopes,
            sinks,
            peers,
            traffic,
            tls: Arc::new(Store::new()),
            filters,
            outside,
            tunnels,
            control,
            next_id: std::cell::Cell::new(1),
        }
    }

    /// Becomes somebody with fewer rights. The threads that open sockets keep those that they need for it.
    ///
    /// # Errors
    /// The process may not, or a worker is gone.
    pub(crate) async fn assume(&self, identity: Identity, rights: Rights) -> anyhow::Result<()> {
        if rights.is_none() || identity.is_current() {
            return Ok(identity.assume()?);
        }
        Rights::hold()?;
        self.each_worker(Rights::hold).await?;
        identity.assume()?;
        rights.restrict()?;
        self.each_worker(move || rights.restrict()).await
    }

    async fn each_worker(
        &self,
        run: impl Fn() -> std::io::Result<()> + Clone + Send + 'static,
    ) -> anyhow::Result<()> {
        for result in self.workers.on_each(|_| run.clone()).await {
            result.context("a worker is gone")??;
        }
        Ok(())
    }

    /// Gets everything ready that `plan` asks for and `old` does not have.
    ///
    /// # Errors
    /// What could not be had: a port, a file. Nothing has changed then.
    pub(crate) async fn prepare(&self, plan: &Plan, old: &Generation) -> anyhow::Result<Prepared> {
        let mut certificates = Renewal::new();
        let ends = self.tunnel_ends(plan, &mut certificates)?;
        let Ways { groups, egresses, chains } = self.ways(plan, &ends, &mut certificates)?;
        let mut modes = Modes::new(self, &groups, &egresses, &ends, &mut certificates);
        let mut listeners = Vec::new();
        let mut limits = Vec::new();
        let mut sockets = Vec::new();
        let mut heirs = sockets::heirs(&plan.listeners, old);
        let going = sockets::going(old, &heirs);
        let mut tried = Tried::default();
        for (index, wanted) in plan.listeners.iter().enumerate() {
            let mode = modes.build(wanted, &mut tried)?;
            let (active, running) = match heirs.remove(&index) {
                Some(parts) => (self.inherit(wanted, &parts), true),
                None => {
                    sockets::way_is_clear(wanted, &old.leaving).await;
                    (self.bind(wanted, &going, &sockets::beside(wanted, plan, &listeners))?, false)
                }
            };
            tried.listen_socket(wanted.mode.socket(), wanted, &active)?;
            listeners.push((active, mode, running));
            sockets.push(wanted.mode.socket().clone());
            limits.push(wanted.mode.limits());
        }
        let tunnels = modes.tunnels(plan, &chains)?;
        let resolver = Arc::new(Resolver::new(&plan.resolver));
        resolve(&groups, &resolver).await;
        let warnings = tried.warnings;
        let users = ways::users(plan);
        Ok(Prepared { groups, listeners, limits, sockets, users, resolver, certificates, tunnels, warnings })
    }

    /// Lets a prepared generation take over from `old`.
    ///
    /// # Errors
    /// A worker could not take a new listener. The old generation then goes on as it was.
    pub(crate) async fn commit(
        &self,
        prepared: Prepared,
        old: Generation,
    ) -> Result<Generation, (anyhow::Error, Generation)> {
        let Prepared { groups, listeners, limits, sockets, users, resolver, certificates, tunnels, .. } =
            prepared;
        let set_limits = |running: bool| {
            for ((active, _, is_running), limits) in listeners.iter().zip(&limits) {
                let parts = active.parts.iter().filter(|_| *is_running == running);
                parts.for_each(|part| part.listener.gate.set(limits));
            }
        };
        set_limits(false);
        let jobs = |running: bool| -> Vec<Job> {
            let wanted = listeners.iter().filter(|(_, _, is_running)| *is_running == running);
            wanted
                .flat_map(|(active, mode, _)| {
                    active.parts.iter().map(|part| Job {
                        id: part.id,
                        listener: part.listener.clone(),
                        mode: mode.clone(),
                    })
                })
                .collect()
        };
        // Before anybody is served there: no client of a forward proxy gets to them.
        let wanted = listeners.iter().flat_map(|(active, ..)| &active.parts);
        self.outside.note_listeners(wanted.chain(old.active.iter().flat_map(|active| &active.parts)));
        // New listeners first: only they can fail, and then they alone are taken back.
        let fresh = jobs(false);
        let opened = fresh.iter().try_for_each(|job| job.listener.bound.open());
        let started = match opened {
            Ok(()) => self.on_workers(&fresh, modes::start).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = started {
            let ids: Vec<u64> = fresh.iter().map(|job| job.id).collect();
            self.workers
                .on_each(|_| {
                    let ids = ids.clone();
                    move || ids.into_iter().for_each(modes::cancel)
                })
                .await;
            return Err((error, old));
        }
        certificates.apply();
        set_limits(true);
        for ((active, ..), options) in listeners.iter().zip(&sockets) {
            for part in &active.parts {
                if let Err(error) = part.listener.bound.apply(options) {
                    // It was tried, so that only a change of the machine meanwhile leads here.
                    tracing::error!(listener = %part.listener.metrics.name, %error, "a listener keeps its old socket options");
                }
            }
        }
        if let Err(error) = self.on_workers(&jobs(true), modes::replace).await {
            tracing::error!(%error, "a worker could not start a listener again");
        }
        self.outside.take_over(&users, &resolver);
        let active: Vec<Active> = listeners.into_iter().map(|(active, ..)| active).collect();
        self.tunnels.take_over(tunnels, &active).await;
        let next = self.succeed(old, active, groups, &resolver).await;
        Ok(next)
    }

    /// Retires what the new generation no longer has, and keeps what still has traffic in sight.
    async fn succeed(
        &self,
        old: Generation,
        active: Vec<Active>,
        groups: BTreeMap<Arc<str>, Arc<Group>>,
        resolver: &Arc<Resolver>,
    ) -> Generation {
        let in_service: HashMap<u64, &Arc<Listener>> =
            active.iter().flat_map(|active| &active.parts).map(|part| (part.id, &part.listener)).collect();
        let mut lingering = old.lingering;
        lingering.retain(|old| !in_service.contains_key(&old.id) && old.bound.strong_count() > 0);
        let mut leaving = old.leaving;
        leaving.retain(|bound| bound.strong_count() > 0);
        let mut gone = old.gone;
        let mut retired = Vec::new();
        // Consumed, for the sockets close with the last that holds them.
        for Active { key, parts } in old.active {
            for Part { id, listener } in parts {
                match in_service.get(&id) {
                    Some(same) if Arc::ptr_eq(same, &listener) => continue,
                    // Under another name.
                    Some(_) => {}
                    None => {
                        retired.push(id);
                        let bound = Arc::downgrade(&listener.bound);
                        match key.protocol {
                            Protocol::Tcp => leaving.push(bound),
                            Protocol::Udp => {
                                let gate = listener.gate.clone();
                                lingering.push(Lingering { key: key.clone(), id, bound, gate });
                            }
                        }
                    }
                }
                gone.push(listener.metrics.clone());
            }
        }
        if !retired.is_empty() {
            let retire = |_| {
                let retired = retired.clone();
                move || retired.into_iter().for_each(modes::retire)
            };
            self.workers.on_each(retire).await;
        }
        gone.retain(|metrics| metrics.active() > 0);
        // The checks of the old generation end before those of the new one begin.
        drop(old._upkeep);
        let mut upkeep = Vec::new();
        for group in groups.values() {
            if group.has_names() {
                upkeep.push(self.control.spawn_control(keep_resolved(group, resolver.clone())));
            }
            if group.spec().health.is_some() {
                upkeep.push(self.control.spawn_control(keep_checked(group)));
            }
        }
        upkeep.extend(self.follow_certificates());
        self.outside.note_listeners(active.iter().flat_map(|active| &active.parts));
        Generation { groups, active, lingering, leaving, gone, _upkeep: upkeep }
    }

    /// Keeps an eye on the files of certificates, as long as there are any.
    fn follow_certificates(&self) -> Option<Leash> {
        let store = self.tls.clone();
        let follow = async move {
            let mut ticks = tokio::time::interval(FOLLOW_CERTIFICATES);
            loop {
                ticks.tick().await;
                let store = store.clone();
                // A panic there was reported, and the next look may do.
                let _ = tokio::task::spawn_blocking(move || store.follow()).await;
            }
        };
        self.tls.is_used().then(|| self.control.spawn_control(follow))
    }

    async fn on_workers(
        &self,
        jobs: &[Job],
        run: fn(usize, Job, &Scopes) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let results = self
            .workers
            .on_each(|worker| {
                let (jobs, scopes) = (jobs.to_vec(), self.scopes.clone());
                move || jobs.into_iter().try_for_each(|job| run(worker, job, &scopes))
            })
            .await;
        for result in results {
            result.ok_or_else(|| anyhow!("a worker is gone"))??;
        }
        Ok(())
    }

    /// Takes all listeners out of service, and flows at their first silence. The generation goes first, or its hold on
    /// the listening sockets would keep the kernel letting clients in whom nobody serves.
    pub(crate) async fn drain(&self, generation: Generation) {
        drop(generation);
        self.tunnels.drain().await;
        self.workers.on_each(|_| modes::drain).await;
    }
}

/// Asks for the addresses of all names at once. What does not come in time is asked for again later.
async fn resolve(groups: &BTreeMap<Arc<str>, Arc<Group>>, resolver: &Arc<Resolver>) {
    let named: Vec<_> = groups.values().filter(|group| group.has_names()).cloned().collect();
    // Whatever came by then is taken over.
    let _ = tokio::time::timeout(RESOLVE_AT_START, resolve_all(&named, resolver)).await;
}

impl Generation {
    /// The listeners in force, and those gone that still have connections.
    pub(crate) fn listeners(&self) -> Vec<Arc<ListenerMetrics>> {
        let gone = self.gone.iter().filter(|metrics| metrics.active() > 0);
        self.in_service().chain(gone).cloned().collect()
    }

    /// The listeners in force.
    pub(crate) fn in_service(&self) -> impl Iterator<Item = &Arc<ListenerMetrics>> {
        self.active.iter().flat_map(|active| &active.parts).map(|part| &part.listener.metrics)
    }

    /// The upstream groups.
    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.values().cloned().collect()
    }
}
