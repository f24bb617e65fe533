//! The config file as it is written: every table and key, what it means, and its default.
//!
//! The descriptions here are the option reference and the JSON schema. A table that belongs to a mode or to
//! the upstream groups is described beside the code that it steers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de};
use wmproxy_forward::options::{ChainOptions, EgressOptions, ForwardOptions};
use wmproxy_http::options::HttpOptions;
use wmproxy_net::addr::AddressSpec;
use wmproxy_net::options::{AccessLogOptions, OneOrMany, Toggle};
use wmproxy_stream::options::StreamOptions;
use wmproxy_tunnel::options::{ClientOptions, ServerOptions, ServiceOptions};
use wmproxy_upstream::GroupOptions;
use wmproxy_upstream::health::HealthOptions;
use wmproxy_wire::units::{HumanDuration, Secret};

use super::plan::LogFormat;

/// The configuration of wmproxy, in TOML, YAML or JSON. `${NAME}` and `${NAME:-default}` in a text stand for
/// environment variables, `$${` for `${` itself. Relative paths start at the directory of the file that names
/// them.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// How many worker threads: `auto` is one for each core.
    pub(crate) workers: Workers,
    /// Who to become after every listener is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// Which group to become; by default the main group of `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// How long connections may take to end by themselves when the program stops, before they are closed.
    pub(crate) shutdown_timeout: HumanDuration,
    /// Other files whose tables are merged with this one's: a path or a list of them, in which `*` and `?`
    /// stand for any characters. Lists of tables, such as `[[stream]]`, are joined; the same key with two values
    /// is refused. The ending of each file (`.toml`, `.yaml`, `.yml` or `.json`) says how it is read.
    #[serde(skip_serializing)]
    pub(crate) include: OneOrMany<String>,
    /// The program's own log.
    pub(crate) log: LogOptions,
    /// The access log: a line for each connection and flow, and each HTTP request, that ended. There is none without
    /// this table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_log: Option<AccessLogOptions>,
    /// The endpoint that `reload`, `stop`, `status` and scrapers of metrics talk to; `false` turns it off.
    pub(crate) admin: Toggle<AdminOptions>,
    /// How names are resolved.
    pub(crate) resolver: ResolverOptions,
    /// Groups of peers to go to, by name.
    pub(crate) upstream: BTreeMap<String, GroupOptions>,
    /// Layer-4 proxies.
    pub(crate) stream: Vec<StreamOptions>,
    /// HTTP servers.
    pub(crate) http: Vec<HttpOptions>,
    /// Forward proxies.
    pub(crate) forward: Vec<ForwardOptions>,
    /// Where clients of forward proxies may go, and by which way, by name.
    pub(crate) egress: BTreeMap<String, EgressOptions>,
    /// Proxies one behind the other, as a way out, by name.
    pub(crate) chain: BTreeMap<String, ChainOptions>,
    /// The public end of tunnels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_server: Option<ServerOptions>,
    /// The end of tunnels behind NAT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_client: Option<TunnelClientOptions>,
}

/// A tunnel client whose services are checked as upstreams are.
pub(crate) type TunnelClientOptions = ClientOptions<HealthOptions>;

/// One of its services.
pub(crate) type TunnelServiceOptions = ServiceOptions<HealthOptions>;

/// A number of worker threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Workers {
    /// One for each core that this process may run on.
    #[default]
    Auto,
    /// So many, at least 1.
    Count(usize),
}

/// The program's own log.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogOptions {
    /// How much is logged: `error`, `warn`, `info`, `debug`, `trace` or `off`, or more for a part of the program,
    /// as in `"info,wmproxy_net=debug"`.
    pub(crate) level: String,
    /// `text` for people, `json` for programs.
    pub(crate) format: LogFormat,
    /// The file that lines are appended to; `"-"` is stderr. Reopened on SIGUSR1.
    pub(crate) file: String,
}

/// The endpoint for control and metrics.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminOptions {
    /// Where it listens: an address with one port, or `unix:/path`. Anything but loopback needs a token.
    pub(crate) listen: AddressSpec,
    /// What each request has to present, as `Authorization: Bearer TOKEN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Secret>,
    /// A file to read `token` from; one newline at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<String>,
}

/// How names are resolved.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ResolverOptions {
    /// The name servers to ask, as in `["10.0.0.2:53"]`; without a port it is 53. By default the system's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) servers: Vec<NameServer>,
}

/// A name server's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameServer(pub(crate) SocketAddr);

/// Where everyone looks for the admin endpoint when nothing is said.
pub(crate) const ADMIN_ADDRESS: &str = "127.0.0.1:8837";

/// More threads than any machine of today has cores; a larger number is a mistake.
const MAX_WORKERS: u64 = 1024;

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: Workers::Auto,
            user: None,
            group: None,
            shutdown_timeout: HumanDuration::from_secs(30),
            include: OneOrMany::default(),
            log: LogOptions::default(),
            access_log: None,
            admin: Toggle::On(AdminOptions::default()),
            resolver: ResolverOptions::default(),
            upstream: BTreeMap::new(),
            stream: Vec::new(),
            http: Vec::new(),
            forward: Vec::new(),
            egress: BTreeMap::new(),
            chain: BTreeMap::new(),
            tunnel_server: None,
            tunnel_client: None,
        }
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { level: "info".into(), format: LogFormat::Text, file: "-".into() }
    }
}

impl Default for AdminOptions {
    fn default() -> Self {
        let listen = ADMIN_ADDRESS.parse().expect("a constant address is well-formed");
        AdminOptions { listen, token: None, token_file: None }
    }
}

impl FromStr for NameServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        let parsed = text.parse::<SocketAddr>().or_else(|_| bare());
        let address = parsed.map_err(|_| "expected the IP address of a name server, like \"10.0.0.2:53\"")?;
        if address.port() == 0 {
            Err("a name server has a port other than 0")
        } else {
            Ok(NameServer(address))
        }
    }
}

impl<'de> Deserialize<'de> for NameServer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Serialize for NameServer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for NameServer {
    fn schema_name() -> Cow<'static, str> {
        "NameServer".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "an IP address, with a port or for port 53" })
    }
}

impl Serialize for Workers {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Workers::Auto => serializer.serialize_str("auto"),
            Workers::Count(count) => serializer.serialize_u64(*count as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WorkersVisitor)
    }
}

struct WorkersVisitor;

impl de::Visitor<'_> for WorkersVisitor {
    type Value = Workers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"auto\" or a number from 1 to {MAX_WORKERS}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Workers, E> {
        match text {
            "auto" => Ok(Workers::Auto),
            // An environment variable that was expanded is always text.
            _ => match text.parse() {
                Ok(count) => self.visit_u64(count),
                Err(_) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
            },
        }
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<Workers, E> {
        if !(1..=MAX_WORKERS).contains(&count) {
            return Err(E::invalid_value(de::Unexpected::Unsigned(count), &self));
        }
        Ok(Workers::Count(count as usize))
    }

    fn visit_i64<E: de::Error>(self, count: i64) -> Result<Workers, E> {
        match u64::try_from(count) {
            Ok(count) => self.visit_u64(count),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(count), &self)),
        }
    }
}

impl JsonSchema for Workers {
    fn schema_name() -> Cow<'static, str> {
        "Workers".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": MAX_WORKERS }],
        })
    }
}
