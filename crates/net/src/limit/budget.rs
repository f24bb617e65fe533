//! How many bytes may pass in all.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what passes of several connections together, over all workers, and says when it is enough. What it is enough for,
/// a day or a month, is the business of whoever made it.
///
/// A relay that has one asks before each turn how much is left and passes no more than that. So the connections of one worker
/// keep to it to the byte, and each further worker can pass one turn (2 MiB a direction) more; beside that, what was read before
/// and waits for a slow receiver may still go.
#[derive(Debug)]
pub struct Budget {
    /// Bytes since it was made. It only grows, so that nothing is lost when the end is moved meanwhile.
    passed: AtomicU64,
    /// The count at which it is used up; `u64::MAX` for never.
    end: AtomicU64,
}

impl Default for Budget {
    /// Without an end.
    fn default() -> Self {
        Budget { passed: AtomicU64::new(0), end: AtomicU64::new(u64::MAX) }
    }
}

impl Budget {
    /// Notes bytes that have passed, and says whether more may.
    pub fn spend(&self, bytes: u64) -> bool {
        // Relaxed throughout: the numbers guard nothing but themselves.
        let passed = self.passed.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        passed < self.end.load(Ordering::Relaxed)
    }

    /// How many bytes may still pass; `u64::MAX` where there is no end.
    pub fn left(&self) -> u64 {
        match self.end.load(Ordering::Relaxed) {
            u64::MAX => u64::MAX,
            end => end.saturating_sub(self.passed.load(Ordering::Relaxed)),
        }
    }

    /// How many bytes have passed since it was made.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Says at which count of [`passed`](Budget::passed) bytes it is used up; none for never.
    pub fn set_end(&self, end: Option<u64>) {
        self.end.store(end.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_passed_counts_whatever_the_end() {
        let budget = Budget::default();
        assert!(budget.spend(100) && budget.left() == u64::MAX);
        budget.set_end(Some(150));
        assert_eq!((budget.left(), budget.spend(49), budget.left()), (50, true, 1));
        assert!(!budget.spend(1) && !budget.spend(10) && budget.left() == 0);
        budget.set_end(Some(260));
        assert_eq!((budget.left(), budget.passed()), (100, 160));
        budget.set_end(None);
        assert!(budget.spend(u64::MAX / 2));
    }

    #[test]
    fn many_threads_count_every_byte() {
        let budget = Budget::default();
        budget.set_end(Some(400_000));
        let ran_out = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        ran_out.fetch_add(u64::from(!budget.spend(100)), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!((budget.passed(), budget.left(), ran_out.into_inner()), (400_000, 0, 1));
    }
}
