//! Who may use the admin API.
//!
//! Loopback alone does not keep a browser's pages out: a page can post to 127.0.0.1, and with DNS rebinding
//! it can read the answer as well. So a request must name a host that no stranger controls, must not come from
//! a page of another origin, and presents the token where one is set.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use wmproxy_net::addr::{AddressSpec, Host};
use wmproxy_wire::units::Secret;

/// By what names the API may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    /// The host name of the config's address.
    name: Option<String>,
    /// On a unix socket, which no page reaches, the name does not matter.
    any_host: bool,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not exactly one `Host`, which HTTP/1.1 demands (RFC 9112 section 3.2).
    NoHost,
    /// A name that may point anywhere.
    ForeignHost,
    /// A page of somebody else's.
    ForeignOrigin,
    /// Without the token, or with a wrong one.
    Token,
}

impl Refusal {
    /// The answer's status.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Refusal::NoHost => StatusCode::BAD_REQUEST,
            Refusal::ForeignHost | Refusal::ForeignOrigin => StatusCode::FORBIDDEN,
            Refusal::Token => StatusCode::UNAUTHORIZED,
        }
    }

    /// The answer's text.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Refusal::NoHost => "a request needs exactly one Host header",
            Refusal::ForeignHost => {
                "the Host header must be an IP address, localhost or the host name of [admin] listen"
            }
            Refusal::ForeignOrigin => "requests of pages from other origins are refused",
            Refusal::Token => "this needs the token of [admin], as Authorization: Bearer TOKEN",
        }
    }
}

impl Guard {
    /// The guard of an API that listens there.
    pub(crate) fn new(listen: &AddressSpec) -> Guard {
        match listen {
            AddressSpec::Unix(_) => Guard { name: None, any_host: true },
            AddressSpec::Inet { host: Host::Name(name), .. } => {
                Guard { name: Some(name.clone()), any_host: false }
            }
            AddressSpec::Inet { .. } => Guard { name: None, any_host: false },
        }
    }

    /// Lets a request in or says why not.
    pub(crate) fn check(&self, headers: &HeaderMap, token: Option<&Secret>) -> Result<(), Refusal> {
        let host = only(headers, header::HOST).ok_or(Refusal::NoHost)?;
        if !self.any_host && !self.is_ours(host) {
            return Err(Refusal::ForeignHost);
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, header::ORIGIN).and_then(|origin| origin.split_once("://"));
            match origin {
                Some(("http" | "https", authority)) if authority.eq_ignore_ascii_case(host) => {}
                _ => return Err(Refusal::ForeignOrigin),
            }
        }
        match token {
            Some(token) if !only(headers, header::AUTHORIZATION).is_some_and(|v| bears(v, token)) => {
                Err(Refusal::Token)
            }
            _ => Ok(()),
        }
    }

    fn is_ours(&self, authority: &str) -> bool {
        let Some(host) = without_port(authority) else { return false };
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Some(inner) = host.strip_prefix('[') {
            return inner.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        }
        host.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.name.as_ref().is_some_and(|name| host.eq_ignore_ascii_case(name))
    }
}

/// The host of `host` or `host:port`.
fn without_port(authority: &str) -> Option<&str> {
    match authority.rsplit_once(':') {
        // A colon inside of the brackets of an IPv6 address.
        Some((_, after)) if after.ends_with(']') => Some(authority),
        Some((host, port)) => port.parse::<u16>().is_ok().then_some(host),
        None => Some(authority),
    }
}

/// The value of a header that is there exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Whether an `Authorization` presents the token (RFC 6750 section 2.1).
fn bears(value: &str, token: &Secret) -> bool {
    value.split_once(' ').is_some_and(|(scheme, credentials)| {
        scheme.eq_ignore_ascii_case("bearer") && token.matches(credentials.trim().as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, headers: &[(&str, &str)], token: Option<&str>) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let token = token.map(|token| Secret::new(token).unwrap());
        Guard::new(&listen.parse().unwrap()).check(&map, token.as_ref())
    }

    #[test]
    fn only_names_that_no_stranger_controls_are_hosts() {
        for host in
            ["127.0.0.1", "127.0.0.1:8837", "[::1]", "[::1]:1", "localhost:8837", "LOCALHOST", "192.0.2.7"]
        {
            assert_eq!(check("127.0.0.1:8837", &[("host", host)], None), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8837",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            ":80",
            "[::1",
            "::1x",
            "a:b",
        ] {
            assert_eq!(check("127.0.0.1:8837", &[("host", host)], None), Err(Refusal::ForeignHost), "{host}");
        }
        assert_eq!(check("proxy.internal:1", &[("host", "Proxy.Internal.:1")], None), Ok(()));
        assert_eq!(check("unix:/run/a.sock", &[("host", "whatever")], None), Ok(()));
        assert_eq!(check("127.0.0.1:1", &[], None), Err(Refusal::NoHost));
        let two = [("host", "127.0.0.1"), ("host", "localhost")];
        assert_eq!(check("127.0.0.1:1", &two, None), Err(Refusal::NoHost));
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let with = |origin| check("127.0.0.1:1", &[("host", "localhost:1"), ("origin", origin)], None);
        assert_eq!(with("http://localhost:1"), Ok(()));
        for origin in ["null", "http://localhost:2", "http://evil.example", "ftp://localhost:1", ""] {
            assert_eq!(with(origin), Err(Refusal::ForeignOrigin), "{origin}");
        }
    }

    #[test]
    fn a_token_must_be_presented_where_one_is_set() {
        let with =
            |value| check("127.0.0.1:1", &[("host", "localhost"), ("authorization", value)], Some("s3cret"));
        assert_eq!(with("Bearer s3cret"), Ok(()));
        assert_eq!(with("bearer  s3cret"), Ok(()));
        for value in ["Bearer s3cre", "Bearer s3cret1", "Basic s3cret", "s3cret", "Bearer", "Bearer "] {
            assert_eq!(with(value), Err(Refusal::Token), "{value}");
        }
        assert_eq!(check("127.0.0.1:1", &[("host", "localhost")], Some("s3cret")), Err(Refusal::Token));
    }
}
