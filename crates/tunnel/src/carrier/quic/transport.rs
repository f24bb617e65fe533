//! One bidirectional stream of QUIC, as what a [`Stream`] lies upon.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::{ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use wmproxy_net::stream::{Stream, Transport};

use super::windows::{Reading, Windows};

/// The code of STOP_SENDING where this side is done, and would not read what may still come.
const DONE: VarInt = VarInt::from_u32(0);

/// The code of RESET_STREAM and STOP_SENDING where it is broken off.
pub(super) const CUT: VarInt = VarInt::from_u32(1);

/// FIN is the end, and RESET_STREAM the reset; a STOP_SENDING tells by its code which of both it goes with.
pub(super) struct Bidirectional {
    send: SendStream,
    receive: Arc<Reading>,
    /// Whether a reset was found when nobody read, which quinn says only once.
    is_broken: bool,
    watch: Watch,
    resets: bool,
}

/// What the other side wants of what is sent.
enum Watch {
    /// Nobody has asked.
    Unasked,
    /// All so far.
    Wanted(Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send>>),
    /// It has all, or wants no more of it.
    Over {
        /// It has broken off.
        is_cut: bool,
    },
}

impl Bidirectional {
    /// A stream of a connection, whose windows have to know of it.
    pub(super) fn stream(send: SendStream, receive: RecvStream, windows: Option<&Windows>) -> Stream {
        let (receive, watch) = (Reading::new(receive), Watch::Unasked);
        if let Some(windows) = windows {
            windows.add(&receive);
        }
        Stream::over(Box::new(Bidirectional { send, receive, is_broken: false, watch, resets: false }))
    }

    /// Whether the other side has broken off what it sends, or the connection is lost.
    fn is_broken_off(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_broken || self.receive.is_cut() {
            return true;
        }
        match pin!(self.receive.stream().received_reset()).poll(cx) {
            Poll::Ready(Ok(Some(_))) => {
                self.is_broken = true;
                true
            }
            // What came before the connection was lost can still be read.
            Poll::Ready(Err(_)) => true,
            Poll::Ready(Ok(None)) | Poll::Pending => false,
        }
    }

    /// Whether the other side has broken off what it was sent.
    fn is_cut_off(&mut self, cx: &mut Context<'_>) -> bool {
        if let Watch::Unasked = self.watch {
            self.watch = Watch::Wanted(Box::pin(self.send.stopped()));
        }
        if let Watch::Wanted(stopped) = &mut self.watch
            && let Poll::Ready(outcome) = stopped.as_mut().poll(cx)
        {
            self.watch = Watch::Over { is_cut: !matches!(outcome, Ok(None | Some(DONE))) };
        }
        matches!(self.watch, Watch::Over { is_cut: true })
    }
}

impl Transport for Bidirectional {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.is_broken || self.receive.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let read = self.receive.stream().poll_read(cx, buffer);
        self.receive.note(matches!(read, Poll::Ready(Ok(n)) if n > 0));
        read.map_err(|error| match error {
            ReadError::Reset(_) => {
                self.is_broken = true;
                io::ErrorKind::ConnectionReset.into()
            }
            ReadError::ConnectionLost(_) => io::Error::new(io::ErrorKind::ConnectionReset, error),
            error => error.into(),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, data).map_err(|error| match error {
            WriteError::Stopped(DONE) | WriteError::ClosedStream => io::ErrorKind::BrokenPipe.into(),
            WriteError::Stopped(_) => io::ErrorKind::ConnectionReset.into(),
            error => io::Error::new(io::ErrorKind::ConnectionReset, error),
        })
    }

    fn poll_shutdown_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.finish().map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        // Both are asked, for both have to wake.
        let (is_broken_off, is_cut_off) = (self.is_broken_off(cx), self.is_cut_off(cx));
        is_broken_off || is_cut_off
    }

    fn reset_on_drop(&mut self) {
        self.resets = true;
    }
}

impl Drop for Bidirectional {
    fn drop(&mut self) {
        if self.resets {
            // What is over already needs no reset.
            let _ = self.send.reset(CUT);
            let _ = self.receive.stream().stop(CUT);
        }
        // Without that both halves end in good order, each by its own drop.
    }
}

impl fmt::Debug for Bidirectional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bidirectional").field(&self.send.id()).finish()
    }
}
