//! A doubly linked list through the places of a slab: push, unlink and move without a search.

use super::slab::Slab;

/// The end of a list. No place has this index (see [`super::slab::MAX_PLACES`]).
pub(super) const NIL: u32 = u32::MAX;

/// A place's neighbours in its list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    previous: u32,
    next: u32,
}

/// What can be in a list.
pub(super) trait Linked {
    fn links(&mut self) -> &mut Links;
}

/// The ends of a list; the rest is in the slab. Whoever holds it gives the same slab each time, and only
/// indexes of this list to [`unlink`](List::unlink).
#[derive(Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
}

impl Links {
    pub(super) const ALONE: Self = Self { previous: NIL, next: NIL };
}

impl List {
    pub(super) const fn new() -> Self {
        Self { first: NIL, last: NIL }
    }

    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NIL).then_some(self.first)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first == NIL
    }

    pub(super) fn push_last<E: Linked>(&mut self, slab: &mut Slab<E>, index: u32) {
        if let Some(entry) = slab.get_mut(index) {
            *entry.links() = Links { previous: self.last, next: NIL };
        }
        match slab.get_mut(self.last) {
            Some(last) => last.links().next = index,
            None => self.first = index,
        }
        self.last = index;
    }

    pub(super) fn unlink<E: Linked>(&mut self, slab: &mut Slab<E>, index: u32) {
        let Some(entry) = slab.get_mut(index) else { return };
        let Links { previous, next } = std::mem::replace(entry.links(), Links::ALONE);
        match slab.get_mut(previous) {
            Some(entry) => entry.links().next = next,
            None => self.first = next,
        }
        match slab.get_mut(next) {
            Some(entry) => entry.links().previous = previous,
            None => self.last = previous,
        }
    }

    /// Makes the entry the last one, which in a busy table it often is already.
    pub(super) fn move_last<E: Linked>(&mut self, slab: &mut Slab<E>, index: u32) {
        if self.last != index {
            self.unlink(slab, index);
            self.push_last(slab, index);
        }
    }
}
