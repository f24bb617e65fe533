//! What stands before the data of a datagram between a client and its SOCKS 5 server (RFC 1928 section 7).

use std::net::SocketAddr;

use super::cursor::{Cursor, Stop};
use super::{Short, SocksError, Target, read_target, write_target};

/// What a datagram begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Which part of a larger datagram it is; 0 where it is whole.
    pub fragment: u8,
    /// Where the data is to go; towards the client, where it comes from.
    pub target: Target<'a>,
}

/// The longest header: that of a name with 255 bytes.
pub const MAX_HEADER: usize = 3 + 2 + 255 + 2;

/// Reads the header of a datagram, and how many bytes it takes; the data is behind it, and may be empty.
///
/// # Errors
/// It has none.
pub fn parse(datagram: &[u8]) -> Result<(Header<'_>, usize), SocksError> {
    let mut cursor = Cursor::new(datagram);
    let mut read = || {
        let [_, _, fragment] = cursor.array()?;
        Ok(Header { fragment, target: read_target(&mut cursor)? })
    };
    match read() {
        Ok(header) => Ok((header, cursor.at())),
        Err(Stop::Short(_)) => Err(SocksError::CutOff),
        Err(Stop::Bad(error)) => Err(error),
    }
}

/// The header of a whole datagram to or from an address.
pub fn header(address: SocketAddr) -> Short {
    Short::new([0; 3], address)
}

/// Writes the header of a whole datagram.
///
/// # Errors
/// The name has more than 255 bytes. Nothing is written then.
pub fn write_header(out: &mut Vec<u8>, target: &Target<'_>) -> Result<(), SocksError> {
    let start = out.len();
    out.extend_from_slice(&[0; 3]);
    write_target(out, target).inspect_err(|_| out.truncate(start))
}
