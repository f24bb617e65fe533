//! How often requests of one key may come.

use std::hash::RandomState;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wmproxy_runtime::clock;
use wmproxy_wire::arrivals::Arrivals;
use wmproxy_wire::bucket::Frequency;
use wmproxy_wire::units::CountRate;

use super::Key;
use crate::facts::Scene;
use crate::options::LimitRequestsOptions;

/// Parts of a table, each behind a lock of its own that is held for some ten nanoseconds: many more than there are
/// workers.
const PARTS: usize = 16;

/// Keys that a table remembers: 1 MiB, of which a quiet one touches a page for each key. As many new keys as a worker can
/// serve in some seconds; when there are more, those go first that have not come for longest.
const REMEMBERED: usize = 1 << 16;

/// A client that is let wait longer than this has given up, and its connection costs more than its answer is worth.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A limit on how often requests come.
#[derive(Debug)]
pub(crate) struct RequestLimit {
    key: Key,
    frequency: Frequency,
    /// How long a request may be kept waiting, in nanoseconds.
    patience: u64,
    status: u16,
    table: Arc<Table>,
}

/// When requests of each key came. It belongs to no configuration and outlives them.
#[derive(Debug)]
pub(crate) struct Table {
    parts: Box<[Mutex<Arrivals>]>,
    /// With a secret, or a client could choose its keys so that they drive out those of others.
    hasher: RandomState,
}

/// What a limit says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may pass.
    Now,
    /// It may pass after so long.
    After(Duration),
    /// It is one too many, and may come again after so long.
    Refused(Duration),
}

impl Default for Table {
    fn default() -> Table {
        let part = || Mutex::new(Arrivals::new(REMEMBERED / PARTS));
        Table { parts: (0..PARTS).map(|_| part()).collect(), hasher: RandomState::new() }
    }
}

impl RequestLimit {
    /// A limit over a table that was kept.
    pub(crate) fn new(options: &LimitRequestsOptions, rate: CountRate, table: Arc<Table>) -> RequestLimit {
        // One passes always, and `burst` more at once or one after the other.
        let at_once = if options.delay { 1 } else { options.burst.saturating_add(1) };
        let frequency = Frequency::new(rate, Some(at_once));
        let longest = u64::try_from(LONGEST_WAIT.as_nanos()).unwrap_or(u64::MAX);
        let patience = match options.delay {
            true => frequency.interval().saturating_mul(options.burst.into()).min(longest),
            false => 0,
        };
        RequestLimit {
            key: Key::new(options.key.as_ref()),
            frequency,
            patience,
            status: options.status,
            table,
        }
    }

    /// The status for those that are too many.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Whether it comes after authentication.
    pub(crate) fn needs_user(&self) -> bool {
        self.key.needs_user()
    }

    /// Whether a request may pass, and counts it if so.
    pub(crate) fn admit(&self, scene: &Scene<'_>) -> Admission {
        let Some(hash) = self.key.hash(scene, &self.table.hasher) else { return Admission::Now };
        self.admit_at(hash, clock::precise())
    }

    fn admit_at(&self, hash: u64, now: u64) -> Admission {
        // A number that fits, for it is less than the length. What is inside stays whole when a holder panics.
        let part = &self.table.parts[(hash >> 60) as usize % PARTS];
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        match part.reserve(hash, &self.frequency, now, self.patience) {
            Ok(0) => Admission::Now,
            Ok(wait) => Admission::After(Duration::from_nanos(wait)),
            Err(retry) => Admission::Refused(Duration::from_nanos(retry)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(rate: &str, burst: u32, delay: bool) -> RequestLimit {
        let rate: CountRate = rate.parse().unwrap();
        let options =
            LimitRequestsOptions { rate: Some(rate), burst, delay, ..LimitRequestsOptions::default() };
        RequestLimit::new(&options, rate, Arc::default())
    }

    fn millis(limit: &RequestLimit, count: usize, now: u64) -> Vec<i128> {
        let one = |_| match limit.admit_at(7, now) {
            Admission::Now => 0,
            Admission::After(wait) => wait.as_millis() as i128,
            Admission::Refused(retry) => -(retry.as_millis() as i128),
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_burst_passes_at_once() {
        let limit = limit("10/s", 2, false);
        assert_eq!(millis(&limit, 5, 100 * SECOND), [0, 0, 0, -100, -100]);
        assert_eq!(millis(&limit, 2, 100 * SECOND + SECOND / 10), [0, -100]);
        assert_eq!(limit.admit_at(8, 100 * SECOND), Admission::Now, "another key has its own");
    }

    #[test]
    fn a_burst_waits_where_it_is_told_to() {
        let limit = limit("10/s", 2, true);
        assert_eq!(millis(&limit, 4, 100 * SECOND), [0, 100, 200, -100]);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let limit = limit("1/m", 20, true);
        assert_eq!(millis(&limit, 2, 100 * SECOND), [0, -30_000]);
    }

    #[test]
    fn without_a_burst_one_passes_at_a_time() {
        let limit = limit("600/m", 0, false);
        assert_eq!(millis(&limit, 2, 100 * SECOND), [0, -100]);
    }
}
