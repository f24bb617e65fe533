//! The service over real sockets: a worker with a listener, a client and origins by hand, no binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod house;
mod requests;
