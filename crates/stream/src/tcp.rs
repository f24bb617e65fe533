//! TCP connections: dial a peer, then relay.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::relay::relay;
use wmproxy_net::sockopt::TcpOptions;
use wmproxy_upstream::{DialError, Dialed, Group, LeaseKey, dial};

use crate::options::StreamSpec;

/// How soon a connection that found no descriptor for its peer looks again. Accepting rests meanwhile, so those that
/// are in come first.
const RESOURCE_RETRY: Duration = Duration::from_millis(50);

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

    async fn run(&self, conn: Conn) {
        let Conn { stream, mut record, permit } = conn;
        if let Some(client) = record.client
            && !self.spec.acl.permits(client.ip())
        {
            record.close(Outcome::Denied);
            return stream.reset();
        }
        record.group = Some(self.group.name().clone());
        // Boxed, for what dialling needs is gone when the connection settles down to being idle.
        let dialed = match Box::pin(self.dial(&record)).await {
            Ok(dialed) => dialed,
            Err(error) => {
                tracing::debug!(listener = %self.spec.name, %error, "no peer for a connection");
                record.peer = error.peer().map(|peer| peer.address().clone());
                record.close(error.outcome());
                // A reset, for a FIN would look like an answer without content.
                return stream.reset();
            }
        };
        let Dialed { stream: peer, lease, connect_time } = dialed;
        record.peer = Some(lease.address().clone());
        record.connect_time = Some(connect_time);
        let outcome = relay(stream, peer, self.spec.idle_timeout, &mut record).await;
        record.close(outcome);
        // The record is written before the place and the peer are free again: who counts sees the end first.
        drop(record);
        drop((lease, permit));
    }

    /// Dials. When this machine has no descriptor to give, it waits for one as long as for a peer to answer.
    async fn dial(&self, record: &Record) -> Result<Dialed, DialError> {
        let key = LeaseKey { client: record.client };
        let options = TcpOptions { nodelay: self.spec.tcp_nodelay, keepalive: self.spec.tcp_keepalive };
        let give_up = Instant::now() + self.group.spec().connect_timeout;
        loop {
            match dial(&self.group, &key, &options).await {
                Err(DialError::Resources { .. }) if Instant::now() < give_up => {
                    tokio::time::sleep(RESOURCE_RETRY).await;
                }
                done => return done,
            }
        }
    }
}

impl Serve for TcpService {
    fn serve(self: Arc<Self>, conn: Conn) -> Served {
        Box::pin(async move { self.run(conn).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: fn(&'static TcpService, Conn) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        // The future is what a connection holds while it waits; buffers are the worker's.
        let size = size(|service, conn| service.run(conn));
        assert!(size <= 1152, "{size} bytes");
    }
}
