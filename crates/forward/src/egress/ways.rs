//! Ways out, as a [`Way`] carries them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wmproxy_http::forward::{Visit, Way};
use wmproxy_net::connect::{ConnectError, Fault};

use super::{DatagramWay, Egress};
use crate::chain::Chain;

/// What is in [`Way::inner`].
#[derive(Debug)]
pub(super) enum Out {
    Direct,
    Chain(Arc<Chain>),
}

impl Out {
    /// Whether names are resolved before they go that way.
    pub(super) fn resolves_here(&self) -> bool {
        match self {
            Out::Direct => true,
            Out::Chain(chain) => !chain.takes_names(),
        }
    }
}

/// What [`Ways`] has put into a way.
pub(super) fn out(way: &Way) -> Result<&Out, ConnectError> {
    way.inner.downcast_ref().ok_or_else(|| ConnectError::new(Fault::Other, "the way is of another make"))
}

impl Egress {
    /// Looks whether there is any destination that datagrams of a visit's guest can go to. Where a visit goes does not count.
    ///
    /// # Errors
    /// All of them would go through a chain that carries none, or nowhere.
    pub fn takes_datagrams(&self, visit: &Visit<'_>) -> Result<(), ConnectError> {
        match self.routes.only(visit).map(|route| self.targets[route].as_ref()) {
            None => Ok(()),
            Some(None) => Err(ConnectError::new(Fault::Denied, "the rules let datagrams go nowhere")),
            Some(Some(way)) => match self.datagram_way(way) {
                DatagramWay::Direct => Ok(()),
                DatagramWay::Chain(chain) => chain.takes_datagrams(),
            },
        }
    }
}

/// The ways of one egress, as they are collected.
pub(super) struct Ways {
    egress: u64,
    made: Vec<Way>,
}

/// Room for the ways of an egress in the numbers of connections that may stand in for each other.
const WAYS: u64 = 1 << 16;

impl Ways {
    pub(super) fn new() -> Ways {
        /// Counts every egress there has been, so that a new one of the same name takes over no connection of the old one's.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Ways { egress: COUNT.fetch_add(1, Ordering::Relaxed), made: Vec::new() }
    }

    /// The way of this name; made if it is the first time.
    pub(super) fn of(&mut self, name: &str, out: Out) -> Way {
        // The first is direct, whatever a chain is called.
        if let Some(way) = self.made.iter().skip(1).find(|way| *way.name == *name) {
            return way.clone();
        }
        let key = self.egress * WAYS + self.made.len() as u64;
        let way = Way { name: name.into(), key, inner: Arc::new(out) };
        self.made.push(way.clone());
        way
    }
}
