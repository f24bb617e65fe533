//! A session with a server: what its parts share, on every worker, and the connections that join it.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_net::tls::{TlsError, TlsInfo};
use wmproxy_runtime::scope::Scope;
use wmproxy_wire::destination::Destination;
use wmproxy_wire::tunnel::codec;
use wmproxy_wire::tunnel::message::{ALPN, Failed, Join, Message, Purpose, Refusal, RefusalCode, Welcome};

use super::TunnelClient;
use super::flows::{self, Flows};
use super::link::Link;
use super::offers::Offers;
use super::pool::Bench;
use super::serve::Serving;
use crate::auth;
use crate::carrier::Many;
use crate::carrier::speech::{self, SpeechError};
use crate::datagrams::QuicDatagrams;
use crate::options::Trust;

/// Messages that may wait to be written from workers. They are for the other end's log, so what is more is lost.
const NOTES: usize = 64;

/// No server has its clients talk more often than that.
const SHORTEST_BEAT: Duration = Duration::from_secs(1);

/// What is shown at most of what a server says.
const SHOWN: usize = 300;

/// A session that stands, or stood.
pub(super) struct Session {
    pub(super) client: Arc<TunnelClient>,
    pub(super) link: Arc<Link>,
    welcome: Welcome,
    /// Of the certificate of who has proven the key, in hex digits.
    fingerprint: Option<String>,
    phase: watch::Sender<Phase>,
    /// What its visitors are served by.
    pub(super) serving: ArcSwap<Serving>,
    notes: mpsc::Sender<Message>,
    /// Counts the streams that it has to stay for.
    pub(super) visitors: Scope,
    /// The waiting connections, by worker. Empty where streams share a connection.
    benches: OnceLock<Vec<Arc<Bench>>>,
    /// Where the next connection goes that the server asks for.
    turn: AtomicUsize,
    /// What carries its streams, if one connection does.
    pub(super) many: OnceLock<Many>,
    /// The datagrams of that connection, if it is one of QUIC.
    pub(super) datagrams: OnceLock<Arc<QuicDatagrams>>,
    pub(super) flows: Flows,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Visitors come.
    Open,
    /// Who is on the way may still come, and who is there may stay.
    Leaving,
    /// The server knows nothing of it any more.
    Over,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("its address is none that can be connected to")]
    NoAddress,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    #[error("what answers there is no tunnel server")]
    NoTunnel,
    #[error("it did not answer within {0:?}")]
    Late(Duration),
    #[error(transparent)]
    Speech(#[from] SpeechError),
    #[error("{}", plain(&.0.text))]
    Refused(Refusal),
    #[error("it speaks version {0} of the protocol, which this client does not")]
    Version(u16),
    #[error("it does not know the client's key: it is another server, or somebody stands in between")]
    Unproven,
    #[error("it broke the protocol by {0}")]
    Broken(&'static str),
    #[error("the session was lost: nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("the session was lost: this machine has no longer the address that it went from")]
    AddressGone,
    #[error("further connections are answered with another certificate than the login")]
    OtherIdentity,
    #[error("it is about to go")]
    Leaves,
    #[error("the workers have ended")]
    NoWorkers,
}

impl From<io::Error> for SessionError {
    fn from(error: io::Error) -> SessionError {
        SessionError::Speech(SpeechError::Io(error))
    }
}

impl SessionError {
    /// Whether nobody listens there: asking again soon costs nobody anything.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, SessionError::Connect(ConnectError { fault: Fault::Refused, .. }))
    }

    /// Whether a session that stood was cut off, without a word of why.
    pub(super) fn is_loss(&self) -> bool {
        matches!(
            self,
            SessionError::Speech(SpeechError::Ended | SpeechError::Io(_))
                | SessionError::Silent(_)
                | SessionError::AddressGone
                | SessionError::Leaves
        )
    }

    /// Whether only people can do something about it.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            SessionError::Refused(refusal) => {
                // Of a name that somebody else uses, too: both would only end each other's sessions by turns.
                use RefusalCode::{InUse, Unauthenticated, Version};
                matches!(refusal.code, Unauthenticated | Version | InUse)
            }
            SessionError::NoAddress | SessionError::Version(_) | SessionError::Unproven => true,
            _ => false,
        }
    }
}

impl Session {
    /// A session as the server grants it. Beside it what its workers have to say to the server.
    pub(super) fn new(
        client: Arc<TunnelClient>,
        link: Arc<Link>,
        welcome: Welcome,
        fingerprint: Option<String>,
    ) -> (Arc<Session>, mpsc::Receiver<Message>) {
        let (notes, noted) = mpsc::channel(NOTES);
        let session = Session {
            client,
            link,
            welcome,
            fingerprint,
            phase: watch::Sender::new(Phase::Open),
            serving: ArcSwap::default(),
            notes,
            visitors: Scope::new(),
            benches: OnceLock::new(),
            turn: AtomicUsize::new(0),
            many: OnceLock::new(),
            datagrams: OnceLock::new(),
            flows: Flows::default(),
        };
        (Arc::new(session), noted)
    }

    /// How long either end may be silent: what the options say, or less if the server wants that.
    pub(super) fn heartbeat(&self) -> Duration {
        let wanted = Duration::from_millis(self.welcome.heartbeat_ms.into());
        let own = self.client.spec.heartbeat;
        if wanted.is_zero() { own } else { own.min(wanted.max(SHORTEST_BEAT)) }
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to a phase, never back.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let is_later = phase > *now;
            *now = phase.max(*now);
            is_later
        });
    }

    /// Waits until it is over.
    pub(super) async fn over(&self) {
        // Its sender is in here, so that it can't be gone.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Over).await;
    }

    /// Serves visitors by these offers from now on.
    pub(super) fn offer(self: &Arc<Self>, offers: &Offers) {
        self.serving.store(Arc::new(Serving::new(offers, &self.notes)));
        flows::follow(self, offers);
    }

    /// Has the server's log say that a visitor could not be served.
    pub(super) fn note_failure(&self, service: u32, code: RefusalCode, text: impl Into<String>) {
        let refusal = Refusal { code, text: text.into() };
        let _ = self.notes.try_send(Message::Failed(Failed { service, refusal }));
    }

    /// Keeps connections ready for visitors on all workers.
    pub(super) fn fill_pool(self: &Arc<Self>) {
        let workers = self.client.workers.count();
        let size = self.client.spec.pool.min(self.welcome.max_pool);
        // What does not divide goes to other workers for another server.
        let share = |worker: usize| {
            let place = (worker + workers - self.link.index % workers.max(1)) % workers.max(1);
            let (size, workers) = (size as usize, workers.max(1));
            size / workers + usize::from(place < size % workers)
        };
        let bench = |worker| {
            let target = u32::try_from(share(worker)).unwrap_or(u32::MAX);
            Arc::new(Bench::new(target, self.client.spec.max_backoff))
        };
        let benches = self.benches.get_or_init(|| (0..workers).map(bench).collect());
        for worker in 0..benches.len() {
            self.fill_bench(worker, 0);
        }
    }

    /// So many more connections are waited for.
    pub(super) fn need(self: &Arc<Self>, more: u32) {
        let Some(benches) = self.benches.get() else { return };
        let workers = u32::try_from(benches.len()).unwrap_or(u32::MAX);
        if workers == 0 {
            return;
        }
        // Each gets its share, and the rest goes round.
        for _ in 0..workers.min(more) {
            let worker = self.turn.fetch_add(1, Ordering::Relaxed) % benches.len();
            self.fill_bench(worker, more.div_ceil(workers));
        }
    }

    fn fill_bench(self: &Arc<Self>, worker: usize, more: u32) {
        let Some(bench) = self.benches.get().and_then(|benches| benches.get(worker)).cloned() else { return };
        let session = self.clone();
        // Without that worker the process is about to end.
        self.client.workers.run(worker, move || bench.fill(&session, more));
    }

    /// Connections that wait ready for visitors.
    pub(super) fn waiting(&self) -> u32 {
        self.benches.get().map_or(0, |benches| benches.iter().map(|bench| bench.waiting()).sum())
    }

    /// Connects to the server on the calling worker, for a part in this session. Sets no deadline.
    pub(super) async fn join(&self, purpose: Purpose) -> Result<Stream, ConnectError> {
        let stream = self.client.reach.connect(self.to()?).await?;
        if self.introduce(&stream, purpose, None, true).await? {
            return Ok(stream);
        }
        let stream = self.client.reach.connect(self.to()?).await?;
        self.introduce(&stream, purpose, None, false).await?;
        Ok(stream)
    }

    /// The same on any thread, with something to say behind it.
    pub(super) async fn join_alone(&self, purpose: Purpose, then: &Message) -> Result<Stream, ConnectError> {
        let stream = self.client.reach.connect_alone(self.to()?).await?;
        if self.introduce(&stream, purpose, Some(then), true).await? {
            return Ok(stream);
        }
        let stream = self.client.reach.connect_alone(self.to()?).await?;
        self.introduce(&stream, purpose, Some(then), false).await?;
        Ok(stream)
    }

    fn to(&self) -> Result<&Destination, ConnectError> {
        let none =
            || ConnectError::new(Fault::NoWay, "the server's address is none that can be connected to");
        self.link.to.as_ref().ok_or_else(none)
    }

    /// TLS, and the proof that the connection is this session's. With `again` by a session of TLS that the server should know;
    /// false if it does not, and the connection is of no use: another server of that name has come in between, or it has
    /// other keys now.
    async fn introduce(
        &self,
        stream: &Stream,
        purpose: Purpose,
        then: Option<&Message>,
        again: bool,
    ) -> Result<bool, ConnectError> {
        let Link { server, host, .. } = &*self.link;
        let secured = if again {
            self.client.tls.secure_again(stream, server, host).await
        } else {
            self.client.tls.secure(stream, server, host).await
        };
        let info = match secured {
            Err(error) if is_forgotten(&error) => return Ok(false),
            secured => secured?,
        };
        // The way may lead through a proxy that passes no half-close on.
        stream.end_within_tls();
        if !self.is_same_server(&info) {
            self.enter(Phase::Over);
            let text = "who answers has another certificate than who has proven the key";
            return Err(ConnectError::new(Fault::Tls, text));
        }
        let exporter = stream.export_keying_material(auth::EXPORTER_LABEL, &[]).filter(|_| is_tunnel(&info));
        let exporter = exporter
            .ok_or_else(|| ConnectError::new(Fault::Tls, "what answers there is no tunnel server"))?;
        let mac = auth::join_proof(&self.welcome.secret, &exporter, purpose);
        let mut bytes = Vec::new();
        codec::encode(&Message::Join(Join { session: self.welcome.session, purpose, mac }), &mut bytes);
        if let Some(message) = then {
            codec::encode(message, &mut bytes);
        }
        speech::write_all(stream, &bytes).await?;
        Ok(true)
    }

    /// Whether a further connection leads to who has proven the key. Only this end proves anything on it, so that where TLS
    /// takes any certificate, it has to be the same: or who stands in between by now could send visitors of their own. A
    /// server that has another certificate by now is believed again by a login.
    fn is_same_server(&self, info: &TlsInfo) -> bool {
        let shown = info.client.as_ref().map(|certificate| &certificate.fingerprint);
        self.client.spec.trust != Trust::Key || shown == self.fingerprint.as_ref()
    }
}

fn is_forgotten(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    matches!(tls, Some(TlsError::Forgotten))
}

/// What a server says, fit for a line of a log and for a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().take(SHOWN).map(|char| if is_order(char) { ' ' } else { char }).collect()
}

/// Whether a terminal takes it for an order: control characters, line separators, and the marks that turn the direction of
/// writing around.
fn is_order(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether the handshake was with a tunnel server, by the TLS that a proof can be bound to.
pub(super) fn is_tunnel(info: &TlsInfo) -> bool {
    info.version == "TLSv1.3" && info.alpn.as_deref() == Some(ALPN.as_bytes())
}

/// How many connections wait ready, for all to count.
pub(super) type Count = AtomicU32;
