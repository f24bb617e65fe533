//! A stream that nobody reads or writes: whether it is still silent, and how it moves to another worker.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Waker};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::Interest;

use super::base::Base;
use super::{Layer, Stream};
use crate::sys;

/// A stream that belongs to no worker: its socket, and what stood between that and its reader. It is not watched.
#[derive(Debug)]
pub struct Parts {
    fd: OwnedFd,
    inet: bool,
    layer: Option<Box<Layer>>,
}

impl Stream {
    /// Whether nothing has come that was not read: no byte, no end, no error. Asks the worker's event queue, and the
    /// kernel only if that says that something came; what it has not been told yet is not known here. What a TLS session
    /// needs to know, such as a ticket, is taken in and counts as nothing.
    ///
    /// For a stream on which nothing may come. One that is not quiet is of no more use: a byte of it may be gone.
    pub fn is_quiet(&self) -> bool {
        self.poll_read(&mut Context::from_waker(Waker::noop()), &mut [0; 1]).is_pending()
    }

    /// Takes it out of its worker's event queue, to be put together again on any worker. A stream without a socket of its own
    /// belongs to its worker for good: it is dropped.
    pub fn dismantle(self) -> Option<Parts> {
        let Stream { base, inet, layer, .. } = self;
        let Base::Socket(fd) = base else { return None };
        let layer = layer.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some(Parts { fd: fd.into_inner(), inet, layer })
    }
}

impl Parts {
    /// Whether nothing has come meanwhile, in one call of the kernel. A TLS session's own messages count as something.
    pub fn is_quiet(&self) -> bool {
        loop {
            match rustix::net::recv(&self.fd, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                found => return found.is_err_and(|error| error == Errno::AGAIN),
            }
        }
    }

    /// Makes it a stream of the calling worker.
    ///
    /// # Errors
    /// The worker's event queue takes no more.
    pub fn assemble(self) -> io::Result<Stream> {
        let Parts { fd, inet, layer } = self;
        let all = Interest::READABLE | Interest::WRITABLE | Interest::ERROR | Interest::PRIORITY;
        let base = Base::Socket(sys::watch(fd, all)?);
        let layered = layer.as_ref().is_some_and(|layer| !layer.is_idle());
        Ok(Stream { base, inet, layered: AtomicBool::new(layered), layer: Mutex::new(layer) })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        (Stream::new(OwnedFd::from(server), true).unwrap(), client)
    }

    /// Waits until the event queue has told what came.
    async fn told(stream: &Stream) {
        poll_fn(|cx| stream.poll_readable(cx)).await.unwrap();
    }

    #[tokio::test]
    async fn silence_is_told_from_bytes_and_from_an_end() {
        let (stream, mut client) = pair();
        assert!(stream.is_quiet());
        client.write_all(b"x").unwrap();
        told(&stream).await;
        assert!(!stream.is_quiet());
        let (stream, client) = pair();
        drop(client);
        told(&stream).await;
        assert!(!stream.is_quiet());
    }

    #[tokio::test]
    async fn a_read_that_filled_its_buffer_leaves_a_quiet_stream() {
        let (stream, mut client) = pair();
        client.write_all(b"four").unwrap();
        let mut buffer = [0; 4];
        assert_eq!(poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await.unwrap(), 4);
        assert!(stream.is_quiet(), "the event queue still says readable, and the kernel does not");
    }

    #[test]
    fn a_stream_moves_to_another_runtime_with_what_was_unread() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (parts, mut client) = runtime().block_on(async {
            let (stream, client) = pair();
            stream.unread(b"kept".to_vec());
            (stream.dismantle().unwrap(), client)
        });
        assert!(parts.is_quiet());
        client.write_all(b" and new").unwrap();
        runtime().block_on(async {
            // The kernel has passed it on when the peek sees it.
            while parts.is_quiet() {
                tokio::task::yield_now().await;
            }
            let stream = parts.assemble().unwrap();
            let mut seen = Vec::new();
            while seen.len() < 12 {
                let mut buffer = [0; 16];
                let n = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await.unwrap();
                seen.extend_from_slice(&buffer[..n]);
            }
            assert_eq!(seen, b"kept and new");
            assert_eq!(poll_fn(|cx| stream.poll_write(cx, b"back")).await.unwrap(), 4);
        });
        let mut back = [0; 4];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"back");
    }
}
