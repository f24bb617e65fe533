//! Bodies that are made piece by piece while they are sent.

use std::io;

/// Makes a body. It may wait for a disk, so it is not for a worker.
pub trait Produce: Send + std::fmt::Debug {
    /// Adds the next piece to `out`, some tens of kilobytes of it and never nothing before the end. False when that was the
    /// last one.
    ///
    /// # Errors
    /// The disk failed: the body can't be completed.
    fn produce(&mut self, out: &mut Vec<u8>) -> io::Result<bool>;

    /// How many descriptors it holds at most, until it is dropped.
    fn descriptors(&self) -> usize;
}
