//! Where we listen ourselves: no client gets there through us unless a rule names just that address and port.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use wmproxy_net::addr::Protocol;

use super::class::leads_to;

/// A port to connect a socket to that sends nothing (RFC 863).
const DISCARD: u16 = 9;

/// The addresses that this process listens on. One list for all, replaced when listeners come or go; and one of ports that
/// come and go by themselves, as what a tunnel's clients offer does.
#[derive(Debug, Default)]
pub struct OwnListeners {
    listeners: ArcSwap<Bound>,
    offered: ArcSwap<Bound>,
}

#[derive(Debug, Default)]
struct Bound {
    exactly: HashSet<(Protocol, SocketAddr)>,
    /// Ports on every address, and whether those of IPv4 are among them: a socket of `[::]` takes both.
    anywhere: HashSet<(Protocol, u16)>,
}

impl OwnListeners {
    /// Nothing yet.
    pub fn new() -> OwnListeners {
        OwnListeners::default()
    }

    /// Replaces the list: of the addresses that sockets are bound to, as they are bound.
    pub fn replace(&self, bound: impl IntoIterator<Item = (Protocol, SocketAddr)>) {
        self.listeners.store(Arc::new(bound.into_iter().collect()));
    }

    /// Replaces the list of ports that are offered to visitors of a tunnel.
    pub fn replace_offered(&self, bound: impl IntoIterator<Item = (Protocol, SocketAddr)>) {
        self.offered.store(Arc::new(bound.into_iter().collect()));
    }

    /// Whether one of our listeners is there. An address that leads to another (NAT64 and its like) is both.
    pub fn hold(&self, protocol: Protocol, to: SocketAddr) -> bool {
        let lists = [self.listeners.load(), self.offered.load()];
        let to = canonical(to);
        let inner = leads_to(to.ip()).map(|ip| SocketAddr::new(ip.into(), to.port()));
        std::iter::once(to).chain(inner).any(|to| lists.iter().any(|bound| bound.hold(protocol, to)))
    }
}

impl FromIterator<(Protocol, SocketAddr)> for Bound {
    fn from_iter<I: IntoIterator<Item = (Protocol, SocketAddr)>>(bound: I) -> Bound {
        let mut list = Bound::default();
        for (protocol, address) in bound {
            let address = canonical(address);
            if address.ip().is_unspecified() {
                list.anywhere.insert((protocol, address.port()));
            } else {
                list.exactly.insert((protocol, address));
            }
        }
        list
    }
}

impl Bound {
    fn hold(&self, protocol: Protocol, to: SocketAddr) -> bool {
        let is_bound = |ip: IpAddr| self.exactly.contains(&(protocol, SocketAddr::new(ip, to.port())));
        if self.anywhere.contains(&(protocol, to.port())) && is_of_this_machine(to.ip()) {
            return true;
        }
        // Connecting to no address in particular is connecting to this machine.
        is_bound(to.ip())
            || to.ip().is_unspecified()
                && (is_bound(Ipv4Addr::LOCALHOST.into()) || is_bound(Ipv6Addr::LOCALHOST.into()))
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether packets to an address stay on this machine. The system is asked for the way there, by some calls and without a
/// packet, rather than for a list of interfaces: it knows routes that no interface shows, and the answer is never old.
fn is_of_this_machine(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() || v4.octets()[0] == 0 => return true,
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => return true,
        _ => {}
    }
    match source_towards(ip) {
        // From a machine's own address to it, packets come from that same address (ip(7), RFC 6724 section 5, rule 1).
        Ok(source) => source == ip,
        Err(error) if is_unreachable(&error) => false,
        // Whoever can't find out must not say no.
        Err(error) => {
            tracing::debug!(%ip, %error, "can't find out whether an address is of this machine");
            true
        }
    }
}

/// The address that packets to this one would come from. Nothing is sent.
fn source_towards(ip: IpAddr) -> io::Result<IpAddr> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // A new socket each time: one that was connected keeps its source.
    let socket = net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    net::connect(&socket, &SocketAddr::new(ip, DISCARD))?;
    let source = SocketAddr::try_from(net::getsockname(&socket)?)?;
    Ok(source.ip())
}

fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::NetworkUnreachable | K::HostUnreachable | K::AddrNotAvailable | K::InvalidInput)
        // Broadcast and prohibited ways: nobody is connected to there, either.
        || matches!(error.kind(), K::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(list: &[(Protocol, &str)]) -> OwnListeners {
        let own = OwnListeners::new();
        own.replace(list.iter().map(|(protocol, address)| (*protocol, address.parse().unwrap())));
        own
    }

    #[test]
    fn a_listener_of_one_address_is_there_and_nowhere_else() {
        let own = own(&[(Protocol::Tcp, "127.0.0.1:80"), (Protocol::Tcp, "[::1]:81")]);
        for (to, held) in [
            ("127.0.0.1:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("0.0.0.0:80", true),
            ("[::]:80", true),
            ("[::]:81", true),
            ("[64:ff9b::127.0.0.1]:80", true),
            ("[2002:7f00:1::]:80", true),
            ("127.0.0.2:80", false),
            ("127.0.0.1:81", false),
            ("[::1]:80", false),
            ("8.8.8.8:80", false),
        ] {
            assert_eq!(own.hold(Protocol::Tcp, to.parse().unwrap()), held, "{to}");
            assert!(!own.hold(Protocol::Udp, to.parse().unwrap()), "{to}");
        }
        own.replace([]);
        assert!(!own.hold(Protocol::Tcp, "127.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn what_is_offered_is_ours_beside_the_listeners() {
        let own = own(&[(Protocol::Tcp, "127.0.0.1:80")]);
        let held = |to: &str| own.hold(Protocol::Tcp, to.parse().unwrap());
        own.replace_offered([(Protocol::Tcp, "127.0.0.1:20022".parse().unwrap())]);
        assert!(held("127.0.0.1:80") && held("127.0.0.1:20022"));
        own.replace([]);
        assert!(!held("127.0.0.1:80") && held("127.0.0.1:20022"));
        own.replace_offered([]);
        assert!(!held("127.0.0.1:20022"));
    }

    #[test]
    fn a_listener_of_any_address_is_on_all_of_this_machine() {
        let own = own(&[(Protocol::Udp, "0.0.0.0:53"), (Protocol::Udp, "[::]:443")]);
        for (to, held) in [
            ("127.0.0.1:53", true),
            ("127.9.9.9:53", true),
            ("0.0.0.0:53", true),
            ("127.0.0.1:443", true),
            ("[::1]:443", true),
            ("127.0.0.1:80", false),
            // For documentation: on no machine.
            ("192.0.2.1:443", false),
            ("[2001:db8::1]:443", false),
            ("255.255.255.255:443", false),
        ] {
            assert_eq!(own.hold(Protocol::Udp, to.parse().unwrap()), held, "{to}");
        }
        // Whatever addresses this machine has beside loopback, it knows its own.
        if let Ok(source) = source_towards("192.0.2.1".parse().unwrap()) {
            assert!(own.hold(Protocol::Udp, SocketAddr::new(source, 443)), "{source}");
        }
    }
}
