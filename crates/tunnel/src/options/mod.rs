//! The options of `[tunnel_server]` and `[tunnel_client]`, and what they come to.
//!
//! What lives here: every key with what it means to a user, the forms of text that they are written in, and the specs that
//! they come to. What must not: looking at files, other tables or addresses, which is the config reader's, and running any
//! of it.

mod client;
mod server;
mod service;
mod spec;
mod text;

pub use client::{ClientOptions, VisitorKind, VisitorOptions};
pub use server::{GrantOptions, ServerOptions, VisitorsOptions};
pub use service::{HeaderChanges, ServiceKind, ServiceOptions, ServiceRates, ServiceUser};
pub use spec::{
    ClientSpec, GrantSpec, PortRange, ServerSpec, ServiceSpec, TransportKind, Trust, VisitSpec, VisitorsSpec,
};
pub use text::{Fingerprint, host_pattern};
