//! Values of socket options as the config writes them.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use wmproxy_wire::units::HumanDuration;

use crate::addr::text_serde;

/// The class of service in the IP header (RFC 2474): six bits, of which the network makes what it is configured to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dscp(u8);

/// The classes that have names: RFC 2474 (cs), 2597 (af), 3246 (ef), 5865 (va), 8622 (le).
const NAMES: [(&str, u8); 24] = [
    ("default", 0),
    ("le", 1),
    ("cs0", 0),
    ("cs1", 8),
    ("cs2", 16),
    ("cs3", 24),
    ("cs4", 32),
    ("cs5", 40),
    ("cs6", 48),
    ("cs7", 56),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("va", 44),
    ("ef", 46),
];

const DSCP_FORM: &str = r#"a number from 0 to 63, or a name like "ef", "af41" or "cs1""#;

impl Dscp {
    /// The class of this number, from 0 to 63.
    pub fn new(number: u8) -> Option<Dscp> {
        (number < 64).then_some(Dscp(number))
    }

    /// The octet of the IP header that holds it, with the two bits of ECN (RFC 3168) clear.
    pub fn octet(self) -> u8 {
        self.0 << 2
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Dscp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
        let number = named.or_else(|| text.parse().ok());
        number.and_then(Dscp::new).ok_or_else(|| format!("expected {DSCP_FORM}"))
    }
}

impl Serialize for Dscp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for Dscp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Dscp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(DSCP_FORM)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Dscp, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Dscp, E> {
                let class = u8::try_from(number).ok().and_then(Dscp::new);
                class.ok_or_else(|| E::custom(format!("expected {DSCP_FORM}")))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Dscp, E> {
                self.visit_u64(u64::try_from(number).unwrap_or(u64::MAX))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Dscp {
    fn schema_name() -> Cow<'static, str> {
        "Dscp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
        json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 63 }, { "enum": names }] })
    }
}

/// The name of a network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface(Arc<str>);

/// The longest name (IFNAMSIZ, without the byte that ends it).
const MAX_NAME: usize = 15;

impl Interface {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
        if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(fits) {
            return Err("expected the name of a network device like \"eth0\": at most 15 characters");
        }
        Ok(Interface(text.into()))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_serde!(Interface, "Interface", "the name of a network device, like eth0");

/// The address that connections to peers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// One of this machine.
    Address(IpAddr),
    /// The client's own, with another port (IP_TRANSPARENT, ip(7)).
    Client,
}

impl FromStr for Source {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(Source::Address(ip)),
            Err(_) if text == "client" => Ok(Source::Client),
            _ => Err("expected an address of this machine like \"10.0.0.5\", without a port, or \"client\""),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Address(ip) => ip.fmt(f),
            Source::Client => f.write_str("client"),
        }
    }
}

text_serde!(Source, "Source", "an address of this machine, or client");

/// How a silent connection is asked whether the other side is still there (RFC 9293 section 3.8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between two probes.
    pub interval: Duration,
    /// Probes without an answer that end the connection.
    pub count: u32,
    /// Whether it was written as the time alone.
    bare: bool,
}

impl Keepalive {
    /// Probes that go unanswered before a connection counts as dead.
    const COUNT: u32 = 3;

    /// Three probes, at a third of `idle` each.
    pub fn after(idle: Duration) -> Keepalive {
        let interval = (idle / Keepalive::COUNT).max(Duration::from_secs(1));
        Keepalive { idle, interval, count: Keepalive::COUNT, bare: true }
    }
}

/// Keepalive probes with every time of their own.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Keepalive")]
struct KeepaliveTable {
    /// Silence before the first probe, in whole seconds. Required.
    idle: HumanDuration,
    /// Time between two probes, in whole seconds. Default: a third of `idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<HumanDuration>,
    /// So many probes without an answer end the connection. Default `3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 127))]
    count: Option<u32>,
}

impl Serialize for Keepalive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let human = |time: Duration| HumanDuration::from_secs(time.as_secs());
        if self.bare {
            return human(self.idle).serialize(serializer);
        }
        let (interval, count) = (Some(human(self.interval)), Some(self.count));
        KeepaliveTable { idle: human(self.idle), interval, count }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Keepalive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Keepalive;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a duration like \"60s\", or a table like { idle = \"60s\", interval = \"10s\", count = 3 }",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Keepalive, E> {
                let idle: HumanDuration = text.parse().map_err(E::custom)?;
                Ok(Keepalive::after(seconds(idle)?))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Keepalive, A::Error> {
                let table = KeepaliveTable::deserialize(MapAccessDeserializer::new(map))?;
                let default = Keepalive::after(seconds(table.idle)?);
                let count = table.count.unwrap_or(default.count);
                if !(1..=MAX_COUNT).contains(&count) {
                    return Err(A::Error::custom(format!("expected a `count` from 1 to {MAX_COUNT}")));
                }
                let interval = table.interval.map(seconds).transpose()?.unwrap_or(default.interval);
                Ok(Keepalive { interval, count, bare: false, ..default })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What the kernel takes for TCP_KEEPCNT (MAX_TCP_KEEPCNT).
const MAX_COUNT: u32 = 127;

/// What it takes for TCP_KEEPIDLE and TCP_KEEPINTVL, in seconds (MAX_TCP_KEEPIDLE).
const MAX_SECONDS: u64 = 32_767;

fn seconds<E: Error>(time: HumanDuration) -> Result<Duration, E> {
    let time = time.get();
    if !(1_000..=u128::from(MAX_SECONDS) * 1_000).contains(&time.as_millis()) {
        return Err(E::custom(format!(
            "expected a time from \"1s\" to \"{MAX_SECONDS}s\"; `false` turns keepalive off"
        )));
    }
    Ok(Duration::from_secs(time.as_secs()))
}

impl JsonSchema for Keepalive {
    fn schema_name() -> Cow<'static, str> {
        "DurationOrKeepalive".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let either =
            [generator.subschema_for::<HumanDuration>(), generator.subschema_for::<KeepaliveTable>()];
        json_schema!({ "anyOf": either })
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error as ValueError, MapDeserializer};

    use super::*;

    #[test]
    fn a_class_is_a_number_or_a_name() {
        for (text, octet) in [("ef", 184), ("EF", 184), ("af41", 136), ("cs1", 32), ("0", 0), ("63", 252)] {
            assert_eq!(text.parse::<Dscp>().unwrap().octet(), octet, "{text}");
        }
        for bad in ["64", "-1", "", "af44", "high"] {
            assert!(bad.parse::<Dscp>().unwrap_err().contains("0 to 63"), "{bad}");
        }
        let number = |n: i64| Dscp::deserialize(IntoDeserializer::<ValueError>::into_deserializer(n));
        assert_eq!(number(46).unwrap(), Dscp(46));
        assert!(number(64).is_err() && number(-1).is_err());
    }

    #[test]
    fn a_source_is_an_address_without_a_port_or_the_client() {
        assert_eq!("10.0.0.5".parse(), Ok(Source::Address([10, 0, 0, 5].into())));
        assert_eq!("client".parse(), Ok(Source::Client));
        assert_eq!("::1".parse::<Source>().unwrap().to_string(), "::1");
        for bad in ["10.0.0.5:80", "0.0.0.0", "::", "224.0.0.1", "eth0", ""] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_has_a_short_name() {
        assert_eq!("eth0".parse::<Interface>().unwrap().as_str(), "eth0");
        for bad in ["", "a name", "a/b", "a:1", "0123456789abcdef"] {
            assert!(bad.parse::<Interface>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keepalive_is_a_time_or_a_table_of_times() {
        let text = |text: &str| {
            Keepalive::deserialize(IntoDeserializer::<ValueError>::into_deserializer(text.to_owned()))
        };
        let short = text("60s").unwrap();
        assert_eq!((short.idle.as_secs(), short.interval.as_secs(), short.count), (60, 20, 3));
        assert_eq!(text("2s").unwrap().interval.as_secs(), 1);
        assert!(text("0s").unwrap_err().to_string().contains("false"));
        assert!(text("10h").is_err());
        let table = |idle: &str| {
            let fields = [("idle", idle.to_owned())];
            Keepalive::deserialize(MapDeserializer::<_, ValueError>::new(fields.into_iter()))
        };
        let long = table("90s").unwrap();
        assert_eq!((long.idle.as_secs(), long.interval.as_secs(), long.count), (90, 30, 3));
        assert!(table("10ms").is_err());
    }
}
