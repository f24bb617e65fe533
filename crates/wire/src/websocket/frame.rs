//! The head of a frame (RFC 6455 section 5.2): two bytes, up to eight of length, four of mask.

use super::{CONTROL_MAX, Role, Violation};

/// The longest head of a frame.
pub const HEAD_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OpCode {
    /// Goes on with a message.
    Continuation = 0x0,
    /// Begins a message of UTF-8.
    Text = 0x1,
    /// Begins a message of bytes.
    Binary = 0x2,
    /// Ends the connection.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping, or says that one is there.
    Pong = 0xa,
}

impl OpCode {
    fn parse(bits: u8) -> Option<OpCode> {
        Some(match bits {
            0x0 => OpCode::Continuation,
            0x1 => OpCode::Text,
            0x2 => OpCode::Binary,
            0x8 => OpCode::Close,
            0x9 => OpCode::Ping,
            0xa => OpCode::Pong,
            _ => return None,
        })
    }

    /// Whether it may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Whether it is the last one of its message.
    pub fin: bool,
    /// What it is.
    pub opcode: OpCode,
    /// The length of its payload; below 2^63.
    pub len: u64,
    /// The key of its mask, if it has one.
    pub mask: Option<[u8; 4]>,
}

/// A head in bytes.
#[derive(Debug, Clone, Copy)]
pub struct HeadBytes {
    bytes: [u8; HEAD_MAX],
    len: u8,
}

impl std::ops::Deref for HeadBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl FrameHead {
    /// A binary message in one frame.
    pub fn binary(len: usize, mask: Option<[u8; 4]>) -> FrameHead {
        FrameHead { fin: true, opcode: OpCode::Binary, len: len as u64, mask }
    }

    /// The head as it is written, its length in as few bytes as it fits in.
    pub fn to_bytes(&self) -> HeadBytes {
        let mut head = HeadBytes { bytes: [0; HEAD_MAX], len: 0 };
        head.push(&[self.opcode as u8 | if self.fin { FIN } else { 0 }]);
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        match self.len {
            len @ 0..126 => head.push(&[masked | len as u8]),
            len @ 126..=0xffff => {
                head.push(&[masked | 126]);
                head.push(&(len as u16).to_be_bytes());
            }
            len => {
                head.push(&[masked | 127]);
                head.push(&len.to_be_bytes());
            }
        }
        if let Some(key) = self.mask {
            head.push(&key);
        }
        head
    }

    /// Reads a head of a frame that `from` sent. None when bytes are missing; else the head and how long it is. What
    /// is wrong in the first two bytes is found before the others are there.
    pub(super) fn parse(bytes: &[u8], from: Role) -> Result<Option<(FrameHead, usize)>, Violation> {
        let [first, rest @ ..] = bytes else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(Violation::ReservedBit);
        }
        let opcode = OpCode::parse(first & 0xf).ok_or(Violation::ReservedOpCode)?;
        let fin = first & FIN != 0;
        let [second, rest @ ..] = rest else { return Ok(None) };
        let masked = second & MASKED != 0;
        match (from, masked) {
            (Role::Client, false) => return Err(Violation::Unmasked),
            (Role::Server, true) => return Err(Violation::Masked),
            _ => {}
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!fin || usize::from(short) > CONTROL_MAX) {
            return Err(Violation::Control);
        }
        let (len, rest, len_bytes) = match short {
            126 => {
                let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*len)), rest, 2)
            }
            127 => {
                let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*len), rest, 8)
            }
            short => (u64::from(short), rest, 0),
        };
        let minimal = match len_bytes {
            2 => len >= 126,
            8 => len > 0xffff && len >> 63 == 0,
            _ => true,
        };
        if !minimal {
            return Err(Violation::Length);
        }
        let mut used = 2 + len_bytes;
        let mask = match (masked, rest.first_chunk()) {
            (false, _) => None,
            (true, None) => return Ok(None),
            (true, Some(key)) => {
                used += 4;
                Some(*key)
            }
        };
        Ok(Some((FrameHead { fin, opcode, len, mask }, used)))
    }
}

impl HeadBytes {
    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }
}
