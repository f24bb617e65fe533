//! Version 1: one line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Command, Endpoints, Header, HeaderError, Parsed, Tlvs, Transport, V1_MAX, Version};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// `PROXY UNKNOWN` with its CRLF.
const SHORTEST: usize = 15;

/// Parses what begins with the signature, or with a part of it.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, HeaderError> {
    let window = &bytes[..bytes.len().min(V1_MAX)];
    let Some(feed) = window.iter().position(|byte| *byte == b'\n') else {
        return match window.len() {
            V1_MAX => Err(HeaderError::TooLong),
            length => Ok(Parsed::NeedMore((length + 1).max(SHORTEST))),
        };
    };
    // A line feed alone ends no header, however long one waits.
    let end = feed.checked_sub(1).filter(|end| window[*end] == b'\r');
    let end = end.ok_or(HeaderError::Malformed("the end of its line"))?;
    let line = std::str::from_utf8(&window[SIGNATURE.len().min(end)..end]);
    let endpoints = parse_line(line.map_err(|_| HeaderError::Malformed("no text"))?)?;
    let command = if endpoints == Endpoints::Unknown { Command::Local } else { Command::Proxy };
    let header = Header { version: Version::V1, command, endpoints, tlvs: Tlvs::default() };
    Ok(Parsed::Header(header, feed + 1))
}

/// What stands between the signature and the end of the line.
fn parse_line(line: &str) -> Result<Endpoints<'static>, HeaderError> {
    let bad = HeaderError::Malformed;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Ok(Endpoints::Unknown);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(Into::into),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(Into::into),
            _ => None,
        }
    };
    if !matches!(family, "TCP4" | "TCP6") {
        return Err(bad("its protocol is none of TCP4, TCP6 and UNKNOWN"));
    }
    let source = address().ok_or(bad("its source address"))?;
    let destination = address().ok_or(bad("its destination address"))?;
    let mut port = || words.next().and_then(parse_port);
    let source = SocketAddr::new(source, port().ok_or(bad("its source port"))?);
    let destination = SocketAddr::new(destination, port().ok_or(bad("its destination port"))?);
    match words.next() {
        Some(_) => Err(bad("more after its ports")),
        None => Ok(Endpoints::Inet { transport: Transport::Stream, source, destination }),
    }
}

/// A port without sign or leading zeros.
fn parse_port(word: &str) -> Option<u16> {
    let is_number = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_number)
}
