//! A client's first flight, until its hello is complete.

use std::fmt;

use super::keys::{InitialKeys, Side};
use super::packet::{Kind, LongPacket, MAX_CID, Packet, Version, packets};
use super::{CryptoStream, Limits, NoHello, read_frames};
use crate::client_hello::{ClientHello, HelloError, Parsed, parse_handshake};

/// A client pads every datagram with an Initial packet to this size, and a server drops shorter ones (RFC 9000, section
/// 14.1). So must whoever reads along, or the two would see different hellos.
const MIN_DATAGRAM: usize = 1_200;

/// The shortest connection id that a client may make up for a server (RFC 9000, section 7.2).
const MIN_FIRST_DCID: usize = 8;

/// What has come of one client's first flight.
///
/// Packets that belong to another connection or fail to open are skipped once one has opened, as a server does: anybody
/// could have sent them in the client's name.
pub struct ClientFlight {
    limits: Limits,
    /// Those of the first Initial packet that opened.
    opener: Option<Opener>,
    /// Early data has come, so that an Initial packet is on its way.
    is_due: bool,
    stream: CryptoStream,
    datagrams: usize,
    scratch: Vec<u8>,
}

struct Opener {
    version: Version,
    dcid: [u8; MAX_CID],
    dcid_length: usize,
    keys: InitialKeys,
    /// The number after the highest packet number so far.
    next: u64,
}

impl ClientFlight {
    /// Nothing yet.
    pub fn new(limits: Limits) -> ClientFlight {
        let stream = CryptoStream::new(limits.hello, limits.pieces);
        ClientFlight { limits, opener: None, is_due: false, stream, datagrams: 0, scratch: Vec::new() }
    }

    /// Takes the client's next datagram. None: more are needed.
    ///
    /// # Errors
    /// There will be no hello. The state is of no further use.
    pub fn push(&mut self, datagram: &[u8]) -> Result<Option<ClientHello>, NoHello> {
        self.datagrams += 1;
        if self.datagrams > self.limits.datagrams {
            return Err(NoHello::TooManyDatagrams);
        }
        let mut otherwise = NoHello::NotQuic;
        for packet in packets(datagram) {
            match packet {
                Packet::Long(packet) => match packet.kind {
                    Kind::Initial if datagram.len() >= MIN_DATAGRAM => match self.open(&packet) {
                        Ok(None) => {}
                        Err(NoHello::Undecryptable) => otherwise = NoHello::Undecryptable,
                        done => return done,
                    },
                    // It goes with an Initial packet, behind it in this datagram or overtaken.
                    Kind::ZeroRtt => self.is_due = true,
                    Kind::Initial | Kind::Handshake => {}
                },
                Packet::UnknownVersion => otherwise = NoHello::UnknownVersion,
                Packet::Malformed => otherwise = NoHello::Malformed,
                Packet::Retry | Packet::VersionNegotiation | Packet::Short => {}
            }
        }
        if self.opener.is_some() || self.is_due { Ok(None) } else { Err(otherwise) }
    }

    /// So much memory it holds beside itself, in bytes.
    pub fn memory(&self) -> usize {
        self.stream.memory() + self.scratch.capacity()
    }

    /// The connection id that the client made up for the server; empty before the first Initial packet that opened.
    pub fn dcid(&self) -> &[u8] {
        self.opener.as_ref().map_or(&[], Opener::dcid)
    }

    fn open(&mut self, packet: &LongPacket<'_>) -> Result<Option<ClientHello>, NoHello> {
        let mut new = if self.opener.is_none() { Some(Opener::new(packet)?) } else { None };
        let opener = new.as_mut().or(self.opener.as_mut()).filter(|opener| opener.made(packet));
        let Some(opener) = opener else { return Ok(None) };
        let Some(opened) = opener.keys.open(packet, opener.next, &mut self.scratch) else {
            return if new.is_some() { Err(NoHello::Undecryptable) } else { Ok(None) };
        };
        opener.next = opener.next.max(opened.number + 1);
        read_frames(opened.frames, &mut self.stream)?;
        if new.is_some() {
            self.opener = new;
        }
        match parse_handshake(self.stream.contiguous(), self.limits.hello) {
            Ok(Parsed::Complete(hello, _)) => Ok(Some(hello)),
            Ok(Parsed::NeedMore(_) | Parsed::NotTls) => Ok(None),
            Err(HelloError::TooLarge) => Err(NoHello::TooLong),
            Err(HelloError::Malformed(_)) => Err(NoHello::Malformed),
        }
    }
}

impl Opener {
    fn new(packet: &LongPacket<'_>) -> Result<Opener, NoHello> {
        if packet.dcid.len() < MIN_FIRST_DCID {
            return Err(NoHello::Malformed);
        }
        let mut dcid = [0; MAX_CID];
        dcid[..packet.dcid.len()].copy_from_slice(packet.dcid);
        let keys = InitialKeys::new(packet.version, packet.dcid, Side::Client);
        let keys = keys.ok_or(NoHello::Undecryptable)?;
        Ok(Opener { version: packet.version, dcid, dcid_length: packet.dcid.len(), keys, next: 0 })
    }

    fn dcid(&self) -> &[u8] {
        &self.dcid[..self.dcid_length]
    }

    fn made(&self, packet: &LongPacket<'_>) -> bool {
        packet.version == self.version && packet.dcid == self.dcid()
    }
}

impl fmt::Debug for ClientFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFlight")
            .field("dcid", &self.dcid())
            .field("datagrams", &self.datagrams)
            .finish_non_exhaustive()
    }
}
