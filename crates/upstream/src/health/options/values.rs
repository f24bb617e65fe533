//! Values of health options that are written in more than one way.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Bytes to send or to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Text as it is written, in UTF-8.
    Text(String),
    /// Bytes.
    Hex(Vec<u8>),
}

impl Pattern {
    /// Bytes from two hexadecimal digits for each.
    pub(super) fn of_hex(hex: &str) -> Option<Pattern> {
        HexTable { hex: hex.to_owned() }.decode().map(Pattern::Hex)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Pattern::Text(text) => text.as_bytes(),
            Pattern::Hex(bytes) => bytes,
        }
    }
}

/// Statuses of HTTP: those that pass a check, or those that are failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Default for Statuses {
    /// 200 to 399.
    fn default() -> Self {
        Statuses(vec![200..=399])
    }
}

impl Statuses {
    pub(crate) fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl FromStr for Statuses {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ERROR: &str = "expected statuses from 200 to 599, like \"200-399\" or \"200,204,300-399\"";
        let number = |text: &str| {
            let text = text.trim();
            let number = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
            number.filter(|n| (200..=599).contains(n)).ok_or(ERROR)
        };
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let range = number(first)?..=number(last)?;
            if range.is_empty() { Err(ERROR) } else { Ok(range) }
        };
        text.split(',').map(range).collect::<Result<_, _>>().map(Statuses)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StatusesVisitor;
        impl Visitor<'_> for StatusesVisitor {
            type Value = Statuses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("statuses like \"200-399\" or \"200,204,300-399\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Statuses, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Statuses, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(StatusesVisitor)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "description": "statuses and ranges of them, as in \"200,204,300-399\"" },
            { "type": "integer", "minimum": 200, "maximum": 599 },
        ] })
    }
}

/// Bytes written in hexadecimal.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HexBytes")]
struct HexTable {
    /// Two digits for each byte; spaces are allowed between them. Required.
    hex: String,
}

impl HexTable {
    fn decode(&self) -> Option<Vec<u8>> {
        let digits: Vec<u8> = self.hex.bytes().filter(|b| *b != b' ').collect();
        let digit = |b: u8| (b as char).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            &[high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
            _ => None,
        };
        digits.chunks(2).map(byte).collect()
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Pattern::Text(text) => text.serialize(serializer),
            Pattern::Hex(bytes) => {
                let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                HexTable { hex }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PatternVisitor;
        impl<'de> Visitor<'de> for PatternVisitor {
            type Value = Pattern;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or bytes like { hex = \"0a0b\" }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Pattern, E> {
                Ok(Pattern::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Pattern, A::Error> {
                let table = HexTable::deserialize(MapAccessDeserializer::new(map))?;
                let error =
                    || A::Error::custom("expected two hexadecimal digits for each byte, like \"0a0b\"");
                table.decode().map(Pattern::Hex).ok_or_else(error)
            }
        }
        deserializer.deserialize_any(PatternVisitor)
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "TextOrHex".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<HexTable>()] })
    }
}
