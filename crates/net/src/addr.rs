//! Addresses as the config writes them: where to listen and where to connect.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

/// What is spoken on a listener's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams: TCP, and unix sockets of type stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// One concrete address of a socket, ours or a peer's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IPv4 or IPv6 address and a port.
    Inet(SocketAddr),
    /// A unix socket's path.
    Unix(PathBuf),
    /// A name and a port, of a peer behind proxies: the last of them resolves it.
    Name(Box<str>, u16),
}

impl Address {
    /// The IP address, if there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Inet(addr) => Some(addr.ip()),
            Address::Unix(_) | Address::Name(..) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(addr) => addr.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Address::Inet(addr)
    }
}

/// A host as the config names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// No host before the colon: every address of this machine.
    Any,
    /// A literal address.
    Ip(IpAddr),
    /// A name, to be resolved.
    Name(String),
}

/// A parsed address of the config: `host:port`, `host:first-last`, `:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AddressSpec {
    /// A host with one port or a range of them.
    Inet {
        /// The host part.
        host: Host,
        /// The first port; 0 lets the system choose when listening.
        first_port: u16,
        /// The last port, equal to the first unless a range was written.
        last_port: u16,
    },
    /// A unix socket's path.
    Unix(PathBuf),
}

impl AddressSpec {
    /// The ports that are named, in order; none for a unix socket.
    pub fn ports(&self) -> Option<RangeInclusive<u16>> {
        match self {
            AddressSpec::Inet { first_port, last_port, .. } => Some(*first_port..=*last_port),
            AddressSpec::Unix(_) => None,
        }
    }

    /// How many sockets this names: the length of the port range, 1 for a unix socket.
    pub fn count(&self) -> usize {
        self.ports().map_or(1, |ports| ports.len())
    }
}

impl fmt::Display for AddressSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressSpec::Unix(path) => write!(f, "unix:{}", path.display()),
            AddressSpec::Inet { host, first_port, last_port } => {
                match host {
                    Host::Any => {}
                    Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
                    Host::Ip(ip) => write!(f, "{ip}")?,
                    Host::Name(name) => f.write_str(name)?,
                }
                write!(f, ":{first_port}")?;
                if last_port != first_port {
                    write!(f, "-{last_port}")?;
                }
                Ok(())
            }
        }
    }
}

/// Why a text is not an address; says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No colon, so no port.
    #[error("no port: an address is \"host:port\", \":port\" or \"unix:/path\"")]
    NoPort,
    /// The port is no number from 0 to 65535.
    #[error("`{0}` is no port: a port is a number from 0 to 65535, or a range \"8000-8010\"")]
    BadPort(String),
    /// A range whose end lies before its start, or one that starts at 0.
    #[error("the port range `{0}` is empty: its first port must be at least 1 and not above its last")]
    BadRange(String),
    /// The host is neither an address nor a possible name.
    #[error("`{0}` is neither an IP address nor a host name; IPv6 goes in brackets: \"[::1]:53\"")]
    BadHost(String),
    /// A scheme other than tcp or udp.
    #[error("unknown scheme `{0}`: a listener is \"tcp://…\", \"udp://…\" or a bare address (tcp)")]
    BadScheme(String),
    /// `unix:` without an absolute path, or with udp.
    #[error("a unix socket is written \"unix:/absolute/path\" (at most 107 bytes) and is for tcp only")]
    BadUnix,
    /// A target needs a host to connect to.
    #[error("a target needs a host: \"10.0.0.5:{0}\", not \":{0}\"")]
    NoHost(u16),
    /// Nobody can connect to port 0.
    #[error("port 0 can't be connected to")]
    PortZero,
}

/// `sun_path` holds 108 bytes, one of them the closing NUL (unix(7)).
const UNIX_PATH_MAX: usize = 107;

impl FromStr for AddressSpec {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = Path::new(path).is_absolute() && path.len() <= UNIX_PATH_MAX && !path.contains('\0');
            return if fits { Ok(AddressSpec::Unix(path.into())) } else { Err(AddressError::BadUnix) };
        }
        let (host, ports) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let (first_port, last_port) = parse_ports(ports)?;
        Ok(AddressSpec::Inet { host: parse_host(host)?, first_port, last_port })
    }
}

fn parse_ports(text: &str) -> Result<(u16, u16), AddressError> {
    let port = |s: &str| {
        let digits = !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| s.parse::<u16>().ok()).flatten().ok_or_else(|| AddressError::BadPort(text.to_owned()))
    };
    match text.split_once('-') {
        None => port(text).map(|p| (p, p)),
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            if first == 0 || first > last {
                return Err(AddressError::BadRange(text.to_owned()));
            }
            Ok((first, last))
        }
    }
}

fn parse_host(text: &str) -> Result<Host, AddressError> {
    let bad = || AddressError::BadHost(text.to_owned());
    if text.is_empty() {
        return Ok(Host::Any);
    }
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        return inner.parse::<Ipv6Addr>().map(|ip| Host::Ip(ip.into())).map_err(|_| bad());
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    // RFC 1123 section 2.1: letters, digits, hyphens, and not all digits and dots, which would be a mistyped
    // IPv4 address. The underscore is no host name's but common in container networks.
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if text.len() > 253 || numeric || !name.split('.').all(label) {
        return Err(bad());
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

/// Where to listen: a protocol and an address, `tcp://` when nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenSpec {
    /// What is spoken there.
    pub protocol: Protocol,
    /// The address, perhaps a range of ports.
    pub address: AddressSpec,
}

impl FromStr for ListenSpec {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (protocol, rest) = match text.split_once("://") {
            None => (Protocol::Tcp, text),
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some(("udp", rest)) => (Protocol::Udp, rest),
            Some((scheme, _)) => return Err(AddressError::BadScheme(scheme.to_owned())),
        };
        let address: AddressSpec = rest.parse()?;
        if protocol == Protocol::Udp && matches!(address, AddressSpec::Unix(_)) {
            return Err(AddressError::BadUnix);
        }
        Ok(ListenSpec { protocol, address })
    }
}

impl fmt::Display for ListenSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.protocol, self.address)
    }
}

/// Where to connect: an address whose name may have to be resolved first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetSpec {
    /// Known as it is.
    Address(Address),
    /// A name and a port.
    Name {
        /// The host name, in lower case, without a closing dot.
        host: String,
        /// The port on every address of that name.
        port: u16,
    },
}

impl TargetSpec {
    /// The targets that an address names, one for each port of its range.
    ///
    /// # Errors
    /// An address without a host, and port 0, are nothing to connect to.
    pub fn expand(spec: &AddressSpec) -> Result<Vec<TargetSpec>, AddressError> {
        let (host, ports) = match spec {
            AddressSpec::Unix(path) => return Ok(vec![TargetSpec::Address(Address::Unix(path.clone()))]),
            AddressSpec::Inet { first_port: 0, .. } => return Err(AddressError::PortZero),
            AddressSpec::Inet { host: Host::Any, first_port, .. } => {
                return Err(AddressError::NoHost(*first_port));
            }
            AddressSpec::Inet { host, first_port, last_port } => (host, *first_port..=*last_port),
        };
        Ok(ports
            .map(|port| match host {
                Host::Ip(ip) => TargetSpec::Address(Address::Inet(SocketAddr::new(*ip, port))),
                Host::Name(name) => TargetSpec::Name { host: name.clone(), port },
                Host::Any => unreachable!("refused above"),
            })
            .collect())
    }
}

impl FromStr for TargetSpec {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let spec: AddressSpec = text.parse()?;
        let mut all = TargetSpec::expand(&spec)?;
        match (all.pop(), all.is_empty()) {
            (Some(one), true) => Ok(one),
            _ => Err(AddressError::BadRange(text.to_owned())),
        }
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetSpec::Address(addr) => addr.fmt(f),
            TargetSpec::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Reads and writes a type as the text that its `FromStr` and `Display` know.
macro_rules! text_serde {
    ($ty:ty, $title:literal, $pattern_doc:literal) => {
        impl<'de> serde::Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text: std::borrow::Cow<'de, str> = serde::Deserialize::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $ty {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $ty {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $title.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $pattern_doc })
            }
        }
    };
}

pub(crate) use text_serde;

text_serde!(
    ListenSpec,
    "Listen",
    "tcp://host:port, udp://host:port, host:port (tcp), :port, a range :8000-8010, or unix:/path"
);
text_serde!(TargetSpec, "Target", "host:port or unix:/path");
text_serde!(AddressSpec, "Address", "host:port, :port, host:first-last or unix:/path");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_specs_of_the_contract_parse_and_print_back() {
        for (text, printed) in [
            ("127.0.0.1:53", "tcp://127.0.0.1:53"),
            ("udp://:53", "udp://:53"),
            ("tcp://[::1]:53", "tcp://[::1]:53"),
            ("localhost:80", "tcp://localhost:80"),
            ("unix:/run/x.sock", "tcp://unix:/run/x.sock"),
            (":8000-8010", "tcp://:8000-8010"),
            ("udp://0.0.0.0:0", "udp://0.0.0.0:0"),
        ] {
            let spec: ListenSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), printed, "{text}");
        }
    }

    #[test]
    fn a_bad_address_says_what_is_wrong() {
        for (text, expected) in [
            ("80", AddressError::NoPort),
            ("", AddressError::NoPort),
            ("a:b", AddressError::BadPort("b".into())),
            ("a:65536", AddressError::BadPort("65536".into())),
            ("a:+1", AddressError::BadPort("+1".into())),
            ("a:5-4", AddressError::BadRange("5-4".into())),
            ("a:0-4", AddressError::BadRange("0-4".into())),
            ("::1:53", AddressError::BadHost("::1".into())),
            ("[::1:53", AddressError::BadHost("[::1".into())),
            ("256.0.0.1:1", AddressError::BadHost("256.0.0.1".into())),
            ("-a.example:1", AddressError::BadHost("-a.example".into())),
            ("unix:relative", AddressError::BadUnix),
            ("udp://unix:/x", AddressError::BadUnix),
            ("sctp://:1", AddressError::BadScheme("sctp".into())),
        ] {
            assert_eq!(text.parse::<ListenSpec>().unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn a_target_needs_a_host_and_a_port() {
        assert_eq!(":80".parse::<TargetSpec>().unwrap_err(), AddressError::NoHost(80));
        assert_eq!("a:0".parse::<TargetSpec>().unwrap_err(), AddressError::PortZero);
        assert!(matches!("a:1-2".parse::<TargetSpec>(), Err(AddressError::BadRange(_))));
        assert_eq!("Web.Internal.:80".parse::<TargetSpec>().unwrap().to_string(), "web.internal:80");
        let range: AddressSpec = "10.0.0.1:5-7".parse().unwrap();
        let all: Vec<_> = TargetSpec::expand(&range).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(all, ["10.0.0.1:5", "10.0.0.1:6", "10.0.0.1:7"]);
    }
}
