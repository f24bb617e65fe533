//! Reads messages and takes every liberty of RFC 9112 for an error.

use std::io::{self, Read};

use super::message::{Framing, Head, invalid};

/// Of a connection's bytes, so many are kept to look at.
const KEPT: usize = 1 << 20;
/// A head that a test means to be read is shorter.
const LONGEST_HEAD: usize = 1 << 20;

/// Messages from a stream of bytes.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    buffer: Vec<u8>,
    at: usize,
    seen: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads from there.
    pub fn new(from: R) -> Self {
        Reader { from, buffer: Vec::new(), at: 0, seen: Vec::new() }
    }

    /// The stream.
    pub fn stream(&self) -> &R {
        &self.from
    }

    /// The stream, to write.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.from
    }

    /// The first mebibyte that came.
    pub fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// What came already and has not been read.
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Takes what came already and has not been read.
    pub fn take(&mut self) -> Vec<u8> {
        let pending = self.pending().to_vec();
        self.at = self.buffer.len();
        pending
    }

    /// Takes the stream, with what came already.
    pub fn into_parts(self) -> (R, Vec<u8>) {
        let pending = self.pending().to_vec();
        (self.from, pending)
    }

    /// Reads some more; says whether there was any.
    ///
    /// # Errors
    /// As the stream says.
    pub fn fill(&mut self) -> io::Result<bool> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        let mut bytes = [0; 16_384];
        let count = self.from.read(&mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..count]);
        let room = KEPT.saturating_sub(self.seen.len()).min(count);
        self.seen.extend_from_slice(&bytes[..room]);
        Ok(count > 0)
    }

    /// Reads a head; none where the stream ends before its first byte.
    ///
    /// # Errors
    /// As the stream says; `UnexpectedEof` when it ends on the way; `InvalidData` when it is no head.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        if self.pending().is_empty() && !self.fill()? {
            return Ok(None);
        }
        let start = self.line()?;
        let (method, _) = start.split_once(' ').ok_or_else(|| invalid(format!("a first line {start:?}")))?;
        if method.is_empty() || start.split(' ').count() < 3 {
            return Err(invalid(format!("a first line {start:?}")));
        }
        Ok(Some(Head { start, fields: self.fields()? }))
    }

    /// Reads a body to its end, in parts. The fields after it are returned.
    ///
    /// # Errors
    /// As [`Reader::head`].
    pub fn body(
        &mut self,
        framing: Framing,
        mut sink: impl FnMut(&[u8]),
    ) -> io::Result<Vec<(String, String)>> {
        match framing {
            Framing::None => {}
            Framing::Length(length) => self.part(length, &mut sink)?,
            Framing::Close => loop {
                sink(self.pending());
                self.at = self.buffer.len();
                if !self.fill()? {
                    break;
                }
            },
            Framing::Chunked => loop {
                let size = self.chunk_size()?;
                if size == 0 {
                    return self.fields();
                }
                self.part(size, &mut sink)?;
                let end = self.line()?;
                if !end.is_empty() {
                    return Err(invalid(format!("after a chunk: {end:?}")));
                }
            },
        }
        Ok(Vec::new())
    }

    /// A chunk's size. Extensions are not HTTP's error but nobody behind a proxy should have to meet one.
    fn chunk_size(&mut self) -> io::Result<u64> {
        let line = self.line()?;
        if line.is_empty() || !line.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(invalid(format!("a chunk's size {line:?}")));
        }
        u64::from_str_radix(&line, 16).map_err(invalid)
    }

    fn part(&mut self, mut left: u64, sink: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while left > 0 {
            if self.pending().is_empty() && !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = left.min(self.pending().len() as u64) as usize;
            sink(&self.buffer[self.at..self.at + count]);
            self.at += count;
            left -= count as u64;
        }
        Ok(())
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(format!("no field: {line:?}")))?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(invalid(format!("a field's name {name:?}")));
            }
            if value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
                return Err(invalid(format!("a field's value {value:?}")));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// A line, which CRLF ends, and that occurs in no other place.
    fn line(&mut self) -> io::Result<String> {
        let mut from = self.at;
        loop {
            if let Some(offset) = self.buffer[from..].iter().position(|byte| *byte == b'\n') {
                let end = from + offset;
                let line = self.buffer[self.at..end].strip_suffix(b"\r");
                let line = line.ok_or_else(|| invalid("a line that ends without CR"))?;
                if line.contains(&b'\r') || line.contains(&0) {
                    return Err(invalid("a CR or a NUL in a line"));
                }
                let line = line.iter().map(|byte| char::from(*byte)).collect();
                self.at = end + 1;
                return Ok(line);
            }
            if self.pending().len() > LONGEST_HEAD {
                return Err(invalid("a line without end"));
            }
            let before = self.buffer.len() - self.at;
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // A fill may have moved what is there to the front.
            from = self.at + before;
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<(Head, Vec<u8>)> {
        let mut reader = Reader::new(text.as_bytes());
        let head = reader.head()?.unwrap();
        let mut body = Vec::new();
        reader.body(head.request_framing()?, |part| body.extend_from_slice(part))?;
        assert_eq!(reader.pending(), b"", "all of it is read");
        Ok((head, body))
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let (head, body) =
            read("POST /a HTTP/1.1\r\nHoSt: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n")
                .unwrap();
        assert_eq!((head.method(), head.target()), ("POST", "/a"));
        assert_eq!(head.fields[0], ("HoSt".into(), "b".into()));
        assert_eq!(body, b"abc0123456789");
    }

    #[test]
    fn liberties_are_errors() {
        for text in [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
            "GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\na",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na",
            "GET / HTTP/1.1\r\ntransfer-encoding: Xchunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\n\r\n",
            "GET /\r\n\r\n",
        ] {
            assert_eq!(read(text).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
    }

    #[test]
    fn a_message_cut_off_is_told_from_a_wrong_one() {
        for text in ["GET / HT", "GET / HTTP/1.1\r\na: b\r\n", "GET / HTTP/1.1\r\ncontent-length: 2\r\n\r\na"]
        {
            assert_eq!(read(text).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{text:?}");
        }
    }
}
