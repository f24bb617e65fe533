//! A generation: one configuration at work.
//!
//! A new one is built whole beside the old: files opened, names resolved, addresses bound, and only when nothing can
//! fail any more do the workers change over. Sockets, peer states and open connections belong to the process and pass
//! from one generation to the next.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, anyhow};
use wmproxy_net::addr::{Address, AddressSpec, Protocol};
use wmproxy_net::limit::Gate;
use wmproxy_net::listen::{self, Bound, Listener};
use wmproxy_net::record::{AccessLog, ListenerMetrics};
use wmproxy_runtime::scope::{Leash, Scope};
use wmproxy_runtime::worker::Workers;
use wmproxy_upstream::{Group, Registry, Resolver, keep_resolved, resolve_all};

use crate::config::plan::{AccessLogPlan, ListenerPlan, ModePlan, Plan};
use crate::modes::{self, Job, Mode, Scopes};
use crate::observe::access::AccessFile;
use crate::observe::sinks::Sinks;

/// How long names may take before the generation starts without them. A peer without an address is left out until its
/// name resolves, so this only spares the first connections of a slow start.
const RESOLVE_AT_START: Duration = Duration::from_secs(3);

/// What outlives generations.
pub(crate) struct House {
    pub(crate) workers: Workers,
    pub(crate) scopes: Scopes,
    pub(crate) sinks: Arc<Sinks>,
    peers: Registry,
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
    /// Listeners that are gone, until their last connection is.
    gone: Vec<Arc<ListenerMetrics>>,
    _resolving: Vec<Leash>,
}

/// What the config calls an address; unlike the bound address the same for port 0 at each reload. Several listeners
/// may have the same one then.
type Key = (Protocol, AddressSpec);

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
    limits: Vec<(u32, u32)>,
    resolver: Arc<Resolver>,
}

impl House {
    /// A house with running workers and nothing else.
    pub(crate) fn new(workers: Workers, sinks: Arc<Sinks>) -> House {
        House {
            workers,
            scopes: Scopes::default(),
            sinks,
            peers: Registry::new(),
            control: Scope::new(),
            next_id: std::cell::Cell::new(1),
        }
    }

    /// Gets everything ready that `plan` asks for and `old` does not have.
    ///
    /// # Errors
    /// What could not be had: a port, a file. Nothing has changed then.
    pub(crate) async fn prepare(&self, plan: &Plan, old: &Generation) -> anyhow::Result<Prepared> {
        let groups: BTreeMap<_, _> =
            plan.groups.iter().map(|(name, spec)| (name.clone(), self.peers.build(spec.clone()))).collect();
        let mut logs = HashMap::new();
        let mut listeners = Vec::new();
        let mut limits = Vec::new();
        let mut heirs = heirs(&plan.listeners, old);
        for (index, wanted) in plan.listeners.iter().enumerate() {
            let ModePlan::Stream(spec) = &wanted.mode;
            let group = groups.get(&spec.group).cloned();
            let group = group.with_context(|| format!("no upstream named `{}`", spec.group))?;
            let log = match &wanted.access_log {
                Some(log) => Some(self.open_log(log, &mut logs)?),
                None => None,
            };
            let mode = Mode::new(&wanted.mode, wanted.protocol, group, log);
            let (active, running) = match heirs.remove(&index) {
                Some(parts) => (self.inherit(wanted, &parts), true),
                None => (self.bind(wanted).map_err(|error| name_own(error, wanted, old))?, false),
            };
            listeners.push((active, mode, running));
            limits.push((spec.max_connections, spec.per_client_connections));
        }
        let resolver = Arc::new(Resolver::new(&plan.resolver));
        resolve(&groups, &resolver).await;
        Ok(Prepared { groups, listeners, limits, resolver })
    }

    fn open_log(
        &self,
        plan: &AccessLogPlan,
        open: &mut HashMap<String, Arc<dyn AccessLog>>,
    ) -> anyhow::Result<Arc<dyn AccessLog>> {
        let key = format!("{plan:?}");
        if let Some(log) = open.get(&key) {
            return Ok(log.clone());
        }
        let log: Arc<dyn AccessLog> = Arc::new(AccessFile::open(&self.sinks, plan)?);
        open.insert(key, log.clone());
        Ok(log)
    }

    /// A listener with the sockets of an old one, whose counters go on if it has the same name.
    fn inherit(&self, wanted: &ListenerPlan, parts: &[Inherited]) -> Active {
        let workers = self.workers.count();
        let part = |old: &Inherited| {
            let name = wanted.name.clone();
            let listener = match &old.from {
                Origin::Listener(same) if same.metrics.name == name => same.clone(),
                // The sockets and whoever is in stay; the counters begin again.
                Origin::Listener(other) => {
                    Listener::new(name, other.bound.clone(), other.gate.clone(), workers)
                }
                Origin::Sockets(bound, gate) => Listener::new(name, bound.clone(), gate.clone(), workers),
            };
            Part { id: old.id, listener }
        };
        Active { key: key(wanted), parts: parts.iter().map(part).collect() }
    }

    fn bind(&self, wanted: &ListenerPlan) -> anyhow::Result<Active> {
        let workers = self.workers.count();
        let bound = listen::bind(wanted.protocol, &wanted.address, workers)?;
        // All addresses that one text stands for have one limit.
        let gate = Gate::new(0, 0);
        let part = |bound| {
            let id = self.next_id.get();
            self.next_id.set(id + 1);
            Part { id, listener: Listener::new(wanted.name.clone(), Arc::new(bound), gate.clone(), workers) }
        };
        Ok(Active { key: key(wanted), parts: bound.into_iter().map(part).collect() })
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
        let Prepared { groups, listeners, limits, resolver } = prepared;
        let set_limits = |running: bool| {
            for ((active, _, is_running), (max, per_client)) in listeners.iter().zip(&limits) {
                let parts = active.parts.iter().filter(|_| *is_running == running);
                parts.for_each(|part| part.listener.gate.set(*max, *per_client));
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
        // New listeners first: only they can fail, and then they alone are taken back.
        let fresh = jobs(false);
        if let Err(error) = self.on_workers(&fresh, modes::start).await {
            let ids: Vec<u64> = fresh.iter().map(|job| job.id).collect();
            self.workers
                .on_each(|_| {
                    let ids = ids.clone();
                    move || ids.into_iter().for_each(modes::cancel)
                })
                .await;
            return Err((error, old));
        }
        set_limits(true);
        if let Err(error) = self.on_workers(&jobs(true), modes::replace).await {
            tracing::error!(%error, "a worker could not start a listener again");
        }
        let active: Vec<Active> = listeners.into_iter().map(|(active, ..)| active).collect();
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
                        if key.0 == Protocol::Udp {
                            let (bound, gate) = (Arc::downgrade(&listener.bound), listener.gate.clone());
                            lingering.push(Lingering { key: key.clone(), id, bound, gate });
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
        let resolving = groups
            .values()
            .filter(|group| group.has_names())
            .map(|group| self.control.spawn_control(keep_resolved(group, resolver.clone())))
            .collect();
        Generation { groups, active, lingering, gone, _resolving: resolving }
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
        self.workers.on_each(|_| modes::drain).await;
    }
}

fn key(wanted: &ListenerPlan) -> Key {
    (wanted.protocol, wanted.address.clone())
}

/// Which of the listeners wanted, by index, takes over the sockets of which old one. Each goes to one only: to that of
/// the same name first, then to any at that address.
fn heirs(wanted: &[ListenerPlan], old: &Generation) -> HashMap<usize, Vec<Inherited>> {
    let mut heirs = HashMap::new();
    let mut left: Vec<&Active> = old.active.iter().collect();
    for by_name in [true, false] {
        for (index, wanted) in wanted.iter().enumerate() {
            let key = key(wanted);
            let fits = |active: &&Active| {
                let named = |part: &Part| part.listener.metrics.name == wanted.name;
                active.key == key && (!by_name || active.parts.iter().any(named))
            };
            if !heirs.contains_key(&index)
                && let Some(at) = left.iter().position(fits)
            {
                let parts = left.swap_remove(at).parts.iter();
                let inherit =
                    |part: &Part| Inherited { id: part.id, from: Origin::Listener(part.listener.clone()) };
                heirs.insert(index, parts.map(inherit).collect());
            }
        }
    }
    let mut lingering: Vec<_> =
        old.lingering.iter().filter_map(|old| Some((old, old.bound.upgrade()?))).collect();
    for (index, wanted) in wanted.iter().enumerate().filter(|(_, wanted)| wanted.protocol == Protocol::Udp) {
        let key = key(wanted);
        if let Entry::Vacant(heir) = heirs.entry(index) {
            let fits = |(lingering, _): &mut (&Lingering, Arc<Bound>)| lingering.key == key;
            let parts: Vec<_> = lingering.extract_if(.., fits).collect();
            if !parts.is_empty() {
                let inherit = |(old, bound): (&Lingering, _)| Inherited {
                    id: old.id,
                    from: Origin::Sockets(bound, old.gate.clone()),
                };
                heir.insert(parts.into_iter().map(inherit).collect());
            }
        }
    }
    heirs
}

/// Says so when the address that is taken is taken by this very process: sockets can't be widened or narrowed, and the
/// old ones are in use until the new are there.
fn name_own(error: anyhow::Error, wanted: &ListenerPlan, old: &Generation) -> anyhow::Error {
    let is_taken = error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
    let port = wanted.address.ports().map(|ports| *ports.start());
    let overlaps = |listener: &&Arc<ListenerMetrics>| match listener.address {
        Address::Inet(bound) => listener.protocol == wanted.protocol && Some(bound.port()) == port,
        Address::Unix(_) => false,
    };
    match old.in_service().find(overlaps).filter(|_| is_taken) {
        Some(own) => error.context(format!(
            "`{}` listens on {} now; to change the form of its address, remove it with one reload and add it with the next",
            own.name, own.address
        )),
        None => error,
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
