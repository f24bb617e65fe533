//! Who makes room when a limit is reached that several workers share.
//!
//! Each worker has its own table of flows, and no other may touch it. So each tells since when its oldest idle flow has
//! been idle, and whoever needs a place asks the one with the oldest of all to end it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;
use wmproxy_runtime::clock::Ticks;

/// How many flows a worker may have been asked to end and not have ended yet. Bounds by how much a storm may exceed the
/// limit while that worker is busy.
const MAX_ASKED: u32 = 64;

/// Nothing to evict.
const NONE: u64 = u64::MAX;

/// The tables that share one limit.
#[derive(Debug, Default)]
pub struct Evictions {
    holders: Mutex<Vec<Weak<Holder>>>,
}

/// One table of flows, as the others see it. It is forgotten when its owner drops it.
#[derive(Debug)]
pub struct Holder {
    /// Since when its oldest idle flow is idle, in [`Ticks`].
    oldest: AtomicU64,
    asked: AtomicU32,
    wake: Notify,
}

/// Whose flow is to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The asking table's own.
    Own,
    /// Another table's, which was asked to end it and soon will.
    Other,
    /// There is no flow anywhere.
    Nobody,
}

impl Evictions {
    /// Adds a table, an empty one.
    pub fn join(&self) -> Arc<Holder> {
        let holder = Arc::new(Holder { oldest: NONE.into(), asked: AtomicU32::new(0), wake: Notify::new() });
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(Arc::downgrade(&holder));
        holder
    }

    /// Finds the table whose oldest flow is the oldest of all, the asking one's before another's as old, and asks its
    /// owner to end that flow.
    pub fn make_room(&self, own: &Arc<Holder>) -> Victim {
        let mine = own.oldest.load(Ordering::Relaxed);
        let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let can_be_asked =
            |other: &Arc<Holder>| !Arc::ptr_eq(other, own) && other.asked.load(Ordering::Relaxed) < MAX_ASKED;
        let others = holders.iter().filter_map(Weak::upgrade).filter(can_be_asked);
        let oldest = others.min_by_key(|other| other.oldest.load(Ordering::Relaxed));
        match oldest {
            Some(other) if other.oldest.load(Ordering::Relaxed) < mine => {
                other.asked.fetch_add(1, Ordering::Relaxed);
                other.wake.notify_one();
                Victim::Other
            }
            _ if mine == NONE => Victim::Nobody,
            _ => Victim::Own,
        }
    }
}

impl Holder {
    /// Tells since when the oldest idle flow is idle; none when there is no flow.
    #[inline]
    pub fn tell_oldest(&self, idle_since: Option<Ticks>) {
        let new = idle_since.map_or(NONE, |ticks| ticks.0);
        // The line is the others' to read; it is left alone unless it changes.
        if self.oldest.load(Ordering::Relaxed) != new {
            self.oldest.store(new, Ordering::Relaxed);
        }
    }

    /// How many flows the others want ended; they count as ended with the asking.
    pub fn take_asked(&self) -> u32 {
        match self.asked.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.asked.swap(0, Ordering::Relaxed),
        }
    }

    /// Waits until somebody asks. Cancel safe.
    pub async fn asked(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_all_makes_room() {
        let all = Evictions::default();
        let (a, b, c) = (all.join(), all.join(), all.join());
        assert_eq!(all.make_room(&a), Victim::Nobody);
        b.tell_oldest(Some(Ticks(20)));
        c.tell_oldest(Some(Ticks(10)));
        assert_eq!(all.make_room(&a), Victim::Other);
        assert_eq!((a.take_asked(), b.take_asked(), c.take_asked()), (0, 0, 1));
        assert_eq!(c.take_asked(), 0);
        assert_eq!(all.make_room(&c), Victim::Own);
        a.tell_oldest(Some(Ticks(10)));
        assert_eq!(all.make_room(&c), Victim::Own, "as old as another's");
        c.tell_oldest(None);
        assert_eq!(all.make_room(&c), Victim::Other);
        assert_eq!(a.take_asked(), 1);
    }

    #[test]
    fn who_does_not_answer_is_not_asked_forever() {
        let all = Evictions::default();
        let (idle, busy) = (all.join(), all.join());
        busy.tell_oldest(Some(Ticks(1)));
        for _ in 0..MAX_ASKED {
            assert_eq!(all.make_room(&idle), Victim::Other);
        }
        assert_eq!(all.make_room(&idle), Victim::Nobody);
        idle.tell_oldest(Some(Ticks(5)));
        assert_eq!(all.make_room(&idle), Victim::Own);
        assert_eq!(busy.take_asked(), MAX_ASKED);
    }

    #[test]
    fn who_is_gone_is_not_asked() {
        let all = Evictions::default();
        let (here, gone) = (all.join(), all.join());
        gone.tell_oldest(Some(Ticks(1)));
        drop(gone);
        assert_eq!(all.make_room(&here), Victim::Nobody);
    }
}
