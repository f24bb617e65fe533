//! Lengths of time: `"250ms"`, `"30s"`, `"1h30m"`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Unit, UnitError, split_number};

/// A length of time as a person writes it: one or more numbers with a unit, the larger unit first, out of
/// `d`, `h`, `m`, `s` and `ms`. A millisecond is the finest grain and 36,500 days the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(Duration);

/// A hundred years: nobody waits longer, and it leaves every sum of a time and a duration far from overflow.
const MAX_MILLIS: u64 = 36_500 * 86_400_000;

/// Largest first, the order in which they are written.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl HumanDuration {
    /// The longest duration, 36,500 days.
    pub const MAX: Self = Self(Duration::from_millis(MAX_MILLIS));

    /// So many milliseconds; [`MAX`](Self::MAX) when it would be more.
    pub const fn from_millis(millis: u64) -> Self {
        if millis > MAX_MILLIS { Self::MAX } else { Self(Duration::from_millis(millis)) }
    }

    /// So many seconds; [`MAX`](Self::MAX) when it would be more.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1_000))
    }

    /// The duration for the rest of the program.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// The duration in whole milliseconds, which is exact.
    pub const fn as_millis(self) -> u64 {
        // At most `MAX_MILLIS`, so that nothing is cut off.
        self.0.as_millis() as u64
    }

    /// Whether this is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let malformed = UnitError::Malformed(Self::FORM);
        let mut total: Option<u64> = Some(0);
        let mut units = UNITS.iter();
        let mut rest = text;
        loop {
            let (number, tail) = split_number(rest).ok_or(malformed)?;
            let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (name, tail) = tail.split_at(end);
            if name.is_empty() {
                return Err(UnitError::NoUnit(Self::FORM));
            }
            // The iterator never goes back: a unit that is repeated or out of order is not found again.
            let (_, millis) = units.find(|(unit, _)| *unit == name).ok_or(malformed)?;
            let part = number.and_then(|n| n.checked_mul(*millis));
            total = total.zip(part).and_then(|(total, part)| total.checked_add(part));
            if tail.is_empty() {
                break;
            }
            rest = tail;
        }
        // An overflow is only reported once the form is known to be right.
        match total {
            Some(millis) if millis <= MAX_MILLIS => Ok(Self::from_millis(millis)),
            _ => Err(UnitError::TooLarge("36500d")),
        }
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0s");
        }
        let mut left = self.as_millis();
        for (unit, millis) in UNITS {
            let count = left / millis;
            left %= millis;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Unit for HumanDuration {
    const FORM: &'static str = r#"a duration like "250ms", "30s", "5m" or "1h30m""#;
}

impl serde::Serialize for HumanDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for HumanDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::deserialize(deserializer)
    }
}

impl schemars::JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            // Every part is optional in the pattern, so that the length has to forbid the empty text.
            "minLength": 2,
            "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
            "description": Self::FORM,
        })
    }
}
