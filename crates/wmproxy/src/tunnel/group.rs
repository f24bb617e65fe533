//! The groups behind exposures: their peers are services of clients, reached through the tunnel.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::addr::{Address, TargetSpec};
use wmproxy_net::connect::{Connect, Connecting, ConnectingAlone, Visitor};
use wmproxy_tunnel::server::{Exposure, TunnelServer};
use wmproxy_upstream::{Group, GroupSpec, Registry};
use wmproxy_wire::destination::Destination;

/// What groups call the way that their peers are behind.
const VIA: &str = "tunnel";

/// How many other members a visitor is led to when one fails. They fail because their client has just gone, and that more
/// than a few of a group do so at the same time is rare.
const RETRIES: u32 = 2;

/// Makes groups.
#[derive(Clone)]
pub(super) struct Groups {
    peers: Registry,
    via: Arc<dyn Connect>,
}

/// The way through a tunnel. Groups tell ways apart by what they say of themselves, and this one says as little as can be.
struct Through(Arc<TunnelServer>);

impl Groups {
    /// Groups of the members of `server`.
    pub(super) fn new(peers: Registry, server: Arc<TunnelServer>) -> Groups {
        Groups { peers, via: Arc::new(Through(server)) }
    }

    /// The group behind an exposure. A connection to one of its members may take `patience`.
    pub(super) fn of(&self, exposure: &Exposure, patience: Duration) -> Arc<Group> {
        let target = |member: &Arc<str>| TargetSpec::Address(Address::Name(Box::from(&**member), 0));
        let targets = exposure.members.iter().map(target).collect();
        let spec = GroupSpec {
            via: Some(VIA.into()),
            connect_timeout: patience,
            retries: RETRIES.min(u32::try_from(exposure.members.len().saturating_sub(1)).unwrap_or(RETRIES)),
            // Whether a member is there, the server knows better than a failure tells.
            max_fails: 0,
            ..GroupSpec::inline(exposure.name.clone(), targets)
        };
        self.peers.build_through(spec, [None, None], Some(self.via.clone()))
    }
}

impl Connect for Through {
    fn connect<'a>(&'a self, to: &'a Destination) -> Connecting<'a> {
        self.0.connect(to)
    }

    fn connect_alone<'a>(&'a self, to: &'a Destination) -> ConnectingAlone<'a> {
        self.0.connect_alone(to)
    }

    fn connect_for<'a>(&'a self, to: &'a Destination, visitor: &'a Visitor) -> Connecting<'a> {
        self.0.connect_for(to, visitor)
    }
}

impl fmt::Debug for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(VIA)
    }
}
