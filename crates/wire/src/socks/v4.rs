//! SOCKS 4 and 4a.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::cursor::parse;
use super::{Command, Parsed, SocksError, Target};

/// What a request begins with.
pub const VERSION: u8 = 4;

/// How long a reply is.
pub const REPLY: usize = 8;

/// A request: SOCKS 4 where its target is an address, 4a where it is a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What the client wants.
    pub command: Command,
    /// Where.
    pub target: Target<'a>,
    /// Who it says that it is; nothing proves it.
    pub user_id: &'a [u8],
}

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Whether, and why not.
    pub code: Code,
    /// For BIND the address that was bound, or that came.
    pub address: SocketAddrV4,
}

/// Whether a request was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

impl Code {
    /// Granted.
    pub const GRANTED: Code = Code(0x5a);
    /// Rejected, or failed.
    pub const REJECTED: Code = Code(0x5b);
    /// Rejected, for nobody on the client's machine says who its user is.
    pub const NO_IDENTD: Code = Code(0x5c);
    /// Rejected, for the user is not who it should be.
    pub const OTHER_USER: Code = Code(0x5d);

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Code::GRANTED => "granted",
            Code::REJECTED => "rejected or failed",
            Code::NO_IDENTD => "no identd on the client",
            Code::OTHER_USER => "the user id is not accepted",
            _ => "a code that SOCKS 4 does not know",
        }
    }
}

/// Whether it is none of an address that can be reached, but says that a name follows.
fn is_placeholder(ip: Ipv4Addr) -> bool {
    matches!(ip.octets(), [0, 0, 0, last] if last != 0)
}

/// Reads a request. `max_text` is the most bytes that the user id may have, and the name.
///
/// # Errors
/// It is none, or too long.
pub fn parse_request(bytes: &[u8], max_text: usize) -> Result<Parsed<Request<'_>>, SocksError> {
    parse(bytes, |cursor| {
        cursor.expect(VERSION)?;
        let command = Command::from_byte(cursor.byte()?);
        let port = cursor.port()?;
        let ip = Ipv4Addr::from(cursor.array::<4>()?);
        let user_id = cursor.until_nul(max_text)?;
        let target = match ip {
            ip if is_placeholder(ip) => Target::Name(cursor.until_nul(max_text)?, port),
            ip => Target::Address(SocketAddr::new(ip.into(), port)),
        };
        Ok(Request { command, target, user_id })
    })
}

/// Writes a request. A name makes it one of SOCKS 4a.
///
/// # Errors
/// It can't be said in SOCKS 4. Nothing is written then.
pub fn write_request(out: &mut Vec<u8>, request: &Request<'_>) -> Result<(), SocksError> {
    let (ip, port, name) = match request.target {
        Target::Address(address) => match address.ip().to_canonical() {
            IpAddr::V4(ip) if is_placeholder(ip) => return Err(SocksError::NoAddress),
            IpAddr::V4(ip) => (ip, address.port(), None),
            IpAddr::V6(_) => return Err(SocksError::NoIpv6),
        },
        Target::Name(name, port) => (Ipv4Addr::new(0, 0, 0, 1), port, Some(name)),
    };
    let texts = [Some(request.user_id), name];
    if texts.iter().flatten().any(|text| text.contains(&0)) {
        return Err(SocksError::Nul);
    }
    out.extend_from_slice(&[VERSION, request.command.byte()]);
    out.extend_from_slice(&port.to_be_bytes());
    out.extend_from_slice(&ip.octets());
    for text in texts.into_iter().flatten() {
        out.extend_from_slice(text);
        out.push(0);
    }
    Ok(())
}

/// Reads a server's reply.
///
/// # Errors
/// It is none.
pub fn parse_reply(bytes: &[u8]) -> Result<Parsed<Reply>, SocksError> {
    parse(bytes, |cursor| {
        cursor.expect(0)?;
        let code = Code(cursor.byte()?);
        let port = cursor.port()?;
        let address = SocketAddrV4::new(cursor.array::<4>()?.into(), port);
        Ok(Reply { code, address })
    })
}

/// Writes a reply. Where the address is one of IPv6, zeros stand for it.
pub fn reply(code: Code, address: SocketAddr) -> [u8; REPLY] {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let ([p, q], [a, b, c, d]) = (address.port().to_be_bytes(), ip.octets());
    [0, code.0, p, q, a, b, c, d]
}
