//! Streams that go to their own listener: each connection would open the next, until descriptors run out.

use std::net::IpAddr;

use wmproxy_net::addr::{Address, AddressSpec, Host, ListenSpec, TargetSpec};

/// Whether a target, perhaps a range of ports that map to those of the listener one by one, is the listener.
pub(super) fn is_own(listen: &ListenSpec, target: &AddressSpec) -> bool {
    match (&listen.address, target) {
        (AddressSpec::Unix(own), AddressSpec::Unix(target)) => own == target,
        (
            AddressSpec::Inet { host: own, first_port, .. },
            AddressSpec::Inet { host, first_port: target, last_port },
        ) => {
            let ports = match target == last_port {
                true => listen.address.ports().is_some_and(|ports| ports.contains(target)),
                false => first_port == target,
            };
            // The system chooses another port for 0 than anybody names.
            *first_port != 0 && ports && is_same_host(own, host)
        }
        _ => false,
    }
}

/// The same for one server of an upstream.
pub(super) fn is_own_server(listen: &ListenSpec, target: &TargetSpec) -> bool {
    let inet = |host: Host, port| AddressSpec::Inet { host, first_port: port, last_port: port };
    let target = match target {
        TargetSpec::Address(Address::Unix(path)) => AddressSpec::Unix(path.clone()),
        TargetSpec::Address(Address::Inet(addr)) => inet(Host::Ip(addr.ip()), addr.port()),
        TargetSpec::Address(Address::Name(host, port)) => inet(Host::Name(host.to_string()), *port),
        TargetSpec::Name { host, port } => inet(Host::Name(host.clone()), *port),
    };
    is_own(listen, &target)
}

/// Whether who connects to `target` arrives at the listener on `own`. Of names only `localhost` is known without
/// asking.
fn is_same_host(own: &Host, target: &Host) -> bool {
    if own == target {
        return true;
    }
    let target = match target {
        Host::Ip(ip) => ip.to_canonical(),
        Host::Name(name) if name == "localhost" => match own {
            Host::Ip(ip) => return ip.is_loopback() || ip.is_unspecified(),
            own => return *own == Host::Any,
        },
        _ => return false,
    };
    // Connecting to the unspecified address leads to this machine.
    let is_here = target.is_loopback() || target.is_unspecified();
    match own {
        Host::Any => is_here,
        Host::Ip(ip) if ip.is_unspecified() => is_here && ip.is_ipv4() == target.is_ipv4(),
        Host::Ip(ip) => *ip == target || (is_first_loopback(ip) && target.is_unspecified()),
        Host::Name(name) => name == "localhost" && is_here,
    }
}

fn is_first_loopback(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => *ip == std::net::Ipv4Addr::LOCALHOST,
        IpAddr::V6(ip) => *ip == std::net::Ipv6Addr::LOCALHOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_compared_with_the_listener() {
        for (listen, target, expected) in [
            ("127.0.0.1:53", "127.0.0.1:53", true),
            ("udp://127.0.0.1:53", "127.0.0.1:53", true),
            (":53", "127.0.0.1:53", true),
            (":53", "[::1]:53", true),
            (":53", "localhost:53", true),
            ("0.0.0.0:53", "127.0.0.2:53", true),
            ("[::1]:53", "localhost:53", true),
            ("127.0.0.1:53", "0.0.0.0:53", true),
            ("unix:/a", "unix:/a", true),
            (":8000-8002", "127.0.0.1:8001", true),
            (":8000-8002", "127.0.0.1:8000-8002", true),
            (":8000-8002", "127.0.0.1:8001-8003", false),
            ("0.0.0.0:53", "[::1]:53", false),
            ("127.0.0.1:53", "127.0.0.2:53", false),
            ("127.0.0.1:53", "127.0.0.1:54", false),
            (":53", "10.0.0.1:53", false),
            ("unix:/a", "unix:/b", false),
        ] {
            let (listen, target) = (listen.parse().unwrap(), target.parse().unwrap());
            assert_eq!(is_own(&listen, &target), expected, "{listen} {target}");
            if target.count() == 1 {
                assert_eq!(is_own_server(&listen, &TargetSpec::expand(&target).unwrap()[0]), expected);
            }
        }
    }
}
