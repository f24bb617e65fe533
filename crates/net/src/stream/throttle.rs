//! A stream that keeps to the rates of a gate by itself, for who can't brake those that read and write it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::{Stream, Transport};
use crate::limit::{Direction, Gate};
use crate::relay::Brake;

/// Has a stream to a peer keep to a gate's rates: what is written to it goes up, what is read from it comes down. Where the gate
/// has no rate it is the stream as it was, and stays free of any that the gate gets later; one that it has may change, or be
/// taken away.
///
/// Bytes wait for their time before they are taken from either side, so that the waiting is passed on and costs no memory.
pub fn throttle(stream: Stream, gate: &Arc<Gate>) -> Stream {
    let [up, down] = [Direction::Up, Direction::Down].map(|direction| Brake::new(None, gate, direction));
    if up.is_none() && down.is_none() {
        return stream;
    }
    Stream::over(Box::new(Throttled { stream: Arc::new(stream), up, down, begun: 0, failing: None }))
}

struct Throttled {
    stream: Arc<Stream>,
    up: Option<Box<Brake>>,
    down: Option<Box<Brake>>,
    /// How much the stream was offered that it has not taken yet: never less may come next.
    begun: usize,
    /// Sees a failure while nobody reads; made when that is first asked.
    failing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Transport for Throttled {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(brake) = &mut self.down else { return self.stream.poll_read(cx, buffer) };
        let most = ready!(brake.poll_allowance(cx, &self.stream))?.min(buffer.len());
        let read = self.stream.poll_read(cx, &mut buffer[..most]);
        // What is not read is for others.
        brake.used(match &read {
            Poll::Ready(Ok(n)) => *n,
            _ => 0,
        });
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(brake) = &mut self.up else { return self.stream.poll_write(cx, data) };
        // A piece is kept until there is room for it: pieces are small, and the stream may have begun with this one.
        let most = ready!(brake.poll_piece(cx)).max(self.begun).min(data.len());
        let written = self.stream.poll_write(cx, &data[..most]);
        self.begun = if written.is_pending() { most } else { 0 };
        if let Poll::Ready(written) = &written {
            brake.used(*written.as_ref().unwrap_or(&0));
        }
        written
    }

    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown_write(cx)
    }

    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        let stream = &self.stream;
        let failing = self.failing.get_or_insert_with(|| {
            let stream = Arc::clone(stream);
            Box::pin(async move { stream.failed().await })
        });
        failing.as_mut().poll(cx).is_ready()
    }

    fn reset_on_drop(&mut self) {
        self.stream.reset_on_close();
    }
}

impl fmt::Debug for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttled").field("stream", &self.stream).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
