//! The forms of text in which a route says what it is for.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use wmproxy_wire::head::is_token;
use wmproxy_wire::units::ByteSize;

use super::text::text_option;

/// A host that a route is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This one: in lower case, without a dot at the end or brackets.
    Exact(Box<str>),
    /// Every name below this one, however many labels more it has.
    Below(Box<str>),
}

/// A path that a route is for, in the normalised form in which requests are compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// It and what lies below it: `/api` is for `/api`, `/api/` and `/api/x`, but not for `/apix`. Without the slash at
    /// the end, so that the root is empty.
    Prefix(Box<str>),
    /// It alone.
    Exact(Box<str>),
    /// What this regular expression finds something in.
    Regex(Box<str>),
}

/// The name of a method.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MethodName(Box<str>);

/// What a field or a parameter of the query has to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValuePattern {
    /// There, with any value.
    Any,
    /// Exactly this.
    Exact(Box<str>),
    /// Something in which this regular expression finds something.
    Regex(Box<str>),
}

/// One step of `try`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TryStep {
    /// A path to try: a template.
    Path(Box<str>),
    /// The end, with a status.
    Status(u16),
}

/// How large the body of a request may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BodyLimit {
    /// As large as it likes.
    #[default]
    Unlimited,
    /// So many bytes.
    Bytes(ByteSize),
}

impl HostPattern {
    /// The name, of a wildcard what follows the star and its dot.
    pub fn name(&self) -> &str {
        match self {
            HostPattern::Exact(name) | HostPattern::Below(name) => name,
        }
    }
}

impl FromStr for HostPattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        if name == "*" {
            return Err("a route without `host` is for any");
        }
        if let Some(ip) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let ip: Ipv6Addr = ip.parse().map_err(|_| "between the brackets is no IPv6 address")?;
            return Ok(HostPattern::Exact(ip.to_string().into()));
        }
        if let Ok(ip) = name.parse::<IpAddr>() {
            return Ok(HostPattern::Exact(ip.to_string().into()));
        }
        let (below, name) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        if name.contains(':') {
            return Err("a host has no port here: a route is for the host on every port");
        }
        if name.contains('*') {
            return Err("the star stands for all labels in front, as in \"*.example.com\"");
        }
        let is_label = |label: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len()) && label.bytes().all(fits)
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err("expected a host like \"example.com\" or \"*.example.com\", in ASCII");
        }
        Ok(if below { HostPattern::Below(name.into()) } else { HostPattern::Exact(name.into()) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) if name.contains(':') => write!(f, "[{name}]"),
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(regex) = text.strip_prefix('~') {
            return match regex::bytes::RegexBuilder::new(regex).size_limit(REGEX_SIZE).build() {
                Ok(_) => Ok(PathPattern::Regex(regex.into())),
                Err(error) => Err(regex_error(&error)),
            };
        }
        let (exact, path) = match text.strip_prefix('=') {
            Some(path) => (true, path),
            None => (false, text),
        };
        let path = written_path(path)?;
        Ok(match exact {
            true => PathPattern::Exact(path.into()),
            false => PathPattern::Prefix(path.strip_suffix('/').unwrap_or(&path).into()),
        })
    }
}

/// The most memory that a compiled regular expression may take: a hundred times what usual ones do.
pub(crate) const REGEX_SIZE: usize = 1 << 20;

/// What is wrong with a regular expression, in one line: the last one says it, those before show the place.
pub(crate) fn regex_reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim();
    reason.strip_prefix("error: ").unwrap_or(reason).to_owned()
}

fn regex_error(error: &regex::Error) -> String {
    format!("no regular expression: {}", regex_reason(error))
}

/// A path of the config in the form that paths of requests are brought to.
pub(crate) fn written_path(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("a path begins with `/`, or with {FORMS}"));
    }
    if path.contains(['?', '#']) {
        return Err("a path has no query; `query` says what that has to be".to_owned());
    }
    let mut normal = Vec::new();
    wmproxy_wire::head::path::normalise(path.as_bytes(), &mut normal)
        .map_err(|_| "this path would be refused in a request".to_owned())?;
    // Requests that escape what they need not would go past it, or are refused for it.
    if let Some(plain) = wmproxy_wire::head::path::without_needless_escapes(&normal) {
        normal = plain;
    }
    match String::from_utf8(normal) {
        Ok(normal) if normal == path => Ok(normal),
        Ok(normal) => Err(format!("requests are compared in their normal form; write \"{normal}\"")),
        Err(_) => Err("expected a path in ASCII, with the rest percent-encoded".to_owned()),
    }
}

const FORMS: &str = "`=/` to be exact, or with `~` to be a regular expression";

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathPattern::Prefix(path) => f.write_str(if path.is_empty() { "/" } else { path }),
            PathPattern::Exact(path) => write!(f, "={path}"),
            PathPattern::Regex(regex) => write!(f, "~{regex}"),
        }
    }
}

impl MethodName {
    /// The name as it stands in requests.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MethodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !is_token(text.as_bytes()) {
            return Err("expected a method like \"GET\"".to_owned());
        }
        let upper = text.to_ascii_uppercase();
        match text {
            // Case matters in methods, but nobody has ever defined one like this.
            _ if upper != text => Err(format!("methods are written in capitals: \"{upper}\"")),
            _ => Ok(MethodName(text.into())),
        }
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ValuePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('~') {
            None if text == "*" => Ok(ValuePattern::Any),
            None => Ok(ValuePattern::Exact(text.into())),
            Some(regex) => match regex::bytes::RegexBuilder::new(regex).size_limit(REGEX_SIZE).build() {
                Ok(_) => Ok(ValuePattern::Regex(regex.into())),
                Err(error) => Err(regex_error(&error)),
            },
        }
    }
}

impl fmt::Display for ValuePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValuePattern::Any => f.write_str("*"),
            ValuePattern::Exact(value) => f.write_str(value),
            ValuePattern::Regex(regex) => write!(f, "~{regex}"),
        }
    }
}

impl FromStr for TryStep {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('=') {
            Some(status) => match status.parse() {
                Ok(status @ 400..=599) => Ok(TryStep::Status(status)),
                _ => Err("expected a status from 400 to 599, as in \"=404\""),
            },
            None if text.starts_with('/') || text.starts_with('{') => Ok(TryStep::Path(text.into())),
            None => Err("expected a path like \"/index.html\" or \"{path}.html\", or a status like \"=404\""),
        }
    }
}

impl fmt::Display for TryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryStep::Path(path) => f.write_str(path),
            TryStep::Status(status) => write!(f, "={status}"),
        }
    }
}

impl BodyLimit {
    /// The most bytes.
    pub fn bytes(self) -> u64 {
        match self {
            BodyLimit::Unlimited => u64::MAX,
            BodyLimit::Bytes(size) => size.get(),
        }
    }
}

impl FromStr for BodyLimit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "unlimited" => Ok(BodyLimit::Unlimited),
            _ => match text.parse() {
                Ok(size) => Ok(BodyLimit::Bytes(size)),
                Err(_) => Err("expected a size like \"10m\", or \"unlimited\""),
            },
        }
    }
}

impl fmt::Display for BodyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyLimit::Unlimited => f.write_str("unlimited"),
            BodyLimit::Bytes(size) => size.fmt(f),
        }
    }
}

text_option!(HostPattern, "a host like example.com, or *.example.com for every name below it");
text_option!(
    PathPattern,
    "a prefix like /api, an exact path like =/api, or a regular expression like ~^/v[0-9]+/"
);
text_option!(MethodName, "a method in capitals, like GET");
text_option!(ValuePattern, "a value, * for any, or a regular expression behind ~");
text_option!(TryStep, "a path, which may have variables, or a status like =404");

impl Serialize for BodyLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BodyLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BodyLimitVisitor)
    }
}

struct BodyLimitVisitor;

impl Visitor<'_> for BodyLimitVisitor {
    type Value = BodyLimit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size like \"10m\", or \"unlimited\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<BodyLimit, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<BodyLimit, E> {
        Ok(BodyLimit::Bytes(ByteSize::new(bytes)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<BodyLimit, E> {
        match u64::try_from(number) {
            Ok(bytes) => self.visit_u64(bytes),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

impl JsonSchema for BodyLimit {
    fn schema_name() -> Cow<'static, str> {
        "BodyLimit".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "unlimited" }, generator.subschema_for::<ByteSize>()] })
    }
}
