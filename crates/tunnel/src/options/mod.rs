//! The options of `[tunnel_server]` and `[tunnel_client]`, and what they come to.

mod spec;

pub use spec::{ClientSpec, GrantSpec, PortRange, ServerSpec, ServiceSpec, TransportKind, Trust, VisitSpec};
