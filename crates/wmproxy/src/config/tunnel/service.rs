//! The plan of `[[tunnel_client.service]]`: what is registered, and what serves its visitors here.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use wmproxy_forward::options::{DEFAULT_EGRESS, ForwardOptions, UserSpec};
use wmproxy_net::addr::AddressSpec;
use wmproxy_net::options::OneOrMany;
use wmproxy_net::preface::ProxyVersion;
use wmproxy_tunnel::options::{ServiceKind, ServiceSpec};
use wmproxy_upstream::options::{GroupOptions, ServerOptions};
use wmproxy_wire::tunnel::codec::{self, LIMIT};
use wmproxy_wire::tunnel::message::{Message, Register, Service};
use wmproxy_wire::units::{ByteRate, HumanDuration, Secret};

use super::super::options::{TunnelClientOptions, TunnelServiceOptions};
use super::super::resolve::Planner;
use super::super::tree::Path;
use super::plan::{TunnelEndPlan, TunnelServicePlan};

/// How long a connection is kept that nothing passes in, as for `[[stream]]`.
const TCP_IDLE_TIMEOUT: HumanDuration = HumanDuration::from_secs(600);

/// How long a flow of datagrams is kept that nothing passes in, as for `[[stream]]`.
const UDP_IDLE_TIMEOUT: HumanDuration = HumanDuration::from_secs(60);

/// The most services of a client: what one message of the protocol is able to name.
const MAX_SERVICES: usize = 4096;

impl Planner<'_> {
    /// Plans what a client offers.
    pub(super) fn tunnel_services(
        &mut self,
        client: &TunnelClientOptions,
        path: &Path,
    ) -> Vec<TunnelServicePlan> {
        let table = path.key("service");
        if client.service.len() > MAX_SERVICES {
            self.problem(&table, format!("a client offers at most {MAX_SERVICES} services"));
            return Vec::new();
        }
        let mut names: BTreeMap<&str, Path> = BTreeMap::new();
        let mut plans = Vec::new();
        for (index, service) in client.service.iter().enumerate() {
            let path = table.index(index);
            let before = self.errors();
            self.service_name(service, &mut names, &path);
            self.check_place(service, &path);
            self.check_foreign(service, &path);
            self.check_http_rules(service, &path);
            let users = self.service_users(service, &path);
            let registered = self.registered(service, index, &users, &path);
            self.check_fits(slice::from_ref(&registered), &path);
            let written = (service.secret.as_ref(), service.secret_file.as_deref());
            let secret = self.guarded(&path, "secret", written);
            let end = self.service_end(service, users, &path);
            if let Some(end) = end.filter(|_| self.errors() == before) {
                plans.push(TunnelServicePlan { spec: ServiceSpec { service: registered, secret }, end });
            }
        }
        let all: Vec<Service> = plans.iter().map(|plan| plan.spec.service.clone()).collect();
        self.check_fits(&all, &table);
        plans
    }

    /// Whether a server would read a registration of these. Or it would end each session at once, with all that is offered.
    fn check_fits(&mut self, services: &[Service], path: &Path) {
        let register = Message::Register(Register { epoch: 1, services: services.to_vec() });
        let mut bytes = Vec::new();
        codec::encode(&register, &mut bytes);
        if let Err(error) = codec::decode(&bytes, LIMIT) {
            self.problem(path, format!("no tunnel server takes this: {error}"));
        }
    }

    fn service_name<'o>(
        &mut self,
        service: &'o TunnelServiceOptions,
        names: &mut BTreeMap<&'o str, Path>,
        path: &Path,
    ) {
        let place = path.key("name");
        if service.name.is_empty() {
            if !self.is_in_doubt(&place) {
                let found = self.error(path, "`name` is missing");
                self.push(found.hint("write name = \"ssh\", or how the service is called"));
            }
            return;
        }
        self.check_name(&place, &service.name, false);
        if let Some(other) = names.get(service.name.as_str()) {
            let found = self.error(&place, format!("two services are named `{}`", service.name));
            self.push(found.related(self.span(other), "the other one"));
        } else {
            names.insert(&service.name, place);
        }
    }

    /// Where visitors come to: a port, hosts, or nowhere but by the secret.
    fn check_place(&mut self, service: &TunnelServiceOptions, path: &Path) {
        let kind = service.kind;
        if service.is_private() {
            let public = [
                ("port", service.port.is_some()),
                ("hosts", !service.hosts.is_empty()),
                ("visitors", !service.visitors.is_empty()),
                ("group", service.group.is_some()),
            ];
            for (key, _) in public.into_iter().filter(|(_, is_said)| *is_said) {
                let found = self.error(&path.key(key), "a private service has no public place");
                self.push(found.hint(format!("leave `{key}` out, or `secret` to make it public")));
            }
            if kind.has_hosts() {
                let found = self.error(&path.key("type"), "to visitors a private service is a connection");
                self.push(found.hint("write type = \"tcp\": what passes is the same"));
            }
            return;
        }
        if !service.clients.is_empty() && !self.is_in_doubt(&path.key("secret")) {
            let found =
                self.error(&path.key("clients"), "a service without a `secret` is public, and anybody comes");
            self.push(
                found
                    .hint("add `secret` to make it private, or say with `visitors` which addresses may come"),
            );
        }
        if kind.has_hosts() {
            if service.port.is_some() {
                let found = self.error(&path.key("port"), "visitors of hosts come to the server's own ports");
                self.push(found.hint("leave `port` out; with type = \"tcp\" the service has one of its own"));
            }
            let place = path.key("hosts");
            if service.hosts.is_empty() && !self.is_in_doubt(&place) {
                let found = self.error(
                    path,
                    format!("`hosts` is missing: nobody could ask for this {} service", kind.as_str()),
                );
                self.push(found.hint("write hosts = [\"app.example.com\"]"));
            }
            return;
        }
        if !service.hosts.is_empty() {
            let found = self
                .error(&path.key("hosts"), format!("visitors of type `{}` ask for no host", kind.as_str()));
            self.push(found.hint("write type = \"http\" or \"https\", or leave `hosts` out"));
        }
        if service.port.is_none() && !self.is_in_doubt(&path.key("port")) {
            let found = self.error(path, "`port` is missing: visitors have nowhere to come to");
            self.push(found.hint("write port = 20022, or port = 0 for one that the server picks; or add a `secret` to make it private"));
        }
    }

    /// Keys that another type has.
    fn check_foreign(&mut self, service: &TunnelServiceOptions, path: &Path) {
        let kind = service.kind;
        let is_http = kind == ServiceKind::Http || (kind == ServiceKind::Https && service.terminate);
        let is_proxy = kind == ServiceKind::Proxy;
        let said = [
            ("paths", !service.paths.is_empty(), is_http, "http"),
            ("request_headers", !service.request_headers.is_empty(), is_http, "http"),
            ("response_headers", !service.response_headers.is_empty(), is_http, "http"),
            ("host_header", service.host_header.is_some(), is_http, "http"),
            ("http2", service.http2, is_http, "http"),
            ("users", !service.users.is_empty(), is_http || is_proxy, "http\" or \"proxy"),
            ("terminate", service.terminate, kind == ServiceKind::Https, "https"),
            ("egress", service.egress.is_some(), is_proxy, "proxy"),
            ("open", service.open, is_proxy, "proxy"),
            ("local", service.local.is_some(), !is_proxy, "tcp\", \"udp\", \"http\" or \"https"),
            (
                "health_check",
                service.health_check.is_some(),
                !is_proxy,
                "tcp\", \"udp\", \"http\" or \"https",
            ),
        ];
        for (key, _, _, fitting) in said.into_iter().filter(|(_, is_said, fits, _)| *is_said && !fits) {
            let message = format!("has no effect with type = \"{}\"", kind.as_str());
            let found = self.error(&path.key(key), message);
            self.push(found.hint(format!("it is for type = \"{fitting}\"")));
        }
        let place = path.key("send_proxy_protocol");
        match (service.send_proxy_protocol, kind) {
            (Some(_), _) if is_http => {
                let found = self.error(&place, "requests of many visitors come on one connection");
                self.push(found.hint("leave it out; `X-Forwarded-For` says who each visitor is"));
            }
            (Some(_), ServiceKind::Proxy) => {
                self.problem(&place, "there is no service behind it that would read the header");
            }
            (Some(ProxyVersion::V1), ServiceKind::Udp) => {
                self.problem(&place, "version 1 has no word for datagrams; write \"v2\"");
            }
            _ => {}
        }
    }

    /// The service as the server is told of it.
    fn registered(
        &mut self,
        service: &TunnelServiceOptions,
        index: usize,
        users: &[(String, Secret)],
        path: &Path,
    ) -> Service {
        let rate = |rate: Option<ByteRate>| rate.map_or(0, ByteRate::bytes_per_second);
        if let Some(group) = &service.group {
            self.check_name(&path.key("group"), group, false);
        }
        for (index, _) in service.hosts.0.iter().enumerate().filter(|(_, host)| *host == "*") {
            let place = self.element(&path.key("hosts"), index);
            let found = self.error(&place, "a service answers for hosts that have a name");
            self.push(found.hint("write them, or \"*.example.com\" for every name below one"));
        }
        for (index, client) in service.clients.0.iter().enumerate() {
            let place = self.element(&path.key("clients"), index);
            self.check_name(&place, client, false);
        }
        Service {
            id: u32::try_from(index).unwrap_or(u32::MAX),
            name: service.name.clone(),
            kind: service.kind.kind(),
            is_private: service.is_private(),
            port: service.port.unwrap_or(0),
            hosts: self.hosts(&service.hosts.0, &path.key("hosts")),
            paths: service.paths.0.clone(),
            visitors: service.visitors.0.iter().map(|prefix| prefix.net().to_string()).collect(),
            clients: service.clients.0.clone(),
            group: service.group.clone(),
            is_up: true,
            terminate: service.terminate,
            max_connections: service.max_connections,
            rate_up: rate(service.rate_limit.up),
            rate_down: rate(service.rate_limit.down),
            http: match service.kind {
                // Its users are let in here, and are nobody's business at the server.
                ServiceKind::Proxy => Default::default(),
                _ => service.http_rules(users),
            },
        }
    }

    fn service_end(
        &mut self,
        service: &TunnelServiceOptions,
        users: Vec<(String, Secret)>,
        path: &Path,
    ) -> Option<TunnelEndPlan> {
        self.check_no_zero(&[("connect_timeout", service.connect_timeout)], path);
        self.check_no_zero(service.idle_timeout.map(|time| ("idle_timeout", time)).as_slice(), path);
        if service.kind == ServiceKind::Proxy {
            return self.proxy_end(service, users, path);
        }
        let Some(local) = &service.local else {
            if !self.is_in_doubt(&path.key("local")) {
                let found = self.error(path, "`local` is missing: nothing says where the service is");
                self.push(found.hint("write local = \"127.0.0.1:22\""));
            }
            return None;
        };
        let place = path.key("local");
        if !self.check_target(local, &place) {
            return None;
        }
        let is_udp = service.kind == ServiceKind::Udp;
        if is_udp && matches!(local, AddressSpec::Unix(_)) {
            self.problem(&place, "a unix socket takes no datagrams here");
            return None;
        }
        let group = self.local_group(service, local, path)?;
        let usual = if is_udp { UDP_IDLE_TIMEOUT } else { TCP_IDLE_TIMEOUT };
        let idle_timeout = service.idle_timeout.unwrap_or(usual).get();
        Some(match is_udp {
            true => TunnelEndPlan::Datagrams { group, idle_timeout },
            false => TunnelEndPlan::Stream { group, idle_timeout },
        })
    }

    /// The group of one peer that a service is, with its health checks.
    fn local_group(
        &mut self,
        service: &TunnelServiceOptions,
        local: &AddressSpec,
        path: &Path,
    ) -> Option<Arc<str>> {
        // What is on this machine is not given up for a failure: the next visitor may find it well. Only checks do that.
        let options = GroupOptions {
            servers: vec![ServerOptions::new(local.clone())],
            send_proxy_protocol: service.send_proxy_protocol,
            connect_timeout: service.connect_timeout,
            retries: 0,
            max_fails: 0,
            health: service.health_check.clone(),
            ..GroupOptions::default()
        };
        // No upstream has a name with a colon in it, and no address such a port.
        let name = format!("tunnel:service/{}", service.name);
        match options.spec(&name) {
            Ok(spec) => {
                let name = spec.name.clone();
                self.groups.insert(name.clone(), spec);
                Some(name)
            }
            Err(problems) => {
                for (key, message) in problems {
                    let place = match key.strip_prefix("health.") {
                        Some(key) => path.key("health_check").key(key),
                        None if key.starts_with("servers") => path.key("local"),
                        None => path.key(&key),
                    };
                    self.problem(&place, message);
                }
                None
            }
        }
    }

    fn proxy_end(
        &mut self,
        service: &TunnelServiceOptions,
        users: Vec<(String, Secret)>,
        path: &Path,
    ) -> Option<TunnelEndPlan> {
        self.check_egress_name(service.egress.as_deref(), &path.key("egress"));
        self.used_egresses.insert(service.egress.as_deref().unwrap_or(DEFAULT_EGRESS).to_owned());
        let is_closed = !service.users.is_empty() || !service.visitors.is_empty() || service.is_private();
        let in_doubt =
            ["users", "visitors", "secret", "open"].iter().any(|key| self.is_in_doubt(&path.key(key)));
        if !is_closed && !service.open && !in_doubt {
            let found = self.error(path, "whoever reaches the server's port could go into this network");
            self.push(found.hint(
                "say who may use it with `users` or `visitors`, make it private with a `secret`, or write open = true",
            ));
        }
        let mut options = ForwardOptions { egress: service.egress.clone(), ..ForwardOptions::default() };
        options.protocols = OneOrMany(options.protocols.0);
        // Datagrams have no way through the connection that a visitor has.
        options.udp.enabled = false;
        if let Some(idle) = service.idle_timeout {
            options.idle_timeout = idle;
        }
        let mut spec = options.spec(service.name.as_str().into());
        let user = |(name, hash): (String, Secret)| UserSpec {
            name: name.into(),
            password: Some(hash),
            egress: None,
            rate_limit: None,
            max_connections: 0,
            max_associations: 0,
            quota: None,
        };
        spec.users = users.into_iter().map(user).collect();
        Some(TunnelEndPlan::Forward(Arc::new(spec)))
    }
}
