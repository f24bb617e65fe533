//! An accepted connection, and the trait of those who serve it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::limit::Permit;
use crate::record::Record;
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

/// The whole life of a served connection, on the worker that accepted it.
pub type Served = Pin<Box<dyn Future<Output = ()>>>;

/// A mode: takes a connection and sees it through to its end.
pub trait Serve: Send + Sync {
    /// Serves `conn`. The future ends when the connection has, with its record closed.
    fn serve(self: Arc<Self>, conn: Conn) -> Served;
}
