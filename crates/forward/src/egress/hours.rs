//! Times of the week, for rules that hold only then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What is written behind the `@` of a rule: `mon-fri`, `08:00-18:00`, `mon-fri/08:00-18:00`, with `/utc` behind it if it is
/// not the time of this machine's zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Hours {
    is_utc: bool,
    /// Minutes since Monday, 00:00; the end is not in it. In order and apart from each other.
    spans: Box<[(u16, u16)]>,
}

/// A minute of the week, here and in UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Minute {
    local: u16,
    utc: u16,
}

impl Hours {
    /// Reads them.
    ///
    /// # Errors
    /// What would be right.
    pub(super) fn parse(text: &str) -> Result<Hours, String> {
        let mut parts = text.split('/').peekable();
        let days = match parts.next_if(|part| !part.starts_with(|first: char| first.is_ascii_digit())) {
            Some(text) => days(text)?,
            None => [true; 7],
        };
        let (from, to) = match parts.next_if(|part| *part != "utc") {
            Some(text) => times(text)?,
            None => (0, DAY),
        };
        let is_utc = parts.next_if_eq(&"utc").is_some();
        if let Some(rest) = parts.next() {
            return Err(format!(
                "`{rest}` behind the time: only \"/utc\" may stand there; without it, local time is meant"
            ));
        }
        let mut minutes = vec![false; usize::from(WEEK)];
        // A span over midnight belongs to the day on which it begins.
        let length = if from < to { to - from } else { to + DAY - from };
        for (day, _) in (0u16..).zip(days).filter(|(_, is_meant)| *is_meant) {
            for minute in 0..length {
                minutes[usize::from((day * DAY + from + minute) % WEEK)] = true;
            }
        }
        Ok(Hours { is_utc, spans: spans(&minutes) })
    }

    /// Whether they hold then.
    pub(super) fn hold(&self, at: Minute) -> bool {
        let minute = if self.is_utc { at.utc } else { at.local };
        self.spans.iter().any(|(from, to)| (*from..*to).contains(&minute))
    }
}

fn days(text: &str) -> Result<[bool; 7], String> {
    let day = |name: &str| {
        let index = DAYS.iter().position(|day| *day == name);
        index.ok_or_else(|| {
            format!("`{name}` is no day: days are mon, tue, wed, thu, fri, sat and sun, as in \"@mon-fri/08:00-18:00\"")
        })
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for offset in 0..=(last + 7 - first) % 7 {
            days[(first + offset) % 7] = true;
        }
    }
    Ok(days)
}

/// Minutes of a day.
fn times(text: &str) -> Result<(u16, u16), String> {
    let time = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let (hour, minute): (u16, u16) =
            (digits(hour) && digits(minute)).then(|| hour.parse().ok().zip(minute.parse().ok())).flatten()?;
        (minute < 60 && hour * 60 + minute <= DAY).then_some(hour * 60 + minute)
    };
    let span = text.split_once('-').and_then(|(from, to)| time(from).zip(time(to)));
    span.filter(|(from, to)| from != to && *from < DAY).ok_or_else(|| {
        format!(
            "`{text}` is no span of time: it is written \"08:00-18:00\", or \"22:00-06:00\" over midnight"
        )
    })
}

fn spans(minutes: &[bool]) -> Box<[(u16, u16)]> {
    let mut spans: Vec<(u16, u16)> = Vec::new();
    for (minute, _) in (0u16..).zip(minutes).filter(|(_, holds)| **holds) {
        match spans.last_mut() {
            Some((_, end)) if *end == minute => *end += 1,
            _ => spans.push((minute, minute + 1)),
        }
    }
    spans.into()
}

impl Minute {
    /// The minute in which a moment lies.
    pub(super) fn of(now: SystemTime, zone: &TimeZone) -> Minute {
        let at = |zone: &TimeZone| {
            let now = Timestamp::try_from(now).unwrap_or_default().to_zoned(zone.clone());
            let day = now.weekday().to_monday_zero_offset().unsigned_abs();
            u16::from(day) * DAY
                + u16::from(now.hour().unsigned_abs()) * 60
                + u16::from(now.minute().unsigned_abs())
        };
        Minute { local: at(zone), utc: at(&TimeZone::UTC) }
    }
}

/// Tells the minute of the week. Zones are asked once a minute: their rules change on no less.
#[derive(Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    /// The minute since 1970 in the upper half, and what it was found to be.
    last: AtomicU64,
}

impl Clock {
    /// A clock of this machine's zone.
    pub(super) fn system() -> Clock {
        Clock { zone: TimeZone::system(), last: AtomicU64::new(0) }
    }

    /// The minute in which it is now.
    pub(super) fn minute(&self) -> Minute {
        let now = SystemTime::now();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let key = since.as_secs() / 60;
        let last = self.last.load(Ordering::Relaxed);
        if last >> 32 == key {
            return Minute { local: (last >> 16) as u16, utc: last as u16 };
        }
        let minute = Minute::of(now, &self.zone);
        let found = key << 32 | u64::from(minute.local) << 16 | u64::from(minute.utc);
        self.last.store(found, Ordering::Relaxed);
        minute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment of the week in which 2026-11-23 is Monday.
    fn at(text: &str) -> Minute {
        let now: Timestamp = text.parse().unwrap();
        Minute::of(now.into(), &TimeZone::fixed(jiff::tz::offset(2)))
    }

    #[test]
    fn hours_hold_when_they_say() {
        for (hours, holds, not) in [
            ("08:00-18:00", "2026-11-23T06:00:00Z", "2026-11-23T16:00:00Z"),
            ("08:00-18:00/utc", "2026-11-23T17:59:59Z", "2026-11-23T18:00:00Z"),
            ("mon-fri", "2026-11-27T21:59:00Z", "2026-11-27T22:00:00Z"),
            ("mon-fri/utc", "2026-11-27T23:59:00Z", "2026-11-28T00:00:00Z"),
            ("sat,sun/utc", "2026-11-29T12:00:00Z", "2026-11-27T12:00:00Z"),
            ("fri-mon/utc", "2026-11-23T12:00:00Z", "2026-11-24T12:00:00Z"),
            ("mon/22:00-06:00/utc", "2026-11-24T05:59:00Z", "2026-11-23T05:59:00Z"),
            ("sun/22:00-06:00/utc", "2026-11-23T05:59:00Z", "2026-11-24T05:59:00Z"),
            ("mon-fri/08:00-24:00/utc", "2026-11-23T23:59:00Z", "2026-11-24T00:00:00Z"),
        ] {
            let parsed = Hours::parse(hours).unwrap();
            assert!(parsed.hold(at(holds)), "{hours} at {holds}");
            assert!(!parsed.hold(at(not)), "{hours} at {not}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "/",
            "monday",
            "mon-",
            "mon/",
            "mon/8:00-18:00",
            "08:00",
            "08:00-",
            "08:00-25:00",
            "08:60-09:00",
            "08:00-08:00",
            "24:00-06:00",
            "mon-fri/08:00-18:00/Europe",
            "utc",
            "+8:00-09:00",
            "08:00-18:00/utc/utc",
            "Mon",
        ] {
            assert!(Hours::parse(text).is_err(), "{text:?}");
        }
        assert!(Hours::parse("mo").unwrap_err().contains("@mon-fri/08:00-18:00"));
    }

    #[test]
    fn the_clock_is_right_the_second_time_too() {
        let clock = Clock::system();
        let minute = clock.minute();
        let again = Minute::of(SystemTime::now(), &clock.zone);
        // It may have struck in between.
        let is_next = again.utc == (minute.utc + 1) % WEEK;
        assert!(clock.minute() == again || is_next, "{minute:?} {again:?}");
    }
}
