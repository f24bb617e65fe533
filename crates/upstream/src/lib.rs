//! Where bytes may go: groups of peers, which of them takes the next connection, and what is known of each.
//!
//! What lives here: the options of an upstream group, balancing, the passive and active [health] of peers, the
//! queues before those that are full, the resolution of their names, and dialling with retries on other peers. What must
//! not live here is what connections carry: a peer is an address that can be connected to or not, and only its health
//! checks speak to it. Nor does anything here start a task, but for the one that looks over a worker's [idle]
//! connections: resolving names and checking health are futures that the binary runs on the control runtime, and a
//! worker never waits for them.
//!
//! How a connection passes through: [`dial`](dial::dial) takes a [`Lease`] from the [`Group`], which picks a
//! peer from an immutable [set](group) by its [balancer](balance); connects; tells the lease how that went,
//! which may [eject](peer) the peer; and on failure tries another. The lease then lives as long as the
//! connection and counts as one in flight. A UDP flow does the same with [`Group::lease`] alone.
//!
//! A request of HTTP takes each step itself: [`Group::lease_in_turn`]; a connection from [`Group::take_idle`], or else by
//! [`Group::connect`]; the lease is told how the answer was; and [`Group::put_idle`] keeps the connection for the next.

pub mod balance;
pub mod dial;
pub mod eyeballs;
pub mod finder;
pub mod group;
pub mod health;
pub mod idle;
pub mod options;
pub mod peer;
pub mod registry;
pub mod resolve;
pub mod status;

mod latency;
mod lookup;
#[cfg(test)]
mod name_server;
mod names;
mod queue;
mod random;
mod set;
mod sticky;

pub use dial::{Attempt, Caller, Connected, DialError, Dialed, dial, dial_for};
pub use eyeballs::connect_first;
pub use finder::Finder;
pub use group::{Group, Lease, LeaseKey, NoPeer};
pub use health::keep_checked;
pub use idle::IdleKey;
pub use options::{GroupOptions, GroupSpec, KeepaliveSpec, QueueOptions, QueueSpec, ServerSpec, StickySpec};
pub use peer::{Blame, FailKind, Peer};
pub use registry::Registry;
pub use resolve::{Resolver, keep_resolved, resolve_all};
pub use status::{GroupStatus, PeerStatus};
