//! Tunnels in the status: the answer's own types, and the text for people.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wmproxy_net::record::ListenerMetrics;
use wmproxy_tunnel::client::{ClientStatus, ServiceStatus, SessionState, SessionStatus};
use wmproxy_tunnel::server;

use super::report::{Table, bytes, uptime};
use crate::observe::metrics::events;
use crate::observe::snapshot::Snapshot;

/// A tunnel server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunnelServerStatus {
    pub(crate) clients: Vec<TunnelClientEntry>,
    /// Connections that have not proven anything yet.
    pub(crate) pending: u32,
    /// What happened since the start, by kind.
    pub(crate) events: BTreeMap<String, u64>,
}

/// A client of a tunnel server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunnelClientEntry {
    pub(crate) name: String,
    /// Null while it is gone and its services are kept for it.
    pub(crate) session: Option<TunnelSession>,
    /// Visitors that have a stream to it.
    pub(crate) visitors: u32,
    /// Visitors that wait for one.
    pub(crate) waiting: u32,
    pub(crate) services: Vec<TunnelService>,
}

/// The session of a client of a tunnel server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunnelSession {
    pub(crate) from: Option<String>,
    /// `tcp` or `quic`.
    pub(crate) transport: String,
    /// Whether many visitors share a connection.
    pub(crate) shared: bool,
    /// The program at the other end.
    pub(crate) agent: String,
    pub(crate) seconds: u64,
    /// Connections that wait ready for visitors.
    pub(crate) pool: usize,
}

/// A service of a client of a tunnel server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunnelService {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) private: bool,
    pub(crate) up: bool,
    pub(crate) places: Vec<String>,
    /// Why it is not offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refusal: Option<String>,
    pub(crate) visitors: u32,
    /// From visitors, of all services that share its place; not of http and https, whose visitors share listeners.
    pub(crate) bytes_in: u64,
    /// The same to visitors.
    pub(crate) bytes_out: u64,
}

impl TunnelServerStatus {
    /// What a snapshot shows.
    pub(super) fn of(status: &server::ServerStatus, snapshot: &Snapshot) -> TunnelServerStatus {
        let client = |client: &server::ClientEntry| TunnelClientEntry {
            name: client.name.clone(),
            session: client.session.as_ref().map(|session| TunnelSession {
                from: session.from.map(|from| from.to_string()),
                transport: session.transport.to_owned(),
                shared: session.is_shared,
                agent: session.agent.clone(),
                seconds: session.seconds,
                pool: session.pool,
            }),
            visitors: client.visitors,
            waiting: client.waiting,
            services: client.services.iter().map(|service| TunnelService::of(service, snapshot)).collect(),
        };
        let events = events(&status.counts);
        TunnelServerStatus {
            clients: status.clients.iter().map(client).collect(),
            pending: status.pending,
            events: events.into_iter().map(|(event, number)| (event.to_owned(), number)).collect(),
        }
    }
}

impl TunnelService {
    fn of(service: &server::ServiceEntry, snapshot: &Snapshot) -> TunnelService {
        let is_own = |listener: &&ListenerMetrics| service.exposure.as_deref() == Some(&*listener.name);
        let own = || snapshot.listeners.iter().map(|listener| &**listener).filter(is_own);
        TunnelService {
            name: service.name.clone(),
            kind: service.kind.to_owned(),
            private: service.is_private,
            up: service.is_up,
            places: service.places.clone(),
            refusal: service.refusal.clone(),
            visitors: service.visitors,
            bytes_in: own().map(|listener| listener.blocks.sum(|b| &b.bytes_in)).sum(),
            bytes_out: own().map(|listener| listener.blocks.sum(|b| &b.bytes_out)).sum(),
        }
    }
}

/// A tunnel server for people.
pub(super) fn push_server(out: &mut String, server: &TunnelServerStatus) {
    out.push('\n');
    if server.clients.is_empty() {
        out.push_str("tunnel server: no client is there\n");
        return;
    }
    let mut table = Table::new(&["TUNNEL CLIENT", "FROM", "BY", "SINCE", "POOL", "VISITORS", "WAITING"], 4);
    table.rows.extend(server.clients.iter().map(|client| {
        let session = client.session.as_ref();
        let text = |get: fn(&TunnelSession) -> String| session.map_or_else(|| "-".to_owned(), get);
        vec![
            client.name.clone(),
            session.map_or_else(
                || "away".to_owned(),
                |session| session.from.clone().unwrap_or_else(|| "-".to_owned()),
            ),
            text(|session| match session.shared {
                true if session.transport == "tcp" => "tcp, shared".to_owned(),
                _ => session.transport.clone(),
            }),
            text(|session| uptime(session.seconds)),
            text(|session| session.pool.to_string()),
            client.visitors.to_string(),
            client.waiting.to_string(),
        ]
    }));
    table.push_to(out);
    let services =
        || server.clients.iter().flat_map(|client| client.services.iter().map(move |s| (client, s)));
    if services().next().is_none() {
        return;
    }
    out.push('\n');
    let mut table = Table::new(&["TUNNEL SERVICE", "TYPE", "STATE", "AT", "VISITORS", "IN", "OUT"], 4);
    table.rows.extend(services().map(|(client, service)| {
        vec![
            format!("{}/{}", client.name, service.name),
            service.kind.clone(),
            match (&service.refusal, service.up) {
                (Some(_), _) => "refused",
                (None, true) => "up",
                (None, false) => "down",
            }
            .to_owned(),
            at(&service.places, service.refusal.as_ref(), service.private),
            service.visitors.to_string(),
            bytes(service.bytes_in),
            bytes(service.bytes_out),
        ]
    }));
    table.push_to(out);
}

/// A tunnel client for people.
pub(super) fn push_client(out: &mut String, client: &ClientStatus) {
    out.push('\n');
    let mut table = Table::new(&["TUNNEL SERVER", "STATE", "SINCE", "ROUND TRIP", "POOL", "RECONNECTS"], 3);
    table.rows.extend(client.sessions.iter().map(|session| {
        vec![
            session.server.clone(),
            state_word(session.state).to_owned(),
            uptime(session.seconds),
            session.round_trip_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
            session.pool.to_string(),
            session.reconnects.to_string(),
        ]
    }));
    table.push_to(out);
    for session in client.sessions.iter().filter(|session| session.state != SessionState::Open) {
        if let Some(error) = &session.error {
            out.push_str(&format!("  {}: {error}\n", session.server));
        }
    }
    if client.services.is_empty() {
        return;
    }
    out.push('\n');
    let mut table = Table::new(&["OWN SERVICE", "TYPE", "STATE", "AT", "VISITORS", "TOTAL", "IN", "OUT"], 4);
    table.rows.extend(client.services.iter().map(|service| {
        vec![
            format!("{}/{}", client.name, service.name),
            service.kind.clone(),
            own_state(&client.sessions, service).to_owned(),
            places(&client.sessions, &service.name, service.is_private),
            service.visitors.to_string(),
            service.visitors_total.to_string(),
            bytes(service.bytes_in),
            bytes(service.bytes_out),
        ]
    }));
    table.push_to(out);
}

/// How an own service stands, over all servers, in a word.
pub(crate) fn own_state(sessions: &[SessionStatus], service: &ServiceStatus) -> &'static str {
    let placed =
        || sessions.iter().flat_map(|session| &session.services).filter(|placed| placed.name == service.name);
    if !service.is_up {
        "down"
    } else if placed().any(|placed| placed.refusal.is_none()) {
        "up"
    } else if placed().next().is_some() {
        "refused"
    } else {
        "waiting"
    }
}

/// Where visitors reach an own service, over all servers.
pub(crate) fn places(sessions: &[SessionStatus], service: &str, is_private: bool) -> String {
    let placed =
        sessions.iter().flat_map(|session| &session.services).filter(|placed| placed.name == service);
    let mut all = Vec::new();
    let mut refusal = None;
    for placed in placed {
        all.extend(placed.places.iter().cloned());
        refusal = refusal.or(placed.refusal.as_ref());
    }
    at(&all, refusal, is_private)
}

fn at(places: &[String], refusal: Option<&String>, is_private: bool) -> String {
    match (places, refusal) {
        ([], Some(refusal)) => refusal.clone(),
        ([], None) if is_private => "private".to_owned(),
        ([], None) => "-".to_owned(),
        (places, _) => places.join(", "),
    }
}

/// How far a session is, in a word.
pub(crate) fn state_word(state: SessionState) -> &'static str {
    match state {
        SessionState::Connecting => "connecting",
        SessionState::Waiting => "waiting",
        SessionState::Open => "open",
        SessionState::Leaving => "leaving",
        SessionState::Ended => "ended",
    }
}
