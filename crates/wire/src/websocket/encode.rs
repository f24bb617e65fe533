//! Control frames, whole. The heads of data frames are made by [`FrameHead::to_bytes`].

use super::close::{Close, CloseCode};
use super::{CONTROL_MAX, FrameHead, Mask, OpCode};

/// Appends a control frame to `out`, masked if there is a key. A body of more than 125 bytes is cut.
pub fn control_frame(out: &mut Vec<u8>, opcode: OpCode, body: &[u8], mask: Option<[u8; 4]>) {
    let body = &body[..body.len().min(CONTROL_MAX)];
    out.extend_from_slice(&FrameHead { fin: true, opcode, len: body.len() as u64, mask }.to_bytes());
    let at = out.len();
    out.extend_from_slice(body);
    if let Some(key) = mask {
        Mask::new(key).apply(&mut out[at..]);
    }
}

/// Appends a close frame to `out`, masked if there is a key. A reason of more than 123 bytes is cut.
pub fn close_frame(out: &mut Vec<u8>, code: CloseCode, reason: &str, mask: Option<[u8; 4]>) {
    let mut body = [0; CONTROL_MAX];
    let len = Close { code: Some(code), reason }.body(&mut body);
    control_frame(out, OpCode::Close, &body[..len], mask);
}
