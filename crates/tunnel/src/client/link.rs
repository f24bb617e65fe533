//! A server of a client, and how the client stands with it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wmproxy_net::addr::{AddressSpec, Host};
use wmproxy_wire::destination::{self, Destination, parse_host};
use wmproxy_wire::tunnel::message::Placed;

use super::login::Identity;
use super::offers::Offers;
use super::session::{Session, plain};
use super::status::{PlacedStatus, SessionState, SessionStatus};

/// The most places of a service that are shown: as many as a line of the log can hold. Hosts with many paths have more.
const MAX_PLACES: usize = 64;

/// A server.
pub(super) struct Link {
    /// Its place in the options.
    pub(super) index: usize,
    /// As the options name it.
    pub(super) server: String,
    /// The host in that, by which it is asked for.
    pub(super) host: String,
    /// Where it is; none for an address that nothing can be connected to.
    pub(super) to: Option<Destination>,
    /// Who it has shown to be.
    pub(super) identity: Identity,
    /// The session, while it stands.
    pub(super) session: watch::Sender<Option<Arc<Session>>>,
    standing: Mutex<Standing>,
    /// Tells the client that something has changed.
    changed: watch::Sender<u64>,
}

struct Standing {
    state: SessionState,
    since: Instant,
    error: Option<String>,
    /// The error that was in the log last: the same one is not said again.
    complained: Option<String>,
    retry_at: Option<Instant>,
    round_trip: Option<Duration>,
    sessions: u64,
    placed: Vec<PlacedStatus>,
}

impl Link {
    pub(super) fn new(index: usize, server: &AddressSpec, changed: watch::Sender<u64>) -> Arc<Link> {
        let standing = Standing {
            state: SessionState::Connecting,
            since: Instant::now(),
            error: None,
            complained: None,
            retry_at: None,
            round_trip: None,
            sessions: 0,
            placed: Vec::new(),
        };
        let (host, to) = locate(server);
        Arc::new(Link {
            index,
            server: server.to_string(),
            host,
            to,
            identity: Identity::default(),
            session: watch::Sender::new(None),
            standing: Mutex::new(standing),
            changed,
        })
    }

    /// An attempt begins.
    pub(super) fn connecting(&self) {
        self.change(|standing| {
            standing.become_(SessionState::Connecting);
            standing.retry_at = None;
        });
    }

    /// A session stands.
    pub(super) fn opened(&self, session: Arc<Session>) {
        self.change(|standing| {
            standing.become_(SessionState::Open);
            standing.sessions += 1;
            standing.error = None;
            standing.complained = None;
        });
        self.session.send_replace(Some(session));
    }

    /// The session takes nobody new.
    pub(super) fn leaving(&self) {
        self.change(|standing| standing.become_(SessionState::Leaving));
    }

    /// There is no session any more.
    pub(super) fn closed(&self) {
        self.session.send_replace(None);
        self.change(|standing| {
            standing.round_trip = None;
            standing.placed.clear();
        });
    }

    /// The next attempt comes after a pause. Why is in the log, if it was not the last time.
    pub(super) fn waiting(&self, error: String, pause: Duration) {
        self.change(|standing| {
            if standing.complained.as_ref() == Some(&error) {
                tracing::debug!(server = self.server, ?pause, "no session with the tunnel server: {error}");
            } else {
                tracing::warn!(server = self.server, "no session with the tunnel server: {error}");
                standing.complained = Some(error.clone());
            }
            standing.become_(SessionState::Waiting);
            standing.error = Some(error);
            standing.retry_at = Some(Instant::now() + pause);
        });
    }

    /// There will be no session any more.
    pub(super) fn ended(&self) {
        self.change(|standing| standing.become_(SessionState::Ended));
    }

    /// A ping came back.
    pub(super) fn measured(&self, round_trip: Duration) {
        self.change(|standing| standing.round_trip = Some(round_trip));
    }

    /// The server has said what became of the services.
    pub(super) fn placed(&self, offers: &Offers, results: Vec<Placed>) {
        // Each is taken out, so that a server that answers twice for one is heard once.
        let mut names: HashMap<u32, &str> =
            offers.list.iter().map(|offered| (offered.id, offered.name())).collect();
        let named = |placed: Placed| {
            let name = names.remove(&placed.id)?.to_owned();
            let (places, refusal) = match placed.result {
                Ok(places) => {
                    let places = places.iter().take(MAX_PLACES);
                    (places.map(|place| from_here(&self.server, plain(place))).collect(), None)
                }
                Err(refusal) => (Vec::new(), Some(plain(&refusal.text))),
            };
            Some(PlacedStatus { name, places, refusal })
        };
        let placed: Vec<PlacedStatus> = results.into_iter().filter_map(named).collect();
        self.change(|standing| {
            let before: HashSet<_> = standing.placed.iter().collect();
            placed.iter().filter(|now| !before.contains(now)).for_each(|now| self.tell(now));
            standing.placed = placed;
        });
    }

    fn tell(&self, placed: &PlacedStatus) {
        let (server, service) = (&self.server, &placed.name);
        match &placed.refusal {
            Some(refusal) => tracing::warn!(server, service, "the server refuses a service: {refusal}"),
            None => tracing::info!(server, service, places = placed.places.join(" "), "a service is offered"),
        }
    }

    pub(super) fn status(&self) -> SessionStatus {
        let pool = self.session.borrow().as_ref().map_or(0, |session| session.waiting());
        let standing = self.standing();
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        SessionStatus {
            server: self.server.clone(),
            state: standing.state,
            seconds: standing.since.elapsed().as_secs(),
            error: standing.error.clone(),
            retry_ms: standing.retry_at.map(|at| millis(at.saturating_duration_since(Instant::now()))),
            round_trip_ms: standing.round_trip.map(|it| it.as_secs_f64() * 1000.0),
            pool,
            reconnects: standing.sessions.saturating_sub(1),
            services: standing.placed.clone(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.standing());
        self.changed.send_modify(|version| *version += 1);
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Each change is whole, or has not begun, when it panics.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    fn become_(&mut self, state: SessionState) {
        if self.state != state {
            self.state = state;
            self.since = Instant::now();
        }
    }
}

/// The host of an address, and where that is.
fn locate(server: &AddressSpec) -> (String, Option<Destination>) {
    let AddressSpec::Inet { host, first_port, .. } = server else { return (server.to_string(), None) };
    let (name, host) = match host {
        // As of a client of this machine: whoever listens on all addresses does so on this one.
        Host::Any => ("localhost".to_owned(), Some(destination::Host::Ip([127, 0, 0, 1].into()))),
        Host::Ip(ip) => (ip.to_string(), Some(destination::Host::Ip(*ip))),
        Host::Name(name) => (name.clone(), parse_host(name.as_bytes()).ok()),
    };
    (name, host.map(|host| Destination { host, port: *first_port }))
}
/// A place as it is reached from here: a server that listens at all of its addresses knows none that would do for others,
/// but we have come to it by one.
fn from_here(server: &str, place: String) -> String {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    for any in ["://0.0.0.0:", "://[::]:"] {
        if let Some((kind, port)) = place.split_once(any) {
            return format!("{kind}://{host}:{port}");
        }
    }
    place
}
