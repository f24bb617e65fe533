//! Close frames (RFC 6455 sections 5.5.1 and 7.4).

use super::{CONTROL_MAX, Violation};

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// All is done.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The server stops, or the page is left.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The other side broke the protocol.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// A text that is no UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// A message above the limit.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// The server met a condition that it can't go on with.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);

    /// Whether a frame may carry it: those that RFC 6455 and IANA's registry define for the wire, and those left to
    /// libraries (3000 and up) and applications (4000 and up). 1005, 1006 and 1015 are for APIs only.
    pub fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// Whether it says that nothing went wrong.
    pub fn is_orderly(self) -> bool {
        self == CloseCode::NORMAL || self == CloseCode::GOING_AWAY
    }
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a close frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    /// The code; none for a frame without a body, which counts as orderly.
    pub code: Option<CloseCode>,
    /// A text for people, at most 123 bytes.
    pub reason: &'a str,
}

impl<'a> Close<'a> {
    /// Reads the body of a close frame.
    pub(super) fn parse(body: &'a [u8]) -> Result<Close<'a>, Violation> {
        let (code, reason) = match body {
            [] => return Ok(Close { code: None, reason: "" }),
            [_] => return Err(Violation::CloseCode),
            [high, low, reason @ ..] => (CloseCode(u16::from_be_bytes([*high, *low])), reason),
        };
        if !code.is_sendable() {
            return Err(Violation::CloseCode);
        }
        let reason = std::str::from_utf8(reason).map_err(|_| Violation::Utf8)?;
        Ok(Close { code: Some(code), reason })
    }

    /// Whether it says that nothing went wrong.
    pub fn is_orderly(&self) -> bool {
        self.code.is_none_or(CloseCode::is_orderly)
    }

    /// Writes the body into `out`; a reason that is too long is cut between two characters.
    pub(super) fn body(&self, out: &mut [u8; CONTROL_MAX]) -> usize {
        let Some(code) = self.code else { return 0 };
        out[..2].copy_from_slice(&code.0.to_be_bytes());
        let reason = &self.reason[..self.reason.floor_char_boundary(CONTROL_MAX - 2)];
        out[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
        2 + reason.len()
    }
}
