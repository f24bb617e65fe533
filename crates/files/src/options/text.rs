//! Values that a config writes in more than one form. Each says itself what it expected, so that a problem has its place.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Whose pages may read what is served (the Fetch standard, section 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cors {
    /// Everybody's, or nobody's.
    All(bool),
    /// Those of these origins.
    Origins(Vec<String>),
}

/// The status of an error: from 400 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrorStatus(u16);

/// What it has to be, in words.
const STATUS: &str = "a status from 400 to 599";

impl Default for Cors {
    fn default() -> Self {
        Cors::All(false)
    }
}

impl Serialize for Cors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cors::All(all) => all.serialize(serializer),
            Cors::Origins(origins) => origins.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Cors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CorsVisitor)
    }
}

struct CorsVisitor;

impl<'de> Visitor<'de> for CorsVisitor {
    type Value = Cors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or a list of origins")
    }

    fn visit_bool<E: Error>(self, all: bool) -> Result<Cors, E> {
        Ok(Cors::All(all))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Cors, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Cors::Origins)
    }
}

impl JsonSchema for Cors {
    fn schema_name() -> Cow<'static, str> {
        "Cors".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

impl ErrorStatus {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ErrorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ErrorStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ErrorStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(StatusVisitor)
    }
}

struct StatusVisitor;

impl Visitor<'_> for StatusVisitor {
    type Value = ErrorStatus;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STATUS)
    }

    /// Keys are text in every form of a config.
    fn visit_str<E: Error>(self, text: &str) -> Result<ErrorStatus, E> {
        match text.parse() {
            Ok(status @ 400..=599) => Ok(ErrorStatus(status)),
            _ => Err(E::custom(format_args!("expected {STATUS}"))),
        }
    }
}

impl JsonSchema for ErrorStatus {
    fn schema_name() -> Cow<'static, str> {
        "ErrorStatus".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[45][0-9][0-9]$" })
    }
}
