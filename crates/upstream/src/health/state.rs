//! What its checks have found out about a peer.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use wmproxy_runtime::counter::Counter;

/// Whether a peer is well, as far as its checks tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not checked yet, so that it is used.
    Unknown,
    /// Used.
    Up,
    /// Not used.
    Down,
}

impl Health {
    /// Every state.
    pub const ALL: &[Health] = &[Health::Unknown, Health::Up, Health::Down];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Down => "down",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// The peer did what was expected.
    Passed,
    /// It did not, for this reason.
    Failed(String),
    /// Nothing was learnt, since this machine could not check.
    Skipped(String),
}

/// The last check of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCheck {
    /// When it ended, in milliseconds of the monotonic clock.
    pub at_ms: u64,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub result: CheckResult,
}

/// How many results in a row change a peer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) rise: u32,
    pub(crate) fall: u32,
}

/// A check that changed a peer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: Health,
    pub(crate) to: Health,
    /// How long it was in the former state; none when nothing was known.
    pub(crate) after: Option<Duration>,
    /// How many results in a row made the change.
    pub(crate) in_a_row: u32,
}

/// The checks of one peer. Belongs to the peer, so that a reload keeps what is known.
#[derive(Debug)]
pub(crate) struct Checks {
    /// A [`Health`]; read by workers.
    health: AtomicU8,
    passed: Counter,
    failed: Counter,
    skipped: Counter,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    /// How many results in a row spoke against the state.
    against: u32,
    /// When the state began.
    since: u64,
    last: Option<LastCheck>,
}

impl Default for Checks {
    fn default() -> Self {
        Checks {
            health: AtomicU8::new(Health::Unknown as u8),
            passed: Counter::new(),
            failed: Counter::new(),
            skipped: Counter::new(),
            history: Mutex::default(),
        }
    }
}

impl Checks {
    /// What they say now.
    pub(crate) fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            n if n == Health::Up as u8 => Health::Up,
            n if n == Health::Down as u8 => Health::Down,
            _ => Health::Unknown,
        }
    }

    /// How many passed, failed and were skipped.
    pub(crate) fn counts(&self) -> [u64; 3] {
        [self.passed.get(), self.failed.get(), self.skipped.get()]
    }

    /// The last one.
    pub(crate) fn last(&self) -> Option<LastCheck> {
        self.history().last.clone()
    }

    /// Since when it is in its state, in milliseconds of the monotonic clock; none when nothing is known.
    pub(crate) fn since(&self) -> Option<u64> {
        let history = self.history();
        (self.health() != Health::Unknown).then_some(history.since)
    }

    /// Takes in a check that ended `now`. Tells if it changed the state.
    pub(crate) fn note(&self, check: LastCheck, thresholds: Thresholds) -> Option<Change> {
        let now = check.at_ms;
        let passed = match check.result {
            CheckResult::Passed => true,
            CheckResult::Failed(_) => false,
            CheckResult::Skipped(_) => {
                self.skipped.add(1);
                self.history().last = Some(check);
                return None;
            }
        };
        if passed {
            self.passed.add(1)
        } else {
            self.failed.add(1)
        }
        let mut history = self.history();
        history.last = Some(check);
        let from = self.health();
        let (to, enough) = match (from, passed) {
            (Health::Up, true) | (Health::Down, false) => {
                history.against = 0;
                return None;
            }
            (Health::Unknown, true) => (Health::Up, 1),
            (Health::Unknown, false) => (Health::Down, 1),
            (Health::Up, false) => (Health::Down, thresholds.fall),
            (Health::Down, true) => (Health::Up, thresholds.rise),
        };
        history.against += 1;
        if history.against < enough {
            return None;
        }
        let in_a_row = std::mem::take(&mut history.against);
        let since = std::mem::replace(&mut history.since, now);
        self.health.store(to as u8, Relaxed);
        let after = (from != Health::Unknown).then(|| Duration::from_millis(now.saturating_sub(since)));
        Some(Change { from, to, after, in_a_row })
    }

    /// Forgets what is older than `max_age`: a group whose checks were off for some reloads knows nothing of the
    /// time between. The counters go on.
    pub(crate) fn forget_stale(&self, max_age: Duration, now: u64) {
        let mut history = self.history();
        let is_stale = |last: &LastCheck| u128::from(now.saturating_sub(last.at_ms)) > max_age.as_millis();
        if history.last.as_ref().is_some_and(is_stale) {
            *history = History::default();
            self.health.store(Health::Unknown as u8, Relaxed);
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // Nothing below can leave it half written, so that a poisoned one is as good.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 3 };

    fn note(checks: &Checks, now: u64, result: CheckResult) -> Option<Change> {
        checks.note(LastCheck { at_ms: now, took: Duration::from_millis(2), result }, THRESHOLDS)
    }

    fn failed() -> CheckResult {
        CheckResult::Failed("refused".into())
    }

    #[test]
    fn the_first_result_decides_at_once() {
        for (result, to) in [(CheckResult::Passed, Health::Up), (failed(), Health::Down)] {
            let checks = Checks::default();
            assert_eq!((checks.health(), checks.since()), (Health::Unknown, None));
            let change = note(&checks, 1000, result).unwrap();
            assert_eq!(change, Change { from: Health::Unknown, to, after: None, in_a_row: 1 });
            assert_eq!((checks.health(), checks.since()), (to, Some(1000)));
        }
    }

    #[test]
    fn it_takes_fall_failures_in_a_row_to_go_and_rise_successes_to_come_back() {
        let checks = Checks::default();
        note(&checks, 0, CheckResult::Passed);
        // Twice, then a success: the count begins again.
        for result in [failed(), failed(), CheckResult::Passed, failed(), failed()] {
            assert_eq!(note(&checks, 10, result), None);
        }
        let change = note(&checks, 5000, failed()).unwrap();
        let after = Some(Duration::from_secs(5));
        assert_eq!(change, Change { from: Health::Up, to: Health::Down, after, in_a_row: 3 });
        for result in [failed(), CheckResult::Passed, failed(), CheckResult::Passed] {
            assert_eq!(note(&checks, 6000, result), None);
        }
        let change = note(&checks, 7000, CheckResult::Passed).unwrap();
        let after = Some(Duration::from_secs(2));
        assert_eq!(change, Change { from: Health::Down, to: Health::Up, after, in_a_row: 2 });
        assert_eq!(checks.since(), Some(7000));
        assert_eq!(checks.counts(), [5, 7, 0]);
    }

    #[test]
    fn a_skipped_check_decides_nothing_and_breaks_no_row() {
        let checks = Checks::default();
        let skipped = || CheckResult::Skipped("no descriptors".into());
        assert_eq!(note(&checks, 0, skipped()), None);
        assert_eq!(checks.health(), Health::Unknown);
        note(&checks, 0, CheckResult::Passed);
        for result in [failed(), skipped(), failed(), skipped()] {
            assert_eq!(note(&checks, 1, result), None);
        }
        assert_eq!(checks.last().unwrap().result, skipped());
        assert_eq!(note(&checks, 2, failed()).unwrap().to, Health::Down);
        assert_eq!(checks.counts(), [1, 3, 3]);
    }

    #[test]
    fn what_is_stale_is_forgotten_and_what_is_fresh_is_kept() {
        let checks = Checks::default();
        note(&checks, 1000, failed());
        checks.forget_stale(Duration::from_secs(10), 11_000);
        assert_eq!(checks.health(), Health::Down);
        checks.forget_stale(Duration::from_secs(10), 11_001);
        assert_eq!((checks.health(), checks.last(), checks.since()), (Health::Unknown, None, None));
        assert_eq!(note(&checks, 12_000, CheckResult::Passed).unwrap().to, Health::Up);
    }
}
