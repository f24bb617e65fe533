//! Active health checks: asking each peer of a group, again and again, whether it is well.
//!
//! What lives here: the [options](HealthOptions), when to check whom ([`keep_checked`]), the checks themselves over
//! sockets of their own, and what they come to ([`Health`]). What must not live here is anything that runs on a
//! worker: a worker reads one atomic of the peer that it is about to use, and that is all it knows of checks.
//!
//! # What a check decides
//! Nothing is known of a new peer, and it is used. Its first check decides at once, either way: at the start of
//! the process a dead peer is not to cost clients `fall` rounds. From then on it takes `fall` failures in a row to
//! take a peer out and `rise` successes in a row to bring it back. A peer that is out gets no connections, even if
//! all others are out too, since its checks are an answer and not a guess; those that it has go on.
//!
//! The passive ejection of failing peers goes on beside. A check that went well at the very address that connections
//! go to ends it, as a connection that succeeds would, once the checks hold the peer for well.
//!
//! Checks begin as connections do: with a PROXY header, which says that nobody came, and with TLS, where the group has
//! them. A check that this machine had no descriptor or memory for says nothing about the peer, and counts as skipped.

mod exchange;
mod http;
mod options;
mod probe;
mod rounds;
mod state;
mod tcp;
mod udp;

pub(crate) use options::{Beginning, ProbeSpec};
pub use options::{HealthOptions, HealthSpec, Kind, Pattern, Statuses};
pub(crate) use rounds::Slots;
pub use rounds::keep_checked;
pub(crate) use state::Checks;
pub use state::{CheckResult, Health, LastCheck};
