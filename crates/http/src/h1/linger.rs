//! How a connection is closed of which not everything was read.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use wmproxy_net::stream::Stream;
use wmproxy_wire::head::Fields;

use super::Wire;
use crate::scratch::{ROOM, Scratch};
use crate::timer::{Timer, after};

/// A request's rest of so many bytes is read for the sake of the connection: it is in the kernel's buffers already, or close.
const WORTH: u64 = ROOM as u64;

/// How long a client may take to hear that nobody listens any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// So much is read from it meanwhile. A client that does not stop until it has sent everything has not read the response, and
/// won't.
const MOST: usize = 16 * 1024 * 1024;

/// Reads the rest of a request and throws it away. False if that is too much.
pub(super) async fn drain(stream: &Stream, timer: &mut Timer<'_>, front: &mut Wire) -> bool {
    if front.left().is_none_or(|left| left > WORTH) {
        return false;
    }
    let due = after(PATIENCE);
    let mut trailers = Fields::new();
    poll_fn(|cx| {
        let mut scratch = Scratch::take();
        loop {
            match front.poll_piece(cx, stream, &mut scratch, ROOM, &mut trailers) {
                Poll::Ready(Ok(piece)) if piece.is_last => return Poll::Ready(true),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => return timer.poll_until(cx, due).map(|()| false),
            }
        }
    })
    .await
}

/// Ends our half, and reads what still comes until the client has ended its own: to close at once would reset the
/// connection, and take the response from a client that has not read it yet (RFC 9112 section 9.6).
pub(super) async fn linger(stream: &Stream, timer: &mut Timer<'_>) {
    let due = after(PATIENCE);
    let mut is_said = false;
    let mut read = 0;
    poll_fn(|cx| {
        if !is_said {
            match stream.poll_shutdown_write(cx) {
                Poll::Ready(Ok(())) => is_said = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return timer.poll_until(cx, due),
            }
        }
        let mut scratch = Scratch::take();
        loop {
            match stream.poll_read(cx, scratch.room()) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(n)) => read += n,
                Poll::Pending => return timer.poll_until(cx, due),
            }
            if read > MOST {
                return Poll::Ready(());
            }
        }
    })
    .await;
}

/// Ends our half where that takes more than a close.
pub(super) async fn say_goodbye(stream: &Stream, timer: &mut Timer<'_>) {
    let due = after(PATIENCE);
    poll_fn(|cx| match stream.poll_shutdown_write(cx) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => timer.poll_until(cx, due),
    })
    .await;
}
