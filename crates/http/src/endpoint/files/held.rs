//! How many descriptors the bodies that are being made hold.

use std::sync::atomic::{AtomicUsize, Ordering};

use wmproxy_net::pressure;

/// They hold so much of all descriptors together: connections need most of them, and one archive of deep directories may hold as
/// many as thirty connections.
const SHARE: u64 = 4;

/// But at least so many, where there are few: enough for an archive, and for listings beside it.
const LEAST: usize = 80;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// Descriptors that somebody may open until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    of: &'static AtomicUsize,
    count: usize,
}

impl Held {
    /// So many; none when others have them.
    pub(super) fn take(count: usize) -> Option<Held> {
        Held::take_of(&HELD, count, pressure::descriptors())
    }

    /// The same of those that `of` counts, where there may be so many in all.
    fn take_of(of: &'static AtomicUsize, count: usize, all: u64) -> Option<Held> {
        let most = usize::try_from(all / SHARE).unwrap_or(usize::MAX).max(LEAST);
        let sum = |held: usize| held.checked_add(count).filter(|sum| *sum <= most);
        of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).ok()?;
        Some(Held { of, count })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_a_share_is_held() {
        static HELD: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
        for (of, (all, count, expected)) in HELD.iter().zip([(64, 66, 1), (1024, 66, 3), (1024, 3, 85)]) {
            let mut held: Vec<_> = std::iter::from_fn(|| Held::take_of(of, count, all)).collect();
            assert_eq!(held.len(), expected, "of {all}, {count} each");
            // Who was refused has taken none, and who goes makes room for one.
            held.pop();
            held.extend(std::iter::from_fn(|| Held::take_of(of, count, all)));
            assert_eq!(held.len(), expected, "of {all}, {count} each");
            drop(held);
            assert_eq!(of.load(Ordering::Relaxed), 0);
        }
    }
}
