//! The TLS ClientHello (RFC 8446 section 4.1.2): what a client says before anything is encrypted.
//!
//! Here are its server name (RFC 6066 section 3) and its list of application protocols (RFC 7301), which is what a
//! connection can be routed by without being decrypted. Over TCP the message comes in TLS records ([`parse_records`]),
//! over QUIC bare, in CRYPTO frames ([`parse_handshake`]). With Encrypted Client Hello the names are the outer ones:
//! the inner are for the server's eyes only.

mod name;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

/// What a ClientHello says that we care for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The host that the client wants: in lower case, without a closing dot. None if it names none, or an IP address,
    /// which is no name (RFC 6066 section 3).
    pub server_name: Option<Box<str>>,
    /// The application protocols that it offers.
    pub alpn: Alpn,
}

/// A list of application protocols in the order of preference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alpn(
    /// Each behind its length in one byte, as on the wire; nowhere empty or cut.
    Box<[u8]>,
);

impl Alpn {
    /// The protocols, such as `h2`.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            let (name, tail) = tail.split_at_checked(usize::from(length))?;
            rest = tail;
            Some(name)
        })
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A host name in the form that a [`ClientHello`] has it, for comparison. None if no client could ask for it.
pub fn host_name(name: &[u8]) -> Option<Box<str>> {
    name::normalize(name).flatten()
}

/// What bytes turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of one; at least so many bytes are needed, counted from the first.
    NeedMore(usize),
    /// The whole of one, and how many bytes it took.
    Complete(ClientHello, usize),
    /// No TLS at all.
    NotTls,
}

/// Why bytes that begin like a ClientHello are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloError {
    /// It is longer than the limit.
    TooLarge,
    /// It breaks the rules; says which part does.
    Malformed(&'static str),
}

impl std::fmt::Display for HelloError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HelloError::TooLarge => f.write_str("the ClientHello is too large"),
            HelloError::Malformed(part) => write!(f, "malformed ClientHello: {part}"),
        }
    }
}

impl std::error::Error for HelloError {}

/// The content type of a handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// The major version of every TLS record, however new.
const MAJOR: u8 = 3;

/// A record's type, version and length.
const RECORD_HEADER: usize = 5;

/// The longest fragment of a record that is not encrypted (RFC 8446 section 5.1).
const MAX_FRAGMENT: usize = 1 << 14;

/// The message's type, and its length in three bytes.
const MESSAGE_HEADER: usize = 4;

/// The handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// Reads a ClientHello out of the TLS records at the start of a connection; it may be spread over several of them. It
/// may take `limit` bytes with the records' headers.
///
/// # Errors
/// What began as TLS and is no ClientHello. Told as early as it shows.
pub fn parse_records(bytes: &[u8], limit: usize) -> Result<Parsed, HelloError> {
    let mut message = Cow::Borrowed(&[][..]);
    let mut at = 0;
    loop {
        let record = &bytes[at..];
        // Both bytes are those of any other protocol, too, if taken alone.
        match record {
            [kind, ..] if *kind != HANDSHAKE => return other_record(at, "a record of another type"),
            [_, major, ..] if *major != MAJOR => return other_record(at, "the version of a record"),
            _ => {}
        }
        let Some((header, rest)) = record.split_at_checked(RECORD_HEADER) else {
            return need(at + RECORD_HEADER, limit);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > MAX_FRAGMENT {
            return other_record(at, "the length of a record");
        }
        let fragment = &rest[..rest.len().min(length)];
        // The first record mostly holds all of it, and needs no copy.
        match message.is_empty() {
            true => message = Cow::Borrowed(fragment),
            false => message.to_mut().extend_from_slice(fragment),
        }
        let end = at + RECORD_HEADER + length;
        match parse_handshake(&message, limit)? {
            Parsed::NeedMore(total) if fragment.len() < length => {
                // Of what is missing, this record brings no more than its rest.
                let missing = (total - message.len()).min(length - fragment.len());
                return need(at + RECORD_HEADER + fragment.len() + missing, limit);
            }
            Parsed::NeedMore(_) => at = end,
            Parsed::Complete(hello, used) => {
                // Anything behind it belongs to the client's next flight, as early data does; only where it ends is
                // of interest. Fragments before the last were used up.
                let unused = message.len() - used;
                let total = at + RECORD_HEADER + fragment.len() - unused;
                return if total > limit {
                    Err(HelloError::TooLarge)
                } else {
                    Ok(Parsed::Complete(hello, total))
                };
            }
            Parsed::NotTls => return Ok(Parsed::NotTls),
        }
    }
}

/// What does not look like TLS from the start is something else; later it is an error.
fn other_record(at: usize, part: &'static str) -> Result<Parsed, HelloError> {
    if at == 0 { Ok(Parsed::NotTls) } else { Err(HelloError::Malformed(part)) }
}

fn need(total: usize, limit: usize) -> Result<Parsed, HelloError> {
    if total > limit { Err(HelloError::TooLarge) } else { Ok(Parsed::NeedMore(total)) }
}

/// Reads a ClientHello as a bare handshake message, as QUIC's CRYPTO frames carry it (RFC 9001 section 4). It may be
/// `limit` bytes long. Never answers [`Parsed::NotTls`]: nothing else could be meant here.
///
/// # Errors
/// It is none, or too long. The latter shows in its first four bytes.
pub fn parse_handshake(bytes: &[u8], limit: usize) -> Result<Parsed, HelloError> {
    if bytes.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(HelloError::Malformed("another handshake message"));
    }
    let Some((header, rest)) = bytes.split_at_checked(MESSAGE_HEADER) else {
        return need(MESSAGE_HEADER, limit);
    };
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    let total = MESSAGE_HEADER + length;
    match rest.get(..length) {
        _ if total > limit => Err(HelloError::TooLarge),
        None => Ok(Parsed::NeedMore(total)),
        Some(body) => parse_body(body).map(|hello| Parsed::Complete(hello, total)),
    }
}

/// A part of the message that is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    /// What stands behind its length in one byte.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let n = self.u8()?;
        self.take(n.into())
    }

    /// The same with two bytes.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(n.into())
    }

    /// A vector of two bytes' length that is all there is.
    fn only_vector16(mut self) -> Option<&'a [u8]> {
        let vector = self.vector16()?;
        self.0.is_empty().then_some(vector)
    }
}

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const RANDOM: usize = 32;
const MAX_SESSION_ID: usize = 32;

fn parse_body(body: &[u8]) -> Result<ClientHello, HelloError> {
    let mut reader = Reader(body);
    let bad = HelloError::Malformed;
    reader.u16().ok_or(bad("its version"))?;
    reader.take(RANDOM).ok_or(bad("its random"))?;
    reader.vector8().filter(|id| id.len() <= MAX_SESSION_ID).ok_or(bad("its session id"))?;
    let suites = reader.vector16().filter(|suites| suites.len() >= 2 && suites.len().is_multiple_of(2));
    suites.ok_or(bad("its cipher suites"))?;
    reader.vector8().filter(|methods| !methods.is_empty()).ok_or(bad("its compression methods"))?;
    let mut hello = ClientHello::default();
    if reader.0.is_empty() {
        // Before TLS 1.3 it could end here.
        return Ok(hello);
    }
    let mut extensions = Reader(reader.only_vector16().ok_or(bad("the length of its extensions"))?);
    let (mut has_name, mut has_alpn) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.u16().ok_or(bad("an extension"))?;
        let data = extensions.vector16().ok_or(bad("an extension"))?;
        match kind {
            // A second one could be what the server goes by.
            SERVER_NAME if std::mem::replace(&mut has_name, true) => return Err(bad("two server names")),
            ALPN if std::mem::replace(&mut has_alpn, true) => return Err(bad("two protocol lists")),
            SERVER_NAME => hello.server_name = parse_server_name(data).ok_or(bad("its server name"))?,
            ALPN => hello.alpn = parse_alpn(data).ok_or(bad("its protocol list"))?,
            _ => {}
        }
    }
    Ok(hello)
}

/// None if it breaks the rules; an inner none if it names no host.
fn parse_server_name(data: &[u8]) -> Option<Option<Box<str>>> {
    const HOST_NAME: u8 = 0;
    let mut list = Reader(Reader(data).only_vector16().filter(|list| !list.is_empty())?);
    let mut host = None;
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vector16()?;
        if kind == HOST_NAME && host.replace(name).is_some() {
            return None;
        }
    }
    match host {
        Some(host) => name::normalize(host),
        None => Some(None),
    }
}

fn parse_alpn(data: &[u8]) -> Option<Alpn> {
    let list = Reader(data).only_vector16().filter(|list| !list.is_empty())?;
    let mut reader = Reader(list);
    while !reader.0.is_empty() {
        reader.vector8().filter(|name| !name.is_empty())?;
    }
    Some(Alpn(list.into()))
}
