//! Dates of HTTP (RFC 9110 section 5.6.7).

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const SECONDS_A_DAY: u64 = 86_400;
/// The last second that four digits of a year can name.
const LAST: u64 = 253_402_300_799;

/// How long a date is.
pub const DATE_LEN: usize = 29;

/// A date as `Date` and `Last-Modified` have it: `Sun, 06 Nov 1994 08:49:37 GMT`. `seconds` are those since 1970; beyond the
/// year 9999 it is its end.
pub fn date(seconds: u64) -> [u8; DATE_LEN] {
    let seconds = seconds.min(LAST);
    let (days, time) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
    let (year, month, day) = civil(days);
    let mut text = *b"Xxx, 00 Xxx 0000 00:00:00 GMT";
    // 1970 began on a Thursday.
    text[..3].copy_from_slice(DAYS[((days + 3) % 7) as usize].as_bytes());
    text[8..11].copy_from_slice(MONTHS[(month - 1) as usize].as_bytes());
    let mut two = |at: usize, number: u64| {
        text[at] += (number / 10 % 10) as u8;
        text[at + 1] += (number % 10) as u8;
    };
    two(5, day);
    two(12, year / 100);
    two(14, year % 100);
    two(17, time / 3600);
    two(20, time / 60 % 60);
    two(23, time % 60);
    text
}

/// The seconds since 1970 of a date in any of the three forms that have been in use. None for what is no date, and for
/// dates before 1970. `now`, in the same seconds, says which century two digits of a year are in.
pub fn parse_date(text: &[u8], now: u64) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (day_name, rest) = text.split_at_checked(text.find([',', ' '])?)?;
    if let Some(rest) = rest.strip_prefix(", ") {
        if DAYS.contains(&day_name) {
            let mut words = rest.split(' ');
            let (day, month, year) = (words.next()?, words.next()?, words.next()?);
            let time = words.next()?;
            let is_over = words.next() == Some("GMT") && words.next().is_none();
            return is_over.then(|| seconds(digits(year, 4)?, month, digits(day, 2)?, time))?;
        }
        return parse_rfc850(day_name, rest, now);
    }
    // The form of C's asctime, with a day of one digit behind a second space.
    if !DAYS.contains(&day_name) {
        return None;
    }
    let (month, rest) = rest.strip_prefix(' ')?.split_at_checked(3)?;
    let (day, rest) = rest.strip_prefix(' ')?.split_at_checked(2)?;
    let (time, year) = rest.strip_prefix(' ')?.split_once(' ')?;
    let day = match day.strip_prefix(' ') {
        Some(day) => digits(day, 1)?,
        None => digits(day, 2)?,
    };
    seconds(digits(year, 4)?, month, day, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`, behind the name of the day.
fn parse_rfc850(day_name: &str, rest: &str, now: u64) -> Option<u64> {
    let names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    if !names.contains(&day_name) {
        return None;
    }
    let (date, rest) = rest.split_once(' ')?;
    let mut words = date.split('-');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let (this_year, _, _) = civil(now.min(LAST) / SECONDS_A_DAY);
    let year = this_year / 100 * 100 + digits(year, 2)?;
    // More than fifty years ahead means the past.
    let year = if year > this_year + 50 { year - 100 } else { year };
    let time = rest.strip_suffix(" GMT").filter(|_| words.next().is_none())?;
    seconds(year, month, digits(day, 2)?, time)
}

fn digits(text: &str, len: usize) -> Option<u64> {
    let is_number = text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn seconds(year: u64, month: &str, day: u64, time: &str) -> Option<u64> {
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let mut words = time.split(':').map(|word| digits(word, 2));
    let (hour, minute, second) = (words.next()??, words.next()??, words.next()??);
    // A leap second is the next one.
    let is_time = words.next().is_none() && hour < 24 && minute < 60 && second <= 60;
    if !is_time || year < 1970 {
        return None;
    }
    let days = days_since_1970(year, month, day);
    // A day that its month does not have is one of the next month.
    (civil(days) == (year, month, day)).then_some(days * SECONDS_A_DAY + hour * 3600 + minute * 60 + second)
}

/// Days from 1970 to a date of the Gregorian calendar, from 1970 on. Years count from March, so that the leap day is their
/// last one.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, year) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day;
    // 719,469 days lie between the first of March of the year 0 and 1970, and one that `day` counts from.
    (era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year).saturating_sub(719_469)
}

/// Year, month and day of a day since 1970, by the calendar of today.
pub fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: u64 = 784_111_777;

    fn text(seconds: u64) -> String {
        String::from_utf8(date(seconds).to_vec()).unwrap()
    }

    #[test]
    fn dates_are_written_as_they_are_read() {
        assert_eq!(text(EXAMPLE), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(text(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(text(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 GMT");
        assert_eq!(text(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
        assert_eq!(text(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        for seconds in (0..LAST).step_by(86_399 * 37) {
            assert_eq!(parse_date(&date(seconds), 0), Some(seconds));
        }
    }

    #[test]
    fn old_forms_are_read() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse_date(text.as_bytes(), EXAMPLE), Some(EXAMPLE), "{text}");
        }
        let in_2026 = 1_780_000_000;
        let read =
            |text: &str| parse_date(text.as_bytes(), in_2026).map(|at| self::text(at)[12..16].to_owned());
        assert_eq!(read("Sunday, 06-Nov-76 08:49:37 GMT").as_deref(), Some("2076"));
        assert_eq!(read("Sunday, 06-Nov-77 08:49:37 GMT").as_deref(), Some("1977"));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "0",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 00 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 0000 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Nov, 06 Nov 1994 08:49:37 GMT",
            "Sun Nov 06 08:49:37 94",
            "Sun Nov\u{e9} 6 08:49:37 1994",
        ] {
            assert_eq!(parse_date(text.as_bytes(), EXAMPLE), None, "{text}");
        }
    }
}
