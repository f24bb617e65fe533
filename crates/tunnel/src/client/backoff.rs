//! How long to wait before the next attempt.

use std::time::Duration;

use wmproxy_runtime::entropy;

/// The first pause that is worth the name.
const FIRST: Duration = Duration::from_millis(250);

/// The most that the very first attempt after a loss is put off by: clients that lose a server at the same moment do not come
/// back in the same one.
const SPREAD: Duration = Duration::from_millis(100);

/// Pauses that double, each somewhere between a half and the whole of what it could be.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The next pause at its longest; none for the first attempt.
    next: Option<Duration>,
    longest: Duration,
}

impl Backoff {
    /// Pauses up to `longest`, which they reach in the end.
    pub(super) fn new(longest: Duration) -> Backoff {
        Backoff { next: None, longest }
    }

    /// Begins anew: all went well for long enough.
    pub(super) fn reset(&mut self) {
        self.next = None;
    }

    /// The next pause, no longer than `most`.
    pub(super) fn pause(&mut self, most: Duration) -> Duration {
        let Some(whole) = self.next else {
            self.next = Some(FIRST.min(self.longest));
            return share(SPREAD.min(self.longest));
        };
        self.next = Some(whole.saturating_mul(2).min(self.longest));
        let half = whole.min(most) / 2;
        half + share(half)
    }
}

/// Any part of `whole`.
pub(super) fn share(whole: Duration) -> Duration {
    let mut random = [0; 4];
    entropy::fill(&mut random);
    whole.mul_f64(f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(SECOND);
        for _ in 0..2 {
            assert!(backoff.pause(Duration::MAX) <= SPREAD);
            for whole in [250, 500, 1000, 1000, 1000].map(Duration::from_millis) {
                let pause = backoff.pause(Duration::MAX);
                assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
            }
            assert!(backoff.pause(Duration::from_millis(10)) <= Duration::from_millis(10));
            backoff.reset();
        }
    }

    #[test]
    fn clients_that_fail_together_do_not_come_together() {
        let pauses: std::collections::HashSet<Duration> = (0..100).map(|_| share(SECOND)).collect();
        assert!(pauses.len() > 90 && pauses.iter().all(|pause| *pause <= SECOND));
    }

    #[test]
    fn a_pause_is_never_longer_than_it_may_be() {
        let mut backoff = Backoff::new(Duration::from_millis(20));
        for _ in 0..5 {
            assert!(backoff.pause(Duration::MAX) <= Duration::from_millis(20));
        }
    }
}
