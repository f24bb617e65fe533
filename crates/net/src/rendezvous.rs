//! A port on which somebody is expected: one connection, and the listening is over.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind, connect, getsockname, listen, socket_with,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::pressure;
use crate::stream::Stream;
use crate::sys;

/// Connections that wait to be looked at. Who is expected is one; others may come first.
const BACKLOG: i32 = 4;

/// A port that listens until it is dropped.
#[derive(Debug)]
pub struct Rendezvous {
    socket: AsyncFd<OwnedFd>,
    address: SocketAddr,
}

impl Rendezvous {
    /// Listens on a free port of an address of this machine.
    ///
    /// # Errors
    /// The address is not of this machine, or there are no ports or descriptors.
    pub fn bind(ip: IpAddr) -> io::Result<Rendezvous> {
        let socket = open(ip, SocketType::STREAM)?;
        pressure::check(&socket)?;
        bind(&socket, &SocketAddr::new(ip, 0))?;
        listen(&socket, BACKLOG)?;
        let address = local_address(&socket)?;
        Ok(Rendezvous { socket: sys::watch(socket, Interest::READABLE)?, address })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next connection. Sets no deadline of its own.
    ///
    /// # Errors
    /// This machine can't take it.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            let mut ready = self.socket.readable().await?;
            match acceptfrom_with(self.socket.get_ref(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((fd, from)) => {
                    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                    // Nobody else comes to a socket of the internet; who does is not waited for.
                    let Some(from) = from else { continue };
                    return Ok((
                        Stream::new(fd, true)?,
                        SocketAddr::new(from.ip().to_canonical(), from.port()),
                    ));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                // Linux passes errors of the new connection on through accept(2).
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The address of this machine from which it reaches another. Nothing is sent.
///
/// # Errors
/// There is no way there.
pub fn address_towards(ip: IpAddr) -> io::Result<IpAddr> {
    let socket = open(ip, SocketType::DGRAM)?;
    // Any port does: that of a datagram socket is only noted.
    connect(&socket, &SocketAddr::new(ip, 9))?;
    Ok(local_address(&socket)?.ip())
}

fn open(ip: IpAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?)
}

fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(getsockname(socket)?)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

    use super::*;

    #[tokio::test]
    async fn who_comes_is_named_and_the_port_ends_with_its_owner() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let rendezvous = Rendezvous::bind(ip).unwrap();
            let address = rendezvous.address();
            assert_eq!(address.ip(), ip);
            let mut peer = TcpStream::connect(address).unwrap();
            let (stream, from) = rendezvous.accept().await.unwrap();
            assert_eq!(from, peer.local_addr().unwrap());
            peer.write_all(b"hello").unwrap();
            let mut buffer = [0; 8];
            assert_eq!(std::future::poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await.unwrap(), 5);
            drop(rendezvous);
            assert!(TcpStream::connect(address).is_err());
        }
    }

    #[test]
    fn the_way_to_oneself_begins_at_oneself() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            assert_eq!(address_towards(ip).unwrap(), ip);
        }
    }
}
