//! Where bytes are to go, as a client of a forward proxy says it: an address or a name, and a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The host of a destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name, normalised: in lower case ASCII (names of other scripts as A-labels, RFC 5890), without a dot at its end, and
    /// nothing that a resolver would take for an address.
    Name(Arc<str>),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The host.
    pub host: Host,
    /// The port; never 0 where something is to be connected to.
    pub port: u16,
}

impl Destination {
    /// The address, where it is one and needs no resolver.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

impl From<SocketAddr> for Destination {
    fn from(address: SocketAddr) -> Destination {
        Destination { host: Host::Ip(address.ip()), port: address.port() }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}
