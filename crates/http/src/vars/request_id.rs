//! What names a request.

use wmproxy_runtime::entropy;

/// The longest that is taken from others: more than any usual form has, and no burden to a log.
const LONGEST: usize = 128;

/// Names a request in logs and towards peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// 128 bits in hex: as many as no two requests ever share.
    Ours([u8; 32]),
    Theirs(Box<str>),
}

impl RequestId {
    /// One that nobody can foretell.
    pub fn random() -> RequestId {
        let mut bits = [0; 16];
        entropy::fill(&mut bits);
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(bits) {
            pair[0] = digit(byte >> 4);
            pair[1] = digit(byte & 15);
        }
        RequestId(Form::Ours(text))
    }

    /// One that somebody trustworthy gave, as it stands in `X-Request-Id`. None unless it is short and of plain characters.
    pub fn believed(value: &[u8]) -> Option<RequestId> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
        if value.is_empty() || value.len() > LONGEST || !value.iter().all(is_plain) {
            return None;
        }
        std::str::from_utf8(value).ok().map(|text| RequestId(Form::Theirs(text.into())))
    }

    /// As a text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // Digits, which are valid.
            Form::Ours(text) => std::str::from_utf8(text).unwrap_or_default(),
            Form::Theirs(text) => text,
        }
    }
}
