//! HTTP/2 (RFC 9113), with the `h2` crate: connections of clients, and connections to peers.
//!
//! All streams of a connection stay on its worker, so that the library's lock is never waited for. What lives here is what
//! joins the library to an exchange: heads in our form, bodies with flow control passed through, limits on what a client
//! may make us do. What must not: what is answered, and by whom.

mod body;
mod common;
mod convert;
mod front;
pub mod hop;
mod io;
mod peer;
mod pool;
mod server;
mod tunnel;

pub(crate) use front::ClientStream;
pub(crate) use peer::PeerStream;
pub(crate) use pool::close_all;
pub(crate) use pool::{Found, Making, find};
pub(crate) use server::serve;
