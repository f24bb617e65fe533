//! How a client says to a forward proxy where it wants to go.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Result, bail, ensure};

use super::connect;
use crate::cli::LoadArgs;
use crate::scenario::Door;

/// Before each datagram through a proxy (RFC 1928 section 7), for an IPv4 address.
pub(super) const HEADER: usize = 10;

/// More than any proxy says to grant a CONNECT.
const HEAD: usize = 4096;

/// The connection that an association lives by, and where its datagrams go.
pub(super) struct Association {
    _control: TcpStream,
    pub(super) relay: SocketAddr,
}

/// How far a client is that does not wait for each answer by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The proxy is to choose a method of SOCKS 5.
    Choice,
    /// It is to grant a CONNECT.
    Head,
    /// It is to grant a request of SOCKS 5.
    Reply,
    /// The way is open.
    Open,
}

impl Stage {
    /// Says the first thing on a new connection to what `args` name.
    pub(super) fn begin(stream: &mut TcpStream, args: &LoadArgs) -> Result<Stage> {
        Ok(match (args.door, args.origin) {
            (Some(Door::Connect), Some(origin)) => {
                connect_by(stream, origin)?;
                Stage::Head
            }
            (Some(Door::Socks5), Some(_)) => {
                stream.write_all(&[5, 1, 0])?;
                Stage::Choice
            }
            _ => Stage::Open,
        })
    }

    /// Reads an answer that is there, and says what follows it. Answers are too short to come in pieces.
    pub(super) fn next(self, stream: &mut TcpStream, args: &LoadArgs) -> Result<Stage> {
        match (self, args.origin) {
            (Stage::Choice, Some(origin)) => {
                chosen(stream)?;
                request(stream, 1, origin)?;
                Ok(Stage::Reply)
            }
            (Stage::Reply, _) => replied(stream).map(|_| Stage::Open),
            (Stage::Head, _) => granted(stream).map(|()| Stage::Open),
            (stage, _) => Ok(stage),
        }
    }
}

/// Connects to the origin: by way of the proxy that `args` name, in the way that its door wants it.
pub(super) fn open(args: &LoadArgs) -> Result<TcpStream> {
    let mut stream = connect(args.target)?;
    match (args.door, args.origin) {
        (Some(Door::Connect), Some(origin)) => {
            connect_by(&mut stream, origin)?;
            granted(&mut stream)?;
        }
        (Some(Door::Socks5), Some(origin)) => {
            let bound = ask(&mut stream, 1, origin)?;
            ensure!(bound.is_ipv4(), "the proxy names no address of its own");
        }
        _ => {}
    }
    Ok(stream)
}

/// Asks for an association of datagrams.
pub(super) fn associate(args: &LoadArgs) -> Result<Association> {
    let mut control = connect(args.target)?;
    // The port is not known yet (RFC 1928 section 6).
    let relay = ask(&mut control, 3, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    Ok(Association { _control: control, relay })
}

/// What stands before a datagram to `origin`, and before what comes back from there.
pub(super) fn header(origin: SocketAddr) -> Result<[u8; HEADER]> {
    let mut header = [0; HEADER];
    header[3..].copy_from_slice(&address(origin)?);
    Ok(header)
}

/// Asks for a tunnel, in one piece.
fn connect_by(stream: &mut TcpStream, origin: SocketAddr) -> Result<()> {
    let head = format!("CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\n");
    Ok(stream.write_all(head.as_bytes())?)
}

/// Reads the head that grants a CONNECT. Nothing follows it before the client says something.
fn granted(stream: &mut TcpStream) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 512];
        let len = stream.read(&mut piece)?;
        ensure!(len > 0 && head.len() < HEAD, "the proxy does not answer a CONNECT");
        head.extend_from_slice(&piece[..len]);
    }
    if head.get(8..12) != Some(b" 200") {
        bail!("the proxy refuses: {}", String::from_utf8_lossy(&head));
    }
    Ok(())
}

/// A request of SOCKS 5 (RFC 1928), and the address that the reply to it names.
fn ask(stream: &mut TcpStream, command: u8, to: SocketAddr) -> Result<SocketAddr> {
    stream.write_all(&[5, 1, 0])?;
    chosen(stream)?;
    request(stream, command, to)?;
    replied(stream)
}

fn chosen(stream: &mut TcpStream) -> Result<()> {
    let mut method = [0; 2];
    stream.read_exact(&mut method)?;
    ensure!(method == [5, 0], "the proxy wants another method than none: {method:?}");
    Ok(())
}

fn request(stream: &mut TcpStream, command: u8, to: SocketAddr) -> Result<()> {
    Ok(stream.write_all(&[&[5, command, 0][..], &address(to)?].concat())?)
}

fn replied(stream: &mut TcpStream) -> Result<SocketAddr> {
    let mut reply = [0; 10];
    stream.read_exact(&mut reply)?;
    ensure!(reply[..4] == [5, 0, 0, 1], "the proxy refuses: {reply:?}");
    let ip = Ipv4Addr::new(reply[4], reply[5], reply[6], reply[7]);
    Ok(SocketAddr::from((ip, u16::from_be_bytes([reply[8], reply[9]]))))
}

fn address(to: SocketAddr) -> Result<[u8; 7]> {
    let SocketAddr::V4(to) = to else { bail!("the benchmark runs on IPv4") };
    let mut bytes = [1; 7];
    bytes[1..5].copy_from_slice(&to.ip().octets());
    bytes[5..].copy_from_slice(&to.port().to_be_bytes());
    Ok(bytes)
}
