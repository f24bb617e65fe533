//! How often each of many clients came of late, in a table that does not grow.
//!
//! Somebody who sends from a million addresses must not fill our memory, nor make us forget those who are over their
//! limit. So the table has a fixed size and is set-associative: a client's key says which few places are its own. When
//! they are all taken, the one goes whose client is closest to having its full burst back, since forgetting it grants the
//! least. A client that is over its limit has nothing left of its burst and is the last to go; one that has come once is
//! the first. A storm of addresses thus mostly drives out itself. What it can do at best, with more addresses within the
//! time of a burst than the table has places, is to have the table forget clients that are under their limits, which then
//! have a whole burst again. It can never cause a client to be refused that keeps to its rate.
//!
//! Keys are to be hashes with a secret: else one could choose addresses that all fall on the same places.

use crate::bucket::Frequency;

/// Added to every moment: 146 years. A newcomer's burst lies in the past, and a machine that has just booted would have too
/// little of that.
const PAST: u64 = 1 << 62;

/// Places that a key may be at: two lines of the cache.
const WAYS: usize = 8;

/// The table.
#[derive(Debug)]
pub struct Arrivals {
    /// Key, and the moment up to which its arrivals are paid for. An array, for the allocator then has zeroed memory
    /// for it, which costs nothing until it is used.
    places: Vec<[u64; 2]>,
}

impl Arrivals {
    /// A table with at least so many places, of 16 bytes each.
    pub fn new(places: usize) -> Arrivals {
        Arrivals { places: vec![[0; 2]; places.next_power_of_two().max(WAYS)] }
    }

    /// Whether `key` may come once more at `now`, and counts it if so. Who is refused loses nothing by it.
    pub fn admit(&mut self, key: u64, frequency: &Frequency, now: u64) -> bool {
        self.reserve(key, frequency, now, 0).is_ok()
    }

    /// How long `key` has to wait before it may come once more, in nanoseconds, and counts it if that is at most
    /// `patience`. Who is refused loses nothing by it.
    ///
    /// # Errors
    /// It would have to wait longer. So long it has to stay away until it would be counted.
    pub fn reserve(&mut self, key: u64, frequency: &Frequency, now: u64, patience: u64) -> Result<u64, u64> {
        let now = now.saturating_add(PAST);
        // The multiplication spreads what the caller may have used of the key's bits already.
        let sets = self.places.len() / WAYS;
        let set = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (sets - 1);
        let set = &mut self.places[set * WAYS..][..WAYS];
        if let Some([_, paid]) = set.iter_mut().find(|[known, _]| *known == key) {
            let after = frequency.reserve(*paid, now);
            let wait = after.saturating_sub(now);
            if wait > patience {
                return Err(wait - patience);
            }
            *paid = after;
            return Ok(wait);
        }
        // A newcomer has its whole burst, and that is never less than one.
        if let Some(oldest) = set.iter_mut().min_by_key(|[_, paid]| *paid) {
            *oldest = [key, frequency.reserve(0, now)];
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::units::{CountRate, Period};

    const SECOND: u64 = 1_000_000_000;
    const BEGIN: u64 = 1 << 50;

    fn ten_a_second() -> Frequency {
        Frequency::new(CountRate::new(NonZeroU64::new(10).unwrap(), Period::Second), None)
    }

    /// A key as a hash would make it.
    fn key(client: u64) -> u64 {
        let mut x = client.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    #[test]
    fn each_client_has_its_own_rate() {
        let (mut table, limit) = (Arrivals::new(1 << 10), ten_a_second());
        for client in 0..100 {
            let admitted = (0..50).filter(|_| table.admit(key(client), &limit, BEGIN)).count();
            assert_eq!(admitted, 10);
        }
        for client in 0..100 {
            let admitted = (0..50).filter(|_| table.admit(key(client), &limit, BEGIN + SECOND / 2)).count();
            assert_eq!(admitted, 5);
        }
    }

    #[test]
    fn a_newcomer_has_its_burst_from_the_first_moment_on() {
        let an_hour = Frequency::new(CountRate::new(NonZeroU64::new(10).unwrap(), Period::Hour), None);
        let mut table = Arrivals::new(64);
        assert_eq!((0..50).filter(|_| table.admit(key(1), &an_hour, 5 * SECOND)).count(), 10);
    }

    #[test]
    fn who_is_patient_waits_in_line() {
        let every_tenth =
            Frequency::new(CountRate::new(NonZeroU64::new(10).unwrap(), Period::Second), Some(1));
        let mut table = Arrivals::new(64);
        let patience = 3 * SECOND / 10;
        let millis = |nanos: u64| nanos / 1_000_000;
        let mut wait = || table.reserve(key(1), &every_tenth, BEGIN, patience).map(millis).map_err(millis);
        let waits: Vec<_> = (0..5).map(|_| wait()).collect();
        assert_eq!(waits, [Ok(0), Ok(100), Ok(200), Ok(300), Err(100)]);
        // Who was refused stands nowhere.
        assert_eq!(table.reserve(key(1), &every_tenth, BEGIN + SECOND / 10, patience), Ok(patience));
        assert_eq!(table.reserve(key(2), &every_tenth, BEGIN, 0), Ok(0));
    }

    #[test]
    fn a_storm_of_addresses_neither_grows_the_table_nor_frees_the_limited() {
        let (mut table, limit) = (Arrivals::new(1 << 12), ten_a_second());
        let size = table.places.len();
        // They come as fast as they may.
        let limited: Vec<u64> = (0..50).map(|client| key(1_000_000_000 + client)).collect();
        let mut now = BEGIN;
        let mut admitted = 0;
        for stranger in 0..100_000 {
            now += 20_000;
            assert!(table.admit(key(stranger), &limit, now), "who keeps to the rate is let in");
            if stranger % 50 == 0 {
                admitted += limited.iter().filter(|client| table.admit(**client, &limit, now)).count();
            }
        }
        assert_eq!((table.places.len(), table.places.capacity()), (size, size));
        // A burst of 10 and not quite two seconds at 10 a second for each. One may be driven out while it still has most
        // of its burst, hence the tolerance.
        assert!((50 * 29..=50 * 31).contains(&admitted), "{admitted}");
    }
}
