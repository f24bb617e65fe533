//! The keys of `[tunnel_server]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_net::addr::AddressSpec;
use wmproxy_net::options::{AccessLogOptions, OneOrMany, Toggle};
use wmproxy_net::tls::ListenerTls;
use wmproxy_wire::units::{ByteRate, CountRate, HumanDuration, Secret};

use super::spec::{GrantSpec, PortRange, ServerSpec, TransportKind, VisitorsSpec};

/// A tunnel's public end: clients behind NAT log in here with a key each, and offer services; visitors reach these at the
/// ports and hosts that each client is granted. Sessions are always TLS 1.3, over TCP or QUIC on the same port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TunnelServer")]
pub struct ServerOptions {
    /// Where clients log in, as in `":7000"`: an address or a list of them, over TCP, and over UDP where `transports` has
    /// `quic`.
    #[schemars(required)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<OneOrMany<AddressSpec>>,
    /// How clients may come: `tcp`, `quic`, or both.
    pub transports: OneOrMany<TransportKind>,
    /// The file of the server's certificate, in PEM. By default it makes its own on its first start and keeps it in the
    /// state directory (`STATE_DIRECTORY`, else `~/.local/state/wmproxy`); its fingerprint is printed for the clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    /// The file of its private key, in PEM and not encrypted. With `cert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where visitors of services of type `http` come to, as in `":80"`; by default nowhere. All clients share it: the host
    /// and the path of a request tell whose it is, and a host that nobody offers gets a plain 404.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub http: OneOrMany<AddressSpec>,
    /// Where visitors of services of type `https` come to, as in `":443"`; by default nowhere. The server name in the
    /// ClientHello tells whose a connection is; a name that nobody offers is refused.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub https: OneOrMany<AddressSpec>,
    /// The certificates for services of type `https` with `terminate`: the server ends TLS for these, chosen by server name. As
    /// `tls` of `[[http]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// The name or address under which visitors and clients reach this machine, as they are told; by default the address
    /// that it listens on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// How long a client may take to prove who it is, the TLS handshake included.
    pub login_timeout: HumanDuration,
    /// The most connections at a time that have not proven anything yet.
    pub max_pending: u32,
    /// The most of those from one address (IPv6: from one /64).
    pub max_pending_per_address: u32,
    /// How long either end of a session may be silent before the other asks; after three times as long it is gone.
    pub heartbeat: HumanDuration,
    /// The most connections that wait ready in a session's pool, whatever the client wants.
    pub max_pool: u32,
    /// How long a visitor waits for a client that is slow or away, before the connection is closed.
    pub wait_timeout: HumanDuration,
    /// The most visitors of a session that wait so.
    pub max_waiting: u32,
    /// For how long the ports and hosts of a client that went away stay its own, and its visitors wait.
    pub grace: HumanDuration,
    /// Who may log in, and what each may offer, by name.
    pub clients: BTreeMap<String, GrantOptions>,
    /// What all visitors are kept to.
    pub visitors: VisitorsOptions,
    /// The access log of visitors: a table as `[access_log]`, whose keys are the defaults here, or `false` for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<Toggle<AccessLogOptions>>,
}

/// A client that may log in, and what it may offer. What is not granted here is refused, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TunnelGrant")]
pub struct GrantOptions {
    /// The client's key: it proves that it has it, and never sends it. 16 characters or more, and not made up:
    /// `openssl rand -base64 32` makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub key: Option<Secret>,
    /// A file to read `key` from; one newline at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// The ports that it may open, for services of type `tcp`, `udp` and `proxy`: a port, a range like `"20000-20100"`, or a
    /// list of these. By default none.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub ports: OneOrMany<PortRange>,
    /// The hosts that it may answer for, with services of type `http` and `https`: names, `"*.example.com"` for every name
    /// below one, and `"*"` for any. By default none.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub hosts: OneOrMany<String>,
    /// Whether it may offer private services, and visit those of others.
    pub private: bool,
    /// The most services.
    pub max_services: u32,
    /// The most visitors at a time, of all its services together; `0` is no limit.
    pub max_connections: u32,
    /// How fast the bytes of all its services together pass, each way, as in `"100m/s"`. By default there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<ByteRate>,
}

/// What the visitors of all services are kept to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TunnelVisitors")]
pub struct VisitorsOptions {
    /// How long a connection may be without traffic in either direction before it ends.
    pub idle_timeout: HumanDuration,
    /// The same for a flow of datagrams.
    pub udp_idle_timeout: HumanDuration,
    /// The most connections at a time on each port; `0` is no limit.
    pub max_connections: u32,
    /// The most flows of datagrams at a time on each port. The oldest idle flow makes room for a new one.
    pub max_flows: u32,
    /// The most connections, or flows, at a time of one visitor's address on a port; `0` is no limit.
    pub per_client_connections: u32,
    /// How often one visitor's address may come to a port, as in `"10/s"`. By default there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_client_rate: Option<CountRate>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            listen: None,
            transports: OneOrMany(vec![TransportKind::Tcp, TransportKind::Quic]),
            cert: None,
            key: None,
            http: OneOrMany::default(),
            https: OneOrMany::default(),
            tls: None,
            advertise: None,
            login_timeout: HumanDuration::from_secs(10),
            max_pending: 1024,
            max_pending_per_address: 64,
            heartbeat: HumanDuration::from_secs(15),
            max_pool: 256,
            wait_timeout: HumanDuration::from_secs(10),
            max_waiting: 4096,
            grace: HumanDuration::from_secs(30),
            clients: BTreeMap::new(),
            visitors: VisitorsOptions::default(),
            access_log: None,
        }
    }
}

impl Default for GrantOptions {
    fn default() -> Self {
        GrantOptions {
            key: None,
            key_file: None,
            ports: OneOrMany::default(),
            hosts: OneOrMany::default(),
            private: true,
            max_services: 100,
            max_connections: 0,
            rate_limit: None,
        }
    }
}

impl Default for VisitorsOptions {
    fn default() -> Self {
        VisitorsOptions {
            idle_timeout: HumanDuration::from_secs(600),
            udp_idle_timeout: HumanDuration::from_secs(60),
            max_connections: 0,
            max_flows: 16_384,
            per_client_connections: 0,
            per_client_rate: None,
        }
    }
}

impl ServerOptions {
    /// What the server is built from, with the clients of `grants`: their keys are the config reader's to find.
    pub fn spec(&self, grants: Vec<GrantSpec>) -> ServerSpec {
        ServerSpec {
            clients: grants,
            login_timeout: self.login_timeout.get(),
            max_pending: self.max_pending,
            max_pending_per_address: self.max_pending_per_address,
            heartbeat: self.heartbeat.get(),
            max_pool: self.max_pool,
            wait_timeout: self.wait_timeout.get(),
            max_waiting: self.max_waiting,
            grace: self.grace.get(),
        }
    }
}

impl GrantOptions {
    /// What is granted to the client `name`, whose key is `key`, and which may answer for `hosts`.
    pub fn spec(&self, name: &str, key: Secret, hosts: Vec<String>) -> GrantSpec {
        GrantSpec {
            name: Arc::from(name),
            key,
            ports: self.ports.0.clone(),
            hosts,
            private: self.private,
            max_services: self.max_services,
            max_connections: self.max_connections,
            rate_limit: self.rate_limit,
        }
    }
}

impl VisitorsOptions {
    /// What visitors are kept to.
    pub fn spec(&self) -> VisitorsSpec {
        VisitorsSpec {
            idle_timeout: self.idle_timeout.get(),
            udp_idle_timeout: self.udp_idle_timeout.get(),
            max_connections: self.max_connections,
            max_flows: self.max_flows,
            per_client_connections: self.per_client_connections,
            per_client_rate: self.per_client_rate,
        }
    }
}
