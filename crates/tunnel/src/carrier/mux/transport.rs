//! One stream of yamux, as what a [`Stream`] lies upon.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use wmproxy_net::stream::{Stream, Transport};

use super::Shared;

/// A stream's hold on its connection.
pub(super) struct Lane {
    shared: Arc<Shared>,
    id: u32,
    resets: bool,
}

impl Lane {
    pub(super) fn stream(shared: Arc<Shared>, id: u32) -> Stream {
        Stream::over(Box::new(Lane { shared, id, resets: false }))
    }
}

impl Transport for Lane {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.shared.with(|core| core.read(self.id, cx, buffer))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.with(|core| core.write(self.id, cx, data))
    }

    fn poll_shutdown_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.with(|core| core.finish(self.id)))
    }

    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        self.shared.lock().is_reset(self.id, cx)
    }

    fn reset_on_drop(&mut self) {
        self.resets = true;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.with(|core| core.release(self.id, self.resets));
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lane").field(&self.id).finish()
    }
}
