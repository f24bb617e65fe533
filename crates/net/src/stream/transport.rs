//! What a stream may lie upon in place of a socket of its own: one of many that share a connection, say.
//!
//! TLS inside TLS needs none of this: a further handshake on a stream lays a further session upon the one below.

use std::fmt;
use std::io;
use std::task::{Context, Poll};

/// Carries the bytes of a stream both ways. All of it happens on the worker that the stream belongs to, and in one task at a
/// time: the last that called is woken.
pub trait Transport: fmt::Debug + Send {
    /// Reads what is there; 0 is the end in good order, and is said as often as it is asked.
    ///
    /// # Errors
    /// It broke off: what came may not be all.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes as much as is taken, at least one byte. It must not take without limit what the other side does not read. While
    /// it is pending it may have begun with the data: the next call comes with the same, or with more behind it.
    ///
    /// # Errors
    /// The other side takes nothing any more.
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;

    /// Says that nothing more will be written, behind what was. It is asked again while it is pending.
    ///
    /// # Errors
    /// It is gone already.
    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether it has certainly failed. If not, the task is woken when it does, were it that nobody reads meanwhile; it may be
    /// woken by anything else that comes.
    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool;

    /// Has the other side learn, when this is dropped, that what it got is not the whole. Without that a drop is an end in good
    /// order, of both directions.
    fn reset_on_drop(&mut self);
}
