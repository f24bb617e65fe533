//! The server's part: reading the request, and the heads that answer it.

use std::fmt::Write as _;

use httparse::Status;

use super::{Fields, HeadLimits, Parsed, Twice, accept_key, is_key, is_token};

/// A request that may be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The path, without the query.
    pub path: &'a str,
    /// Whom the client believes to reach, with a port or without.
    pub host: &'a str,
    /// What the answer has to prove that it was read; see [`accept_head`].
    pub key: &'a str,
    /// The page that asks, if it is a browser's.
    pub origin: Option<&'a str>,
    /// The subprotocols that the client offers, the one it likes most first.
    pub protocols: Vec<&'a str>,
}

/// Why a request is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no HTTP/1.1, or fields that must be there once are missing, doubled or wrong: 400.
    Malformed(&'static str),
    /// An Origin or Host that is not welcome: 403.
    Forbidden,
    /// Another path: 404.
    NotFound,
    /// Another method than GET: 405.
    Method,
    /// It asks for no WebSocket, or for another version than 13: 426.
    Upgrade,
    /// It did not come in time: 408.
    Timeout,
    /// A head above the limits: 431.
    TooLarge,
    /// Nobody could be connected to: 502.
    BadGateway,
    /// Nobody is there to be connected to, or nothing to do it with: 503.
    Unavailable,
    /// Nobody answered in time: 504.
    GatewayTimeout,
}

impl Refusal {
    /// The status line without the version.
    pub fn status(self) -> &'static str {
        match self {
            Refusal::Malformed(_) => "400 Bad Request",
            Refusal::Forbidden => "403 Forbidden",
            Refusal::NotFound => "404 Not Found",
            Refusal::Method => "405 Method Not Allowed",
            Refusal::Timeout => "408 Request Timeout",
            Refusal::Upgrade => "426 Upgrade Required",
            Refusal::TooLarge => "431 Request Header Fields Too Large",
            Refusal::BadGateway => "502 Bad Gateway",
            Refusal::Unavailable => "503 Service Unavailable",
            Refusal::GatewayTimeout => "504 Gateway Timeout",
        }
    }

    /// The fields that belong to it.
    fn fields(self) -> &'static str {
        match self {
            Refusal::Method => "Allow: GET\r\n",
            // Section 4.2.2 step 4 names the version, RFC 9110 section 15.5.22 the protocol.
            Refusal::Upgrade => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => "",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Malformed(what) => write!(f, "400: {what}"),
            refusal => f.write_str(refusal.status()),
        }
    }
}

/// Reads a client's request (section 4.2.1) from the front of `bytes`.
///
/// # Errors
/// Why it can't be granted, as soon as that is known.
pub fn parse_request(bytes: &[u8], limits: HeadLimits) -> Result<Parsed<Request<'_>>, Refusal> {
    let mut fields = vec![httparse::EMPTY_HEADER; limits.fields];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) if bytes.len() < limits.bytes => return Ok(Parsed::NeedMore),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(httparse::Error::Version) => return Err(Refusal::Malformed("not HTTP/1.1")),
        Err(_) => return Err(Refusal::Malformed("not a request of HTTP")),
    };
    if len > limits.bytes {
        return Err(Refusal::TooLarge);
    }
    if request.method != Some("GET") {
        return Err(Refusal::Method);
    }
    if request.version != Some(1) {
        return Err(Refusal::Malformed("not HTTP/1.1"));
    }
    let target = request.path.unwrap_or_default();
    let head = read(target, &Fields(request.headers))?;
    Ok(Parsed::Head { head, len })
}

fn read<'b>(target: &'b str, fields: &Fields<'_, 'b>) -> Result<Request<'b>, Refusal> {
    let one = |name, wrong| fields.one(name).map_err(|Twice| Refusal::Malformed(wrong));
    let host = one("host", "two Host fields")?;
    let host = host.filter(|host| !host.is_empty()).ok_or(Refusal::Malformed("no Host"))?;
    // A body would be read as frames.
    if fields.has("transfer-encoding") || fields.list("content-length").any(|length| length != "0") {
        return Err(Refusal::Malformed("a body"));
    }
    if !fields.has_token("upgrade", "websocket") || !fields.has_token("connection", "upgrade") {
        return Err(Refusal::Upgrade);
    }
    if one("sec-websocket-version", "two versions")? != Some("13") {
        return Err(Refusal::Upgrade);
    }
    let key = one("sec-websocket-key", "two keys")?.filter(|key| is_key(key));
    let protocols: Vec<&str> = fields.list("sec-websocket-protocol").collect();
    if !protocols.iter().all(|protocol| is_token(protocol)) {
        return Err(Refusal::Malformed("a subprotocol that is no token"));
    }
    Ok(Request {
        path: path_of(target)?,
        host,
        key: key.ok_or(Refusal::Malformed("no Sec-WebSocket-Key of 16 bytes"))?,
        origin: one("origin", "two Origin fields")?,
        protocols,
    })
}

/// The path of a request's target, which may be a whole URL (RFC 9112 section 3.2.2).
fn path_of(target: &str) -> Result<&str, Refusal> {
    let path = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => match rest.find(['/', '?']) {
            Some(at) if rest.as_bytes()[at] == b'/' => &rest[at..],
            _ => "/",
        },
        _ => target,
    };
    if !path.starts_with('/') {
        return Err(Refusal::Malformed("a target that is no path"));
    }
    Ok(path.split(['?', '#']).next().unwrap_or(path))
}

/// The head that grants a request (section 4.2.2): with the proof that its key was read, the subprotocol that was
/// chosen, and further fields, whose names and values have to be valid.
pub fn accept_head<'f>(
    key: &str,
    protocol: Option<&str>,
    fields: impl IntoIterator<Item = (&'f str, &'f str)>,
) -> Vec<u8> {
    let accept = accept_key(key);
    let accept = String::from_utf8_lossy(&accept);
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(protocol) = protocol {
        let _ = write!(head, "Sec-WebSocket-Protocol: {protocol}\r\n");
    }
    super::response::push_fields(&mut head, fields);
    head.into_bytes()
}

/// The answer to a request that is not granted: a plain HTTP response, after which the connection is to be closed.
pub fn refusal_head(refusal: Refusal) -> Vec<u8> {
    let (status, fields) = (refusal.status(), refusal.fields());
    let body = match refusal {
        Refusal::Malformed(what) => format!("{status}: {what}\n"),
        Refusal::Upgrade => format!("{status}: this is a WebSocket, version 13\n"),
        _ => format!("{status}\n"),
    };
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{fields}Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .into_bytes()
}
