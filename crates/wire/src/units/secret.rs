//! Texts that must not be seen.

use std::borrow::Cow;
use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use super::UnitError;

/// A password, key or token. It prints and serialises as `***`, so that no log, no error and no printed
/// configuration holds it; [`expose`](Self::expose) marks the places that need it in full.
#[derive(Clone)]
pub struct Secret(Box<str>);

const FORM: &str = "a secret as text in quotes";
const STARS: &str = "***";

impl Secret {
    /// Takes the text over.
    ///
    /// # Errors
    /// [`UnitError::EmptySecret`] for an empty text, which usually is a variable that is not set and which
    /// everybody could present.
    pub fn new(text: impl Into<String>) -> Result<Self, UnitError> {
        let text = text.into();
        if text.is_empty() { Err(UnitError::EmptySecret) } else { Ok(Self(text.into_boxed_str())) }
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `presented` is this secret. The time taken depends on the length of `presented` only, which
    /// whoever presents it knows already.
    pub fn matches(&self, presented: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let mut difference = u8::from(own.len() != presented.len());
        // Never empty (`new` sees to that), so the cycle covers all of `presented` whatever its length.
        for (a, b) in presented.iter().zip(own.iter().cycle()) {
            // The box keeps the compiler from leaving the loop once the outcome is settled.
            difference = black_box(difference | (a ^ b));
        }
        difference == 0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl FromStr for Secret {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STARS)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STARS)
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(STARS)
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

/// A token of digits that someone forgot to quote is a secret still: serde's own errors would print it.
fn unquoted<E: serde::de::Error>() -> Result<Secret, E> {
    Err(E::custom(UnitError::Malformed(FORM)))
}

impl serde::de::Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORM)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secret, E> {
        Secret::new(text).map_err(E::custom)
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Secret, E> {
        unquoted()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Secret, E> {
        unquoted()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Secret, E> {
        unquoted()
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<Secret, E> {
        unquoted()
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<Secret, E> {
        unquoted()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Secret, E> {
        unquoted()
    }
}

impl schemars::JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "minLength": 1, "description": "a secret; never logged or printed" })
    }
}
