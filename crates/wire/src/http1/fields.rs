//! Lines of fields, read from left to right: each byte is judged once, where it is first seen.

use super::FieldError;
use crate::head::{Fields, Known, Span, first_control, is_tchar};

/// Why reading stops before the end of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop<E> {
    /// The bytes end, and what is there is fine so far.
    More,
    /// Something is wrong.
    Fault(E),
}

impl<E> Stop<E> {
    /// What that comes to for a head that may not be longer than what was read of it, if `is_full` says that it is as long.
    /// None if more is needed.
    pub(super) fn verdict<T>(self, is_full: bool, too_long: E) -> Result<Option<T>, E> {
        match self {
            Stop::Fault(error) => Err(error),
            Stop::More if is_full => Err(too_long),
            Stop::More => Ok(None),
        }
    }
}

/// What a step of reading comes to.
pub(super) type Read<T, E> = Result<T, Stop<E>>;

/// Widens the error of a step.
pub(super) fn widen<E, F: From<E>>(stop: Stop<E>) -> Stop<F> {
    match stop {
        Stop::More => Stop::More,
        Stop::Fault(error) => Stop::Fault(error.into()),
    }
}

/// A place in the bytes of a head.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// What is yet to be read.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        // `at` never passes the end.
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The byte at the place, which stays.
    #[inline]
    pub(super) fn peek<E>(&self) -> Read<u8, E> {
        self.bytes.get(self.at).copied().ok_or(Stop::More)
    }

    /// Goes over bytes that belong, up to the first that does not, and says which that is.
    #[inline]
    pub(super) fn skip_while<E>(&mut self, belongs: impl Fn(u8) -> bool) -> Read<u8, E> {
        let rest = self.rest();
        match rest.iter().position(|&byte| !belongs(byte)) {
            Some(len) => {
                self.at += len;
                Ok(rest[len])
            }
            None => {
                self.at = self.bytes.len();
                Err(Stop::More)
            }
        }
    }

    /// Goes over CR and LF.
    #[inline]
    pub(super) fn line_end(&mut self) -> Read<(), FieldError> {
        match self.rest() {
            [b'\r', b'\n', ..] => {
                self.at += 2;
                Ok(())
            }
            [] | [b'\r'] => Err(Stop::More),
            [first, ..] => Err(Stop::Fault(fault_of_control(*first))),
        }
    }

    /// Goes to the CR that ends the line, over whatever is text.
    #[inline]
    pub(super) fn text(&mut self) -> Read<(), FieldError> {
        match first_control(self.rest()) {
            Some(len) => {
                self.at += len;
                Ok(())
            }
            None => {
                self.at = self.bytes.len();
                Err(Stop::More)
            }
        }
    }
}

/// What is wrong with a byte that is not at its place.
pub(super) fn fault_of_control(byte: u8) -> FieldError {
    match byte {
        b'\r' => FieldError::BareCr,
        b'\n' => FieldError::BareLf,
        _ => FieldError::Control,
    }
}

/// Reads fields up to the empty line behind them, at most `max`. They point into the bytes of the cursor, which are yet to be
/// [filled in](Fields::fill).
pub(super) fn read_fields(cursor: &mut Cursor<'_>, max: usize, into: &mut Fields) -> Read<(), FieldError> {
    loop {
        match cursor.peek()? {
            b'\r' => return cursor.line_end(),
            b' ' | b'\t' => return Err(Stop::Fault(FieldError::Folded)),
            _ if into.len() >= max => return Err(Stop::Fault(FieldError::TooMany)),
            _ => read_field(cursor, into)?,
        }
    }
}

#[inline]
fn read_field(cursor: &mut Cursor<'_>, into: &mut Fields) -> Read<(), FieldError> {
    let start = cursor.at;
    let behind = cursor.skip_while(is_tchar)?;
    let name = Span::between(start, cursor.at);
    if behind != b':' || name.is_empty() {
        return Err(Stop::Fault(fault_of_name(behind, name.is_empty())));
    }
    let known = Known::of(&cursor.bytes[start..cursor.at]);
    cursor.at += 1;
    cursor.skip_while(|byte| byte == b' ' || byte == b'\t')?;
    let start = cursor.at;
    cursor.text()?;
    // A CR ends the value; whether it is one is seen next.
    let value = cursor.bytes[start..cursor.at].trim_ascii_end();
    into.push_ahead(known, name, Span::between(start, start + value.len()));
    cursor.line_end()
}

#[cold]
fn fault_of_name(behind: u8, is_empty: bool) -> FieldError {
    match behind {
        b':' => FieldError::NoName,
        b' ' | b'\t' => FieldError::SpaceBeforeColon,
        b'\n' if is_empty => FieldError::BareLf,
        b'\r' | b'\n' => FieldError::NoColon,
        0..=0x1f | 0x7f => FieldError::Control,
        _ => FieldError::Name,
    }
}
