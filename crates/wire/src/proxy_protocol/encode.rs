//! Writing headers.

use std::net::{IpAddr, SocketAddr};

use super::tlv::crc32c;
use super::{Command, Endpoints, Transport, UNIX_PATH, V2_HEADER, kind, v1, v2};

/// Type-length-values to be written, in wire form. What does not fit into 16 bits is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlvList(Vec<u8>);

/// What the length field of a header can say.
const MAX_BODY: usize = u16::MAX as usize;

/// Two unix addresses, the longest there are.
const MAX_ADDRESSES: usize = 2 * UNIX_PATH;

/// A checksum's type-length-value.
const CHECKSUM: usize = 7;

impl TlvList {
    /// None.
    pub fn new() -> TlvList {
        TlvList::default()
    }

    /// Adds one. False if there is no room left for it in a header, which then goes without.
    pub fn push(&mut self, kind: u8, value: &[u8]) -> bool {
        let fits = self.0.len() + 3 + value.len() <= MAX_BODY - MAX_ADDRESSES - CHECKSUM;
        if fits && let Ok(length) = u16::try_from(value.len()) {
            self.0.push(kind);
            self.0.extend_from_slice(&length.to_be_bytes());
            self.0.extend_from_slice(value);
        }
        fits
    }
}

/// Appends a header of version 1. It knows no datagrams and no unix sockets, and calls them UNKNOWN.
pub fn encode_v1(out: &mut Vec<u8>, endpoints: &Endpoints<'_>) {
    use std::io::Write as _;
    out.extend_from_slice(v1::SIGNATURE);
    match endpoints {
        Endpoints::Inet { transport: Transport::Stream, source, destination } => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (ips, ports) = ((source.ip(), destination.ip()), (source.port(), destination.port()));
            // A vector takes everything.
            let _ = write!(out, "{family} {} {} {} {}\r\n", ips.0, ips.1, ports.0, ports.1);
        }
        _ => out.extend_from_slice(b"UNKNOWN\r\n"),
    }
}

/// Appends a header of version 2, with a checksum if `checksum` is set. [`Command::Local`] goes without anything else.
/// Both addresses have to be of one family, which [`Endpoints::inet`] sees to.
pub fn encode_v2(
    out: &mut Vec<u8>,
    command: Command,
    endpoints: &Endpoints<'_>,
    tlvs: &TlvList,
    checksum: bool,
) {
    let start = out.len();
    out.extend_from_slice(v2::SIGNATURE);
    if command == Command::Local {
        out.extend_from_slice(&[0x20, 0, 0, 0]);
        return;
    }
    out.push(0x21);
    let code = |transport: &Transport| match transport {
        Transport::Stream => 1,
        Transport::Datagram => 2,
    };
    let family = match endpoints {
        Endpoints::Unknown => 0,
        Endpoints::Inet { transport, source, .. } => {
            (if source.is_ipv4() { v2::INET } else { v2::INET6 } << 4) | code(transport)
        }
        Endpoints::Unix { transport, .. } => (v2::UNIX << 4) | code(transport),
    };
    out.extend_from_slice(&[family, 0, 0]);
    match endpoints {
        Endpoints::Unknown => {}
        Endpoints::Inet { source, destination, .. } => push_inet(out, source, destination),
        Endpoints::Unix { source, destination, .. } => {
            push_path(out, source);
            push_path(out, destination);
        }
    }
    out.extend_from_slice(&tlvs.0);
    if checksum {
        out.extend_from_slice(&[kind::CRC32C, 0, 4, 0, 0, 0, 0]);
    }
    // The list leaves room for all the rest.
    let length = u16::try_from(out.len() - start - V2_HEADER).unwrap_or(u16::MAX);
    out[start + 14..start + V2_HEADER].copy_from_slice(&length.to_be_bytes());
    if checksum {
        let sum = !crc32c(!0, &out[start..]);
        let at = out.len() - 4;
        out[at..].copy_from_slice(&sum.to_be_bytes());
    }
}

/// A path that is too long is cut.
fn push_path(out: &mut Vec<u8>, path: &[u8]) {
    let end = out.len() + UNIX_PATH;
    out.extend_from_slice(&path[..path.len().min(UNIX_PATH)]);
    out.resize(end, 0);
}

fn push_inet(out: &mut Vec<u8>, source: &SocketAddr, destination: &SocketAddr) {
    for addr in [source, destination] {
        match addr.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    for addr in [source, destination] {
        out.extend_from_slice(&addr.port().to_be_bytes());
    }
}
