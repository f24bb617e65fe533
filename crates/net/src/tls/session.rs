//! A TLS session over a stream's base, or over another session there: rustls's unbuffered interface, and the buffers around it.

mod alert;

use std::future::poll_fn;
use std::io;
use std::mem;
use std::task::{Context, Poll, ready};

use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::tls13::OkmBlock;
use rustls::server::UnbufferedServerConnection;

use super::below::Below;
use super::engine::{Engine, Sink, Step, Want};
use super::scratch::{self, Scratch};
use super::{TlsError, exporter, resolver};
use crate::MARGIN;
use crate::stream::Stream;

/// A record at its largest: five bytes of header, 16 KiB, and what TLS 1.2 allows encryption to add (RFC 5246
/// section 6.2.3).
const RECORD: usize = 5 + 16 * 1024 + 2048;

/// The most that a record of ours carries. The receiver can use none of it before it has come whole, and records of the
/// 16 KiB that it may carry cost as much CPU.
pub(super) const SENT: usize = 8 * 1024;

/// The most that one write encrypts: several records in one call. It is the size of the relay's reads. A session upon another
/// takes a record less than that one, so that what it makes of them is one write below, too.
const WRITE: usize = 64 * 1024;

/// What they need besides their content: header, explicit nonce, content type and tag are under 64 bytes each.
pub(super) const SEALED: usize = WRITE + WRITE / SENT * 64;

/// The most that one read asks of the socket, as above.
const READ: usize = 64 * 1024;

/// Room for the one message that may span records, a certificate chain that rustls takes up to 64 KiB of, with a read
/// behind it.
pub(super) const OPENED: usize = 64 * 1024 + RECORD + READ;

/// What may wait for a full socket besides data: answers to the other side's messages. It is far more than any
/// handshake needs, and ends one who asks without ever reading.
const CONTROL: usize = 256 * 1024;

/// One side of a TLS connection.
pub(crate) struct Session {
    engine: Engine,
    below: Below,
    /// What keying material is derived from, where any is wanted.
    exporter: Option<Box<OkmBlock>>,
    /// The most that one write encrypts.
    most: usize,
    /// Ciphertext that was read and can't be opened yet.
    incoming: Vec<u8>,
    /// Ciphertext that the socket did not take yet, and how much of it it has taken.
    outgoing: Vec<u8>,
    sent: usize,
    /// What `outgoing` stands for of the data that is being written.
    claimed: usize,
    /// What was opened and not read, and how much of it was.
    opened: Vec<u8>,
    taken: usize,
    /// The other side has said that it is done.
    ended: bool,
    /// We have.
    closed: bool,
    /// That is all there is to say of an end: what is below ends with the stream.
    holds_fin: bool,
    /// No record can be trusted any more.
    failed: bool,
    /// Why, while that is still to be told.
    failure: Option<TlsError>,
}

impl Session {
    /// The server's side, to which `received` has come already, upon the session `below` if there is one.
    pub(super) fn server(
        server: UnbufferedServerConnection,
        received: Vec<u8>,
        below: Option<Box<Session>>,
    ) -> Session {
        Session::new(Engine::Server(server), received, below)
    }

    /// The client's side.
    pub(super) fn client(
        client: UnbufferedClientConnection,
        received: Vec<u8>,
        below: Option<Box<Session>>,
    ) -> Session {
        Session::new(Engine::Client(client), received, below)
    }

    fn new(engine: Engine, incoming: Vec<u8>, below: Option<Box<Session>>) -> Session {
        Session {
            engine,
            most: below.as_ref().map_or(WRITE, |below| below.most.saturating_sub(SENT).max(SENT)),
            below: Below(below),
            exporter: None,
            incoming,
            outgoing: Vec::new(),
            sent: 0,
            claimed: 0,
            opened: Vec::new(),
            taken: 0,
            ended: false,
            closed: false,
            holds_fin: false,
            failed: false,
            failure: None,
        }
    }

    /// Whether a read may have something to say though the base has nothing.
    pub(crate) fn is_readable(&self) -> bool {
        self.taken < self.opened.len()
            || !self.incoming.is_empty()
            || self.ended
            || self.failed
            || self.below.is_readable()
    }

    /// How many bytes of buffers it holds.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        let below = self.below.0.as_ref().map_or(0, |below| below.buffered());
        self.incoming.capacity() + self.outgoing.capacity() + self.opened.capacity() + below
    }

    /// Ends the session below, as whoever holds only that could.
    #[cfg(test)]
    pub(super) async fn end_below(&mut self, stream: &Stream) {
        poll_fn(|cx| self.below.poll_shutdown_write(cx, stream)).await.unwrap();
    }

    pub(super) fn state(&self) -> &CommonState {
        match &self.engine {
            Engine::Server(server) => server,
            Engine::Client(client) => client,
        }
    }

    /// Goes through the handshake, to where everything that belongs to it is sent. The name that the client asks for is
    /// written to `asked` as soon as it is known.
    pub(super) async fn handshake(
        &mut self,
        stream: &Stream,
        asked: &mut Option<String>,
    ) -> Result<(), TlsError> {
        // What somebody else's handshake on this thread has left.
        drop((resolver::take_asked(), exporter::take_secret()));
        // What came before, or for a client nothing, gives the first thing to say.
        let begun = self.open_kept();
        self.note(asked);
        begun?;
        poll_fn(|cx| self.poll_handshake(cx, stream, asked)).await
    }

    fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        asked: &mut Option<String>,
    ) -> Poll<Result<(), TlsError>> {
        loop {
            ready!(self.poll_flush(cx, stream)).map_err(TlsError::Io)?;
            if !self.state().is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Err(TlsError::Unfinished));
            }
            // What comes behind the handshake waits for its reader.
            let came = ready!(self.poll_fill(cx, stream, &mut Sink::none()));
            self.note(asked);
            came.map_err(|error| match error {
                TlsError::Truncated => TlsError::Unfinished,
                error => error,
            })?;
        }
    }

    /// Takes what a step of the handshake has told beside what it did.
    fn note(&mut self, asked: &mut Option<String>) {
        if let Some(name) = resolver::take_asked() {
            *asked = Some(name);
        }
        if let Some(secret) = exporter::take_secret() {
            self.exporter = Some(secret);
        }
    }

    /// See [`Stream::export_keying_material`].
    pub(crate) fn export(&self, label: &[u8], context: &[u8]) -> Option<[u8; 32]> {
        exporter::derive(self.state(), self.exporter.as_deref()?, label, context)
    }

    /// Reads what was encrypted; 0 is an end that the other side has declared.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if !self.opened.is_empty() {
            return Poll::Ready(Ok(self.take_opened(buffer)));
        }
        if self.outgoing.len() > self.sent
            && let Poll::Ready(Err(error)) = self.poll_flush(cx, stream)
        {
            return Poll::Ready(Err(error));
        }
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Err(error.into()));
        }
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut sink = Sink { buffer, filled: 0 };
        while sink.filled == 0 && !self.ended {
            if let Err(error) = ready!(self.poll_fill(cx, stream, &mut sink)) {
                self.failed = true;
                if matches!(error, TlsError::Protocol(_)) {
                    self.send_alert(stream);
                }
                if sink.filled == 0 {
                    return Poll::Ready(Err(error.into()));
                }
                // What was right before it comes first.
                self.failure = Some(error);
            }
        }
        Poll::Ready(Ok(sink.filled))
    }

    fn take_opened(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.opened[self.taken..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.taken += n;
        if self.taken == self.opened.len() {
            self.opened = Vec::new();
            self.taken = 0;
        }
        n
    }

    /// Reads from the socket once and opens what has come whole.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        sink: &mut Sink<'_>,
    ) -> Poll<Result<(), TlsError>> {
        scratch::with(|Scratch { incoming, .. }| {
            let kept = self.incoming.len();
            // What is opened is shorter than what came, so that it fits the reader's buffer if this does.
            let limit = sink.buffer.len().clamp(RECORD, READ).max(kept + RECORD).min(incoming.len());
            if kept == limit {
                return Poll::Ready(Err(rustls::Error::PeerSentOversizedRecord.into()));
            }
            let read =
                ready!(self.below.poll_read(cx, stream, &mut incoming[kept..limit])).map_err(TlsError::Io)?;
            if read == 0 {
                return Poll::Ready(Err(TlsError::Truncated));
            }
            incoming[..kept].copy_from_slice(&self.incoming);
            let came = &mut incoming[..kept + read];
            let mut used = 0;
            let opened = self.open(came, &mut used, sink);
            // Where all came whole nothing is kept, not even the room for it.
            self.incoming = came[used..].to_vec();
            Poll::Ready(opened)
        })
    }

    /// Opens what is kept, for nothing has to come for that.
    fn open_kept(&mut self) -> Result<(), TlsError> {
        let mut kept = mem::take(&mut self.incoming);
        let mut used = 0;
        let opened = self.open(&mut kept, &mut used, &mut Sink::none());
        kept.drain(..used);
        self.incoming = kept;
        opened
    }

    /// Opens the records that lie whole in `came`, and counts what of it is done with.
    fn open(&mut self, came: &mut [u8], used: &mut usize, sink: &mut Sink<'_>) -> Result<(), TlsError> {
        loop {
            match self.step(came, used, sink, Want::Open)? {
                Step::Again => {}
                Step::Ended => self.ended = true,
                Step::Starved | Step::Sealed(_) => return Ok(()),
            }
            if self.outgoing.len() - self.sent > CONTROL {
                return Err(rustls::Error::General("too many questions, and no answer is read".into()).into());
            }
        }
    }

    /// One step of rustls over what came behind the first `used` bytes, and counts what that uses.
    fn step(
        &mut self,
        came: &mut [u8],
        used: &mut usize,
        sink: &mut Sink<'_>,
        want: Want<'_>,
    ) -> Result<Step, TlsError> {
        let input = &mut came[*used..];
        let (discard, step) = self.engine.step(input, &mut self.outgoing, &mut self.opened, sink, want);
        *used += discard;
        step
    }

    /// Encrypts data and sends it. As long as the socket has not taken all of it this is pending, and the next call has
    /// to come with the same data.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.failed || self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_flush(cx, stream))?;
        let claimed = mem::take(&mut self.claimed);
        if claimed > 0 {
            debug_assert!(claimed <= data.len(), "other data than was begun with");
            return Poll::Ready(Ok(claimed.min(data.len())));
        }
        let data = &data[..data.len().min(self.most)];
        scratch::with(|Scratch { outgoing, .. }| {
            let outgoing = &mut outgoing[MARGIN..];
            let sealed = self.seal(data, outgoing).map_err(io::Error::from)?;
            let mut sent = 0;
            // A message of rustls's own comes before the data.
            while self.outgoing.is_empty() && sent < sealed {
                match self.below.poll_write(cx, stream, &outgoing[sent..sealed]) {
                    Poll::Ready(written) => sent += written?,
                    Poll::Pending => break,
                }
            }
            if sent == sealed {
                return Poll::Ready(Ok(data.len()));
            }
            self.outgoing.extend_from_slice(&outgoing[sent..sealed]);
            self.claimed = data.len();
            ready!(self.poll_flush(cx, stream))?;
            Poll::Ready(Ok(mem::take(&mut self.claimed)))
        })
    }

    fn seal(&mut self, data: &[u8], into: &mut [u8]) -> Result<usize, TlsError> {
        let mut kept = mem::take(&mut self.incoming);
        let mut used = 0;
        let sealed = loop {
            let mut nowhere = Sink::none();
            match self.step(&mut kept, &mut used, &mut nowhere, Want::Seal(data, &mut *into)) {
                Ok(Step::Sealed(bytes)) => break Ok(bytes),
                Ok(Step::Again) => {}
                Ok(Step::Ended) => self.ended = true,
                Ok(Step::Starved) => break Err(rustls::Error::HandshakeNotComplete.into()),
                Err(error) => break Err(error),
            }
        };
        kept.drain(..used);
        self.incoming = kept;
        sealed
    }

    /// See [`Stream::end_within_tls`].
    pub(crate) fn hold_fin(&mut self) {
        self.holds_fin = true;
    }

    /// Says that nothing more will be written: close_notify, then a FIN once everything is sent, if it is not held back.
    pub(crate) fn poll_shutdown_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
    ) -> Poll<io::Result<()>> {
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !self.closed {
            self.closed = true;
            self.close().map_err(io::Error::from)?;
        }
        ready!(self.poll_flush(cx, stream))?;
        match self.holds_fin {
            true => Poll::Ready(Ok(())),
            false => self.below.poll_shutdown_write(cx, stream),
        }
    }

    fn close(&mut self) -> Result<(), TlsError> {
        let mut kept = mem::take(&mut self.incoming);
        let mut used = 0;
        let closed = loop {
            let mut nowhere = Sink::none();
            match self.step(&mut kept, &mut used, &mut nowhere, Want::Close) {
                Ok(Step::Again) => {}
                Ok(Step::Ended) => self.ended = true,
                Ok(Step::Sealed(_) | Step::Starved) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        kept.drain(..used);
        self.incoming = kept;
        closed
    }

    /// Sends what waits for room below.
    fn poll_flush(&mut self, cx: &mut Context<'_>, stream: &Stream) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            self.sent += ready!(self.below.poll_write(cx, stream, &self.outgoing[self.sent..]))?;
        }
        self.outgoing = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("ended", &self.ended)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
