//! The one timer of a connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};
use wmproxy_runtime::clock::{self, Ticks};

/// Beyond a deadline by so much the timer rings, so that the coarse clock, which is late by up to a kernel tick, is there
/// too.
const LATE: Duration = Duration::from_millis(5);

/// The longest that it is set for; it rings in vain then, and is set again. Instants have an end somewhere.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Whatever a connection waits for has a deadline, and this tells when it is over.
///
/// A deadline that moves away costs nothing: the timer still rings at the old one, finds nothing due, and is set anew
/// then. So a connection with requests in close succession sets it about as often as its shortest timeout passes.
#[derive(Debug)]
pub(crate) struct Timer<'a> {
    sleep: Pin<&'a mut Sleep>,
    /// When it rings; none before it was set.
    rings: Option<Ticks>,
}

impl<'a> Timer<'a> {
    /// A timer that is not set. Whatever `sleep` was for is forgotten.
    pub(crate) fn new(sleep: Pin<&'a mut Sleep>) -> Timer<'a> {
        Timer { sleep, rings: None }
    }

    /// Ready when a deadline is over. To be polled last by who waits, with the earliest of its deadlines.
    pub(crate) fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Ticks) -> Poll<()> {
        if deadline == NEVER {
            return Poll::Pending;
        }
        loop {
            let now = clock::now();
            if now >= deadline {
                return Poll::Ready(());
            }
            if self.rings.is_some_and(|rings| rings <= deadline) && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            let wait = deadline.since(now).min(LONGEST);
            self.sleep.as_mut().reset(Instant::now() + wait + LATE);
            if self.sleep.as_mut().poll(cx).is_pending() {
                self.rings = Some(now + wait);
                return Poll::Pending;
            }
        }
    }
}

/// After so long from now; zero is never.
pub(crate) fn after(timeout: Duration) -> Ticks {
    if timeout.is_zero() { NEVER } else { clock::now() + timeout }
}

/// A deadline that does not come.
pub(crate) const NEVER: Ticks = Ticks(u64::MAX);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_deadline_that_moves_is_kept() {
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        let mut timer = Timer::new(sleep);
        let began = clock::now();
        let near = began + Duration::from_millis(20);
        assert!(poll_fn(|cx| Poll::Ready(timer.poll_until(cx, near))).await.is_pending());
        let rang = timer.rings;
        // Farther away: the timer stays as it is, and rings in vain.
        let far = began + Duration::from_millis(60);
        assert!(poll_fn(|cx| Poll::Ready(timer.poll_until(cx, far))).await.is_pending());
        assert_eq!(timer.rings, rang);
        poll_fn(|cx| timer.poll_until(cx, far)).await;
        assert!(clock::now() >= far);
        // Nearer: it is set at once.
        for late in [NEVER, Ticks(NEVER.0 - 1)] {
            assert!(poll_fn(|cx| Poll::Ready(timer.poll_until(cx, late))).await.is_pending());
        }
        let soon = clock::now() + Duration::from_millis(10);
        poll_fn(|cx| timer.poll_until(cx, soon)).await;
        assert!(clock::now() >= soon && clock::now().since(soon) < Duration::from_secs(5));
    }
}
