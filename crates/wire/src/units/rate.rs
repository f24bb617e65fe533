//! Amounts in a time: bytes (`"4m/s"`) and counts (`"10/s"`, `"600/m"`).

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use super::{ByteSize, Unit, UnitError, split_number};

/// Bytes in a second, never zero: a size as of [`ByteSize`] and `/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRate(NonZeroU64);

/// Events in a period, never zero. `"60/m"` and `"1/s"` are different values: they allow the same average,
/// but a limiter may let the first come in a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CountRate {
    count: NonZeroU64,
    period: Period,
}

/// The time over which a [`CountRate`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// `/s`
    Second,
    /// `/m`
    Minute,
    /// `/h`
    Hour,
}

impl ByteRate {
    /// So many bytes in a second.
    pub const fn new(bytes_per_second: NonZeroU64) -> Self {
        Self(bytes_per_second)
    }

    /// Bytes in a second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0.get()
    }
}

impl CountRate {
    /// So many events in each period.
    pub const fn new(count: NonZeroU64, period: Period) -> Self {
        Self { count, period }
    }

    /// Events in one [`period`](Self::period).
    pub const fn count(self) -> u64 {
        self.count.get()
    }

    /// The time over which the count is meant.
    pub const fn period(self) -> Period {
        self.period
    }
}

impl Period {
    /// How long the period is.
    pub const fn duration(self) -> Duration {
        match self {
            Self::Second => Duration::from_secs(1),
            Self::Minute => Duration::from_secs(60),
            Self::Hour => Duration::from_secs(3_600),
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Second => 's',
            Self::Minute => 'm',
            Self::Hour => 'h',
        }
    }
}

impl FromStr for ByteRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let malformed = UnitError::Malformed(Self::FORM);
        let Some(size) = text.strip_suffix("/s") else {
            let bare = text.parse::<ByteSize>().is_ok();
            return Err(if bare { UnitError::NoUnit(Self::FORM) } else { malformed });
        };
        let size: ByteSize = size.parse().map_err(|e| match e {
            UnitError::TooLarge(_) => e,
            _ => malformed,
        })?;
        NonZeroU64::new(size.get()).map(Self).ok_or(UnitError::ZeroRate(Self::FORM))
    }
}

impl FromStr for CountRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, rest) = split_number(text).ok_or(UnitError::Malformed(Self::FORM))?;
        let period = match rest {
            "/s" => Period::Second,
            "/m" => Period::Minute,
            "/h" => Period::Hour,
            "" => return Err(UnitError::NoUnit(Self::FORM)),
            _ => return Err(UnitError::Malformed(Self::FORM)),
        };
        let number = number.ok_or(UnitError::TooLarge("18446744073709551615"))?;
        let count = NonZeroU64::new(number).ok_or(UnitError::ZeroRate(Self::FORM))?;
        Ok(Self { count, period })
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", ByteSize::new(self.0.get()))
    }
}

impl fmt::Display for CountRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.period.letter())
    }
}

impl Unit for ByteRate {
    const FORM: &'static str = r#"bytes in a second like "64k/s" or "4m/s""#;
}

impl Unit for CountRate {
    const FORM: &'static str = r#"a rate like "10/s", "600/m" or "1000/h""#;
}

impl serde::Serialize for ByteRate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl serde::Serialize for CountRate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ByteRate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::deserialize(deserializer)
    }
}

impl<'de> serde::Deserialize<'de> for CountRate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::deserialize(deserializer)
    }
}

impl schemars::JsonSchema for ByteRate {
    fn schema_name() -> Cow<'static, str> {
        "ByteRate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^0*[1-9][0-9]*[kmgtKMGT]?/s$",
            "description": Self::FORM,
        })
    }
}

impl schemars::JsonSchema for CountRate {
    fn schema_name() -> Cow<'static, str> {
        "CountRate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^0*[1-9][0-9]*/[smh]$",
            "description": Self::FORM,
        })
    }
}
