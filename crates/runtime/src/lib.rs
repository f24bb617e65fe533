//! Threads and lifetimes: where code runs and when it ends.
//!
//! What lives here: the data workers ([`worker`]), the way tasks start and are waited for ([`scope`]), the coarse
//! clock ([`clock`]), random bytes ([`entropy`]), signals ([`signal`]), counters that are cheap to write from a worker
//! ([`counter`]), and how a busy worker wakes less often ([`moderation`]).
//! What must not: sockets, addresses, anything that knows a protocol.
//!
//! A connection passes through as a task: the room that accepted it calls [`scope::Scope::spawn`] on its worker, and
//! the scope counts it until it ends, so that a drain knows when nothing is left.

pub mod clock;
pub mod counter;
pub mod entropy;
pub mod moderation;
pub mod panic;
pub mod scope;
pub mod signal;
pub mod worker;
