//! What an address is for, as far as that decides who may be sent there: the special-purpose registries of IANA (RFC 6890,
//! RFC 8190 and what was added since), and addresses of IPv6 that lead to one of IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Anything on the public internet.
    Public,
    /// This machine.
    Loopback,
    /// This machine, or none yet (0.0.0.0/8, ::).
    Unspecified,
    /// A private network: RFC 1918, and unique local addresses of IPv6 (RFC 4193).
    Private,
    /// Between a provider and its customers (RFC 6598).
    Shared,
    /// The same link only (RFC 3927, RFC 4291 section 2.5.6).
    LinkLocal,
    /// Where clouds tell a machine its secrets. Some of these lie among private or public addresses.
    Metadata,
    /// Many at once.
    Multicast,
    /// All of a link.
    Broadcast,
    /// Leads to an IPv4 address: NAT64, 6to4, Teredo and their like.
    Translation,
    /// For books, measurements, protocols of their own, or for nothing yet.
    Reserved,
}

impl Class {
    /// Whether such addresses belong to networks of the user's own, which a rule on a name opens, too.
    pub(super) fn is_local_network(self) -> bool {
        matches!(self, Class::Private | Class::Shared)
    }

    /// What to call it before a user.
    pub(super) fn text(self) -> &'static str {
        match self {
            Class::Public => "a public address",
            Class::Loopback => "an address of this machine",
            Class::Unspecified => "an address that stands for this machine",
            Class::Private => "a private address",
            Class::Shared => "an address inside a provider's network",
            Class::LinkLocal => "a link-local address",
            Class::Metadata => "where clouds keep the secrets of a machine",
            Class::Multicast => "a multicast address",
            Class::Broadcast => "the broadcast address",
            Class::Translation => "an IPv6 address that leads to an IPv4 one",
            Class::Reserved => "an address that is reserved for special use",
        }
    }
}

/// Special blocks of IPv4; the first that holds an address says what it is.
const V4: &[(Ipv4Addr, u8, Class)] = &[
    (Ipv4Addr::new(169, 254, 169, 254), 32, Class::Metadata),
    // ECS, EKS.
    (Ipv4Addr::new(169, 254, 170, 0), 24, Class::Metadata),
    // Alibaba Cloud, out of the shared space.
    (Ipv4Addr::new(100, 100, 100, 200), 32, Class::Metadata),
    // Oracle Cloud, out of the protocol assignments.
    (Ipv4Addr::new(192, 0, 0, 192), 32, Class::Metadata),
    // Azure, out of the public space.
    (Ipv4Addr::new(168, 63, 129, 16), 32, Class::Metadata),
    (Ipv4Addr::new(0, 0, 0, 0), 8, Class::Unspecified),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Class::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Class::Shared),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Class::Loopback),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Class::LinkLocal),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Class::Private),
    // Protocol assignments (RFC 6890 section 2.1). The two anycast addresses in it are for routers to be asked.
    (Ipv4Addr::new(192, 0, 0, 0), 24, Class::Reserved),
    // Documentation (RFC 5737).
    (Ipv4Addr::new(192, 0, 2, 0), 24, Class::Reserved),
    // Relays of 6to4 (RFC 7526).
    (Ipv4Addr::new(192, 88, 99, 0), 24, Class::Translation),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Class::Private),
    // Benchmarks (RFC 2544).
    (Ipv4Addr::new(198, 18, 0, 0), 15, Class::Reserved),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Class::Reserved),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Class::Reserved),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Class::Multicast),
    (Ipv4Addr::new(255, 255, 255, 255), 32, Class::Broadcast),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Class::Reserved),
];

/// Special blocks of IPv6; the first that holds an address says what it is.
const V6: &[(Ipv6Addr, u8, Class)] = &[
    // AWS: metadata, names, time.
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32, Class::Metadata),
    // Google Cloud.
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, Class::Metadata),
    // Scaleway.
    (Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42), 128, Class::Metadata),
    (Ipv6Addr::UNSPECIFIED, 128, Class::Unspecified),
    (Ipv6Addr::LOCALHOST, 128, Class::Loopback),
    // IPv4-compatible (RFC 4291 section 2.5.5.1).
    (Ipv6Addr::UNSPECIFIED, 96, Class::Translation),
    // IPv4-mapped, for who did not make it canonical.
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, Class::Translation),
    // IPv4-translated (RFC 2765).
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, Class::Translation),
    // NAT64 (RFC 6052, RFC 8215).
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, Class::Translation),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, Class::Translation),
    // Teredo (RFC 4380).
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, Class::Translation),
    // Protocol assignments (RFC 2928): benchmarks, ORCHID, DRIP, anycast for routers.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Class::Reserved),
    // Documentation (RFC 3849, RFC 9637).
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Class::Reserved),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Class::Reserved),
    // 6to4 (RFC 3056).
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, Class::Translation),
    // All that is given out (RFC 4291 section 2.4); what is outside of it and not below is for nothing yet, or to be thrown
    // away (RFC 6666), or for routers (RFC 9602).
    (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3, Class::Public),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Class::Private),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Class::LinkLocal),
    // Site-local (RFC 3879): out of use, but what still has it is not public.
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, Class::Private),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Class::Multicast),
    (Ipv6Addr::UNSPECIFIED, 0, Class::Reserved),
];

/// What an address is for. One of IPv4 inside `::ffff:0:0/96` is that.
pub(super) fn class_of(ip: IpAddr) -> Class {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            find(V4, |block, length| (block.to_bits() ^ ip.to_bits()).leading_zeros() >= length)
        }
        IpAddr::V6(ip) => {
            let class = find(V6, |block, length| (block.to_bits() ^ ip.to_bits()).leading_zeros() >= length);
            // ISATAP (RFC 5214) goes with any prefix, so that only where it leads to tells.
            match isatap(ip).map(|inner| class_of(inner.into())) {
                Some(inner) if class == Class::Public && inner != Class::Public => Class::Translation,
                _ => class,
            }
        }
    }
}

fn find<A: Copy>(blocks: &[(A, u8, Class)], holds: impl Fn(A, u32) -> bool) -> Class {
    let block = blocks.iter().find(|(block, length, _)| holds(*block, u32::from(*length)));
    block.map_or(Class::Public, |(.., class)| *class)
}

/// The IPv4 address that one of IPv6 leads to, if it is made that way.
pub(super) fn leads_to(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip.to_canonical() else { return None };
    let bits = ip.to_bits();
    let at = |shift: u32| Some(Ipv4Addr::from_bits((bits >> shift) as u32));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0 | 0xffff, 0, ..] => at(0),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => at(0),
        // Networks of 96 bits inside the block are what is in use (RFC 8215 section 5).
        [0x64, 0xff9b, 1, ..] => at(0),
        [0x2002, ..] => at(80),
        // The client's address, with each bit turned (RFC 4380 section 4).
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!(bits as u32))),
        _ => isatap(ip),
    }
}

fn isatap(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = ip.to_bits();
    matches!((bits >> 32) as u32, 0x0000_5efe | 0x0200_5efe).then(|| Ipv4Addr::from_bits(bits as u32))
}

/// Whether no address of a network is public, so that whoever writes it down means just such.
pub(super) fn is_special(net: IpNet) -> bool {
    let special =
        |(bits, length, class): (u128, u8, Class)| (class != Class::Public).then_some((bits, length));
    match net {
        IpNet::V4(net) => {
            let blocks = V4
                .iter()
                .filter_map(|(ip, length, class)| special((u128::from(ip.to_bits()) << 96, *length, *class)));
            let blocks: Vec<_> = blocks.collect();
            is_covered((u128::from(net.network().to_bits()) << 96, net.prefix_len()), &blocks)
        }
        IpNet::V6(net) => {
            // All that is given out is in 2000::/3; the seven others like it are special as they are.
            let others = (0..8).filter(|third| *third != 1).map(|third: u128| (third << 125, 3));
            let blocks = V6.iter().filter(|(_, length, _)| *length != 0);
            let blocks = blocks.filter_map(|(ip, length, class)| special((ip.to_bits(), *length, *class)));
            let blocks: Vec<_> = blocks.chain(others).collect();
            is_covered((net.network().to_bits(), net.prefix_len()), &blocks)
        }
    }
}

/// Whether every address of a network is in one of the blocks. Bits stand at the left.
fn is_covered(net: (u128, u8), blocks: &[(u128, u8)]) -> bool {
    let holds = |outer: (u128, u8), inner: (u128, u8)| {
        outer.1 <= inner.1 && (outer.0 ^ inner.0).leading_zeros() >= u32::from(outer.1)
    };
    if blocks.iter().any(|block| holds(*block, net)) {
        return true;
    }
    // Only what has a block inside is worth a closer look, which is why this ends soon.
    let (bits, length) = net;
    blocks.iter().any(|block| holds(net, *block))
        && [bits, bits | 1 << (127 - length)].into_iter().all(|half| is_covered((half, length + 1), blocks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> Class {
        class_of(text.parse().unwrap())
    }

    #[test]
    fn addresses_are_what_the_registries_say() {
        for (class_is, texts) in [
            (
                Class::Public,
                &[
                    "1.1.1.1",
                    "9.255.255.255",
                    "11.0.0.0",
                    "100.63.255.255",
                    "100.128.0.0",
                    "126.255.255.255",
                    "128.0.0.0",
                    "169.253.255.255",
                    "172.15.255.255",
                    "172.32.0.0",
                    "192.0.1.0",
                    "192.167.1.1",
                    "198.17.255.255",
                    "198.20.0.0",
                    "203.0.112.255",
                    "223.255.255.255",
                    "168.63.129.15",
                    "192.175.48.1",
                    "2606:4700::1111",
                    "2000::",
                    "3ffe:ffff::1",
                    "2003::1",
                    "2001:200::1",
                    "2620:4f:8000::1",
                    "2a00::5efe:8.8.8.8",
                    "::ffff:8.8.8.8",
                ][..],
            ),
            (Class::Loopback, &["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"]),
            (Class::Unspecified, &["0.0.0.0", "0.255.255.255", "::", "::ffff:0.0.0.0"]),
            (
                Class::Private,
                &[
                    "10.0.0.0",
                    "10.255.255.255",
                    "172.16.0.0",
                    "172.31.255.255",
                    "192.168.1.1",
                    "fc00::1",
                    "fdff::1",
                    "fec0::1",
                ],
            ),
            (Class::Shared, &["100.64.0.0", "100.127.255.255"]),
            (Class::LinkLocal, &["169.254.0.1", "169.254.169.253", "fe80::1", "febf::1"]),
            (
                Class::Metadata,
                &[
                    "169.254.169.254",
                    "169.254.170.2",
                    "::ffff:169.254.169.254",
                    "fd00:ec2::254",
                    "fd20:ce::254",
                    "100.100.100.200",
                    "192.0.0.192",
                    "168.63.129.16",
                ],
            ),
            (Class::Multicast, &["224.0.0.1", "239.255.255.255", "ff02::1"]),
            (Class::Broadcast, &["255.255.255.255"]),
            (
                Class::Translation,
                &[
                    "::127.0.0.1",
                    "::8.8.8.8",
                    "::2",
                    "::ffff:0:127.0.0.1",
                    "64:ff9b::8.8.8.8",
                    "64:ff9b::7f00:1",
                    "64:ff9b:1::1",
                    "2002:7f00:1::",
                    "2002:808:808::1",
                    "2001::1",
                    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                    "2a00::5efe:10.0.0.1",
                    "2a00::200:5efe:127.0.0.1",
                    "192.88.99.1",
                ],
            ),
            (
                Class::Reserved,
                &[
                    "192.0.0.1",
                    "192.0.2.1",
                    "198.18.0.1",
                    "198.51.100.1",
                    "203.0.113.1",
                    "240.0.0.1",
                    "255.255.255.254",
                    "100::1",
                    "100:0:0:1::1",
                    "2001:2::1",
                    "2001:10::1",
                    "2001:20::1",
                    "2001:db8::1",
                    "3fff::1",
                    "5f00::1",
                    "4000::1",
                    "e000::1",
                    "1000::1",
                ],
            ),
        ] {
            for text in texts {
                assert_eq!(class(text), class_is, "{text}");
            }
        }
    }

    #[test]
    fn what_is_inside_is_found() {
        for (text, inner) in [
            ("64:ff9b::169.254.169.254", Some("169.254.169.254")),
            ("64:ff9b:1::10.0.0.1", Some("10.0.0.1")),
            ("2002:a9fe:a9fe::1", Some("169.254.169.254")),
            ("2001:0:4136:e378:8000:63bf:80ff:fffe", Some("127.0.0.1")),
            ("::10.0.0.1", Some("10.0.0.1")),
            ("::ffff:0:10.0.0.1", Some("10.0.0.1")),
            ("2a00::5efe:10.0.0.1", Some("10.0.0.1")),
            ("::", None),
            ("::1", None),
            ("::ffff:10.0.0.1", None),
            ("2001:200::1", None),
            ("10.0.0.1", None),
        ] {
            assert_eq!(leads_to(text.parse().unwrap()), inner.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn networks_are_special_only_as_a_whole() {
        for (text, special) in [
            ("10.0.0.0/8", true),
            ("10.1.2.3/32", true),
            ("8.0.0.0/5", false),
            ("0.0.0.0/0", false),
            ("192.168.0.0/15", false),
            ("192.0.0.0/8", false),
            ("224.0.0.0/3", true),
            ("127.0.0.0/8", true),
            ("126.0.0.0/7", false),
            ("8.8.8.8/32", false),
            ("::/0", false),
            ("::/3", true),
            ("::/2", false),
            ("2000::/3", false),
            ("fc00::/7", true),
            ("8000::/1", true),
            ("64:ff9b::/96", true),
            ("2001::/23", true),
            ("2001::/16", false),
            ("2001:db8::/32", true),
        ] {
            assert_eq!(is_special(text.parse().unwrap()), special, "{text}");
        }
    }
}
