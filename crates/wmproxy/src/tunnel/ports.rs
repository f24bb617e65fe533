//! The ports that clients' services are reached at.
//!
//! They live as long as the process, beside its generations: an exposure keeps its sockets as long as it is there, whatever
//! the config does meanwhile, and what changes of it changes as a reload changes a listener.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wmproxy_forward::egress::OwnListeners;
use wmproxy_http::filter::Tables;
use wmproxy_http::options::HttpSpec;
use wmproxy_http::traffic::Traffic;
use wmproxy_http::{BuildError, HttpService, RequestLog};
use wmproxy_net::accept::Service;
use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::limit::Gate;
use wmproxy_net::listen::{Bound, Listener};
use wmproxy_net::record::{AccessLog, ListenerMetrics};
use wmproxy_net::tls::Acceptor;
use wmproxy_runtime::worker::Handle;
use wmproxy_stream::route::Routes;
use wmproxy_stream::tcp::TcpService;
use wmproxy_tunnel::datagrams::outer::OuterService;
use wmproxy_tunnel::server::{Exposure, Place, Ports, Publishing, TunnelServer};
use wmproxy_upstream::{Group, Registry};
use wmproxy_wire::tunnel::message::{Kind, Refusal};

use super::fronts::Fronts;
use super::group::Groups;
use super::port::{Lingering, Part, Port, heirs};
use super::sni::SniService;
use super::sockets;
use super::spot;
pub(crate) use super::spot::{Own, PortsSpec};
use crate::modes::{self, Job, Mode, Scopes};

/// The ids of listeners of exposures begin here: a house that counts from one never gets so far.
const FIRST_ID: u64 = 1 << 63;

/// What ports are made with, besides the config.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) workers: Handle,
    pub(crate) scopes: Scopes,
    pub(crate) peers: Registry,
    pub(crate) filters: Arc<Tables>,
    pub(crate) traffic: Arc<Traffic>,
    /// Where forward proxies let nobody go.
    pub(crate) own: Arc<OwnListeners>,
}

/// Opens to visitors what the clients of a tunnel server offer.
pub(crate) struct TunnelPorts {
    workers: Handle,
    scopes: Scopes,
    server: Arc<TunnelServer>,
    groups: Groups,
    fronts: Fronts,
    own: Arc<OwnListeners>,
    open: tokio::sync::Mutex<Open>,
    /// What is shown of it.
    face: Mutex<Face>,
}

#[derive(Default)]
struct Open {
    spec: Option<PortsSpec>,
    /// What was asked for last.
    wanted: Vec<Exposure>,
    ports: HashMap<Arc<str>, Port>,
    /// UDP listeners that were taken out of service and still have flows.
    lingering: Vec<Lingering>,
    /// TCP sockets that were taken out of service, and still wait for handshakes that had begun.
    leaving: Vec<Weak<Bound>>,
    /// Listeners that are gone, until their last connection is.
    gone: Vec<Arc<ListenerMetrics>>,
    last_id: u64,
    is_draining: bool,
}

#[derive(Default)]
struct Face {
    listeners: Vec<Arc<ListenerMetrics>>,
    gone: Vec<Arc<ListenerMetrics>>,
    groups: Vec<Arc<Group>>,
}

/// What becomes of an exposure.
enum Step {
    /// It stays as it is.
    Keep,
    /// What serves it is replaced.
    Replace,
    /// It is started.
    Start,
}

impl TunnelPorts {
    /// No ports, and no spec to open any by: that has to be [configured](TunnelPorts::configure) before anything is published.
    pub(crate) fn new(means: Means, server: Arc<TunnelServer>) -> Arc<TunnelPorts> {
        let groups = Groups::new(means.peers, server.clone());
        let fronts = Fronts::new(groups.clone(), means.filters, means.traffic);
        Arc::new(TunnelPorts {
            workers: means.workers,
            scopes: means.scopes,
            server,
            groups,
            fronts,
            own: means.own,
            open: tokio::sync::Mutex::default(),
            face: Mutex::default(),
        })
    }

    /// What serves visitors at the addresses of a generation for http.
    ///
    /// # Errors
    /// What in the spec makes no sense. Its routes mean nothing.
    pub(crate) fn http(&self, spec: HttpSpec, log: Option<Arc<dyn RequestLog>>) -> Result<Mode, BuildError> {
        let service: Arc<HttpService> = self.fronts.http(spec, log)?;
        Ok(Mode::http(service))
    }

    /// What serves visitors at the addresses of a generation for https: `tls` is for services for which the server ends it,
    /// and `log` for their requests; connections that are passed on leave their record in `relayed`.
    ///
    /// # Errors
    /// As [`http`](TunnelPorts::http).
    pub(crate) fn https(
        &self,
        spec: HttpSpec,
        tls: Option<Arc<Acceptor>>,
        log: Option<Arc<dyn RequestLog>>,
        relayed: Option<Arc<dyn AccessLog>>,
    ) -> Result<Mode, BuildError> {
        let service: Arc<SniService> = self.fronts.https(spec, tls, log, relayed)?;
        Ok(Mode::Tcp(Service { log: service.http().refusals(), serve: service }))
    }

    /// Opens ports by this spec from now on, and changes those that are open accordingly. None closes all.
    pub(crate) async fn configure(&self, spec: Option<PortsSpec>) {
        let open = &mut *self.open.lock().await;
        let is_new = match (&open.spec, &spec) {
            (Some(old), Some(new)) => new.makes_others_than(old),
            (old, new) => old.is_some() != new.is_some(),
        };
        let has_moved = match (&open.spec, &spec) {
            (Some(old), Some(new)) => old.host != new.host,
            _ => false,
        };
        open.spec = spec;
        if has_moved {
            self.retire(open).await;
        }
        let wanted = match open.spec {
            Some(_) => open.wanted.clone(),
            None => Vec::new(),
        };
        drop(self.bring_about(open, wanted, is_new).await);
    }

    /// Closes all ports for good; what runs on them goes on.
    pub(crate) async fn drain(&self) {
        let open = &mut *self.open.lock().await;
        open.is_draining = true;
        self.retire(open).await;
        self.show(open);
    }

    /// The listeners of ports, and those gone that still have connections.
    pub(crate) fn listeners(&self) -> Vec<Arc<ListenerMetrics>> {
        let face = self.face.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = face.gone.iter().filter(|metrics| metrics.active() > 0);
        face.listeners.iter().chain(gone).cloned().collect()
    }

    /// The groups behind ports and fronts, by name.
    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        let mut groups = self.face.lock().unwrap_or_else(PoisonError::into_inner).groups.clone();
        groups.extend(self.fronts.groups());
        groups.sort_by(|a, b| a.name().cmp(b.name()));
        groups
    }

    /// Has exactly these open.
    async fn bring_about(
        &self,
        open: &mut Open,
        wanted: Vec<Exposure>,
        is_new: bool,
    ) -> Vec<Result<Vec<Place>, Refusal>> {
        let Some(spec) = open.spec.clone().filter(|_| !open.is_draining) else {
            self.retire(open).await;
            self.show(open);
            let refused = || Err(sockets::system("the server opens no ports now".to_owned()));
            return wanted.iter().map(|_| refused()).collect();
        };
        let mut results: Vec<_> = wanted.iter().map(|_| Ok(Vec::new())).collect();
        let has_port = |exposure: &Exposure| !matches!(exposure.kind, Kind::Http | Kind::Https);
        let (with_port, fronted): (Vec<usize>, Vec<usize>) =
            (0..wanted.len()).partition(|index| has_port(&wanted[*index]));
        let exposures: Vec<&Exposure> = fronted.iter().map(|index| &wanted[*index]).collect();
        for (index, result) in fronted.into_iter().zip(self.fronts.publish(&exposures, &spec, is_new)) {
            results[index] = result;
        }
        let exposures: Vec<&Exposure> = with_port.iter().map(|index| &wanted[*index]).collect();
        for (index, result) in with_port.into_iter().zip(self.open(open, &exposures, &spec, is_new).await) {
            results[index] = result;
        }
        open.wanted = wanted;
        self.show(open);
        results
    }

    /// Has exactly these open that have ports.
    async fn open(
        &self,
        open: &mut Open,
        wanted: &[&Exposure],
        spec: &PortsSpec,
        is_new: bool,
    ) -> Vec<Result<Vec<Place>, Refusal>> {
        let mut heirs = heirs(&mut open.ports, wanted);
        self.retire(open).await;
        let mut next: Vec<Result<(Port, Step), Refusal>> = Vec::with_capacity(wanted.len());
        for (index, exposure) in wanted.iter().enumerate() {
            next.push(match heirs.remove(&index) {
                Some(old) => {
                    let renamed = old.parts.iter().filter(|_| old.exposure.name != exposure.name);
                    open.gone.extend(renamed.map(|part| part.listener.metrics.clone()));
                    Ok(self.inherit(old, exposure, is_new))
                }
                None => {
                    sockets::way_is_clear(exposure, &open.leaving).await;
                    self.bind(open, exposure, spec)
                }
            });
        }
        self.run(open, next, spec).await
    }

    /// An exposure with the sockets of an old one, whose counters go on if it has the same name.
    fn inherit(&self, old: Port, exposure: &Exposure, is_new: bool) -> (Port, Step) {
        if old.exposure == *exposure && !is_new {
            return (old, Step::Keep);
        }
        let workers = self.workers.count();
        let part = |part: Part| {
            let Listener { bound, metrics, gate } = &*part.listener;
            let listener = match metrics.name == exposure.name {
                true => part.listener.clone(),
                false => Listener::new(exposure.name.clone(), bound.clone(), gate.clone(), workers),
            };
            Part { id: part.id, listener }
        };
        let parts = old.parts.into_iter().map(part).collect();
        (Port { exposure: exposure.clone(), group: None, parts }, Step::Replace)
    }

    /// An exposure with sockets of its own, or with those of a UDP listener that was taken out of service at its port.
    fn bind(&self, open: &mut Open, exposure: &Exposure, spec: &PortsSpec) -> Result<(Port, Step), Refusal> {
        let workers = self.workers.count();
        let of = |parts| Port { exposure: exposure.clone(), group: None, parts };
        if exposure.kind == Kind::Udp && exposure.port != 0 {
            let at_port = |old: &mut Lingering| old.port == exposure.port;
            let again = open.lingering.extract_if(.., at_port).filter_map(|old| {
                let listener = Listener::new(exposure.name.clone(), old.bound.upgrade()?, old.gate, workers);
                Some(Part { id: old.id, listener })
            });
            let parts: Vec<Part> = again.collect();
            if !parts.is_empty() {
                return Ok((of(parts), Step::Replace));
            }
        }
        let gate = Gate::new(0, 0);
        let bound = sockets::bind(exposure, spec, workers)?;
        let part = |bound| {
            open.last_id += 1;
            let listener = Listener::new(exposure.name.clone(), Arc::new(bound), gate.clone(), workers);
            Part { id: FIRST_ID + open.last_id, listener }
        };
        let port = of(bound.into_iter().map(part).collect());
        Ok((port, Step::Start))
    }

    /// Starts what is new and replaces what has changed, on all workers at once.
    async fn run(
        &self,
        open: &mut Open,
        next: Vec<Result<(Port, Step), Refusal>>,
        spec: &PortsSpec,
    ) -> Vec<Result<Vec<Place>, Refusal>> {
        let (mut fresh, mut changed) = (Vec::new(), Vec::new());
        let mut ports = Vec::with_capacity(next.len());
        for step in next {
            ports.push(step.map(|(mut port, step)| {
                let jobs = match step {
                    Step::Keep => return port,
                    Step::Start => &mut fresh,
                    Step::Replace => &mut changed,
                };
                let mode = self.mode(&mut port, spec);
                jobs.extend(port.parts.iter().map(|part| Job {
                    id: part.id,
                    listener: part.listener.clone(),
                    mode: mode.clone(),
                }));
                port
            }));
        }
        let failed = self.on_workers(fresh, modes::start).await;
        // What was replaced had its event queue already, so that it fails only where it has ended meanwhile.
        let failed: HashMap<u64, io::Error> =
            failed.into_iter().chain(self.on_workers(changed, modes::replace).await).collect();
        let mut results = Vec::with_capacity(ports.len());
        for port in ports {
            results.push(match port {
                Ok(port) => match port.parts.iter().find_map(|part| failed.get(&part.id)) {
                    Some(error) => Err(self.give_up(&port, error).await),
                    None => Ok(keep(open, port, spec)),
                },
                Err(refusal) => Err(refusal),
            });
        }
        results
    }

    /// What is served on a port; the port's gate lets in what that allows.
    fn mode(&self, port: &mut Port, spec: &PortsSpec) -> Mode {
        let stream = spot::stream(&port.exposure, spec);
        let mut limits = stream.limits();
        if port.protocol() == Protocol::Udp {
            limits.max = spot::least(port.exposure.max_connections, spec.visitors.max_flows);
        }
        port.parts.iter().for_each(|part| part.listener.gate.set(&limits));
        if port.protocol() == Protocol::Udp {
            return Mode::Tunnelled(Box::new(OuterService {
                way: self.server.datagram_way(port.exposure.members.clone()),
                acl: stream.acl,
                idle_timeout: spec.visitors.udp_idle_timeout,
                name: port.exposure.name.clone(),
                log: spec.log.clone(),
            }));
        }
        let group = self.groups.of(&port.exposure, spec.patience);
        port.group = Some(group.clone());
        let service = TcpService::new(stream, Arc::new(Routes::to(group)), None);
        Mode::Tcp(Service { serve: service, log: spec.log.clone() })
    }

    async fn give_up(&self, port: &Port, error: &io::Error) -> Refusal {
        let ids: Vec<u64> = port.parts.iter().map(|part| part.id).collect();
        let cancel = |_| {
            let ids = ids.clone();
            move || ids.into_iter().for_each(modes::cancel)
        };
        self.workers.on_each(cancel).await;
        tracing::error!(name = %port.exposure.name, %error, "a worker can't serve a port of the tunnel");
        sockets::system("the server has no room for another port".to_owned())
    }

    /// Runs jobs on every worker, and gives those that failed.
    async fn on_workers(
        &self,
        jobs: Vec<Job>,
        run: fn(usize, Job, &Scopes) -> io::Result<()>,
    ) -> Vec<(u64, io::Error)> {
        if jobs.is_empty() {
            return Vec::new();
        }
        let run = |worker| {
            let (jobs, scopes) = (jobs.clone(), self.scopes.clone());
            move || -> Vec<(u64, io::Error)> {
                let failed = |job: Job| Some((job.id, run(worker, job, &scopes).err()?));
                jobs.into_iter().filter_map(failed).collect()
            }
        };
        self.workers.on_each(run).await.into_iter().flatten().flatten().collect()
    }

    /// Takes all ports out of service. Their connections and flows go on.
    async fn retire(&self, open: &mut Open) {
        let mut ids = Vec::new();
        let retired = std::mem::take(&mut open.ports);
        // Consumed, for the sockets close with the last that holds them.
        for part in retired.into_values().flat_map(|port| port.parts) {
            let bound = Arc::downgrade(&part.listener.bound);
            match (part.listener.bound.protocol, sockets::port_of(&part.listener.bound)) {
                (Protocol::Udp, Some(port)) => {
                    let gate = part.listener.gate.clone();
                    open.lingering.push(Lingering { port, id: part.id, bound, gate });
                }
                _ => open.leaving.push(bound),
            }
            ids.push(part.id);
            open.gone.push(part.listener.metrics.clone());
        }
        open.lingering.retain(|old| old.bound.strong_count() > 0);
        open.leaving.retain(|bound| bound.strong_count() > 0);
        open.gone.retain(|metrics| metrics.active() > 0);
        if !ids.is_empty() {
            let retire = |_| {
                let ids = ids.clone();
                move || ids.into_iter().for_each(modes::retire)
            };
            self.workers.on_each(retire).await;
        }
    }

    fn show(&self, open: &Open) {
        let parts = open.ports.values().flat_map(|port| &port.parts);
        self.own.replace_offered(parts.clone().filter_map(|part| match part.listener.bound.address {
            Address::Inet(address) => Some((part.listener.bound.protocol, address)),
            Address::Unix(_) | Address::Name(..) => None,
        }));
        let mut listeners: Vec<_> = parts.map(|part| part.listener.metrics.clone()).collect();
        listeners.sort_by(|a, b| a.name.cmp(&b.name));
        let groups = open.ports.values().filter_map(|port| port.group.clone()).collect();
        let gone = open.gone.clone();
        *self.face.lock().unwrap_or_else(PoisonError::into_inner) = Face { listeners, gone, groups };
    }
}

impl Ports for TunnelPorts {
    fn publish(&self, wanted: Vec<Exposure>) -> Publishing<'_> {
        Box::pin(async move {
            let open = &mut *self.open.lock().await;
            self.bring_about(open, wanted, false).await
        })
    }
}

/// Notes that a port is open, and says where.
fn keep(open: &mut Open, port: Port, spec: &PortsSpec) -> Vec<Place> {
    // All addresses of the machine are one place.
    let place = port.parts.iter().find_map(|part| match part.listener.bound.address {
        Address::Inet(address) => Some(spot::place(&port.exposure, address, spec)),
        Address::Unix(_) | Address::Name(..) => None,
    });
    open.ports.insert(port.exposure.name.clone(), port);
    place.into_iter().collect()
}
