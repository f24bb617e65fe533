//! A client that sends what it is given and reads one answer at a time.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::message::{Framing, Head, Message};
use super::reader::Reader;
use crate::tcp::{Addr, Conn};
use crate::tls::TlsConn;

/// Between two pieces of what is sent: long enough that the other side reads the one before the next, which no event
/// would tell us, and short enough for a head sent byte by byte.
const PAUSE: Duration = Duration::from_millis(2);

/// One connection of a client.
#[derive(Debug)]
pub struct Client<S = Conn> {
    reader: Reader<S>,
}

impl Client {
    /// Connects.
    pub fn connect(addr: &Addr) -> Self {
        Client::over(Conn::connect(addr))
    }

    /// One request on a connection of its own, and the whole answer to it. The connection is closed after that.
    ///
    /// # Panics
    /// When the answer is none by RFC 9112.
    pub fn once(addr: &Addr, request: &str) -> Message {
        let mut client = Client::connect(addr);
        client.send(request);
        client.response_to(request.split(' ').next().unwrap_or_default())
    }

    /// The connection below.
    pub fn conn(&self) -> &Conn {
        self.reader.stream()
    }

    /// Sends nothing more.
    pub fn finish(&self) {
        self.conn().finish();
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.reader.into_parts().0.reset();
    }

    /// Shrinks the receive buffer, so that unread bytes press back soon.
    pub fn read_slowly(&self) {
        self.conn().read_slowly();
    }

    /// Expects that nothing came after the last answer, and that the connection is still open.
    ///
    /// # Panics
    /// On bytes, on an end and on an error.
    #[track_caller]
    pub fn expect_idle(&self) {
        assert_eq!(String::from_utf8_lossy(self.reader.pending()), "", "bytes after the answer");
        let conn = self.conn();
        conn.socket().set_nonblocking(true).unwrap();
        let read = Read::read(&mut &*conn, &mut [0; 64]);
        conn.socket().set_nonblocking(false).unwrap();
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => panic!("expected an idle connection, got {other:?}"),
        }
    }

    /// Whether the other side has closed or reset, after which `limit` nothing says so.
    pub fn closes_within(&mut self, limit: Duration) -> bool {
        self.conn().patience(limit);
        let closed = loop {
            match self.reader.fill() {
                Ok(true) => {}
                Ok(false) => break true,
                Err(error) => break error.kind() == io::ErrorKind::ConnectionReset,
            }
        };
        self.conn().patience(crate::PATIENCE);
        closed
    }
}

impl Client<TlsConn> {
    /// Ends the sending direction below TLS.
    pub fn cut(&self) {
        let _ = self.reader.stream().socket().shutdown(Shutdown::Both);
    }
}

impl<S: Read + Write> Client<S> {
    /// Speaks over a connection that is there.
    pub fn over(stream: S) -> Self {
        Client { reader: Reader::new(stream) }
    }

    /// Sends.
    ///
    /// # Panics
    /// When it can't.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("send: {error}"));
    }

    /// Sends.
    ///
    /// # Errors
    /// As the connection says.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream = self.reader.stream_mut();
        stream.write_all(bytes.as_ref())?;
        stream.flush()
    }

    /// Sends piece by piece. The other side may have answered and closed before the last.
    pub fn send_pieces<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        for piece in pieces {
            if self.try_send(piece).is_err() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends a chunk of a body.
    pub fn send_chunk(&mut self, bytes: &[u8]) {
        self.send([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat());
    }

    /// A `GET` of the path, without more fields than it needs, and its answer.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        self.response()
    }

    /// A `POST` with a length, and its answer.
    #[track_caller]
    pub fn post(&mut self, path: &str, body: &[u8]) -> Message {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat());
        self.response()
    }

    /// Reads the final response to a request that is not a HEAD or a CONNECT; interim ones are skipped.
    ///
    /// # Panics
    /// When the answer is none by RFC 9112.
    #[track_caller]
    pub fn response(&mut self) -> Message {
        self.response_to("GET")
    }

    /// Reads the final response to a request with this method; interim ones are skipped.
    ///
    /// # Panics
    /// When the answer is none by RFC 9112.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Message {
        self.try_response_to(method).unwrap_or_else(|error| self.fail(&error))
    }

    /// [`Client::response_to`].
    ///
    /// # Errors
    /// As [`Reader::head`], and `UnexpectedEof` when there is no response at all.
    pub fn try_response_to(&mut self, method: &str) -> io::Result<Message> {
        loop {
            let head = self.reader.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let framing = head.response_framing(method)?;
            if (100..200).contains(&head.status()) && head.status() != 101 {
                continue;
            }
            let mut body = Vec::new();
            let trailers = self.reader.body(framing, |part| body.extend_from_slice(part))?;
            return Ok(Message { head, body, trailers });
        }
    }

    /// Reads the next head, an interim one or a final one.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        match self.reader.head() {
            Ok(Some(head)) => head,
            Ok(None) => panic!("the connection ended where a response was expected"),
            Err(error) => self.fail(&error),
        }
    }

    /// Reads the body after [`Client::head`] in parts, to its end.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub fn body(&mut self, framing: Framing, sink: impl FnMut(&[u8])) -> io::Result<Vec<(String, String)>> {
        self.reader.body(framing, sink)
    }

    /// Reads exactly so many bytes of whatever comes.
    ///
    /// # Panics
    /// When fewer come.
    #[track_caller]
    pub fn recv(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = self.reader.body(Framing::Length(count as u64), |part| bytes.extend_from_slice(part));
        read.unwrap_or_else(|error| panic!("read {count} bytes: {error}"));
        bytes
    }

    /// Expects that the other side closes now, without another byte.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        assert_eq!(String::from_utf8_lossy(self.reader.pending()), "", "bytes before the end");
        match self.reader.fill() {
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Ok(true) => panic!("bytes before the end: {:?}", String::from_utf8_lossy(self.reader.pending())),
            Err(error) => panic!("expected the connection to be closed: {error}"),
        }
    }

    /// The reader, with what it has seen.
    pub fn reader(&mut self) -> &mut Reader<S> {
        &mut self.reader
    }

    /// The connection, and what came on it unread.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        self.reader.into_parts()
    }

    #[track_caller]
    fn fail(&self, error: &io::Error) -> ! {
        panic!("no response: {error}; all that came: {:?}", String::from_utf8_lossy(self.reader.seen()))
    }
}
