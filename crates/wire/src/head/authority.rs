//! Whom a request is for: `host`, `host:port` (RFC 3986 section 3.2, RFC 9110 section 7.2).
//!
//! Held to what names hosts in practice: letters, digits, `-`, `.` and `_`, an IPv4 address, or an IPv6 address in
//! brackets. What RFC 3986 allows beyond (`%41`, `a,b`, `user@host`, `[v1.x]`) names no host that anybody can resolve, and
//! is read differently by different programs.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::is_host_name;

/// The longest host: a name in DNS (RFC 1035 section 2.3.4), and the dot at its end.
const HOST_MAX: usize = 254;

/// A host, told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host<'a> {
    /// A name, in the case that it came in, without the dot at its end.
    Name(&'a [u8]),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, which came in brackets.
    V6(Ipv6Addr),
}

/// Whom a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host.
    pub host: Host<'a>,
    /// The port, where one is given.
    pub port: Option<u16>,
}

/// A text that names no host, or no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadAuthority;

impl std::fmt::Display for BadAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a host with a port or without")
    }
}

impl std::error::Error for BadAuthority {}

/// Reads an authority. `host:` with no port behind the colon is one without a port (RFC 3986 section 6.2.3).
///
/// # Errors
/// It is empty, has a user before its host, or is no host, or the port is no number up to 65535.
pub fn parse(text: &[u8]) -> Result<Authority<'_>, BadAuthority> {
    if let Some(rest) = text.strip_prefix(b"[") {
        let end = rest.iter().position(|&byte| byte == b']').ok_or(BadAuthority)?;
        let address = std::str::from_utf8(&rest[..end]).ok().and_then(|text| text.parse().ok());
        let port = match &rest[end + 1..] {
            [] => None,
            [b':', port @ ..] => parse_port(port)?,
            _ => return Err(BadAuthority),
        };
        return Ok(Authority { host: Host::V6(address.ok_or(BadAuthority)?), port });
    }
    let end = text.iter().position(|&byte| byte == b':').unwrap_or(text.len());
    let host = parse_host(&text[..end])?;
    let port = if end < text.len() { parse_port(&text[end + 1..])? } else { None };
    Ok(Authority { host, port })
}

fn parse_port(text: &[u8]) -> Result<Option<u16>, BadAuthority> {
    // More digits than a port has would be another port to whoever cuts them off.
    if text.len() > 5 || !text.iter().all(u8::is_ascii_digit) {
        return Err(BadAuthority);
    }
    if text.is_empty() {
        return Ok(None);
    }
    let port = text.iter().fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0'));
    u16::try_from(port).map(Some).map_err(|_| BadAuthority)
}

/// Reads a host that is no IPv6 address.
fn parse_host(text: &[u8]) -> Result<Host<'_>, BadAuthority> {
    let name = text.strip_suffix(b".").unwrap_or(text);
    if text.len() > HOST_MAX || !is_host_name(name) {
        return Err(BadAuthority);
    }
    if !name.last().is_some_and(u8::is_ascii_digit) {
        return Ok(Host::Name(name));
    }
    let last = name.rsplit(|&byte| byte == b'.').next().unwrap_or(name);
    if !last.iter().all(u8::is_ascii_digit) {
        return Ok(Host::Name(name));
    }
    // No name ends in digits: `127.1` and `0177.0.0.1` are addresses to some programs, and not the same one to all.
    let address = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    address.map(Host::V4).ok_or(BadAuthority)
}

impl Host<'_> {
    /// Whether both are the same host, in whatever case.
    pub fn is(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Host::Name(one), Host::Name(other)) => one.eq_ignore_ascii_case(other),
            (one, other) => one == other,
        }
    }

    /// Writes it in its one form: lower case, addresses in their shortest form, an IPv6 address in brackets.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Host::Name(name) => out.extend(name.iter().map(u8::to_ascii_lowercase)),
            Host::V4(address) => write_v4(address, out),
            Host::V6(address) => write_display(out, &format_args!("[{address}]")),
        }
    }
}

impl Authority<'_> {
    /// Whether both are for the same host and port, where a port that is not given is `default_port`.
    pub fn is(&self, other: &Authority<'_>, default_port: u16) -> bool {
        let port = |authority: &Authority<'_>| authority.port.unwrap_or(default_port);
        self.host.is(&other.host) && port(self) == port(other)
    }

    /// Writes it in its one form: the [host](Host::write), and the port unless it is `default_port`.
    pub fn write(&self, default_port: u16, out: &mut Vec<u8>) {
        self.host.write(out);
        if let Some(port) = self.port.filter(|port| *port != default_port) {
            write_display(out, &format_args!(":{port}"));
        }
    }
}

/// Writes an IPv4 address. Without the machinery of formatting, for in many requests it is the host.
fn write_v4(address: &Ipv4Addr, out: &mut Vec<u8>) {
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        let digits = [octet / 100, octet / 10 % 10, octet % 10].map(|digit| b'0' + digit);
        let zeros = if octet >= 100 { 0 } else { 2 - usize::from(octet >= 10) };
        out.extend_from_slice(&digits[zeros..]);
    }
}

/// Writes what can be displayed, straight into the bytes.
pub(super) fn write_display(out: &mut Vec<u8>, what: &dyn std::fmt::Display) {
    struct Bytes<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Bytes<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // Writing to memory does not fail.
    let _ = write!(Bytes(out), "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> Option<String> {
        let mut out = Vec::new();
        parse(text.as_bytes()).ok()?.write(80, &mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn hosts_have_one_form() {
        for (text, form) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com.", "example.com"),
            ("a_b-c.d:8080", "a_b-c.d:8080"),
            ("example.com:80", "example.com"),
            ("example.com:", "example.com"),
            ("example.com:00080", "example.com"),
            ("localhost.:81", "localhost:81"),
            ("127.0.0.1:81", "127.0.0.1:81"),
            ("255.10.99.100", "255.10.99.100"),
            ("[::1]", "[::1]"),
            ("[0:0::1]:80", "[::1]"),
            ("[2001:DB8::A]:443", "[2001:db8::a]:443"),
            ("[::ffff:1.2.3.4]:1", "[::ffff:1.2.3.4]:1"),
            ("4you.example", "4you.example"),
        ] {
            assert_eq!(normal(text).as_deref(), Some(form), "{text}");
        }
    }

    #[test]
    fn what_names_no_host_is_refused() {
        for text in [
            "",
            ".",
            ":80",
            "..",
            ".a",
            "a..b",
            "a b",
            "a\tb",
            "user@a",
            "user:pass@a",
            "a/b",
            "a?b",
            "a#b",
            "a,b",
            "a%41",
            "a:b",
            "a:-1",
            "a:+1",
            "a:65536",
            "a:000080",
            "a:80:80",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[::1%eth0]",
            "[v1.x]",
            "[]",
            "[1.2.3.4]",
            "::1",
            "127.1",
            "0177.0.0.1",
            "1.2.3.4.",
            "1.2.3.256",
            "1",
            "a.1",
            "\u{e9}.com",
            "a\0",
            "*",
            "a;b",
            "(a)",
            "a\\b",
        ] {
            assert_eq!(normal(text), None, "{text}");
        }
        let long = ["a"; 127].join(".");
        assert!(normal(&long).is_some());
        assert!(normal(&format!("{long}aa")).is_none());
    }

    #[test]
    fn the_same_host_is_the_same_in_every_form() {
        let same = |one: &str, other: &str| {
            parse(one.as_bytes()).unwrap().is(&parse(other.as_bytes()).unwrap(), 443)
        };
        assert!(same("A.example:443", "a.EXAMPLE."));
        assert!(same("[::1]", "[0::1]:443"));
        assert!(!same("a.example:80", "a.example"));
        assert!(!same("[::ffff:1.2.3.4]", "1.2.3.4"));
        assert!(!same("a", "b"));
    }
}
