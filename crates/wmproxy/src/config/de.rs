//! From the tree to options, with serde: the usual derives, and errors that know their place.
//!
//! serde stops at the first error. So that a file's problems are all found in one go, [`decode`] drops the
//! value that an error is about and starts again, until what is left can be read.

use std::collections::btree_map;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::problem::{Found, MANY_PROBLEMS, MAX_PROBLEMS, nearest};
use super::secrets::clean_key;
use super::tree::{Entry, Node, Path, Step, Value};

/// Reads what `root` holds, and marks as dropped what can't be read, with a problem for each. None if nothing
/// is left.
pub(super) fn decode<T: DeserializeOwned>(root: &mut Node, found: &mut Vec<Found>) -> Option<T> {
    // Every round drops a value that counted before, so this ends; the limit is for the reader's sake.
    for _ in 0..2 * MAX_PROBLEMS {
        let error = match T::deserialize(&*root) {
            Ok(options) => return Some(options),
            Err(error) => error,
        };
        let path = Path(error.path.into_iter().rev().collect());
        found.extend(error.kind.report(root, &path));
        if path.0.is_empty() {
            return None;
        }
        root.at_mut(&path)?.dropped = true;
        // Each round reads everything from the start, so that a long file with many problems would take for ever.
        if found.len() >= MAX_PROBLEMS - 1 {
            found.push(Found::nowhere(MANY_PROBLEMS));
            return None;
        }
    }
    None
}

/// Why a value could not be read, and where.
#[derive(Debug)]
pub(super) struct Error {
    kind: Kind,
    /// The last step first.
    path: Vec<Step>,
}

#[derive(Debug)]
enum Kind {
    UnknownKey(String, &'static [&'static str]),
    UnknownVariant(&'static [&'static str]),
    Missing(&'static str),
    WrongType { expected: String },
    WrongValue { expected: String },
    Other(String),
}

impl Kind {
    /// None if it follows from a problem that was reported already.
    fn report(self, root: &Node, path: &Path) -> Option<Found> {
        let node = root.at(path)?;
        let found = match self {
            Kind::UnknownKey(key, known) => {
                let hint = match nearest(&key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                let span = root.key_span(path).unwrap_or(node.span);
                Found::error(span, format!("unknown key `{}`", clean_key(&key))).hint(hint)
            }
            Kind::UnknownVariant(known) => {
                let near = match &node.value {
                    Value::Text(text) => nearest(text, known.iter().copied()),
                    _ => None,
                };
                let found = Found::error(node.place(), format!("expected one of {}", known.join(", ")));
                match near {
                    Some(near) => found.hint(format!("did you mean \"{near}\"?")),
                    None => found,
                }
            }
            Kind::Missing(key) => {
                if node.has_dropped(key) {
                    return None;
                }
                Found::error(node.place(), format!("`{key}` is missing"))
            }
            Kind::WrongType { expected } => {
                let message = format!("expected {}, found {}", in_words(&expected), node.kind());
                let found = Found::error(node.place(), message);
                match (path.split_last(), &node.value) {
                    (Some((_, Step::Key(key))), Value::Table(_)) if expected == "a sequence" => found
                        .hint(format!("a list of tables is written with two brackets in TOML: [[{key}]]")),
                    _ => found,
                }
            }
            Kind::WrongValue { expected } => {
                Found::error(node.place(), format!("expected {}", in_words(&expected)))
            }
            Kind::Other(message) => Found::error(node.place(), message),
        };
        Some(found.path(path.clone()))
    }
}

/// serde's names of types are those of Rust.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number that is not negative",
        "a boolean" => "true or false",
        "a string" | "string" => "text in quotes",
        "a sequence" => "a list",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    }
}

impl Error {
    fn new(kind: Kind) -> Self {
        Error { kind, path: Vec::new() }
    }

    fn at(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Error::new(Kind::Other(message.to_string()))
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Error::new(Kind::WrongType { expected: expected.to_string() })
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Error::new(Kind::WrongValue { expected: expected.to_string() })
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Error::new(Kind::UnknownVariant(expected))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Error::new(Kind::UnknownKey(field.to_owned(), expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Error::new(Kind::Missing(field))
    }
}

/// A number or boolean that came out of an environment variable is text in quotes.
macro_rules! expanded_text {
    ($($method:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match &self.value {
                Value::Text(text) if self.expanded => match (text.parse(), text.parse()) {
                    (Ok(number), _) => visitor.visit_i64(number),
                    (_, Ok(on)) => visitor.visit_bool(on),
                    _ => self.deserialize_any(visitor),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(on) => visitor.visit_bool(*on),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(number)) => visitor.visit_u64(number),
                _ => Err(Error::custom("this number is too large")),
            },
            Value::List(list) => visitor.visit_seq(Elements { list: list.iter().enumerate() }),
            Value::Table(table) => visitor.visit_map(Entries { entries: table.iter(), value: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(Error::new(Kind::UnknownVariant(variants))),
        }
    }

    expanded_text! {
        deserialize_bool, deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64, deserialize_i64
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Elements<'de> {
    list: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> de::SeqAccess<'de> for Elements<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, node)) = self.list.find(|(_, node)| !node.dropped) else { return Ok(None) };
        seed.deserialize(node).map(Some).map_err(|error| error.at(Step::Index(index)))
    }
}

struct Entries<'de> {
    entries: btree_map::Iter<'de, String, Entry>,
    /// The key that was given out last, and its value.
    value: Option<(&'de str, &'de Node)>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, entry)) = self.entries.find(|(_, entry)| !entry.node.dropped) else { return Ok(None) };
        self.value = Some((key, &entry.node));
        let deserializer: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        seed.deserialize(deserializer).map(Some).map_err(|error| error.at(Step::Key(key.clone())))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, node)) = self.value.take() else { return Err(Error::custom("a value without a key")) };
        seed.deserialize(node).map_err(|error| error.at(Step::Key(key.to_owned())))
    }
}
