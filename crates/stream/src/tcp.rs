//! TCP connections: hear what comes before the data, dial a peer, then relay.

mod preface;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::connect::Visitor;
use wmproxy_net::limit::{Direction, Permit};
use wmproxy_net::preface::Introduction;
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::relay::{Brake, Terms, relay};
use wmproxy_net::stream::{ResetOnDrop, Stream};
use wmproxy_net::tls::Acceptor;
use wmproxy_upstream::{Caller, DialError, Dialed, Group, Lease, LeaseKey, dial_for};

use crate::options::StreamSpec;
use crate::route::Routes;

/// How soon a connection that found no descriptor or port for its peer looks again. Accepting rests meanwhile, so those
/// that are in come first. The wait doubles: with all ports taken the kernel tries each of them every time.
const RESOURCE_RETRY: Duration = Duration::from_millis(50);

/// The longest wait between two looks.
const RESOURCE_RETRY_MAX: Duration = Duration::from_secs(1);

/// Serves the connections of a listener as its options say.
#[derive(Debug)]
pub struct TcpService {
    pub(crate) spec: StreamSpec,
    routes: Arc<Routes<Arc<Group>>>,
    /// Ends the clients' TLS.
    tls: Option<Arc<Acceptor>>,
}

impl TcpService {
    /// A service with `spec`, whose upstreams are those of `routes`. With `tls` it ends the clients' TLS.
    pub fn new(
        spec: StreamSpec,
        routes: Arc<Routes<Arc<Group>>>,
        tls: Option<Arc<Acceptor>>,
    ) -> Arc<TcpService> {
        Arc::new(TcpService { spec, routes, tls })
    }

    /// The life of a connection. A block and no `async fn`, which would hold its arguments twice (rust-lang/rust#62958).
    #[expect(clippy::manual_async_fn, reason = "see above")]
    fn run(self: Arc<Self>, mut conn: Conn) -> impl Future<Output = ()> {
        async move {
            // The whole of it: a block keeps only what it mentions, and nobody mentions the permit.
            let conn = &mut conn;
            let group = match self.welcome(conn).await {
                Ok(group) => group,
                Err(outcome) => return conn.record.close(outcome),
            };
            conn.record.group = Some(group.name().clone());
            if let Some(bridge) = &self.spec.bridge {
                return Box::pin(self.bridged(bridge, group, conn)).await;
            }
            // Boxed, for what dialling needs is gone when the connection settles down to being idle.
            let (peer, _lease) = match Box::pin(self.reach(group, conn)).await {
                Ok(reached) => reached,
                Err(outcome) => return conn.record.close(outcome),
            };
            let terms = self.terms(&conn.permit);
            let outcome = relay(&conn.stream, &peer, terms, &mut conn.record).await;
            conn.record.close(outcome);
        }
    }

    /// Looks at who comes, and hears what they have to say before their data: which group is it for? Who is turned away
    /// is told so, or reset.
    async fn welcome(&self, conn: &mut Conn) -> Result<&Arc<Group>, Outcome> {
        let Conn { stream, record, permit } = conn;
        let unfinished = ResetOnDrop::new(stream);
        let group = if self.has_preface() {
            // Boxed, for most listeners have none.
            Box::pin(self.preface(stream, record, permit)).await
        } else {
            self.rules().check(record).and_then(|()| self.routes.default().ok_or(Outcome::NoRoute))
        };
        let is_told = match &group {
            Ok(_) => true,
            Err(outcome) => self.say_goodbye(stream, *outcome),
        };
        if is_told {
            unfinished.disarm();
        }
        group
    }

    /// Whether a connection from this address has to begin with a PROXY header.
    fn is_trusted(&self, from: Option<SocketAddr>) -> bool {
        self.spec.trusted.as_ref().is_some_and(|trusted| trusted.covers(from))
    }

    /// How a connection's bytes are relayed. The permit knows the listener's limits.
    pub(crate) fn terms(&self, permit: &Permit) -> Terms {
        let StreamSpec { idle_timeout, splice, rate_limit, .. } = self.spec;
        Terms {
            idle_timeout,
            splice,
            up: Brake::new(rate_limit.up, permit.gate(), Direction::Up),
            down: Brake::new(rate_limit.down, permit.gate(), Direction::Down),
            budget: None,
        }
    }

    /// Connects to a peer, and tells it who the client is if it wants to know. The lease is to be kept as long as the
    /// stream. A client for whom that fails is reset, for a FIN would look like an answer without content.
    async fn reach(&self, group: &Group, conn: &mut Conn) -> Result<(Stream, Lease), Outcome> {
        let Conn { stream, record, .. } = conn;
        let unfinished = ResetOnDrop::new(stream);
        let introduction = introduction(group, record);
        // It goes in the clear, before TLS, where that follows; elsewhere it saves a packet to send it with the data.
        let is_secured = group.spec().tls.is_some();
        let before = introduction.as_ref().filter(|_| is_secured);
        let dialed = self.dial(group, stream, record, before).await;
        let Dialed { stream: peer, lease, connect_time } = dialed.map_err(|error| {
            tracing::debug!(listener = %self.spec.name, %error, "no peer for a connection");
            record.peer = error.peer().map(|peer| peer.address().clone());
            error.outcome()
        })?;
        record.peer = Some(lease.address().clone());
        record.connect_time = Some(connect_time);
        if let Some(introduction) = introduction.filter(|_| !is_secured) {
            // A peer that is told has as long as it had to be connected to.
            let patience = group.spec().connect_timeout;
            introduction.send_with_data(stream, &peer, patience, record).await?;
        }
        // The relay has a guard of its own.
        unfinished.disarm();
        Ok((peer, lease))
    }

    /// Dials. When this machine has no descriptor to give, it waits for one as long as for a peer to answer.
    /// The peer gets `introduction` before anything else.
    pub(crate) async fn dial(
        &self,
        group: &Group,
        stream: &Stream,
        record: &Record,
        introduction: Option<&Introduction>,
    ) -> Result<Dialed, DialError> {
        let visitor = Visitor { client: record.client, local: record.destination() };
        let caller = Caller { stream: Some(stream), introduction, visitor: &visitor };
        let name = record.preface.as_ref().and_then(|preface| preface.sni.as_deref());
        let client = LeaseKey::of_client(record.client);
        let key = name.map_or(client, |name| client.with_sni(name));
        let options = group.spec().socket.with(self.spec.socket.tcp, self.spec.source);
        let give_up = Instant::now() + group.spec().connect_timeout;
        let mut wait = RESOURCE_RETRY;
        loop {
            match dial_for(group, &key, &options, caller).await {
                Err(DialError::Resources { .. }) if Instant::now() < give_up => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RESOURCE_RETRY_MAX);
                }
                done => return done,
            }
        }
    }
}

/// What the peers of a group are told first, if they are to be told who the client is.
pub(crate) fn introduction(group: &Group, record: &Record) -> Option<Introduction> {
    group.spec().send_proxy_protocol.map(|version| Introduction::new(version, record))
}

impl Serve for TcpService {
    fn speaks_for_another(&self, from: Option<SocketAddr>) -> bool {
        self.is_trusted(from)
    }

    fn serve(self: Arc<Self>, conn: Conn) -> Served {
        Box::pin(self.run(conn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: fn(Arc<TcpService>, Conn) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        // The future is what a connection holds while it waits; buffers are the worker's. An allocator rounds up.
        let size = size(TcpService::run);
        assert!(size <= 768, "{size} bytes");
    }
}
