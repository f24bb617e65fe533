//! The head of a request.

use super::fields::{Cursor, Read, Stop, fault_of_control, read_fields, widen};
use super::{FieldError, HeadLimits, RequestError, target};
use crate::head::{Known, Method, Request, Span, Version, is_target_byte, is_tchar};

/// What a client with prior knowledge of HTTP/2 says first (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a connection begins with the preface of HTTP/2; None when more bytes are needed to tell.
pub fn is_h2_preface(bytes: &[u8]) -> Option<bool> {
    let len = bytes.len().min(H2_PREFACE.len());
    if bytes[..len] != H2_PREFACE[..len] {
        return Some(false);
    }
    (len == H2_PREFACE.len()).then_some(true)
}

/// Reads the head of a request from the front of `bytes` into what is cleared first. Says how many bytes the head is, or None
/// when more of them are needed; then it is called again with those from before and more behind them. It reads from the
/// front each time: it is meant for a buffer as large as the limit, which a read fills as far as it can.
///
/// One empty line before it is skipped (RFC 9112 section 2.2). The target is what the client asked for in origin-form; of
/// an absolute one, scheme and authority are kept apart (RFC 9112 section 3.2). Afterwards the request has an
/// authority if its version is 1.1, and `Host` names it, too. Where it ends is for
/// [`request_length`](super::request_length) to say.
///
/// # Errors
/// The head breaks a rule, is ambiguous or over a limit. `into` is empty then, as it is when more is needed.
pub fn read_request(
    bytes: &[u8],
    limits: &HeadLimits,
    into: &mut Request,
) -> Result<Option<usize>, RequestError> {
    into.clear();
    let window = &bytes[..bytes.len().min(limits.bytes)];
    read(window, limits, into).map(Some).or_else(|stop| {
        into.clear();
        stop.verdict(window.len() >= limits.bytes, RequestError::TooLong)
    })
}

fn read(bytes: &[u8], limits: &HeadLimits, into: &mut Request) -> Read<usize, RequestError> {
    let mut cursor = Cursor::new(bytes);
    if cursor.peek()? == b'\r' {
        cursor.line_end().map_err(widen)?;
    }
    let target = read_line(&mut cursor, limits.target, into)?;
    read_fields(&mut cursor, limits.fields, &mut into.fields).map_err(widen)?;
    into.fields.fill(&bytes[..cursor.at]);
    target::settle(target, limits.any_host, into).map_err(Stop::Fault)?;
    if !knows_expectation(into) {
        return Err(Stop::Fault(RequestError::Expectation));
    }
    Ok(cursor.at)
}

/// Reads the request line (RFC 9112 section 3). The target is not judged but for its bytes.
#[inline]
fn read_line(cursor: &mut Cursor<'_>, target_max: usize, into: &mut Request) -> Read<Span, RequestError> {
    let start = cursor.at;
    let behind = cursor.skip_while(is_tchar)?;
    if behind != b' ' || cursor.at == start {
        return Err(Stop::Fault(fault_of_line(behind, RequestError::Line)));
    }
    let method = Method::of(&cursor.bytes[start..cursor.at]);
    into.set_method_span(method, Span::between(start, cursor.at));
    cursor.at += 1;
    let start = cursor.at;
    let behind = cursor.skip_while(is_target_byte);
    // Where it is too long is before whatever is wrong behind it.
    if cursor.at - start > target_max {
        return Err(Stop::Fault(RequestError::TargetTooLong));
    }
    let behind = behind?;
    if behind != b' ' {
        // A line that ends here is one of HTTP/0.9.
        let error = if behind == b'\r' { RequestError::Line } else { RequestError::Target };
        return Err(Stop::Fault(fault_of_line(behind, error)));
    }
    let target = Span::between(start, cursor.at);
    if target.is_empty() {
        return Err(Stop::Fault(RequestError::Line));
    }
    cursor.at += 1;
    into.version = read_version(cursor)?;
    match cursor.peek()? {
        b'\r' | b'\n' => cursor.line_end().map_err(widen)?,
        behind => return Err(Stop::Fault(fault_of_line(behind, RequestError::Line))),
    }
    Ok(target)
}

#[cold]
fn fault_of_line(byte: u8, otherwise: RequestError) -> RequestError {
    match byte {
        b'\r' => otherwise,
        0..=0x1f | 0x7f => fault_of_control(byte).into(),
        _ => otherwise,
    }
}

/// Reads `HTTP/` and two digits with a dot between them (RFC 9112 section 2.3).
fn read_version(cursor: &mut Cursor<'_>) -> Read<Version, RequestError> {
    let version = version(cursor.rest()).map_err(|_| Stop::Fault(RequestError::Line))?;
    cursor.at += VERSION_LEN;
    match version.ok_or(Stop::More)? {
        (b'1', b'1') => Ok(Version::Http11),
        (b'1', b'0') => Ok(Version::Http10),
        _ => Err(Stop::Fault(RequestError::Version)),
    }
}

/// How long a version is.
pub(super) const VERSION_LEN: usize = 8;

/// The digits of the version that the bytes begin with; None when it is not whole yet, an error when it is no version.
#[inline]
pub(super) fn version(bytes: &[u8]) -> Result<Option<(u8, u8)>, FieldError> {
    if let [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, ..] = bytes
        && major.is_ascii_digit()
        && minor.is_ascii_digit()
    {
        return Ok(Some((*major, *minor)));
    }
    let fits = |(byte, form): (&u8, &u8)| byte == form || (*form == b'0' && byte.is_ascii_digit());
    let is_prefix = bytes.len() < VERSION_LEN && bytes.iter().zip(b"HTTP/0.0").all(fits);
    if is_prefix { Ok(None) } else { Err(FieldError::Name) }
}

/// Whether whoever expects something expects what we know, and not what gets a 417 (RFC 9110 section 10.1.1).
pub fn knows_expectation(request: &Request) -> bool {
    request.fields.all(Known::Expect).all(|value| value.eq_ignore_ascii_case(b"100-continue"))
}
