//! The PROXY protocol, versions 1 and 2: a header in front of a connection's data, or in a datagram, by which a proxy
//! says whose connection it passes on.
//!
//! The specification is HAProxy's `proxy-protocol.txt`. Whether a sender may be believed is the caller's to know: from
//! anybody else the same bytes are ordinary data.

mod encode;
#[cfg(test)]
mod tests;
mod tlv;
mod v1;
mod v2;

use std::net::{IpAddr, SocketAddr};

pub use encode::{TlvList, encode_v1, encode_v2};
pub use tlv::{Ssl, Tlv, Tlvs, kind};

/// The longest header of version 1, with its closing CRLF.
pub const V1_MAX: usize = 107;

/// What stands before the addresses in version 2; the shortest header there is.
pub const V2_HEADER: usize = 16;

/// A header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// Which version it was written in.
    pub version: Version,
    /// On whose behalf the connection was made.
    pub command: Command,
    /// Between whom the proxied connection is; [`Endpoints::Unknown`] for [`Command::Local`].
    pub endpoints: Endpoints<'a>,
    /// What else it says; nothing in version 1.
    pub tlvs: Tlvs<'a>,
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// On whose behalf a connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The proxy's own, as for a health check: the connection's own addresses count.
    Local,
    /// A client's.
    Proxy,
}

/// What kind of socket the proxied client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, or a unix socket of that type.
    Stream,
    /// UDP, or a unix socket of that type.
    Datagram,
}

/// Between whom the proxied connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoints<'a> {
    /// The sender does not say: the connection's own addresses count.
    Unknown,
    /// Internet addresses of one family.
    Inet {
        /// Stream or datagrams.
        transport: Transport,
        /// The client.
        source: SocketAddr,
        /// Where it had connected to.
        destination: SocketAddr,
    },
    /// Unix sockets.
    Unix {
        /// Stream or datagrams.
        transport: Transport,
        /// The client's path; mostly empty, for few clients have one.
        source: &'a [u8],
        /// The path that it had connected to.
        destination: &'a [u8],
    },
}

impl Endpoints<'_> {
    /// Of two internet addresses. A mapped IPv4 address is an IPv4 address; if only one of them is, both are written as
    /// IPv6, as HAProxy does, for a header has one family.
    pub fn inet(transport: Transport, source: SocketAddr, destination: SocketAddr) -> Self {
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let (source, destination) = (canonical(source), canonical(destination));
        if source.is_ipv4() == destination.is_ipv4() {
            return Endpoints::Inet { transport, source, destination };
        }
        let mapped = |addr: SocketAddr| match addr.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
            IpAddr::V6(_) => addr,
        };
        Endpoints::Inet { transport, source: mapped(source), destination: mapped(destination) }
    }
}

/// The bytes of a unix socket's address in a header: a path ends at the first NUL, or there.
const UNIX_PATH: usize = 108;

/// What bytes turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The beginning of a header; at least so many bytes are needed, counted from the first.
    NeedMore(usize),
    /// No header.
    NotProxy,
    /// A header, and how many bytes it took.
    Header(Header<'a>, usize),
}

/// Why bytes that begin like a header are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// Version 1 without an end within [`V1_MAX`] bytes, or version 2 longer than the limit.
    TooLong,
    /// It breaks the rules; says which part does.
    Malformed(&'static str),
    /// Its checksum says that it was changed on the way.
    Checksum,
}

impl std::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HeaderError::TooLong => f.write_str("the PROXY header is too long"),
            HeaderError::Malformed(part) => write!(f, "malformed PROXY header: {part}"),
            HeaderError::Checksum => f.write_str("the PROXY header's checksum does not match"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// Reads the header at the start of a connection or a datagram, of either version. `v2_max` is the most bytes that one of
/// version 2 may take.
///
/// # Errors
/// What began as a header and is none. Lengths are checked before the bytes are there.
pub fn parse(bytes: &[u8], v2_max: usize) -> Result<Parsed<'_>, HeaderError> {
    let begins = |signature: &[u8]| bytes.iter().zip(signature).all(|(a, b)| a == b);
    // Of no bytes at all both could be the beginning; version 1 has the shorter headers.
    if begins(v1::SIGNATURE) {
        v1::parse(bytes)
    } else if begins(v2::SIGNATURE) {
        v2::parse(bytes, v2_max)
    } else {
        Ok(Parsed::NotProxy)
    }
}
