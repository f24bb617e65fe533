//! Frames of RFC 9113 by hand.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::tcp::{Addr, Conn};

/// What a client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The type of a frame, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub u8);

impl Kind {
    /// Content.
    pub const DATA: Kind = Kind(0);
    /// A head or trailers.
    pub const HEADERS: Kind = Kind(1);
    /// Which stream is dearer.
    pub const PRIORITY: Kind = Kind(2);
    /// The end of a stream.
    pub const RST_STREAM: Kind = Kind(3);
    /// Limits.
    pub const SETTINGS: Kind = Kind(4);
    /// A request by the server.
    pub const PUSH_PROMISE: Kind = Kind(5);
    /// Are you there?
    pub const PING: Kind = Kind(6);
    /// The end of the connection.
    pub const GOAWAY: Kind = Kind(7);
    /// Room for more content.
    pub const WINDOW_UPDATE: Kind = Kind(8);
    /// More of a head.
    pub const CONTINUATION: Kind = Kind(9);
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: Kind,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// All after its head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The last of a stream, or an acknowledgement.
    pub const END_STREAM: u8 = 1;
    /// The last of a head.
    pub const END_HEADERS: u8 = 4;

    /// The error code of a RST_STREAM or a GOAWAY.
    ///
    /// # Panics
    /// When it is another frame.
    pub fn code(&self) -> u32 {
        let at = match self.kind {
            Kind::RST_STREAM => 0,
            Kind::GOAWAY => 4,
            other => panic!("{other:?} has no error code"),
        };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of a HEADERS whose first field is one of the static table, or such a name with three digits.
    pub fn status(&self) -> Option<u16> {
        // The table's new size may come first.
        let block = self.payload.get(self.payload.iter().position(|byte| byte >> 5 != 1)?..)?;
        match *block.first()? {
            index @ 0x88..=0x8e => Some([200, 204, 206, 304, 400, 404, 500][usize::from(index) - 0x88]),
            // A name of the static table and a value of three digits: plain, or five bits each by Huffman.
            0x08 | 0x48 | 0x18 => match block.get(1..)? {
                [3, digits @ ..] => std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok(),
                [0x82, a, b, ..] => huffman_status(u32::from_be_bytes([0, *a, *b, 0xff])),
                [0x83, a, b, c, ..] => huffman_status(u32::from_be_bytes([0, *a, *b, *c])),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Three digits of five bits (0 to 2) or six (3 to 9).
fn huffman_status(bits: u32) -> Option<u16> {
    let (mut sum, mut left) = (0, 24);
    for _ in 0..3 {
        let five = bits >> (left - 5) & 0x1f;
        if five < 3 {
            sum = sum * 10 + five as u16;
            left -= 5;
        } else {
            let six = bits >> (left - 6) & 0x3f;
            sum = sum * 10 + (six as u16).checked_sub(0x16)?;
            left -= 6;
        }
    }
    Some(sum)
}

/// A connection on which frames are written and read one by one.
#[derive(Debug)]
pub struct Raw<S = Conn> {
    stream: S,
    failed: bool,
}

impl Raw {
    /// Connects and begins as RFC 9113 wants it: preface, SETTINGS, and the acknowledgement of the server's. Heads
    /// shall use no table, so that [`Frame::status`] can read them.
    pub fn connect(addr: &Addr) -> Self {
        let mut raw = Raw::over(Conn::connect(addr));
        raw.begin(&[(1, 0)]);
        raw
    }

    /// Connects, and sends nothing.
    pub fn bare(addr: &Addr) -> Self {
        Raw::over(Conn::connect(addr))
    }

    /// Changes how long a read waits.
    pub fn patience(&self, limit: Duration) {
        self.stream.patience(limit);
    }

    /// The connection below.
    pub fn conn(&self) -> &Conn {
        &self.stream
    }
}

impl<S: Read + Write> Raw<S> {
    /// Speaks over a connection that is there.
    pub fn over(stream: S) -> Self {
        Raw { stream, failed: false }
    }

    /// Sends the preface with these settings, reads the server's and acknowledges them.
    pub fn begin(&mut self, settings: &[(u16, u32)]) {
        self.send_bytes(PREFACE);
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.send(Kind::SETTINGS, 0, 0, &payload);
        self.wait(|frame| frame.kind == Kind::SETTINGS && frame.flags & Frame::END_STREAM == 0);
        self.send(Kind::SETTINGS, Frame::END_STREAM, 0, &[]);
    }

    /// Sends any bytes. The other side may have had enough and closed: the frames that came tell, and from the first
    /// failure on nothing is sent.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        if !self.failed {
            self.failed = self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_err();
        }
    }

    /// Sends a frame; see [`Raw::send_bytes`].
    pub fn send(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind.0, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.send_bytes(&bytes);
    }

    /// Sends a head: these fields, in one HEADERS with END_HEADERS; `end` ends the stream, too.
    pub fn head(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let flags = Frame::END_HEADERS | if end { Frame::END_STREAM } else { 0 };
        self.send(Kind::HEADERS, flags, stream, &encode(fields));
    }

    /// Sends a GET of a path, which ends its stream.
    pub fn get(&mut self, stream: u32, path: &str) {
        self.head(stream, &request_fields("GET", path), true);
    }

    /// Reads a frame; none where the connection has ended.
    ///
    /// # Errors
    /// As the connection says.
    pub fn frame(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read(&mut head[..1]) {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            other => other.map(drop)?,
        }
        self.stream.read_exact(&mut head[1..])?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap()) & 0x7fff_ffff;
        Ok(Some(Frame { kind: Kind(head[3]), flags: head[4], stream, payload }))
    }

    /// Reads up to a frame that is wanted.
    ///
    /// # Panics
    /// When the connection ends before.
    #[track_caller]
    pub fn wait(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let mut seen = Vec::new();
        loop {
            match self.frame() {
                Ok(Some(frame)) if wanted(&frame) => return frame,
                Ok(Some(frame)) => seen.push((frame.kind, frame.flags, frame.stream)),
                other => panic!("{other:?} in place of the frame that was waited for; there were {seen:?}"),
            }
        }
    }

    /// Reads up to the HEADERS that answers a stream, and says its status.
    ///
    /// # Panics
    /// When the stream or the connection ends before.
    #[track_caller]
    pub fn status(&mut self, stream: u32) -> u16 {
        let frame = self
            .wait(|frame| frame.stream == stream && [Kind::HEADERS, Kind::RST_STREAM].contains(&frame.kind));
        assert_eq!(frame.kind, Kind::HEADERS, "reset with {:?}", frame.payload);
        frame.status().unwrap_or_else(|| panic!("a status in {:x?}", frame.payload))
    }

    /// Reads to the end of the connection; says with which code of a GOAWAY it ended, if there was one.
    pub fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Ok(Some(frame)) = self.frame() {
            if frame.kind == Kind::GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }

    /// Asks whether the other side still listens.
    #[track_caller]
    pub fn ping(&mut self) {
        self.send(Kind::PING, 0, 0, b"01234567");
        self.wait(|frame| frame.kind == Kind::PING && frame.payload == b"01234567");
    }
}

/// The pseudo fields of a request.
pub fn request_fields<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)]
}

/// Fields as HPACK literals that enter no table, without Huffman's code.
pub fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push(value as u8 | 128);
        value >>= 7;
    }
    block.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(payload: &[u8]) -> Option<u16> {
        Frame { kind: Kind::HEADERS, flags: 4, stream: 1, payload: payload.to_vec() }.status()
    }

    #[test]
    fn statuses_are_read_in_every_form() {
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x8c, 0x5f]), Some(400));
        assert_eq!(status(&[0x48, 3, b'4', b'1', b'3']), Some(413));
        // RFC 7541 C.6.1: 302 by Huffman.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
    }
}
