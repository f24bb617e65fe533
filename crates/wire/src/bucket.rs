//! Token buckets: how many bytes, or events, may pass by when.
//!
//! A bucket is one number: the moment up to which everything that passed is paid for ([GCRA], the virtual scheduling
//! form of a token bucket). A piece costs the time that it takes at the rate. What is not used in time is kept as
//! credit, but never more of it than the burst. So there is nothing to refill and no timer, and several threads share
//! a bucket by one atomic.
//!
//! Times are nanoseconds of any clock that only goes forward.
//!
//! [GCRA]: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm

use std::sync::atomic::{AtomicU64, Ordering};

use crate::units::{ByteRate, CountRate};

const SECOND: u64 = 1_000_000_000;

/// What a paced stream may catch up with: a timer of 1 ms that fires late on a busy machine must not cost rate.
const PACED_BURST: u64 = 10_000_000;

/// What datagrams over the rate may still use of quieter times. Senders send in bursts, and what is over the limit is
/// lost rather than late, so this is more than for a stream; a congestion controller needs about a round trip.
const POLICED_BURST: u64 = 100_000_000;

/// Pieces of a paced stream in a second, from which their size follows: fewer make it lumpy, more cost wake-ups.
const PIECES: u64 = 250;

/// Where that would be less than [`SMALL_PIECE`], it is better fewer pieces, but no fewer than this.
const FEWEST_PIECES: u64 = 16;

/// A piece that is worth a wake-up.
const SMALL_PIECE: u64 = 4096;

/// The two largest datagrams on an Ethernet. A burst has to let one pass at least.
const TWO_DATAGRAMS: u64 = 3000;

/// What a piece costs and how much credit there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes in a second; never zero.
    rate: u64,
    /// Credit in nanoseconds.
    burst: u64,
    /// Bytes.
    piece: u64,
}

impl Pace {
    /// For a stream, whose bytes wait: little credit, so that what leaves is even.
    pub fn of_stream(rate: ByteRate) -> Pace {
        let rate = rate.bytes_per_second();
        let piece = (rate / PIECES).max(SMALL_PIECE.min(rate / FEWEST_PIECES)).max(1);
        let pace = Pace { rate, burst: 0, piece };
        Pace { burst: PACED_BURST.max(pace.cost(piece)), ..pace }
    }

    /// For datagrams, which don't wait: more credit, so that a burst is not cut to pieces.
    pub fn of_datagrams(rate: ByteRate) -> Pace {
        let pace = Pace { rate: rate.bytes_per_second(), burst: 0, piece: 1 };
        Pace { burst: POLICED_BURST.max(pace.cost(TWO_DATAGRAMS)), ..pace }
    }

    /// How many bytes to let pass at a time: few enough to be even, enough to be worth the trouble.
    pub fn piece(&self) -> usize {
        usize::try_from(self.piece).unwrap_or(usize::MAX)
    }

    /// The most bytes that can pass in no time.
    pub fn burst_bytes(&self) -> u64 {
        u64::try_from(u128::from(self.burst) * u128::from(self.rate) / u128::from(SECOND)).unwrap_or(u64::MAX)
    }

    /// Nanoseconds for so many bytes, never too few of them.
    fn cost(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(SECOND).div_ceil(self.rate)
    }

    /// What comes back for bytes that did not pass, never too much.
    fn refund(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(SECOND) / self.rate
    }
}

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frequency {
    interval: u64,
    burst: u64,
}

impl Frequency {
    /// So often on average; `burst` of them at once, or by default as many as the rate names.
    pub fn new(rate: CountRate, burst: Option<u32>) -> Frequency {
        let period = u64::try_from(rate.period().duration().as_nanos()).unwrap_or(u64::MAX);
        let interval = (period / rate.count()).max(1);
        let burst = burst.map_or(period, |n| interval.saturating_mul(n.into()));
        Frequency { interval, burst: burst.max(interval) }
    }

    /// From when on one more may happen, given the moment up to which the former are paid for; that is the next such moment.
    pub(crate) fn reserve(&self, paid: u64, now: u64) -> u64 {
        start(paid, self.burst, now) + self.interval
    }

    /// How far apart they are on average, in nanoseconds.
    pub fn interval(&self) -> u64 {
        self.interval
    }
}

/// Where the next piece begins to be paid for: behind the last, but with no more credit than the burst.
fn start(paid: u64, burst: u64, now: u64) -> u64 {
    paid.max(now.saturating_sub(burst))
}

fn reserve(paid: u64, pace: &Pace, now: u64, bytes: u64) -> u64 {
    start(paid, pace.burst, now).saturating_add(pace.cost(bytes))
}

/// A piece larger than the whole burst passes when the bucket is full; it would never pass otherwise.
fn admit(paid: u64, pace: &Pace, now: u64, bytes: u64) -> Option<u64> {
    let start = start(paid, pace.burst, now);
    let after = start.saturating_add(pace.cost(bytes));
    (after <= now || start == now.saturating_sub(pace.burst)).then_some(after)
}

/// A bucket with one user. It begins full.
#[derive(Debug, Clone)]
pub struct Bucket {
    pace: Pace,
    paid: u64,
}

impl Bucket {
    /// A full one.
    pub fn new(pace: Pace) -> Bucket {
        Bucket { pace, paid: 0 }
    }

    /// What it was made of.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Takes bytes that are going to pass, and says from when on they may: at once if that is not later than `now`.
    pub fn reserve(&mut self, now: u64, bytes: u64) -> u64 {
        self.paid = reserve(self.paid, &self.pace, now, bytes);
        self.paid
    }

    /// Puts back what was taken and did not pass.
    pub fn give_back(&mut self, bytes: u64) {
        self.paid = self.paid.saturating_sub(self.pace.refund(bytes));
    }

    /// Takes bytes if they may pass now.
    pub fn admit(&mut self, now: u64, bytes: u64) -> bool {
        let after = admit(self.paid, &self.pace, now, bytes);
        self.paid = after.unwrap_or(self.paid);
        after.is_some()
    }
}

/// A bucket that several threads use. Who reserves waits in line: nobody is passed over, however many they are.
#[derive(Debug, Default)]
pub struct SharedBucket {
    paid: AtomicU64,
}

impl SharedBucket {
    /// See [`Bucket::reserve`].
    pub fn reserve(&self, pace: &Pace, now: u64, bytes: u64) -> u64 {
        let mut paid = self.paid.load(Ordering::Relaxed);
        loop {
            let after = reserve(paid, pace, now, bytes);
            // Relaxed: the number guards nothing but itself.
            match self.paid.compare_exchange_weak(paid, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return after,
                Err(other) => paid = other,
            }
        }
    }

    /// See [`Bucket::give_back`].
    pub fn give_back(&self, pace: &Pace, bytes: u64) {
        let refund = pace.refund(bytes);
        // Answers without an error, for the closure always has an answer.
        let _ = self
            .paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| Some(paid.saturating_sub(refund)));
    }

    /// Forgets what was taken: the bucket is full, and who comes next stands behind nobody.
    pub fn forget(&self) {
        self.paid.store(0, Ordering::Relaxed);
    }

    /// See [`Bucket::admit`].
    pub fn admit(&self, pace: &Pace, now: u64, bytes: u64) -> bool {
        self.paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| admit(paid, pace, now, bytes))
            .is_ok()
    }
}

#[cfg(test)]
mod tests;
