//! What is set on listening sockets. Connections that they accept inherit it (tcp(7), ip(7)).

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use socket2::{Domain, Protocol as IpProtocol, SockFilter, SockRef, Socket, Type};

use super::way::{TRANSPARENT_RIGHT, is_transparent, set_transparent};
use super::{Refusal, TcpOptions, Way};
use crate::addr::Protocol;
use crate::sys;

/// SYNs with data that may wait for the end of their handshake. Whoever spoofs them can fill no more than this; the
/// connections after that are made as ever (RFC 7413 section 5.1).
const FAST_OPEN_QUEUE: i32 = 256;

/// What is set on the sockets of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenSocket {
    /// How packets to clients leave, and through which device clients come.
    pub way: Way,
    /// Takes what is meant for addresses of others, and answers from them.
    pub transparent: bool,
    /// Takes data with the first packet of a client (TCP_FASTOPEN, RFC 7413).
    pub fast_open: bool,
    /// Lets a connection go over several paths (RFC 8684). The kind of socket, so it can't be changed on one.
    pub mptcp: bool,
    /// What TCP connections have.
    pub tcp: TcpOptions,
}

impl ListenSocket {
    /// Opens a socket of the kind that this asks for. A kernel without MPTCP gives one of TCP, as it would serve a
    /// client that has none.
    pub(crate) fn open(&self, protocol: Protocol, domain: Domain) -> io::Result<Socket> {
        match protocol {
            Protocol::Udp => Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), None),
            Protocol::Tcp => open_tcp(domain, self.mptcp),
        }
    }

    /// Sets everything on a socket of a listener, which may have had other options.
    ///
    /// # Errors
    /// The system refuses one; the text says which, why and what to do.
    pub(crate) fn apply(&self, socket: &impl AsFd, protocol: Protocol, is_ipv4: bool) -> Result<(), Refusal> {
        let fd = socket.as_fd();
        self.way.apply(fd, is_ipv4)?;
        if is_transparent(fd, is_ipv4) != self.transparent {
            let refused = |error| Refusal::new("transparent", TRANSPARENT_RIGHT, error);
            set_transparent(fd, is_ipv4, self.transparent).map_err(refused)?;
        }
        if protocol == Protocol::Udp {
            return Ok(());
        }
        self.tcp.apply(socket)?;
        let queue = if self.fast_open { FAST_OPEN_QUEUE } else { 0 };
        let now = sys::get_int(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN).unwrap_or_default();
        if now != queue {
            let refused = Refusal::of("tcp_fast_open");
            sys::set_int(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, queue).map_err(refused)?;
        }
        Ok(())
    }

    /// Tries on a socket of its own whether a listener at `ip` that has `before` can be given this.
    ///
    /// # Errors
    /// The system refuses an option.
    pub fn probe(&self, before: &ListenSocket, protocol: Protocol, ip: IpAddr) -> io::Result<()> {
        if self == before {
            return Ok(());
        }
        let is_ipv4 = ip.is_ipv4();
        let domain = if is_ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = self.open(protocol, domain)?;
        // Of what it has only the device makes a difference. If that has gone away meanwhile, the change fails later,
        // and is then logged.
        let _ =
            Way { interface: before.way.interface.clone(), ..Way::default() }.apply(socket.as_fd(), is_ipv4);
        Ok(self.apply(&socket, protocol, is_ipv4)?)
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
        if self.fast_open && !fast_open_is_on(FAST_OPEN_SERVER) {
            all.push(
                "`tcp_fast_open` has no effect on listeners until the system allows it: sysctl -w net.ipv4.tcp_fastopen=3"
                    .to_owned(),
            );
        }
        all
    }
}

/// Has the kernel find a listening TCP socket for no SYN any more: by ties to a device that there is not. Its handshakes go
/// on, for those have been found already. Others that listen at the address get the newcomers, or else they are refused.
///
/// # Errors
/// The system does not know that option (Linux has it since 5.0), or the socket has a device and this process lacks
/// CAP_NET_RAW to change that.
pub(crate) fn hide(socket: &impl AsFd) -> io::Result<()> {
    // The kernel counts devices from 1 and takes any number here without a look for the device.
    sys::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, i32::MAX)
}

/// Has a listening TCP socket take no more SYNs, which their clients then send again: by then somebody else listens there,
/// or nobody does, and they are refused. Handshakes that are under way go on.
///
/// # Errors
/// Neither unix sockets nor those of MPTCP can do that.
pub(crate) fn refuse_newcomers(socket: &impl AsFd) -> io::Result<()> {
    // The socket's filter (socket(7), SO_ATTACH_FILTER) sees the TCP header: byte 13 has the flags, SYN is 2.
    let program = [
        SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, 13),
        SockFilter::new((libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16, 0, 1, 2),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
    ];
    let socket = SockRef::from(socket);
    match socket.domain()? {
        Domain::UNIX => Err(io::ErrorKind::Unsupported.into()),
        _ => socket.attach_filter(&program),
    }
}

/// The bits of net.ipv4.tcp_fastopen (ip-sysctl of the kernel's documentation).
pub(super) const FAST_OPEN_CLIENT: u32 = 1;
const FAST_OPEN_SERVER: u32 = 2;

pub(super) fn fast_open_is_on(bit: u32) -> bool {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen");
    // Unknown is no reason to warn.
    text.ok().and_then(|text| text.trim().parse::<u32>().ok()).is_none_or(|bits| bits & bit != 0)
}

/// Whether sockets of MPTCP can be had.
pub(super) fn has_mptcp() -> bool {
    Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(IpProtocol::MPTCP)).is_ok()
}

/// A TCP socket, of MPTCP where that is asked for and to be had.
pub(super) fn open_tcp(domain: Domain, mptcp: bool) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    if mptcp {
        match Socket::new(domain, kind, Some(IpProtocol::MPTCP)) {
            Err(error) if is_no_mptcp(&error) => {}
            opened => return opened,
        }
    }
    Socket::new(domain, kind, Some(IpProtocol::TCP))
}

/// Not built into the kernel, or switched off.
fn is_no_mptcp(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PROTONOSUPPORT | Errno::NOPROTOOPT | Errno::INVAL))
}
