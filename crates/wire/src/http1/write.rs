//! Heads and chunks as they are written. What is written is valid if what is in the fields is: see
//! [`is_value`](crate::head::is_value).

use crate::head::{Fields, Known, Method, Request, Response, Scheme, Version};

/// What ends a body of chunks that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the head of a request of HTTP/1.1 with its target as it is: in origin-form, or the authority for CONNECT.
///
/// A request without `Host`, as it comes by HTTP/2, gets one with its authority, in front.
pub fn write_request(request: &Request, out: &mut Vec<u8>) {
    write_head(request, None, out);
}

/// Writes the head of a request of HTTP/1.1 with the whole URI as its target, as a forward proxy wants it (RFC 9112 section
/// 3.2.2). One without an authority is written like any other.
pub fn write_request_absolute(request: &Request, scheme: Scheme, out: &mut Vec<u8>) {
    write_head(request, Some(scheme), out);
}

fn write_head(request: &Request, scheme: Option<Scheme>, out: &mut Vec<u8>) {
    out.extend_from_slice(request.method_name());
    out.push(b' ');
    let authority = request.authority();
    let target = request.target();
    let mut is_whole = false;
    if let (Some(scheme), Some(authority)) = (scheme, authority)
        && request.method != Method::Connect
    {
        out.extend_from_slice(scheme.as_str().as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(authority);
        is_whole = true;
    }
    // OPTIONS of a whole server has no path in this form (RFC 9112 section 3.2.4).
    if !(is_whole && target == b"*") {
        out.extend_from_slice(target);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority.filter(|_| !request.fields.has(Known::Host)) {
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(authority);
        out.extend_from_slice(b"\r\n");
    }
    request.fields.write_lines(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a response of HTTP/1.1.
pub fn write_response(response: &Response, out: &mut Vec<u8>) {
    out.extend_from_slice(Version::Http11.as_str().as_bytes());
    // A status has three digits.
    let digit = |unit: u16| b'0' + (response.status / unit % 10) as u8;
    out.extend_from_slice(&[b' ', digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(response.reason());
    out.extend_from_slice(b"\r\n");
    response.fields.write_lines(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the end of a body of chunks: the last chunk, trailers, the empty line.
pub fn write_trailers(trailers: &Fields, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    trailers.write_lines(out);
    out.extend_from_slice(b"\r\n");
}

/// What stands before the data of a chunk: its size and the end of that line. Behind the data comes another CR and LF.
#[derive(Debug, Clone, Copy)]
pub struct ChunkHead {
    /// Filled from the end.
    bytes: [u8; ChunkHead::MAX],
    start: u8,
}

impl ChunkHead {
    /// The longest: sixteen digits and the end of the line.
    const MAX: usize = 18;
}

impl std::ops::Deref for ChunkHead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

/// The head of a chunk with `len` bytes of data. Without data it would be the last one, and is not whole: see
/// [`LAST_CHUNK`].
pub fn chunk_head(len: usize) -> ChunkHead {
    let mut head = ChunkHead { bytes: [0; ChunkHead::MAX], start: ChunkHead::MAX as u8 - 2 };
    head.bytes[ChunkHead::MAX - 2..].copy_from_slice(b"\r\n");
    let mut left = len;
    loop {
        head.start -= 1;
        head.bytes[usize::from(head.start)] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            return head;
        }
    }
}
