//! Whether the other side is still there, found out without reading.

use std::future::pending;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::Interest;

use super::Stream;

impl Stream {
    /// Waits until the other side is certainly gone: it reset the connection, or ended its half without a byte that
    /// is still unread. Who sent something and then ended may be waiting for the answer, so that only a reset tells.
    pub async fn gone(&self) {
        tokio::select! {
            () = self.failed() => {}
            () = self.ended_in_silence() => {}
        }
    }

    async fn ended_in_silence(&self) {
        let (true, Ok(fd)) = (self.can_splice(), self.base.socket()) else {
            // Something was read already, or only reading would tell.
            return pending().await;
        };
        // An error of the event queue is as good as the end.
        while let Ok(mut ready) = fd.ready(Interest::READABLE).await {
            match rustix::net::recv(fd, &mut [0; 1], RecvFlags::PEEK) {
                Ok((0, _)) => return,
                Ok(_) => return pending().await,
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::*;

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        (Stream::new(OwnedFd::from(server), true).unwrap(), client)
    }

    /// Whether it is seen to be gone, however busy the machine is.
    async fn is_gone(stream: &Stream) -> bool {
        tokio::time::timeout(Duration::from_secs(20), stream.gone()).await.is_ok()
    }

    /// Whether it is not seen to be gone for as long as loopback takes to tell.
    async fn is_there(stream: &Stream) -> bool {
        tokio::time::timeout(Duration::from_millis(50), stream.gone()).await.is_err()
    }

    #[tokio::test]
    async fn who_is_silent_or_waits_for_an_answer_is_there() {
        let (stream, mut client) = pair();
        assert!(is_there(&stream).await);
        client.write_all(b"request").unwrap();
        assert!(is_there(&stream).await);
        client.shutdown(Shutdown::Write).unwrap();
        assert!(is_there(&stream).await, "a half-close is no leave");
        let mut buffer = [0; 16];
        let read = std::future::poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await.unwrap();
        assert_eq!(&buffer[..read], b"request", "nothing was consumed");
    }

    #[tokio::test]
    async fn who_closes_without_a_word_or_resets_is_gone() {
        let (stream, client) = pair();
        drop(client);
        assert!(is_gone(&stream).await);

        let (stream, mut client) = pair();
        client.write_all(b"request").unwrap();
        assert!(is_there(&stream).await);
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert!(is_gone(&stream).await);
    }
}
