//! Chains of proxies: ways out that lead through others.

use std::collections::BTreeMap;
use std::sync::Arc;

use wmproxy_net::connect::{Connect, Connecting, ConnectingAlone};
use wmproxy_wire::destination::Destination;

use crate::options::ChainSpec;

/// Proxies one behind the other, as a way out.
#[derive(Debug)]
pub struct Chain {
    spec: ChainSpec,
}

/// The chains of a config by their names.
pub type Chains = BTreeMap<Arc<str>, Arc<Chain>>;

impl Chain {
    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.spec.name
    }
}

impl Connect for Chain {
    fn connect<'a>(&'a self, _to: &'a Destination) -> Connecting<'a> {
        unimplemented!("the owner of the room begins here")
    }

    fn connect_alone<'a>(&'a self, _to: &'a Destination) -> ConnectingAlone<'a> {
        unimplemented!("the owner of the room begins here")
    }
}
