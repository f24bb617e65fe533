//! TCP handshakes that a listening address has begun and not ended, as the kernel lists them (sock_diag(7)).
//!
//! The messages are those of netlink(7): a header of 16 bytes (length, type, flags, sequence, port), and behind it what
//! linux/inet_diag.h says.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// How long a handshake may take. A SYN-ACK or the ACK to it that was lost is sent again after a second (RFC 6298 section
/// 2.1); the other second is for the way there and back, and for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// When the kernel is asked first. A SYN that found the socket just before nobody could any more is a handshake by then;
/// and one on a local network has ended.
const FIRST_LOOK: Duration = Duration::from_millis(2);

/// The pause between two looks doubles up to this: what is not over by then waits for a packet that was lost.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// The address that was asked for, and the client's.
type Handshake = (IpAddr, SocketAddr);

/// Waits until the handshakes are over that are under way at `address`, where no more may begin; or until they are given up.
/// Where the kernel does not say which there are, that is as long as they may take.
pub(super) async fn over(address: SocketAddr) {
    let end = Instant::now() + PATIENCE;
    let mut open: Option<HashSet<Handshake>> = None;
    let mut pause = FIRST_LOOK;
    while Instant::now() < end {
        tokio::time::sleep(pause).await;
        // Off the worker: the kernel looks through all connections of the machine.
        if let Ok(Ok(now)) = tokio::task::spawn_blocking(move || under_way(address)).await {
            match &mut open {
                // Those that came later are of whoever listens there now.
                Some(open) => open.retain(|one| now.contains(one)),
                None => open = Some(now),
            }
        }
        if open.as_ref().is_some_and(HashSet::is_empty) {
            return;
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// What is under way now.
fn under_way(address: SocketAddr) -> io::Result<HashSet<Handshake>> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    sendto(&socket, &request(address), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut found = HashSet::new();
    // What the kernel puts into one answer at most (netlink(7)).
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if !take(&buffer[..length], address.ip(), &mut found)? {
            return Ok(found);
        }
    }
}

/// The question for all sockets in SYN_RECV that have the address's port.
fn request(address: SocketAddr) -> Vec<u8> {
    /// `SOCK_DIAG_BY_FAMILY`, of linux/sock_diag.h.
    const BY_FAMILY: u16 = 20;
    /// `TCP_SYN_RECV`, as a bit of a set.
    const SYN_RECV: u32 = 1 << 3;
    const LENGTH: u32 = 16 + 56;
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    message.extend(SYN_RECV.to_ne_bytes());
    message.extend(address.port().to_be_bytes());
    // Any address and any client.
    message.resize(LENGTH as usize, 0);
    message
}

/// Takes the handshakes at `ip` from an answer; false when it was the last one.
fn take(mut answer: &[u8], ip: IpAddr, found: &mut HashSet<Handshake>) -> io::Result<bool> {
    const BAD: io::ErrorKind = io::ErrorKind::InvalidData;
    while let Some((header, _)) = answer.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let message = answer.get(16..length).ok_or(BAD)?;
        match i32::from(u16::from_ne_bytes([header[4], header[5]])) {
            libc::NLMSG_DONE => return Ok(false),
            libc::NLMSG_ERROR => {
                let code = message.first_chunk::<4>().ok_or(BAD)?;
                return Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(*code)));
            }
            _ => {
                let handshake = parse(message).ok_or(BAD)?;
                if ip.is_unspecified() || handshake.0 == ip {
                    found.insert(handshake);
                }
            }
        }
        answer = &answer[length.next_multiple_of(4).min(answer.len())..];
    }
    Ok(true)
}

/// `struct inet_diag_msg`: family, state, timer and retransmissions, a byte each; then both ports and both addresses.
fn parse(message: &[u8]) -> Option<Handshake> {
    let is_ipv4 = i32::from(*message.first()?) == libc::AF_INET;
    let ip = |at: usize| -> Option<IpAddr> {
        let bytes = message.get(at..)?;
        Some(if is_ipv4 {
            Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()
        } else {
            Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()
        })
    };
    let port = u16::from_be_bytes(*message.get(6..)?.first_chunk()?);
    Some((ip(8)?, SocketAddr::new(ip(24)?, port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, SockFilter, Socket, Type};

    /// A client who does not hear the answer to its SYN.
    fn deaf_client(listener: &Socket) -> Socket {
        let address = listener.local_addr().unwrap();
        let client = Socket::new(address.domain(), Type::STREAM.nonblocking(), None).unwrap();
        let nothing = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
        client.attach_filter(&[nothing]).unwrap();
        client.connect(&address).unwrap_err();
        client
    }

    #[test]
    fn a_handshake_is_seen_at_its_own_address_and_at_no_other() {
        for (domain, host) in [(Domain::IPV4, "127.0.0.1:0"), (Domain::IPV6, "[::1]:0")] {
            let listener = Socket::new(domain, Type::STREAM, None).unwrap();
            listener.bind(&host.parse::<SocketAddr>().unwrap().into()).unwrap();
            listener.listen(8).unwrap();
            let at = listener.local_addr().unwrap().as_socket().unwrap();
            assert!(under_way(at).unwrap().is_empty());
            let client = deaf_client(&listener);
            let begun = Instant::now();
            while under_way(at).unwrap().is_empty() {
                assert!(begun.elapsed() < Duration::from_secs(5), "{host}: no handshake is seen");
                std::thread::yield_now();
            }
            let from = client.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(under_way(at).unwrap(), HashSet::from([(at.ip(), from)]));
            let any =
                if at.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
            assert_eq!(under_way(SocketAddr::new(any, at.port())).unwrap().len(), 1);
            let other = if at.is_ipv4() { IpAddr::from([127, 0, 0, 2]) } else { [1; 16].into() };
            assert!(under_way(SocketAddr::new(other, at.port())).unwrap().is_empty());
        }
    }

    #[test]
    fn an_answer_that_is_cut_or_an_error_is_no_list() {
        let mut found = HashSet::new();
        let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
        let message = |kind: i32, body: &[u8]| {
            let mut bytes = Vec::from((16 + body.len() as u32).to_ne_bytes());
            bytes.extend((kind as u16).to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(body);
            bytes
        };
        assert!(!take(&message(libc::NLMSG_DONE, &[]), ip, &mut found).unwrap());
        let refused = take(&message(libc::NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes()), ip, &mut found);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
        let entry = message(20, &[0; 72]);
        assert!(take(&entry, ip, &mut found).unwrap());
        for length in 16..entry.len() {
            assert!(take(&entry[..length], ip, &mut found).is_err(), "{length}");
        }
        let mut short = message(20, &[0; 39]);
        assert!(take(&short, ip, &mut found).is_err());
        short[0] = 3;
        assert!(take(&short, ip, &mut found).is_err());
        assert!(found.is_empty());
    }
}
