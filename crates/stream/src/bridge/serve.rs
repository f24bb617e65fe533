//! The life of a connection that passes a bridge, from its preface to its end.

use wmproxy_net::conn::Conn;
use wmproxy_net::record::Outcome;
use wmproxy_net::stream::{ResetOnDrop, Stream};
use wmproxy_runtime::clock;
use wmproxy_upstream::{Dialed, FailKind, Group};
use wmproxy_wire::websocket::Role;
use wmproxy_wire::websocket::handshake::{Refusal, accept_head};

use super::opening::{self, Granted};
use super::options::{BridgeSpec, Side};
use super::relay::{self, Ends};
use crate::tcp::{TcpService, introduction};

impl TcpService {
    /// Serves a connection over a bridge: first whoever comes as a WebSocket asks for it, then a peer is dialled, and
    /// only then does either side get an answer. Boxed by its caller, so that others don't pay for what it holds.
    pub(crate) async fn bridged(&self, spec: &BridgeSpec, group: &Group, conn: &mut Conn) {
        let granted = match &spec.side {
            Side::Tcp2Ws(_) => None,
            Side::Ws2Tcp(entry) => {
                // What came before it took its part: the PROXY header, the handshake of TLS.
                let patience = self.spec.preface_timeout.saturating_sub(conn.record.age());
                match Box::pin(opening::accept(&conn.stream, entry, &spec.protocols, patience)).await {
                    Ok(granted) => Some(granted),
                    Err(outcome) => return conn.record.close(outcome),
                }
            }
        };
        let unfinished = ResetOnDrop::new(&conn.stream);
        let introduction = introduction(group, &conn.record);
        let Dialed { stream: peer, mut lease, connect_time } =
            match Box::pin(self.dial(group, &conn.stream, &conn.record, introduction.as_ref())).await {
                Ok(dialed) => dialed,
                Err(error) => {
                    tracing::debug!(group = %group.name(), %error, "no peer for a bridge");
                    conn.record.peer = error.peer().map(|peer| peer.address().clone());
                    conn.record.close(error.outcome());
                    if granted.is_some() {
                        unfinished.disarm();
                        opening::refuse(&conn.stream, refusal(error.outcome())).await;
                    }
                    return;
                }
            };
        conn.record.peer = Some(lease.address().clone());
        conn.record.connect_time = Some(connect_time);
        let (ends, greeting) = match Box::pin(ends(spec, granted, &conn.stream, &peer, group)).await {
            Ok(ends) => ends,
            Err(outcome) => {
                // It took the connection, and is of no use to anybody all the same.
                lease.failed(FailKind::Reset, clock::now().0);
                return conn.record.close(outcome);
            }
        };
        // The relay has a guard of its own.
        unfinished.disarm();
        let terms = self.terms(&conn.permit);
        let outcome = relay::relay(ends, greeting, spec.ping, terms, &mut conn.record).await;
        conn.record.close(outcome);
    }
}

/// Which stream is the WebSocket, and what is to be written to it first. A peer's is asked for it.
async fn ends<'a>(
    spec: &BridgeSpec,
    granted: Option<Granted>,
    client: &'a Stream,
    peer: &'a Stream,
    group: &Group,
) -> Result<(Ends<'a>, Vec<u8>), Outcome> {
    if let Side::Tcp2Ws(goal) = &spec.side {
        // A peer that is asked has as long as it had to be connected to.
        opening::ask(peer, goal, spec, group.spec().connect_timeout).await?;
        return Ok((Ends { ws: peer, tcp: client, role: Role::Client }, Vec::new()));
    }
    let Granted { key, protocol } = granted.unwrap_or_default();
    let head = accept_head(&key, protocol.as_deref(), spec.fields());
    Ok((Ends { ws: client, tcp: peer, role: Role::Server }, head))
}

/// How a WebSocket's client is told that no peer could be connected to.
fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::ConnectTimeout => Refusal::GatewayTimeout,
        Outcome::ConnectFailed => Refusal::BadGateway,
        _ => Refusal::Unavailable,
    }
}
