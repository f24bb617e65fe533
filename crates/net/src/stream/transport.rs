//! What a stream may lie upon in place of a socket of its own: another stream, or one of many that share a connection.

use std::fmt;
use std::io;
use std::task::{Context, Poll};

use super::Stream;

/// Carries the bytes of a stream both ways. All of it happens on the worker that the stream belongs to.
pub trait Transport: fmt::Debug + Send {
    /// Reads what is there; 0 is the end in good order.
    ///
    /// # Errors
    /// It broke off: what came may not be all.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes as much as is taken, at least one byte. It must not take without limit what the other side does not read.
    ///
    /// # Errors
    /// The other side takes nothing any more.
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;

    /// Says that nothing more will be written, behind what was.
    ///
    /// # Errors
    /// It is gone already.
    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether it has certainly failed; the task is woken by whatever comes first, if not.
    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool;

    /// Has the other side learn, when this is dropped, that what it got is not the whole.
    fn reset_on_drop(&mut self);
}

impl Transport for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Stream::poll_read(self, cx, buffer)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(self, cx, data)
    }

    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_shutdown_write(self, cx)
    }

    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        Stream::is_reset(self, cx)
    }

    fn reset_on_drop(&mut self) {
        self.reset_on_close();
    }
}
