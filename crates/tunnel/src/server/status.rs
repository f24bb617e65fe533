//! What a server tells of itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use wmproxy_runtime::clock;

use super::registry::Report;
use super::tunnel_server::TunnelServer;

/// A server as it is now.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ServerStatus {
    /// The clients that have a session, and those that are gone but whose services are kept for them, by their names.
    pub clients: Vec<ClientEntry>,
    /// What happened since the start.
    pub counts: Counts,
    /// How many connections have not proven anything yet.
    pub pending: u32,
    /// Whether no new session is begun, for the server is about to go.
    pub is_draining: bool,
}

/// A client of a [server](ServerStatus).
#[derive(Debug, Clone, Serialize)]
pub struct ClientEntry {
    /// Its name.
    pub name: String,
    /// Its session; none while it is gone and its services are kept for it.
    pub session: Option<SessionEntry>,
    /// Visitors that have a stream to it.
    pub visitors: u32,
    /// Visitors that wait for one.
    pub waiting: u32,
    /// What it offers.
    pub services: Vec<ServiceEntry>,
}

/// The session of a [client](ClientEntry).
#[derive(Debug, Clone, Serialize)]
pub struct SessionEntry {
    /// Where it came from.
    pub from: Option<SocketAddr>,
    /// `tcp` or `quic`.
    pub transport: &'static str,
    /// Whether many streams share a connection.
    pub is_shared: bool,
    /// The program at the other end.
    pub agent: String,
    /// For how long it has been there, in seconds.
    pub seconds: u64,
    /// Connections that wait ready for visitors.
    pub pool: usize,
}

/// A service of a [client](ClientEntry).
#[derive(Debug, Clone, Serialize)]
pub struct ServiceEntry {
    /// Its name among the client's.
    pub name: String,
    /// `tcp`, `udp`, `http`, `https` or `proxy`.
    pub kind: &'static str,
    /// Whether it has no public place.
    pub is_private: bool,
    /// Whether the client says that it is able to serve.
    pub is_up: bool,
    /// Names the listeners that lead to it, in logs and metrics; none if it is refused or private.
    pub exposure: Option<String>,
    /// Where visitors reach it.
    pub places: Vec<String>,
    /// Why they don't.
    pub refusal: Option<String>,
    /// Visitors that have a stream to it.
    pub visitors: u32,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened at a server since its start.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// Counts it. Not by worker: each of these is far rarer than a packet.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            pub(super) fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Sessions that were begun.
    logins,
    /// Logins that were refused: an unknown client, a wrong key, no common version.
    logins_refused,
    /// Connections that were not let in, for too many of their address or of all have proven nothing yet.
    pending_refused,
    /// Connections that proved nothing in time.
    logins_late,
    /// Connections that said something other than the protocol.
    broken,
    /// Further connections of sessions.
    joins,
    /// Further connections that were refused: no such session, or no proof, or too many of them.
    joins_refused,
    /// Sessions that ended because their client came again.
    takeovers,
    /// Sessions that broke off.
    losses,
    /// Services that were refused.
    services_refused,
    /// Streams that were opened to visitors.
    streams,
    /// Visitors that got none: nobody is there, or none came in time, or a limit.
    streams_refused,
    /// Connections of pools that were found dead when they were needed.
    pool_dead,
    /// Visits of private services.
    visits,
    /// Visits that were refused.
    visits_refused,
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl TunnelServer {
    /// As it is now.
    pub fn status(&self) -> ServerStatus {
        let directory = self.directory.load();
        let clients = self.clients.load();
        let now = clock::now();
        let registry = self.registry();
        let entry = |(name, reports): (&Arc<str>, Vec<Report<'_>>)| {
            let client = clients.get(name)?;
            let (pool, waiting, is_shared) = client.counts();
            let session = client.session().map(|session| SessionEntry {
                from: session.from,
                transport: if session.datagrams.is_some() { "quic" } else { "tcp" },
                is_shared,
                agent: session.agent.clone(),
                seconds: now.since(session.since).as_secs(),
                pool,
            });
            let service = |report: Report<'_>| ServiceEntry {
                name: report.service.name.clone(),
                kind: report.service.kind.as_str(),
                is_private: report.service.is_private,
                is_up: report.service.is_up,
                exposure: report.exposure.map(|name| name.to_string()),
                visitors: directory.visitors_of(name, &report.service.name),
                refusal: report.result.as_ref().err().map(|refusal| refusal.text.clone()),
                places: report.result.unwrap_or_default(),
            };
            Some(ClientEntry {
                name: name.to_string(),
                session,
                visitors: client.gate.active(),
                waiting,
                services: reports.into_iter().map(service).collect(),
            })
        };
        ServerStatus {
            clients: registry.reports().filter_map(entry).collect(),
            counts: self.counters.read(),
            pending: self.pending.active(),
            is_draining: self.is_draining(),
        }
    }
}
