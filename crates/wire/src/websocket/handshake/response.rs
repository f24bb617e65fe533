//! The client's part: the request to write, and reading the answer.

use std::fmt::Write as _;

use httparse::Status;

use super::{Fields, HeadLimits, Parsed, accept_key};

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    /// The name of the server, with its port where that is not the scheme's own.
    pub host: &'a str,
    /// The path with its query.
    pub path: &'a str,
    /// 16 random bytes in base64; see [`key_text`](super::key_text).
    pub key: &'a str,
    /// The subprotocols to offer, the most wanted first.
    pub protocols: &'a [String],
}

/// An answer that grants the upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<'a> {
    /// The subprotocol that the server chose from those offered.
    pub protocol: Option<&'a str>,
}

/// Why there is no connection (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// No HTTP/1.1, or one with a head above the limits.
    Malformed(&'static str),
    /// The server answers with another status than 101.
    Status(u16),
    /// The fields of the upgrade are missing or wrong.
    NoUpgrade,
    /// The accept value does not belong to the key: whoever answers has not read it.
    BadAccept,
    /// An extension that was not offered.
    Extension,
    /// A subprotocol that was not offered.
    Protocol,
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rejected::Malformed(what) => what,
            Rejected::Status(status) => return write!(f, "it answers {status} instead of 101"),
            Rejected::NoUpgrade => "its 101 does not upgrade to websocket",
            Rejected::BadAccept => "its Sec-WebSocket-Accept does not belong to our key",
            Rejected::Extension => "it uses an extension that was not offered",
            Rejected::Protocol => "it chose a subprotocol that was not offered",
        })
    }
}

/// The request of a client (section 4.1) with further `fields`, whose names and values have to be valid.
pub fn request_head<'f>(ask: &Ask<'_>, fields: impl IntoIterator<Item = (&'f str, &'f str)>) -> Vec<u8> {
    let Ask { host, path, key, protocols } = ask;
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
    );
    if !protocols.is_empty() {
        let _ = write!(head, "Sec-WebSocket-Protocol: {}\r\n", protocols.join(", "));
    }
    push_fields(&mut head, fields);
    head.into_bytes()
}

pub(super) fn push_fields<'f>(head: &mut String, fields: impl IntoIterator<Item = (&'f str, &'f str)>) {
    for (name, value) in fields {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
}

/// Reads a server's answer to `ask` from the front of `bytes`.
///
/// # Errors
/// Why it is no connection, as soon as that is known.
pub fn parse_response<'b>(
    bytes: &'b [u8],
    ask: &Ask<'_>,
    limits: HeadLimits,
) -> Result<Parsed<Response<'b>>, Rejected> {
    let mut fields = vec![httparse::EMPTY_HEADER; limits.fields];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(bytes) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) if bytes.len() < limits.bytes => return Ok(Parsed::NeedMore),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Rejected::Malformed("the head of its answer is too large"));
        }
        Err(_) => return Err(Rejected::Malformed("its answer is not HTTP/1.1")),
    };
    if len > limits.bytes {
        return Err(Rejected::Malformed("the head of its answer is too large"));
    }
    if response.version != Some(1) {
        return Err(Rejected::Malformed("its answer is not HTTP/1.1"));
    }
    match response.code {
        Some(101) => {}
        status => return Err(Rejected::Status(status.unwrap_or_default())),
    }
    let fields = Fields(response.headers);
    if !fields.has_token("upgrade", "websocket") || !fields.has_token("connection", "upgrade") {
        return Err(Rejected::NoUpgrade);
    }
    let accept = accept_key(ask.key);
    match fields.one("sec-websocket-accept") {
        Ok(Some(got)) if got.as_bytes() == accept => {}
        _ => return Err(Rejected::BadAccept),
    }
    if fields.list("sec-websocket-extensions").next().is_some() {
        return Err(Rejected::Extension);
    }
    let protocol = match fields.one("sec-websocket-protocol") {
        Ok(None) => None,
        Ok(Some(chosen)) if ask.protocols.iter().any(|offered| offered == chosen) => Some(chosen),
        _ => return Err(Rejected::Protocol),
    };
    Ok(Parsed::Head { head: Response { protocol }, len })
}
