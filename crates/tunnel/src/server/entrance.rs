//! Where clients come in over TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::limit::Permit;
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::stream::Stream;
use wmproxy_net::tls::{self, Acceptor};
use wmproxy_wire::tunnel::message::{ALPN, Message, Refusal, RefusalCode};

use super::client::NotTaken;
use super::login::{Joined, Newcomer, Proven, Unproven};
use super::session::{self, Session};
use super::tunnel_server::{Shown, TunnelServer};
use crate::auth::EXPORTER_LABEL;
use crate::carrier::mux::{self, Side};
use crate::carrier::speech::write_message;

/// Where clients come in over TCP: does TLS, and has them log in or join. A listener's mode.
pub struct Entrance {
    server: Arc<TunnelServer>,
    tls: Arc<Acceptor>,
}

impl Entrance {
    /// Leads to a server, behind TLS. `tls` has to offer [`ALPN`](wmproxy_wire::tunnel::message::ALPN) and nothing below
    /// TLS 1.3.
    pub fn new(server: Arc<TunnelServer>, tls: Arc<Acceptor>) -> Arc<Entrance> {
        Arc::new(Entrance { server, tls })
    }

    /// Does the handshake, and hears who it is.
    async fn admit(&self, stream: &Stream, from: Option<SocketAddr>) -> Result<Proven, (Unproven, Outcome)> {
        let info = tls::accept(stream, &self.tls)
            .await
            .map_err(|error| (Unproven::Broken(error.to_string()), error.client_outcome()))?;
        stream.end_within_tls();
        let other = |text: &str| (Unproven::Broken(text.into()), Outcome::NotSpoken);
        if info.alpn.as_deref() != Some(ALPN.as_bytes()) {
            return Err(other("it does not ask for the tunnel's protocol"));
        }
        let exporter = stream.export_keying_material(EXPORTER_LABEL, b"");
        let exporter = exporter.ok_or_else(|| other("TLS gives no keying material"))?;
        let newcomer = Newcomer { stream, exporter, from, datagrams: None };
        self.server.greet(&newcomer).await.map_err(|unproven| (unproven, Outcome::Unauthenticated))
    }

    /// Hears who it is in time, and counts who does not say it.
    async fn admit_in_time(&self, stream: &Stream, from: Option<SocketAddr>) -> Result<Proven, Outcome> {
        let server = &self.server;
        let Some(pending) = server.enter(from) else { return Err(Outcome::ClientLimit) };
        let limit = server.spec().login_timeout;
        let admitted = tokio::time::timeout(limit, self.admit(stream, from)).await;
        drop(pending);
        match admitted {
            Ok(Ok(proven)) => Ok(proven),
            Ok(Err((unproven, outcome))) => {
                server.note_unproven(&unproven, from);
                if matches!(unproven, Unproven::Refused(_)) {
                    finish(stream).await;
                }
                Err(outcome)
            }
            Err(_) => {
                server.count(|counters| &counters.logins_late);
                tracing::debug!(from = %Shown(from), "a connection to the tunnel server proved nothing in time");
                Err(Outcome::PrefaceTimeout)
            }
        }
    }
}

impl TunnelServer {
    /// A place for a connection that has not proven anything yet. Where a session stands from there is one even when strangers
    /// have them all: each address has few.
    fn enter(&self, from: Option<SocketAddr>) -> Option<Permit> {
        let is_known = || self.known.has(from);
        let permit = self.pending.try_enter().or_else(|| is_known().then(|| self.pending.enter_anyway()));
        let permit = permit.and_then(|mut permit| {
            let has_room = from.is_none_or(|from| permit.claim(from.ip()));
            has_room.then_some(permit)
        });
        if permit.is_none() {
            self.note_crowd(from);
        }
        permit
    }

    /// Notes that somebody was not let in, for too many have proven nothing.
    pub(super) fn note_crowd(&self, from: Option<SocketAddr>) {
        self.count(|counters| &counters.pending_refused);
        if let Some(others) = self.pace.admit() {
            let from = Shown(from);
            tracing::warn!(%from, others, "too many connections to the tunnel server have proven nothing");
        }
    }
}

impl Serve for Entrance {
    fn serve(self: Arc<Self>, conn: Conn) -> Served {
        Box::pin(async move {
            let Conn { stream, mut record, permit } = conn;
            let from = record.client;
            // In a box of its own: what stays for hours is not to be as large as a login.
            let admitted = Box::pin(self.admit_in_time(&stream, from)).await;
            match admitted {
                Err(outcome) => record.close(outcome),
                Ok(Proven::Session(session)) => {
                    self.server.serve_session(&session, &stream, &mut record).await
                }
                Ok(Proven::Joined(session, Joined::Wait)) => {
                    self.server.pool(&session, stream, record, permit).await;
                }
                Ok(Proven::Joined(session, Joined::Many)) => {
                    record.close(Outcome::Done);
                    self.server.clone().serve_many(&session, stream).await;
                }
                Ok(Proven::Joined(session, Joined::Visit(visit))) => {
                    record.close(Outcome::Done);
                    self.server.clone().visit(session.client.clone(), visit, stream).await;
                }
            }
        })
    }
}

impl TunnelServer {
    async fn serve_session(&self, session: &Session, stream: &Stream, record: &mut Record) {
        session::serve(self, session, stream).await;
        record.close(Outcome::Done);
        finish(stream).await;
    }

    /// Puts a connection into its session's pool. Its record and its place go with it.
    async fn pool(&self, session: &Session, stream: Stream, mut record: Record, permit: Permit) {
        let max_pool = self.spec().max_pool;
        record.close(Outcome::Done);
        stream.keep(Box::new((record, permit)));
        if let Err((stream, not_taken)) = session.client.put(session.number, stream, max_pool) {
            self.refuse_joining(not_taken, &stream).await;
        }
    }

    /// Has a connection of TCP carry many streams, until it or its session is over.
    async fn serve_many(self: Arc<Self>, session: &Session, stream: Stream) {
        let (many, mut incoming) = mux::start(stream, Side::Server, &self.scope);
        let Ok(number) = session.client.share(session.number, many.clone()) else {
            self.count(|counters| &counters.joins_refused);
            return many.close();
        };
        loop {
            tokio::select! {
                stream = incoming.next() => match stream {
                    Some(stream) => self.clone().take_visit(session, stream),
                    None => break,
                },
                () = session.mailbox.over() => break,
            }
        }
        session.client.unshare(session.number, number);
        many.close();
    }

    async fn refuse_joining(&self, not_taken: NotTaken, stream: &Stream) {
        self.count(|counters| &counters.joins_refused);
        let (code, text) = match not_taken {
            NotTaken::Over => (RefusalCode::NoSession, "the session is over, or never was"),
            NotTaken::Full => (RefusalCode::Limit, "the session's pool is full"),
        };
        let refusal = Refusal { code, text: text.into() };
        let said = async {
            let _ = write_message(stream, &Message::Refused(refusal)).await;
            finish(stream).await;
        };
        let _ = tokio::time::timeout(self.spec().login_timeout, said).await;
    }
}

/// Ends our direction in good order, as far as the other side lets us.
pub(super) async fn finish(stream: &Stream) {
    let ended = std::future::poll_fn(|cx| stream.poll_shutdown_write(cx));
    let _ = tokio::time::timeout(session::LAST_WORD, ended).await;
}
