//! Datagrams of visitors on their way through a session.
//!
//! A *flow* is what one visitor sends to one address, with the answers. The end where visitors come numbers it; the first
//! datagrams of a flow say whose it is ([`Origin`]), and either end may say that it is over ([`Ending`]).
//!
//! On a stream, [frames](Frame) stand one behind the other. Over QUIC each datagram goes in a [packet] of its own, the
//! payload of a DATAGRAM frame (RFC 9221), and what is too large for one in several, which are [put together](parts) again.
//! Numbers are whole bytes, most significant first.
//!
//! | frame | bytes |
//! |---|---|
//! | kind and marks | 1 |
//! | why it ended, else 0 | 1 |
//! | length of the data | 2 |
//! | flow | 4 |
//! | [`Origin`], if it is marked | 1 to 37 |
//! | data | |

pub mod packet;
pub mod parts;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The most bytes of a datagram: what UDP over IPv6 carries without jumbograms. Over IPv4 it is 65,507.
pub const MAX_DATAGRAM: usize = 65_527;

/// What stands before the data of a frame without an origin.
pub const FRAME_HEADER: usize = 8;

/// The most that an origin takes: two addresses of IPv6.
const MAX_ORIGIN: usize = 1 + 2 * (16 + 2);

/// The most that a frame takes.
pub const MAX_FRAME: usize = FRAME_HEADER + MAX_ORIGIN + MAX_DATAGRAM;

/// The kinds, in the lower bits of the first byte.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const PART: u8 = 1;
    pub(super) const OPENED: u8 = 2;
    pub(super) const END: u8 = 3;
    /// What of the first byte is the kind.
    pub(super) const MASK: u8 = 0xbf;
    /// An origin follows.
    pub(super) const WITH_ORIGIN: u8 = 0x40;
    /// Who does not know the kind passes it over.
    pub(super) const PASSED_OVER: u8 = 0x80;
}

/// Whose flow it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The visitor's address; none where it is not to be told.
    pub visitor: Option<SocketAddr>,
    /// The address that it sent to.
    pub local: Option<SocketAddr>,
}

/// Why a flow is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ending {
    /// Anything else, and what a newer end may say.
    Other = 0,
    /// Nothing came either way for as long as a flow may be silent.
    Idle = 1,
    /// It made room for a newer one.
    Evicted = 2,
    /// There is nowhere to go with it now, or no room.
    Refused = 3,
    /// The local service's port is closed.
    Unreachable = 4,
    /// There is no such flow, or not any more.
    Unknown = 5,
}

impl Ending {
    /// The ending with this number.
    pub fn of(number: u8) -> Ending {
        let known = [Ending::Idle, Ending::Evicted, Ending::Refused, Ending::Unreachable, Ending::Unknown];
        known.into_iter().find(|ending| *ending as u8 == number).unwrap_or(Ending::Other)
    }
}

/// One frame of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A datagram of a flow.
    Data {
        /// Which.
        flow: u32,
        /// Whose it is, on the first.
        origin: Option<Origin>,
        /// The datagram.
        data: &'a [u8],
    },
    /// A flow is over.
    End {
        /// Which.
        flow: u32,
        /// Why.
        why: Ending,
    },
    /// Something newer that may be passed over.
    Unknown,
}

/// Why bytes are no frame or packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramError {
    /// A datagram that is larger than any.
    TooLong,
    /// There is no such kind, and it may not be passed over.
    UnknownKind(u8),
    /// It ends too early, or makes no sense; says which part.
    Malformed(&'static str),
}

impl fmt::Display for DatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatagramError::TooLong => f.write_str("a datagram that is larger than any"),
            DatagramError::UnknownKind(kind) => write!(f, "a frame of unknown kind {kind}"),
            DatagramError::Malformed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for DatagramError {}

/// Appends a frame with a datagram of at most [`MAX_DATAGRAM`] bytes.
pub fn put_data(out: &mut Vec<u8>, flow: u32, origin: Option<&Origin>, data: &[u8]) {
    debug_assert!(data.len() <= MAX_DATAGRAM);
    let marks = if origin.is_some() { kind::WITH_ORIGIN } else { 0 };
    put_header(out, kind::DATA | marks, 0, data.len() as u16, flow);
    if let Some(origin) = origin {
        put_origin(out, origin);
    }
    out.extend_from_slice(data);
}

/// Appends a frame that says that a flow is over.
pub fn put_end(out: &mut Vec<u8>, flow: u32, why: Ending) {
    put_header(out, kind::END, why as u8, 0, flow);
}

fn put_header(out: &mut Vec<u8>, kind: u8, why: u8, length: u16, flow: u32) {
    let mut header = [kind, why, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[4..].copy_from_slice(&flow.to_be_bytes());
    out.extend_from_slice(&header);
}

/// The first frame of what came, and how many bytes it takes; none while more has to come.
///
/// # Errors
/// It is no frame, and nothing behind it can be read.
pub fn next_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, DatagramError> {
    let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER>() else { return Ok(None) };
    let [first, why, l0, l1, flow @ ..] = *header;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let flow = u32::from_be_bytes(flow);
    if length > MAX_DATAGRAM {
        return Err(DatagramError::TooLong);
    }
    let (origin, rest) = match first & kind::WITH_ORIGIN {
        0 => (None, rest),
        _ => match take_origin(rest)? {
            Some((origin, rest)) => (Some(origin), rest),
            None => return Ok(None),
        },
    };
    let Some(data) = rest.get(..length) else { return Ok(None) };
    let frame = match first & kind::MASK {
        kind::DATA => Frame::Data { flow, origin, data },
        kind::END => Frame::End { flow, why: Ending::of(why) },
        kind if kind & kind::PASSED_OVER != 0 => Frame::Unknown,
        kind => return Err(DatagramError::UnknownKind(kind)),
    };
    Ok(Some((frame, bytes.len() - rest.len() + length)))
}

/// An origin is a byte that says of what kind both addresses are, and the addresses: the visitor's in its lower half, with 0
/// for none, 4 and 6.
fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    let family = |address: &Option<SocketAddr>| match address {
        None => 0,
        Some(SocketAddr::V4(_)) => 4,
        Some(SocketAddr::V6(_)) => 6,
    };
    out.push(family(&origin.visitor) | family(&origin.local) << 4);
    for address in [origin.visitor, origin.local].into_iter().flatten() {
        match address.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
        out.extend_from_slice(&address.port().to_be_bytes());
    }
}

/// An origin, and what stands behind it; none while more has to come.
fn take_origin(bytes: &[u8]) -> Result<Option<(Origin, &[u8])>, DatagramError> {
    let Some((families, mut rest)) = bytes.split_first() else { return Ok(None) };
    let mut addresses = [None; 2];
    for (address, family) in addresses.iter_mut().zip([families & 15, families >> 4]) {
        let taken = match family {
            0 => continue,
            4 => take_address::<4>(rest),
            6 => take_address::<16>(rest),
            _ => return Err(DatagramError::Malformed("an address of an unknown family")),
        };
        let Some((taken, behind)) = taken else { return Ok(None) };
        *address = Some(taken);
        rest = behind;
    }
    let [visitor, local] = addresses;
    Ok(Some((Origin { visitor, local }, rest)))
}

fn take_address<const N: usize>(bytes: &[u8]) -> Option<(SocketAddr, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (ip, rest) = bytes.split_first_chunk::<N>()?;
    let (port, rest) = rest.split_first_chunk()?;
    Some((SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port)), rest))
}
