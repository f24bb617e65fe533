//! What both ends are built from: every value checked and every default filled in.

use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::addr::AddressSpec;
use wmproxy_wire::tunnel::message::Service;
use wmproxy_wire::units::{ByteRate, CountRate, Secret};

/// A tunnel server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSpec {
    /// Who may have a session, and what each may offer; in the order of the names.
    pub clients: Vec<GrantSpec>,
    /// How long somebody may take to prove who they are, the TLS handshake included.
    pub login_timeout: Duration,
    /// The most connections at a time that have not proven anything yet.
    pub max_pending: u32,
    /// The most of those from one address (IPv6: from one /64).
    pub max_pending_per_address: u32,
    /// How long either end may be silent before the other asks.
    pub heartbeat: Duration,
    /// The most connections that wait in a session's pool.
    pub max_pool: u32,
    /// How long a visitor may wait for a stream, where none is ready.
    pub wait_timeout: Duration,
    /// The most visitors of a session that wait so.
    pub max_waiting: u32,
    /// For how long what a client that went away has offered stays its own.
    pub grace: Duration,
}

/// A client that may have a session, and what it may offer.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Its key.
    pub key: Secret,
    /// The ports that it may open; none, and it may open none.
    pub ports: Vec<PortRange>,
    /// The hosts that it may answer for: names, `*.` in front of one for any below it, `*` alone for any; in lower case.
    pub hosts: Vec<String>,
    /// Whether it may offer private services, and visit those of others.
    pub private: bool,
    /// The most services.
    pub max_services: u32,
    /// The most visitors at a time, of all its services together; 0 is no limit.
    pub max_connections: u32,
    /// How fast the bytes of all its services together pass, each way.
    pub rate_limit: Option<ByteRate>,
}

/// What visitors are kept to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisitorsSpec {
    /// How long a connection may be without traffic.
    pub idle_timeout: Duration,
    /// How long a flow of datagrams may.
    pub udp_idle_timeout: Duration,
    /// The most connections at a time on each port; 0 is no limit.
    pub max_connections: u32,
    /// The most flows at a time on each port; 0 is no limit.
    pub max_flows: u32,
    /// The most connections or flows at a time of one address on a port; 0 is no limit.
    pub per_client_connections: u32,
    /// How often one address may come to a port.
    pub per_client_rate: Option<CountRate>,
}

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// How a session is carried.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TransportKind {
    /// TLS over TCP: a connection for each visitor, or many on one.
    #[default]
    Tcp,
    /// QUIC: a stream for each visitor, datagrams as datagrams.
    Quic,
}

/// By what a client knows the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Its certificate has one of these SHA-256 fingerprints.
    Fingerprint(Vec<[u8; 32]>),
    /// Its certificate comes from one of those in this file and is for the server's name.
    Ca(std::path::PathBuf),
    /// It has the key. Enough where the key can't be guessed.
    Key,
}

/// A tunnel client.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSpec {
    /// The servers, with each of which it has a session.
    pub servers: Vec<AddressSpec>,
    /// The name that the certificate has to be for, if it is not the server's.
    pub server_name: Option<String>,
    /// By what it knows them.
    pub trust: Trust,
    /// Its name.
    pub name: Arc<str>,
    /// Its key.
    pub key: Secret,
    /// How its sessions are carried.
    pub transport: TransportKind,
    /// The most connections that wait ready for visitors, over TCP.
    pub pool: u32,
    /// Whether many streams share a connection, over TCP.
    pub mux: bool,
    /// The name of the chain of proxies to go through, if there is one.
    pub via: Option<Arc<str>>,
    /// How long a connection to the server may take.
    pub connect_timeout: Duration,
    /// How long either end may be silent before the other asks; the server may ask for less.
    pub heartbeat: Duration,
    /// The longest pause between two attempts.
    pub max_backoff: Duration,
}

/// A service that a client offers.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSpec {
    /// As it is registered; `id` and `is_up` are given by the session.
    pub service: Service,
    /// What visitors have to know to reach it, if it is private.
    pub secret: Option<Secret>,
}

/// A private service of another client that a client visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisitSpec {
    /// The client and its service, as in `home/db`.
    pub service: Arc<str>,
    /// What proves that it may be visited.
    pub secret: Secret,
}
