//! Hosts: the one place where what a client writes becomes an address or a name.
//!
//! Rules are checked on what comes out of here, and the same is resolved and connected to, so that no spelling of a host can
//! mean one thing to a rule and another to a resolver.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::Host;

/// The longest name without a dot at its end (RFC 1035 section 3.1, less the length of the first label and the root).
pub const MAX_NAME: usize = 253;
/// The longest label (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;
/// The longest text looked at: a name of [`MAX_NAME`] is no longer than this in another script, four bytes a letter.
const MAX_TEXT: usize = 4 * MAX_NAME;

/// Why a text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHost {
    /// Nothing is there.
    Empty,
    /// It is longer than a name can be.
    TooLong,
    /// A part between dots is empty, or longer than 63 bytes.
    Label,
    /// Something is in it that is in no name: only letters, digits, `-`, `_` and dots are.
    Character,
    /// It has letters of another script, or is said to, and they make no name (UTS 46, RFC 5891).
    International,
    /// It ends in a number, as only an IPv4 address does, and is none.
    Ipv4,
    /// It has brackets or colons, and is no IPv6 address. A zone is none of ours to know, and is refused, too.
    Ipv6,
}

impl fmt::Display for BadHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadHost::Empty => "there is no host",
            BadHost::TooLong => "the host is longer than the 253 bytes that a name may have",
            BadHost::Label => "a part of the host's name is empty, or longer than 63 bytes",
            BadHost::Character => "the host has a character that is in no name",
            BadHost::International => "the host's international name is not valid",
            BadHost::Ipv4 => "the host ends in a number and is no IPv4 address",
            BadHost::Ipv6 => "the host has a colon or a bracket and is no IPv6 address",
        })
    }
}

impl std::error::Error for BadHost {}

/// Reads a host as clients write it, and normalises it:
///
/// - an IPv6 address, with or without brackets; one of IPv4 inside (`::ffff:0:0/96`) becomes that;
/// - an IPv4 address in each form that `inet_aton` (inet(3)) reads: one to four numbers, decimal, octal after `0` or
///   hexadecimal after `0x`, of which the last fills what is left; so `0x7f.1` is 127.0.0.1;
/// - a name, in lower case, without a dot at its end, its letters of other scripts as A-labels (UTS 46, non-transitional).
///
/// A name of which the last label is a number is none (WHATWG URL, "ends in a number"), so that no name is ever read as an
/// address by whoever gets it next. An underscore is allowed, percent-encoding is not.
///
/// # Errors
/// It is neither.
pub fn parse_host(text: &[u8]) -> Result<Host, BadHost> {
    match text {
        [] => return Err(BadHost::Empty),
        [b'[', inner @ .., b']'] => return ipv6(inner),
        _ if text.contains(&b':') || text[0] == b'[' => return ipv6(text),
        _ if text.len() > MAX_TEXT => return Err(BadHost::TooLong),
        _ => {}
    }
    if is_international(text) {
        // The deny list is only the first sieve: what comes out goes through the same checks as what came in plain.
        let ascii = Uts46::new()
            .to_ascii(text, AsciiDenyList::URL, Hyphens::Allow, DnsLength::Ignore)
            .map_err(|_| BadHost::International)?;
        return plain(ascii.as_bytes());
    }
    plain(text)
}

/// Whether something is in it that UTS 46 changes or checks: what is not ASCII, or a label that says to be of another script.
fn is_international(text: &[u8]) -> bool {
    !text.is_ascii()
        || text
            .split(|byte| *byte == b'.')
            .any(|label| label.first_chunk::<4>().is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"xn--")))
}

/// A host of ASCII.
fn plain(text: &[u8]) -> Result<Host, BadHost> {
    let text = text.strip_suffix(b".").unwrap_or(text);
    if text.len() > MAX_NAME {
        return Err(BadHost::TooLong);
    }
    let mut lower = [0; MAX_NAME];
    let lower = &mut lower[..text.len()];
    let mut label = 0;
    for (byte, slot) in text.iter().zip(lower.iter_mut()) {
        *slot = match byte {
            b'.' if label == 0 => return Err(BadHost::Label),
            b'.' => b'.',
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => *byte,
            b'A'..=b'Z' => byte.to_ascii_lowercase(),
            _ => return Err(BadHost::Character),
        };
        label = if *byte == b'.' { 0 } else { label + 1 };
        if label > MAX_LABEL {
            return Err(BadHost::Label);
        }
    }
    if label == 0 {
        return Err(BadHost::Label);
    }
    let name = std::str::from_utf8(lower).map_err(|_| BadHost::Character)?;
    if name.rsplit('.').next().is_some_and(is_number) {
        return ipv4(name).map(|ip| Host::Ip(ip.into()));
    }
    Ok(Host::Name(Arc::from(name)))
}

fn ipv6(text: &[u8]) -> Result<Host, BadHost> {
    let ip: Option<Ipv6Addr> = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    ip.map(|ip| Host::Ip(IpAddr::V6(ip).to_canonical())).ok_or(BadHost::Ipv6)
}

/// Whether a label looks like a number, be it a valid one or not.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// What `inet_aton` reads, in lower case.
fn ipv4(text: &str) -> Result<Ipv4Addr, BadHost> {
    let mut bits = 0u32;
    let mut parts = text.split('.').peekable();
    for index in 0..4 {
        let number = parts.next().and_then(number).ok_or(BadHost::Ipv4)?;
        let is_last = parts.peek().is_none();
        // The last number fills the bytes that are left; each before it is one byte.
        let width = if is_last { 32 - 8 * index } else { 8 };
        if u64::from(number) >> width != 0 {
            return Err(BadHost::Ipv4);
        }
        if is_last {
            return Ok(Ipv4Addr::from_bits(bits | number));
        }
        bits |= number << (24 - 8 * index);
    }
    Err(BadHost::Ipv4)
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // What is read by the library may begin with a plus, which no name has.
    u32::from_str_radix(digits, radix).ok()
}
