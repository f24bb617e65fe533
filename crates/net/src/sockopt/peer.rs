//! What is set on a socket towards a peer, and the address that it comes from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, SockAddr, SockRef, Socket};

use super::listen::{FAST_OPEN_CLIENT, fast_open_is_on, has_mptcp, open_tcp};
use super::way::{TRANSPARENT_RIGHT, set_transparent};
use super::{Refusal, Source, TcpOptions, Way};
use crate::sys;

/// What is set on the sockets towards a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerSocket {
    /// How packets to it leave.
    pub way: Way,
    /// The address that it sees; any of this machine's without it.
    pub source: Option<Source>,
    /// Sends the first data with the first packet (TCP_FASTOPEN_CONNECT, RFC 7413): a connection seems made before the
    /// peer was heard of, once it has given out a cookie.
    pub fast_open: bool,
    /// Lets a connection go over several paths (RFC 8684), if the peer wants that, too.
    pub mptcp: bool,
    /// What TCP connections have.
    pub tcp: TcpOptions,
}

/// Why this machine can't begin a connection as it is configured to; the peer is not to blame.
#[derive(Debug, thiserror::Error)]
pub enum NoWay {
    /// Addresses of both families can't talk to each other.
    #[error("the address to connect from, {from}, and that of the peer are IPv4 and IPv6")]
    Families {
        /// The address to come from.
        from: IpAddr,
    },
    /// The peer is to see the client's address, and there is none.
    #[error("`source = \"client\"`: the client came by a unix socket and has no address")]
    NoClient,
    /// The system refuses an option.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl NoWay {
    /// Whether an error of connecting is of this kind.
    pub fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<NoWay>())
    }
}

impl From<NoWay> for io::Error {
    fn from(error: NoWay) -> io::Error {
        io::Error::other(error)
    }
}

impl PeerSocket {
    /// The same with these options of TCP, and coming from `source` unless it says where from itself.
    pub fn with(&self, tcp: TcpOptions, source: Option<Source>) -> PeerSocket {
        PeerSocket { tcp, source: self.source.or(source), ..self.clone() }
    }

    /// Opens a TCP socket.
    pub(crate) fn open_tcp(&self, peer: SocketAddr) -> io::Result<Socket> {
        open_tcp(Domain::for_address(peer), self.mptcp)
    }

    /// Readies a TCP socket that was just opened to connect to `peer` for a client.
    ///
    /// # Errors
    /// A [`NoWay`].
    pub(crate) fn prepare_tcp(
        &self,
        socket: &impl AsFd,
        peer: SocketAddr,
        client: Option<IpAddr>,
    ) -> io::Result<()> {
        self.prepare(socket, peer, client)?;
        self.tcp.apply_to_new(socket).map_err(NoWay::from)?;
        if self.fast_open {
            let (level, name) = (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT);
            let set = sys::set_int(socket.as_fd(), level, name, 1);
            set.map_err(|error| NoWay::from(Refusal::of("tcp_fast_open")(error)))?;
        }
        Ok(())
    }

    /// Readies a socket of any kind that was just opened to connect to `peer` for a client.
    ///
    /// # Errors
    /// A [`NoWay`].
    pub(crate) fn prepare(
        &self,
        socket: &impl AsFd,
        peer: SocketAddr,
        client: Option<IpAddr>,
    ) -> io::Result<()> {
        self.way.apply_to_new(socket.as_fd(), peer.is_ipv4()).map_err(NoWay::from)?;
        match self.source {
            None => Ok(()),
            Some(Source::Address(ip)) => bind(socket, peer, ip),
            Some(Source::Client) => {
                let ip = client.ok_or(NoWay::NoClient)?;
                let set = set_transparent(socket, peer.is_ipv4(), true);
                set.map_err(|error| NoWay::from(Refusal::new("source", TRANSPARENT_RIGHT, error)))?;
                bind(socket, peer, ip)
            }
        }
    }

    /// Tries all of it on a socket of its own.
    ///
    /// # Errors
    /// The system refuses an option, or does not have the source address.
    pub fn probe(&self) -> io::Result<()> {
        let local: IpAddr = match self.source {
            Some(Source::Address(IpAddr::V6(_))) => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        };
        let peer = SocketAddr::new(local, 1);
        let client = Some(local);
        if *self == PeerSocket::default().with(self.tcp, None) {
            return Ok(());
        }
        let socket = self.open_tcp(peer)?;
        self.prepare_tcp(&socket, peer, client)
    }

    /// What the system lacks for this to have its effect; one sentence each.
    pub fn shortcomings(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.mptcp && !has_mptcp() {
            all.push(
                "`mptcp` has no effect: this kernel has no MPTCP, or it is off (sysctl net.mptcp.enabled)"
                    .to_owned(),
            );
        }
        if self.fast_open && !fast_open_is_on(FAST_OPEN_CLIENT) {
            all.push(
                "`tcp_fast_open` has no effect towards servers until the system allows it: sysctl -w net.ipv4.tcp_fastopen=3"
                    .to_owned(),
            );
        }
        all
    }
}

/// Gives a socket the address to connect from. The port is chosen when it connects, and then only has to differ from
/// those of other connections *to that peer* (IP_BIND_ADDRESS_NO_PORT, ip(7)): one address has 28,000 for each peer
/// in place of 28,000 for all.
fn bind(socket: &impl AsFd, peer: SocketAddr, ip: IpAddr) -> io::Result<()> {
    // An IPv4 client of a dual-stack proxy before us may be written as IPv6.
    let ip = ip.to_canonical();
    if ip.is_ipv4() != peer.is_ipv4() {
        return Err(NoWay::Families { from: ip }.into());
    }
    let refused = |error| NoWay::from(Refusal::of("source")(error));
    let fd = socket.as_fd();
    sys::set_int(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1).map_err(refused)?;
    SockRef::from(socket).bind(&SockAddr::from(SocketAddr::new(ip, 0))).map_err(|e| refused(e).into())
}
