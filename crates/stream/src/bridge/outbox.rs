//! What the WebSocket did not take yet: the rest of a frame, and control frames behind it.

use std::io;
use std::task::{Context, Poll};

use wmproxy_net::stream::Stream;
use wmproxy_runtime::entropy;
use wmproxy_wire::websocket::{CloseCode, OpCode, Role, close_frame, control_frame};

/// How many bytes of pongs wait at most behind other bytes. Above that only the newest ping is answered, as RFC 6455
/// section 5.5.3 allows: who pings faster than it reads must not fill our memory.
const PONGS_MAX: usize = 2048;

/// A queue of bytes. Frames of data are put in only when it is empty, so that it never grows.
#[derive(Debug)]
pub(super) struct Outbox {
    role: Role,
    /// What is queued stays as it is until it is written, for a stream may have begun with it.
    bytes: Vec<u8>,
    written: usize,
    /// How many of the bytes before `frame_end` are payload: the last ones.
    payload: usize,
    /// Where the rest of a frame with payload ends, which is what it begins with.
    frame_end: usize,
    /// How many bytes of pongs are in it.
    pongs: usize,
    /// The pong that comes when the rest is written; the newer takes the place of the older.
    last_pong: Vec<u8>,
}

impl Outbox {
    /// Of who plays `role`, with `bytes` to write first.
    pub(super) fn new(role: Role, bytes: Vec<u8>) -> Outbox {
        Outbox { role, bytes, written: 0, payload: 0, frame_end: 0, pongs: 0, last_pong: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes of payload are still to be written.
    pub(super) fn payload_left(&self) -> usize {
        self.frame_end.saturating_sub(self.written).min(self.payload)
    }

    /// Forgets what is in it, with the memory: an idle connection holds no buffer.
    pub(super) fn clear(&mut self) {
        *self = Outbox::new(self.role, Vec::new());
    }

    /// Writes what it holds, as much as the stream takes.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.bytes.len() {
                match to.poll_write(cx, &self.bytes[self.written..]) {
                    Poll::Ready(n) => self.written += n?,
                    Poll::Pending => {
                        self.compact();
                        return Poll::Pending;
                    }
                }
            }
            *self = Outbox::new(self.role, std::mem::take(&mut self.last_pong));
            if self.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Lets go of what is written: behind a slow reader the queue may never be empty. Not for a few bytes, or a large
    /// frame would be moved again and again.
    fn compact(&mut self) {
        if self.written * 2 > self.bytes.len() {
            self.bytes.drain(..self.written);
            self.payload = self.payload_left();
            self.frame_end = self.frame_end.saturating_sub(self.written);
            self.written = 0;
        }
    }

    /// Takes the rest of a frame that was written in part; so many bytes at its end are its payload.
    pub(super) fn keep(&mut self, rest: &[u8], payload: usize) {
        self.bytes.extend_from_slice(rest);
        self.frame_end = self.bytes.len();
        self.payload = payload;
    }

    /// A key for the next frame, if this side masks them (section 5.3).
    pub(super) fn mask(&self) -> Option<[u8; 4]> {
        (self.role == Role::Client).then(|| {
            let mut key = [0; 4];
            entropy::fill(&mut key);
            key
        })
    }

    pub(super) fn ping(&mut self) {
        let mask = self.mask();
        control_frame(&mut self.bytes, OpCode::Ping, &[], mask);
    }

    /// Answers a ping.
    pub(super) fn pong(&mut self, body: &[u8]) {
        let mask = self.mask();
        if self.pongs >= PONGS_MAX {
            self.last_pong.clear();
            return control_frame(&mut self.last_pong, OpCode::Pong, body, mask);
        }
        let before = self.bytes.len();
        control_frame(&mut self.bytes, OpCode::Pong, body, mask);
        self.pongs += self.bytes.len() - before;
    }

    /// Ends this side; nothing may follow.
    pub(super) fn close(&mut self, code: CloseCode, reason: &str) {
        let mask = self.mask();
        self.last_pong = Vec::new();
        close_frame(&mut self.bytes, code, reason, mask);
    }

    /// What it holds, for tests of what is sent.
    #[cfg(test)]
    fn take(&mut self) -> Vec<u8> {
        [std::mem::take(&mut self.bytes), std::mem::take(&mut self.last_pong)].concat()
    }
}

#[cfg(test)]
mod tests {
    use wmproxy_wire::websocket::{Decoder, Event, Limits, Step};

    use super::*;

    #[test]
    fn a_flood_of_pings_gets_the_first_pongs_and_the_last() {
        let mut outbox = Outbox::new(Role::Server, Vec::new());
        for i in 0..10_000_u32 {
            outbox.pong(&i.to_be_bytes());
        }
        let mut bytes = outbox.take();
        assert!(bytes.len() < PONGS_MAX + 32, "{}", bytes.len());
        let mut decoder = Decoder::new(Role::Server, Limits::default());
        let (mut rest, mut seen) = (&mut bytes[..], Vec::new());
        loop {
            let Step { used, event } = decoder.decode(rest).unwrap();
            match event {
                Event::Pong(body) => seen.push(u32::from_be_bytes(body.try_into().unwrap())),
                Event::NeedMore => break,
                other => panic!("{other:?}"),
            }
            rest = &mut rest[used..];
        }
        let (last, first) = seen.split_last().unwrap();
        assert!(first.iter().copied().eq(0..first.len() as u32));
        assert_eq!(*last, 9_999);
    }
}
