//! Pipes, through which the kernel passes bytes from one socket to another without copying them (splice(2)).

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::pressure;
use crate::stream::Stream;

/// What a pipe holds: what an unprivileged user may have (fs.pipe-max-size). Each call of splice(2) that takes bytes from a
/// socket tells its sender of the room, which is the larger part of what it costs, so few large ones are cheapest.
/// Measured with bulk over loopback, CPU a GB against 256 KiB: 0.88 (0.85 to 0.93 in 5 rounds), and the default of 64 KiB
/// takes three times the calls of 256. A pipe takes memory for its list of pages only, 10 KB.
const CAPACITY: usize = 1024 * 1024;

/// What a pipe has when the user's pages for pipes are used up: a fallback to what many of them fit into.
const SMALL_CAPACITY: usize = 256 * 1024;

/// Empty pipes that a worker keeps. A pipe is in use only while bytes lie in it, so that few serve many connections;
/// more than this at a time means many stalled receivers, and those wait just as well with copied bytes.
const POOLED: usize = 16;

/// Pipes of a worker in all. An unprivileged user has 16,384 pages for all pipes of all its processes (pipe(7)), which is
/// 64 of ours.
const IN_ALL: usize = 64;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { idle: Vec::new(), alive: 0 }) };
}

/// Pipes of all workers.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// How many pipes there are now, over all workers.
pub fn pipes_open() -> u64 {
    OPEN.load(Ordering::Relaxed)
}

struct Pool {
    idle: Vec<Pipe>,
    alive: usize,
}

/// A pipe with the bytes that lie in it.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    inward: OwnedFd,
    held: usize,
    _counted: Counted,
}

/// Takes its pipe off the counts.
#[derive(Debug)]
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        // At the end of the thread the pool may be gone first, and the count with it.
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut() {
                pool.alive -= 1;
            }
        });
    }
}

/// An empty pipe; none when the worker has as many as it may, the system gives none, or connections need the descriptors
/// more.
pub(super) fn take() -> Option<Pipe> {
    POOL.with_borrow_mut(|pool| {
        if let Some(pipe) = pool.idle.pop() {
            return Some(pipe);
        }
        if pool.alive == IN_ALL || pressure::is_high() {
            return None;
        }
        let (out, inward) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        pressure::check(&out).and_then(|()| pressure::check(&inward)).ok()?;
        // Past the user's limit it stays at its default, which is slower but as good.
        let _ =
            fcntl_setpipe_size(&inward, CAPACITY).or_else(|_| fcntl_setpipe_size(&inward, SMALL_CAPACITY));
        pool.alive += 1;
        OPEN.fetch_add(1, Ordering::Relaxed);
        Some(Pipe { out, inward, held: 0, _counted: Counted })
    })
}

/// Puts a pipe back. One with bytes in it is closed, for they are another connection's; and so is any while descriptors
/// are short.
pub(super) fn give_back(pipe: Pipe) {
    let surplus = POOL.with_borrow_mut(|pool| {
        if pipe.held > 0 || pool.idle.len() == POOLED || pressure::is_high() {
            return Some(pipe);
        }
        pool.idle.push(pipe);
        None
    });
    // Outside of the borrow, for its drop counts.
    drop(surplus);
}

impl Pipe {
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Fills the empty pipe from a stream, with so many bytes at most. 0 is the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let most = most.min(CAPACITY);
        // EAGAIN can only be the stream's, for the pipe has room.
        let n = ready!(from.poll_reading(
            cx,
            |fd| { splice(fd, None, &self.inward, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) },
            |_| false
        ))?;
        self.held += n;
        Poll::Ready(Ok(n))
    }

    /// Passes what it holds on to a stream, as much as that takes, and says how much that was.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<usize>> {
        let held = self.held;
        let n = ready!(to.poll_writing(
            cx,
            |fd| { splice(&self.out, None, fd, None, held, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) },
            |_| false
        ))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.held -= n;
        Poll::Ready(Ok(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_so_many_pipes_and_keeps_fewer() {
        // A pool is a thread's own, so no other test is in the way.
        let mut taken: Vec<Pipe> = (0..IN_ALL).map(|_| take().unwrap()).collect();
        assert!(take().is_none() && pipes_open() >= IN_ALL as u64);
        // One with bytes in it is another connection's for good.
        let mut full = taken.pop().unwrap();
        full.held = 1;
        give_back(full);
        let counts = || POOL.with_borrow(|pool| (pool.idle.len(), pool.alive));
        assert_eq!(counts(), (0, IN_ALL - 1));
        taken.into_iter().for_each(give_back);
        assert_eq!(counts(), (POOLED, POOLED));
        assert!(take().is_some_and(|pipe| pipe.is_empty()));
        assert_eq!(counts(), (POOLED - 1, POOLED - 1));
    }
}
