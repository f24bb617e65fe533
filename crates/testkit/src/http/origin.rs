//! An origin that answers as a test's script says, and keeps what it saw.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::message::{Framing, Head, Message};
use super::reader::Reader;
use crate::backend::Backend;
use crate::tcp::{Addr, Conn};
use crate::tls::{Pair, TlsBackend};
use crate::wait::eventually;

/// Of each body, so much is kept.
const KEPT: usize = 1 << 20;

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A server of HTTP/1 whose answers are a test's.
///
/// Its drop fails the test when it was sent anything that RFC 9112 forbids or leaves in doubt.
#[derive(Debug)]
pub struct Origin {
    backend: Backend,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<(usize, Message)>>,
    bytes: Mutex<Vec<Vec<u8>>>,
    violations: Mutex<Vec<String>>,
}

/// Whether a handler's connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Closed,
    Reset,
}

/// One request, to be answered.
pub struct Call<'a> {
    /// Its head.
    pub head: Head,
    reader: &'a mut Reader<Box<dyn Stream>>,
    socket: &'a Conn,
    seen: &'a Seen,
    at: usize,
    conn: usize,
    turn: usize,
    unread: Option<Framing>,
    fate: Fate,
}

/// A plain answer, for scripts that need no more.
#[derive(Debug, Clone)]
pub struct Reply(pub Vec<u8>);

impl Reply {
    /// A status and a body with its length.
    pub fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        Reply::with(status, "", body)
    }

    /// The same with further field lines, each ended by CRLF.
    pub fn with(status: u16, fields: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
        Reply([head.as_bytes(), body].concat())
    }
}

impl Origin {
    /// Serves each request by a script on a free port of 127.0.0.1.
    pub fn start(script: impl Fn(&mut Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Origin::build(&Addr::Inet(([127, 0, 0, 1], 0).into()), None, script)
    }

    /// The same at a given address.
    pub fn start_at(
        addr: &Addr,
        script: impl Fn(&mut Call<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Origin::build(addr, None, script)
    }

    /// The same over TLS.
    pub fn start_tls(
        pair: &Pair,
        script: impl Fn(&mut Call<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let config = TlsBackend::config(pair, None);
        Origin::build(&Addr::Inet(([127, 0, 0, 1], 0).into()), Some(config), script)
    }

    /// Reads each request to its end, then sends these very bytes.
    pub fn says(answer: impl AsRef<[u8]>) -> Self {
        let answer = answer.as_ref().to_vec();
        Origin::start(move |call| {
            call.read_body()?;
            call.send(&answer)
        })
    }

    /// Reads each request to its end, then sends these very bytes and closes.
    pub fn says_and_closes(answer: impl AsRef<[u8]>) -> Self {
        let answer = answer.as_ref().to_vec();
        Origin::start(move |call| {
            call.read_body()?;
            call.send(&answer)?;
            call.close();
            Ok(())
        })
    }

    /// Answers 200 with the body that came, or with its name where none came.
    pub fn named(name: &str) -> Self {
        let name = name.to_owned();
        Origin::start(move |call| {
            let body = call.read_body()?;
            let body = if body.is_empty() { name.as_bytes() } else { &body };
            if call.head.method() == "HEAD" {
                return call.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            }
            call.reply(&Reply::new(200, body))
        })
    }

    fn build(
        addr: &Addr,
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&mut Call<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let serve = move |conn: &Conn| {
            let stream = conn.again()?;
            let stream: Box<dyn Stream> = match &tls {
                None => Box::new(stream),
                Some(config) => {
                    Box::new(StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream))
                }
            };
            let fate = serve(&shared, conn, stream, &script)?;
            if fate == Fate::Reset {
                conn.socket().set_linger(Some(Duration::ZERO))?;
            }
            Ok(0)
        };
        Origin { backend: Backend::start_at(addr, serve), seen }
    }

    /// Where it listens.
    pub fn addr(&self) -> &Addr {
        self.backend.addr()
    }

    /// The server below: its connections are counted there.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The requests so far, in the order of their heads; of each body the first mebibyte.
    pub fn requests(&self) -> Vec<Message> {
        self.seen.requests.lock().unwrap().iter().map(|(_, request)| request.clone()).collect()
    }

    /// The number of the connection that each request came by.
    pub fn ways(&self) -> Vec<usize> {
        self.seen.requests.lock().unwrap().iter().map(|(conn, _)| *conn).collect()
    }

    /// The first mebibyte of the bytes of each connection, up to its last whole request or to its end.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.seen.bytes.lock().unwrap().clone()
    }

    /// The only request so far.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[track_caller]
    pub fn request(&self) -> Message {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests: {requests:#?}");
        requests.remove(0)
    }

    /// Waits until the heads of `count` requests have come.
    pub fn wait_requests(&self, count: usize) {
        eventually(&format!("{count} requests at the origin"), || {
            self.seen.requests.lock().unwrap().len() >= count
        });
    }

    /// What it was sent that is no HTTP; taken away, so that the drop does not fail for it.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.violations.lock().unwrap())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let violations = self.take_violations();
        if !std::thread::panicking() {
            assert_eq!(violations, Vec::<String>::new(), "the origin was sent what is no HTTP");
        }
    }
}

impl Call<'_> {
    /// The number of its connection, from 0.
    pub fn conn(&self) -> usize {
        self.conn
    }

    /// How many requests came before it on that connection.
    pub fn turn(&self) -> usize {
        self.turn
    }

    /// The socket.
    pub fn socket(&self) -> &Conn {
        self.socket
    }

    /// Sends these very bytes.
    ///
    /// # Errors
    /// As the connection says.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream = self.reader.stream_mut();
        stream.write_all(bytes.as_ref())?;
        stream.flush()
    }

    /// Reads the rest of the body, then sends an answer.
    ///
    /// # Errors
    /// As the connection says.
    pub fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        self.read_body()?;
        self.send(&reply.0)
    }

    /// Reads the rest of the request; the body so far is returned, and its first mebibyte kept.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub fn read_body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.read_body_with(|part| body.extend_from_slice(part))?;
        Ok(body)
    }

    /// The same in parts.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub fn read_body_with(&mut self, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
        let Some(framing) = self.unread.take() else { return Ok(()) };
        let (seen, at) = (self.seen, self.at);
        let trailers = self.reader.body(framing, |part| {
            let kept = &mut seen.requests.lock().unwrap()[at].1.body;
            kept.extend_from_slice(&part[..part.len().min(KEPT - kept.len())]);
            sink(part);
        })?;
        seen.requests.lock().unwrap()[at].1.trailers = trailers;
        Ok(())
    }

    /// Waits for a first byte of the body, and leaves it where it is.
    ///
    /// # Errors
    /// As the connection says.
    pub fn wait_body(&mut self) -> io::Result<()> {
        while self.reader.pending().is_empty() && self.reader.fill()? {}
        Ok(())
    }

    /// Ends the connection after the script.
    pub fn close(&mut self) {
        self.fate = Fate::Closed;
    }

    /// Resets the connection after the script.
    pub fn reset(&mut self) {
        self.fate = Fate::Reset;
    }

    /// Sends back all that comes after the head, to the end of the connection: what follows a 101.
    ///
    /// # Errors
    /// As the connection says.
    pub fn echo(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.reader.take();
            self.send(&bytes)?;
            if !self.reader.fill()? {
                self.close();
                return Ok(());
            }
        }
    }

    /// Waits until the client has ended or reset the connection; what comes before is dropped.
    ///
    /// # Errors
    /// As the connection says, but for a reset.
    pub fn wait_end(&mut self) -> io::Result<()> {
        loop {
            match self.reader.fill() {
                Ok(true) => drop(self.reader.take()),
                Ok(false) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// One connection, to its end.
fn serve(
    seen: &Seen,
    socket: &Conn,
    stream: Box<dyn Stream>,
    script: &impl Fn(&mut Call<'_>) -> io::Result<()>,
) -> io::Result<Fate> {
    let conn = {
        let mut bytes = seen.bytes.lock().unwrap();
        bytes.push(Vec::new());
        bytes.len() - 1
    };
    let mut reader = Reader::new(stream);
    let mut turn = 0;
    let result = loop {
        let next = next(seen, &mut reader, (socket, conn, turn), script);
        seen.bytes.lock().unwrap()[conn] = reader.seen().to_vec();
        match next {
            Ok(Some(Fate::Kept)) => turn += 1,
            Ok(fate) => break Ok(fate.unwrap_or(Fate::Closed)),
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = &result
        && error.kind() == io::ErrorKind::InvalidData
    {
        let bytes = String::from_utf8_lossy(reader.seen()).into_owned();
        seen.violations.lock().unwrap().push(format!("{error}: {bytes:?}"));
    }
    result
}

/// One request; none where the connection has ended.
fn next(
    seen: &Seen,
    reader: &mut Reader<Box<dyn Stream>>,
    (socket, conn, turn): (&Conn, usize, usize),
    script: &impl Fn(&mut Call<'_>) -> io::Result<()>,
) -> io::Result<Option<Fate>> {
    let Some(head) = reader.head()? else { return Ok(None) };
    let framing = head.request_framing()?;
    let at = {
        let mut requests = seen.requests.lock().unwrap();
        requests.push((conn, Message { head: head.clone(), body: Vec::new(), trailers: Vec::new() }));
        requests.len() - 1
    };
    let fate = if head.keeps_alive() { Fate::Kept } else { Fate::Closed };
    let mut call = Call { head, reader, socket, seen, at, conn, turn, unread: Some(framing), fate };
    script(&mut call)?;
    if call.fate == Fate::Kept {
        call.read_body()?;
    }
    Ok(Some(call.fate))
}
