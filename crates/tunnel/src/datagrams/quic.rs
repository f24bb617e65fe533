//! The datagrams of a connection of QUIC, and whose they are.

use std::sync::Arc;

/// Hands the datagrams that come on a connection to the services that they are for. One for each connection.
#[derive(Debug)]
pub struct QuicDatagrams {
    connection: quinn::Connection,
}

/// The part of a connection of QUIC that is a service's.
#[derive(Debug, Clone)]
pub struct QuicCarry {
    /// The connection's datagrams.
    pub hub: Arc<QuicDatagrams>,
    /// The service's number in the session.
    pub service: u32,
}

impl QuicDatagrams {
    /// Those of a connection. Nothing comes before [`run`](Self::run).
    pub fn new(connection: quinn::Connection) -> Arc<QuicDatagrams> {
        Arc::new(QuicDatagrams { connection })
    }

    /// Hands out what comes, until the connection is lost. On any thread: the one that drives the connection is best.
    pub async fn run(self: Arc<Self>) {
        self.connection.closed().await;
    }

    /// The part of a service.
    pub fn service(self: &Arc<Self>, service: u32) -> QuicCarry {
        QuicCarry { hub: self.clone(), service }
    }
}
