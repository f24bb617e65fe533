//! A worker's buffers of ciphertext.

use std::cell::RefCell;

use crate::MARGIN;

use super::session::{OPENED, SEALED};

/// Buffers that a worker keeps: one for each session that lies upon another, and few lie upon more than two others.
const KEPT: usize = 3;

thread_local! {
    static SCRATCH: RefCell<Vec<Scratch>> = const { RefCell::new(Vec::new()) };
}

/// Buffers for one read and one write of a session.
pub(super) struct Scratch {
    pub(super) incoming: Box<[u8]>,
    pub(super) outgoing: Box<[u8]>,
}

/// Lends buffers. Whoever reads or writes a session below meanwhile gets others.
#[inline]
pub(super) fn with<T>(use_it: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_else(|| Scratch {
        incoming: vec![0; OPENED].into_boxed_slice(),
        outgoing: vec![0; MARGIN + SEALED].into_boxed_slice(),
    });
    let answer = use_it(&mut scratch);
    SCRATCH.with_borrow_mut(|kept| {
        if kept.len() < KEPT {
            kept.push(scratch);
        }
    });
    answer
}
