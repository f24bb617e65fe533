//! What a CONNECT has made of a stream: bytes both ways, as those of a socket.

use std::io;
use std::task::{Context, Poll, ready};

use h2::Reason;
use wmproxy_net::stream::Transport;
use wmproxy_wire::head::Fields;

use super::body::{Incoming, Outgoing};
use super::common::Entered;
use crate::exchange::Broken;

/// The client's end of a tunnel (RFC 9113 section 8.5). Flow control is the back-pressure, END_STREAM the FIN, and RST_STREAM
/// the reset, in both directions.
#[derive(Debug)]
pub(super) struct Tunnel {
    incoming: Incoming,
    outgoing: Outgoing,
    is_cut: bool,
    /// Among the streams of its connection.
    place: Entered,
}

impl Tunnel {
    pub(super) fn new(incoming: Incoming, outgoing: Outgoing, place: Entered) -> Tunnel {
        Tunnel { incoming, outgoing, is_cut: false, place }
    }
}

impl Transport for Tunnel {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.incoming.poll_read(cx, buffer).map_err(failed)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.outgoing.is_over() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let most = ready!(self.outgoing.poll_ready(cx)).map_err(failed)?;
        let n = data.len().min(most);
        self.outgoing.send(&data[..n], false, &Fields::default()).map_err(failed)?;
        Poll::Ready(Ok(n))
    }

    fn poll_shutdown_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It takes its place behind the data, in the library.
        Poll::Ready(self.outgoing.send(&[], true, &Fields::default()).map_err(failed))
    }

    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        self.outgoing.poll_reset(cx).is_ready()
    }

    fn reset_on_drop(&mut self) {
        self.is_cut = true;
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let Tunnel { incoming, outgoing, .. } = self;
        if !self.is_cut && !outgoing.is_over() {
            // Or the library would break it off.
            let _ = outgoing.send(&[], true, &Fields::default());
        }
        if incoming.has_come() && outgoing.is_over() {
            self.place.mark_whole();
        } else if self.is_cut {
            outgoing.reset(Reason::CANCEL);
        }
    }
}

fn failed(broken: Broken) -> io::Error {
    match broken {
        Broken::Failed(error) => error,
        _ => io::ErrorKind::ConnectionReset.into(),
    }
}
