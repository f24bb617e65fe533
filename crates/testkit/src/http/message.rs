//! A message as it was on the wire: its first line, its fields in their order and case, its body and its trailers.

use std::io;

/// Everything up to the empty line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The first line.
    pub start: String,
    /// Names and values, in order, as written; bytes beyond ASCII are read as Latin-1.
    pub fields: Vec<(String, String)>,
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its head.
    pub head: Head,
    /// Its content, without the framing.
    pub body: Vec<u8>,
    /// The fields after a chunked body.
    pub trailers: Vec<(String, String)>,
}

/// How a body's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// By its length.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// What is not HTTP.
pub(super) fn invalid(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl Head {
    /// The value of the one field of that name.
    ///
    /// # Panics
    /// When there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "several fields {name}: {self:#?}");
        all.first().copied()
    }

    /// The values of all fields of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Whether a list of tokens holds one.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        let values = self.all(name);
        values.iter().flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// A response's status code.
    ///
    /// # Panics
    /// When it is no response.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    /// A request's method.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// A request's target.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// Whether the sender wants to go on with the connection afterwards.
    pub fn keeps_alive(&self) -> bool {
        if self.start.contains("HTTP/1.0") {
            self.lists("connection", "keep-alive")
        } else {
            !self.lists("connection", "close")
        }
    }

    /// How a request's body ends.
    ///
    /// # Errors
    /// When that is not beyond doubt.
    pub fn request_framing(&self) -> io::Result<Framing> {
        Ok(self.explicit_framing()?.unwrap_or(Framing::None))
    }

    /// How the body of a response to `method` ends.
    ///
    /// # Errors
    /// When that is not beyond doubt.
    pub fn response_framing(&self, method: &str) -> io::Result<Framing> {
        let explicit = self.explicit_framing()?;
        match self.status() {
            100..=199 | 204 if explicit.is_some() => Err(invalid("framing where there is no body")),
            100..=199 | 204 | 304 => Ok(Framing::None),
            _ if method == "HEAD" => Ok(Framing::None),
            200..=299 if method == "CONNECT" => Ok(Framing::None),
            _ => Ok(explicit.unwrap_or(Framing::Close)),
        }
    }

    /// RFC 9112 section 6, without any of its ways to make something of a doubtful message.
    fn explicit_framing(&self) -> io::Result<Option<Framing>> {
        let (lengths, codings) = (self.all("content-length"), self.all("transfer-encoding"));
        match (lengths[..].as_ref(), codings[..].as_ref()) {
            ([], []) => Ok(None),
            ([], ["chunked"]) if self.start.contains("HTTP/1.1") => Ok(Some(Framing::Chunked)),
            ([length], []) if !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit()) => {
                length.parse().map(|length| Some(Framing::Length(length))).map_err(invalid)
            }
            _ => Err(invalid(format!("doubtful framing: lengths {lengths:?}, codings {codings:?}"))),
        }
    }
}

impl Message {
    /// The body as text.
    ///
    /// # Panics
    /// When it is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of UTF-8")
    }

    /// A response's status code.
    pub fn status(&self) -> u16 {
        self.head.status()
    }
}
