//! Placeholder, replaced below in the same change.
use std::cell::Cell;
thread_local! { static SLOT: Cell<usize> = const { Cell::new(0) }; }
/// The calling thread's slot: 0 outside workers, else the worker's index plus one.
#[inline]
pub fn slot() -> usize {
    SLOT.with(Cell::get)
}
