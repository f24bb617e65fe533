//! Sockets that belong to one client of a relay of datagrams (RFC 1928 section 7), or to all of its clients.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{FLOW_QUEUE, LISTENER_QUEUE, UdpSocket, allow_fragments, enable_gro, report_local, set_queue};
use crate::pressure;
use crate::sockopt::PeerSocket;

/// Who sends to a bound socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Senders {
    /// One client.
    One,
    /// Many of them.
    Many,
}

impl UdpSocket {
    /// A socket at `address` that hears everybody; port 0 is any that is free. At an unspecified address each message says
    /// which address of ours it came to.
    ///
    /// # Errors
    /// The address is taken, or is none of ours; no descriptors or ports are left.
    pub fn bind(address: SocketAddr, senders: Senders) -> io::Result<UdpSocket> {
        let open = || {
            let socket = UdpSocket::open(address.ip())?;
            let queue = match senders {
                Senders::One => FLOW_QUEUE,
                Senders::Many => LISTENER_QUEUE,
            };
            set_queue(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, queue);
            if senders == Senders::Many {
                set_queue(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, queue);
            }
            if address.ip().is_unspecified() {
                report_local(&socket, address.ip())?;
            }
            socket.bind(&SockAddr::from(address))?;
            UdpSocket::watch(Arc::new(socket.into()), false)
        };
        open().inspect_err(pressure::note)
    }

    /// A socket that sends to any number of peers of one family from one port of ours, and hears everybody. For `client`
    /// where peers are to see its address.
    ///
    /// # Errors
    /// No descriptors or ports are left; see [`NoWay`](crate::sockopt::NoWay), too.
    pub fn outward(is_ipv4: bool, options: &PeerSocket, client: Option<IpAddr>) -> io::Result<UdpSocket> {
        let open = || {
            let any = any(is_ipv4);
            let socket = UdpSocket::open(any.ip())?;
            set_queue(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, FLOW_QUEUE);
            options.prepare(&socket, any, client)?;
            UdpSocket::watch(Arc::new(socket.into()), false)
        };
        open().inspect_err(pressure::note)
    }

    fn open(ip: IpAddr) -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(SocketAddr::new(ip, 0)),
            Type::DGRAM.nonblocking().cloexec(),
            None,
        )?;
        pressure::check(&socket)?;
        if ip.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        enable_gro(&socket);
        allow_fragments(&socket, ip)?;
        Ok(socket)
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = SockRef::from(&self.as_fd()).local_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    /// It is connected to none.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        let address = SockRef::from(&self.as_fd()).peer_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

/// Whether this machine knows a way to `peer`. Nothing is sent to find out.
pub fn has_way(peer: SocketAddr) -> bool {
    let probe = std::net::UdpSocket::bind(any(peer.is_ipv4()));
    probe.is_ok_and(|socket| socket.connect(peer).is_ok())
}

fn any(is_ipv4: bool) -> SocketAddr {
    let ip: IpAddr = if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, 0)
}
