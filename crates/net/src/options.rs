//! Shapes that options of several modes share: one or many, a value or `false`, where an access log goes.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

/// Where the access log goes and how its lines look.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogOptions {
    /// The file that lines are appended to; `"-"` is stdout. Reopened on SIGUSR1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "-"))]
    pub file: Option<String>,
    /// `json`; for HTTP `combined`, as web servers write it; or a template of one line with variables in braces, as in
    /// `"{time} {client_addr} {listener} {peer} {bytes_in} {bytes_out} {duration} {outcome}"`. Variables of HTTP
    /// requests: `time`, `client_addr`, `client_ip`, `client_port`, `listener`, `route`, `sni`, `host`, `hostname`,
    /// `method`, `scheme`, `uri`, `path`, `query`, `version`, `user`, `status`, `peer`, `bytes_in`, `bytes_out`,
    /// `duration`, `upstream_time`, `request_id`, `outcome`, `header:NAME`, `response:NAME`, `cookie:NAME` and
    /// `query:NAME`. Variables of forward proxies: `time`, `listener`, `client_addr`, `client_ip`, `client_port`, `kind`
    /// (`http`, `connect`, `socks4`, `socks5` or `udp`), `user`, `destination`, `way`, `peer`, `status`, `bytes_in`,
    /// `bytes_out`, `datagrams_in`, `datagrams_out`, `connect_time`, `duration`, `outcome`, `sni`, `method` and `path`.
    /// Variables of streams: `time`, `client_addr`, `client_ip`, `client_port`, `via` (the proxy that sent
    /// a PROXY header), `destination` (the address in that header), `listener`, `protocol`, `local`, `sni`, `alpn`,
    /// `proxy_tlvs`, `group`, `peer`, `bytes_in`, `bytes_out`, `datagrams_in`, `datagrams_out`, `connect_time`,
    /// `duration`, `outcome` and `fault`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "json"))]
    pub format: Option<String>,
}

/// A list that may be written without brackets when it has one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> OneOrMany<T> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        OneOrMany(Vec::new())
    }
}

impl<T> From<T> for OneOrMany<T> {
    fn from(one: T) -> Self {
        OneOrMany(vec![one])
    }
}

impl<T> From<Vec<T>> for OneOrMany<T> {
    fn from(many: Vec<T>) -> Self {
        OneOrMany(many)
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(OneOrMany::from)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(OneOrMany::from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// A value, or `false` for none at all where leaving it out means a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toggle<T> {
    /// `false`.
    Off,
    /// The value.
    On(T),
}

impl<T> Toggle<T> {
    /// The value, unless it is off.
    pub fn on(&self) -> Option<&T> {
        match self {
            Toggle::Off => None,
            Toggle::On(value) => Some(value),
        }
    }
}

impl<T: Serialize> Serialize for Toggle<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Toggle::Off => serializer.serialize_bool(false),
            Toggle::On(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Toggle<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ToggleVisitor(PhantomData))
    }
}

struct ToggleVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ToggleVisitor<T> {
    type Value = Toggle<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, or `false` to turn it off")
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<Self::Value, E> {
        if on {
            Err(E::custom("`true` says too little: give the value, or `false` to turn it off"))
        } else {
            Ok(Toggle::Off)
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(Toggle::On)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(Toggle::On)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(table)).map(Toggle::On)
    }
}

impl<T: JsonSchema> JsonSchema for Toggle<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Toggle{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [value, { "const": false }] })
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value::Error;

    use super::*;

    #[test]
    fn one_is_written_like_many() {
        let one =
            OneOrMany::<String>::deserialize(IntoDeserializer::<Error>::into_deserializer("a")).unwrap();
        assert_eq!(one, OneOrMany::from("a".to_owned()));
        let list = de::value::SeqDeserializer::<_, Error>::new(["a", "b"].into_iter());
        assert_eq!(OneOrMany::<String>::deserialize(list).unwrap().0, ["a", "b"]);
    }

    #[test]
    fn a_toggle_is_off_or_has_a_value() {
        let of = |on: bool| Toggle::<String>::deserialize(IntoDeserializer::<Error>::into_deserializer(on));
        assert_eq!(of(false).unwrap().on(), None);
        assert!(of(true).unwrap_err().to_string().contains("says too little"));
        let text =
            Toggle::<String>::deserialize(IntoDeserializer::<Error>::into_deserializer("60s")).unwrap();
        assert_eq!(text.on().map(String::as_str), Some("60s"));
    }
}
