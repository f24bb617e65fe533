//! How fast the bytes of a response go.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use wmproxy_runtime::clock;
use wmproxy_wire::bucket::{Bucket, Pace};
use wmproxy_wire::units::ByteRate;

/// Says before each write of a response how much may be written, and when: in pieces, so that a slow one is slow evenly.
#[derive(Debug)]
pub struct Pacer {
    bucket: Bucket,
    /// The piece that is taken and not yet used up, and from when on it may go.
    taken: Option<(usize, u64)>,
    /// Made when it is first needed.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pacer {
    /// One for a response.
    pub fn new(rate: ByteRate) -> Pacer {
        Pacer { bucket: Bucket::new(Pace::of_stream(rate)), taken: None, sleep: None }
    }

    /// How many bytes may be written now; then [`Pacer::used`] has to be told. It is waited for where there are none, so
    /// this is to be asked only when there is something to write.
    pub fn poll_allowance(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            let now = clock::precise();
            let (bytes, at) = *self.taken.get_or_insert_with(|| {
                let piece = self.bucket.pace().piece();
                (piece, self.bucket.reserve(now, piece as u64))
            });
            if at <= now {
                return Poll::Ready(bytes);
            }
            let until = Instant::now() + Duration::from_nanos(at - now);
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
            // Set for this piece already, unless it fired for the one before.
            if sleep.is_elapsed() {
                sleep.as_mut().reset(until);
            }
            ready!(sleep.as_mut().poll(cx));
        }
    }

    /// Says how much was written of what was allowed. What is left of a piece is there for the next write.
    pub fn used(&mut self, bytes: usize) {
        self.taken = self.taken.take().and_then(|(left, at)| {
            let left = left.saturating_sub(bytes);
            (left > 0).then_some((left, at))
        });
    }

    /// Says how much was written without asking, for it was there already. What comes next waits for it.
    pub fn spent(&mut self, bytes: usize) {
        self.bucket.reserve(clock::precise(), bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn bytes_go_at_their_rate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let took = runtime.block_on(async {
            let mut pacer = Pacer::new("1m/s".parse().unwrap());
            let began = Instant::now();
            let mut left: usize = 100 << 10;
            while left > 0 {
                let allowed = poll_fn(|cx| pacer.poll_allowance(cx)).await.min(left).min(1000);
                pacer.used(allowed);
                left -= allowed;
            }
            began.elapsed()
        });
        // A tenth of a second, less what a full bucket gives at once.
        assert!((60..=10_000).contains(&took.as_millis()), "{took:?}");
    }
}
