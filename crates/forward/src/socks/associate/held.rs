//! Datagrams that wait until it is known where they go: for the addresses of a name, for a parent to let us in.

use std::cell::Cell;

use wmproxy_runtime::scope::Leash;

/// How many names an association may have looked up at a time.
const MAX_LOOKUPS: usize = 8;

/// What may wait for one of them: a burst, and even the largest datagrams.
const MAX_DATAGRAMS: usize = 64;
const MAX_BYTES: usize = 128 * 1024;

/// What may wait on one worker in all, whoever it is for.
const MAX_WORKER: usize = 8 << 20;

thread_local! {
    static WAITING: Cell<usize> = const { Cell::new(0) };
}

/// Datagrams that wait for one thing, in their order.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    datagrams: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Shelf {
    /// Adds one; false if there is no room for it.
    pub(super) fn push(&mut self, datagram: &[u8]) -> bool {
        // An empty one takes memory, too.
        let bytes = datagram.len() + size_of::<Box<[u8]>>();
        let worker = WAITING.get() + bytes;
        if self.datagrams.len() >= MAX_DATAGRAMS || self.bytes + bytes > MAX_BYTES || worker > MAX_WORKER {
            return false;
        }
        WAITING.set(worker);
        self.bytes += bytes;
        self.datagrams.push(datagram.into());
        true
    }

    pub(super) fn datagrams(&self) -> &[Box<[u8]>] {
        &self.datagrams
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        WAITING.set(WAITING.get() - self.bytes);
    }
}

/// The names that an association has looked up now.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<Wait>);

/// A name that is being looked up.
#[derive(Debug)]
pub(super) struct Wait {
    key: Box<[u8]>,
    pub(super) shelf: Shelf,
    /// Ends the task that looks it up.
    leash: Option<Leash>,
}

impl Held {
    /// Begins to hold datagrams for a name; false if there are too many already.
    pub(super) fn begin(&mut self, key: &[u8]) -> bool {
        let has_room = self.0.len() < MAX_LOOKUPS;
        if has_room {
            self.0.push(Wait { key: key.into(), shelf: Shelf::default(), leash: None });
        }
        has_room
    }

    /// Gives the task that looks a name up into its keeping.
    pub(super) fn keep(&mut self, key: &[u8], leash: Leash) {
        if let Some(wait) = self.find(key) {
            wait.leash = Some(leash);
        }
    }

    /// What waits for this name, if it is being looked up.
    pub(super) fn find(&mut self, key: &[u8]) -> Option<&mut Wait> {
        self.0.iter_mut().find(|wait| *wait.key == *key)
    }

    /// Takes out what has waited for a name, with the task that looked it up: it ends when that is dropped.
    pub(super) fn release(&mut self, key: &[u8]) -> Option<Wait> {
        let at = self.0.iter().position(|wait| *wait.key == *key)?;
        Some(self.0.swap_remove(at))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_given_back() {
        let before = WAITING.get();
        let mut held = Held::default();
        for name in 0..MAX_LOOKUPS as u8 {
            assert!(held.begin(&[name]));
        }
        assert!(!held.begin(b"one more"));
        let shelf = &mut held.find(&[3]).unwrap().shelf;
        assert!(shelf.push(&[1; 65_507]) && shelf.push(&[2; 65_507]));
        assert!(!shelf.push(&[3; 1000]));
        let shelf = &mut held.find(&[4]).unwrap().shelf;
        assert!((0..MAX_DATAGRAMS).all(|_| shelf.push(b"")));
        assert!(!shelf.push(b""));
        assert!(WAITING.get() > before + 2 * 65_507);
        let wait = held.release(&[3]).unwrap();
        let sizes: Vec<usize> = wait.shelf.datagrams().iter().map(|datagram| datagram.len()).collect();
        assert_eq!(sizes, [65_507, 65_507]);
        assert!(held.find(&[3]).is_none() && held.begin(&[3]));
        drop(wait);
        held.clear();
        assert_eq!(WAITING.get(), before);
    }

    #[test]
    fn a_worker_holds_no_more_than_it_may() {
        let before = WAITING.get();
        let mut shelves: Vec<Shelf> = (0..200).map(|_| Shelf::default()).collect();
        let taken = shelves.iter_mut().filter_map(|shelf| shelf.push(&[0; 65_000]).then_some(())).count();
        assert_eq!(taken, MAX_WORKER / (65_000 + size_of::<Box<[u8]>>()));
        drop(shelves);
        assert_eq!(WAITING.get(), before);
    }
}
