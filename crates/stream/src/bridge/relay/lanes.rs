//! The two directions of a bridge.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::relay::Brake;
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock;
use wmproxy_wire::websocket::{CloseCode, Event, FrameHead, HEAD_MAX, Mask, Role, Violation};

use super::{BUFFER, Machine, SCRATCH, State, Verdict};

/// Whether a direction moved, or how the bridge ends.
type Moved = Poll<Result<(), Verdict>>;

/// What a piece of the WebSocket's bytes ended with.
enum Last {
    More,
    /// The other end's Close, with its code.
    Close(Option<CloseCode>),
    Broken(Violation),
}

impl Machine<'_> {
    /// From TCP to the WebSocket: what is queued first, then a frame of what there is.
    pub(super) fn poll_outward(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Moved {
        if !self.outbox.is_empty() {
            let before = self.outbox.payload_left();
            let flushed = self.outbox.poll_flush(cx, self.ends.ws);
            self.passed_outward(before - self.outbox.payload_left(), record);
            return match ready!(flushed) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(error) => self.ws_is_deaf(&error),
            };
        }
        if self.tcp != State::Open {
            return Poll::Pending;
        }
        let room = match ready!(poll_room(&mut self.from_tcp, cx, self.ends.tcp)) {
            Ok(room) => room,
            Err(error) => return self.tcp_failed(&error),
        };
        let buffer = |buffer: &mut Box<[u8]>| {
            let read = self.ends.tcp.poll_read(cx, &mut buffer[HEAD_MAX..HEAD_MAX + room]);
            used(&mut self.from_tcp, &read);
            match ready!(read) {
                Ok(0) => self.tcp_ended(),
                Ok(n) => self.frame(cx, &mut buffer[..HEAD_MAX + n], record),
                Err(error) => self.tcp_failed(&error),
            }
        };
        BUFFER.with_borrow_mut(buffer)
    }

    /// Sends what lies behind the room for a head as one frame.
    fn frame(&mut self, cx: &mut Context<'_>, buffer: &mut [u8], record: &mut Record) -> Moved {
        let payload = &mut buffer[HEAD_MAX..];
        let bytes = payload.len();
        let mask = self.outbox.mask();
        if let Some(key) = mask {
            Mask::new(key).apply(payload);
        }
        let head = FrameHead::binary(bytes, mask).to_bytes();
        let start = HEAD_MAX - head.len();
        buffer[start..HEAD_MAX].copy_from_slice(&head);
        let frame = &buffer[start..];
        let written = match self.ends.ws.poll_write(cx, frame) {
            Poll::Pending => 0,
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return self.ws_is_deaf(&error),
        };
        if written < frame.len() {
            self.outbox.keep(&frame[written..], bytes);
        }
        self.last = clock::now();
        self.passed_outward(bytes - self.outbox.payload_left(), record);
        Poll::Ready(Ok(()))
    }

    /// Counts payload that the WebSocket has taken.
    fn passed_outward(&mut self, bytes: usize, record: &mut Record) {
        if bytes > 0 {
            self.last = clock::now();
        }
        match self.ends.role {
            Role::Client => record.add_bytes(bytes as u64, 0),
            Role::Server => record.add_bytes(0, bytes as u64),
        }
    }

    /// Counts payload that TCP has taken.
    fn passed_inward(&mut self, bytes: usize, record: &mut Record) {
        self.last = clock::now();
        match self.ends.role {
            Role::Server => record.add_bytes(bytes as u64, 0),
            Role::Client => record.add_bytes(0, bytes as u64),
        }
    }

    fn tcp_ended(&mut self) -> Moved {
        match self.cut {
            // It has not got all that the WebSocket said. Its end is none that a Close could have told of yet.
            Some(outcome) => Poll::Ready(Err(cut_by_tcp(outcome))),
            None => {
                self.tcp = State::Closed;
                self.outbox.close(CloseCode::NORMAL, "");
                Poll::Ready(Ok(()))
            }
        }
    }

    fn tcp_failed(&mut self, error: &io::Error) -> Moved {
        tracing::debug!(%error, "the tcp side of a bridge failed");
        Poll::Ready(Err(cut_by_tcp(self.cut.unwrap_or(self.tcp_broke(error)))))
    }

    /// The WebSocket takes no more; what it said before that is still to be read.
    fn ws_is_deaf(&mut self, error: &io::Error) -> Moved {
        tracing::debug!(%error, "the websocket of a bridge takes no more");
        self.outbox.clear();
        self.tcp = State::Closed;
        let broke = self.ws_broke(error);
        self.cut.get_or_insert(broke);
        Poll::Ready(Ok(()))
    }

    /// TCP takes no more; what it said before that is still to be sent.
    fn tcp_is_deaf(&mut self, error: &io::Error) -> Moved {
        tracing::debug!(%error, "the tcp side of a bridge takes no more");
        self.kept = Default::default();
        self.ws = State::Closed;
        let broke = self.tcp_broke(error);
        let outcome = *self.cut.get_or_insert(broke);
        if self.tcp == State::Open {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(cut_by_tcp(outcome)))
    }

    /// From the WebSocket to TCP: what was kept first, then what there is.
    pub(super) fn poll_inward(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Moved {
        if !self.kept.0.is_empty() {
            return self.poll_kept(cx, record);
        }
        if self.ws == State::Ending {
            let ended = ready!(self.ends.tcp.poll_shutdown_write(cx));
            self.ws = State::Closed;
            return match ended {
                Ok(()) => Poll::Ready(Ok(())),
                Err(error) => self.tcp_is_deaf(&error),
            };
        }
        let room = match ready!(poll_room(&mut self.from_ws, cx, self.ends.ws)) {
            Ok(room) => room,
            Err(error) => return self.ws_failed(&error),
        };
        let buffer = |buffer: &mut Box<[u8]>| {
            let read = self.ends.ws.poll_read(cx, &mut buffer[..room]);
            used(&mut self.from_ws, &read);
            match ready!(read) {
                Ok(0) => self.ws_left(),
                // After its Close whatever comes is discarded. It is read for the end of it.
                Ok(_) if self.ws == State::Closed => Poll::Ready(Ok(())),
                Ok(n) => {
                    self.heard = clock::now();
                    self.unframe(cx, &mut buffer[..n], record)
                }
                Err(error) => self.ws_failed(&error),
            }
        };
        BUFFER.with_borrow_mut(buffer)
    }

    fn poll_kept(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Moved {
        let (bytes, written) = &mut self.kept;
        let n = match ready!(self.ends.tcp.poll_write(cx, &bytes[*written..])) {
            Ok(n) => n,
            Err(error) => return self.tcp_is_deaf(&error),
        };
        *written += n;
        if *written == bytes.len() {
            self.kept = Default::default();
        }
        self.passed_inward(n, record);
        Poll::Ready(Ok(()))
    }

    /// Passes on the payload of a piece that was read, and heeds how it ended.
    fn unframe(&mut self, cx: &mut Context<'_>, piece: &mut [u8], record: &mut Record) -> Moved {
        let (payload, last) = self.decode(piece);
        let payload = &piece[payload];
        if !payload.is_empty() {
            let written = match self.ends.tcp.poll_write(cx, payload) {
                Poll::Pending => 0,
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return self.tcp_is_deaf(&error),
            };
            self.kept = (payload[written..].into(), 0);
            self.passed_inward(written, record);
        }
        match last {
            Last::More => {}
            Last::Close(code) if self.is_orderly(code) => self.ws = State::Ending,
            Last::Close(code) => {
                let code = code.unwrap_or(CloseCode::NORMAL);
                tracing::debug!(%code, "the websocket of a bridge is closed");
                let outcome = self.blame_ws(Outcome::ClientWsClose, Outcome::PeerWsClose);
                return Poll::Ready(Err(Verdict::Cut(outcome, Some((code, "")))));
            }
            Last::Broken(violation) => {
                tracing::debug!(%violation, "the websocket of a bridge is broken");
                let outcome = self.blame_ws(Outcome::ClientWsViolation, Outcome::PeerWsViolation);
                return Poll::Ready(Err(Verdict::Cut(outcome, Some((violation.code(), violation.as_str())))));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a Close says that all was said. A server that goes away may have had more to say.
    fn is_orderly(&self, code: Option<CloseCode>) -> bool {
        let leaves = self.ends.role == Role::Client && code == Some(CloseCode::GOING_AWAY);
        code.is_none_or(CloseCode::is_orderly) && !leaves
    }

    /// Takes frames apart: moves their payloads together and says where they are. Pings are answered on the way.
    fn decode(&mut self, piece: &mut [u8]) -> (Range<usize>, Last) {
        let mut payload = 0..0;
        let mut at = 0;
        loop {
            let step = match self.decoder.decode(&mut piece[at..]) {
                Ok(step) => step,
                Err(violation) => return (payload, Last::Broken(violation)),
            };
            at += step.used;
            match step.event {
                Event::NeedMore => return (payload, Last::More),
                Event::Payload(bytes) => {
                    let part = at - bytes.len()..at;
                    if payload.is_empty() {
                        payload = part;
                    } else {
                        let end = payload.end + part.len();
                        piece.copy_within(part, payload.end);
                        payload.end = end;
                    }
                }
                // After our own Close nothing may follow.
                Event::Ping(body) if self.tcp == State::Open => self.outbox.pong(body),
                Event::Close(close) => return (payload, Last::Close(close.code)),
                Event::Ping(_) | Event::Pong(_) | Event::Frame { .. } | Event::MessageEnd => {}
            }
        }
    }

    fn ws_failed(&mut self, error: &io::Error) -> Moved {
        tracing::debug!(%error, "the websocket of a bridge failed");
        // After its Close it may go as it likes.
        if self.ws == State::Closed {
            return self.ws_left();
        }
        Poll::Ready(Err(Verdict::Cut(self.cut.unwrap_or(self.ws_broke(error)), None)))
    }

    /// The WebSocket's connection has ended, with a Close or without.
    fn ws_left(&mut self) -> Moved {
        let answered = self.ws == State::Closed && self.outbox.is_empty();
        // Some take our Close as reason enough to close without one of their own. Between two messages nothing is lost.
        let mute = self.ws == State::Open && self.tcp == State::Closed && !self.decoder.is_within();
        match self.cut {
            Some(outcome) => Poll::Ready(Err(Verdict::Cut(outcome, None))),
            None if answered => Poll::Ready(Err(Verdict::Done)),
            None if mute && self.outbox.is_empty() => {
                self.ws = State::Ending;
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Err(Verdict::Cut(self.ws_reset(), None))),
        }
    }
}

fn cut_by_tcp(outcome: Outcome) -> Verdict {
    Verdict::Cut(outcome, Some((CloseCode::INTERNAL_ERROR, "reset")))
}

/// How much may be read.
fn poll_room(brake: &mut Option<Box<Brake>>, cx: &mut Context<'_>, from: &Stream) -> Poll<io::Result<usize>> {
    match brake {
        None => Poll::Ready(Ok(SCRATCH)),
        Some(brake) => brake.poll_allowance(cx, from).map_ok(|most| most.min(SCRATCH)),
    }
}

fn used(brake: &mut Option<Box<Brake>>, read: &Poll<io::Result<usize>>) {
    if let Some(brake) = brake {
        let bytes = if let Poll::Ready(Ok(bytes)) = read { *bytes } else { 0 };
        brake.used(bytes);
    }
}
