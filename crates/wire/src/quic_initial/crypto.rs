//! The stream of handshake bytes, put together from pieces in any order.

use super::NoHello;

/// A beginning of the client's handshake stream.
#[derive(Debug)]
pub struct CryptoStream {
    /// What came, at its place; what has not come is zero.
    bytes: Vec<u8>,
    /// Where something came: ascending, apart from each other, none empty.
    have: Vec<(usize, usize)>,
    max_bytes: usize,
    max_pieces: usize,
}

impl CryptoStream {
    /// A stream that holds up to `max_bytes`, and at any time no more than `max_pieces` that do not touch.
    pub fn new(max_bytes: usize, max_pieces: usize) -> CryptoStream {
        CryptoStream { bytes: Vec::new(), have: Vec::new(), max_bytes, max_pieces }
    }

    /// Puts `data` at its place. What came before may come again, and has to be the same.
    ///
    /// # Errors
    /// It lies beyond the limit, leaves too many pieces, or says something else than before.
    pub fn insert(&mut self, offset: u64, data: &[u8]) -> Result<(), NoHello> {
        let start = usize::try_from(offset).map_err(|_| NoHello::TooLong)?;
        let end = start.checked_add(data.len()).filter(|end| *end <= self.max_bytes);
        let end = end.ok_or(NoHello::TooLong)?;
        if data.is_empty() {
            return Ok(());
        }
        // Those that overlap or touch.
        let first = self.have.partition_point(|(_, had_end)| *had_end < start);
        let last = first + self.have[first..].partition_point(|(had_start, _)| *had_start <= end);
        if first == last && self.have.len() == self.max_pieces {
            return Err(NoHello::TooManyPieces);
        }
        for (had_start, had_end) in &self.have[first..last] {
            let (from, to) = (start.max(*had_start), end.min(*had_end));
            if from < to && self.bytes[from..to] != data[from - start..to - start] {
                // Two receivers could read two hellos out of it, and one of them routes.
                return Err(NoHello::Conflict);
            }
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(data);
        let joined = self.have[first..last]
            .iter()
            .fold((start, end), |joined, had| (joined.0.min(had.0), joined.1.max(had.1)));
        self.have.splice(first..last, [joined]);
        Ok(())
    }

    /// So much memory it holds, in bytes: a piece far from the beginning takes as much as all before it.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.have.capacity() * size_of::<(usize, usize)>()
    }

    /// The bytes from the beginning on, up to the first gap.
    pub fn contiguous(&self) -> &[u8] {
        match self.have.first() {
            Some((0, end)) => &self.bytes[..*end],
            _ => &[],
        }
    }
}
