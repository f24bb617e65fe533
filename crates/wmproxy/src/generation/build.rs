//! Putting together what is served on a generation's listeners.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::anyhow;
use wmproxy_forward::gateway::{Egresses, ForwardGateway};
use wmproxy_forward::options::ForwardSpec;
use wmproxy_forward::service::ForwardService;
use wmproxy_http::options::{HttpSpec, RouteSpec};
use wmproxy_http::{HttpService, RequestLog};
use wmproxy_net::record::AccessLog;
use wmproxy_net::sockopt::{PeerSocket, Source, TcpOptions};
use wmproxy_net::tls::Renewal;
use wmproxy_stream::options::StreamSpec;
use wmproxy_stream::route::Routes;
use wmproxy_upstream::Group;

use super::House;
use super::ends::TunnelEnds;
use super::sockets::Tried;
use crate::config::plan::{AccessLogPlan, ListenerPlan, ModePlan};
use crate::modes::Mode;
use crate::observe::access::AccessFile;
use crate::observe::requests::RequestFile;
use crate::observe::visits::VisitFile;

/// A table of a stream, with groups; or the name of one that there is not.
type Led = Result<Arc<Routes<Arc<Group>>>, Arc<str>>;

/// The modes of a generation, and what several of them share.
pub(super) struct Modes<'a> {
    pub(super) house: &'a House,
    pub(super) groups: &'a BTreeMap<Arc<str>, Arc<Group>>,
    pub(super) egresses: &'a Egresses,
    pub(super) tunnels: &'a TunnelEnds,
    pub(super) certificates: &'a mut Renewal,
    /// A range of ports has one table, which may be large.
    routed: HashMap<*const Routes<Arc<str>>, Led>,
    /// And one HTTP service, for what it holds is the same for all of them.
    served: HashMap<*const [RouteSpec], Arc<HttpService>>,
    proxies: HashMap<*const ForwardSpec, Arc<ForwardService>>,
    logs: HashMap<String, Arc<dyn AccessLog>>,
    visit_logs: HashMap<String, Arc<VisitFile>>,
    request_logs: HashMap<String, Arc<dyn RequestLog>>,
}

impl<'a> Modes<'a> {
    /// None yet. Their certificates are noted in `certificates`.
    pub(super) fn new(
        house: &'a House,
        groups: &'a BTreeMap<Arc<str>, Arc<Group>>,
        egresses: &'a Egresses,
        tunnels: &'a TunnelEnds,
        certificates: &'a mut Renewal,
    ) -> Self {
        Modes {
            house,
            groups,
            egresses,
            tunnels,
            certificates,
            routed: HashMap::new(),
            served: HashMap::new(),
            proxies: HashMap::new(),
            logs: HashMap::new(),
            visit_logs: HashMap::new(),
            request_logs: HashMap::new(),
        }
    }

    /// What a listener serves. The sockets that it opens are tried.
    ///
    /// # Errors
    /// A file that can't be read, or a socket option that the system refuses.
    pub(super) fn build(&mut self, wanted: &ListenerPlan, tried: &mut Tried) -> anyhow::Result<Mode> {
        match &wanted.mode {
            ModePlan::Stream(spec) => self.stream(spec, wanted, tried),
            ModePlan::Http(spec) => self.http(spec, wanted, tried),
            ModePlan::Forward(spec) => self.forward(spec, wanted, tried),
            ModePlan::TunnelDoor(plan) => self.tunnel_door(plan),
            ModePlan::TunnelQuic(plan) => self.tunnel_quic(plan),
            ModePlan::TunnelHttp(plan) => self.tunnel_http(plan, wanted),
            ModePlan::TunnelHttps(plan) => self.tunnel_https(plan, wanted),
            ModePlan::Visit(plan) => self.visit(plan, wanted),
        }
    }

    fn stream(
        &mut self,
        spec: &StreamSpec,
        wanted: &ListenerPlan,
        tried: &mut Tried,
    ) -> anyhow::Result<Mode> {
        let groups = self.groups;
        let routes =
            self.routed.entry(Arc::as_ptr(&spec.routes)).or_insert_with(|| led_to(&spec.routes, groups));
        let routes = routes.as_ref().map_err(|name| anyhow!("no upstream named `{name}`"))?.clone();
        let log = wanted.access_log.as_ref().map(|plan| self.log(plan)).transpose()?;
        for group in routes.destinations() {
            try_peer(tried, group, spec.socket.tcp, spec.source)?;
        }
        let tls = spec.tls.as_ref().map(|tls| self.house.tls.acceptor(tls, self.certificates)).transpose()?;
        Ok(Mode::stream(spec, wanted.protocol, routes, tls, log))
    }

    fn http(&mut self, spec: &HttpSpec, wanted: &ListenerPlan, tried: &mut Tried) -> anyhow::Result<Mode> {
        if let Some(service) = self.served.get(&Arc::as_ptr(&spec.routes)) {
            return Ok(Mode::http(service.clone()));
        }
        let log = wanted.access_log.as_ref().map(|plan| self.request_log(plan)).transpose()?;
        for name in spec.groups() {
            let group = self.groups.get(name).ok_or_else(|| anyhow!("no upstream named `{name}`"))?;
            try_peer(tried, group, spec.socket.tcp, spec.source)?;
        }
        let tls = spec.tls.as_ref().map(|tls| self.house.tls.acceptor(tls, self.certificates)).transpose()?;
        let groups = self.groups;
        let traffic = self.house.traffic.listener(&spec.name);
        let service = HttpService::new(
            spec.clone(),
            |name| groups.get(name).cloned(),
            tls,
            log,
            traffic,
            &self.house.filters,
        )?;
        self.served.insert(Arc::as_ptr(&spec.routes), service.clone());
        Ok(Mode::http(service))
    }

    fn forward(
        &mut self,
        spec: &Arc<ForwardSpec>,
        wanted: &ListenerPlan,
        tried: &mut Tried,
    ) -> anyhow::Result<Mode> {
        let log = wanted.access_log.as_ref().map(|plan| self.visit_log(plan)).transpose()?;
        if let Some(service) = self.proxies.get(&Arc::as_ptr(spec)) {
            return Ok(Mode::forward(service.clone(), log));
        }
        let listener = &spec.listener;
        let tls =
            listener.tls.as_ref().map(|tls| self.house.tls.acceptor(tls, self.certificates)).transpose()?;
        for (name, egress) in self.egresses {
            let socket = PeerSocket::default().with(listener.socket.tcp, egress.source());
            tried.peer_socket(&socket, &format!("destinations of egress `{name}`"))?;
        }
        let gateway = ForwardGateway::new(spec, self.egresses, &self.house.outside.accounts)?;
        let traffic = self.house.traffic.listener(&listener.name);
        let requests = log.clone().map(|log| log as Arc<dyn RequestLog>);
        let service = ForwardService::new(ForwardSpec::clone(spec), gateway, tls, requests, traffic);
        self.proxies.insert(Arc::as_ptr(spec), service.clone());
        Ok(Mode::forward(service, log))
    }

    /// The access log of a plan; equal plans have one.
    pub(super) fn log(&mut self, plan: &AccessLogPlan) -> anyhow::Result<Arc<dyn AccessLog>> {
        let key = format!("{plan:?}");
        if let Some(log) = self.logs.get(&key) {
            return Ok(log.clone());
        }
        let log: Arc<dyn AccessLog> = Arc::new(AccessFile::open(&self.house.sinks, plan)?);
        self.logs.insert(key, log.clone());
        Ok(log)
    }

    /// The same for visits through a forward proxy.
    pub(super) fn visit_log(&mut self, plan: &AccessLogPlan) -> anyhow::Result<Arc<VisitFile>> {
        let key = format!("{plan:?}");
        if let Some(log) = self.visit_logs.get(&key) {
            return Ok(log.clone());
        }
        let log = Arc::new(VisitFile::open(&self.house.sinks, plan)?);
        self.visit_logs.insert(key, log.clone());
        Ok(log)
    }

    /// The same for requests.
    pub(super) fn request_log(&mut self, plan: &AccessLogPlan) -> anyhow::Result<Arc<dyn RequestLog>> {
        let key = format!("{plan:?}");
        if let Some(log) = self.request_logs.get(&key) {
            return Ok(log.clone());
        }
        let log: Arc<dyn RequestLog> = Arc::new(RequestFile::open(&self.house.sinks, plan)?);
        self.request_logs.insert(key, log.clone());
        Ok(log)
    }
}

/// Tries what is set on sockets towards a group's peers.
fn try_peer(tried: &mut Tried, group: &Group, tcp: TcpOptions, source: Option<Source>) -> anyhow::Result<()> {
    tried.peer_socket(&group.spec().socket.with(tcp, source), &format!("upstream `{}`", group.name()))
}

/// The groups that a table leads to.
///
/// # Errors
/// The name of one that there is not.
fn led_to(routes: &Routes<Arc<str>>, groups: &BTreeMap<Arc<str>, Arc<Group>>) -> Led {
    routes.try_map(|name| groups.get(name).cloned().ok_or_else(|| name.clone())).map(Arc::new)
}
