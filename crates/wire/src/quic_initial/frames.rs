//! The frames of Initial packets (RFC 9000, section 19): those that may stand there, and no others.

use super::NoHello;
use super::crypto::CryptoStream;
use super::packet::Reader;

/// Most ranges that one ACK frame may name: more than fit into a datagram of 1,500 bytes are no mistake of a client
/// that has seen a few packets. They are only skipped.
const MAX_ACK_RANGES: u64 = 1_000;

/// Walks through the frames of a client's Initial packet and puts the pieces of its hello into `stream`.
///
/// # Errors
/// A frame is cut off or may not stand in an Initial packet, or the stream takes a piece for impossible.
pub fn read_frames(frames: &[u8], stream: &mut CryptoStream) -> Result<(), NoHello> {
    let mut reader = Reader(frames);
    while !reader.0.is_empty() {
        read_frame(&mut reader, stream)?;
    }
    Ok(())
}

fn read_frame(reader: &mut Reader<'_>, stream: &mut CryptoStream) -> Result<(), NoHello> {
    // The types are numbers of variable length, too; each of these has to be sent in its shortest form.
    match reader.byte().ok_or(NoHello::Malformed)? {
        PADDING => {
            let padding = reader.0.iter().take_while(|byte| **byte == PADDING).count();
            reader.0 = &reader.0[padding..];
            Ok(())
        }
        PING => Ok(()),
        kind @ (ACK | ACK_ECN) => skip_ack(reader, kind == ACK_ECN).ok_or(NoHello::Malformed),
        CRYPTO => {
            let (offset, data) = crypto(reader).ok_or(NoHello::Malformed)?;
            stream.insert(offset, data)
        }
        CONNECTION_CLOSE => skip_close(reader).ok_or(NoHello::Malformed),
        _ => Err(NoHello::Malformed),
    }
}

const PADDING: u8 = 0x00;
const PING: u8 = 0x01;
const ACK: u8 = 0x02;
const ACK_ECN: u8 = 0x03;
const CRYPTO: u8 = 0x06;
const CONNECTION_CLOSE: u8 = 0x1c;

fn crypto<'a>(reader: &mut Reader<'a>) -> Option<(u64, &'a [u8])> {
    let offset = reader.varint()?;
    let length = usize::try_from(reader.varint()?).ok()?;
    Some((offset, reader.take(length)?))
}

fn skip_ack(reader: &mut Reader<'_>, ecn: bool) -> Option<()> {
    let (_largest, _delay) = (reader.varint()?, reader.varint()?);
    let ranges = reader.varint().filter(|ranges| *ranges <= MAX_ACK_RANGES)?;
    // The first range has no gap before it.
    let numbers = 1 + 2 * ranges + if ecn { 3 } else { 0 };
    for _ in 0..numbers {
        reader.varint()?;
    }
    Some(())
}

fn skip_close(reader: &mut Reader<'_>) -> Option<()> {
    let (_error, _frame) = (reader.varint()?, reader.varint()?);
    let reason = usize::try_from(reader.varint()?).ok()?;
    reader.take(reason).map(|_| ())
}
