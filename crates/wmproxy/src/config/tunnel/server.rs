//! The plan of `[tunnel_server]`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_http::options::{HttpOptions, HttpSpec};
use wmproxy_net::addr::{AddressSpec, Host, Protocol};
use wmproxy_net::sockopt::{Keepalive, ListenSocket, TcpOptions};
use wmproxy_net::tls::{AcceptorSpec, CertOptions, CertSpec, ListenerTls, state_directory};
use wmproxy_tunnel::options::{GrantOptions, GrantSpec, ServerOptions, TransportKind};
use wmproxy_wire::tunnel::message::ALPN;
use wmproxy_wire::units::Secret;

use super::super::access_log::LogOf;
use super::super::options::Options;
use super::super::plan::{ListenerPlan, ModePlan};
use super::super::resolve::Planner;
use super::super::tree::Path;
use super::plan::TunnelServerPlan;
use super::{KEY_HINT, MIN_KEY};

/// The listener of clients in logs and metrics.
const DOOR: &str = "tunnel";

/// The file of the identity that a server makes for itself, in the state directory.
const IDENTITY: &str = "tunnel-identity.pem";

/// When a silent connection of a client is probed. That a client is gone its session finds out sooner; but what its visitors
/// have of it may be silent for a day, and would hold their places in its grant for as long.
const PROBE: Duration = Duration::from_secs(60);

/// How `listen` is written.
const LISTEN: &str = "write listen = \":7000\"";

impl Planner<'_> {
    /// Plans the tunnel server, if there is one.
    pub(in super::super) fn tunnel_server(&mut self, options: &Options) -> Option<Arc<TunnelServerPlan>> {
        let server = options.tunnel_server.as_ref()?;
        let path = Path::default().key("tunnel_server");
        let before = self.errors();
        self.check_transports(server, &path);
        self.check_server_values(server, &path);
        let listen = self.tunnel_listens(server, &path);
        let http = self.places(&server.http.0, &[Protocol::Tcp], &path.key("http"));
        let https = self.places(&server.https.0, &[Protocol::Tcp], &path.key("https"));
        let tls = self.identity(server, &path);
        let terminate = server.tls.as_ref().and_then(|tls| self.listener_tls(tls, &path.key("tls")));
        // What fronts speak.
        let alpn = ["h2", "http/1.1"].map(str::to_owned).to_vec();
        let terminate = terminate.map(|tls| AcceptorSpec { alpn, ..tls });
        if server.tls.is_some() && https.is_empty() && !self.is_in_doubt(&path.key("https")) {
            let found = self.error(&path.key("tls"), "without `https` nobody comes who would see these");
            self.push(found.warning().hint("add https = \":443\""));
        }
        let grants = self.grants(server, &path);
        let mut log = |of| self.listener_access_log(&server.access_log, options, &path, of);
        let (access_log, request_log) = match (log(LogOf::Connections), server.http.is_empty()) {
            (connections, true) => (connections, None),
            (connections, false) => (connections, log(LogOf::Requests)),
        };
        if self.errors() > before || self.is_damaged(&path) {
            return None;
        }
        let plan = Arc::new(TunnelServerPlan {
            spec: server.spec(grants),
            listen,
            transports: server.transports.0.clone(),
            tls: tls?,
            http,
            https,
            terminate,
            advertise: server.advertise.as_deref().map(Into::into),
            visitors: server.visitors.spec(),
            socket: door_socket(),
            front: front(server),
            access_log,
            request_log,
        });
        self.tunnel_listeners(&plan);
        Some(plan)
    }

    /// The listeners of a server.
    fn tunnel_listeners(&mut self, plan: &Arc<TunnelServerPlan>) {
        let mut listen = |name: &str, protocol, addresses: &[AddressSpec], mode: ModePlan| {
            self.listeners.extend(addresses.iter().map(|address| ListenerPlan {
                name: name.into(),
                protocol,
                address: address.clone(),
                mode: mode.clone(),
                access_log: plan.access_log.clone(),
            }));
        };
        let doors = |transport| if plan.takes(transport) { &plan.listen[..] } else { &[] };
        // Those of TCP before those of QUIC, which take the same port where the system picks one.
        listen(DOOR, Protocol::Tcp, doors(TransportKind::Tcp), ModePlan::TunnelDoor(plan.clone()));
        listen(DOOR, Protocol::Udp, doors(TransportKind::Quic), ModePlan::TunnelQuic(plan.clone()));
        listen("tunnel:http", Protocol::Tcp, &plan.http, ModePlan::TunnelHttp(plan.clone()));
        listen("tunnel:https", Protocol::Tcp, &plan.https, ModePlan::TunnelHttps(plan.clone()));
    }

    fn check_transports(&mut self, server: &ServerOptions, path: &Path) {
        let (place, list) = (path.key("transports"), &server.transports.0);
        if list.is_empty() && !self.is_damaged(&place) {
            self.problem(&place, "no transport is left; the default is [\"tcp\", \"quic\"]");
        }
        if (1..list.len()).any(|index| list[..index].contains(&list[index])) {
            self.problem(&place, "a transport is in this list twice");
        }
    }

    fn check_server_values(&mut self, server: &ServerOptions, path: &Path) {
        self.check_no_zero(
            &[
                ("login_timeout", server.login_timeout),
                ("heartbeat", server.heartbeat),
                ("wait_timeout", server.wait_timeout),
            ],
            path,
        );
        let visitors = &server.visitors;
        let times =
            [("idle_timeout", visitors.idle_timeout), ("udp_idle_timeout", visitors.udp_idle_timeout)];
        self.check_no_zero(&times, &path.key("visitors"));
        let least_one = [
            ("max_pending", server.max_pending),
            ("max_pending_per_address", server.max_pending_per_address),
        ];
        for (key, _) in least_one.into_iter().filter(|(_, count)| *count == 0) {
            self.problem(&path.key(key), "nobody could log in; the least is 1");
        }
        let name = server.advertise.as_deref();
        let is_name = |name: &str| {
            name.parse::<std::net::IpAddr>().is_ok()
                || matches!(format!("{name}:1").parse(), Ok(AddressSpec::Inet { host: Host::Name(_), .. }))
        };
        if name.is_some_and(|name| !is_name(name)) {
            let found = self.error(&path.key("advertise"), "neither an IP address nor a host name");
            self.push(found.hint("write the name of this machine alone, as in \"tunnel.example.com\""));
        }
    }

    fn tunnel_listens(&mut self, server: &ServerOptions, path: &Path) -> Vec<AddressSpec> {
        let place = path.key("listen");
        let list = server.listen.as_ref().map_or(&[][..], |list| &list.0);
        if list.is_empty() && !self.is_in_doubt(&place) {
            let what = if server.listen.is_some() { "empty" } else { "missing" };
            let found = self.error(path, format!("`listen` is {what}: no address for clients to log in at"));
            self.push(found.hint(LISTEN));
        }
        let mut protocols = Vec::new();
        for transport in &server.transports.0 {
            protocols.push(match transport {
                TransportKind::Tcp => Protocol::Tcp,
                TransportKind::Quic => Protocol::Udp,
            });
        }
        for (index, address) in list.iter().enumerate() {
            if matches!(address, AddressSpec::Unix(_)) {
                let place = self.element(&place, index);
                let found = self.error(&place, "clients come by a network, not by a unix socket");
                self.push(found.hint(LISTEN));
            }
        }
        self.places(list, &protocols, &place)
    }

    /// The server's certificate: that of files, or one of its own that stays.
    fn identity(&mut self, server: &ServerOptions, path: &Path) -> Option<AcceptorSpec> {
        let spec = match (&server.cert, &server.key) {
            (None, None) => {
                let Some(directory) = state_directory(|name| std::env::var(name).ok()) else {
                    let found = self.error(path, "there is no place to keep the server's identity in");
                    self.push(
                        found.hint("set STATE_DIRECTORY, XDG_STATE_HOME or HOME; or give `cert` and `key`"),
                    );
                    return None;
                };
                self.private.push((directory.clone(), "a private key"));
                let file = directory.join(IDENTITY);
                AcceptorSpec { certs: vec![CertSpec::Identity { file }], ..AcceptorSpec::default() }
            }
            (cert, key) => {
                let cert = cert.clone().unwrap_or_default();
                let options = CertOptions { cert, key: key.clone(), ..CertOptions::default() };
                self.listener_tls(&ListenerTls::One(Box::new(options)), path)?
            }
        };
        Some(AcceptorSpec { alpn: vec![ALPN.to_owned()], tls13_only: true, ..spec })
    }

    fn grants(&mut self, server: &ServerOptions, path: &Path) -> Vec<GrantSpec> {
        let table = path.key("clients");
        if server.clients.is_empty() && !self.is_in_doubt(&table) {
            let found = self.error(path, "nobody may log in: `clients` is missing");
            self.push(found.warning().hint("add [tunnel_server.clients.NAME] with a `key`"));
        }
        let mut keys: BTreeMap<String, Path> = BTreeMap::new();
        let mut grants = Vec::new();
        for (name, grant) in &server.clients {
            let path = table.key(name);
            self.check_name(&path, name, true);
            self.check_grant(grant, server, &path);
            let hosts = self.hosts(&grant.hosts.0, &path.key("hosts"));
            let written = (grant.key.as_ref(), grant.key_file.as_deref());
            let Some(key) = self.proof_secret(&path, "key", written, "the client proves who it is with it")
            else {
                continue;
            };
            self.check_grant_key(&key, &path, &mut keys);
            grants.push(grant.spec(name, key, hosts));
        }
        grants
    }

    fn check_grant(&mut self, grant: &GrantOptions, server: &ServerOptions, path: &Path) {
        if grant.max_services == 0 {
            self.problem(&path.key("max_services"), "it could offer nothing; the least is 1");
        }
        // Any host is what a command without --hosts grants, also where nobody can ask for one.
        let names_hosts = grant.hosts.0.iter().any(|host| host != "*");
        if names_hosts && server.http.is_empty() && server.https.is_empty() {
            let table = Path::default().key("tunnel_server");
            let in_doubt = self.is_in_doubt(&table.key("http")) || self.is_in_doubt(&table.key("https"));
            if !in_doubt {
                let found = self.error(
                    &path.key("hosts"),
                    "visitors can ask for none of these hosts: there is neither `http` nor `https`",
                );
                self.push(found.warning().hint("add http = \":80\" or https = \":443\" to [tunnel_server]"));
            }
        }
        let is_closed = grant.ports.is_empty() && grant.hosts.is_empty() && !grant.private;
        if is_closed && !self.is_in_doubt(path) {
            let found = self.error(path, "this client may log in and offer nothing");
            self.push(found.warning().hint("grant it `ports` or `hosts`"));
        }
    }

    fn check_grant_key(&mut self, key: &Secret, path: &Path, keys: &mut BTreeMap<String, Path>) {
        let place = self.secret_place(path, "key");
        if key.expose().chars().count() < MIN_KEY {
            let message = format!("a key of less than {MIN_KEY} characters may be guessed");
            let found = self.error(&place, message);
            self.push(found.warning().hint(KEY_HINT));
        }
        match keys.get(key.expose()) {
            Some(other) => {
                let found = self.error(&place, "another client has this key already").warning();
                self.push(found.related(self.span(other), "the other one"));
            }
            None => drop(keys.insert(key.expose().to_owned(), place)),
        }
    }
}

/// What is set on the sockets of clients.
fn door_socket() -> ListenSocket {
    let tcp = TcpOptions { keepalive: Some(Keepalive::after(PROBE)), ..TcpOptions::default() };
    ListenSocket { tcp, ..ListenSocket::default() }
}

/// How visitors of http and https are served.
fn front(server: &ServerOptions) -> HttpSpec {
    let visitors = &server.visitors;
    let mut options = HttpOptions {
        max_connections: visitors.max_connections,
        per_client_connections: visitors.per_client_connections,
        per_client_rate: visitors.per_client_rate,
        ..HttpOptions::default()
    };
    options.timeouts.upgrade = visitors.idle_timeout;
    options.spec("tunnel:front".into(), Arc::new([]))
}
