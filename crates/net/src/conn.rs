//! An accepted connection, and the trait of those who serve it.

use std::any::Any;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use crate::limit::Permit;
use crate::record::{Outcome, Record};
use crate::stream::Stream;

/// A connection that a listener has let in.
#[derive(Debug)]
pub struct Conn {
    /// The client's side.
    pub stream: Stream,
    /// What is known of it; closes itself when dropped.
    pub record: Record,
    /// Its place behind the listener's limits, given back on drop.
    pub permit: Permit,
}

impl Conn {
    /// Takes a place for the client that the record names, once it is known who that is.
    ///
    /// # Errors
    /// The outcome with which to reset the connection: the client comes too often, or has as many places as it may.
    pub fn claim(&mut self) -> Result<(), Outcome> {
        self.record.client.map_or(Ok(()), |client| self.permit.admit(client.ip()))
    }
}

/// The whole life of a served connection, on the worker that accepted it.
pub type Served = Pin<Box<dyn Future<Output = ()>>>;

/// A mode: takes a connection and sees it through to its end.
pub trait Serve: Any + Send + Sync {
    /// Whether a connection from this address (none for a unix socket) may speak for another client, whom only its
    /// first bytes name. Its place among that client's others is then not taken yet: [`Conn::claim`] does, once
    /// [`Serve::serve`] knows who it is.
    fn speaks_for_another(&self, _from: Option<SocketAddr>) -> bool {
        false
    }

    /// Serves `conn`. The future ends when the connection has, with its record closed.
    fn serve(self: Arc<Self>, conn: Conn) -> Served;

    /// Tells that the listener has another service now, on each worker. Connections stay with this one, unless they have
    /// requests of their own that the other may serve.
    fn replaced(&self, _by: &Arc<dyn Serve>) {}

    /// Tells that the listener is out of service, on each worker. Connections that wait for nothing but another request
    /// are to end.
    fn retire(&self) {}
}
