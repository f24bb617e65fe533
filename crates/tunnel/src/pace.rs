//! How often the log tells of what strangers do.

use std::sync::atomic::{AtomicU64, Ordering};

use wmproxy_runtime::clock;

/// One line in so many milliseconds: enough to see that something goes on, and not enough to fill a disk.
const INTERVAL: u64 = 1000;

/// Lets a line pass now and then, and counts those that it holds back.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// From when on the next may pass, in milliseconds of the clock.
    next: AtomicU64,
    held_back: AtomicU64,
}

impl Pace {
    /// Whether a line may pass, and if so how many did not since the last.
    pub(crate) fn admit(&self) -> Option<u64> {
        let now = clock::now().0;
        let is_due = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            (next <= now).then_some(now + INTERVAL)
        });
        if is_due.is_ok() {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_and_the_rest_are_counted() {
        let pace = Pace::default();
        assert_eq!(pace.admit(), Some(0));
        assert_eq!((pace.admit(), pace.admit()), (None, None));
        pace.next.store(0, Ordering::Relaxed);
        assert_eq!(pace.admit(), Some(2));
    }
}
