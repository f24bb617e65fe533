//! A clock that is cheap enough to be read for every packet.

use std::ops::Add;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of the monotonic clock. Only differences mean anything; the default is before all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(pub u64);

impl Ticks {
    /// The time from `earlier` to here; zero if that lies later.
    pub fn since(self, earlier: Ticks) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Ticks {
    type Output = Ticks;

    fn add(self, duration: Duration) -> Ticks {
        Ticks(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The monotonic time, up to one kernel tick (4 ms at 250 Hz) late.
///
/// The coarse clock is read in the vDSO without touching the cycle counter, in some 5 ns; idle timeouts need no more.
#[inline]
pub fn now() -> Ticks {
    let at = clock_gettime(ClockId::MonotonicCoarse);
    Ticks(at.tv_sec.unsigned_abs() * 1000 + at.tv_nsec.unsigned_abs() / 1_000_000)
}

/// The monotonic time in nanoseconds, exact. It reads the cycle counter, which takes some 25 ns: for what is limited in
/// rate, not for every packet.
#[inline]
pub fn precise() -> u64 {
    let at = clock_gettime(ClockId::Monotonic);
    at.tv_sec.unsigned_abs() * 1_000_000_000 + at.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_forward_with_real_time() {
        // The time by which the others are judged begins before theirs, and ends behind it.
        let began = std::time::Instant::now();
        let (start, exact) = (now(), precise());
        std::thread::sleep(Duration::from_millis(30));
        let (coarse, exact) = (now().since(start), Duration::from_nanos(precise() - exact));
        let real = began.elapsed();
        assert!(
            coarse >= Duration::from_millis(18) && coarse <= real + Duration::from_millis(12),
            "{coarse:?} {real:?}"
        );
        assert!(exact >= Duration::from_millis(30) && exact <= real + Duration::from_millis(1));
        assert_eq!(Ticks(1).since(Ticks(2)), Duration::ZERO);
        assert_eq!(Ticks(1) + Duration::MAX, Ticks(u64::MAX));
    }
}
