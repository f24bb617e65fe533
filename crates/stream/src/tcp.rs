//! TCP connections: dial a peer, then relay.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::relay::{Brake, Terms, relay};
use wmproxy_net::stream::ResetOnDrop;
use wmproxy_upstream::{DialError, Dialed, Group, LeaseKey, dial};

use crate::options::StreamSpec;

/// How soon a connection that found no descriptor or port for its peer looks again. Accepting rests meanwhile, so those
/// that are in come first. The wait doubles: with all ports taken the kernel tries each of them every time.
const RESOURCE_RETRY: Duration = Duration::from_millis(50);

/// The longest wait between two looks.
const RESOURCE_RETRY_MAX: Duration = Duration::from_secs(1);

/// Serves the connections of a listener as its options say.
#[derive(Debug)]
pub struct TcpService {
    spec: StreamSpec,
    group: Arc<Group>,
}

impl TcpService {
    /// A service with `spec` towards `group`.
    pub fn new(spec: StreamSpec, group: Arc<Group>) -> Arc<TcpService> {
        Arc::new(TcpService { spec, group })
    }

    /// The life of a connection. A block and no `async fn`, which would hold its arguments twice (rust-lang/rust#62958).
    #[expect(clippy::manual_async_fn, reason = "see above")]
    fn run(self: Arc<Self>, mut conn: Conn) -> impl Future<Output = ()> {
        async move {
            // The whole of it: a block keeps only what it mentions, and nobody mentions the permit.
            let conn = &mut conn;
            if let Some(client) = conn.record.client
                && !self.spec.acl.permits(client.ip())
            {
                conn.record.close(Outcome::Denied);
                return conn.stream.reset_on_close();
            }
            conn.record.group = Some(self.group.name().clone());
            let unfinished = ResetOnDrop::new(&conn.stream);
            // Boxed, for what dialling needs is gone when the connection settles down to being idle.
            let Dialed { stream: peer, lease, connect_time } = match Box::pin(self.dial(&conn.record)).await {
                Ok(dialed) => dialed,
                Err(error) => {
                    tracing::debug!(listener = %self.spec.name, %error, "no peer for a connection");
                    conn.record.peer = error.peer().map(|peer| peer.address().clone());
                    // Reset, for a FIN would look like an answer without content.
                    return conn.record.close(error.outcome());
                }
            };
            // The relay has a guard of its own.
            unfinished.disarm();
            conn.record.peer = Some(lease.address().clone());
            conn.record.connect_time = Some(connect_time);
            let outcome = relay(&conn.stream, &peer, self.spec.idle_timeout, &mut conn.record).await;
            conn.record.close(outcome);
        }
    }

    /// Dials. When this machine has no descriptor to give, it waits for one as long as for a peer to answer.
    async fn dial(&self, record: &Record) -> Result<Dialed, DialError> {
        let key = LeaseKey::of_client(record.client);
        let options = group.spec().socket.with(self.spec.socket.tcp, self.spec.source);
        let give_up = Instant::now() + group.spec().connect_timeout;
        let mut wait = RESOURCE_RETRY;
        loop {
            match dial(&self.group, &key, &options).await {
                Err(DialError::Resources { .. }) if Instant::now() < give_up => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RESOURCE_RETRY_MAX);
                }
                done => return done,
            }
        }
    }
}

impl Serve for TcpService {
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
