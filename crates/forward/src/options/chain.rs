//! The keys of `[chain.NAME]`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use wmproxy_net::addr::{AddressSpec, Host};
use wmproxy_upstream::health::HealthOptions;
use wmproxy_upstream::options::{Method, ServerOptions};
use wmproxy_upstream::{GroupOptions, GroupSpec};
use wmproxy_wire::destination::{self, Destination};
use wmproxy_wire::units::{HumanDuration, Secret};

use super::url::HopUrl;

/// Proxies one behind the other, as a way out: connections go to the first, which connects to the second, and so on; the
/// last one connects to the destination. Names go through unresolved.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChainOptions {
    /// The proxies in the order of the way out, at least one. Each is a URL like `"socks5://user:pass@127.0.0.1:9050"` with
    /// `http`, `https`, `socks4`, `socks4a`, `socks5` or `socks5+tls`, a table with more, or a list of these: parents of
    /// which each connection takes one. With `socks4` the next name is resolved by this machine.
    #[schemars(length(min = 1), required)]
    pub hops: Vec<HopOptions>,
    /// How long connecting to one proxy may take, with TLS and what is said to it.
    pub connect_timeout: HumanDuration,
    /// How connections are spread over parents of one hop; as in `[upstream]`, but for what goes by a request.
    pub balance: Method,
    /// How many other parents of a hop are tried when one can't be connected to.
    pub retries: u32,
    /// So many failures within `fail_timeout` put a parent aside; `0` never does.
    pub max_fails: u32,
    /// Within which time `max_fails` failures put a parent aside, and for how long; see `[upstream]`.
    pub fail_timeout: HumanDuration,
    /// Health checks of the first hop's parents. Those behind them are reached through them only, and judged by the
    /// connections that they get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthOptions>,
}

/// One hop of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HopOptions {
    /// One proxy.
    One(Box<ParentOptions>),
    /// Several, of which each connection takes one.
    Group(Vec<ParentOptions>),
}

/// A proxy to go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentOptions {
    /// What it speaks, where it is, and perhaps who we are to it.
    pub url: HopUrl,
    /// Who we are to it, if the URL does not say.
    pub user: Option<String>,
    /// The password of that user.
    pub password: Option<Secret>,
    /// A file to read `password` from.
    pub password_file: Option<String>,
    /// With TLS: the name that the proxy is asked for and has to prove, if not its host.
    pub server_name: Option<String>,
    /// With TLS: its certificate has to come from one of those in this file.
    pub ca: Option<String>,
    /// With TLS: the file of the certificate to show.
    pub cert: Option<String>,
    /// With TLS: the file of its private key.
    pub key: Option<String>,
    /// With TLS: believes whoever answers.
    pub insecure_skip_verify: bool,
    /// With `https`: one connection carries many (HTTP/2).
    pub multiplex: bool,
    /// Its share of the connections among the parents of a hop.
    pub weight: u32,
    /// Taken only while no other parent of the hop can be.
    pub backup: bool,
    /// Whether it was written as a URL alone, so that problems point at what is there.
    bare: bool,
}

/// A proxy to go through, with more than its URL.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Parent")]
struct Table {
    /// What it speaks and where it is: `http`, `https`, `socks4`, `socks4a`, `socks5` or `socks5+tls`, as in
    /// `"https://proxy.example.com:443"`. Required.
    url: HopUrl,
    /// Who we are to it, if the URL does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The password of that user.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Secret>,
    /// A file to read `password` from; one newline at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_file: Option<String>,
    /// With TLS: the name that the proxy is asked for and has to prove. By default its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
    /// With TLS: the proxy's certificate has to come from one of those in this PEM file. By default from those that the
    /// system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    /// With TLS: the file of the certificate to show to the proxy, in PEM; with `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cert: Option<String>,
    /// The file of its private key, in PEM and not encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Believes whoever answers: anybody on the way can read and change everything. Default `false`.
    #[serde(default)]
    insecure_skip_verify: bool,
    /// With `https`: one connection carries many where the proxy speaks HTTP/2. Default `false`.
    #[serde(default)]
    multiplex: bool,
    /// Its share of the connections among the parents of a hop, from 1 to 65535. Default `1`.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65535))]
    weight: u32,
    /// Taken only while no other parent of the hop can be. Default `false`.
    #[serde(default)]
    backup: bool,
}

fn one() -> u32 {
    1
}

impl Default for ChainOptions {
    fn default() -> Self {
        let common = GroupOptions::default();
        ChainOptions {
            hops: Vec::new(),
            // Below the ten seconds that all of a connection may take.
            connect_timeout: common.connect_timeout,
            balance: Method::default(),
            retries: common.retries,
            max_fails: common.max_fails,
            fail_timeout: common.fail_timeout,
            health: None,
        }
    }
}

impl ChainOptions {
    /// The group of a hop's parents: hop number `index` of those here, from 0.
    ///
    /// # Errors
    /// Every problem, each with its place as in a group: `servers[1].weight`, where the parents are the servers.
    pub fn group(&self, name: &str, index: usize) -> Result<GroupSpec, Vec<(String, String)>> {
        let parents = self.hops.get(index).into_iter().flat_map(HopOptions::parents);
        let options = GroupOptions {
            servers: parents.map(|(_, parent)| parent.server()).collect(),
            balance: self.balance,
            connect_timeout: self.connect_timeout,
            retries: self.retries,
            max_fails: self.max_fails,
            fail_timeout: self.fail_timeout,
            // Those behind the first hop can't be reached from here.
            health: self.health.clone().filter(|_| index == 0),
            ..GroupOptions::default()
        };
        options.spec(name)
    }
}

impl HopOptions {
    /// Its parents, each with its index in a list if there is one.
    pub fn parents(&self) -> impl Iterator<Item = (Option<usize>, &ParentOptions)> {
        let (list, is_list) = match self {
            HopOptions::One(one) => (std::slice::from_ref(&**one), false),
            HopOptions::Group(list) => (list.as_slice(), true),
        };
        list.iter().enumerate().map(move |(index, parent)| (is_list.then_some(index), parent))
    }
}

impl ParentOptions {
    /// A proxy that is told by its URL alone.
    pub fn new(url: HopUrl) -> ParentOptions {
        ParentOptions {
            url,
            user: None,
            password: None,
            password_file: None,
            server_name: None,
            ca: None,
            cert: None,
            key: None,
            insecure_skip_verify: false,
            multiplex: false,
            weight: 1,
            backup: false,
            bare: true,
        }
    }

    fn server(&self) -> ServerOptions {
        let Destination { host, port } = &self.url.address;
        let host = match host {
            destination::Host::Ip(ip) => Host::Ip(*ip),
            destination::Host::Name(name) => Host::Name(name.to_string()),
        };
        let address = AddressSpec::Inet { host, first_port: *port, last_port: *port };
        let mut server = ServerOptions::new(address);
        server.weight = self.weight;
        server.backup = self.backup;
        server
    }

    /// Whether it was written as a URL alone.
    pub fn is_bare(&self) -> bool {
        self.bare
    }
}

impl From<Table> for ParentOptions {
    fn from(table: Table) -> Self {
        let Table {
            url,
            user,
            password,
            password_file,
            server_name,
            ca,
            cert,
            key,
            insecure_skip_verify,
            multiplex,
            weight,
            backup,
        } = table;
        ParentOptions {
            url,
            user,
            password,
            password_file,
            server_name,
            ca,
            cert,
            key,
            insecure_skip_verify,
            multiplex,
            weight,
            backup,
            bare: false,
        }
    }
}

impl Serialize for ParentOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.bare {
            return self.url.serialize(serializer);
        }
        let all = self.clone();
        let table = Table {
            url: all.url,
            user: all.user,
            password: all.password,
            password_file: all.password_file,
            server_name: all.server_name,
            ca: all.ca,
            cert: all.cert,
            key: all.key,
            insecure_skip_verify: all.insecure_skip_verify,
            multiplex: all.multiplex,
            weight: all.weight,
            backup: all.backup,
        };
        table.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ParentOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not an untagged enum: that buffers the value, and with it loses where each part of it was written.
        deserializer.deserialize_any(ParentVisitor)
    }
}

struct ParentVisitor;

impl<'de> Visitor<'de> for ParentVisitor {
    type Value = ParentOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL like \"socks5://127.0.0.1:1080\", or a table like { url = \"https://proxy:443\", ca = \"ca.pem\" }")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ParentOptions, E> {
        text.parse().map(ParentOptions::new).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ParentOptions, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map)).map(ParentOptions::from)
    }
}

impl JsonSchema for ParentOptions {
    fn schema_name() -> Cow<'static, str> {
        "ParentOrUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [generator.subschema_for::<HopUrl>(), generator.subschema_for::<Table>()]
        })
    }
}

impl Serialize for HopOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            HopOptions::One(one) => one.serialize(serializer),
            HopOptions::Group(list) => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for HopOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HopVisitor)
    }
}

struct HopVisitor;

impl<'de> Visitor<'de> for HopVisitor {
    type Value = HopOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL like \"socks5://127.0.0.1:1080\", a table with `url`, or a list of these")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<HopOptions, E> {
        ParentVisitor.visit_str(text).map(|one| HopOptions::One(Box::new(one)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HopOptions, A::Error> {
        ParentVisitor.visit_map(map).map(|one| HopOptions::One(Box::new(one)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<HopOptions, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(HopOptions::Group)
    }
}

impl JsonSchema for HopOptions {
    fn schema_name() -> Cow<'static, str> {
        "Hop".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<ParentOptions>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}
