//! The keys of endpoints.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use wmproxy_files::options::FilesOptions;
use wmproxy_net::options::OneOrMany;
use wmproxy_wire::units::HumanDuration;

use crate::vars::Template;

/// Where a request is passed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReverseProxyOptions {
    /// A target alone.
    Target(OneOrMany<String>),
    /// A table.
    Table(Box<ReverseProxyTable>),
}

/// Where a request is passed on to, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ReverseProxy")]
pub struct ReverseProxyTable {
    /// The name of an `[upstream]`, an address, a list of addresses, or a URL: `http://`, `https://` (verified by the
    /// system's certificates), `h2c://` (HTTP/2 in the clear) or `unix:/path`. A path of the URL goes before that of
    /// requests. Required.
    pub upstream: OneOrMany<String>,
    /// Whether servers see the `Host` that the client asked for; otherwise that of the URL, or the address of the server.
    pub preserve_host: bool,
    /// How long a response may take to begin, all tries together, and then how long no byte of it may come. The client
    /// gets a 504, or is cut off in the middle of a response.
    pub timeout: HumanDuration,
    /// How long one try may take until its response begins. Then another server is tried where that is safe. By default
    /// as long as `timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub try_timeout: Option<HumanDuration>,
    /// Reads a request's body of up to 1 MB whole before a server is asked, so that slow clients hold none, and a request
    /// with a body may be tried again. Each request that is under way may then hold as much memory.
    pub buffer: bool,
    /// Speaks HTTP/2 to the servers: in the clear without asking (prior knowledge); by TLS where they agree to it, which
    /// `alpn` of the upstream's `tls` has to offer, and does so without this as well. WebSockets then need servers that
    /// take them over HTTP/2 (RFC 8441).
    pub h2: bool,
}

/// A directory whose files are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesEndpointOptions {
    /// A directory alone.
    Root(String),
    /// A table.
    Table(Box<FilesOptions>),
}

/// Where a client is sent to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Redirect")]
pub struct RedirectOptions {
    /// Where to, with variables, as `"https://{host}{uri}"` or `"/new{path}"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub to: Option<Template>,
    /// The status: 301, 302, 303, 307 or 308. With 307 and 308 clients keep method and body; 301 and 308 are for ever.
    pub status: u16,
}

/// A response that is written in the config.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Respond")]
pub struct RespondOptions {
    /// The status, from 200 to 599.
    pub status: u16,
    /// The body, with variables, as `"hello {client_ip}\n"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = ""))]
    pub body: Option<Template>,
    /// The type of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "text/plain; charset=utf-8"))]
    pub content_type: Option<String>,
}

impl Default for ReverseProxyTable {
    fn default() -> Self {
        ReverseProxyTable {
            upstream: OneOrMany::default(),
            preserve_host: true,
            // As nginx has it; longer than nearly all pages take, shorter than browsers wait.
            timeout: HumanDuration::from_secs(60),
            try_timeout: None,
            buffer: false,
            h2: false,
        }
    }
}

impl Default for RedirectOptions {
    fn default() -> Self {
        // The one that keeps the method; it is for ever, as most redirects are meant.
        RedirectOptions { to: None, status: 308 }
    }
}

impl Default for RespondOptions {
    fn default() -> Self {
        RespondOptions { status: 200, body: None, content_type: None }
    }
}

impl ReverseProxyOptions {
    /// All that it says, defaults filled in.
    pub fn table(&self) -> Cow<'_, ReverseProxyTable> {
        match self {
            ReverseProxyOptions::Target(upstream) => {
                Cow::Owned(ReverseProxyTable { upstream: upstream.clone(), ..ReverseProxyTable::default() })
            }
            ReverseProxyOptions::Table(table) => Cow::Borrowed(table),
        }
    }
}

impl Serialize for ReverseProxyOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ReverseProxyOptions::Target(target) => target.serialize(serializer),
            ReverseProxyOptions::Table(table) => table.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ReverseProxyOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not an untagged enum: that buffers the value, and with it loses where each part of it was written.
        deserializer.deserialize_any(ReverseProxyVisitor)
    }
}

struct ReverseProxyVisitor;

impl<'de> Visitor<'de> for ReverseProxyVisitor {
    type Value = ReverseProxyOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the name of an upstream, an address, a list of addresses, a URL, or a table with `upstream`",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ReverseProxyOptions, E> {
        Ok(ReverseProxyOptions::Target(text.to_owned().into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ReverseProxyOptions, A::Error> {
        OneOrMany::deserialize(SeqAccessDeserializer::new(list)).map(ReverseProxyOptions::Target)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ReverseProxyOptions, A::Error> {
        let table = ReverseProxyTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ReverseProxyOptions::Table(Box::new(table)))
    }
}

impl JsonSchema for ReverseProxyOptions {
    fn schema_name() -> Cow<'static, str> {
        "ReverseProxyOrTarget".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" } },
                generator.subschema_for::<ReverseProxyTable>(),
            ]
        })
    }
}

impl FilesEndpointOptions {
    /// All that it says, defaults filled in.
    pub fn table(&self) -> Cow<'_, FilesOptions> {
        match self {
            FilesEndpointOptions::Root(root) => {
                Cow::Owned(FilesOptions { root: root.clone(), ..FilesOptions::default() })
            }
            FilesEndpointOptions::Table(table) => Cow::Borrowed(table),
        }
    }
}

impl Serialize for FilesEndpointOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            FilesEndpointOptions::Root(root) => root.serialize(serializer),
            FilesEndpointOptions::Table(table) => table.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for FilesEndpointOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FilesVisitor)
    }
}

struct FilesVisitor;

impl<'de> Visitor<'de> for FilesVisitor {
    type Value = FilesEndpointOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a directory, or a table with `root`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<FilesEndpointOptions, E> {
        Ok(FilesEndpointOptions::Root(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FilesEndpointOptions, A::Error> {
        let table = FilesOptions::deserialize(MapAccessDeserializer::new(map))?;
        Ok(FilesEndpointOptions::Table(Box::new(table)))
    }
}

impl JsonSchema for FilesEndpointOptions {
    fn schema_name() -> Cow<'static, str> {
        "FilesOrRoot".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<FilesOptions>()] })
    }
}
