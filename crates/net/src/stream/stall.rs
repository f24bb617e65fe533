//! Whether somebody who takes nothing from us still takes from the kernel.
//!
//! The kernel holds megabytes for a slow reader, and has room for more only when a third of that is gone. Who waits for
//! room would give up a client that reads all the time, but not that much; so before it does it asks the kernel how much is left.
//! That is a system call, and comes only where a deadline would.

use std::os::fd::AsFd as _;
use std::time::Duration;

use wmproxy_runtime::clock::Ticks;

use super::Stream;
use crate::sys;

/// What was left at the last look. The default is no look.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stall {
    /// When the stream had last taken something from us, then.
    last: Ticks,
    left: u64,
}

impl Stream {
    /// How many bytes the kernel holds that the other side has not acknowledged, a FIN counted as one (tcp(7), SIOCOUTQ).
    /// None is held for who has gone, nor where there is no socket.
    pub fn unacknowledged(&self) -> u64 {
        self.base.socket().and_then(|fd| sys::outgoing(fd.as_fd())).unwrap_or(0)
    }
}

impl Stall {
    /// When to look at a stream that last took something at `last`: once soon, to have what to compare with, and once when
    /// `timeout` is over.
    pub fn due(&self, last: Ticks, timeout: Duration) -> Ticks {
        if self.last == last { last + timeout } else { last + timeout / 8 }
    }

    /// Looks, at `now`: so much is `left`. True if that is no less than at the look before, by `least` bytes or by all, and the
    /// stream took nothing else since. If it is less, the stream has taken something, and `last` is now.
    pub fn is_over(&mut self, last: &mut Ticks, now: Ticks, left: u64, least: u64) -> bool {
        let is_second = self.last == *last;
        let is_less = left < self.left && (left == 0 || self.left - left >= least);
        if is_second && is_less {
            *last = now;
        }
        let before = std::mem::replace(self, Stall { last: *last, left });
        is_second && before.last == *last
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::task::Poll;

    use super::*;

    const T: Duration = Duration::from_millis(800);

    #[test]
    fn who_takes_enough_goes_on_and_who_does_not_is_over() {
        let mut stall = Stall::default();
        let mut last = Ticks(1000);
        assert_eq!(stall.due(last, T), Ticks(1100));
        assert!(!stall.is_over(&mut last, Ticks(1100), 5000, 100));
        assert_eq!((last, stall.due(last, T)), (Ticks(1000), Ticks(1800)));
        assert!(!stall.is_over(&mut last, Ticks(1800), 4900, 100));
        assert_eq!((last, stall.due(last, T)), (Ticks(1800), Ticks(2600)));
        // The stream took something from us meanwhile: that counts, and the look before does not.
        last = Ticks(2000);
        assert_eq!(stall.due(last, T), Ticks(2100));
        assert!(!stall.is_over(&mut last, Ticks(2100), 9000, 100));
        assert!(stall.is_over(&mut last, Ticks(2800), 8901, 100));
        // The rest, however little.
        let mut stall = Stall { last, left: 50 };
        assert!(!stall.is_over(&mut last, Ticks(2800), 0, 100));
        assert!(stall.is_over(&mut last, Ticks(3600), 0, 100));
    }

    #[tokio::test]
    async fn what_the_kernel_holds_falls_as_it_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        let stream = Stream::new(near.into(), true).unwrap();
        assert_eq!(stream.unacknowledged(), 0);
        let data = vec![7; 1 << 20];
        let mut sent = 0;
        std::future::poll_fn(|cx| {
            while let Poll::Ready(n) = stream.poll_write(cx, &data) {
                sent += n.unwrap() as u64;
            }
            // The event queue has to say first that there is room.
            if sent == 0 { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        let left = stream.unacknowledged();
        assert!(left > 0 && left < sent, "{left} of {sent}");
        far.read_exact(&mut vec![0; sent as usize]).unwrap();
        while stream.unacknowledged() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
