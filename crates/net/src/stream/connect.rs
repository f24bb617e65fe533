//! Streams to peers: sockets that are connected here.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};

use super::Stream;
use crate::addr::Address;
use crate::pressure;
use crate::sockopt::PeerSocket;

/// The config's form of a system address.
pub(crate) fn address_of(addr: socket2::SockAddr) -> io::Result<Address> {
    if let Some(inet) = addr.as_socket() {
        return Ok(Address::Inet(inet));
    }
    if addr.is_unix() {
        return Ok(Address::Unix(addr.as_pathname().unwrap_or(std::path::Path::new("")).into()));
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "neither an internet nor a unix socket"))
}

/// Connects, for `client` where the peer is to see its address. Sets no deadline of its own: drop the future to give up.
///
/// # Errors
/// As connect(2) says; see [`is_exhaustion`] and [`NoWay`](crate::sockopt::NoWay) for those that are this machine's own.
pub async fn connect(address: &Address, options: &PeerSocket, client: Option<IpAddr>) -> io::Result<Stream> {
    let connected = connect_inner(address, options, client).await;
    if let Err(error) = &connected {
        pressure::note(error);
    }
    connected
}

async fn connect_inner(
    address: &Address,
    options: &PeerSocket,
    client: Option<IpAddr>,
) -> io::Result<Stream> {
    let inet = matches!(address, Address::Inet(_));
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, begun) = match address {
        Address::Inet(to) => {
            let fd = OwnedFd::from(options.open_tcp(*to)?);
            pressure::check(&fd)?;
            options.prepare_tcp(&fd, *to, client)?;
            let begun = rustix::net::connect(&fd, to);
            (fd, begun)
        }
        Address::Unix(path) => {
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            pressure::check(&fd)?;
            let begun = rustix::net::connect(&fd, &SocketAddrUnix::new(path)?);
            (fd, begun)
        }
        // Only who is behind proxies is known by name, and then they connect.
        Address::Name(..) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a name can't be connected to"));
        }
    };
    match begun {
        Ok(()) => return Stream::new(fd, inet),
        // A unix socket whose queue is full says EAGAIN and never becomes ready (connect(2)): a refusal.
        Err(Errno::AGAIN) if !inet => return Err(io::ErrorKind::ConnectionRefused.into()),
        Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = Stream::new(fd, inet)?;
    // A socket that is still connecting is not ready for anything (tcp_poll), so the first event is the result.
    let fd = stream.base.socket()?;
    drop(fd.writable().await?);
    sockopt::socket_error(fd)??;
    Ok(stream)
}

/// Whether an error means that this machine ran out of descriptors, ports or memory: nobody else's fault.
pub fn is_exhaustion(error: &io::Error) -> bool {
    // EADDRNOTAVAIL is what connect(2) says when no ephemeral port is free.
    pressure::is_exhaustion(error) || Errno::from_io_error(error) == Some(Errno::ADDRNOTAVAIL)
}
