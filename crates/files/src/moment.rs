//! A moment as calendars and clocks in UTC have it.

use wmproxy_wire::head::civil;

/// The last second that four digits of a year can name.
const LAST: u64 = 253_402_300_799;

/// How long a moment is as text.
pub(crate) const TEXT_LEN: usize = 20;

/// A second of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) year: u64,
    pub(crate) month: u64,
    pub(crate) day: u64,
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: u64,
}

impl Moment {
    /// So many seconds after the beginning of 1970; beyond the year 9999 it is its end.
    pub(crate) fn at(seconds: u64) -> Moment {
        let seconds = seconds.min(LAST);
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
        Moment { year, month, day, hour, minute, second: seconds % 60 }
    }

    /// As in RFC 3339: `1994-11-06T08:49:37Z`.
    pub(crate) fn text(&self) -> [u8; TEXT_LEN] {
        let mut text = *b"0000-00-00T00:00:00Z";
        let mut two = |at: usize, number: u64| {
            text[at] += (number / 10 % 10) as u8;
            text[at + 1] += (number % 10) as u8;
        };
        two(0, self.year / 100);
        two(2, self.year % 100);
        two(5, self.month);
        two(8, self.day);
        two(11, self.hour);
        two(14, self.minute);
        two(17, self.second);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_in_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (784_111_777, "1994-11-06T08:49:37Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Moment::at(seconds).text(), text.as_bytes());
        }
    }
}
