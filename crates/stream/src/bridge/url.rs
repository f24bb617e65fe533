//! The URL of a WebSocket (RFC 6455 section 3).

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `ws://host[:port]/path` or `wss://host[:port]/path`, with a query or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeUrl {
    secure: bool,
    /// A name or an IPv4 address, or an IPv6 address in brackets.
    host: Box<str>,
    port: u16,
    /// The path with the query.
    path: Box<str>,
}

/// Why a text is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither `ws://` nor `wss://`.
    #[error("expected a URL like \"ws://host:8080/path\" or \"wss://host/path\"")]
    Scheme,
    /// No host, or one with characters that no name has.
    #[error("the URL has no valid host")]
    Host,
    /// A port that is none.
    #[error("the URL's port is no number from 1 to 65535")]
    Port,
    /// A user or a password.
    #[error("no user in this URL; say bridge_headers = {{ Authorization = \"Basic ...\" }}")]
    User,
    /// A fragment, a blank, or a character that has to be escaped.
    #[error("the URL's path has a blank, a fragment or a character that needs escaping")]
    Path,
}

impl BridgeUrl {
    /// Whether it is `wss`: TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Where to connect: `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The host alone, as TLS knows it: an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The path with the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The scheme, host and port: what the group of its one server is called.
    pub fn origin(&self) -> String {
        format!("{}{}", self.scheme(), self.address())
    }

    /// The `Host` field of a request: without a port that is the scheme's own.
    pub fn host_field(&self) -> String {
        if self.port == default_port(self.secure) { self.host.to_string() } else { self.address() }
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "wss://" } else { "ws://" }
    }
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl FromStr for BridgeUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            _ => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (host, port) = match colon {
            Some(at) => (&authority[..at], authority[at + 1..].parse().map_err(|_| UrlError::Port)?),
            None => (authority, default_port(secure)),
        };
        if port == 0 {
            return Err(UrlError::Port);
        }
        if !is_host(host) {
            return Err(UrlError::Host);
        }
        if !path.bytes().all(|byte| (b'!'..=b'~').contains(&byte) && !b"#\"<>\\^`{|}".contains(&byte)) {
            return Err(UrlError::Path);
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(BridgeUrl { secure, host: host.into(), port, path: format!("{slash}{path}").into() })
    }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    }
}

impl fmt::Display for BridgeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.scheme(), self.host_field(), self.path)
    }
}

/// Without the query, which often holds what lets one in.
impl Serialize for BridgeUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let path = self
            .path
            .split_once('?')
            .map_or_else(|| self.path.to_string(), |(path, _)| format!("{path}?***"));
        serializer.collect_str(&BridgeUrl { path: path.into(), ..self.clone() })
    }
}

impl<'de> Deserialize<'de> for BridgeUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for BridgeUrl {
    fn schema_name() -> Cow<'static, str> {
        "BridgeUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "a ws:// or wss:// URL" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (text, address, host_field, path, secure) in [
            ("ws://a.example", "a.example:80", "a.example", "/", false),
            ("WSS://a.example/x?y=1", "a.example:443", "a.example", "/x?y=1", true),
            ("ws://a.example:443?q", "a.example:443", "a.example:443", "/?q", false),
            ("wss://[::1]:8443/a/b", "[::1]:8443", "[::1]:8443", "/a/b", true),
            ("ws://10.0.0.1:80/", "10.0.0.1:80", "10.0.0.1", "/", false),
        ] {
            let url: BridgeUrl = text.parse().unwrap();
            assert_eq!(
                (url.address().as_str(), url.host_field().as_str(), url.path(), url.is_secure()),
                (address, host_field, path, secure),
                "{text}"
            );
            assert_eq!(url.to_string().parse(), Ok(url));
        }
        assert_eq!("wss://[::1]/".parse::<BridgeUrl>().unwrap().host(), "::1");
        assert_eq!("wss://a/x".parse::<BridgeUrl>().unwrap().origin(), "wss://a:443");
    }

    #[test]
    fn a_text_that_is_no_url_says_what_is_wrong() {
        for (text, error) in [
            ("", UrlError::Scheme),
            ("a.example/x", UrlError::Scheme),
            ("http://a/", UrlError::Scheme),
            ("ws://", UrlError::Host),
            ("ws:///x", UrlError::Host),
            ("ws://a b/", UrlError::Host),
            ("ws://[::g]/", UrlError::Host),
            ("ws://::1/", UrlError::Host),
            ("ws://a:x/", UrlError::Port),
            ("ws://a:0/", UrlError::Port),
            ("ws://a:65536/", UrlError::Port),
            ("ws://u:p@a/", UrlError::User),
            ("ws://a/x#y", UrlError::Path),
            ("ws://a/x y", UrlError::Path),
            ("ws://a/\r\nX: y", UrlError::Path),
            ("ws://a/ä", UrlError::Path),
        ] {
            assert_eq!(text.parse::<BridgeUrl>(), Err(error), "{text:?}");
        }
    }
}
