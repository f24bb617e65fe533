//! The keys of `[tunnel_client]`, but for those of its services.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_net::acl::Prefix;
use wmproxy_net::addr::AddressSpec;
use wmproxy_net::options::{AccessLogOptions, OneOrMany, Toggle};
use wmproxy_wire::units::{HumanDuration, Secret};

use super::service::ServiceOptions;
use super::spec::TransportKind;
use super::text::Fingerprint;

/// A tunnel's end behind NAT: it logs in to a tunnel server and offers services of its network there, and reaches private
/// services that others offer. `HEALTH` is how a service's health is checked, which those know who reach it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, bound(deserialize = "HEALTH: Deserialize<'de>"))]
#[schemars(
    rename = "TunnelClient",
    description = "A tunnel's end behind NAT: it logs in to a tunnel server and offers services of its network there, and \
                   reaches private services that others offer."
)]
pub struct ClientOptions<HEALTH> {
    /// The tunnel server, as in `"tunnel.example.com:7000"`; of a list each gets a session, and all services are offered on
    /// each.
    #[schemars(required)]
    pub server: OneOrMany<AddressSpec>,
    /// The fingerprint of the server's certificate, as the server prints it: `"sha256:..."`; of a list any will do, so
    /// that it can change.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub fingerprint: OneOrMany<Fingerprint>,
    /// Instead of a fingerprint: the server's certificate has to come from one of those in this PEM file and be for the
    /// server's name. With neither of both the server has to prove that it knows the client's key, which is as good where
    /// that key is long and random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The name that the server is asked for and, with `ca`, has to prove. By default the host in `server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The client's name, as the server has it in `clients`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub name: Option<String>,
    /// The client's key, as the server has it: it is proven and never sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub key: Option<Secret>,
    /// A file to read `key` from; one newline at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// How sessions are carried: `tcp`, TLS over TCP; or `quic`, where what is lost for one visitor delays no other and
    /// datagrams go as datagrams.
    pub transport: TransportKind,
    /// How many connections are kept open for the next visitors, so that none waits for one to be made. Over `tcp`
    /// without `mux`; the server's `max_pool` is the most.
    pub pool: u32,
    /// Carries all visitors over one connection instead (yamux): cheaper for many short ones; but what is lost for one
    /// delays all. Over `tcp`.
    pub mux: bool,
    /// The chain, one of `[chain.NAME]`, through whose proxies the server is reached. Over `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// How long connecting to the server may take, with TLS and the way through a chain.
    pub connect_timeout: HumanDuration,
    /// How long either end may be silent before the other asks; after three times as long the session is made anew. The
    /// server may ask for less.
    pub heartbeat: HumanDuration,
    /// The longest pause between two attempts to reach the server. It begins with a quarter of a second and doubles; after
    /// a change of the network there is none.
    pub max_backoff: HumanDuration,
    /// The services that are offered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service: Vec<ServiceOptions<HEALTH>>,
    /// The private services of other clients that are reached from here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub visitor: Vec<VisitorOptions>,
    /// The access log of visitors, and of connections to `visitor` listeners: a table as `[access_log]`, whose keys are the
    /// defaults here, or `false` for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<Toggle<AccessLogOptions>>,
}

/// A private service of another client, and where it is reached on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TunnelVisitor")]
pub struct VisitorOptions {
    /// The other client and its service, as in `"home/db"`.
    #[schemars(required)]
    pub service: String,
    /// The service's secret. Both ends prove it to each other; the server never learns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub secret: Option<Secret>,
    /// A file to read `secret` from; one newline at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
    /// Where the service is reached on this machine, as in `"127.0.0.1:5432"` or `"unix:/run/db.sock"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub listen: Option<AddressSpec>,
    /// What the service is: `tcp` or `udp`.
    #[serde(rename = "type")]
    pub kind: VisitorKind,
    /// Who may come to `listen`: addresses and prefixes. By default everybody who reaches it.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub allow: OneOrMany<Prefix>,
    /// The most connections, or flows, at a time; `0` is no limit.
    pub max_connections: u32,
    /// How long a connection or flow may be without traffic before it ends: by default `10m` for tcp and `60s` for udp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<HumanDuration>,
}

/// What a private service is to who visits it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "TunnelVisitorKind")]
pub enum VisitorKind {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl<HEALTH> Default for ClientOptions<HEALTH> {
    fn default() -> Self {
        ClientOptions {
            server: OneOrMany::default(),
            fingerprint: OneOrMany::default(),
            ca: None,
            server_name: None,
            name: None,
            key: None,
            key_file: None,
            transport: TransportKind::Tcp,
            pool: 8,
            mux: false,
            via: None,
            connect_timeout: HumanDuration::from_secs(10),
            heartbeat: HumanDuration::from_secs(15),
            max_backoff: HumanDuration::from_secs(30),
            service: Vec::new(),
            visitor: Vec::new(),
            access_log: None,
        }
    }
}
