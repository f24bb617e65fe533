//! The tickets with which a connector comes back to servers whose sessions it knows. For TLS 1.3 only.
//!
//! A ticket is chosen before a handshake begins, so that the handshake can be made as it deserves: where the secret of a
//! session before goes into the keys, a lighter exchange keeps them as safe.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use wmproxy_runtime::clock::{self, Ticks};

/// Tickets of one server, each under a kilobyte: as many connections as a burst of visitors wants at once.
const KEPT: usize = 64;

/// Servers whose tickets are kept.
const SERVERS: usize = 16;

/// The age up to which a ticket is used. A server of this program changes its keys every six hours, and still takes tickets of
/// those before.
const FRESH: Duration = Duration::from_secs(3600);

thread_local! {
    /// The ticket for the connection that this thread is about to begin. rustls asks for it while it makes one.
    static CHOSEN: Cell<Option<Tls13ClientSessionValue>> = const { Cell::new(None) };
}

/// The tickets of all servers that a connector leads to.
#[derive(Default)]
pub(super) struct Tickets(Mutex<HashMap<ServerName<'static>, Kept>>);

/// The newest last.
type Kept = VecDeque<(Ticks, Tls13ClientSessionValue)>;

impl Tickets {
    /// Chooses the newest for the connection that `begin` makes, which is told whether there is one.
    pub(super) fn choose<T>(&self, server: &ServerName<'static>, begin: impl FnOnce(bool) -> T) -> T {
        let newest = self.all().get_mut(server).and_then(Kept::pop_back);
        let chosen = newest.filter(|(since, _)| clock::now().since(*since) < FRESH).map(|(_, ticket)| ticket);
        let has_one = chosen.is_some();
        CHOSEN.set(chosen);
        let begun = begin(has_one);
        CHOSEN.take();
        begun
    }

    /// Forgets those of a server that does not take them.
    pub(super) fn forget(&self, server: &ServerName<'static>) {
        self.all().remove(server);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ServerName<'static>, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    /// What a light handshake has agreed on is nothing for another to begin with.
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut all = self.all();
        if all.len() >= SERVERS && !all.contains_key(&server) {
            all.clear();
        }
        let kept = all.entry(server).or_default();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((clock::now(), ticket));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        CHOSEN.take()
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("servers", &self.all().len()).finish()
    }
}
