//! What is said before anything else: who it is that comes, or which session the connection belongs to.
//!
//! All of it happens under one deadline, with little memory, and before a connection may carry anything. What is refused is
//! refused in the same words, whether the name is unknown or the key is wrong, and whether the session is unknown or the
//! proof is wrong.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock;
use wmproxy_runtime::scope::Scope;
use wmproxy_wire::tunnel::codec::LOGIN_LIMIT;
use wmproxy_wire::tunnel::message::{
    Challenge, Hello, Join, Message, Purpose, Refusal, RefusalCode, SessionId, VERSION, Visit, Welcome,
};

use super::session::{Guard, Mailbox, Session};
use super::tunnel_server::{Shown, TunnelServer};
use crate::auth::{self, Exporter};
use crate::carrier::speech::{SpeechError, read_message, write_message};
use crate::datagrams::QuicDatagrams;

/// A connection on which something is to be proven.
pub(super) struct Newcomer<'a> {
    pub(super) stream: &'a Stream,
    pub(super) exporter: Exporter,
    pub(super) from: Option<SocketAddr>,
    /// The datagrams of its connection, over QUIC.
    pub(super) datagrams: Option<Arc<QuicDatagrams>>,
}

/// What a connection has proven.
#[derive(Debug)]
pub(super) enum Proven {
    /// It is a session's control connection.
    Session(Arc<Session>),
    /// It waits for a visitor of a session, or carries many.
    Joined(Arc<Session>, Joined),
}

/// What a further connection of a session is for.
#[derive(Debug)]
pub(super) enum Joined {
    Wait,
    Many,
    Visit(Visit),
}

/// Why a connection has proven nothing.
#[derive(Debug)]
pub(super) enum Unproven {
    /// It was told so.
    Refused(Refusal),
    /// It says something else, or nothing.
    Broken(String),
}

impl From<SpeechError> for Unproven {
    fn from(error: SpeechError) -> Unproven {
        Unproven::Broken(error.to_string())
    }
}

impl From<std::io::Error> for Unproven {
    fn from(error: std::io::Error) -> Unproven {
        Unproven::Broken(error.to_string())
    }
}

impl TunnelServer {
    /// Hears what a newcomer has to say, and tells it if the answer is no. Sets no deadline of its own.
    pub(super) async fn greet(&self, newcomer: &Newcomer<'_>) -> Result<Proven, Unproven> {
        let proven = match read_message(newcomer.stream, LOGIN_LIMIT).await? {
            Message::Hello(hello) => self.login(newcomer, hello).await.map(Proven::Session),
            // On a connection of QUIC the first stream is for the login.
            Message::Join(join) if newcomer.datagrams.is_none() => self.join(newcomer, join).await,
            _ => Err(Unproven::Broken("it begins with neither a login nor a session".into())),
        };
        if let Err(Unproven::Refused(refusal)) = &proven {
            write_message(newcomer.stream, &Message::Refused(refusal.clone())).await?;
        }
        proven
    }

    async fn login(&self, newcomer: &Newcomer<'_>, hello: Hello) -> Result<Arc<Session>, Unproven> {
        if hello.version == 0 {
            return Err(refused(RefusalCode::Version, "this version is not spoken here"));
        }
        let challenge =
            Challenge { version: hello.version.min(VERSION), capabilities: 0, nonce: auth::nonce() };
        write_message(newcomer.stream, &Message::Challenge(challenge.clone())).await?;
        let Message::Proof(mac) = read_message(newcomer.stream, LOGIN_LIMIT).await? else {
            return Err(Unproven::Broken("it answers a challenge with something else".into()));
        };
        let spec = self.spec();
        let key = spec.grant(&hello.name).map_or(auth::dummy_key(), |grant| &grant.key);
        let expected = auth::client_proof(key, &newcomer.exporter, &hello, &challenge);
        // The comparison comes first, for a name that nobody has as for any other.
        let is_proven = auth::is_same(&mac, &expected);
        let client = self.clients.load().get(hello.name.as_str()).cloned().filter(|_| is_proven);
        let unknown = || refused(RefusalCode::Unauthenticated, "the client is unknown, or its key is wrong");
        let client = client.ok_or_else(unknown)?;
        if self.is_draining() {
            return Err(refused(RefusalCode::Leaving, "the server is about to go"));
        }
        let mut id = SessionId::default();
        id.copy_from_slice(&auth::nonce()[..size_of::<SessionId>()]);
        let session = self.begin(&client, key, |number| Session {
            number,
            id,
            secret: auth::nonce(),
            client: client.clone(),
            from: newcomer.from,
            agent: hello.agent.clone(),
            since: clock::now(),
            datagrams: newcomer.datagrams.clone(),
            mailbox: Mailbox::default(),
            visits: Scope::new(),
            registering: Mutex::default(),
        });
        let session = session.ok_or_else(unknown)?;
        let welcome = Welcome {
            session: session.id,
            secret: session.secret,
            mac: auth::server_proof(key, &newcomer.exporter, &hello, &challenge),
            heartbeat_ms: u32::try_from(spec.heartbeat.as_millis()).unwrap_or(u32::MAX),
            max_pool: spec.max_pool,
            agent: concat!("wmproxy ", env!("CARGO_PKG_VERSION")).into(),
        };
        // From here on the session stands, whatever becomes of its connection.
        let guard = Guard::new(self, &session, "the connection broke off in the middle of the login");
        write_message(newcomer.stream, &Message::Welcome(welcome)).await?;
        guard.disarm();
        Ok(session)
    }

    async fn join(&self, newcomer: &Newcomer<'_>, join: Join) -> Result<Proven, Unproven> {
        let no_session = || {
            self.count(|counters| &counters.joins_refused);
            refused(RefusalCode::NoSession, "the session is over, or never was")
        };
        let session = self.sessions().get(&join.session).cloned();
        // For a session that is none a proof is judged, too, so that both take as long.
        let secret = session.as_ref().map_or([0; 32], |session| session.secret);
        let expected = auth::join_proof(&secret, &newcomer.exporter, join.purpose);
        let is_proven = auth::is_same(&join.mac, &expected);
        let session = session.filter(|_| is_proven).ok_or_else(no_session)?;
        let joined = match join.purpose {
            Purpose::Wait => Joined::Wait,
            Purpose::Many => Joined::Many,
            Purpose::Visit => match read_message(newcomer.stream, LOGIN_LIMIT).await? {
                Message::Visit(visit) => Joined::Visit(visit),
                _ => return Err(Unproven::Broken("it is for a visit, and says none".into())),
            },
        };
        self.count(|counters| &counters.joins);
        Ok(Proven::Joined(session, joined))
    }

    /// Notes that somebody has proven nothing.
    pub(super) fn note_unproven(&self, unproven: &Unproven, from: Option<SocketAddr>) {
        let (text, is_refused) = match unproven {
            Unproven::Refused(refusal) => (&refusal.text, true),
            Unproven::Broken(text) => (text, false),
        };
        match unproven {
            // Counted where it is found out.
            Unproven::Refused(refusal) if refusal.code == RefusalCode::NoSession => {}
            Unproven::Refused(_) => self.count(|counters| &counters.logins_refused),
            Unproven::Broken(_) => self.count(|counters| &counters.broken),
        }
        let (from, why) = (Shown(from), text.escape_debug());
        if !is_refused {
            tracing::debug!(%from, %why, "a connection to the tunnel server proved nothing");
        } else if let Some(others) = self.pace.admit() {
            tracing::warn!(%from, %why, others, "a connection to the tunnel server was refused");
        }
    }
}

fn refused(code: RefusalCode, text: &str) -> Unproven {
    Unproven::Refused(Refusal { code, text: text.into() })
}
