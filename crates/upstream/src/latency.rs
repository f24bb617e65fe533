//! How long a peer has been taking to answer of late.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How long it takes until an observation counts for 1/e. Finagle and linkerd use the same: a peer that was slow once is
/// asked again within some seconds, and one that stays slow gets a connection now and then.
const DECAY_MS: f32 = 10_000.0;

/// What a failure counts as, unless it took longer. A port that refuses does so at once, and must not look fast for it.
const FAILURE: Duration = Duration::from_secs(1);

/// What a peer counts as that was sent connections and has not answered any yet.
const UNKNOWN_US: f32 = 1_000_000.0;

/// Below this, differences are noise; and peers that were not asked for long must not all come to zero, where the
/// connections that they have would make no difference any more.
const FLOOR_US: f32 = 1.0;

/// A moving average that jumps to what is worse and comes down slowly, and further down while nothing is observed.
///
/// Two numbers in one word, so that workers update both without a lock: above, the bits of the microseconds as an
/// `f32`; below, the milliseconds at which they were observed, without what exceeds 32 bits. An average that nobody
/// touched for 49 days looks fresh once more, and is outdated by the next connection. Zero is no observation.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

impl Latency {
    /// Takes in that an answer took so long.
    pub(crate) fn observe(&self, took: Duration, now: u64) {
        let sample = (took.as_secs_f32() * 1e6).max(FLOOR_US);
        let update = |word: u64| {
            let (old, at) = unpack(word);
            let keep = decay(at, now);
            let new =
                if word == 0 || sample > old * keep { sample } else { old * keep + sample * (1.0 - keep) };
            Some(pack(new, now))
        };
        // Never refused: the closure always has an answer.
        let _ = self.0.fetch_update(Relaxed, Relaxed, update);
    }

    /// Takes in that there was no answer, which was found out after so long.
    pub(crate) fn observe_failure(&self, took: Duration, now: u64) {
        self.observe(took.max(FAILURE), now);
    }

    /// The average now; none before the first observation.
    pub(crate) fn get(&self, now: u64) -> Option<Duration> {
        let word = self.0.load(Relaxed);
        (word != 0).then(|| Duration::from_secs_f32(self.now_us(word, now) / 1e6))
    }

    /// What one more connection costs at a peer that has `in_flight` and a share of `weight`.
    pub(crate) fn cost(&self, in_flight: u32, weight: u32, now: u64) -> f64 {
        let us = match self.0.load(Relaxed) {
            // Asked for the first time at once, and then no more until it has answered.
            0 if in_flight == 0 => 0.0,
            0 => UNKNOWN_US,
            word => self.now_us(word, now),
        };
        f64::from(us) * (f64::from(in_flight) + 1.0) / f64::from(weight.max(1))
    }

    fn now_us(&self, word: u64, now: u64) -> f32 {
        let (us, at) = unpack(word);
        (us * decay(at, now)).max(FLOOR_US)
    }
}

/// How much of an observation is left.
fn decay(at: u32, now: u64) -> f32 {
    let age = (now as u32).wrapping_sub(at);
    // Another thread's clock may be a moment ahead: that is no age of 49 days.
    let age = if age > u32::MAX - 60_000 { 0 } else { age };
    (-(age as f32) / DECAY_MS).exp()
}

fn pack(us: f32, now: u64) -> u64 {
    u64::from(us.to_bits()) << 32 | u64::from(now as u32)
}

fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(latency: &Latency, now: u64) -> f64 {
        latency.get(now).unwrap().as_secs_f64() * 1000.0
    }

    #[test]
    fn it_jumps_up_and_comes_down_slowly() {
        let latency = Latency::default();
        assert_eq!(latency.get(0), None);
        latency.observe(Duration::from_millis(10), 5);
        assert!((ms(&latency, 5) - 10.0).abs() < 0.01);
        latency.observe(Duration::from_millis(100), 6);
        assert!((ms(&latency, 6) - 100.0).abs() < 0.1, "at once");
        latency.observe(Duration::from_millis(10), 7);
        assert!(ms(&latency, 7) > 99.0, "one good answer is not forgiveness");
        for now in 8..10_007 {
            latency.observe(Duration::from_millis(10), now);
        }
        // 1/e of the 90 that it was too high.
        assert!((ms(&latency, 10_007) - 43.0).abs() < 1.0, "{}", ms(&latency, 10_007));
    }

    #[test]
    fn without_observations_it_decays_to_the_floor() {
        let latency = Latency::default();
        latency.observe(Duration::from_millis(100), 0);
        assert!((ms(&latency, 10_000) - 100.0 / std::f64::consts::E).abs() < 0.1);
        assert_eq!(latency.get(10_000_000), Some(Duration::from_micros(1)));
        assert!(latency.cost(9, 1, 10_000_000) > latency.cost(0, 1, 10_000_000));
    }

    #[test]
    fn a_clock_that_wraps_or_lags_is_no_age() {
        let latency = Latency::default();
        let late = u64::from(u32::MAX);
        latency.observe(Duration::from_millis(100), late);
        assert!((ms(&latency, late + 10_000) - 36.8).abs() < 0.1);
        assert!((ms(&latency, late - 4) - 100.0).abs() < 0.1);
    }

    #[test]
    fn cost_counts_connections_and_weights_and_what_is_unknown() {
        let latency = Latency::default();
        assert_eq!(latency.cost(0, 1, 0), 0.0);
        assert_eq!(latency.cost(1, 2, 0), 1e6);
        latency.observe(Duration::from_millis(1), 0);
        assert!((latency.cost(3, 2, 0) - 2000.0).abs() < 0.01);
        latency.observe_failure(Duration::from_micros(20), 0);
        assert_eq!(latency.get(0), Some(Duration::from_secs(1)), "quick to refuse is not quick");
    }

    #[test]
    fn threads_lose_no_peak() {
        for round in 0..200u64 {
            let latency = Latency::default();
            std::thread::scope(|scope| {
                for thread in 0..4u64 {
                    let latency = &latency;
                    scope.spawn(move || {
                        for n in 0..100 {
                            let peak = thread == round % 4 && n == 50;
                            latency
                                .observe(Duration::from_micros(if peak { 90_000 } else { 100 + n }), round);
                        }
                    });
                }
            });
            // All at one time, so that nothing decays: the highest must be what is left.
            assert!((ms(&latency, round) - 90.0).abs() < 0.1, "round {round}: {}", ms(&latency, round));
        }
    }
}
