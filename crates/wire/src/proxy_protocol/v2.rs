//! Version 2: binary, with type-length-values behind the addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{
    Command, Endpoints, Header, HeaderError, Parsed, Tlvs, Transport, UNIX_PATH, V2_HEADER, Version,
};

pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

pub(super) const INET: u8 = 1;
pub(super) const INET6: u8 = 2;
pub(super) const UNIX: u8 = 3;

/// Parses what begins with the signature, or with a part of it.
pub(super) fn parse(bytes: &[u8], max: usize) -> Result<Parsed<'_>, HeaderError> {
    // Both are known before the length is, and nobody should wait for what they rule out.
    let command = match bytes.get(SIGNATURE.len()).map(|byte| (byte >> 4, byte & 0xf)) {
        None => return need(V2_HEADER, max),
        Some((2, 0)) => Command::Local,
        Some((2, 1)) => Command::Proxy,
        Some((2, _)) => return Err(HeaderError::Malformed("its command")),
        Some(_) => return Err(HeaderError::Malformed("its version")),
    };
    let Some((head, rest)) = bytes.split_at_checked(V2_HEADER) else { return need(V2_HEADER, max) };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let total = V2_HEADER + length;
    if total > max {
        return Err(HeaderError::TooLong);
    }
    let Some(body) = rest.get(..length) else { return need(total, max) };
    let header = |endpoints, tlvs| Header { version: Version::V2, command, endpoints, tlvs };
    if command == Command::Local {
        // The rest is to be discarded, family and all.
        return Ok(Parsed::Header(header(Endpoints::Unknown, Tlvs::default()), total));
    }
    let (endpoints, tlvs) = parse_addresses(head[13], body)?;
    let tlvs = Tlvs::check(tlvs)?;
    tlvs.verify(&bytes[..total])?;
    Ok(Parsed::Header(header(endpoints, tlvs), total))
}

fn need(total: usize, max: usize) -> Result<Parsed<'static>, HeaderError> {
    if total > max { Err(HeaderError::TooLong) } else { Ok(Parsed::NeedMore(total)) }
}

/// The addresses, and what follows them.
fn parse_addresses(family: u8, body: &[u8]) -> Result<(Endpoints<'_>, &[u8]), HeaderError> {
    let short = HeaderError::Malformed("shorter than its addresses");
    let transport = match family & 0xf {
        1 => Transport::Stream,
        2 => Transport::Datagram,
        0 if family == 0 => return Ok((Endpoints::Unknown, body)),
        _ => return Err(HeaderError::Malformed("its transport")),
    };
    match family >> 4 {
        INET => {
            let (block, rest) = body.split_first_chunk::<12>().ok_or(short)?;
            let ip = |at: usize| IpAddr::from([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            Ok((inet(transport, [ip(0), ip(4)], [block[8], block[9], block[10], block[11]]), rest))
        }
        INET6 => {
            let (block, rest) = body.split_first_chunk::<36>().ok_or(short)?;
            let (source, ports) = block.split_first_chunk::<16>().ok_or(short)?;
            let (destination, ports) = ports.split_first_chunk::<16>().ok_or(short)?;
            let ips = [source, destination].map(|octets| IpAddr::from(Ipv6Addr::from(*octets)));
            Ok((inet(transport, ips, [ports[0], ports[1], ports[2], ports[3]]), rest))
        }
        UNIX => {
            let (source, rest) = body.split_first_chunk::<UNIX_PATH>().ok_or(short)?;
            let (destination, rest) = rest.split_first_chunk::<UNIX_PATH>().ok_or(short)?;
            let [source, destination] = [source, destination].map(|path| until_nul(path));
            Ok((Endpoints::Unix { transport, source, destination }, rest))
        }
        _ => Err(HeaderError::Malformed("its address family")),
    }
}

fn until_nul(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn inet(transport: Transport, [source, destination]: [IpAddr; 2], ports: [u8; 4]) -> Endpoints<'static> {
    Endpoints::Inet {
        transport,
        source: SocketAddr::new(source, u16::from_be_bytes([ports[0], ports[1]])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([ports[2], ports[3]])),
    }
}
