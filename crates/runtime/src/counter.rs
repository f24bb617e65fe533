//! Counters that workers write without touching each other's cache lines.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::worker;

/// One block of counters for each worker, and one for every other thread.
///
/// `T` is a struct of atomics. A worker adds to its own block; a scrape sums all of them.
#[derive(Debug)]
pub struct Sharded<T> {
    blocks: Box<[Padded<T>]>,
}

/// Two cache lines: the prefetcher of current x86 cores fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Sharded<T> {
    /// Makes the blocks for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Sharded { blocks: (0..=workers).map(|_| Padded::default()).collect() }
    }
}

impl<T> Sharded<T> {
    /// The calling thread's block.
    #[inline]
    pub fn local(&self) -> &T {
        // Without a modulo: a thread outside the range shares the block of the non-workers.
        let index = worker::slot();
        let index = if index < self.blocks.len() { index } else { 0 };
        &self.blocks[index].0
    }

    /// Every block, for a scrape.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().map(|padded| &padded.0)
    }

    /// The sum of one counter over all blocks. A counter that is read while others write may miss the newest additions.
    pub fn sum(&self, field: impl Fn(&T) -> &Counter) -> u64 {
        self.iter().fold(0u64, |sum, block| sum.wrapping_add(field(block).get()))
    }
}

/// A counter for each kind of a thing, by the kind's index. (The standard library has defaults for 32 and no more.)
#[derive(Debug)]
pub struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Counters(std::array::from_fn(|_| Counter::new()))
    }
}

impl<const N: usize> Deref for Counters<N> {
    type Target = [Counter; N];

    fn deref(&self) -> &[Counter; N] {
        &self.0
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        // Relaxed: counters order nothing.
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sizes of batches in powers of two: bucket `i` counts sizes in `2^(i-1)+1 ..= 2^i`, the last one everything above.
#[derive(Debug, Default)]
pub struct Log2Histogram {
    buckets: [Counter; Log2Histogram::BUCKETS],
    sum: Counter,
}

impl Log2Histogram {
    /// Buckets up to 1, 2, 4, … 512, and one for more.
    pub const BUCKETS: usize = 11;

    /// Counts one batch of `size`.
    #[inline]
    pub fn record(&self, size: u64) {
        let bucket = if size <= 1 { 0 } else { (u64::BITS - (size - 1).leading_zeros()) as usize };
        self.buckets[bucket.min(Self::BUCKETS - 1)].add(1);
        self.sum.add(size);
    }

    /// The upper bound of bucket `i`; none for the last.
    pub fn bound(i: usize) -> Option<u64> {
        (i + 1 < Self::BUCKETS).then(|| 1 << i)
    }

    /// How many batches fell into bucket `i`.
    pub fn bucket(&self, i: usize) -> &Counter {
        &self.buckets[i]
    }

    /// The sum of all sizes.
    pub fn total(&self) -> &Counter {
        &self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_falls_into_the_bucket_of_its_upper_bound() {
        let histogram = Log2Histogram::default();
        for (size, bucket) in
            [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (64, 6), (512, 9), (513, 10), (u64::MAX / 2, 10)]
        {
            let before = histogram.bucket(bucket).get();
            histogram.record(size);
            assert_eq!(histogram.bucket(bucket).get(), before + 1, "{size}");
        }
        assert_eq!(Log2Histogram::bound(9), Some(512));
        assert_eq!(Log2Histogram::bound(10), None);
    }

    #[test]
    fn blocks_add_up() {
        let counters: Sharded<Counter> = Sharded::new(2);
        counters.local().add(3);
        counters.blocks[2].0.add(4);
        assert_eq!(counters.sum(|c| c), 7);
    }
}
