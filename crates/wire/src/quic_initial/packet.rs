//! Headers of QUIC packets, as far as they can be read without keys.
//!
//! Two layers: what holds for every version there will ever be (RFC 8999), and the long headers of versions 1
//! (RFC 9000, section 17.2) and 2 (RFC 9369), whose packets say how long they are.

/// The longest connection id of versions 1 and 2 (RFC 9000, section 17.2).
pub const MAX_CID: usize = 20;

/// What every version's long header has (RFC 8999, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader<'a> {
    /// The version; 0 is version negotiation.
    pub version: u32,
    /// The receiver's connection id, as the sender knows it. Up to 255 bytes.
    pub dcid: &'a [u8],
    /// The sender's own connection id. Up to 255 bytes.
    pub scid: &'a [u8],
}

/// The versions whose first packets can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// RFC 9000.
    V1,
    /// RFC 9369.
    V2,
}

/// The kinds of long-header packets that carry a length and encrypted frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The first ones; their keys follow from what everybody can see.
    Initial,
    /// What a returning client sends along with its hello.
    ZeroRtt,
    /// Those between the hellos and the connection's own keys.
    Handshake,
}

/// One packet of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// One that others may follow in the same datagram.
    Long(LongPacket<'a>),
    /// A server's wish that the client prove its address.
    Retry,
    /// A server's list of versions.
    VersionNegotiation,
    /// A long header of a version that is none of [`Version`].
    UnknownVersion,
    /// A packet of an established connection, or anything else that has no long header.
    Short,
    /// A long header of a known version that breaks off or contradicts itself.
    Malformed,
}

/// A packet with a long header and a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongPacket<'a> {
    /// Its version.
    pub version: Version,
    /// What it is.
    pub kind: Kind,
    /// The receiver's connection id.
    pub dcid: &'a [u8],
    /// The sender's connection id.
    pub scid: &'a [u8],
    /// All of it, from its first byte to the end of its authentication tag.
    pub bytes: &'a [u8],
    /// Where the packet number begins in `bytes`.
    pub number_at: usize,
}

/// The packets of a datagram, in their order. Ends with the first one that does not say where it ends itself.
#[derive(Debug, Clone)]
pub struct Packets<'a>(&'a [u8]);

/// The packets of `datagram`.
pub fn packets(datagram: &[u8]) -> Packets<'_> {
    Packets(datagram)
}

/// The long header that `bytes` begin with, of any version; None if they begin with none.
pub fn long_header(bytes: &[u8]) -> Option<LongHeader<'_>> {
    let (header, _) = invariant_header(bytes)?;
    Some(header)
}

/// The receiver's connection id in a datagram that begins with a short header (RFC 8999, section 5.2). Only who chose
/// the id knows its `length`. None for a long header, and when there are fewer bytes.
pub fn short_header_dcid(bytes: &[u8], length: usize) -> Option<&[u8]> {
    if is_long(*bytes.first()?) { None } else { bytes.get(1..1 + length) }
}

impl Version {
    fn of(version: u32) -> Option<Version> {
        match version {
            1 => Some(Version::V1),
            0x6b33_43cf => Some(Version::V2),
            _ => None,
        }
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let bytes = std::mem::take(&mut self.0);
        let first = *bytes.first()?;
        if !is_long(first) {
            return Some(Packet::Short);
        }
        let Some((header, mut reader)) = invariant_header(bytes) else { return Some(Packet::Malformed) };
        if header.version == 0 {
            return Some(Packet::VersionNegotiation);
        }
        let Some(version) = Version::of(header.version) else { return Some(Packet::UnknownVersion) };
        // The fixed bit is not looked at: it may be anything by agreement (RFC 9287).
        let Some(kind) = kind(version, first) else { return Some(Packet::Retry) };
        let packet = rest_of_long(bytes, header, version, kind, &mut reader);
        let Some(packet) = packet else { return Some(Packet::Malformed) };
        self.0 = &bytes[packet.bytes.len()..];
        Some(Packet::Long(packet))
    }
}

/// What kind of packet the first byte of a long header says; None is Retry. The two versions differ on purpose, so
/// that nobody on the way comes to rely on it (RFC 9369, section 3.2).
fn kind(version: Version, first: u8) -> Option<Kind> {
    let bits = (first >> 4) & 0b11;
    let in_v1 = match version {
        Version::V1 => bits,
        Version::V2 => bits.wrapping_sub(1) & 0b11,
    };
    match in_v1 {
        0 => Some(Kind::Initial),
        1 => Some(Kind::ZeroRtt),
        2 => Some(Kind::Handshake),
        _ => None,
    }
}

fn rest_of_long<'a>(
    bytes: &'a [u8],
    header: LongHeader<'a>,
    version: Version,
    kind: Kind,
    reader: &mut Reader<'a>,
) -> Option<LongPacket<'a>> {
    if header.dcid.len() > MAX_CID || header.scid.len() > MAX_CID {
        return None;
    }
    if kind == Kind::Initial {
        let token = reader.varint()?;
        reader.take(usize::try_from(token).ok()?)?;
    }
    let length = usize::try_from(reader.varint()?).ok()?;
    let number_at = bytes.len() - reader.0.len();
    reader.take(length)?;
    let bytes = &bytes[..number_at + length];
    Some(LongPacket { version, kind, dcid: header.dcid, scid: header.scid, bytes, number_at })
}

fn is_long(first: u8) -> bool {
    first & 0x80 != 0
}

fn invariant_header(bytes: &[u8]) -> Option<(LongHeader<'_>, Reader<'_>)> {
    let mut reader = Reader(bytes);
    if !is_long(reader.byte()?) {
        return None;
    }
    let version = u32::from_be_bytes(*reader.take(4)?.first_chunk()?);
    let length = reader.byte()?;
    let dcid = reader.take(length.into())?;
    let length = reader.byte()?;
    let scid = reader.take(length.into())?;
    Some((LongHeader { version, dcid, scid }, reader))
}

/// Takes bytes from the front, and None where they run out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of 1, 2, 4 or 8 bytes (RFC 9000, section 16).
    pub(super) fn varint(&mut self) -> Option<u64> {
        let first = *self.0.first()?;
        let bytes = self.take(1 << (first >> 6))?;
        let value = bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        // The two highest bits were the length.
        Some(value & (u64::MAX >> (64 - bytes.len() * 8 + 2)))
    }
}
