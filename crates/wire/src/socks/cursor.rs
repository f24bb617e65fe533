//! Reading from left to right, until the bytes end.

use super::{Parsed, SocksError};

/// Why reading went no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// The message goes on behind the last byte; so many are needed in all, at least.
    Short(usize),
    /// It is none.
    Bad(SocksError),
}

impl From<SocksError> for Stop {
    fn from(error: SocksError) -> Stop {
        Stop::Bad(error)
    }
}

/// A place in what has come so far.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let end = self.at + length;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Short(end))?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let taken = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(taken);
        Ok(array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Stop> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn port(&mut self) -> Result<u16, Stop> {
        self.array().map(u16::from_be_bytes)
    }

    /// As many bytes as the next one says.
    pub(super) fn counted(&mut self) -> Result<&'a [u8], Stop> {
        let length = self.byte()?;
        self.take(usize::from(length))
    }

    /// What stands before the next zero byte; of that no more than `max` bytes.
    pub(super) fn until_nul(&mut self, max: usize) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        match rest.iter().take(max + 1).position(|byte| *byte == 0) {
            Some(length) => {
                self.at += length + 1;
                Ok(&rest[..length])
            }
            None if rest.len() > max => Err(SocksError::TooLong.into()),
            None => Err(Stop::Short(self.bytes.len() + 1)),
        }
    }

    /// Refuses what does not begin with this byte.
    pub(super) fn expect(&mut self, version: u8) -> Result<(), Stop> {
        match self.byte()? {
            byte if byte == version => Ok(()),
            other => Err(SocksError::Version(other).into()),
        }
    }
}

/// Reads a message from the front of what has come.
pub(super) fn parse<'a, T>(
    bytes: &'a [u8],
    read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Stop>,
) -> Result<Parsed<T>, SocksError> {
    let mut cursor = Cursor::new(bytes);
    match read(&mut cursor) {
        Ok(message) => Ok(Parsed::Done(message, cursor.at())),
        Err(Stop::Short(total)) => Ok(Parsed::NeedMore(total)),
        Err(Stop::Bad(error)) => Err(error),
    }
}
