//! A known number of bytes on their way from one stream to another: what a relay does for a whole direction, for one
//! message of it.

use std::io;
use std::task::{Context, Poll, ready};

use super::Splice;
use super::lane::{Broken, Lane, Moved, ROUNDS, TURN};
use crate::stream::Stream;

/// Moves a known number of bytes, in bulk, and reads nothing beyond them. It holds memory or a pipe only while the
/// destination takes less than the source gives.
#[derive(Debug)]
pub struct Carry {
    lane: Lane,
    /// So many are still to be read.
    left: u64,
}

/// Why not all bytes were moved.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// The source failed.
    #[error(transparent)]
    Source(io::Error),
    /// The source ended before the last byte.
    #[error("the source ended before the last byte")]
    Cut,
    /// The destination failed.
    #[error(transparent)]
    Destination(io::Error),
}

impl Carry {
    /// For so many bytes, which go through a pipe if `splice` allows it and both streams are plain sockets.
    pub fn new(bytes: u64, splice: Splice) -> Carry {
        Carry { lane: Lane::bulk(splice), left: bytes }
    }

    /// So many bytes were not read yet.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether the destination is waited for, and not the source.
    pub fn waits_for_room(&self) -> bool {
        self.lane.has_kept()
    }

    /// Moves what can be moved now. Ready when the destination has taken the last byte; beside it what moved.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
    ) -> (Poll<Result<(), CarryError>>, Moved) {
        let mut moved = Moved::default();
        for _ in 0..ROUNDS {
            if moved.bytes >= TURN {
                break;
            }
            match self.step(cx, from, to, &mut moved) {
                Poll::Ready(Ok(())) if self.left == 0 && !self.lane.has_kept() => {
                    return (Poll::Ready(Ok(())), moved);
                }
                Poll::Ready(Ok(())) => {}
                done => return (done, moved),
            }
        }
        cx.waker().wake_by_ref();
        (Poll::Pending, moved)
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        moved: &mut Moved,
    ) -> Poll<Result<(), CarryError>> {
        let failed = |(at, error)| match at {
            Broken::Source => CarryError::Source(error),
            Broken::Destination => CarryError::Destination(error),
        };
        if self.lane.has_kept() {
            return self.lane.write_kept(cx, to, moved).map_err(failed);
        }
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        match ready!(self.lane.move_once(cx, from, to, most, moved)).map_err(failed)? {
            0 => Poll::Ready(Err(CarryError::Cut)),
            n => {
                self.left -= n as u64;
                Poll::Ready(Ok(()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        (far, Stream::new(near.into(), true).unwrap())
    }

    async fn carry(carry: &mut Carry, from: &Stream, to: &Stream) -> (Result<(), CarryError>, Moved) {
        let mut all = Moved::default();
        let done = poll_fn(|cx| {
            let (done, moved) = carry.poll(cx, from, to);
            all.bytes += moved.bytes;
            all.spliced += moved.spliced;
            done
        })
        .await;
        (done, all)
    }

    #[tokio::test]
    async fn so_many_bytes_and_no_more_are_moved() {
        const LEN: usize = 3_000_000;
        for splice in [Splice::Auto, Splice::Off] {
            let ((mut source, from), (mut sink, to)) = (pair(), pair());
            let sent: Vec<u8> = (0..LEN + 7).map(|i| (i % 251) as u8).collect();
            let expected = sent[..LEN].to_vec();
            let writer = std::thread::spawn(move || {
                source.write_all(&sent).unwrap();
                source
            });
            let reader = std::thread::spawn(move || {
                let mut got = vec![0; LEN];
                sink.read_exact(&mut got).unwrap();
                got
            });
            let mut all = Carry::new(LEN as u64, splice);
            let (done, moved) = carry(&mut all, &from, &to).await;
            done.unwrap();
            assert_eq!(moved.bytes, LEN as u64);
            assert_eq!(moved.spliced > 0, splice == Splice::Auto);
            assert_eq!(reader.join().unwrap(), expected);
            let _source = writer.join().unwrap();
            let mut rest = [0; 16];
            let n = poll_fn(|cx| from.poll_read(cx, &mut rest)).await.unwrap();
            assert_eq!(n, 7, "what is behind stays");
        }
    }

    #[tokio::test]
    async fn an_end_in_the_middle_is_none() {
        let ((mut source, from), (_sink, to)) = (pair(), pair());
        source.write_all(b"some").unwrap();
        drop(source);
        let (done, moved) = carry(&mut Carry::new(5, Splice::Auto), &from, &to).await;
        assert!(matches!(done, Err(CarryError::Cut)));
        assert_eq!(moved.bytes, 4);
    }
}
