//! Where bytes are to go, as a client of a forward proxy says it: an address or a name, and a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

mod host;

pub use host::{BadHost, MAX_NAME, parse_host};

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

/// Why a text is no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadDestination {
    /// Its host is none.
    Host(BadHost),
    /// There is no port.
    NoPort,
    /// The port is no number from 1 to 65535.
    BadPort,
}

impl fmt::Display for BadDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadDestination::Host(bad) => bad.fmt(f),
            BadDestination::NoPort => f.write_str("there is no port behind the host"),
            BadDestination::BadPort => f.write_str("the port is no number from 1 to 65535"),
        }
    }
}

impl std::error::Error for BadDestination {}

impl From<BadHost> for BadDestination {
    fn from(bad: BadHost) -> BadDestination {
        BadDestination::Host(bad)
    }
}

impl Destination {
    /// Reads `host:port`, an IPv6 address in brackets (the authority of RFC 3986 section 3.2, without a user). Where there
    /// is no port, or nothing behind its colon, it is `default_port`, if there is one.
    ///
    /// # Errors
    /// The host is none ([`parse_host`]), or the port.
    pub fn parse(text: &[u8], default_port: Option<u16>) -> Result<Destination, BadDestination> {
        let (host, port) = split(text)?;
        let port = match (port, default_port) {
            (None | Some([]), Some(port)) => port,
            (None, None) => return Err(BadDestination::NoPort),
            (Some(digits), _) => parse_port(digits).ok_or(BadDestination::BadPort)?,
        };
        Ok(Destination { host: parse_host(host)?, port })
    }

    /// The address, where it is one and needs no resolver.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

impl From<SocketAddr> for Destination {
    /// An IPv4 address inside an IPv6 one (`::ffff:0:0/96`) becomes that, as everywhere.
    fn from(address: SocketAddr) -> Destination {
        Destination { host: Host::Ip(address.ip().to_canonical()), port: address.port() }
    }
}

/// The host, and what is behind the colon.
fn split(text: &[u8]) -> Result<(&[u8], Option<&[u8]>), BadHost> {
    let end = match text.first() {
        Some(b'[') => text.iter().position(|byte| *byte == b']').ok_or(BadHost::Ipv6)? + 1,
        _ => text.iter().position(|byte| *byte == b':').unwrap_or(text.len()),
    };
    match text.split_at(end) {
        (host, []) => Ok((host, None)),
        // An IPv6 address without brackets: where it ends and its port begins is anybody's guess.
        (_, [b':', port @ ..]) if port.contains(&b':') => Err(BadHost::Ipv6),
        (host, [b':', port @ ..]) => Ok((host, Some(port))),
        (_, [..]) => Err(BadHost::Ipv6),
    }
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    // The library's would take a plus, too.
    let digits =
        std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|port| *port != 0)
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests;
