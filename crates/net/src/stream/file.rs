//! Files that the kernel sends by itself.

use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};

use socket2::SockRef;

use super::Stream;

impl Stream {
    /// Has the kernel send bytes of a file, from `offset` on and `most` at the most, without a copy of ours. Only for a stream
    /// that [can splice](Stream::can_splice). Zero is the end of the file.
    ///
    /// Bytes of the file that are not in memory are waited for. Those that are sent lie in the socket's queue as pages of the
    /// file: whoever writes to the file meanwhile changes what the other side gets; see [`Stream::limit_unsent`].
    ///
    /// # Errors
    /// As sendfile(2) says: EINVAL and ENOSYS where the file is none that can be sent in this way.
    #[inline]
    pub fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        // It knows no MSG_NOSIGNAL; the program ignores SIGPIPE, as every program in Rust does.
        let send = |socket: BorrowedFd<'_>| {
            let mut from = offset;
            rustix::fs::sendfile(socket, file, Some(&mut from), most)
        };
        // That less went than was asked for need not mean that there is no more room: the file may have become shorter.
        self.poll_writing(cx, send, |_| false)
    }

    /// Lets no more than about so many bytes lie unsent in the socket's queue: with more there is no room for what is written
    /// next. Without a number the system decides, as it does at first. A unix
    /// socket has no such limit.
    pub fn limit_unsent(&self, bytes: Option<u32>) {
        if self.inet
            && let Ok(fd) = self.base.socket()
        {
            // Fails only on a socket that is no socket.
            let _ = SockRef::from(fd).set_tcp_notsent_lowat(bytes.unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::future::poll_fn;
    use std::io::{Read, Seek, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        (Stream::new(OwnedFd::from(server), true).unwrap(), client)
    }

    fn file(len: usize) -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let mut file = File::from(memfd_create("file", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(&bytes).unwrap();
        // Where a file stands says nothing: several requests send the same one.
        file.rewind().unwrap();
        (file, bytes)
    }

    #[tokio::test]
    async fn a_part_of_a_file_is_sent_and_waits_for_room() {
        let (stream, mut client) = pair();
        let (file, bytes) = file(8 << 20);
        stream.limit_unsent(Some(128 << 10));
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            got
        });
        let (start, end) = (1000, bytes.len() - 1000);
        let mut at = start;
        while at < end {
            let n = poll_fn(|cx| stream.poll_send_file(cx, file.as_fd(), at as u64, end - at)).await.unwrap();
            assert!(n > 0);
            at += n;
        }
        assert_eq!(at, end);
        drop(stream);
        assert!(reader.join().unwrap() == bytes[start..end]);
    }

    #[tokio::test]
    async fn behind_the_end_of_a_file_is_nothing() {
        let (stream, _client) = pair();
        let (file, _) = file(10);
        let n = poll_fn(|cx| stream.poll_send_file(cx, file.as_fd(), 4, 100)).await.unwrap();
        assert_eq!(n, 6);
        let n = poll_fn(|cx| stream.poll_send_file(cx, file.as_fd(), 10, 100)).await.unwrap();
        assert_eq!(n, 0);
    }
}
