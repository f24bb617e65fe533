//! A stream as the `h2` crate wants to read and write it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wmproxy_net::MARGIN;
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock;
use wmproxy_wire::http2::FrameMeter;

/// The largest frame of ours with its head, and a bit.
const SCRATCH: usize = 33 * 1024;

thread_local! {
    /// Where bytes pass through, so that a buffer need not be zeroed for each read, and what lies in several places goes
    /// out in one call and one TLS record.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; MARGIN + SCRATCH].into_boxed_slice());
}

/// How a flood is told through the library, which keeps no more of an error than its kind and its text. No socket fails like
/// this.
pub(super) const FLOOD: io::ErrorKind = io::ErrorKind::QuotaExceeded;

/// A connection's stream, and the meter of what comes from it.
#[derive(Debug)]
pub(super) struct Io {
    stream: Stream,
    /// Where the other end is a stranger.
    meter: Option<FrameMeter>,
    /// How many bytes have come, for who wants to know whether there is anybody.
    heard: Option<Arc<AtomicU64>>,
}

impl Io {
    pub(super) fn new(stream: Stream, meter: Option<FrameMeter>) -> Io {
        Io { stream, meter, heard: None }
    }

    /// One that counts what comes.
    pub(super) fn counting(stream: Stream, heard: Arc<AtomicU64>) -> Io {
        Io { stream, meter: None, heard: Some(heard) }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Io { stream, meter, heard } = self.get_mut();
        BUFFER.with_borrow_mut(|buffer| {
            let buffer = &mut buffer[MARGIN..];
            let most = buffer.len().min(into.remaining());
            let n = ready!(stream.poll_read(cx, &mut buffer[..most]))?;
            if let Some(meter) = meter {
                meter.feed(&buffer[..n], clock::now().0).map_err(|flood| io::Error::new(FLOOD, flood))?;
            }
            if let Some(heard) = heard {
                heard.fetch_add(n as u64, Ordering::Relaxed);
            }
            into.put_slice(&buffer[..n]);
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Io { stream, meter, .. } = self.get_mut();
        let written = ready!(stream.poll_write(cx, data))?;
        if let Some(meter) = meter {
            meter.sent(written);
        }
        Poll::Ready(Ok(written))
    }

    /// A frame's head and its payload lie in two places. Copying them together costs less than a second call, and less
    /// than a second TLS record; a payload that is large enough goes by itself.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = parts.iter().filter(|part| !part.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next()) {
            return self.poll_write(cx, only);
        }
        BUFFER.with_borrow_mut(|buffer| {
            let buffer = &mut buffer[MARGIN..];
            let mut len = 0;
            for part in parts {
                let n = part.len().min(buffer.len() - len);
                buffer[len..][..n].copy_from_slice(&part[..n]);
                len += n;
            }
            self.poll_write(cx, &buffer[..len])
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept here.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown_write(cx)
    }
}
