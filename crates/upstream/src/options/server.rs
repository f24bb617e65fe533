//! One entry of `servers`: an address, or a table with more.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use wmproxy_net::addr::AddressSpec;

/// A server of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// Where it is; a port range is one server for each port.
    pub address: AddressSpec,
    /// Its share of the connections.
    pub weight: u32,
    /// The most connections at once; 0 for no limit.
    pub max_connections: u32,
    /// Used only while no other server can be.
    pub backup: bool,
    /// Not used at all.
    pub down: bool,
    /// Used only for clients that stay with it.
    pub drain: bool,
    /// Whether it was written as an address alone, so that problems point at what is there.
    bare: bool,
}

impl ServerOptions {
    /// A server with the defaults, as an address alone gives it.
    pub fn new(address: AddressSpec) -> ServerOptions {
        let (weight, max_connections) = (1, 0);
        ServerOptions {
            address,
            weight,
            max_connections,
            backup: false,
            down: false,
            drain: false,
            bare: true,
        }
    }

    /// Where in the group a field of the server with index `i` was written.
    pub(super) fn place(&self, i: usize, field: &str) -> String {
        if self.bare { format!("servers[{i}]") } else { format!("servers[{i}].{field}") }
    }
}

/// A server with more than an address.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Server")]
struct Table {
    /// `"host:port"`, `"host:first-last"` (a server for each port) or `"unix:/path"`. Required.
    address: AddressSpec,
    /// Its share of the connections, from 1 to 65535. Default `1`.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65535))]
    weight: u32,
    /// The most connections on each of its addresses at once; `0` is no limit. Default `0`.
    #[serde(default)]
    max_connections: u32,
    /// Used only while no other server can be. Default `false`.
    #[serde(default)]
    backup: bool,
    /// Takes the server out: it gets no new connections. Default `false`.
    #[serde(default)]
    down: bool,
    /// Takes the server out by and by: it gets only clients that were with it before, by the cookie of `sticky`, and
    /// finishes what it has. Default `false`.
    #[serde(default)]
    drain: bool,
}

fn one() -> u32 {
    1
}

impl From<Table> for ServerOptions {
    fn from(table: Table) -> Self {
        let Table { address, weight, max_connections, backup, down, drain } = table;
        ServerOptions { address, weight, max_connections, backup, down, drain, bare: false }
    }
}

impl Serialize for ServerOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.bare {
            return self.address.serialize(serializer);
        }
        let ServerOptions { address, weight, max_connections, backup, down, drain, bare: _ } = self.clone();
        Table { address, weight, max_connections, backup, down, drain }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ServerOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not an untagged enum: that buffers the value, and with it loses where each part of it was written.
        deserializer.deserialize_any(ServerVisitor)
    }
}

struct ServerVisitor;

impl<'de> Visitor<'de> for ServerVisitor {
    type Value = ServerOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an address like \"10.0.0.1:80\", or a table like { address = \"10.0.0.1:80\", weight = 2 }",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ServerOptions, E> {
        text.parse().map(ServerOptions::new).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ServerOptions, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map)).map(ServerOptions::from)
    }
}

impl JsonSchema for ServerOptions {
    fn schema_name() -> Cow<'static, str> {
        "ServerOrAddress".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [generator.subschema_for::<AddressSpec>(), generator.subschema_for::<Table>()]
        })
    }
}
