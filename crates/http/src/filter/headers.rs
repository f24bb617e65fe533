//! Rules for the fields of requests and responses.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wmproxy_net::options::OneOrMany;
use wmproxy_wire::head::{Fields, Known, Request, Response, is_value};

use crate::facts::{ConnFacts, Facts, Scene};
use crate::vars::{Name, Template, with_scratch};

/// Changes of fields, in this order: `remove`, `set`, `add`, `default`. Values may have variables, as in
/// `"{client_ip}"`. A value that comes out empty is not sent: what `set` names is then taken out. `Connection`,
/// `Content-Length`, `Transfer-Encoding` and others that say how a message is sent can't be changed, and of `Host` only
/// the value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderRules {
    /// Fields that have this value then, and no other.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<FieldName<true>, FieldValue>,
    /// Fields to add to those of the same name: a value, or a list of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<FieldName, OneOrMany<FieldValue>>,
    /// Fields to add where there is none of the name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub default: BTreeMap<FieldName, FieldValue>,
    /// Fields to take out; a `*` at the end of a name stands for anything.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub remove: OneOrMany<FieldPattern>,
}

impl HeaderRules {
    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        *self == HeaderRules::default()
    }
}

/// The name of a field that a rule may touch. `Host` is one only where `HOST` says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldName<const HOST: bool = false>(Name);

/// Why a text names no field that a rule may touch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldNameError {
    /// It is no token.
    #[error("no name of a field: it has letters, digits and some of !#$%&'*+-.^_`|~ in it, and nothing else")]
    NoToken,
    /// It says how a message is sent, which is decided for each connection.
    #[error("`{0}` says how a message is sent on one connection, which no rule can change")]
    Framing(&'static str),
    /// A request without it, or with two, would be refused.
    #[error("a request has one `Host` always; `set` gives it another value")]
    Host,
}

/// What rules may not touch: with these a message could be made to end elsewhere than its receiver believes.
const FRAMING: [Known; 9] = [
    Known::Connection,
    Known::ContentLength,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::Trailer,
    Known::TransferEncoding,
    Known::Upgrade,
];

impl<const HOST: bool> FromStr for FieldName<HOST> {
    type Err = FieldNameError;

    fn from_str(text: &str) -> Result<Self, FieldNameError> {
        let name = Name::new(text).ok_or(FieldNameError::NoToken)?;
        if FRAMING.contains(&name.known()) {
            return Err(FieldNameError::Framing(name.known().as_str()));
        }
        if name.known() == Known::Host && !HOST {
            return Err(FieldNameError::Host);
        }
        Ok(FieldName(name))
    }
}

impl<const HOST: bool> PartialOrd for FieldName<HOST> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<const HOST: bool> Ord for FieldName<HOST> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

/// Which fields to take out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldPattern {
    /// The one of this name.
    One(FieldName),
    /// Those whose names begin so, in whatever case, but for those that no rule may touch.
    Prefix(Name),
}

impl FromStr for FieldPattern {
    type Err = FieldNameError;

    fn from_str(text: &str) -> Result<Self, FieldNameError> {
        match text.strip_suffix('*') {
            // A star is a letter of names by the letter of the law, but of none that anybody uses.
            Some(prefix) => Name::new(prefix).map(FieldPattern::Prefix).ok_or(FieldNameError::NoToken),
            None => text.parse().map(FieldPattern::One),
        }
    }
}

impl fmt::Display for FieldPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldPattern::One(name) => name.fmt(f),
            FieldPattern::Prefix(prefix) => write!(f, "{}*", prefix.as_str()),
        }
    }
}

impl<const HOST: bool> fmt::Display for FieldName<HOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// The value that a rule gives a field: a template whose own text may stand in a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldValue(Template);

impl FromStr for FieldValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !is_value(text.as_bytes()) {
            return Err("a field's value has no control characters in it and no space around it".to_owned());
        }
        text.parse().map(FieldValue).map_err(|error: crate::vars::TemplateError| error.to_string())
    }
}

macro_rules! by_text {
    ([$($generics:tt)*] $type:ty, $name:literal, $pattern:literal) => {
        impl<$($generics)*> Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de, $($generics)*> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl<$($generics)*> JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

by_text!([const HOST: bool] FieldName<HOST>, "FieldName", "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
by_text!([] FieldPattern, "FieldPattern", "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
by_text!([] FieldValue, "FieldValue", "^[^\\r\\n]*$");

/// [`HeaderRules`] in the order in which they are done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules(Box<[Rule]>);

#[derive(Debug, Clone)]
enum Rule {
    Remove(FieldPattern),
    Set(Name, Template),
    Add(Name, Template),
    Default(Name, Template),
}

impl Rules {
    /// In order; none without any.
    pub(crate) fn new(rules: &HeaderRules) -> Option<Rules> {
        let remove = rules.remove.0.iter().cloned().map(Rule::Remove);
        let set = rules.set.iter().map(|(name, value)| Rule::Set(name.0.clone(), value.0.clone()));
        let add = rules.add.iter().flat_map(|(name, values)| {
            values.0.iter().map(|value| Rule::Add(name.0.clone(), value.0.clone()))
        });
        let default = rules.default.iter();
        let default = default.map(|(name, value)| Rule::Default(name.0.clone(), value.0.clone()));
        (!rules.is_empty()).then(|| Rules(remove.chain(set).chain(add).chain(default).collect()))
    }

    /// Does them to a request.
    pub(crate) fn apply_to_request(&self, conn: &ConnFacts, request: &mut Request, facts: &Facts) {
        for rule in &self.0 {
            match rule {
                Rule::Remove(pattern) => pattern.remove_from(&mut request.fields),
                Rule::Set(name, value) | Rule::Add(name, value) | Rule::Default(name, value) => {
                    with_scratch(|text| {
                        value.render_value(&Scene { conn, request, response: None, facts }, text);
                        match name.known() {
                            Known::Host => set_host(request, text),
                            _ => rule.put(name, text, &mut request.fields),
                        }
                    });
                }
            }
        }
    }

    /// Does them to a response.
    pub(crate) fn apply_to_response(
        &self,
        conn: &ConnFacts,
        request: &Request,
        response: &mut Response,
        facts: &Facts,
    ) {
        for rule in &self.0 {
            match rule {
                Rule::Remove(pattern) => pattern.remove_from(&mut response.fields),
                Rule::Set(name, value) | Rule::Add(name, value) | Rule::Default(name, value) => {
                    with_scratch(|text| {
                        let response = &mut *response;
                        value.render_value(&Scene { conn, request, response: Some(response), facts }, text);
                        rule.put(name, text, &mut response.fields);
                    });
                }
            }
        }
    }
}

impl FieldPattern {
    fn remove_from(&self, fields: &mut Fields) {
        match self {
            FieldPattern::One(name) => drop(fields.remove_named(name.0.as_str().as_bytes())),
            FieldPattern::Prefix(prefix) => {
                let prefix = prefix.as_str().as_bytes();
                fields.retain(|field| {
                    let begins_so =
                        field.name.get(..prefix.len()).is_some_and(|name| name.eq_ignore_ascii_case(prefix));
                    !begins_so || field.known == Known::Host || FRAMING.contains(&field.known)
                });
            }
        }
    }
}

impl Rule {
    /// Gives a field its value.
    fn put(&self, name: &Name, value: &[u8], fields: &mut Fields) {
        let name = name.as_str().as_bytes();
        match self {
            Rule::Set(..) if value.is_empty() => drop(fields.remove_named(name)),
            Rule::Set(..) => fields.set_named(name, value),
            _ if value.is_empty() => {}
            Rule::Default(..) if fields.all_named(name).next().is_some() => {}
            Rule::Add(..) | Rule::Default(..) => fields.push(name, value),
            Rule::Remove(_) => {}
        }
    }
}

/// Gives a request another host. What can't be one, perhaps because a client made it up, changes nothing.
fn set_host(request: &mut Request, host: &[u8]) {
    let is_possible = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(byte);
    if host.is_empty() || !host.iter().all(is_possible) {
        return;
    }
    request.set_authority(host);
    // In HTTP/1 it is a field as well, and no other version has it there.
    if request.fields.has(Known::Host) {
        request.fields.set(Known::Host, host);
    }
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
