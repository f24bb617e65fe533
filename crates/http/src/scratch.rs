//! The buffers of a worker: what is read lies in one of them until it is sent on.

use std::cell::RefCell;
use std::ops::Range;

use wmproxy_net::MARGIN;

/// Before what is read: heads and chunk sizes are put there, right in front of their data, so that one call sends both.
/// Heads of more than this go on their own. The margin keeps what is read off the border of a page.
const FRONT: usize = 4 * 1024 + MARGIN;

/// The largest read: what the relay takes at once, for the same reasons, and a head in front of it. Bodies like to have
/// 64 KiB, and would be read and written in two pieces because of their head.
pub(crate) const ROOM: usize = (64 + 4) * 1024;

/// Behind what is read: the end of a chunk, and of a body.
const BACK: usize = 16;

/// Buffers that a worker keeps. One is in use at a time, but for requests whose first bytes wait for something slow.
const POOLED: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of the worker's. It goes back when it is dropped, so nobody who waits for the network holds one.
#[derive(Debug)]
pub(crate) struct Scratch(Box<[u8]>);

impl Scratch {
    /// Takes one.
    pub(crate) fn take() -> Scratch {
        let pooled = POOL.with_borrow_mut(Vec::pop);
        Scratch(pooled.unwrap_or_else(|| vec![0; FRONT + ROOM + BACK].into_boxed_slice()))
    }

    /// Where to read to.
    #[inline]
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.0[FRONT..FRONT + ROOM]
    }

    /// The place of the first so many bytes that were read.
    #[inline]
    pub(crate) fn read(&self, len: usize) -> Range<usize> {
        debug_assert!(len <= ROOM);
        FRONT..FRONT + len
    }

    /// What lies at a place.
    #[inline]
    pub(crate) fn at(&self, place: &Range<usize>) -> &[u8] {
        &self.0[place.clone()]
    }

    /// Puts bytes right before a place, which then begins with them. False if there is no room.
    #[inline]
    pub(crate) fn put_before(&mut self, place: &mut Range<usize>, bytes: &[u8]) -> bool {
        let Some(start) = place.start.checked_sub(bytes.len()) else { return false };
        self.0[start..place.start].copy_from_slice(bytes);
        place.start = start;
        true
    }

    /// Puts bytes right behind a place, which then ends with them. False if there is no room.
    #[inline]
    pub(crate) fn put_behind(&mut self, place: &mut Range<usize>, bytes: &[u8]) -> bool {
        let end = place.end + bytes.len();
        let Some(into) = self.0.get_mut(place.end..end) else { return false };
        into.copy_from_slice(bytes);
        place.end = end;
        true
    }

    /// Moves what lies at `from` to `to`, to close the gaps between pieces.
    #[inline]
    pub(crate) fn shift(&mut self, from: Range<usize>, to: usize) {
        self.0.copy_within(from, to);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // At the end of the thread the pool may be gone first.
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool.len() < POOLED
            {
                pool.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_around_a_place_is_one_piece_with_it() {
        let mut scratch = Scratch::take();
        scratch.room()[..5].copy_from_slice(b"hello");
        let mut place = scratch.read(5);
        assert!(scratch.put_before(&mut place, b"5\r\n"));
        assert!(scratch.put_before(&mut place, b"head\r\n\r\n"));
        assert!(scratch.put_behind(&mut place, b"\r\n"));
        assert_eq!(scratch.at(&place), b"head\r\n\r\n5\r\nhello\r\n");
        assert!(!scratch.put_before(&mut place, &[0; FRONT]), "no room is no change");
        assert_eq!(scratch.at(&place).len(), 18);
        let mut full = scratch.read(ROOM);
        assert!(scratch.put_behind(&mut full, b"\r\n0\r\n\r\n"));
        assert!(!scratch.put_behind(&mut full, &[0; BACK]));
    }

    #[test]
    fn a_buffer_is_used_again() {
        let first = Scratch::take().0.as_ptr();
        assert_eq!(Scratch::take().0.as_ptr(), first);
    }
}
