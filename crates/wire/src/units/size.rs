//! Amounts of bytes: `"64k"`, `"10m"`, `4096`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::{Unit, UnitError, split_number};

/// An amount of bytes: a number, or a number with `k`, `m`, `g` or `t` (of either case) for the powers of
/// 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

/// Largest first, so that printing finds the shortest form.
const UNITS: [(char, u64); 4] = [('t', 1 << 40), ('g', 1 << 30), ('m', 1 << 20), ('k', 1 << 10)];

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The amount in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The amount in bytes as a length in memory; the longest one where the address space is smaller.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let malformed = UnitError::Malformed(Self::FORM);
        let (number, rest) = split_number(text).ok_or(malformed)?;
        let mut suffix = rest.chars();
        let scale = match (suffix.next(), suffix.next()) {
            (None, _) => 1,
            (Some(letter), None) => UNITS
                .iter()
                .find(|(unit, _)| unit.eq_ignore_ascii_case(&letter))
                .map(|(_, scale)| *scale)
                .ok_or(malformed)?,
            _ => return Err(malformed),
        };
        let bytes = number.and_then(|n| n.checked_mul(scale));
        bytes.map(Self).ok_or(UnitError::TooLarge("18446744073709551615 bytes"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale)) {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Unit for ByteSize {
    const FORM: &'static str = r#"a size like "64k", "10m", "1g" or a number of bytes"#;

    fn from_integer(number: u64) -> Result<Self, UnitError> {
        Ok(Self(number))
    }
}

impl serde::Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::deserialize(deserializer)
    }
}

impl schemars::JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": "^[0-9]+[kmgtKMGT]?$",
            "description": Self::FORM,
        })
    }
}
