//! The URL of a proxy to go through.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use wmproxy_wire::destination::{Destination, Host};
use wmproxy_wire::units::Secret;

use super::HopKind;
use super::text::text_option;

/// `socks5://[user[:password]@]host[:port]`, with the other kinds as well. It prints with stars for the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopUrl {
    /// What the proxy speaks.
    pub kind: HopKind,
    /// Where it is.
    pub address: Destination,
    /// Who we are to it.
    pub user: Option<Box<str>>,
    /// The password of that user.
    pub password: Option<Secret>,
}

/// Why a text is no such URL. It quotes nothing: there may be a password in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HopUrlError {
    /// No scheme, or another one.
    #[error(
        "expected a URL like \"socks5://127.0.0.1:1080\", with http, https, socks4, socks4a, socks5 or socks5+tls"
    )]
    Scheme,
    /// No host, or one with characters that no name has.
    #[error("the URL has no valid host")]
    Host,
    /// A port that is none.
    #[error("the URL's port is no number from 1 to 65535")]
    Port,
    /// A path, a query or a fragment.
    #[error("the URL of a proxy ends with its port")]
    Path,
    /// A `%` in user or password without two hexadecimal digits behind it, or bytes that are no text.
    #[error("user or password: a `%` stands before two hexadecimal digits, as `%40` for `@`")]
    Escape,
    /// A password without a user, or an empty user.
    #[error("the URL has a password without a user")]
    NoUser,
}

/// The schemes and the ports that they stand for: those of HTTP, and that which IANA has for SOCKS.
const SCHEMES: [(&str, HopKind, u16); 7] = [
    ("http", HopKind::Http, 80),
    ("https", HopKind::Https, 443),
    ("socks4", HopKind::Socks4, 1080),
    ("socks4a", HopKind::Socks4a, 1080),
    ("socks5", HopKind::Socks5, 1080),
    ("socks5+tls", HopKind::Socks5Tls, 1080),
    // As curl has it for names that go through unresolved, which they always do here.
    ("socks5h", HopKind::Socks5, 1080),
];

impl HopKind {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        SCHEMES.iter().find(|(_, kind, _)| *kind == self).map_or("", |(name, ..)| *name)
    }

    /// Whether the proxy is talked to by TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, HopKind::Https | HopKind::Socks5Tls)
    }
}

impl FromStr for HopUrl {
    type Err = HopUrlError;

    fn from_str(text: &str) -> Result<Self, HopUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(HopUrlError::Scheme)?;
        let known = SCHEMES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(scheme));
        let (_, kind, default_port) = *known.ok_or(HopUrlError::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // A password may have any character but these; the last `@` ends it.
        let (userinfo, authority) = match rest.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(userinfo), authority),
            None => (None, rest),
        };
        if authority.contains(['/', '?', '#']) {
            return Err(HopUrlError::Path);
        }
        let (user, password) = userinfo.map_or(Ok((None, None)), credentials)?;
        let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (host, port) = match colon {
            Some(at) => (&authority[..at], authority[at + 1..].parse().map_err(|_| HopUrlError::Port)?),
            None => (authority, default_port),
        };
        if port == 0 {
            return Err(HopUrlError::Port);
        }
        let host = host_of(host).ok_or(HopUrlError::Host)?;
        Ok(HopUrl { kind, address: Destination { host, port }, user, password })
    }
}

/// User and password of a URL.
fn credentials(userinfo: &str) -> Result<(Option<Box<str>>, Option<Secret>), HopUrlError> {
    let (user, password) = match userinfo.split_once(':') {
        Some((user, password)) => (user, unescape(password)?),
        None => (userinfo, String::new()),
    };
    let user = unescape(user)?;
    if user.is_empty() {
        return Err(HopUrlError::NoUser);
    }
    Ok((Some(user.into()), Secret::new(password).ok()))
}

fn unescape(text: &str) -> Result<String, HopUrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(HopUrlError::Escape) };
        bytes.extend(u8::try_from(high << 4 | low));
    }
    String::from_utf8(bytes).map_err(|_| HopUrlError::Escape)
}

fn host_of(text: &str) -> Option<Host> {
    if let Some(v6) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().ok().map(|ip| Host::Ip(IpAddr::V6(ip)));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        // Without brackets it would be in doubt what the port is.
        return ip.is_ipv4().then_some(Host::Ip(ip));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = (1..=253).contains(&text.len()) && text.bytes().all(fits);
    is_name.then(|| Host::Name(text.to_ascii_lowercase().into()))
}

impl fmt::Display for HopUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.kind.as_str())?;
        if let Some(user) = &self.user {
            for byte in user.bytes() {
                match byte {
                    b'-' | b'.' | b'_' | b'~' => write!(f, "{}", char::from(byte))?,
                    byte if byte.is_ascii_alphanumeric() => write!(f, "{}", char::from(byte))?,
                    byte => write!(f, "%{byte:02X}")?,
                }
            }
            match &self.password {
                Some(stars) => write!(f, ":{stars}@")?,
                None => f.write_str("@")?,
            }
        }
        self.address.fmt(f)
    }
}

text_option!(
    HopUrl,
    "scheme://[user[:password]@]host[:port] with http, https, socks4, socks4a, socks5 or socks5+tls"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_what_is_spoken_where_and_who_we_are() {
        for (text, printed, password) in [
            ("socks5://127.0.0.1:9050", "socks5://127.0.0.1:9050", None),
            ("https://proxy.Example.com", "https://proxy.example.com:443", None),
            ("SOCKS4A://[::1]/", "socks4a://[::1]:1080", None),
            ("socks5+tls://a:b%40c@h:1", "socks5+tls://a:***@h:1", Some("b@c")),
            ("http://a%3Ab@h:8080", "http://a%3Ab@h:8080", None),
            ("http://a:p:q@r@h:8080", "http://a:***@h:8080", Some("p:q@r")),
            ("socks5h://h", "socks5://h:1080", None),
        ] {
            let url: HopUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), printed);
            assert_eq!(url.password.as_ref().map(Secret::expose), password, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_proxy_is_refused_without_quoting_it() {
        for (text, expected) in [
            ("127.0.0.1:9050", HopUrlError::Scheme),
            ("ftp://h", HopUrlError::Scheme),
            ("socks5://", HopUrlError::Host),
            ("socks5://a b:1", HopUrlError::Host),
            ("socks5://::1", HopUrlError::Host),
            ("socks5://h:0", HopUrlError::Port),
            ("socks5://h:x", HopUrlError::Port),
            ("http://h/path", HopUrlError::Path),
            ("http://a:%zz@h", HopUrlError::Escape),
            ("http://:b@h", HopUrlError::NoUser),
        ] {
            let error = text.parse::<HopUrl>().unwrap_err();
            assert_eq!(error, expected, "{text}");
        }
    }
}
