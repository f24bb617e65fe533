//! The options of the forward proxy, and what they come to.
//!
//! What lives here: every key of `[[forward]]`, `[egress]` and `[chain]` with what it means to a user, the forms of text that
//! they are written in, and the specs that they come to. What must not: looking at files, other tables or addresses, which
//! is the config reader's, and running any of it.

mod chain;
mod egress;
mod listener;
mod spec;
mod text;
mod url;

pub use chain::{ChainOptions, HopOptions, ParentOptions};
pub use egress::{EgressOptions, EgressRouteOptions, VisitKind};
pub use listener::{
    DEFAULT_EGRESS, ForwardOptions, ForwardProtocol, ForwardTimeouts, ForwardUdpOptions, UserOptions,
};
pub use spec::{
    ChainSpec, EgressRouteSpec, EgressSpec, ForwardSpec, HopKind, HopSpec, ParentGroupSpec, PrivateNets,
    RouteTarget, UdpSpec, UserSpec,
};
pub use text::{PortRange, Quota, QuotaPeriod, Via};
pub use url::{HopUrl, HopUrlError};
