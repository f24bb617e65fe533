//! recvmmsg(2) and sendmsg(2) with the ancillary data of UDP: segment sizes (GRO, GSO) and local addresses.

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Room for one GRO train or the largest datagram.
const SLOT: usize = 65_536;
/// Slots begin at different offsets of a page, else all of their first lines would fall into one set of the cache.
const STRIDE: usize = SLOT + 19 * 64;
/// Room for the ancillary data of one message: a segment size and a packet info of either family.
const CONTROL: usize = 128;
/// Room for the sender's address of one message.
const NAME: libc::socklen_t = size_of::<libc::sockaddr_storage>() as _;

/// Messages as recvmmsg(2) fills them. Owned by one thread and used for one socket after the other.
pub(crate) struct Inbox {
    headers: Box<[libc::mmsghdr]>,
    // The headers point into these, which are therefore never moved or resized.
    buffers: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    _vectors: Box<[libc::iovec]>,
    /// Whether the headers point to the names now.
    with_names: bool,
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// One message out of an [`Inbox`].
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// One datagram, or several of `segment` bytes each, the last of which may be shorter.
    pub(crate) data: &'a [u8],
    /// The length of each datagram but the last; 0 if there is only one.
    pub(crate) segment: usize,
    /// Who sent it. None for an address family that we don't know.
    pub(crate) from: Option<SocketAddr>,
    /// The address of ours that it came to, where the socket reports it.
    pub(crate) local: Option<IpAddr>,
    /// The kernel cut it.
    pub(crate) truncated: bool,
}

impl Inbox {
    /// An inbox for so many messages.
    pub(crate) fn new(messages: usize) -> Inbox {
        // Zeroed pages cost nothing until a datagram is written into them.
        let mut buffers = vec![0u8; messages * STRIDE].into_boxed_slice();
        // SAFETY: all-zero bytes are a valid sockaddr_storage.
        let storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let mut names = vec![storage; messages].into_boxed_slice();
        let mut controls = vec![Control([0; CONTROL]); messages].into_boxed_slice();
        let mut vectors: Box<[libc::iovec]> = buffers
            .chunks_exact_mut(STRIDE)
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT })
            .collect();
        let headers = (0..messages)
            .map(|i| {
                // SAFETY: all-zero bytes are a valid mmsghdr: null pointers and zero lengths.
                let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                header.msg_hdr.msg_name = (&raw mut names[i]).cast();
                header.msg_hdr.msg_namelen = NAME;
                header.msg_hdr.msg_iov = &raw mut vectors[i];
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = controls[i].0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = CONTROL as _;
                header
            })
            .collect();
        Inbox { headers, buffers, names, controls, _vectors: vectors, with_names: true }
    }

    /// Receives what is there without waiting, and says how many messages that was. Senders are told only `with_names`:
    /// on a connected socket there is but one, and the kernel need not write it down each time.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>, with_names: bool) -> io::Result<usize> {
        if self.with_names != with_names {
            self.with_names = with_names;
            for (header, name) in self.headers.iter_mut().zip(&mut self.names) {
                header.msg_hdr.msg_name = if with_names { (&raw mut *name).cast() } else { ptr::null_mut() };
                header.msg_hdr.msg_namelen = if with_names { NAME } else { 0 };
            }
        }
        let count = self.headers.len() as libc::c_uint;
        // SAFETY: every header points to a buffer, a name and a control block of the stated lengths, all of which this
        // inbox owns and nobody borrows during the call.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Message `i` of the last [`Inbox::receive`]. Each is to be taken once: the header is made ready for the next call.
    pub(crate) fn take(&mut self, i: usize) -> Message<'_> {
        let header = &mut self.headers[i];
        let len = (header.msg_len as usize).min(SLOT);
        let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let from = if self.with_names { socket_addr(&self.names[i]) } else { None };
        let (segment, local) = ancillary(&header.msg_hdr);
        header.msg_hdr.msg_namelen = if self.with_names { NAME } else { 0 };
        header.msg_hdr.msg_controllen = self.controls[i].0.len() as _;
        header.msg_hdr.msg_flags = 0;
        let data = &self.buffers[i * STRIDE..i * STRIDE + len];
        Message { data, segment, from, local, truncated }
    }

    /// The data of a message that was taken, for those who first sort and then send.
    pub(crate) fn data(&self, i: usize, len: usize) -> &[u8] {
        &self.buffers[i * STRIDE..i * STRIDE + len]
    }
}

/// The segment size and the local address among the ancillary data.
fn ancillary(header: &libc::msghdr) -> (usize, Option<IpAddr>) {
    let (mut segment, mut local) = (0, None);
    // SAFETY: recvmmsg filled the control block that `header` points to and set its length; the macros stay within.
    // The payloads may lie unaligned, so they are read as such, and only types that the kernel wrote are read.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        while !cmsg.is_null() {
            let payload = libc::CMSG_DATA(cmsg);
            match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size: i32 = ptr::read_unaligned(payload.cast());
                    segment = usize::try_from(size).unwrap_or(0);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(payload.cast());
                    // The address to answer from, also for a broadcast (ip(7)).
                    local = Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(payload.cast());
                    local = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                _ => {}
            }
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        }
    }
    (segment, local)
}

fn socket_addr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which of its forms the storage holds, and it is large enough for each.
            let v4: libc::sockaddr_in = unsafe { ptr::read((&raw const *storage).cast()) };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6: libc::sockaddr_in6 = unsafe { ptr::read((&raw const *storage).cast()) };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Route {
    /// The receiver; none on a connected socket.
    pub(crate) to: Option<SocketAddr>,
    /// The address of ours to send from, when the socket has several.
    pub(crate) from: Option<IpAddr>,
}

/// Sends one datagram, or several of `segment` bytes each (the last may be shorter) in one call (UDP_SEGMENT, udp(7)).
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    route: Route,
    data: &[IoSlice<'_>],
    segment: Option<u16>,
) -> io::Result<()> {
    let mut control = Control([0; CONTROL]);
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    // SAFETY: all-zero bytes are a valid msghdr: null pointers and zero lengths.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    if let Some(to) = route.to {
        header.msg_namelen = write_addr(&mut name, to);
        header.msg_name = name.as_mut_ptr().cast();
    }
    // IoSlice is guaranteed to have the layout of iovec; sendmsg does not write through it.
    header.msg_iov = data.as_ptr().cast_mut().cast();
    header.msg_iovlen = data.len() as _;
    if route.from.is_some() || segment.is_some() {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL as _;
        header.msg_controllen = write_control(&mut header, route.from, segment) as _;
    }
    loop {
        // SAFETY: the name, the vectors and the control block outlive the call and have the stated lengths.
        let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn write_addr(name: &mut MaybeUninit<libc::sockaddr_storage>, addr: SocketAddr) -> libc::socklen_t {
    match addr {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: a storage is large enough and aligned for every address form.
            unsafe { ptr::write(name.as_mut_ptr().cast(), raw) };
            size_of::<libc::sockaddr_in>() as _
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as _,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { ptr::write(name.as_mut_ptr().cast(), raw) };
            size_of::<libc::sockaddr_in6>() as _
        }
    }
}

/// Writes the control messages and says how many bytes they take.
fn write_control(header: &mut libc::msghdr, from: Option<IpAddr>, segment: Option<u16>) -> usize {
    let mut used = 0;
    // SAFETY: the control block is zeroed and larger than both messages together, so neither macro leaves it, and
    // payloads are written unaligned.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        let mut put = |level, kind, payload: *const u8, len: usize| {
            (*cmsg).cmsg_level = level;
            (*cmsg).cmsg_type = kind;
            (*cmsg).cmsg_len = libc::CMSG_LEN(len as u32) as _;
            ptr::copy_nonoverlapping(payload, libc::CMSG_DATA(cmsg), len);
            used += libc::CMSG_SPACE(len as u32) as usize;
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        };
        match from {
            Some(IpAddr::V4(ip)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(ip).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                put(libc::IPPROTO_IP, libc::IP_PKTINFO, (&raw const info).cast(), size_of_val(&info));
            }
            Some(IpAddr::V6(ip)) => {
                let info =
                    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, (&raw const info).cast(), size_of_val(&info));
            }
            None => {}
        }
        if let Some(segment) = segment {
            put(libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const segment).cast(), size_of_val(&segment));
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn receive_all(inbox: &mut Inbox, socket: &UdpSocket) -> Vec<(Vec<u8>, usize, Option<IpAddr>)> {
        let n = inbox.receive(socket.as_fd(), true).unwrap();
        (0..n)
            .map(|i| {
                let message = inbox.take(i);
                assert!(!message.truncated);
                (message.data.to_vec(), message.segment, message.local)
            })
            .collect()
    }

    #[test]
    fn datagrams_of_every_size_come_back_whole_with_their_addresses() {
        for any in ["0.0.0.0:0", "[::]:0"] {
            let (here, sender) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
            let (level, name) = match here.local_addr().unwrap() {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            };
            crate::sys::set_int(here.as_fd(), level, name, 1).unwrap();
            let loopback: IpAddr = if any.starts_with('[') {
                Ipv6Addr::LOCALHOST.into()
            } else {
                Ipv4Addr::new(127, 0, 0, 9).into()
            };
            let to = SocketAddr::new(loopback, here.local_addr().unwrap().port());
            let mut inbox = Inbox::new(4);
            for len in [0, 1, 1472, 65_000, 65_507 - 20] {
                let data = vec![7; len];
                send(sender.as_fd(), Route { to: Some(to), from: None }, &[IoSlice::new(&data)], None)
                    .unwrap();
                assert_eq!(receive_all(&mut inbox, &here), [(data, 0, Some(loopback))], "{any} {len}");
            }
        }
    }

    #[test]
    fn a_train_is_sent_in_one_call_from_the_address_that_is_asked_for() {
        let (here, sender) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("0.0.0.0:0").unwrap());
        crate::sys::set_int(here.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
        let route =
            Route { to: Some(here.local_addr().unwrap()), from: Some(Ipv4Addr::new(127, 0, 0, 3).into()) };
        let (a, b) = ([1; 300], [2; 150]);
        send(sender.as_fd(), route, &[IoSlice::new(&a), IoSlice::new(&b)], Some(100)).unwrap();
        let mut inbox = Inbox::new(8);
        let n = inbox.receive(here.as_fd(), true).unwrap();
        assert_eq!(n, 1);
        let message = inbox.take(0);
        assert_eq!((message.data, message.segment), (&[&a[..], &b[..]].concat()[..], 100));
        assert_eq!(message.from.unwrap().ip(), Ipv4Addr::new(127, 0, 0, 3));
    }

    #[test]
    fn an_inbox_serves_again_and_again() {
        let (here, sender) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        sender.connect(here.local_addr().unwrap()).unwrap();
        let mut inbox = Inbox::new(3);
        for round in 0..5u8 {
            for i in 0..5 {
                send(sender.as_fd(), Route::default(), &[IoSlice::new(&[round, i])], None).unwrap();
            }
            let mut got = receive_all(&mut inbox, &here);
            assert_eq!(got.len(), 3);
            got.extend(receive_all(&mut inbox, &here));
            let bytes: Vec<_> = got.into_iter().map(|(data, _, _)| data).collect();
            assert_eq!(bytes, (0..5).map(|i| vec![round, i]).collect::<Vec<_>>());
        }
        assert_eq!(inbox.receive(here.as_fd(), true).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
