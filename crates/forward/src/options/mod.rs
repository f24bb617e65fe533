//! The options of the forward proxy, and what they come to.

mod spec;

pub use spec::{
    ChainSpec, EgressRouteSpec, EgressSpec, ForwardSpec, HopKind, HopSpec, ParentGroupSpec, PrivateNets,
    Quota, QuotaPeriod, RouteTarget, UdpSpec, UserSpec,
};
