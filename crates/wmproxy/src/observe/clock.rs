//! The local time in logs.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;

use super::escape::push_digits;

/// One second, broken down. Lines come many a second, so a thread does this once for all of them.
#[derive(Debug, Default)]
struct Second {
    unix: i64,
    /// `2026-11-22`
    date: String,
    /// `15:04:05`
    time: String,
    /// `+01:00`
    offset: String,
    /// `22/Nov/2026:15:04:05 +0100`
    common: String,
}

thread_local! {
    static SECOND: RefCell<Second> = const { RefCell::new(Second {
        unix: i64::MIN, date: String::new(), time: String::new(), offset: String::new(), common: String::new(),
    }) };
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Read once: the file behind it is nothing for a worker to look at.
static ZONE: OnceLock<TimeZone> = OnceLock::new();

/// Appends `2026-11-22T15:04:05.123+01:00` (RFC 3339).
pub(super) fn push_rfc3339(out: &mut Vec<u8>, at: SystemTime) {
    with(at, |s, ms| {
        push_second(out, s, b'T', ms);
        out.extend_from_slice(s.offset.as_bytes());
    });
}

/// Appends `2026-11-22 15:04:05.123`, for people who sit in the same place.
pub(super) fn push_readable(out: &mut Vec<u8>, at: SystemTime) {
    with(at, |s, ms| push_second(out, s, b' ', ms));
}

/// Appends `22/Nov/2026:15:04:05 +0100`, as the common log format of web servers has it.
pub(super) fn push_common(out: &mut Vec<u8>, at: SystemTime) {
    with(at, |s, _| out.extend_from_slice(s.common.as_bytes()));
}

/// `2026-11-22T15:04:05.123+01:00` (RFC 3339).
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let mut out = Vec::new();
    push_rfc3339(&mut out, at);
    String::from_utf8_lossy(&out).into_owned()
}

fn push_second(out: &mut Vec<u8>, second: &Second, between: u8, millis: u32) {
    out.extend_from_slice(second.date.as_bytes());
    out.push(between);
    out.extend_from_slice(second.time.as_bytes());
    out.push(b'.');
    push_digits(out, millis.into(), 3);
}

fn with(at: SystemTime, f: impl FnOnce(&Second, u32)) {
    // A clock before 1970 is not set; which wrong time it shows does not matter.
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix = i64::try_from(since.as_secs()).unwrap_or_default();
    SECOND.with_borrow_mut(|second| {
        if second.unix != unix {
            *second = break_down(unix);
        }
        f(second, since.subsec_millis());
    });
}

fn break_down(unix: i64) -> Second {
    let zone = ZONE.get_or_init(TimeZone::system);
    let zoned = jiff::Timestamp::from_second(unix).unwrap_or_default().to_zoned(zone.clone());
    let offset = zoned.offset().seconds();
    let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs() / 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let time = format!("{:02}:{:02}:{:02}", zoned.hour(), zoned.minute(), zoned.second());
    let month = MONTHS[usize::from(zoned.month().unsigned_abs()) - 1];
    let day = format!("{:02}/{month}/{}", zoned.day(), zoned.year());
    Second {
        unix,
        date: zoned.date().to_string(),
        offset: format!("{sign}{hours:02}:{minutes:02}"),
        common: format!("{day}:{time} {sign}{hours:02}{minutes:02}"),
        time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_printed_time_is_the_time() {
        for millis in [0, 1_000, 1_700_000_000_123, 1_782_864_000_999] {
            let at = UNIX_EPOCH + Duration::from_millis(millis);
            let printed = rfc3339(at);
            let parsed: jiff::Timestamp = printed.parse().unwrap();
            assert_eq!(parsed.as_millisecond(), millis as i64, "{printed}");
            let mut readable = Vec::new();
            push_readable(&mut readable, at);
            assert_eq!(String::from_utf8(readable).unwrap(), printed[..23].replace('T', " "));
            let mut common = Vec::new();
            push_common(&mut common, at);
            let common = String::from_utf8(common).unwrap();
            let parsed = jiff::Timestamp::strptime("%d/%b/%Y:%H:%M:%S %z", &common).unwrap();
            assert_eq!(parsed.as_second(), (millis / 1000) as i64, "{common}");
        }
    }
}
