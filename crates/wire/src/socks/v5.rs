//! SOCKS 5 (RFC 1928) with user names and passwords (RFC 1929).

use std::fmt;
use std::net::SocketAddr;

use super::cursor::parse;
use super::{Command, Parsed, Short, SocksError, Target, read_target, write_target};

/// What all messages begin with, but those of RFC 1929.
pub const VERSION: u8 = 5;

/// What messages of RFC 1929 begin with.
const PASSWORD_VERSION: u8 = 1;

/// Ways to prove who one is (RFC 1928 section 3).
pub mod method {
    /// Not at all.
    pub const NONE: u8 = 0;
    /// Kerberos, which we do not speak.
    pub const GSSAPI: u8 = 1;
    /// A user name and a password.
    pub const PASSWORD: u8 = 2;
    /// The server's word for: none of those.
    pub const UNACCEPTABLE: u8 = 0xff;
}

/// Who a client says that it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The password.
    pub password: &'a [u8],
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What the client wants.
    pub command: Command,
    /// Where; for datagrams, where they will come from.
    pub target: Target<'a>,
}

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Whether, and why not.
    pub code: Code,
    /// The server's address for it. RFC 1928 allows names here.
    pub bound: Target<'a>,
}

/// Whether a request was granted, and why not (RFC 1928 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

impl Code {
    /// Granted.
    pub const SUCCEEDED: Code = Code(0);
    /// Anything that has no other code.
    pub const FAILURE: Code = Code(1);
    /// The rules do not allow it.
    pub const NOT_ALLOWED: Code = Code(2);
    /// No way to the network.
    pub const NETWORK_UNREACHABLE: Code = Code(3);
    /// No way to the host, or no such host.
    pub const HOST_UNREACHABLE: Code = Code(4);
    /// Nobody listens there.
    pub const REFUSED: Code = Code(5);
    /// "TTL expired"; what servers say where nobody answers in time.
    pub const TTL_EXPIRED: Code = Code(6);
    /// The server does not do that.
    pub const COMMAND_UNSUPPORTED: Code = Code(7);
    /// The server has no such addresses.
    pub const ADDRESS_UNSUPPORTED: Code = Code(8);

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Code::SUCCEEDED => "succeeded",
            Code::FAILURE => "general failure",
            Code::NOT_ALLOWED => "not allowed by the rules",
            Code::NETWORK_UNREACHABLE => "network unreachable",
            Code::HOST_UNREACHABLE => "host unreachable",
            Code::REFUSED => "connection refused",
            Code::TTL_EXPIRED => "TTL expired",
            Code::COMMAND_UNSUPPORTED => "command not supported",
            Code::ADDRESS_UNSUPPORTED => "address type not supported",
            _ => "a code that RFC 1928 does not know",
        }
    }
}

/// Reads what a client says first: the methods that it can do. There may be none.
///
/// # Errors
/// It is none.
pub fn parse_greeting(bytes: &[u8]) -> Result<Parsed<&[u8]>, SocksError> {
    parse(bytes, |cursor| {
        cursor.expect(VERSION)?;
        cursor.counted()
    })
}

/// Writes a greeting.
///
/// # Errors
/// More than 255 methods. Nothing is written then.
pub fn write_greeting(out: &mut Vec<u8>, methods: &[u8]) -> Result<(), SocksError> {
    let count = u8::try_from(methods.len()).map_err(|_| SocksError::TooLong)?;
    out.extend_from_slice(&[VERSION, count]);
    out.extend_from_slice(methods);
    Ok(())
}

/// Reads the method that a server chose.
///
/// # Errors
/// It is none.
pub fn parse_choice(bytes: &[u8]) -> Result<Parsed<u8>, SocksError> {
    parse(bytes, |cursor| {
        cursor.expect(VERSION)?;
        cursor.byte()
    })
}

/// The choice of a method.
pub fn choice(method: u8) -> [u8; 2] {
    [VERSION, method]
}

/// Reads a name and a password. Either may be empty, though RFC 1929 has them begin with one byte.
///
/// # Errors
/// It is none.
pub fn parse_credentials(bytes: &[u8]) -> Result<Parsed<Credentials<'_>>, SocksError> {
    parse(bytes, |cursor| {
        cursor.expect(PASSWORD_VERSION)?;
        Ok(Credentials { name: cursor.counted()?, password: cursor.counted()? })
    })
}

/// Writes a name and a password.
///
/// # Errors
/// One of them has more than 255 bytes. Nothing is written then.
pub fn write_credentials(out: &mut Vec<u8>, credentials: &Credentials<'_>) -> Result<(), SocksError> {
    let length = |text: &[u8]| u8::try_from(text.len()).map_err(|_| SocksError::TooLong);
    let (name, password) = (length(credentials.name)?, length(credentials.password)?);
    out.extend_from_slice(&[PASSWORD_VERSION, name]);
    out.extend_from_slice(credentials.name);
    out.push(password);
    out.extend_from_slice(credentials.password);
    Ok(())
}

/// Reads whether a server believes a password.
///
/// # Errors
/// It is no answer to one.
pub fn parse_verdict(bytes: &[u8]) -> Result<Parsed<bool>, SocksError> {
    parse(bytes, |cursor| {
        cursor.expect(PASSWORD_VERSION)?;
        Ok(cursor.byte()? == 0)
    })
}

/// Whether a password is believed. Behind a no the connection has to be closed.
pub fn verdict(is_believed: bool) -> [u8; 2] {
    [PASSWORD_VERSION, u8::from(!is_believed)]
}

/// Reads a request. The reserved byte may be anything: nothing hangs on it.
///
/// # Errors
/// It is none. A type of address that nobody knows is told as soon as it has come.
pub fn parse_request(bytes: &[u8]) -> Result<Parsed<Request<'_>>, SocksError> {
    parse(bytes, |cursor| {
        cursor.expect(VERSION)?;
        let [command, _reserved] = cursor.array()?;
        Ok(Request { command: Command::from_byte(command), target: read_target(cursor)? })
    })
}

/// Writes a request.
///
/// # Errors
/// The name has more than 255 bytes. Nothing is written then.
pub fn write_request(out: &mut Vec<u8>, request: &Request<'_>) -> Result<(), SocksError> {
    let start = out.len();
    out.extend_from_slice(&[VERSION, request.command.byte(), 0]);
    write_target(out, &request.target).inspect_err(|_| out.truncate(start))
}

/// Reads a server's reply.
///
/// # Errors
/// It is none.
pub fn parse_reply(bytes: &[u8]) -> Result<Parsed<Reply<'_>>, SocksError> {
    parse(bytes, |cursor| {
        cursor.expect(VERSION)?;
        let [code, _reserved] = cursor.array()?;
        Ok(Reply { code: Code(code), bound: read_target(cursor)? })
    })
}

/// A reply with the server's address.
pub fn reply(code: Code, bound: SocketAddr) -> Short {
    Short::new([VERSION, code.0, 0], bound)
}
