//! The URL of a server that requests are passed on to.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use wmproxy_net::addr::AddressSpec;

/// `http://host[:port][/base]`, with `https` or `h2c` as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUrl {
    /// How it is reached.
    pub scheme: UrlScheme,
    /// A name or an IPv4 address, or an IPv6 address in brackets.
    host: Box<str>,
    port: u16,
    /// What goes before the path of each request: empty, or beginning with a slash and not ending with one.
    base: Box<str>,
}

/// What is spoken to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlScheme {
    /// HTTP/1.1 in the clear.
    Http,
    /// By TLS.
    Https,
    /// HTTP/2 in the clear.
    H2c,
}

/// Why a text is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme.
    #[error("expected a URL like \"http://host:8080/base\", with http, https or h2c")]
    Scheme,
    /// No host, or one with characters that no name has.
    #[error("the URL has no valid host")]
    Host,
    /// A port that is none.
    #[error("the URL's port is no number from 1 to 65535")]
    Port,
    /// A user or a password.
    #[error("no user in this URL; set `authorization` with `request_headers`")]
    User,
    /// A query, a fragment, a blank, or a character that has to be escaped.
    #[error("the URL's path has a query, a fragment or a character that needs escaping")]
    Path,
}

impl UrlScheme {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            UrlScheme::Http => "http",
            UrlScheme::Https => "https",
            UrlScheme::H2c => "h2c",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            UrlScheme::Http | UrlScheme::H2c => 80,
            UrlScheme::Https => 443,
        }
    }
}

impl TargetUrl {
    /// Whether a text is meant to be a URL.
    pub fn is_meant(text: &str) -> bool {
        text.contains("://")
    }

    /// Where to connect.
    pub fn address(&self) -> Option<AddressSpec> {
        // What is a host in a URL is one in an address.
        format!("{}:{}", self.host, self.port).parse().ok()
    }

    /// The host alone, as TLS knows it: an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// What goes before the path of each request.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The `Host` of requests: without a port that is the scheme's own.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The scheme, host and port: what the group of its one server is called.
    pub fn origin(&self) -> String {
        format!("{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

impl FromStr for TargetUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => UrlScheme::Http,
            "https" => UrlScheme::Https,
            "h2c" => UrlScheme::H2c,
            _ => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (host, port) = match colon {
            Some(at) => (&authority[..at], authority[at + 1..].parse().map_err(|_| UrlError::Port)?),
            None => (authority, scheme.default_port()),
        };
        if port == 0 {
            return Err(UrlError::Port);
        }
        if !is_host(host) {
            return Err(UrlError::Host);
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte)) {
            return Err(UrlError::Path);
        }
        let base = path.strip_suffix('/').unwrap_or(path).into();
        Ok(TargetUrl { scheme, host: host.to_ascii_lowercase().into(), port, base })
    }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.base)
    }
}
