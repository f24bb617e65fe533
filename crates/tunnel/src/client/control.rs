//! The conversation of a session with its server: what is offered, who is still there, what is wanted.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};
use wmproxy_net::addr::Address;
use wmproxy_net::changes;
use wmproxy_net::stream::Stream;
use wmproxy_wire::tunnel::codec::LIMIT;
use wmproxy_wire::tunnel::message::{Message, Registered, State};

use super::TunnelClient;
use super::link::Link;
use super::login::LoggedIn;
use super::offers::Offers;
use super::session::{Phase, Session, SessionError, plain};
use super::shared;
use crate::carrier::speech::{read_message, write_message};
use crate::options::TransportKind;

/// How long visitors may still come who were sent on their way before the server knew that this end is about to go.
const LATE: Duration = Duration::from_secs(1);

/// How long the server may be silent after a change of the network: what goes over a new way answers sooner.
const PROBE: Duration = Duration::from_secs(3);

/// How many heartbeats the server may be silent.
const BEATS: u32 = 3;

/// One end of the conversation.
pub(super) struct Control {
    stream: Stream,
    session: Arc<Session>,
    notes: mpsc::Receiver<Message>,
    /// What the server was told to be offered, and which of that is up.
    registered: Arc<Offers>,
    told_up: Vec<bool>,
    news: watch::Receiver<u64>,
    network: watch::Receiver<u64>,
    leaving: watch::Receiver<bool>,
    /// When this end began to leave.
    left_at: Option<Instant>,
    server_leaves: bool,
    pulse: Pulse,
}

/// When something was heard, and when something is to be said.
struct Pulse {
    heartbeat: Duration,
    heard: Instant,
    /// The server has to be heard by then.
    deadline: Instant,
    next_ping: Instant,
    /// The last ping's number, and when it went; none when it came back.
    ping: u64,
    sent: Option<Instant>,
}

/// What happens next in a conversation.
enum Event {
    Heard(Message),
    /// Something else is offered, or something is up or down.
    News,
    /// A worker has something to say.
    Note(Message),
    /// A ping, or the end of patience.
    Due,
    NetworkChanged,
    Leave,
    NobodyLeft,
}

/// How a conversation ended.
pub(super) enum Ending {
    /// Not as it should.
    Lost(SessionError),
    /// The server is about to go. The conversation goes on for those who are there.
    ServerLeaves,
    /// All is said.
    Left,
}

impl Control {
    /// Begins the session that a login has brought.
    pub(super) fn new(client: &Arc<TunnelClient>, link: &Arc<Link>, logged_in: LoggedIn) -> Control {
        let LoggedIn { stream, connection, welcome, fingerprint } = logged_in;
        tracing::info!(
            server = link.server,
            agent = welcome.agent,
            "a session with the tunnel server stands"
        );
        let (session, notes) = Session::new(client.clone(), link.clone(), welcome, fingerprint);
        if let Some(connection) = connection {
            shared::carry(&session, connection);
        }
        let mut news = client.news.subscribe();
        // What there is already is told at the start.
        news.mark_changed();
        let mut network = client.network.subscribe();
        network.mark_unchanged();
        Control {
            pulse: Pulse::new(session.heartbeat()),
            stream,
            session,
            notes,
            registered: Arc::default(),
            told_up: Vec::new(),
            news,
            network,
            leaving: client.leaving.subscribe(),
            left_at: None,
            server_leaves: false,
        }
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Has visitors come, as the server sends them.
    pub(super) fn open(&self) {
        let spec = &self.session.client.spec;
        match spec.transport {
            // One connection carries all there is.
            TransportKind::Quic => {}
            TransportKind::Tcp if spec.mux => shared::keep(&self.session),
            TransportKind::Tcp => self.session.fill_pool(),
        }
    }

    /// Talks until there is nothing more to say, or for now.
    pub(super) async fn run(&mut self) -> Ending {
        loop {
            match self.turn().await {
                Ok(None) => {}
                Ok(Some(ending)) => return ending,
                Err(_) if self.left_at.is_some() || self.server_leaves => return Ending::Left,
                Err(error) => return Ending::Lost(error),
            }
        }
    }

    /// Talks on with a server that is about to go, until it has gone or nobody is left.
    pub(super) fn linger(mut self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { while let Ending::ServerLeaves = self.run().await {} })
    }

    /// One thing that is heard, or said.
    async fn turn(&mut self) -> Result<Option<Ending>, SessionError> {
        match self.next().await? {
            Event::Heard(message) => return self.hear(message).await,
            Event::News => self.tell_news().await?,
            Event::Note(note) => self.say(&note).await?,
            Event::Due => self.beat().await?,
            Event::NetworkChanged if self.has_lost_its_address() => return Err(SessionError::AddressGone),
            Event::NetworkChanged => {
                self.pulse.deadline = self.pulse.deadline.min(Instant::now() + PROBE);
                self.ping().await?;
            }
            Event::Leave => self.leave().await?,
            Event::NobodyLeft => {
                let _ = std::future::poll_fn(|cx| self.stream.poll_shutdown_write(cx)).await;
                return Ok(Some(Ending::Left));
            }
        }
        Ok(None)
    }

    async fn next(&mut self) -> Result<Event, SessionError> {
        let stays = self.left_at.is_none();
        let due = self.pulse.next_ping.min(self.pulse.deadline);
        let event = tokio::select! {
            message = read_message(&self.stream, LIMIT) => Event::Heard(message?),
            _ = self.news.changed(), if stays => Event::News,
            Some(note) = self.notes.recv() => Event::Note(note),
            () = sleep_until(due.into()) => Event::Due,
            _ = self.network.changed() => Event::NetworkChanged,
            _ = self.leaving.wait_for(|leaving| *leaving), if stays => Event::Leave,
            () = nobody_left(&self.session, self.left_at), if !stays => Event::NobodyLeft,
            // A join has found out.
            () = self.session.over() => return Err(SessionError::OtherIdentity),
        };
        Ok(event)
    }

    async fn hear(&mut self, message: Message) -> Result<Option<Ending>, SessionError> {
        self.pulse.hear();
        match message {
            Message::Ping(number) => self.say(&Message::Pong(number)).await?,
            Message::Pong(number) => {
                if let Some(sent) = self.pulse.sent.take_if(|_| number == self.pulse.ping) {
                    self.session.link.measured(sent.elapsed());
                }
            }
            Message::Registered(registered) => self.hear_placed(registered),
            Message::Need(more) => self.session.need(more),
            Message::Failed(failed) => {
                let (server, service) = (&self.session.link.server, failed.service);
                tracing::debug!(server, service, "a visitor was not served: {}", plain(&failed.refusal.text));
            }
            Message::Leaving if !self.server_leaves => {
                self.server_leaves = true;
                self.session.enter(Phase::Leaving);
                return Ok(Some(Ending::ServerLeaves));
            }
            Message::Leaving => {}
            Message::Refused(refusal) => return Err(SessionError::Refused(refusal)),
            _ => return Err(SessionError::Broken("a message that is not for a client")),
        }
        Ok(None)
    }

    fn hear_placed(&self, registered: Registered) {
        // An answer to an earlier question is soon followed by the one that counts.
        if registered.epoch == self.registered.epoch {
            self.session.link.placed(&self.registered, registered.results);
        }
    }

    /// Tells what is offered if that has changed, or which of it is up.
    async fn tell_news(&mut self) -> Result<(), SessionError> {
        let offers = self.session.client.offers.load_full();
        if offers.epoch != self.registered.epoch {
            // Before the server knows of them: it may send somebody at once.
            self.session.offer(&offers);
            let register = offers.register();
            self.told_up = register.services.iter().map(|service| service.is_up).collect();
            self.registered = offers;
            return self.say(&Message::Register(register)).await;
        }
        for at in 0..self.told_up.len() {
            let Some(offered) = self.registered.list.get(at) else { break };
            let state = State { id: offered.id, is_up: offered.is_up() };
            if self.told_up[at] != state.is_up {
                self.told_up[at] = state.is_up;
                self.say(&Message::State(state)).await?;
            }
        }
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), SessionError> {
        self.left_at = Some(Instant::now());
        self.session.enter(Phase::Leaving);
        if !self.server_leaves {
            self.session.link.leaving();
        }
        self.say(&Message::Leaving).await
    }

    /// Asks whether the server is there, if it is time to, and gives it up if it has not been heard for too long.
    async fn beat(&mut self) -> Result<(), SessionError> {
        let now = Instant::now();
        if now >= self.pulse.deadline {
            return Err(SessionError::Silent(now.saturating_duration_since(self.pulse.heard)));
        }
        self.ping().await
    }

    /// Whether the session's own connection goes from an address that this machine has no longer. One of QUIC moves to another.
    fn has_lost_its_address(&self) -> bool {
        match self.stream.local_address() {
            Ok(Address::Inet(address)) => !changes::is_ours(address),
            _ => false,
        }
    }

    async fn ping(&mut self) -> Result<(), SessionError> {
        let now = Instant::now();
        self.pulse.next_ping = now + self.pulse.heartbeat;
        self.pulse.ping += 1;
        self.pulse.sent = Some(now);
        self.say(&Message::Ping(self.pulse.ping)).await
    }

    async fn say(&self, message: &Message) -> Result<(), SessionError> {
        let patience = self.pulse.heartbeat * BEATS;
        let silent = |_| SessionError::Silent(patience);
        Ok(timeout(patience, write_message(&self.stream, message)).await.map_err(silent)??)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.session.enter(Phase::Over);
        if let Some(many) = self.session.many.get() {
            many.close();
        }
    }
}

impl Pulse {
    fn new(heartbeat: Duration) -> Pulse {
        let now = Instant::now();
        let deadline = now + heartbeat * BEATS;
        // The first ping goes at once, to measure the way.
        Pulse { heartbeat, heard: now, deadline, next_ping: now, ping: 0, sent: None }
    }

    fn hear(&mut self) {
        self.heard = Instant::now();
        self.deadline = self.heard + self.heartbeat * BEATS;
    }
}

/// Waits until everybody who could come has come, and gone.
async fn nobody_left(session: &Session, left_at: Option<Instant>) {
    if let Some(left_at) = left_at {
        sleep_until((left_at + LATE).into()).await;
    }
    session.visitors.empty().await;
}
