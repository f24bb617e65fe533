//! A client as its visitors see it: the streams that lie ready for them, and the queue where they wait for one.
//!
//! It outlives its sessions, so that who waits when a session breaks off is served by the next.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use wmproxy_net::limit::{Gate, Limits};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::worker;

use super::registry::SessionNumber;
use super::session::Session;
use crate::carrier::Many;
use crate::options::GrantSpec;

/// Connections that carry many streams, of one session: one, and others while it is replaced.
const MAX_SHARED: usize = 4;

/// A client that may have a session.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: Arc<str>,
    /// The limits of its grant.
    pub(super) gate: Arc<Gate>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Arc<Session>>,
    /// Whether the session has said what its numbers mean.
    is_ready: bool,
    idle: Vec<Idle>,
    /// With their numbers; the last is the newest.
    shared: Vec<(u64, Many)>,
    waiting: VecDeque<oneshot::Sender<Ready>>,
}

/// A connection of the pool, and the slot of its worker.
#[derive(Debug)]
struct Idle {
    slot: usize,
    stream: Stream,
}

/// What a visitor's stream is made of, and the session that it is of.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) session: Arc<Session>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    One(Idle),
    Shared(u64, Many),
}

/// What there is for a visitor.
#[derive(Debug)]
pub(super) enum Taken {
    Ready(Ready),
    /// Nothing yet.
    Wait(oneshot::Receiver<Ready>),
    /// Nothing, and as many wait as may.
    Full,
}

/// Why a connection is not taken into a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// The session is over.
    Over,
    /// It has as many as it may.
    Full,
}

impl Client {
    pub(super) fn new(grant: &GrantSpec) -> Client {
        let client = Client { name: grant.name.clone(), gate: Arc::default(), state: Mutex::default() };
        client.set_limits(grant);
        client
    }

    pub(super) fn set_limits(&self, grant: &GrantSpec) {
        let (max, rate) = (grant.max_connections, grant.rate_limit);
        self.gate.set(&Limits { max, up: rate, down: rate, ..Limits::default() });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, if the client has one.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.state().session.clone()
    }

    /// Connections that lie ready, and visitors that wait.
    pub(super) fn counts(&self) -> (usize, u32, bool) {
        let state = self.state();
        let waiting = state.waiting.iter().filter(|waiting| !waiting.is_closed()).count();
        (state.idle.len(), u32::try_from(waiting).unwrap_or(u32::MAX), !state.shared.is_empty())
    }

    /// Has a new session take the place of whatever was there, the streams that lie ready included. Those who wait wait on.
    pub(super) fn begin(&self, session: &Arc<Session>) {
        let _old = self.state().replace(Some(session.clone()));
    }

    /// Takes away a session that is over, or that nobody is to come to any more, if it is still the one.
    pub(super) fn end(&self, session: SessionNumber) {
        let _old = self.state_of(session).map(|mut state| state.replace(None));
    }

    /// A session's numbers are known now: whoever waits is served, and more connections are asked for if there are too few.
    pub(super) fn ready(&self, session: SessionNumber) {
        let mut state = self.state();
        if state.session.as_ref().is_some_and(|current| current.number == session) && !state.is_ready {
            state.is_ready = true;
            state.serve_waiting();
            state.waiting.retain(|waiting| !waiting.is_closed());
            let more = state.waiting.len();
            if let Some(session) = state.session.as_ref().filter(|_| more > 0) {
                session.mailbox.need(u32::try_from(more).unwrap_or(u32::MAX));
            }
        }
    }

    /// Puts a connection into the pool, or gives it to who waits for one. It comes back if it is not taken.
    pub(super) fn put(
        &self,
        session: SessionNumber,
        stream: Stream,
        max_pool: u32,
    ) -> Result<(), (Stream, NotTaken)> {
        let max = usize::try_from(max_pool).unwrap_or(usize::MAX);
        let mut state = match self.state_of(session) {
            Ok(state) => state,
            Err(not_taken) => return Err((stream, not_taken)),
        };
        if state.idle.len() >= max {
            // Of those that died nobody has been told yet.
            state.idle.retain(|idle| idle.stream.is_quiet());
        }
        if state.idle.len() >= max && (state.waiting.is_empty() || !state.is_ready) {
            return Err((stream, NotTaken::Full));
        }
        state.idle.push(Idle { slot: worker::slot(), stream });
        if state.is_ready {
            state.serve_waiting();
        }
        Ok(())
    }

    /// Has streams come over a connection that carries many.
    ///
    /// Answers with its number, for [`unshare`](Client::unshare).
    pub(super) fn share(&self, session: SessionNumber, many: Many) -> Result<u64, NotTaken> {
        let mut state = self.state_of(session)?;
        if state.shared.len() >= MAX_SHARED {
            return Err(NotTaken::Full);
        }
        let number = state.shared.last().map_or(0, |(last, _)| last + 1);
        state.shared.push((number, many));
        if state.is_ready {
            state.serve_waiting();
        }
        Ok(number)
    }

    /// Takes away a connection that carries many, for it is over.
    pub(super) fn unshare(&self, session: SessionNumber, number: u64) {
        if let Ok(mut state) = self.state_of(session) {
            state.shared.retain(|(other, _)| *other != number);
        }
    }

    fn state_of(&self, session: SessionNumber) -> Result<MutexGuard<'_, State>, NotTaken> {
        let state = self.state();
        let is_it = state.session.as_ref().is_some_and(|current| current.number == session);
        if is_it { Ok(state) } else { Err(NotTaken::Over) }
    }

    /// What there is for a visitor; whoever has to wait stands behind those who wait already.
    pub(super) fn take(&self, max_waiting: u32) -> Taken {
        let mut state = self.state();
        if let Some(ready) = state.take() {
            return Taken::Ready(ready);
        }
        let max = usize::try_from(max_waiting).unwrap_or(usize::MAX);
        if state.waiting.len() >= max {
            state.waiting.retain(|waiting| !waiting.is_closed());
            if state.waiting.len() >= max {
                return Taken::Full;
            }
        }
        let (tell, told) = oneshot::channel();
        state.waiting.push_back(tell);
        if let Some(session) = state.session.as_ref().filter(|_| state.is_ready) {
            session.mailbox.need(1);
        }
        Taken::Wait(told)
    }
}

impl State {
    /// Begins anew; only who waits stays. The rest is for the caller to drop, without the lock.
    fn replace(&mut self, session: Option<Arc<Session>>) -> State {
        let waiting = std::mem::take(&mut self.waiting);
        std::mem::replace(self, State { session, waiting, ..State::default() })
    }

    fn take(&mut self) -> Option<Ready> {
        let session = self.session.clone().filter(|_| self.is_ready)?;
        if let Some((number, many)) = self.shared.last() {
            return Some(Ready { session, way: Way::Shared(*number, many.clone()) });
        }
        let slot = worker::slot();
        // The newest of this worker, for it needs no move; or else the newest.
        let own = self.idle.iter().rposition(|idle| idle.slot == slot);
        let idle = match own {
            Some(index) => self.idle.remove(index),
            None => self.idle.pop()?,
        };
        Some(Ready { session, way: Way::One(idle) })
    }

    fn serve_waiting(&mut self) {
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.is_closed() {
                continue;
            }
            let Some(ready) = self.take() else {
                self.waiting.push_front(waiting);
                return;
            };
            // Who has gone at this moment gives back what it was to get.
            if let Err(Ready { way: Way::One(idle), .. }) = waiting.send(ready) {
                self.idle.push(idle);
            }
        }
    }
}

impl Ready {
    /// Makes it a stream of the calling worker; none if it is dead.
    ///
    /// # Errors
    /// There is no room for it, here or on its connection.
    pub(super) async fn open(self) -> io::Result<Option<Stream>> {
        match self.way {
            Way::Shared(number, many) => match many.open().await {
                Ok(stream) => Ok(Some(stream)),
                Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => Err(error),
                Err(_) => {
                    // Whoever has it is about to find out; nobody else is to be led there until then.
                    self.session.client.unshare(self.session.number, number);
                    Ok(None)
                }
            },
            Way::One(Idle { slot, stream }) if slot == worker::slot() => {
                Ok(Some(stream).filter(Stream::is_quiet))
            }
            Way::One(Idle { stream, .. }) => {
                // Only its own worker's event queue knows whether something came, so the kernel is asked.
                let parts = stream.dismantle().filter(|parts| parts.is_quiet());
                parts.map(|parts| parts.assemble()).transpose()
            }
        }
    }
}
