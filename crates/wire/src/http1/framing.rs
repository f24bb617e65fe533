//! Where a message ends: the one place that decides it (RFC 9112 section 6).

use super::{FramingError, RequestError, ResponseError};
use crate::head::{Fields, Known, Method, Request, Response, Version};

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is none: the next byte is of the next message.
    None,
    /// So many bytes.
    Known(u64),
    /// As its chunks say.
    Chunked,
    /// Whatever comes until the sender closes; of responses only.
    UntilClose,
}

/// How long the body of a request of HTTP/1 is (RFC 9112 section 6.3).
///
/// # Errors
/// It is ambiguous, unknown, or a body of CONNECT, which has none (RFC 9110 section 9.3.6).
pub fn request_length(request: &Request) -> Result<Length, RequestError> {
    let length = stated(request.version, &request.fields)?;
    match (request.method, length) {
        (Method::Connect, None | Some(Length::Known(0))) => Ok(Length::None),
        (Method::Connect, _) => Err(FramingError::Unwanted.into()),
        (_, length) => Ok(length.unwrap_or(Length::None)),
    }
}

/// How long the body of a response of HTTP/1 to a request with the method `to` is (RFC 9112 section 6.3). After 101, and
/// after 2xx to CONNECT, no message follows but whatever the protocol is now.
///
/// # Errors
/// It is ambiguous, unknown, or a body of a response that has none: such a body would be taken for the next
/// response.
pub fn response_length(to: Method, response: &Response) -> Result<Length, ResponseError> {
    let status = response.status;
    if to == Method::Connect && (200..300).contains(&status) {
        // A client has to ignore what these fields say (RFC 9110 section 9.3.6).
        return Ok(Length::None);
    }
    let length = stated(response.version, &response.fields)?;
    match (status, length) {
        (100..200 | 204, None | Some(Length::Known(0))) => Ok(Length::None),
        (100..200 | 204, _) => Err(FramingError::Unwanted.into()),
        // These say how long the body would be.
        (304, _) => Ok(Length::None),
        _ if to == Method::Head => Ok(Length::None),
        (_, length) => Ok(length.unwrap_or(Length::UntilClose)),
    }
}

/// What the fields say of the length, if anything.
fn stated(version: Version, fields: &Fields) -> Result<Option<Length>, FramingError> {
    let mut codings = fields.all(Known::TransferEncoding);
    let mut lengths = fields.all(Known::ContentLength);
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(FramingError::CodingAndLength),
        (Some(_), None) if version == Version::Http10 => Err(FramingError::CodingIn10),
        (Some(coding), None) if codings.next().is_none() => {
            check_coding(coding).map(|()| Some(Length::Chunked))
        }
        (Some(_), None) => Err(FramingError::Coding),
        // "5, 5" may be taken for 5 (RFC 9110 section 8.6), but not by everyone; neither may two lines.
        (None, Some(length)) => match (parse_length(length), lengths.next()) {
            (Some(length), None) => Ok(Some(Length::Known(length))),
            _ => Err(FramingError::Length),
        },
    }
}

fn check_coding(coding: &[u8]) -> Result<(), FramingError> {
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut members = coding.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let is_last = members.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let is_other = |name: &[u8]| crate::head::is_token(name) && !name.eq_ignore_ascii_case(b"chunked");
    Err(if is_last && members.all(is_other) { FramingError::UnknownCoding } else { FramingError::Coding })
}

/// A number of digits and nothing else.
fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether a connection goes on behind a message with these fields, as far as its sender is concerned (RFC 9112 section
/// 9.3): in 1.1 unless `Connection` says `close`, in 1.0 if it says `keep-alive`.
pub fn is_persistent(version: Version, fields: &Fields) -> bool {
    let mut keeps = version != Version::Http10;
    for option in fields.list(Known::Connection) {
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keeps |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    keeps
}

/// Whether the client waits for 100 before it sends the body. Not in 1.0, where nothing is known of it (RFC 9110 section
/// 10.1.1).
pub fn expects_continue(request: &Request) -> bool {
    request.version != Version::Http10 && request.fields.has(Known::Expect)
}
