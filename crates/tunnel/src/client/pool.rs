//! Connections that wait for visitors, so that none has to wait for a connection.
//!
//! Each worker keeps some, and what comes on one is served there. One that was taken is replaced at once. The server asks for
//! more when visitors wait; those that are then too many are not replaced when they are taken, and so the pool shrinks again.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock;
use wmproxy_wire::tunnel::codec::LOGIN_LIMIT;
use wmproxy_wire::tunnel::message::{Message, Purpose, RefusalCode, Start};

use super::backoff::Backoff;
use super::serve;
use super::session::{Count, Phase, Session, plain};
use crate::carrier::speech::{self, SpeechError};

/// Handshakes that a worker has in flight for one session. Enough for some hundred visitors a second over a way of 100 ms, and
/// few enough that they don't hold up those who are there: each takes half a millisecond of the worker.
const IN_FLIGHT: u32 = 32;

/// The most that a worker remembers to owe: visitors do not wait for ever.
const MOST_OWED: u32 = 4096;

/// A connection that has waited so long was a good one, whatever became of it.
const STEADY: Duration = Duration::from_secs(5);

/// The connections of a session that wait on one worker. Only that worker changes it; others read its numbers.
pub(super) struct Bench {
    /// How many should wait.
    target: u32,
    waiting: Count,
    connecting: Count,
    /// So many more visitors are there already.
    owed: Count,
    trouble: Mutex<Trouble>,
}

/// What went wrong of late.
struct Trouble {
    /// Nothing succeeded since; only one tries meanwhile.
    is_failing: bool,
    /// The next attempt is put off.
    is_resting: bool,
    backoff: Backoff,
}

impl Bench {
    /// A bench where `target` connections should wait; it is tried again after pauses up to `longest` when that fails.
    pub(super) fn new(target: u32, longest: Duration) -> Bench {
        let trouble = Trouble { is_failing: false, is_resting: false, backoff: Backoff::new(longest) };
        let none = Count::default;
        Bench { target, waiting: none(), connecting: none(), owed: none(), trouble: Mutex::new(trouble) }
    }

    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Connects as often as is wanted, and `more` times. On its worker.
    pub(super) fn fill(self: &Arc<Self>, session: &Arc<Session>, more: u32) {
        self.owed.store((self.owed.load(Relaxed) + more.min(MOST_OWED)).min(MOST_OWED), Relaxed);
        while self.wants_more() && session.phase() == Phase::Open {
            self.connecting.fetch_add(1, Relaxed);
            let (bench, session) = (self.clone(), session.clone());
            session.client.scope.clone().spawn(async move { bench.attempt(&session).await });
        }
    }

    fn wants_more(&self) -> bool {
        let (waiting, connecting) = (self.waiting(), self.connecting.load(Relaxed));
        let wanted = self.target + self.owed.load(Relaxed);
        let in_flight = match &*self.trouble() {
            Trouble { is_resting: true, .. } => 0,
            Trouble { is_failing: true, .. } => 1,
            Trouble { .. } => IN_FLIGHT,
        };
        connecting < in_flight && waiting + connecting < wanted
    }

    /// One connection, until a visitor takes it.
    async fn attempt(self: Arc<Self>, session: &Arc<Session>) {
        let connected = tokio::select! {
            connected = Box::pin(connect(session)) => Some(connected),
            () = session.over() => None,
        };
        self.connecting.fetch_sub(1, Relaxed);
        let stream = match connected {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return self.rest(session, &error).await,
            None => return,
        };
        self.waiting.fetch_add(1, Relaxed);
        let owed = self.owed.load(Relaxed);
        self.owed.store(owed.saturating_sub(1), Relaxed);
        self.trouble().is_failing = false;
        self.fill(session, 0);
        let since = clock::now();
        let start = tokio::select! {
            start = next_start(&stream, session.client.spec.connect_timeout) => Some(start),
            () = session.over() => None,
        };
        self.waiting.fetch_sub(1, Relaxed);
        if !matches!(start, Some(Err(_))) || clock::now().since(since) >= STEADY {
            self.trouble().backoff.reset();
        }
        match start {
            Some(Ok(start)) => {
                // The visitor first; what replaces the connection may take its time.
                serve::begin(session, stream, start);
                self.fill(session, 0);
            }
            // Those that it was for have left meanwhile, and more wait there than may.
            Some(Err(error)) if error.fault == Fault::Limited && self.waiting() >= self.target => {
                self.owed.store(0, Relaxed);
            }
            Some(Err(error)) => self.rest(session, &error).await,
            None => {}
        }
    }

    /// Puts the next attempt off. Whoever fails meanwhile just ends.
    async fn rest(self: Arc<Self>, session: &Arc<Session>, error: &ConnectError) {
        tracing::debug!(server = session.link.server, "no connection for visitors: {error}");
        let pause = {
            let mut trouble = self.trouble();
            if std::mem::replace(&mut trouble.is_resting, true) {
                return;
            }
            trouble.is_failing = true;
            trouble.backoff.pause(Duration::MAX)
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = session.over() => {}
        }
        self.trouble().is_resting = false;
        self.fill(session, 0);
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        // Nothing panics while it is held.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(session: &Session) -> Result<Stream, ConnectError> {
    let late = |_| ConnectError::new(Fault::TimedOut, "the server did not answer in time");
    timeout(session.client.spec.connect_timeout, session.join(Purpose::Wait)).await.map_err(late)?
}

/// Waits for the visitor that a stream is for. Who has begun to come has to be there `within` so long.
pub(super) async fn next_start(stream: &Stream, within: Duration) -> Result<Start, ConnectError> {
    match speech::read_message_begun(stream, LOGIN_LIMIT, within).await {
        Ok(Message::Start(start)) => Ok(start),
        Ok(Message::Refused(refusal)) => {
            let fault = if refusal.code == RefusalCode::Limit { Fault::Limited } else { Fault::Denied };
            Err(ConnectError::new(fault, plain(&refusal.text)))
        }
        Ok(_) => Err(ConnectError::new(Fault::Broken, "the server says something else than who comes")),
        Err(SpeechError::Ended) => Err(ConnectError::new(Fault::Reset, "the server has closed it")),
        Err(SpeechError::Io(error)) => Err(error.into()),
        Err(SpeechError::Codec(error)) => Err(ConnectError::new(Fault::Broken, error.to_string())),
    }
}
