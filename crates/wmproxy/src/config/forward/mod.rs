//! The plan of `[[forward]]`: a listener for each address and port, who may use it, and where its clients may go.

mod chain;
mod egress;
pub(super) mod users;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use wmproxy_forward::options::{DEFAULT_EGRESS, ForwardOptions, ForwardProtocol, ForwardSpec, HopSpec};
use wmproxy_net::addr::{AddressSpec, Host, ListenSpec, Protocol, TargetSpec};
use wmproxy_net::tls::AcceptorSpec;
use wmproxy_wire::destination::{self, Destination};
use wmproxy_wire::head::is_value;
use wmproxy_wire::units::HumanDuration;

use super::access_log::LogOf;
use super::loops::is_own_server;
use super::options::Options;
use super::plan::{AccessLogPlan, ListenerPlan, ModePlan};
use super::problem::{Found, MANY_PROBLEMS, MAX_PROBLEMS};
use super::resolve::Planner;
use super::socket::SocketKeys;
use super::stream::{MAX_LISTENERS, nth_port};
use super::tree::Path;

/// How `listen` is written.
const LISTEN: &str = "write listen = \"127.0.0.1:8090\", or \":8090\" for others than this machine";

/// What is taken in TLS, the dearest first (RFC 7301, RFC 9113 section 3.1). Clients of SOCKS offer nothing.
const ALPN: [&str; 3] = ["h2", "http/1.1", "http/1.0"];

/// What has to be written on a listener that others can reach.
const CLOSE_HINT: &str = "say who may use it with `users`, a `client_ca` in `tls`, or `allow`; \
                          listen on 127.0.0.1 for this machine alone; or write open = true if everybody is meant";

impl Planner<'_> {
    /// Plans the forward proxies, which have these names.
    pub(super) fn forwards(&mut self, options: &Options, names: &[Arc<str>]) {
        let table = Path::default().key("forward");
        for (index, (forward, name)) in options.forward.iter().zip(names).enumerate() {
            if self.errors() >= MAX_PROBLEMS {
                self.push(Found::nowhere(MANY_PROBLEMS));
                return;
            }
            let path = table.index(index);
            self.check_forward(forward, &path);
            let tls = self.forward_tls(forward, &path);
            let access_log = self.listener_access_log(&forward.access_log, options, &path, LogOf::Visits);
            let listens = self.listens_of(forward.listen.as_ref(), &path, LISTEN);
            let listens: Vec<_> =
                listens.into_iter().filter(|listen| listen.protocol == Protocol::Tcp).collect();
            let mut spec = forward.spec(name.clone());
            spec.users = self.users(forward, &path);
            spec.by_certificate = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
            spec.listener.tls = tls;
            self.used_egresses.insert(spec.egress.to_string());
            self.check_egress_name(forward.egress.as_deref(), &path.key("egress"));
            self.check_closed(forward, &spec, &listens, &path);
            self.check_rounds(&spec, &listens, &path);
            self.forward_listeners(&spec, &listens, access_log.as_ref());
        }
    }

    fn check_forward(&mut self, forward: &ForwardOptions, path: &Path) {
        self.check_allow(&forward.allow, path);
        self.check_sockets(&SocketKeys::from(forward), path);
        self.check_limits(&forward.limits, &path.key("limits"));
        self.check_times(forward, path);
        let place = path.key("protocols");
        let list = &forward.protocols.0;
        if list.is_empty() && !self.is_damaged(&place) {
            self.problem(&place, "no protocol is left; the default is [\"http\", \"socks5\", \"socks4\"]");
        }
        if (1..list.len()).any(|index| list[..index].contains(&list[index])) {
            self.problem(&place, "a protocol is in this list twice");
        }
        if !is_value(forward.realm.as_bytes()) {
            let message = "a realm has no control characters in it and no space around it";
            self.problem(&path.key("realm"), message);
        }
        if forward.per_client_burst == Some(0) {
            self.problem(&path.key("per_client_burst"), "nobody could come; the least is 1");
        }
        if forward.per_client_burst.is_some() && forward.per_client_rate.is_none() {
            let message = "without `per_client_rate` this has no effect";
            let found = self.error(&path.key("per_client_burst"), message);
            self.push(found.warning());
        }
        if forward.pac && !list.contains(&ForwardProtocol::Http) {
            let found =
                self.error(&path.key("pac"), "the file is asked for by HTTP, which is not spoken here");
            self.push(found.hint("add \"http\" to `protocols`, or leave `pac` out"));
        }
        self.check_udp(forward, path);
        let listens = forward.listen.iter().flat_map(|list| &list.0);
        for (index, listen) in listens.enumerate().filter(|(_, listen)| listen.protocol == Protocol::Udp) {
            let place = self.element(&path.key("listen"), index);
            let found = self.error(&place, format!("{listen} is udp, and clients of a proxy come by tcp"));
            self.push(found.hint("write the address without \"udp://\"; for datagrams there is `udp`"));
        }
    }

    fn check_times(&mut self, forward: &ForwardOptions, path: &Path) {
        let timeouts = path.key("timeouts");
        let times: [(Path, HumanDuration); 8] = [
            (path.key("connect_timeout"), forward.connect_timeout),
            (path.key("idle_timeout"), forward.idle_timeout),
            (path.key("udp").key("idle_timeout"), forward.udp.idle_timeout),
            (timeouts.key("preface"), forward.timeouts.preface),
            (timeouts.key("header"), forward.timeouts.header),
            (timeouts.key("body"), forward.timeouts.body),
            (timeouts.key("keepalive"), forward.timeouts.keepalive),
            (timeouts.key("write"), forward.timeouts.write),
        ];
        for (place, _) in times.into_iter().filter(|(_, time)| time.is_zero()) {
            self.problem(&place, "nobody does anything in no time");
        }
    }

    fn check_udp(&mut self, forward: &ForwardOptions, path: &Path) {
        let place = path.key("udp");
        let (udp, speaks) = (&forward.udp, forward.protocols.0.contains(&ForwardProtocol::Socks5));
        if udp.enabled && !speaks && self.is_said(&place) {
            let found = self.error(&place, "datagrams are asked for by SOCKS 5, which is not spoken here");
            self.push(found.warning().hint("add \"socks5\" to `protocols`"));
        }
        if let Some(advertise) = udp.advertise.filter(|ip| ip.is_unspecified()) {
            let found = self.error(&place.key("advertise"), format!("nobody can send to {advertise}"));
            self.push(found.hint("write the address under which clients reach this machine"));
        }
        if let Some(ip) = udp.bind.filter(|ip| ip.is_multicast()) {
            self.problem(&place.key("bind"), format!("{ip} is no address of this machine"));
        }
    }

    /// What the listener's TLS is made of; what it offers is what is spoken.
    fn forward_tls(&mut self, forward: &ForwardOptions, path: &Path) -> Option<AcceptorSpec> {
        let place = path.key("tls");
        let Some(tls) = forward.tls.as_ref() else {
            if forward.tls_optional && !self.was_dropped(&place) {
                let found = self.error(&path.key("tls_optional"), "without `tls` this has no effect");
                self.push(found.hint("write tls = { cert = \"cert.pem\", key = \"key.pem\" }"));
            }
            return None;
        };
        for (index, options) in tls.certificates().iter() {
            if !options.alpn.is_empty() {
                let place = index.map_or_else(|| place.clone(), |index| place.index(index)).key("alpn");
                let found = self.error(&place, "what a forward proxy offers follows from what it speaks");
                self.push(found.hint("leave `alpn` out"));
            }
        }
        let mut spec = self.listener_tls(tls, &place)?;
        // Either a certificate or a password then proves who a client is.
        spec.client_optional = !forward.users.is_empty() || forward.users_file.is_some();
        spec.alpn = match forward.protocols.0.contains(&ForwardProtocol::Http) {
            true => ALPN.map(str::to_owned).to_vec(),
            false => Vec::new(),
        };
        // Either proves who it is.
        let has_users = !forward.users.is_empty() || forward.users_file.is_some();
        spec.client_optional = spec.client_ca.is_some() && has_users;
        Some(spec)
    }

    /// Reports a listener that anybody may use who reaches it, unless that is said to be meant.
    fn check_closed(
        &mut self,
        forward: &ForwardOptions,
        spec: &ForwardSpec,
        listens: &[ListenSpec],
        path: &Path,
    ) {
        // What could not be read may have said who.
        let in_doubt = ["users", "users_file", "tls", "allow", "open"];
        if forward.open || in_doubt.iter().any(|key| self.is_in_doubt(&path.key(key))) {
            return;
        }
        let has_users = !spec.users.is_empty() || forward.users_file.is_some();
        // A list that has everybody in it turns nobody away.
        let has_allow = !forward.allow.0.is_empty()
            && forward.allow.0.iter().all(|prefix| prefix.canonical().prefix_len() > 0);
        if spec.by_certificate && forward.tls_optional && !has_users && !has_allow {
            let message = "whoever comes without TLS would not have to show a certificate";
            let found = self.error(&path.key("tls_optional"), message);
            self.push(found.hint("leave `tls_optional` out, or add `users`"));
        } else if !has_users && !has_allow && !spec.by_certificate {
            let Some(index) = listens.iter().position(|listen| !is_local(&listen.address)) else { return };
            let place = self.element(&path.key("listen"), index);
            let message = format!("whoever reaches {} could use this proxy", listens[index].address);
            let found = self.error(&place, message);
            self.push(found.hint(CLOSE_HINT));
        }
    }

    /// Reports a chain that leads back to the listener whose clients take it: each connection would open the next.
    fn check_rounds(&mut self, spec: &ForwardSpec, listens: &[ListenSpec], path: &Path) {
        let users = spec.users.iter().filter_map(|user| user.egress.as_ref());
        let egresses: BTreeSet<&Arc<str>> = users.chain([&spec.egress]).collect();
        let routes = egresses.into_iter().filter_map(|name| self.egresses.get(name)).flat_map(|e| &e.routes);
        let chains: BTreeSet<&Arc<str>> = routes.filter_map(|route| route.via.chain()).collect();
        let mut rounds = Vec::new();
        for (name, chain) in chains.into_iter().filter_map(|name| Some((name, self.chains.get(name)?))) {
            for (index, hop) in chain.hops.iter().enumerate() {
                let comes_round = |parent: &HopSpec| {
                    let target = target_of(&parent.address);
                    listens.iter().any(|listen| is_own_server(listen, &target))
                };
                if hop.parents.iter().any(comes_round) {
                    rounds.push(Path::default().key("chain").key(name).key("hops").index(index));
                }
            }
        }
        for hop in rounds {
            let message = "this leads back to where it comes from: each connection would open the next";
            let found = self.error(&hop, message);
            self.push(found.related(self.span(&path.key("listen")), "the listener"));
        }
    }

    pub(super) fn is_in_doubt(&self, path: &Path) -> bool {
        self.is_damaged(path) || self.was_dropped(path)
    }

    /// Looks whether there is an egress of that name.
    pub(super) fn check_egress_name(&mut self, name: Option<&str>, path: &Path) {
        let Some(name) = name.filter(|name| *name != DEFAULT_EGRESS) else { return };
        let known: Vec<String> = self.egress_names.iter().cloned().collect();
        self.used_egresses.insert(name.to_owned());
        self.check_known("egress", name, &known, path);
    }

    fn forward_listeners(
        &mut self,
        spec: &ForwardSpec,
        listens: &[ListenSpec],
        access_log: Option<&AccessLogPlan>,
    ) {
        let spec = Arc::new(spec.clone());
        for listen in listens {
            if self.listeners.len() + listen.address.count() > MAX_LISTENERS {
                let message = format!("more than {MAX_LISTENERS} listeners, each port of a range being one");
                self.push(Found::nowhere(message));
                return;
            }
            for index in 0..listen.address.count() {
                self.listeners.push(ListenerPlan {
                    name: spec.listener.name.clone(),
                    protocol: Protocol::Tcp,
                    address: nth_port(&listen.address, index),
                    mode: ModePlan::Forward(spec.clone()),
                    access_log: access_log.cloned(),
                });
            }
        }
    }
}

fn target_of(address: &Destination) -> TargetSpec {
    match &address.host {
        destination::Host::Ip(ip) => TargetSpec::Address(SocketAddr::new(*ip, address.port).into()),
        destination::Host::Name(name) => TargetSpec::Name { host: name.to_string(), port: address.port },
    }
}

/// Whether only this machine, or whom the file system lets, reaches an address.
pub(crate) fn is_local(address: &AddressSpec) -> bool {
    match address {
        AddressSpec::Unix(_) => true,
        AddressSpec::Inet { host: Host::Ip(ip), .. } => ip.to_canonical().is_loopback(),
        AddressSpec::Inet { host: Host::Name(name), .. } => name == "localhost",
        AddressSpec::Inet { host: Host::Any, .. } => false,
    }
}
