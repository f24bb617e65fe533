//! A session: its control connection, from the login on.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock::Ticks;
use wmproxy_runtime::scope::Scope;
use wmproxy_wire::tunnel::codec::LIMIT;
use wmproxy_wire::tunnel::message::{Message, Nonce, Refusal, Register, Registered, SessionId};

use super::client::Client;
use super::registry::SessionNumber;
use super::tunnel_server::TunnelServer;
use crate::carrier::speech::{SpeechError, read_message, write_message};
use crate::datagrams::QuicDatagrams;

/// A heartbeat that is missed so often is a loss: one may be late, and two may be lost with what else was on the way.
const MISSED: u32 = 3;

/// How long a client may take for the last word.
pub(super) const LAST_WORD: Duration = Duration::from_secs(1);

/// How long nothing more is read of a client for each service that it has registered: some twenty times as long as it takes to
/// read and judge it. Thus a client of a thousand registers ten times a second at most, and nobody keeps a worker busy by it.
const REST: Duration = Duration::from_micros(100);

/// How often is looked whether a session that is to end with its last stream has none left.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// What a client has proven, and how it is told what concerns it.
pub(super) struct Session {
    pub(super) number: SessionNumber,
    pub(super) id: SessionId,
    pub(super) secret: Nonce,
    pub(super) client: Arc<Client>,
    pub(super) from: Option<SocketAddr>,
    pub(super) agent: String,
    pub(super) since: Ticks,
    /// The datagrams of its connection, over QUIC.
    pub(super) datagrams: Option<Arc<QuicDatagrams>>,
    pub(super) mailbox: Mailbox,
    /// Counts the visits that its client pays to others on its connections.
    pub(super) visits: Scope,
    /// A registration that nobody has looked at yet; a later one takes its place.
    pub(super) registering: Mutex<Option<Register>>,
}

impl Session {
    /// Whether anything passes that would end with it.
    fn is_in_use(&self) -> bool {
        self.client.gate.active() > 0 || self.visits.live() > 0
    }
}

/// Short, and without the secret, which no log may hold.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, client) = (self.number, &self.client.name);
        f.debug_struct("Session").field("number", &number).field("client", client).finish_non_exhaustive()
    }
}

/// What a session's client is to be told: of each kind the newest, so that it needs no bound.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    letters: Mutex<Letters>,
    posted: Notify,
    over: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Letters {
    registered: Option<Registered>,
    need: u32,
    is_leaving: bool,
    /// The last word.
    end: Option<Refusal>,
}

/// How a session ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// The client took its leave.
    Left,
    /// It broke off, for this reason.
    Lost(String),
    /// This end ended it.
    Ended(String),
}

impl Mailbox {
    fn post(&self, write: impl FnOnce(&mut Letters)) {
        write(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner));
        self.posted.notify_one();
    }

    /// So many more connections are waited for.
    pub(super) fn need(&self, more: u32) {
        self.post(|letters| letters.need = letters.need.saturating_add(more));
    }

    /// This became of what was registered.
    pub(super) fn registered(&self, registered: Registered) {
        self.post(|letters| letters.registered = Some(registered));
    }

    /// This end is about to go: the session ends with its last stream.
    pub(super) fn leave(&self) {
        self.post(|letters| letters.is_leaving = true);
    }

    /// The session is over.
    pub(super) fn end(&self, why: Refusal) {
        self.post(|letters| {
            letters.end.get_or_insert(why);
        });
        self.over.send_replace(true);
    }

    /// Waits until the session is to end, or has.
    pub(super) async fn over(&self) {
        // The sender is here, so that there is no error.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Turns true when the session is to end, or has.
    pub(super) fn watch_over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    async fn letters(&self) -> Letters {
        self.posted.notified().await;
        std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A control connection at work.
struct Control<'a> {
    server: &'a TunnelServer,
    session: &'a Session,
    stream: &'a Stream,
    heartbeat: Duration,
    heard: Instant,
    /// Until when nothing is read.
    rests: Instant,
    pings: u64,
    /// Whether this end has said that it is about to go.
    is_leaving: bool,
    /// Whether the client has.
    has_left: bool,
}

/// Ends a session that nobody serves any more, if nobody else has.
pub(super) struct Guard<'a> {
    server: &'a TunnelServer,
    session: Option<&'a Session>,
    why: &'static str,
}

impl<'a> Guard<'a> {
    pub(super) fn new(server: &'a TunnelServer, session: &'a Session, why: &'static str) -> Guard<'a> {
        Guard { server, session: Some(session), why }
    }

    pub(super) fn disarm(mut self) {
        self.session = None;
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            self.server.ended(session, &End::Ended(self.why.into()));
        }
    }
}

/// Serves a session's control connection until it ends, and tells the server that it has.
pub(super) async fn serve(server: &TunnelServer, session: &Session, stream: &Stream) {
    let guard = Guard::new(server, session, "its task was cut off");
    let end = speak(server, session, stream).await;
    guard.disarm();
    server.ended(session, &end);
}

async fn speak(server: &TunnelServer, session: &Session, stream: &Stream) -> End {
    let heartbeat = server.spec().heartbeat;
    let heard = Instant::now();
    let mut control = Control {
        server,
        session,
        stream,
        heartbeat,
        heard,
        rests: heard,
        pings: 0,
        is_leaving: false,
        has_left: false,
    };
    match control.run().await {
        Err(End::Lost(_)) if control.has_left => End::Left,
        // It need not wait for us to end what we said would end.
        Err(End::Lost(why)) if control.is_leaving => End::Ended(why),
        Ok(end) | Err(end) => end,
    }
}

impl Control<'_> {
    async fn run(&mut self) -> Result<End, End> {
        // When the client is asked whether it is there; once it was, when it is given up.
        let mut asked = 0;
        loop {
            let next = self.heard + self.heartbeat * (asked + 1);
            let look = if self.is_leaving { next.min(Instant::now() + LAST_LOOK) } else { next };
            tokio::select! {
                message = read_rested(self.stream, self.rests) => {
                    (self.heard, asked) = (Instant::now(), 0);
                    let message = message.map_err(|error| self.lost(error))?;
                    self.take(message).await?;
                }
                letters = self.session.mailbox.letters() => {
                    if let Some(end) = self.send(letters).await? {
                        return Ok(end);
                    }
                }
                () = tokio::time::sleep_until(look) => {
                    if self.is_leaving && !self.session.is_in_use() {
                        return Ok(End::Ended("the server is about to go".into()));
                    }
                    if Instant::now() >= next {
                        asked += 1;
                        if asked >= MISSED {
                            return Err(End::Lost("nothing was heard of it".into()));
                        }
                        self.pings += 1;
                        self.say(&Message::Ping(self.pings)).await?;
                    }
                }
            }
        }
    }

    /// Takes what the client says.
    async fn take(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Register(register) => {
                let services = u32::try_from(register.services.len()).unwrap_or(u32::MAX);
                self.rests = Instant::now() + REST.saturating_mul(services);
                self.server.registers(self.session, register);
            }
            Message::State(state) => self.server.changes_state(self.session, state),
            Message::Ping(number) => self.say(&Message::Pong(number)).await?,
            Message::Pong(_) => {}
            Message::Failed(failed) => {
                let why = failed.refusal.text.escape_debug();
                tracing::debug!(client = %self.session.client.name, service = failed.service, %why, "a visitor was not served");
            }
            Message::Leaving => {
                // What runs goes on until the client has enough of it, and closes.
                self.has_left = true;
                self.server.leaves(self.session);
            }
            _ => {
                self.server.count(|counters| &counters.broken);
                return Err(End::Lost("a message that has no place here".into()));
            }
        }
        Ok(())
    }

    async fn send(&mut self, letters: Letters) -> Result<Option<End>, End> {
        let Letters { registered, need, is_leaving, end } = letters;
        if let Some(why) = end {
            let text = why.text.clone();
            // It may have stopped listening: nobody waits for that.
            let word = Message::Refused(why);
            let _ = tokio::time::timeout(LAST_WORD, write_message(self.stream, &word)).await;
            return Ok(Some(End::Ended(text)));
        }
        if let Some(registered) = registered {
            self.say(&Message::Registered(registered)).await?;
        }
        if need > 0 {
            self.say(&Message::Need(need)).await?;
        }
        if is_leaving && !self.is_leaving {
            self.is_leaving = true;
            self.say(&Message::Leaving).await?;
        }
        Ok(None)
    }

    /// Says something. A client that takes nothing for as long as one may be silent is gone; for one whose session is over
    /// nobody waits so long.
    async fn say(&self, message: &Message) -> Result<(), End> {
        let limit = self.heartbeat * MISSED;
        tokio::select! {
            biased;
            written = tokio::time::timeout(limit, write_message(self.stream, message)) => match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(End::Lost(error.to_string())),
                Err(_) => Err(End::Lost("it takes nothing that is said to it".into())),
            },
            () = self.session.mailbox.over() => Err(End::Ended("it took nothing any more".into())),
        }
    }

    fn lost(&self, error: SpeechError) -> End {
        if matches!(error, SpeechError::Codec(_)) {
            self.server.count(|counters| &counters.broken);
        }
        End::Lost(error.to_string())
    }
}

/// The next message, and not before a time.
async fn read_rested(stream: &Stream, rests: Instant) -> Result<Message, SpeechError> {
    if rests > Instant::now() {
        tokio::time::sleep_until(rests).await;
    }
    read_message(stream, LIMIT).await
}
