//! Options that are one text of a certain form: ports, fingerprints, hosts.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};
use wmproxy_net::tls;

use super::spec::PortRange;

/// The SHA-256 of a certificate: `sha256:` and 64 hexadecimal digits, with colons between the bytes or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

const PORTS: &str = "expected a port like \"443\", or a range like \"20000-20100\"";
const FINGERPRINT: &str =
    "expected \"sha256:\" and 64 hexadecimal digits, as the server prints it at its start";
const HOST: &str =
    "expected a host like \"app.example.com\", \"*.example.com\" for every name below one, or \"*\" for any";

/// The longest name that DNS has (RFC 1035 section 2.3.4), and the longest part of it.
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

impl PortRange {
    /// Every port that there is.
    pub const ALL: PortRange = PortRange { first: 1, last: u16::MAX };

    /// Whether a port is among them.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| PORTS);
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        match (first, last) {
            (0, _) => Err("port 0 is none that anybody could be granted; the first one is 1"),
            _ if first > last => Err("the range ends before it begins"),
            _ => Ok(PortRange { first, last }),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => self.first.fmt(f),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PORTS.trim_start_matches("expected "))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<PortRange, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<PortRange, E> {
                number.to_string().parse().map_err(|_| E::custom(PORTS))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for PortRange {
    fn schema_name() -> Cow<'static, str> {
        "TunnelPorts".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": 65535 },
                { "type": "string", "description": "a port, or a range of ports like 20000-20100" },
            ],
        })
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|tls::Fingerprint(bytes)| Fingerprint(bytes)).map_err(|_| FINGERPRINT)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tls::Fingerprint(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Fingerprint {
    fn schema_name() -> Cow<'static, str> {
        "Fingerprint".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^sha256:([0-9A-Fa-f]:?){64}$" })
    }
}

/// A host of a grant or a service as it is compared: in lower case and without the dot that may end a name. `*` is any
/// host, and `*.` in front of a name stands for every name below it.
///
/// # Errors
/// It is none; the message says what would be right.
pub fn host_pattern(text: &str) -> Result<String, &'static str> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let name = host.strip_prefix("*.").unwrap_or(&host);
    let fits = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        (1..=MAX_LABEL).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if text == "*" || (name.len() <= MAX_HOST && name.split('.').all(fits)) {
        return Ok(host);
    }
    match name {
        _ if name.contains("://") => Err("a host has no scheme in front; write \"app.example.com\""),
        _ if name.contains(':') => Err("a host has no port here: visitors come to the server's own"),
        _ if !name.is_ascii() => {
            Err("a name with other letters than a to z is written as DNS has it, with \"xn--\"")
        }
        _ => Err(HOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_a_range() {
        for (text, first, last) in [("53", 53, 53), ("1-65535", 1, 65535), ("20000-20100", 20000, 20100)] {
            let range: PortRange = text.parse().unwrap();
            assert_eq!((range, range.to_string().as_str()), (PortRange { first, last }, text));
        }
        for text in ["", "0", "0-9", "5-4", "65536", "1-2-3", "x", "-1"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_fingerprint_is_written_as_it_is_printed() {
        let plain = format!("sha256:{}", "0aF".repeat(21) + "b");
        let read: Fingerprint = plain.parse().unwrap();
        assert_eq!(read.to_string(), plain.to_lowercase());
        for text in ["", "sha256:", "sha1:00", &plain[7..], &plain[..70]] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FINGERPRINT), "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_stands_for_those_below() {
        for (text, expected) in [
            ("App.Example.com.", "app.example.com"),
            ("*.a.b", "*.a.b"),
            ("*", "*"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(host_pattern(text).as_deref(), Ok(expected));
        }
        let long = "a".repeat(64);
        for text in ["", ".", "a..b", "*.", "a.*.b", "-a.b", "http://a", "a:80", "a b", "ä.de", "a/b", &long]
        {
            assert!(host_pattern(text).is_err(), "{text}");
        }
    }
}
