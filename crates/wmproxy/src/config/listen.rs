//! Which addresses are taken, so that no two listeners want the same.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use wmproxy_net::addr::{AddressSpec, Host, Protocol};

use super::tree::Span;

/// The addresses that listeners of the config have, and where they are written.
#[derive(Debug, Default)]
pub(super) struct Listens {
    inet: HashMap<(Protocol, u16, Slot), Option<Span>>,
    unix: HashMap<PathBuf, Option<Span>>,
}

/// Two listeners on one address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) message: String,
    pub(super) other: Option<Span>,
}

/// What of a port is taken. A listener takes several slots, so that a look at a few of them finds any conflict
/// however many listeners a port has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Slot {
    /// This host.
    Host(Host),
    /// Some IPv4 address.
    V4,
    /// Some IPv6 address.
    V6,
    /// Some address.
    Some,
}

impl Listens {
    /// Takes every port of an address. If one is taken already, says by whom; the others are taken then.
    pub(super) fn claim(
        &mut self,
        protocol: Protocol,
        address: &AddressSpec,
        place: Option<Span>,
    ) -> Option<Conflict> {
        let (host, ports) = match address {
            AddressSpec::Unix(path) => {
                let other = self.unix.get(path).copied();
                self.unix.entry(path.clone()).or_insert(place);
                let message = format!("another listener has {address} already");
                return other.map(|other| Conflict { message, other });
            }
            AddressSpec::Inet { host, first_port, last_port } => (host, *first_port..=*last_port),
        };
        let mut conflict = None;
        // The system gives each listener on port 0 a port of its own.
        for port in ports.filter(|port| *port != 0) {
            let found = self.conflict(protocol, host, port);
            for slot in slots(host) {
                self.inet.entry((protocol, port, slot)).or_insert(place);
            }
            conflict = conflict.or(found);
        }
        conflict
    }

    fn conflict(&self, protocol: Protocol, host: &Host, port: u16) -> Option<Conflict> {
        let taken = |slot: Slot| self.inet.get(&(protocol, port, slot)).copied();
        if let Some(other) = taken(Slot::Host(host.clone())) {
            let message = format!("another listener has {protocol} port {port} of this address already");
            return Some(Conflict { message, other });
        }
        // The kernel gives out a port on all addresses or on some, not both.
        let wider = wildcards(host).into_iter().find_map(|wildcard| taken(Slot::Host(wildcard)));
        if let Some(other) = wider {
            let message = format!("another listener has {protocol} port {port} on all addresses already");
            return Some(Conflict { message, other });
        }
        let narrower = match host {
            Host::Any => taken(Slot::Some),
            Host::Ip(ip) if ip.is_unspecified() => taken(if ip.is_ipv4() { Slot::V4 } else { Slot::V6 }),
            _ => None,
        };
        narrower.map(|other| Conflict {
            message: format!("another listener has {protocol} port {port} on one of these addresses already"),
            other,
        })
    }
}

/// The hosts that hold this one and more.
fn wildcards(host: &Host) -> Vec<Host> {
    match host {
        Host::Any => vec![],
        Host::Ip(IpAddr::V4(_)) => vec![Host::Any, Host::Ip(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))],
        Host::Ip(IpAddr::V6(_)) => vec![Host::Any, Host::Ip(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED))],
        Host::Name(_) => vec![Host::Any],
    }
}

fn slots(host: &Host) -> Vec<Slot> {
    let mut slots = vec![Slot::Host(host.clone()), Slot::Some];
    if let Host::Ip(ip) = host {
        slots.push(if ip.is_ipv4() { Slot::V4 } else { Slot::V6 });
    }
    slots
}

#[cfg(test)]
mod tests {
    use wmproxy_net::addr::ListenSpec;

    use super::*;

    fn conflicts(list: &[&str]) -> Vec<bool> {
        let mut listens = Listens::default();
        let claim = |text: &&str| {
            let spec: ListenSpec = text.parse().unwrap();
            listens.claim(spec.protocol, &spec.address, None).is_some()
        };
        list.iter().map(claim).collect()
    }

    #[test]
    fn one_port_may_have_several_addresses_and_both_protocols() {
        let list = ["127.0.0.1:53", "127.0.0.2:53", "[::1]:53", "udp://127.0.0.1:53", "unix:/a", "unix:/b"];
        assert_eq!(conflicts(&list), [false; 6]);
        assert_eq!(conflicts(&[":0", ":0", "127.0.0.1:0"]), [false; 3]);
        assert_eq!(conflicts(&["0.0.0.0:53", "[::]:53", "[::]:54"]), [false; 3]);
    }

    #[test]
    fn the_same_address_twice_and_all_beside_one_conflict() {
        for (first, second) in [
            ("127.0.0.1:53", "127.0.0.1:53"),
            (":53", "tcp://:53"),
            (":53", "127.0.0.1:53"),
            ("[::1]:53", ":53"),
            ("localhost:53", ":53"),
            ("0.0.0.0:53", "127.0.0.1:53"),
            ("[::1]:53", "[::]:53"),
            ("127.0.0.1:50-60", "127.0.0.1:55"),
            ("127.0.0.1:55", "127.0.0.1:50-60"),
            ("unix:/a", "unix:/a"),
        ] {
            assert_eq!(conflicts(&[first, second]), [false, true], "{first} {second}");
        }
    }
}
