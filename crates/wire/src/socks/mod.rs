//! SOCKS 4, 4a and 5: what clients and servers of it say to each other, read and written for both sides.
//!
//! SOCKS 5 is RFC 1928, its user names and passwords are RFC 1929; SOCKS 4 and 4a are what their authors wrote down
//! (`SOCKS4.protocol`, `socks4a.protocol`). Nothing here decides anything: who may do what, and where names lead, is the
//! caller's to know.
//!
//! Each parser takes what has come so far and says what it is, how many bytes it took, or how many it needs. What lies behind
//! a message is left alone: clients that expect no refusal send their data with the request.

mod cursor;
pub mod datagram;
#[cfg(test)]
mod tests;
pub mod v4;
pub mod v5;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::destination::{BadHost, Destination, Host, parse_host};
use cursor::{Cursor, Stop};

/// What bytes turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The beginning; at least so many bytes are needed, counted from the first.
    NeedMore(usize),
    /// The whole, and how many bytes it took.
    Done(T, usize),
}

impl<T> Parsed<T> {
    /// Makes something else of what was read.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Parsed<U> {
        match self {
            Parsed::NeedMore(total) => Parsed::NeedMore(total),
            Parsed::Done(message, used) => Parsed::Done(make(message), used),
        }
    }
}

/// Why bytes are no message of SOCKS, or can't become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocksError {
    /// Its first byte is of another protocol, or of another message.
    Version(u8),
    /// A kind of address that RFC 1928 does not know.
    AddressType(u8),
    /// A text is longer than may be, or than can be said.
    TooLong,
    /// A datagram ends before its header does.
    CutOff,
    /// A text holds the byte that ends it.
    Nul,
    /// SOCKS 4 has no words for addresses of IPv6.
    NoIpv6,
    /// To SOCKS 4a an address of 0.0.0.x says that a name follows.
    NoAddress,
}

impl fmt::Display for SocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocksError::Version(byte) => {
                write!(f, "no message of this version of SOCKS: it begins with {byte:#04x}")
            }
            SocksError::AddressType(byte) => write!(f, "SOCKS knows no address of type {byte:#04x}"),
            SocksError::TooLong => f.write_str("a name, user id or password is too long for SOCKS"),
            SocksError::CutOff => f.write_str("the datagram ends within its SOCKS header"),
            SocksError::Nul => f.write_str("a zero byte can't be part of a SOCKS 4 text"),
            SocksError::NoIpv6 => f.write_str("SOCKS 4 can't name an IPv6 address"),
            SocksError::NoAddress => f.write_str("SOCKS 4 takes an address of 0.0.0.x for a name's place"),
        }
    }
}

impl std::error::Error for SocksError {}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A connection.
    Connect,
    /// A port to which somebody will connect.
    Bind,
    /// Datagrams; SOCKS 5 only.
    Associate,
    /// Something that no version knows.
    Other(u8),
}

impl Command {
    fn from_byte(byte: u8) -> Command {
        match byte {
            1 => Command::Connect,
            2 => Command::Bind,
            3 => Command::Associate,
            other => Command::Other(other),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Command::Connect => 1,
            Command::Bind => 2,
            Command::Associate => 3,
            Command::Other(other) => other,
        }
    }
}

/// A host and a port as they stand on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// An address.
    Address(SocketAddr),
    /// A name, which may be anything at all, and a port.
    Name(&'a [u8], u16),
}

impl Target<'_> {
    /// What it means: a name that is an address becomes one.
    ///
    /// # Errors
    /// The name is none.
    pub fn destination(&self) -> Result<Destination, BadHost> {
        match *self {
            Target::Address(address) => Ok(address.into()),
            Target::Name(name, port) => Ok(Destination { host: parse_host(name)?, port }),
        }
    }
}

impl<'a> From<&'a Destination> for Target<'a> {
    fn from(destination: &'a Destination) -> Self {
        match &destination.host {
            Host::Ip(ip) => Target::Address(SocketAddr::new(*ip, destination.port)),
            Host::Name(name) => Target::Name(name.as_bytes(), destination.port),
        }
    }
}

/// The longest of what has an address and no name: a reply, or the header of a datagram, with IPv6.
const SHORT: usize = 22;

/// A message without a name; no memory is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    bytes: [u8; SHORT],
    length: u8,
}

impl Short {
    /// Three bytes that mean something, then an address.
    fn new([a, b, c]: [u8; 3], address: SocketAddr) -> Short {
        let mut bytes = [0; SHORT];
        bytes[..3].copy_from_slice(&[a, b, c]);
        let length = match address.ip() {
            IpAddr::V4(ip) => {
                bytes[3] = IPV4;
                bytes[4..8].copy_from_slice(&ip.octets());
                8
            }
            IpAddr::V6(ip) => {
                bytes[3] = IPV6;
                bytes[4..20].copy_from_slice(&ip.octets());
                20
            }
        };
        bytes[length..length + 2].copy_from_slice(&address.port().to_be_bytes());
        Short { bytes, length: length as u8 + 2 }
    }
}

impl std::ops::Deref for Short {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Types of addresses (RFC 1928 section 5).
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Reads an address with its type before and its port behind it, as all messages of SOCKS 5 have it.
fn read_target<'a>(cursor: &mut Cursor<'a>) -> Result<Target<'a>, Stop> {
    let ip: IpAddr = match cursor.byte()? {
        IPV4 => Ipv4Addr::from(cursor.array::<4>()?).into(),
        IPV6 => Ipv6Addr::from(cursor.array::<16>()?).into(),
        NAME => {
            let name = cursor.counted()?;
            return Ok(Target::Name(name, cursor.port()?));
        }
        other => return Err(SocksError::AddressType(other).into()),
    };
    Ok(Target::Address(SocketAddr::new(ip, cursor.port()?)))
}

fn write_target(out: &mut Vec<u8>, target: &Target<'_>) -> Result<(), SocksError> {
    match *target {
        Target::Address(address) => out.extend_from_slice(&Short::new([0; 3], address)[3..]),
        Target::Name(name, port) => {
            let length = u8::try_from(name.len()).map_err(|_| SocksError::TooLong)?;
            out.extend_from_slice(&[NAME, length]);
            out.extend_from_slice(name);
            out.extend_from_slice(&port.to_be_bytes());
        }
    }
    Ok(())
}
