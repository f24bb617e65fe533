//! Visits: the ways to private services of other clients.

use std::sync::Arc;

use wmproxy_net::connect::{Connect, ConnectError, Connecting, ConnectingAlone, Fault};
use wmproxy_wire::destination::Destination;

use super::TunnelClient;
use crate::datagrams::{Carrying, DatagramWay};
use crate::options::VisitSpec;

/// The way to a private service of another client.
pub(super) struct Visits {
    pub(super) client: Arc<TunnelClient>,
    pub(super) spec: VisitSpec,
}

impl Visits {
    fn none(&self) -> ConnectError {
        ConnectError::new(Fault::HopDown, format!("no session through which {} is reached", self.spec.service))
    }
}

impl Connect for Visits {
    fn connect<'a>(&'a self, _to: &'a Destination) -> Connecting<'a> {
        Box::pin(async { Err(self.none()) })
    }

    fn connect_alone<'a>(&'a self, _to: &'a Destination) -> ConnectingAlone<'a> {
        Box::pin(async { Err(self.none()) })
    }
}

impl DatagramWay for Visits {
    fn carry(&self) -> Carrying<'_> {
        Box::pin(async { Err(self.none()) })
    }
}

impl std::fmt::Debug for Visits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visits").field("service", &self.spec.service).finish_non_exhaustive()
    }
}
