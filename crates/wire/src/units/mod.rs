//! The quantities a configuration file speaks of: durations, sizes, rates and secrets.
//!
//! Each is a small value that reads one form of text, prints it back canonically, and knows its JSON
//! schema. What lives here is only reading and writing them; what a quantity means (which timeout, which
//! limit) belongs to the room whose option it is.

mod duration;
mod rate;
mod secret;
mod size;
#[cfg(test)]
mod tests;

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

pub use duration::HumanDuration;
pub use rate::{ByteRate, CountRate, Period};
pub use secret::Secret;
pub use size::ByteSize;

/// Why a text is not the quantity it should be. Its [`Display`](fmt::Display) says what would be right;
/// it never repeats the text, which the reader sees underlined and which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnitError {
    /// The text has another form; the field describes the right one.
    Malformed(&'static str),
    /// A bare number where the unit matters; the field describes the right form.
    NoUnit(&'static str),
    /// The quantity is above the limit that the field names.
    TooLarge(&'static str),
    /// A rate of nothing, which would never let anything pass; the field describes the right form.
    ZeroRate(&'static str),
    /// An empty secret, which everybody would know.
    EmptySecret,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(right) => write!(f, "expected {right}"),
            Self::NoUnit(right) => write!(f, "the number has no unit; expected {right}"),
            Self::TooLarge(limit) => write!(f, "too large; the most is {limit}"),
            Self::ZeroRate(right) => {
                write!(f, "a rate of zero lets nothing pass; expected {right}, or leave it out for no limit")
            }
            Self::EmptySecret => f.write_str("expected a secret that is not empty"),
        }
    }
}

impl std::error::Error for UnitError {}

/// A quantity that is written as text, and the description of that text for errors.
trait Unit: FromStr<Err = UnitError> {
    const FORM: &'static str;

    /// Reads a bare number, where a number alone has one meaning.
    fn from_integer(_number: u64) -> Result<Self, UnitError> {
        Err(UnitError::NoUnit(Self::FORM))
    }
}

fn deserialize<'de, T: Unit, D: serde::Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    // `any`, because a quantity may be a number as well and the value decides which it is.
    deserializer.deserialize_any(UnitVisitor(PhantomData))
}

struct UnitVisitor<T>(PhantomData<T>);

impl<T: Unit> serde::de::Visitor<'_> for UnitVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::FORM)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        T::from_integer(number).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::custom(UnitError::Malformed(T::FORM))),
        }
    }
}

/// Splits the decimal number off the front of `text`. Returns the number, `None` when it does not fit,
/// and what follows it; or nothing at all when no digit comes first.
fn split_number(text: &str) -> Option<(Option<u64>, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    // Only an overflow can fail here: the text is all digits and, past this check, at least one.
    (!digits.is_empty()).then(|| (digits.parse().ok(), rest))
}
