//! Whose PROXY headers are believed.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::acl::{Acl, Prefix, PrefixError};

/// A proxy whose PROXY header is believed, as the config names it: an address, a prefix, or `unix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrustedProxy {
    /// Whoever connects from there.
    Net(Prefix),
    /// Whoever may connect to the listener's unix socket.
    Unix,
}

impl FromStr for TrustedProxy {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if text == "unix" { Ok(TrustedProxy::Unix) } else { text.parse().map(TrustedProxy::Net) }
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrustedProxy::Net(prefix) => prefix.fmt(f),
            TrustedProxy::Unix => f.write_str("unix"),
        }
    }
}

impl<'de> Deserialize<'de> for TrustedProxy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for TrustedProxy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl schemars::JsonSchema for TrustedProxy {
    fn schema_name() -> Cow<'static, str> {
        "TrustedProxy".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "an address, a prefix like 10.0.0.0/8 or 2001:db8::/32, or \"unix\"",
        })
    }
}

/// Whose PROXY headers a listener believes. From them one is required; from anybody else it is ordinary data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    nets: Acl,
    unix: bool,
}

impl Trusted {
    /// Those that are listed; none if nobody is.
    pub fn new(proxies: &[TrustedProxy]) -> Option<Trusted> {
        let nets: Vec<_> = proxies
            .iter()
            .filter_map(|proxy| match proxy {
                TrustedProxy::Net(prefix) => Some(prefix.net()),
                TrustedProxy::Unix => None,
            })
            .collect();
        // An empty list of who may come lets everybody in.
        let everybody: &[_] = &[ipnet::Ipv4Net::default().into(), ipnet::Ipv6Net::default().into()];
        let nets = if nets.is_empty() { Acl::new(&[], everybody) } else { Acl::new(&nets, &[]) };
        (!proxies.is_empty()).then(|| Trusted { nets, unix: proxies.contains(&TrustedProxy::Unix) })
    }

    /// Whether who connects from this address, none being a unix socket, has to send a header.
    pub fn covers(&self, from: Option<SocketAddr>) -> bool {
        from.map_or(self.unix, |from| self.nets.permits(from.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(list: &[&str]) -> Option<Trusted> {
        let proxies: Vec<TrustedProxy> = list.iter().map(|text| text.parse().unwrap()).collect();
        Trusted::new(&proxies)
    }

    #[test]
    fn only_who_is_listed_is_trusted() {
        let from = |text: &str| Some(text.parse().unwrap());
        assert_eq!(trusted(&[]), None);
        let nets = trusted(&["10.0.0.0/8", "::1"]).unwrap();
        assert!(nets.covers(from("10.1.2.3:4")) && nets.covers(from("[::1]:4")));
        assert!(nets.covers(from("[::ffff:10.1.2.3]:4")), "as a dual-stack socket shows it");
        assert!(!nets.covers(from("11.0.0.1:4")) && !nets.covers(from("[::2]:4")) && !nets.covers(None));
        let unix = trusted(&["unix"]).unwrap();
        assert!(unix.covers(None) && !unix.covers(from("127.0.0.1:1")) && !unix.covers(from("[::1]:1")));
        assert!("Unix".parse::<TrustedProxy>().is_err());
    }
}
