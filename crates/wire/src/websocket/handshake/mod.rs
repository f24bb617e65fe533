//! The opening handshake (RFC 6455 section 4): an HTTP/1.1 GET that asks for an upgrade, and the answer that grants it.
//!
//! Heads are parsed with limits that are arguments; what is wrong comes out as a [`Refusal`] with the answer to write,
//! or a [`Rejected`] with what the server did wrong. No extension is ever offered or granted.

mod request;
mod response;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use request::{Refusal, Request, accept_head, parse_request, refusal_head};
pub use response::{Ask, Rejected, Response, parse_response, request_head};

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// In bytes, its empty line included.
    pub bytes: usize,
    /// In fields.
    pub fields: usize,
}

/// A head that may not have come as a whole yet.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// Its end is missing.
    NeedMore,
    /// A whole head.
    Head {
        /// What it says.
        head: T,
        /// How long it is; what follows it belongs to the frames.
        len: usize,
    },
}

/// What a `Sec-WebSocket-Key` is answered with.
pub const ACCEPT_LEN: usize = 28;

/// The text that only a server of this protocol appends (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`, as the bytes of its text.
pub fn accept_key(key: &str) -> [u8; ACCEPT_LEN] {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
    let mut text = [0; ACCEPT_LEN];
    // 20 bytes make 28 characters.
    let _ = STANDARD.encode_slice(hash, &mut text);
    text
}

/// The `Sec-WebSocket-Key` of 16 random bytes.
pub fn key_text(nonce: [u8; 16]) -> String {
    STANDARD.encode(nonce)
}

/// Whether a `Sec-WebSocket-Key` is 16 bytes in base64.
fn is_key(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 16)
}

/// Whether a text is a token (RFC 9110 section 5.6.2), as the names of fields and of subprotocols are.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether a text can be the value of a field: visible characters, blanks between them (RFC 9110 section 5.5).
pub fn is_field_value(text: &str) -> bool {
    let visible = |byte: u8| byte == b'\t' || (0x20..=0x7e).contains(&byte) || byte >= 0x80;
    text.bytes().all(visible) && text.trim_matches([' ', '\t']) == text
}

/// The fields of a head by name.
struct Fields<'h, 'b>(&'h [httparse::Header<'b>]);

impl<'h, 'b: 'h> Fields<'h, 'b> {
    /// The values of a field, one for each line of it. One that is no text counts as empty.
    fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b str> + use<'h, 'b, 'n> {
        let lines = self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        lines.map(|field| std::str::from_utf8(field.value).unwrap_or("").trim_matches([' ', '\t']))
    }

    /// The value of a field that must not stand there twice: an error if it does.
    fn one(&self, name: &str) -> Result<Option<&'b str>, Twice> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() { Err(Twice) } else { Ok(first) }
    }

    /// The elements of a field that is a list (RFC 9110 section 5.6.1).
    fn list<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b str> + use<'h, 'b, 'n> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(|element| element.trim_matches([' ', '\t']))
            .filter(|element| !element.is_empty())
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|element| element.eq_ignore_ascii_case(token))
    }

    fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }
}

/// A field that stands there twice.
struct Twice;

#[cfg(test)]
mod tests;
