//! What carries a session's ciphertext: the stream's base, or another session.

use std::io;
use std::task::{Context, Poll};

use super::session::Session;
use crate::stream::Stream;

/// The session below, if there is one.
pub(super) struct Below(pub(super) Option<Box<Session>>);

impl Below {
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(session) => session.poll_read(cx, stream, buffer),
            None => stream.poll_read_base(cx, buffer),
        }
    }

    #[inline]
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(session) => session.poll_write(cx, stream, data),
            None => stream.poll_write_base(cx, data),
        }
    }

    pub(super) fn poll_shutdown_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(session) => session.poll_shutdown_write(cx, stream),
            None => stream.poll_shutdown_base(cx),
        }
    }

    /// See [`Session::is_readable`].
    pub(super) fn is_readable(&self) -> bool {
        self.0.as_ref().is_some_and(|session| session.is_readable())
    }
}
