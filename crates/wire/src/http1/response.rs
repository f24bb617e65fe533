//! The head of a response.

use super::fields::{Cursor, Read, Stop, fault_of_control, read_fields, widen};
use super::request::{VERSION_LEN, version};
use super::{HeadLimits, ResponseError};
use crate::head::{Response, Span, Version};

/// Reads the head of a response from the front of `bytes` into what is cleared first. Says how many bytes the head is, or
/// None when more of them are needed; then it is called again with those from before and more behind them.
///
/// A status line may end behind the status, without the space that RFC 9112 section 4 wants there: many servers do that,
/// and it can be read in one way only. Where the response ends is for [`response_length`](super::response_length) to
/// say.
///
/// # Errors
/// The head breaks a rule, is ambiguous or over a limit. `into` is empty then, as it is when more is needed.
pub fn read_response(
    bytes: &[u8],
    limits: &HeadLimits,
    into: &mut Response,
) -> Result<Option<usize>, ResponseError> {
    into.clear();
    let window = &bytes[..bytes.len().min(limits.bytes)];
    read(window, limits, into).map(Some).or_else(|stop| {
        into.clear();
        stop.verdict(window.len() >= limits.bytes, ResponseError::TooLong)
    })
}

fn read(bytes: &[u8], limits: &HeadLimits, into: &mut Response) -> Read<usize, ResponseError> {
    let mut cursor = Cursor::new(bytes);
    read_line(&mut cursor, into)?;
    read_fields(&mut cursor, limits.fields, &mut into.fields).map_err(widen)?;
    into.fields.fill(&bytes[..cursor.at]);
    Ok(cursor.at)
}

/// Reads the status line (RFC 9112 section 4).
fn read_line(cursor: &mut Cursor<'_>, into: &mut Response) -> Read<(), ResponseError> {
    let version = version(cursor.rest()).map_err(|_| Stop::Fault(ResponseError::Line))?;
    into.version = match version.ok_or(Stop::More)? {
        (b'1', b'1') => Version::Http11,
        (b'1', b'0') => Version::Http10,
        _ => return Err(Stop::Fault(ResponseError::Version)),
    };
    cursor.at += VERSION_LEN;
    into.status = read_status(cursor)?;
    match cursor.peek()? {
        b' ' => cursor.at += 1,
        b'\r' => return cursor.line_end().map_err(widen),
        byte @ (0..=0x1f | 0x7f) => return Err(Stop::Fault(fault_of_control(byte).into())),
        _ => return Err(Stop::Fault(ResponseError::Line)),
    }
    let start = cursor.at;
    cursor.text().map_err(widen)?;
    into.set_reason_span(Span::between(start, cursor.at));
    cursor.line_end().map_err(widen)
}

/// Reads a space and three digits, from 100 on.
fn read_status(cursor: &mut Cursor<'_>) -> Read<u16, ResponseError> {
    let rest = cursor.rest();
    let fits = |(index, byte): (usize, &u8)| match index {
        0 => *byte == b' ',
        1 => matches!(byte, b'1'..=b'9'),
        _ => byte.is_ascii_digit(),
    };
    if !rest.iter().take(4).enumerate().all(fits) {
        return Err(Stop::Fault(ResponseError::Line));
    }
    let [_, digits @ .., _] = rest.first_chunk::<5>().ok_or(Stop::More)?;
    cursor.at += 4;
    Ok(digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
}
