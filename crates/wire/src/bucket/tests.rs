use std::num::NonZeroU64;

use proptest::prelude::*;

use super::*;
use crate::units::Period;

/// Far enough from the clock's beginning that a full burst lies behind it.
const BEGIN: u64 = 1 << 50;

fn rate(bytes_per_second: u64) -> ByteRate {
    ByteRate::new(NonZeroU64::new(bytes_per_second).unwrap())
}

fn often(count: u64, period: Period, burst: Option<u32>) -> Frequency {
    Frequency::new(CountRate::new(NonZeroU64::new(count).unwrap(), period), burst)
}

/// A source that always has more, looked at by a timer that is up to `late` nanoseconds late: what passed, and when.
fn play_stream(rate: ByteRate, late: impl Fn(u64) -> u64, until: u64) -> Vec<(u64, u64)> {
    let pace = Pace::of_stream(rate);
    let mut bucket = Bucket::new(pace);
    let mut now = BEGIN;
    let mut passed = Vec::new();
    while now < BEGIN + until {
        let bytes = pace.piece() as u64;
        let at = bucket.reserve(now, bytes);
        if at > now {
            now = at + late(at);
        }
        passed.push((now, bytes));
    }
    passed
}

#[test]
fn a_stream_is_even_at_any_rate() {
    for (rate_of, most_at_once, most_a_second) in
        [(1 << 10, 64, 17), (64 << 10, 4 << 10, 17), (4 << 20, 168 << 10, 251), (1 << 30, 11 << 20, 251)]
    {
        let passed = play_stream(rate(rate_of), |at| 1_000_000 - at % 1_000_000, SECOND);
        let mut by_moment: Vec<(u64, u64)> = Vec::new();
        for (now, bytes) in passed {
            match by_moment.last_mut() {
                Some(last) if last.0 == now => last.1 += bytes,
                _ => by_moment.push((now, bytes)),
            }
        }
        let total: u64 = by_moment.iter().map(|(_, bytes)| bytes).sum();
        assert!(total.abs_diff(rate_of) * 50 <= rate_of + 50 * Pace::of_stream(rate(rate_of)).burst_bytes());
        assert!(by_moment.iter().all(|(_, bytes)| *bytes <= most_at_once), "{rate_of}: {by_moment:?}");
        assert!(by_moment.len() <= most_a_second + 2, "{rate_of}: woken {} times", by_moment.len());
    }
}

#[test]
fn what_did_not_pass_is_not_charged() {
    let mut bucket = Bucket::new(Pace::of_stream(rate(1000)));
    let mut passed = 0;
    let mut now = BEGIN;
    while now < BEGIN + 10 * SECOND {
        now = now.max(bucket.reserve(now, 60));
        bucket.give_back(40);
        passed += 20;
    }
    assert!((10_000..=10_000 + 100).contains(&passed), "{passed}");
}

#[test]
fn who_comes_later_gets_a_later_place() {
    let (pace, shared) = (Pace::of_stream(rate(1 << 20)), SharedBucket::default());
    let bytes = pace.piece() as u64;
    let places: Vec<u64> = (0..100).map(|_| shared.reserve(&pace, BEGIN, bytes)).collect();
    assert!(places.is_sorted_by(|a, b| a < b));
    let span = places[99] - BEGIN;
    assert!(span.abs_diff(pace.cost(100 * bytes) - pace.burst) <= 100, "{span}");
    shared.give_back(&pace, bytes);
    assert!(shared.reserve(&pace, BEGIN, bytes).abs_diff(places[99]) <= 1);
}

#[test]
fn a_datagram_larger_than_the_burst_passes_a_full_bucket() {
    let pace = Pace::of_datagrams(rate(1000));
    let mut bucket = Bucket::new(pace);
    assert!(pace.burst_bytes() < 60_000 && bucket.admit(BEGIN, 60_000));
    // A minute's worth, three seconds of which were saved up.
    assert!(!bucket.admit(BEGIN + 57 * SECOND, 100), "the debt is still there");
    assert!(bucket.admit(BEGIN + 58 * SECOND, 100));
}

#[test]
fn a_burst_of_events_is_as_large_as_said() {
    for (frequency, at_once, later) in [
        (often(10, Period::Second, None), 10, SECOND / 10),
        (often(600, Period::Minute, None), 600, SECOND / 10),
        (often(10, Period::Second, Some(3)), 3, SECOND / 10),
        (often(5, Period::Hour, Some(0)), 1, 720 * SECOND),
    ] {
        let mut paid = 0;
        let mut come = |now| {
            let after = frequency.reserve(paid, now);
            paid = if after <= now { after } else { paid };
            after <= now
        };
        assert_eq!((0..1000).filter(|_| come(BEGIN)).count(), at_once);
        assert!(!come(BEGIN + later - 1) && come(BEGIN + later) && !come(BEGIN + later));
    }
}

#[test]
fn threads_share_a_rate() {
    let (pace, shared) = (Pace::of_datagrams(rate(1 << 20)), SharedBucket::default());
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for step in 0..20_000 {
                    if shared.admit(&pace, BEGIN + step * 50_000, 1000) {
                        passed.fetch_add(1000, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    // A second's worth. A thread that lags behind sees less credit than there is, never more.
    let passed = passed.into_inner();
    assert!(passed <= (1 << 20) + pace.burst_bytes(), "{passed}");
    assert!(passed >= 1 << 19, "{passed}");
}

proptest! {
    /// Whatever the rate and however the timer errs, within its tolerance the average holds and no stretch of time gets
    /// more than its share and one burst.
    #[test]
    fn the_average_holds_and_no_burst_exceeds_the_allowance(
        rate_of in 1u64 << 10..1 << 34,
        lateness in prop::collection::vec(0..9_000_000u64, 1..50),
        window in 1..400usize,
    ) {
        let pace = Pace::of_stream(rate(rate_of));
        let late = |at: u64| lateness[(at % lateness.len() as u64) as usize];
        // Long enough for one burst to be below a percent of it.
        let passed = play_stream(rate(rate_of), late, 16 * SECOND);
        let total: u64 = passed.iter().map(|(_, bytes)| bytes).sum();
        let took = passed.last().unwrap().0 - BEGIN;
        let due = (u128::from(rate_of) * u128::from(took) / u128::from(SECOND)) as u64;
        prop_assert!(total.abs_diff(due) * 100 <= due + 100, "{} of {}", total, due);
        for stretch in passed.windows(window).step_by(window / 2 + 1) {
            let bytes: u64 = stretch.iter().map(|(_, bytes)| bytes).sum();
            let took = stretch[window - 1].0 - stretch[0].0;
            let due = (u128::from(rate_of) * u128::from(took) / u128::from(SECOND)) as u64;
            prop_assert!(bytes <= due + pace.burst_bytes() + pace.piece() as u64, "{} in {} ns", bytes, took);
        }
    }

    /// No argument whatsoever makes it panic.
    #[test]
    fn any_number_will_do(rate_of in 1..u64::MAX, now: u64, bytes: u64, more: u64) {
        for pace in [Pace::of_stream(rate(rate_of)), Pace::of_datagrams(rate(rate_of))] {
            let mut bucket = Bucket::new(pace);
            bucket.reserve(now, bytes);
            bucket.give_back(more);
            bucket.admit(now.saturating_add(more), bytes);
            bucket.reserve(u64::MAX, more);
        }
        for period in [Period::Second, Period::Minute, Period::Hour] {
            let frequency = often(rate_of, period, Some(more as u32));
            frequency.reserve(bytes, now);
        }
    }
}
