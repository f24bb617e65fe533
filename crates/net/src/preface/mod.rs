//! What a connection says before its data, and what is said to a peer before that: PROXY headers, and the ClientHello.
//!
//! What lives here: reading both from a [`Stream`] without consuming anything else, which proxies' headers are believed
//! ([`Trusted`]), and writing the header onward ([`Introduction`]). What must not: the deadline and the order of these
//! things, which are the mode's; the formats themselves (`wmproxy_wire`).
//!
//! A connection holds only the bytes that came while it waits, and never more than the limits here; what was read but
//! not consumed goes back into the stream.

mod introduction;
#[cfg(test)]
mod tests;
mod trusted;
mod welcome;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use wmproxy_wire::client_hello::{self, ClientHello};
use wmproxy_wire::proxy_protocol::{self, Endpoints, HeaderError};

use crate::record::{Outcome, Preface, Record};
use crate::stream::Stream;
use crate::tls;

pub use introduction::{Introduction, ProxyVersion};
pub use trusted::{Trusted, TrustedProxy};
pub use welcome::{Heard, Welcome, welcome};

/// The longest PROXY header that is taken. Type-length-values with names, a certificate's among them, take some hundred
/// bytes; HAProxy's own limit is a buffer of 16 KiB with the data behind it.
const MAX_HEADER: usize = 4096;

/// The longest ClientHello, as OpenSSL and rustls have it, give or take. With post-quantum key shares one takes some
/// 1,800 bytes, with a session ticket of TLS 1.3 as much again.
pub const MAX_CLIENT_HELLO: usize = 16 * 1024;

/// Protocols of a client that are kept for the log. Browsers offer two.
const MAX_PROTOCOLS: usize = 8;

/// What one read takes: most ClientHellos whole.
const CHUNK: usize = 4096;

/// What a PROXY header said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// The client and where it had connected to. None if the sender does not say, or connects on its own behalf: the
    /// connection's own addresses then count, as for clients on unix sockets, which have none.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What else it said, as it came.
    pub tlvs: Box<[u8]>,
}

impl Proxied {
    /// Notes in a record for whom the connection was made.
    pub fn note(self, record: &mut Record) {
        if let Some((source, destination)) = self.addresses {
            let via = record.client.replace(source);
            let preface = record.preface_mut();
            preface.via = via;
            preface.destination = Some(destination);
        }
        if !self.tlvs.is_empty() {
            record.preface_mut().proxy_tlvs = self.tlvs;
        }
    }
}

/// Reads the PROXY header that a connection has to begin with. What follows it stays in the stream.
///
/// # Errors
/// There is none, or a broken one, or the client has gone.
pub async fn read_proxy_header(stream: &Stream) -> Result<Proxied, Outcome> {
    let parse = |bytes: &[u8]| match proxy_protocol::parse(bytes, MAX_HEADER) {
        Ok(proxy_protocol::Parsed::NeedMore(_)) => Ok(None),
        Ok(proxy_protocol::Parsed::Header(header, used)) => Ok(Some((proxied(&header), used))),
        Ok(proxy_protocol::Parsed::NotProxy) | Err(_) => Err(Outcome::BadProxyHeader),
    };
    let (mut bytes, (proxied, used)) = read_until(stream, parse, Outcome::BadProxyHeader).await?;
    bytes.drain(..used);
    stream.unread(bytes);
    Ok(proxied)
}

/// Reads the PROXY header that a connection may begin with; none if it begins with anything else, all of which stays in
/// the stream. No request and no ClientHello begins like one.
///
/// # Errors
/// A broken one, or the client has gone.
pub async fn read_optional_header(stream: &Stream) -> Result<Option<Proxied>, Outcome> {
    let parse = |bytes: &[u8]| match proxy_protocol::parse(bytes, MAX_HEADER) {
        Ok(proxy_protocol::Parsed::NeedMore(_)) => Ok(None),
        Ok(proxy_protocol::Parsed::Header(header, used)) => Ok(Some((Some(proxied(&header)), used))),
        Ok(proxy_protocol::Parsed::NotProxy) => Ok(Some((None, 0))),
        Err(_) => Err(Outcome::BadProxyHeader),
    };
    let (mut bytes, (proxied, used)) = read_until(stream, parse, Outcome::BadProxyHeader).await?;
    bytes.drain(..used);
    stream.unread(bytes);
    Ok(proxied)
}

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the PROXY header at the front of a datagram, and how many bytes it takes. None if there is none; only version 2
/// knows datagrams.
///
/// # Errors
/// What is wrong with it. All of it has to be in the one datagram.
pub fn datagram_header(datagram: &[u8]) -> Result<Option<(Proxied, usize)>, HeaderError> {
    if !datagram.starts_with(SIGNATURE) {
        return Ok(None);
    }
    match proxy_protocol::parse(datagram, MAX_HEADER)? {
        proxy_protocol::Parsed::Header(header, used) => Ok(Some((proxied(&header), used))),
        proxy_protocol::Parsed::NeedMore(_) | proxy_protocol::Parsed::NotProxy => {
            Err(HeaderError::Malformed("it is cut off"))
        }
    }
}

fn proxied(header: &proxy_protocol::Header<'_>) -> Proxied {
    let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let addresses = match header.endpoints {
        Endpoints::Inet { source, destination, .. } => Some((canonical(source), canonical(destination))),
        Endpoints::Unknown | Endpoints::Unix { .. } => None,
    };
    Proxied { addresses, tlvs: header.tlvs.as_bytes().into() }
}

/// Reads the ClientHello at the start of a connection, all of which stays in the stream.
///
/// # Errors
/// It is none, or a broken one, or the client has gone.
pub async fn read_client_hello(stream: &Stream) -> Result<ClientHello, Outcome> {
    let parse = |bytes: &[u8]| match client_hello::parse_records(bytes, MAX_CLIENT_HELLO) {
        Ok(client_hello::Parsed::NeedMore(_)) => Ok(None),
        Ok(client_hello::Parsed::Complete(hello, _)) => Ok(Some(hello)),
        Ok(client_hello::Parsed::NotTls) => Err(Outcome::NotTls),
        Err(_) => Err(Outcome::BadClientHello),
    };
    let (bytes, hello) = read_until(stream, parse, Outcome::BadClientHello).await?;
    stream.unread(bytes);
    Ok(hello)
}

/// Reads what a connection says first, at least one byte of it, by which its protocol may be told. It is the caller's to
/// consume it or to give it back.
///
/// # Errors
/// The client has gone.
pub async fn read_first(stream: &Stream) -> Result<Vec<u8>, Outcome> {
    let mut bytes = Vec::new();
    match read_more(stream, &mut bytes).await? {
        0 => Err(Outcome::ClientLeft),
        _ => Ok(bytes),
    }
}

/// Notes in a preface what a client asks for. Of its protocols the first: whoever offers many fills no log with them.
pub fn note_hello(preface: &mut Preface, hello: &ClientHello) {
    preface.sni = hello.server_name.clone();
    let protocols: Vec<_> = hello.alpn.iter().take(MAX_PROTOCOLS).map(String::from_utf8_lossy).collect();
    preface.alpn = (!protocols.is_empty()).then(|| protocols.join(",").into());
}

/// Reads until `parse` has seen enough, and gives back all that was read. An end in the middle is `cut_off`. How much is
/// kept is bounded by `parse`, which has to refuse what is too long.
async fn read_until<T>(
    stream: &Stream,
    parse: impl Fn(&[u8]) -> Result<Option<T>, Outcome>,
    cut_off: Outcome,
) -> Result<(Vec<u8>, T), Outcome> {
    let mut bytes = Vec::new();
    loop {
        let n = read_more(stream, &mut bytes).await?;
        if n == 0 {
            return Err(if bytes.is_empty() { Outcome::ClientLeft } else { cut_off });
        }
        if let Some(parsed) = parse(&bytes)? {
            return Ok((bytes, parsed));
        }
    }
}

/// Appends what is there, once something is; 0 is the end of the stream.
///
/// # Errors
/// The client has gone, or broke TLS.
pub async fn read_more(stream: &Stream, bytes: &mut Vec<u8>) -> Result<usize, Outcome> {
    poll_fn(|cx| {
        // On the stack of this call, so that who waits holds no buffer.
        let mut chunk = [0; CHUNK];
        match stream.poll_read(cx, &mut chunk) {
            Poll::Ready(Ok(n)) => {
                bytes.extend_from_slice(&chunk[..n]);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) if tls::is_failure(&error) => Poll::Ready(Err(Outcome::ClientTls)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Outcome::ClientReset)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The alert `unrecognized_name` (RFC 6066 section 3) in a record of its own, as a server sends it that has no such name.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 1, 0, 2, 2, 112];

/// Tells a TLS client that nobody here has the name that it asked for, if that can be said at once.
pub fn refuse_name(stream: &Stream) {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    // Who does not take seven bytes at the start of a connection does not listen.
    let _ = stream.poll_write(&mut cx, &UNRECOGNIZED_NAME);
}
