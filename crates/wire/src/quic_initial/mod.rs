//! The first packets of a QUIC client: which server it asks for, read without being that server.
//!
//! The keys of Initial packets follow from the connection id in the first of them (RFC 9001, section 5.2), so whoever
//! stands on the way can read the client's TLS hello. It comes in CRYPTO frames, which may be in any order, overlap, be
//! repeated and be spread over several packets and datagrams: Chrome shuffles them, and a hello with a post-quantum key
//! does not fit into one. [`ClientFlight`] takes the datagrams of a client that nothing is known of yet and puts the
//! hello together; its owner holds the datagrams meanwhile.
//!
//! Versions 1 (RFC 9000) and 2 (RFC 9369) can be read. Of every other the connection ids are still where RFC 8999 puts
//! them: [`long_header`] and [`short_header_dcid`] find them.

mod crypto;
mod flight;
mod frames;
mod keys;
mod packet;
#[cfg(test)]
mod tests;

use std::fmt;

pub use crypto::CryptoStream;
pub use flight::ClientFlight;
pub use frames::read_frames;
pub use packet::{
    Kind, LongHeader, LongPacket, MAX_CID, Packet, Packets, Version, long_header, packets, short_header_dcid,
};

/// What a client may ask of us before it has said whom it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest hello, in bytes.
    pub hello: usize,
    /// The most datagrams.
    pub datagrams: usize,
    /// The most pieces of the hello, apart from each other, at a time.
    pub pieces: usize,
}

/// Why there is no hello to be read, and will not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoHello {
    /// The datagram is none with which a QUIC connection begins.
    NotQuic,
    /// It may be QUIC, of a version that is not known here.
    UnknownVersion,
    /// It looks like an Initial packet, but its own connection id does not open it.
    Undecryptable,
    /// The header, the frames or the hello break the rules.
    Malformed,
    /// A piece of the hello came twice, and not the same.
    Conflict,
    /// The hello is longer than [`Limits::hello`].
    TooLong,
    /// It took more than [`Limits::datagrams`].
    TooManyDatagrams,
    /// More than [`Limits::pieces`].
    TooManyPieces,
}

impl fmt::Display for NoHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoHello::NotQuic => "not the beginning of a QUIC connection",
            NoHello::UnknownVersion => "a QUIC version that is not known",
            NoHello::Undecryptable => "a QUIC Initial packet that does not decrypt",
            NoHello::Malformed => "a QUIC Initial packet that breaks the rules",
            NoHello::Conflict => "a QUIC hello that contradicts itself",
            NoHello::TooLong => "a QUIC hello that is too long",
            NoHello::TooManyDatagrams => "a QUIC hello in too many datagrams",
            NoHello::TooManyPieces => "a QUIC hello in too many pieces",
        })
    }
}

impl std::error::Error for NoHello {}
