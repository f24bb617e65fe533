//! WebSocket (RFC 6455): frames as they lie on the wire, and the handshake that opens them.
//!
//! What lives here: a [`Decoder`] that is fed bytes in any pieces and hands out payload, unmasked in place, message
//! borders and control frames; [heads](FrameHead) and control frames to write; [masking](Mask); the rules
//! of [close codes](CloseCode); and the heads of the [opening handshake](handshake). What must not: reading, writing,
//! randomness (keys are arguments), extensions (none is ever agreed on), and whole messages: a frame of a gigabyte
//! passes through in the pieces that it comes in.

mod close;
mod decode;
mod encode;
mod frame;
pub mod handshake;
mod mask;
mod utf8;

pub use close::{Close, CloseCode};
pub use decode::{Decoder, Event, Kind, Limits, Step};
pub use encode::{close_frame, control_frame};
pub use frame::{FrameHead, HEAD_MAX, HeadBytes, OpCode};
pub use mask::Mask;

/// The longest body of a control frame (section 5.5).
pub const CONTROL_MAX: usize = 125;

/// Who sends a frame: that decides whether it has to be masked (section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Who asked for the upgrade; its frames are masked.
    Client,
    /// Who granted it; its frames are not.
    Server,
}

/// How a sender broke the protocol. Nothing after it means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A reserved bit is set, and no extension was agreed on (section 5.2).
    ReservedBit,
    /// An opcode without a meaning (section 5.2).
    ReservedOpCode,
    /// A frame of a client without a mask (section 5.1).
    Unmasked,
    /// A frame of a server with a mask (section 5.1).
    Masked,
    /// A length that fits in fewer bytes, or in no 63 bits (section 5.2).
    Length,
    /// A control frame of more than one fragment or more than 125 bytes (section 5.5).
    Control,
    /// A continuation of nothing, or a new message within another (section 5.4).
    Order,
    /// A close frame with a body of one byte, or with a code that none may have (section 7.4).
    CloseCode,
    /// A text, or the reason of a close, that is not UTF-8 (sections 5.6 and 8.1).
    Utf8,
    /// A message longer than the limit.
    TooLong,
}

impl Violation {
    /// The code of the close frame that answers it (section 7.4.1).
    pub fn code(self) -> CloseCode {
        match self {
            Violation::Utf8 => CloseCode::INVALID_PAYLOAD,
            Violation::TooLong => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// What is wrong, for logs and for the reason of that frame.
    pub fn as_str(self) -> &'static str {
        match self {
            Violation::ReservedBit => "a reserved bit is set",
            Violation::ReservedOpCode => "a reserved opcode",
            Violation::Unmasked => "a client's frame without a mask",
            Violation::Masked => "a server's frame with a mask",
            Violation::Length => "a length in more bytes than it needs, or beyond 63 bits",
            Violation::Control => "a control frame in fragments or of more than 125 bytes",
            Violation::Order => "a continuation of nothing, or a message within another",
            Violation::CloseCode => "a close code that no frame may have",
            Violation::Utf8 => "text that is not UTF-8",
            Violation::TooLong => "a message over the limit",
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests;
