//! The server itself: its sessions, and what happens to them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::limit::{Gate, Limits};
use wmproxy_net::record::ListenerMetrics;
use wmproxy_runtime::clock;
use wmproxy_runtime::scope::Scope;
use wmproxy_wire::tunnel::message::{Refusal, RefusalCode, Register, SessionId, State};
use wmproxy_wire::units::Secret;

use super::client::Client;
use super::directory::Directory;
use super::known::Known;
use super::registry::{Registry, SessionNumber};
use super::session::{End, Session};
use super::status::{Counters, count};
use crate::options::ServerSpec;
use crate::pace::Pace;

/// A tunnel server.
///
/// It is where visitors are led through: a [`Connect`](wmproxy_net::connect::Connect) to whose names, such as `home/ssh`,
/// the peers of an [`Exposure`](super::Exposure) belong.
pub struct TunnelServer {
    spec: ArcSwap<ServerSpec>,
    /// Who has not proven anything yet.
    pub(super) pending: Arc<Gate>,
    /// Whose sessions stand.
    pub(super) known: Known,
    registry: Mutex<Registry>,
    pub(super) clients: ArcSwap<BTreeMap<Arc<str>, Arc<Client>>>,
    sessions: Mutex<HashMap<SessionId, Arc<Session>>>,
    next_session: AtomicU64,
    pub(super) directory: ArcSwap<Directory>,
    /// Something is registered, or a client came or went.
    pub(super) changed: Notify,
    is_draining: AtomicBool,
    pub(super) counters: Counters,
    /// Of the log's lines about what strangers do.
    pub(super) pace: Pace,
    /// The counters of visits of private services.
    pub(super) visits: Arc<ListenerMetrics>,
    /// The tasks of connections that carry many streams.
    pub(super) scope: Scope,
}

impl TunnelServer {
    /// A server that nobody has come to.
    pub fn new(spec: ServerSpec) -> Arc<TunnelServer> {
        // No socket is theirs; the path names what they are.
        let nowhere = Address::Unix(PathBuf::from("tunnel"));
        let workers = wmproxy_runtime::worker::default_count();
        let visits = ListenerMetrics::new("tunnel:visits".into(), Protocol::Tcp, nowhere, workers);
        let server = Arc::new(TunnelServer {
            pending: Arc::default(),
            known: Known::default(),
            registry: Mutex::new(Registry::new(&spec)),
            clients: ArcSwap::default(),
            sessions: Mutex::default(),
            next_session: AtomicU64::new(1),
            directory: ArcSwap::default(),
            changed: Notify::new(),
            is_draining: AtomicBool::new(false),
            counters: Counters::default(),
            pace: Pace::default(),
            visits: Arc::new(visits),
            scope: Scope::new(),
            spec: ArcSwap::from_pointee(spec.clone()),
        });
        server.configure(spec);
        server
    }

    /// Goes by another spec from now on: sessions of clients that are no longer there, or have another key, end; what is
    /// offered is judged again.
    pub fn configure(&self, spec: ServerSpec) {
        self.pending.set(&Limits {
            max: spec.max_pending,
            max_per_client: spec.max_pending_per_address,
            ..Limits::default()
        });
        let before = self.spec.load_full();
        let old = self.clients.load_full();
        let client = |grant: &crate::options::GrantSpec| match old.get(&grant.name) {
            Some(client) => {
                client.set_limits(grant);
                (grant.name.clone(), client.clone())
            }
            None => (grant.name.clone(), Arc::new(Client::new(grant))),
        };
        let clients: BTreeMap<_, _> = spec.clients.iter().map(client).collect();
        let has_same_key = |client: &Client| match (before.grant(&client.name), spec.grant(&client.name)) {
            (Some(old), Some(new)) => old.key == new.key,
            _ => false,
        };
        let revoked: Vec<_> = {
            let mut registry = self.registry();
            registry.configure(&spec);
            self.clients.store(Arc::new(clients));
            // Whoever logs in by the old ones meanwhile begins before this, and ends, or after it, and is refused.
            // Those that are about to leave are no longer their client's, and still let its visitors pass.
            let sessions = self.sessions();
            let revoked =
                sessions.values().filter(|session| !has_same_key(&session.client)).cloned().collect();
            drop(sessions);
            self.spec.store(Arc::new(spec));
            revoked
        };
        let text = "the client is not the server's any more, or has another key now";
        for session in revoked {
            session.mailbox.end(Refusal { code: RefusalCode::Unauthenticated, text: text.into() });
        }
        self.changed.notify_one();
    }

    /// Counts who has not proven anything yet, whatever it came by: for the listener of QUIC.
    pub fn pending(&self) -> Arc<Gate> {
        self.pending.clone()
    }

    /// Begins no new session, and tells the clients that this end is about to go. Their sessions end with their last stream.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        for session in self.sessions().values() {
            session.mailbox.leave();
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    pub(super) fn spec(&self) -> Arc<ServerSpec> {
        self.spec.load_full()
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, which: impl FnOnce(&Counters) -> &AtomicU64) {
        count(which(&self.counters));
    }

    /// Begins the session that `make` makes of its number, in place of the one that the client has. None if the client is no
    /// longer one of ours, or has another key by now than it has proven.
    pub(super) fn begin(
        &self,
        client: &Arc<Client>,
        key: &Secret,
        make: impl FnOnce(SessionNumber) -> Session,
    ) -> Option<Arc<Session>> {
        let (session, old) = {
            let mut registry = self.registry();
            // A reload may have come in between.
            let is_ours =
                self.clients.load().get(&client.name).is_some_and(|known| Arc::ptr_eq(known, client));
            if !is_ours || self.spec.load().grant(&client.name).is_none_or(|grant| grant.key != *key) {
                return None;
            }
            let session = Arc::new(make(self.next_session.fetch_add(1, Ordering::Relaxed)));
            let old = registry.login(&client.name, session.number);
            client.begin(&session);
            self.sessions().insert(session.id, session.clone());
            self.known.add(session.from);
            (session, old)
        };
        self.count(|counters| &counters.logins);
        let (name, from, agent) = (&client.name, Shown(session.from), session.agent.escape_debug());
        match old {
            None => tracing::info!(client = %name, %from, %agent, "a tunnel client has logged in"),
            Some(_) => {
                self.count(|counters| &counters.takeovers);
                tracing::info!(client = %name, %from, %agent, "a tunnel client has logged in again and takes over");
            }
        }
        if let Some(old) = old {
            let mut sessions = self.sessions();
            let id = sessions.values().find(|session| session.number == old).map(|session| session.id);
            if let Some(old) = id.and_then(|id| sessions.remove(&id)) {
                let text = "the client has logged in again, and that session has taken over";
                old.mailbox.end(Refusal { code: RefusalCode::InUse, text: text.into() });
            }
        }
        if self.is_draining() {
            session.mailbox.leave();
        }
        self.changed.notify_one();
        Some(session)
    }

    /// A session is over.
    pub(super) fn ended(&self, session: &Session, end: &End) {
        let client = &session.client.name;
        let was_current = match end {
            End::Left => {
                tracing::info!(%client, "a tunnel client has left");
                self.registry().left(client, session.number);
                true
            }
            End::Lost(_) | End::Ended(_) => self.registry().lost(client, session.number, clock::now()),
        };
        match end {
            End::Lost(why) => {
                self.count(|counters| &counters.losses);
                let why = why.escape_debug();
                tracing::warn!(%client, from = %Shown(session.from), %why, is_current = was_current, "a tunnel client is lost");
            }
            End::Ended(why) => tracing::info!(%client, %why, "a tunnel client's session was ended"),
            End::Left => {}
        }
        self.sessions().remove(&session.id);
        self.known.remove(session.from);
        session.client.end(session.number);
        let text = "the session is over".to_owned();
        session.mailbox.end(Refusal { code: RefusalCode::NoSession, text });
        self.changed.notify_one();
    }

    /// A session's client is about to go: nothing new begins there, and what it offered is gone.
    pub(super) fn leaves(&self, session: &Session) {
        self.registry().left(&session.client.name, session.number);
        session.client.end(session.number);
        self.changed.notify_one();
    }

    /// A session has registered something.
    pub(super) fn registers(&self, session: &Session, register: Register) {
        session.registering.lock().unwrap_or_else(PoisonError::into_inner).replace(register);
        self.changed.notify_one();
    }

    /// A session says whether a service is able to serve.
    pub(super) fn changes_state(&self, session: &Session, state: State) {
        // What is registered and not looked at yet comes first.
        let registered = self.take_registration(session);
        let changed = self.registry().set_state(&session.client.name, session.number, state);
        if registered || changed {
            self.changed.notify_one();
        }
    }

    /// Has the registry know what a session has registered, if that is anything new. It is judged by the publisher.
    pub(super) fn take_registration(&self, session: &Session) -> bool {
        let register = session.registering.lock().unwrap_or_else(PoisonError::into_inner).take();
        register
            .is_some_and(|register| self.registry().register(&session.client.name, session.number, register))
    }
}

impl ServerSpec {
    /// What a client is granted.
    pub(super) fn grant(&self, client: &str) -> Option<&crate::options::GrantSpec> {
        self.clients.iter().find(|grant| &*grant.name == client)
    }
}

impl fmt::Debug for TunnelServer {
    /// Short: the groups that lead through it are told apart by this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TunnelServer")
    }
}

/// An address for a line of the log.
pub(super) struct Shown(pub(super) Option<SocketAddr>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("-"),
        }
    }
}
