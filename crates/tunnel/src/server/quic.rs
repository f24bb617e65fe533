//! Where clients come in over QUIC: a session is a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use wmproxy_net::stream::Stream;
use wmproxy_runtime::scope::Scope;

use super::entrance::finish;
use super::login::{Newcomer, Proven, Unproven};
use super::session::{self, LAST_WORD, Session};
use super::tunnel_server::{Shown, TunnelServer};
use crate::auth::EXPORTER_LABEL;
use crate::carrier::quic::{self, Arriving, Listener};
use crate::datagrams::QuicDatagrams;

impl TunnelServer {
    /// Serves those who come to a listener of QUIC, until that is closed: on its worker, each with a task of `scope`. The
    /// listener has to count them by [`TunnelServer::pending`].
    pub async fn serve_quic(self: Arc<Self>, listener: Arc<Listener>, scope: Scope) {
        while let Some(arriving) = listener.accept(|from| self.note_crowd(Some(from))).await {
            scope.spawn(self.clone().serve_arriving(arriving));
        }
    }

    async fn serve_arriving(self: Arc<Self>, arriving: Arriving) {
        let from = arriving.remote_address();
        let limit = self.spec().login_timeout;
        // In a box of its own: what stays for hours is not to be as large as a login.
        let admitted = Box::pin(tokio::time::timeout(limit, self.admit_quic(arriving, from))).await;
        match admitted {
            Ok(Ok((connection, stream, session))) => {
                self.serve_connection(connection, stream, &session).await;
            }
            Ok(Err(unproven)) => self.note_unproven(&unproven, Some(from)),
            Err(_) => {
                self.count(|counters| &counters.logins_late);
                tracing::debug!(from = %Shown(Some(from)), "a connection to the tunnel server proved nothing in time");
            }
        }
    }

    async fn admit_quic(
        &self,
        arriving: Arriving,
        from: SocketAddr,
    ) -> Result<(quinn::Connection, Stream, Arc<Session>), Unproven> {
        // The permit is given back when the login is over.
        let (connection, _pending) = arriving.finish().await?;
        let stream = quic::first_stream(&connection).await?;
        let exporter = quic::export_keying_material(&connection, EXPORTER_LABEL, b"");
        let exporter = exporter.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        let datagrams = Some(QuicDatagrams::new(connection.clone()));
        let newcomer = Newcomer { stream: &stream, exporter, from: Some(from), datagrams };
        match self.greet(&newcomer).await {
            Ok(Proven::Session(session)) => Ok((connection, stream, session)),
            Ok(Proven::Joined(..)) => Err(Unproven::Broken("it is no login".into())),
            Err(unproven) => {
                if matches!(unproven, Unproven::Refused(_)) {
                    part(&connection, &stream).await;
                }
                Err(unproven)
            }
        }
    }

    /// Serves a session and its connection until either is over.
    async fn serve_connection(
        self: Arc<Self>,
        connection: quinn::Connection,
        stream: Stream,
        session: &Session,
    ) {
        let (many, mut incoming) = quic::many(connection.clone());
        let hub = session.datagrams.clone();
        // The first of its session: there is room.
        let _ = session.client.share(session.number, many.clone());
        let streams = async {
            while let Some(stream) = incoming.next().await {
                self.clone().take_visit(session, stream);
            }
            std::future::pending::<()>().await;
        };
        let datagrams = async {
            if let Some(hub) = hub {
                hub.run().await;
            }
            std::future::pending::<()>().await;
        };
        // Neither of the others ends: what has become of the connection, the first stream tells.
        tokio::select! {
            () = session::serve(&self, session, &stream) => {}
            () = streams => {}
            () = datagrams => {}
        }
        part(&connection, &stream).await;
        many.close();
    }
}

/// Ends a connection's first stream, and waits a moment for the other side to close the connection: closing it here would throw
/// away what was said last.
async fn part(connection: &quinn::Connection, stream: &Stream) {
    finish(stream).await;
    let _ = tokio::time::timeout(LAST_WORD, connection.closed()).await;
}
