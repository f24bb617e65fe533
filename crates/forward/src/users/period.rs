//! Days and months of the calendar, UTC, over which quotas are counted.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use wmproxy_wire::head::civil;

use crate::options::QuotaPeriod;

const SECONDS_A_DAY: u64 = 86_400;

/// A certain day or month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Period {
    year: u64,
    month: u64,
    /// 0 for the whole month.
    day: u64,
}

impl Period {
    /// The one in which `now` lies.
    pub(super) fn of(kind: QuotaPeriod, now: SystemTime) -> Period {
        // Before 1970 no clock is set.
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (year, month, day) = civil(seconds / SECONDS_A_DAY);
        match kind {
            QuotaPeriod::Day => Period { year, month, day },
            QuotaPeriod::Month => Period { year, month, day: 0 },
        }
    }

    /// Whether it is a day or a month.
    pub(super) fn kind(self) -> QuotaPeriod {
        if self.day == 0 { QuotaPeriod::Month } else { QuotaPeriod::Day }
    }

    /// Whether `other` takes its place: a later one, or one of another kind. A clock that was set back does not make an earlier
    /// one begin anew.
    pub(super) fn gives_way_to(self, other: Period) -> bool {
        other.kind() != self.kind() || other > self
    }
}

impl fmt::Display for Period {
    /// `2026-11-23`, or `2026-11`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Period { year, month, day } = self;
        write!(f, "{year:04}-{month:02}")?;
        if *day == 0 { Ok(()) } else { write!(f, "-{day:02}") }
    }
}

impl FromStr for Period {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Period, &'static str> {
        let mut parts = text.split('-').map(|part| part.parse::<u64>().ok());
        let parsed = match [parts.next(), parts.next(), parts.next(), parts.next()] {
            [Some(Some(year)), Some(Some(month)), None, None] => Some(Period { year, month, day: 0 }),
            [Some(Some(year)), Some(Some(month)), Some(Some(day)), None] if day > 0 => {
                Some(Period { year, month, day })
            }
            _ => None,
        };
        parsed
            .filter(|period| (1..=12).contains(&period.month) && period.day <= 31)
            .ok_or("expected a day like 2026-11-23 or a month like 2026-11")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn days_and_months_change_at_midnight_utc() {
        // 2024-02-29T23:59:59Z, a leap day.
        let last = 1_709_251_199;
        for (kind, before, after) in
            [(QuotaPeriod::Day, "2024-02-29", "2024-03-01"), (QuotaPeriod::Month, "2024-02", "2024-03")]
        {
            let [one, other] = [last, last + 1].map(|seconds| Period::of(kind, at(seconds)));
            assert_eq!((one.to_string(), other.to_string()), (before.to_owned(), after.to_owned()));
            assert!(one.gives_way_to(other) && !other.gives_way_to(one) && !one.gives_way_to(one));
            assert_eq!((before.parse(), one.kind()), (Ok(one), kind));
        }
        let [day, month] = [QuotaPeriod::Day, QuotaPeriod::Month].map(|kind| Period::of(kind, at(last)));
        assert!(day.gives_way_to(month) && month.gives_way_to(day));
    }

    #[test]
    fn what_is_no_period_is_refused() {
        for text in ["", "2024", "2024-13", "2024-00-01", "2024-01-00", "2024-01-32", "2024-01-01-01", "x-01"]
        {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
