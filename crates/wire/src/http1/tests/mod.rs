//! Tables of what is read and what is refused, one for each rule; pieces; what others make of the same bytes; speed.

mod chunks;
mod differential;
mod framing;
mod pieces;
mod requests;
mod responses;
mod speed;

use super::*;
use crate::head::{Request, Response};

const LIMITS: HeadLimits = HeadLimits { bytes: 2048, target: 64, fields: 8, any_host: false };

/// Reads a request that is whole, whatever follows it.
fn request(text: &[u8]) -> Result<Request, RequestError> {
    let mut request = Request::new();
    let used = read_request(text, &LIMITS, &mut request)?;
    assert!(used.expect("the head is whole") <= text.len());
    Ok(request)
}

/// A request of GET with more lines behind its first.
fn get(lines: &str) -> Result<Request, RequestError> {
    request(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes())
}

/// Reads a response that is whole, whatever follows it.
fn response(text: &[u8]) -> Result<Response, ResponseError> {
    let mut response = Response::new();
    let used = read_response(text, &LIMITS, &mut response)?;
    assert!(used.expect("the head is whole") <= text.len());
    Ok(response)
}

/// Fields as lines.
fn lines(fields: &crate::head::Fields) -> Vec<String> {
    fields.iter().map(|field| format!("{field:?}")).collect()
}

fn written(request: &Request) -> String {
    let mut out = Vec::new();
    write_request(request, &mut out);
    out.escape_ascii().to_string()
}
