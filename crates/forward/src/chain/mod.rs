//! Chains of proxies: ways out that lead through others.
//!
//! What lives here: what is said to proxies on the way, which parent of a hop is taken, and [datagrams](associate) through
//! them. What must not: the bytes of SOCKS and HTTP (`wire`), how parents are balanced, put aside and checked (`upstream`, a
//! group for each hop), who may use which chain (the [egress](crate::egress) rules).
//!
//! A chain of several hops is its last hop behind the chain of those before it, through which the group of its parents
//! connects; so retries, ejection and health checks are of each hop's own. What goes wrong is told with the proxy that it
//! went wrong at. A parent that can't be connected to, fails in TLS or does not let us in is put aside by its group, and
//! another one is tried; that a destination can't be reached says nothing of it.

pub mod associate;

mod handshake;
mod parent;
mod pass;
mod share;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_http::hop::Hop;
use wmproxy_net::connect::{Connect, Connecting, ConnectingAlone};
use wmproxy_net::tls::{Connector, ConnectorSpec};
use wmproxy_upstream::{Finder, Group};
use wmproxy_wire::destination::Destination;

use crate::options::{ChainSpec, HopKind, ParentGroupSpec};
use parent::Parent;
use pass::{Anywhere, Worker};

/// Proxies one behind the other, as a way out.
pub struct Chain {
    spec: Arc<ChainSpec>,
    /// Which hop this is, from 1; those before it are a chain of their own.
    number: usize,
    before: Option<Arc<Chain>>,
    /// Its parents, in the order of the spec; behind other hops it connects through these.
    group: Arc<Group>,
    parents: Box<[Parent]>,
    /// Connections to parents that carry many.
    shared: Hop,
    finder: Arc<Finder>,
}

/// The chains of a config by their names.
pub type Chains = BTreeMap<Arc<str>, Arc<Chain>>;

/// What the groups of a chain's hops and their TLS are made by.
pub trait Workshop {
    /// Why something can't be made.
    type Error;

    /// Makes the group of a hop's parents, by the name in its [spec](ParentGroupSpec::group). Where it is behind other hops its
    /// spec gets the chain's name for [`via`](wmproxy_upstream::GroupSpec::via), and `via` goes to
    /// [`build_through`](wmproxy_upstream::Registry::build_through).
    ///
    /// # Errors
    /// It can't be made.
    fn group(&mut self, name: &Arc<str>, via: Option<Arc<dyn Connect>>) -> Result<Arc<Group>, Self::Error>;

    /// Makes what does TLS with a parent.
    ///
    /// # Errors
    /// Its files can't be used.
    fn connector(&mut self, spec: &ConnectorSpec) -> Result<Arc<Connector>, Self::Error>;
}

impl Chain {
    /// Builds a chain, hop by hop.
    ///
    /// # Errors
    /// What the workshop says.
    ///
    /// # Panics
    /// Without any hop, which no spec is.
    pub fn new<W: Workshop>(
        spec: &ChainSpec,
        finder: &Arc<Finder>,
        workshop: &mut W,
    ) -> Result<Arc<Chain>, W::Error> {
        let spec = Arc::new(spec.clone());
        let mut chain: Option<Arc<Chain>> = None;
        for (index, hop) in spec.hops.iter().enumerate() {
            let before = chain.take();
            let via = before.clone().map(|before| before as Arc<dyn Connect>);
            let group = workshop.group(&hop.group, via)?;
            let parents = parents(hop, workshop)?;
            let shared = Hop::new(group.spec().keepalive.idle_timeout);
            chain = Some(Arc::new(Chain {
                shared,
                spec: Arc::clone(&spec),
                number: index + 1,
                before,
                group,
                parents,
                finder: Arc::clone(finder),
            }));
        }
        Ok(chain.expect("a chain has a hop"))
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.spec.name
    }

    /// Whether the last proxy resolves names. One of SOCKS 4 does not, so that whoever goes that way has to do it, and to judge
    /// what comes of it, before.
    pub fn takes_names(&self) -> bool {
        let last = self.hops().last();
        last.is_none_or(|hop| hop.parents.iter().all(|parent| parent.kind != HopKind::Socks4))
    }

    /// How long all of it may take.
    pub fn limit(&self) -> Duration {
        let hops = u32::try_from(self.number).unwrap_or(u32::MAX);
        self.spec.connect_timeout.saturating_mul(hops)
    }

    /// The hops up to this one.
    fn hops(&self) -> &[ParentGroupSpec] {
        &self.spec.hops[..self.number]
    }
}

fn parents<W: Workshop>(hop: &ParentGroupSpec, workshop: &mut W) -> Result<Box<[Parent]>, W::Error> {
    hop.parents.iter().map(|parent| Parent::new(parent, |tls| workshop.connector(tls))).collect()
}

impl Connect for Chain {
    fn connect<'a>(&'a self, to: &'a Destination) -> Connecting<'a> {
        Box::pin(self.pass::<Worker>(to))
    }

    fn connect_alone<'a>(&'a self, to: &'a Destination) -> ConnectingAlone<'a> {
        Box::pin(self.pass::<Anywhere>(to))
    }
}

impl fmt::Debug for Chain {
    /// Says where it leads, with no secret: chains that say the same stand in for each other.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("name", &self.spec.name)
            .field("hops", &self.hops())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
