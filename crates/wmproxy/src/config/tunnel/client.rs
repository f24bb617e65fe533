//! The plan of `[tunnel_client]`, but for what it offers and visits.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use wmproxy_net::addr::AddressSpec;
use wmproxy_net::tls::{Connector, ConnectorSpec};
use wmproxy_tunnel::options::{ClientSpec, TransportKind, Trust};
use wmproxy_wire::tunnel::message::ALPN;
use wmproxy_wire::units::Secret;

use super::super::access_log::LogOf;
use super::super::options::{Options, TunnelClientOptions};
use super::super::resolve::Planner;
use super::super::tree::Path;
use super::plan::TunnelClientPlan;
use super::{KEY_HINT, MIN_KEY};

/// More connections than that wait for nobody: each is a descriptor and a TLS session at both ends.
const MAX_POOL: u32 = 4096;

impl Planner<'_> {
    /// Plans the tunnel client, if there is one. Visitors of connections become listeners.
    pub(in super::super) fn tunnel_client(&mut self, options: &Options) -> Option<TunnelClientPlan> {
        let client = options.tunnel_client.as_ref()?;
        let path = Path::default().key("tunnel_client");
        let before = self.errors();
        self.check_servers(client, &path);
        self.check_carrying(client, &path);
        let name = self.client_name(client, &path);
        let written = (client.key.as_ref(), client.key_file.as_deref());
        let key = self.proof_secret(&path, "key", written, "the server knows this client by it");
        let trust = self.trust(client, key.as_ref(), &path);
        let tls = self.client_tls(client, trust.as_ref(), &path);
        let mut log = |of| self.listener_access_log(&client.access_log, options, &path, of);
        let access_log = log(LogOf::Connections);
        let has_proxy = client.service.iter().any(|service| service.kind.as_str() == "proxy");
        let visit_log = has_proxy.then(|| log(LogOf::Visits)).flatten();
        let services = self.tunnel_services(client, &path);
        self.tunnel_visitors(client, access_log.as_ref(), &path);
        if client.service.is_empty() && client.visitor.is_empty() && !self.is_damaged(&path) {
            let found = self.error(&path, "this client offers nothing and visits nobody");
            self.push(found.warning().hint("add a [[tunnel_client.service]] or a [[tunnel_client.visitor]]"));
        }
        if self.errors() > before || self.is_damaged(&path) {
            return None;
        }
        let spec = ClientSpec {
            servers: client.server.0.clone(),
            server_name: client.server_name.clone(),
            trust: trust?,
            name: name?,
            key: key?,
            transport: client.transport,
            pool: client.pool,
            mux: client.mux,
            via: client.via.as_deref().map(Arc::from),
            connect_timeout: client.connect_timeout.get(),
            heartbeat: client.heartbeat.get(),
            max_backoff: client.max_backoff.get(),
        };
        Some(TunnelClientPlan { spec, tls: tls?, services, access_log, visit_log })
    }

    fn check_servers(&mut self, client: &TunnelClientOptions, path: &Path) {
        let place = path.key("server");
        if client.server.is_empty() && !self.is_in_doubt(&place) {
            let found = self.error(path, "`server` is missing: there is nobody to log in to");
            self.push(found.hint("write server = \"tunnel.example.com:7000\""));
        }
        let mut seen = BTreeSet::new();
        for (index, server) in client.server.0.iter().enumerate() {
            let place = self.element(&place, index);
            if matches!(server, AddressSpec::Unix(_)) {
                self.problem(&place, "a tunnel server is reached by a network, not by a unix socket");
            } else if self.check_target(server, &place) && !seen.insert(server.to_string()) {
                self.problem(&place, "this server is in the list twice");
            }
        }
    }

    fn check_carrying(&mut self, client: &TunnelClientOptions, path: &Path) {
        self.check_no_zero(
            &[
                ("connect_timeout", client.connect_timeout),
                ("heartbeat", client.heartbeat),
                ("max_backoff", client.max_backoff),
            ],
            path,
        );
        if let Some(via) = &client.via {
            let place = path.key("via");
            self.check_chain_name(via, &place);
            if client.transport == TransportKind::Quic {
                let found = self.error(&place, "QUIC does not pass through a chain of proxies");
                self.push(found.hint("use transport = \"tcp\", or leave `via` out"));
            }
        }
        if client.mux && client.transport == TransportKind::Quic {
            let found = self.error(&path.key("mux"), "QUIC carries many in any case, so this has no effect");
            self.push(found.warning());
        }
        if client.pool > MAX_POOL {
            self.problem(&path.key("pool"), format!("at most {MAX_POOL} connections wait"));
        }
    }

    fn client_name(&mut self, client: &TunnelClientOptions, path: &Path) -> Option<Arc<str>> {
        match &client.name {
            Some(name) => {
                self.check_name(&path.key("name"), name, false);
                Some(name.as_str().into())
            }
            None => {
                if !self.is_in_doubt(&path.key("name")) {
                    let found =
                        self.error(path, "`name` is missing: the server knows clients by their names");
                    self.push(found.hint("write name = \"home\", as in [tunnel_server.clients.home]"));
                }
                None
            }
        }
    }

    fn trust(&mut self, client: &TunnelClientOptions, key: Option<&Secret>, path: &Path) -> Option<Trust> {
        let place = path.key("fingerprint");
        let is_short = key.is_some_and(|key| key.expose().chars().count() < MIN_KEY);
        match (&client.ca, client.fingerprint.is_empty()) {
            (Some(_), false) => {
                let found = self.error(&place, "`ca` says already by what the server is known");
                self.push(found.hint("leave one of both out").related(self.span(&path.key("ca")), "here"));
                None
            }
            (Some(ca), true) => {
                let ca: PathBuf = self.file(&path.key("ca"), ca);
                self.warn_short(is_short, path);
                Some(Trust::Ca(ca))
            }
            (None, false) => {
                self.warn_short(is_short, path);
                Some(Trust::Fingerprint(client.fingerprint.0.iter().map(|print| print.0).collect()))
            }
            _ if self.is_in_doubt(&place) || self.is_in_doubt(&path.key("ca")) => None,
            (None, true) => {
                if is_short {
                    let place = self.secret_place(path, "key");
                    let message = format!(
                        "with a key of less than {MIN_KEY} characters nothing proves who the server is"
                    );
                    let found = self.error(&place, message);
                    self.push(
                        found.hint(format!(
                            "add the server's `fingerprint`, or take a longer key: {KEY_HINT}"
                        )),
                    );
                }
                Some(Trust::Key)
            }
        }
    }

    fn warn_short(&mut self, is_short: bool, path: &Path) {
        if is_short {
            let place = self.secret_place(path, "key");
            let message = format!("a key of less than {MIN_KEY} characters may be guessed");
            let found = self.error(&place, message);
            self.push(found.warning().hint(KEY_HINT));
        }
    }

    fn client_tls(
        &mut self,
        client: &TunnelClientOptions,
        trust: Option<&Trust>,
        path: &Path,
    ) -> Option<ConnectorSpec> {
        let spec = ConnectorSpec {
            server_name: client.server_name.clone(),
            alpn: vec![ALPN.to_owned()],
            tls13_only: true,
            ..ConnectorSpec::default()
        };
        let spec = match trust? {
            Trust::Fingerprint(prints) => ConnectorSpec { fingerprints: prints.clone(), ..spec },
            // The proof of the key is bound to the connection: nobody can stand in between.
            Trust::Key => ConnectorSpec { insecure_skip_verify: true, ..spec },
            Trust::Ca(file) => ConnectorSpec { ca: Some(file.clone()), ..spec },
        };
        let faults = match Connector::load(spec.clone()) {
            Ok((_, odd)) => odd,
            Err(fault) => vec![fault],
        };
        for fault in faults {
            let key = match fault.field {
                wmproxy_net::tls::Field::ServerName => "server_name",
                _ => "ca",
            };
            self.fault(fault, &path.key(key));
        }
        Some(spec)
    }
}
