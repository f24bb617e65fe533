//! Packets: what one DATAGRAM frame of QUIC carries.
//!
//! | packet | bytes |
//! |---|---|
//! | kind and marks | 1 |
//! | service | 4 |
//! | flow | 4 |
//! | [`Origin`], if it is marked | 1 to 37 |
//! | of a part: the datagram's number, the part's, and how many there are | 2, 1, 1 |
//! | of an end: why | 1 |
//! | data, up to the packet's end | |
//!
//! Packets may be lost and overtake each other. So every datagram of a flow says whose it is until the other end has answered,
//! be it by [`Body::Opened`] or by a datagram; and what comes for a flow that is not there is answered by [`Body::End`].

use super::{DatagramError, Ending, Origin, kind, put_origin, take_origin};

/// The most that stands before the data.
pub const MAX_PACKET_HEADER: usize = 1 + 4 + 4 + super::MAX_ORIGIN + 4;

/// What stands before the data of a datagram without an origin.
pub const PACKET_HEADER: usize = 1 + 4 + 4;

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The service.
    pub service: u32,
    /// The flow of it.
    pub flow: u32,
    /// Whose flow it is, as long as the other end may not know.
    pub origin: Option<Origin>,
    /// The rest.
    pub body: Body<'a>,
}

/// What a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// A datagram.
    Data(&'a [u8]),
    /// A part of a datagram.
    Part(Part, &'a [u8]),
    /// The flow is known: its datagrams need not say any more whose it is.
    Opened,
    /// The flow is over.
    End(Ending),
    /// Something newer that may be passed over.
    Unknown,
}

/// Which part of which datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// Numbers the datagrams of a flow that come in parts; after the last number comes the first.
    pub datagram: u16,
    /// Which part, from 0.
    pub index: u8,
    /// How many there are.
    pub count: u8,
}

impl<'a> Packet<'a> {
    /// Appends everything that stands before the data; data is to follow where the body has some.
    pub fn put_header(&self, out: &mut Vec<u8>) {
        let kind = match self.body {
            Body::Data(_) => kind::DATA,
            Body::Part(..) => kind::PART,
            Body::Opened => kind::OPENED,
            Body::End(_) => kind::END,
            Body::Unknown => kind::PASSED_OVER,
        };
        out.push(kind | if self.origin.is_some() { kind::WITH_ORIGIN } else { 0 });
        out.extend_from_slice(&self.service.to_be_bytes());
        out.extend_from_slice(&self.flow.to_be_bytes());
        if let Some(origin) = &self.origin {
            put_origin(out, origin);
        }
        match self.body {
            Body::Part(part, _) => {
                out.extend_from_slice(&part.datagram.to_be_bytes());
                out.extend_from_slice(&[part.index, part.count]);
            }
            Body::End(why) => out.push(why as u8),
            Body::Data(_) | Body::Opened | Body::Unknown => {}
        }
    }

    /// Appends all of it.
    pub fn put(&self, out: &mut Vec<u8>) {
        self.put_header(out);
        if let Body::Data(data) | Body::Part(_, data) = self.body {
            out.extend_from_slice(data);
        }
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &'a [u8]) -> Result<Packet<'a>, DatagramError> {
        const CUT_OFF: DatagramError = DatagramError::Malformed("a packet that is cut off");
        let (first, rest) = bytes.split_first().ok_or(CUT_OFF)?;
        let (service, rest) = rest.split_first_chunk().ok_or(CUT_OFF)?;
        let (flow, rest) = rest.split_first_chunk().ok_or(CUT_OFF)?;
        let (origin, rest) = match first & kind::WITH_ORIGIN {
            0 => (None, rest),
            _ => take_origin(rest)?.map(|(origin, rest)| (Some(origin), rest)).ok_or(CUT_OFF)?,
        };
        let body = match first & kind::MASK {
            kind::DATA => Body::Data(rest),
            kind::PART => {
                let (part, data) = rest.split_first_chunk().ok_or(CUT_OFF)?;
                Body::Part(Part::read(*part)?, data)
            }
            kind::OPENED => Body::Opened,
            kind::END => Body::End(Ending::of(*rest.first().ok_or(CUT_OFF)?)),
            kind if kind & kind::PASSED_OVER != 0 => Body::Unknown,
            kind => return Err(DatagramError::UnknownKind(kind)),
        };
        let (service, flow) = (u32::from_be_bytes(*service), u32::from_be_bytes(*flow));
        Ok(Packet { service, flow, origin, body })
    }
}

impl Part {
    fn read([d0, d1, index, count]: [u8; 4]) -> Result<Part, DatagramError> {
        if index >= count {
            return Err(DatagramError::Malformed("a part beyond the last"));
        }
        Ok(Part { datagram: u16::from_be_bytes([d0, d1]), index, count })
    }
}
