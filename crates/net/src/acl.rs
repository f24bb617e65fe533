//! Who may come: `allow` and `deny` lists of prefixes, the longest one deciding.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// A prefix as the config writes it: `10.0.0.0/8`, `2001:db8::/32`, or a bare address for that one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix(IpNet);

/// Why a text is no prefix; says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Neither an address nor a prefix.
    #[error("expected an address or a prefix like \"10.0.0.0/8\" or \"2001:db8::/32\"")]
    Malformed,
    /// Bits are set behind the prefix, so that what was meant is in doubt.
    #[error(
        "bits are set behind the prefix; write \"{net}\" for all of it, or \"{address}\" for that address"
    )]
    HostBits {
        /// The prefix without those bits.
        net: IpNet,
        /// The address alone.
        address: IpAddr,
    },
}

impl Prefix {
    /// The prefix itself.
    pub fn net(self) -> IpNet {
        self.0
    }

    /// The same addresses as [`IpAddr::to_canonical`] makes them: a prefix inside `::ffff:0:0/96` is one of IPv4.
    pub fn canonical(self) -> IpNet {
        unmap_net(self.0)
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        Prefix(net.trunc())
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Prefix(address.into()));
        }
        let net: IpNet = text.parse().map_err(|_| PrefixError::Malformed)?;
        if net.trunc() != net {
            return Err(PrefixError::HostBits { net: net.trunc(), address: net.addr() });
        }
        Ok(Prefix(net))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Prefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl schemars::JsonSchema for Prefix {
    fn schema_name() -> Cow<'static, str> {
        "Prefix".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "an address, or a prefix like 10.0.0.0/8 or 2001:db8::/32",
        })
    }
}

/// Decides by address who may come. A lookup costs one probe for each prefix length in use (at most 33 for
/// IPv4 and 129 for IPv6), however many prefixes there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    v4: Table<u32>,
    v6: Table<u128>,
    default: bool,
}

/// The prefixes of one family by length, the longest first; each answers whether it permits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table<K: Eq + std::hash::Hash>(Vec<(u8, HashMap<K, bool>)>);

impl Default for Acl {
    fn default() -> Self {
        Acl::new(&[], &[])
    }
}

impl Acl {
    /// The longest prefix that holds an address decides; in both lists, `deny` does. An address that no
    /// prefix holds may come unless `allow` names somebody. Bits behind a prefix are ignored.
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        let mut acl = Acl { v4: Table(Vec::new()), v6: Table(Vec::new()), default: allow.is_empty() };
        for (nets, permits) in [(allow, true), (deny, false)] {
            for net in nets {
                match unmap_net(*net) {
                    IpNet::V4(net) => acl.v4.insert(net.prefix_len(), net.network().to_bits(), permits),
                    IpNet::V6(net) => acl.v6.insert(net.prefix_len(), net.network().to_bits(), permits),
                }
            }
        }
        acl.v4.0.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        acl.v6.0.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        acl
    }

    /// Whether whoever has this address may come. An IPv4 address mapped into IPv6 counts as IPv4: a
    /// dual-stack socket shows IPv4 clients like that.
    pub fn permits(&self, ip: IpAddr) -> bool {
        let verdict = match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.find(|length| (ip.to_bits(), Ipv4Addr::BITS - u32::from(length))),
            IpAddr::V6(ip) => self.v6.find(|length| (ip.to_bits(), Ipv6Addr::BITS - u32::from(length))),
        };
        verdict.unwrap_or(self.default)
    }

    /// Whether everybody may come, so that nobody needs to ask.
    pub fn is_open(&self) -> bool {
        self.default && self.v4.0.is_empty() && self.v6.0.is_empty()
    }
}

/// Bits that can be cut to a prefix.
trait Bits: Copy + Eq + std::hash::Hash {
    /// The bits with the lowest `host_bits` cleared.
    fn cut(self, host_bits: u32) -> Self;
}

impl Bits for u32 {
    fn cut(self, host_bits: u32) -> Self {
        // A shift by the whole width is an overflow, and /0 keeps nothing.
        self & u32::MAX.checked_shl(host_bits).unwrap_or(0)
    }
}

impl Bits for u128 {
    fn cut(self, host_bits: u32) -> Self {
        self & u128::MAX.checked_shl(host_bits).unwrap_or(0)
    }
}

impl<K: Bits> Table<K> {
    fn insert(&mut self, length: u8, network: K, permits: bool) {
        let at = self.0.iter().position(|(l, _)| *l == length).unwrap_or_else(|| {
            self.0.push((length, HashMap::new()));
            self.0.len() - 1
        });
        // Denials come after permissions and win.
        self.0[at].1.insert(network, permits);
    }

    fn find(&self, bits: impl Fn(u8) -> (K, u32)) -> Option<bool> {
        self.0.iter().find_map(|(length, nets)| {
            let (bits, host_bits) = bits(*length);
            nets.get(&bits.cut(host_bits)).copied()
        })
    }
}

/// A prefix inside `::ffff:0:0/96` is one of IPv4 addresses (RFC 4291 section 2.5.5.2).
fn unmap_net(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.prefix_len().checked_sub(96).zip(v6.network().to_ipv4_mapped());
    match v4.map(|(length, address)| Ipv4Net::new(address, length)) {
        Some(Ok(v4)) => IpNet::V4(v4),
        _ => IpNet::V6(Ipv6Net::trunc(&v6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|text| text.parse::<Prefix>().unwrap().net()).collect()
    }

    fn acl(allow: &[&str], deny: &[&str]) -> Acl {
        Acl::new(&nets(allow), &nets(deny))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_decides() {
        let acl = acl(&["10.0.0.0/8", "10.1.2.0/24", "10.1.2.3"], &["10.1.0.0/16", "10.1.2.128/25"]);
        for (text, permitted) in [
            ("10.9.9.9", true),
            ("10.1.9.9", false),
            ("10.1.2.9", true),
            ("10.1.2.200", false),
            ("10.1.2.3", true),
            ("192.0.2.1", false),
            ("::1", false),
        ] {
            assert_eq!(acl.permits(ip(text)), permitted, "{text}");
        }
    }

    #[test]
    fn without_an_allow_everybody_else_may_come() {
        assert!(Acl::default().is_open());
        let acl = acl(&[], &["10.0.0.0/8", "2001:db8::/32"]);
        assert!(!acl.is_open());
        assert!(acl.permits(ip("192.0.2.1")) && acl.permits(ip("::1")));
        assert!(!acl.permits(ip("10.0.0.1")) && !acl.permits(ip("2001:db8::1")));
    }

    #[test]
    fn the_same_prefix_in_both_lists_is_denied() {
        assert!(!acl(&["10.0.0.0/8"], &["10.0.0.0/8"]).permits(ip("10.0.0.1")));
        assert!(!acl(&["0.0.0.0/0"], &["0.0.0.0/0"]).permits(ip("10.0.0.1")));
    }

    #[test]
    fn the_whole_of_one_family_says_nothing_about_the_other() {
        let only_v4 = acl(&["0.0.0.0/0"], &[]);
        assert!(only_v4.permits(ip("255.255.255.255")) && !only_v4.permits(ip("2001:db8::1")));
        let no_v6 = acl(&[], &["::/0"]);
        assert!(no_v6.permits(ip("10.0.0.1")) && !no_v6.permits(ip("2001:db8::1")));
    }

    #[test]
    fn mapped_addresses_are_ipv4_in_prefixes_and_in_clients() {
        assert!(!acl(&[], &["10.0.0.0/8"]).permits(ip("::ffff:10.0.0.1")));
        let mapped = acl(&[], &["::ffff:10.0.0.0/104"]);
        assert!(!mapped.permits(ip("10.0.0.1")) && !mapped.permits(ip("::ffff:10.0.0.1")));
        assert!(mapped.permits(ip("11.0.0.1")));
    }

    #[test]
    fn a_prefix_reads_and_says_what_is_wrong() {
        assert_eq!("10.0.0.1".parse::<Prefix>().unwrap().net().to_string(), "10.0.0.1/32");
        assert_eq!("::1".parse::<Prefix>().unwrap().net().to_string(), "::1/128");
        assert_eq!("10.0.0.0/8".parse::<Prefix>().unwrap().to_string(), "10.0.0.0/8");
        let error = "10.0.0.1/8".parse::<Prefix>().unwrap_err().to_string();
        assert!(error.contains("\"10.0.0.0/8\"") && error.contains("\"10.0.0.1\""), "{error}");
        for text in ["", "10", "10.0.0.0/33", "::/129", "10.0.0.0/", "example.com", "10.0.0.0/8 "] {
            assert_eq!(text.parse::<Prefix>().unwrap_err(), PrefixError::Malformed, "{text}");
        }
    }

    #[test]
    fn ten_thousand_prefixes_keep_one_table_a_length() {
        let deny: Vec<IpNet> =
            (0..10_000u32).map(|i| Ipv4Net::new(Ipv4Addr::from_bits(i << 8), 24).unwrap().into()).collect();
        let acl = Acl::new(&[], &deny);
        assert_eq!(acl.v4.0.len(), 1);
        assert!(!acl.permits(ip("0.39.15.255")) && acl.permits(ip("0.39.16.0")));
    }
}
