//! SOCKS 4, 4a and 5 towards clients.
//!
//! What lives here: the handshake up to the reply, for CONNECT and BIND, and the association of datagrams. What must not: the
//! bytes (`wmproxy_wire::socks`), who may come and where they may go (the [gateway](SocksGateway)), and the relay, which
//! holds nothing of all this.
//!
//! A client passes through so: it proves who it is, before anything is resolved or connected; it says what it wants; the
//! rules decide; the connection is made; only then is it told that it has been granted. What it has sent behind its request
//! goes to the peer.

mod associate;
mod bind;
mod connect;
mod gateway;
mod greeting;
mod reply;
mod talk;

use std::sync::Arc;

use tokio::time::Instant;
use wmproxy_http::facts::ConnFacts;
use wmproxy_http::forward::{Guest, Unknown, Visit, Way};
use wmproxy_net::conn::Conn;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::relay::Terms;
use wmproxy_net::stream::Stream;
use wmproxy_wire::destination::{BadHost, Destination};
use wmproxy_wire::socks::{Command, SocksError};

use crate::service::ForwardService;
use reply::Answer;
use talk::{Stop, Talk};

pub(crate) use associate::Association;
pub use gateway::{Allowance, SocksGateway};
pub(crate) use reply::Version;

/// What a handshake has come to.
#[derive(Debug)]
pub(crate) enum Agreed {
    /// Bytes are to be relayed.
    Tunnel(Tunnel),
    /// Datagrams are to be relayed, which the client is told once they can be.
    Association(Box<Association>),
}

/// The far end of a connection.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// The connection there.
    pub(crate) peer: Stream,
    /// How the bytes pass.
    pub(crate) terms: Terms,
    /// Holds the client's place.
    pub(crate) guest: Arc<dyn Guest>,
}

/// A request, with who asks.
#[derive(Debug)]
struct Asked {
    command: Command,
    to: Result<Destination, BadHost>,
    guest: Arc<dyn Guest>,
}

/// Does the handshake with a client that has begun with `first`, and has until `due` for its part.
///
/// # Errors
/// How the connection ended instead; the client was told why.
pub(crate) async fn agree(
    service: &ForwardService,
    version: Version,
    first: Vec<u8>,
    due: Instant,
    conn: &mut Conn,
    facts: Box<ConnFacts>,
) -> Result<Agreed, Outcome> {
    conn.record.forwarded_mut().kind = Some(version.kind().as_str());
    let mut talk = Talk::new(&conn.stream, first, due);
    let asked = match greeting::hear(&mut talk, service, version, &mut conn.record, &facts).await {
        Ok(asked) => asked,
        Err(refused) => return Err(refuse(talk, version, refused).await),
    };
    let errand = Errand { gateway: &**service.gateway(), service, version, guest: &asked.guest };
    let done = match (asked.command, &asked.to) {
        (Command::Connect, Ok(to)) => connect::run(&errand, &mut talk, &mut conn.record, to).await,
        (Command::Bind, Ok(to)) if service.spec().bind_command => {
            // Boxed, for hardly anybody asks for it, and half a handshake is to hold little.
            Box::pin(bind::run(&errand, &mut talk, &mut conn.record, to)).await
        }
        (Command::Associate, Ok(from)) if version == Version::V5 && service.spec().udp.enabled => {
            match Association::open(service, conn, asked.guest, from) {
                Ok(association) => {
                    talk.settle().await?;
                    return Ok(Agreed::Association(Box::new(association)));
                }
                Err(error) => {
                    let listener = &service.spec().listener.name;
                    match error.fault {
                        // It is the config that says so, not the client.
                        Fault::Unsupported => tracing::info!(%listener, %error, "no association for SOCKS"),
                        _ => tracing::debug!(%listener, %error, "no association for SOCKS"),
                    }
                    return Err(refuse(talk, version, error.into()).await);
                }
            }
        }
        (Command::Connect | Command::Bind | Command::Associate, Err(bad)) => {
            tracing::debug!(listener = %service.spec().listener.name, %bad, "no host for SOCKS");
            Err(Refused::Told(Answer::Failed(Fault::Unresolved)))
        }
        _ => Err(Refused::Told(Answer::NoSuchCommand)),
    };
    match done {
        Ok(peer) => {
            talk.settle().await?;
            let listener = &service.spec().listener;
            let terms = Terms { splice: listener.splice, ..Terms::new(listener.timeouts.upgrade.get()) };
            let terms = asked.guest.terms(terms, &conn.permit);
            Ok(Agreed::Tunnel(Tunnel { peer, terms, guest: asked.guest }))
        }
        Err(refused) => Err(refuse(talk, version, refused).await),
    }
}

/// Why a client does not get what it wants.
#[derive(Debug)]
enum Refused {
    /// To be told by a reply.
    Told(Answer),
    /// What there was to say, if anything, is said; how the connection ends.
    Parted(Outcome),
    /// The connection is over.
    Over(Outcome),
}

impl From<Stop> for Refused {
    fn from(stop: Stop) -> Refused {
        match stop {
            Stop::Bad(SocksError::AddressType(_)) => Refused::Told(Answer::NoSuchAddress),
            Stop::Bad(_) => Refused::Parted(Outcome::BadSocks),
            Stop::Over(outcome) => Refused::Over(outcome),
        }
    }
}

impl From<Outcome> for Refused {
    fn from(outcome: Outcome) -> Refused {
        Refused::Over(outcome)
    }
}

impl From<ConnectError> for Refused {
    fn from(error: ConnectError) -> Refused {
        Refused::Told(Answer::Failed(error.fault))
    }
}

impl From<Unknown> for Refused {
    fn from(unknown: Unknown) -> Refused {
        Refused::Told(Answer::Unknown(unknown))
    }
}

async fn refuse(mut talk: Talk<'_>, version: Version, refused: Refused) -> Outcome {
    match refused {
        Refused::Told(answer) => {
            answer.write(version, talk.say());
            talk.part(answer.outcome()).await
        }
        Refused::Parted(outcome) => talk.part(outcome).await,
        Refused::Over(outcome) => outcome,
    }
}

/// What is wanted, and for whom.
#[derive(Clone, Copy)]
struct Errand<'a> {
    gateway: &'a dyn SocksGateway,
    service: &'a ForwardService,
    version: Version,
    guest: &'a Arc<dyn Guest>,
}

impl<'a> Errand<'a> {
    fn visit(&self, to: &'a Destination, record: &Record) -> Visit<'a> {
        Visit { to, kind: self.version.kind(), guest: self.guest, client: record.client }
    }

    /// Finds out whether the guest may go there, and by which way; both are noted in the record.
    fn way(&self, to: &Destination, record: &mut Record) -> Result<Way, ConnectError> {
        record.forwarded_mut().destination = Some(to.clone());
        let visit = Visit { to, kind: self.version.kind(), guest: self.guest, client: record.client };
        let way = self.gateway.way(&visit)?;
        record.forwarded_mut().way = Some(way.name.clone());
        Ok(way)
    }
}
