//! What the options come to: every default filled in, every name resolved, nothing left to be wrong.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_http::forward::Kind;
use wmproxy_http::options::HttpSpec;
use wmproxy_net::acl::Prefix;
use wmproxy_net::sockopt::Source;
use wmproxy_net::tls::ConnectorSpec;
use wmproxy_wire::destination::Destination;
use wmproxy_wire::units::{ByteRate, Secret};

use super::text::Quota;

/// What the data plane needs to know of one `[[forward]]` listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSpec {
    /// Name, TLS, who may connect, timeouts, limits and sockets, as for any listener of HTTP; it has no routes. What of it
    /// concerns every connection counts for SOCKS, too. `timeouts.upgrade` is the idle timeout of tunnels.
    pub listener: HttpSpec,
    /// Whether HTTP is spoken.
    pub http: bool,
    /// Whether SOCKS 5 is spoken.
    pub socks5: bool,
    /// Whether SOCKS 4 and 4a are spoken.
    pub socks4: bool,
    /// Whether clients may come without TLS though the listener has it: the first byte tells.
    pub tls_optional: bool,
    /// Users by name; empty where nobody has to say who they are.
    pub users: Vec<UserSpec>,
    /// Whether a client certificate that was verified is enough, its subject's common name being the user's.
    pub by_certificate: bool,
    /// What clients show their users when they ask for a password: a valid value of a field.
    pub realm: Box<str>,
    /// SOCKS 5 datagrams.
    pub udp: UdpSpec,
    /// Whether BIND is served.
    pub bind_command: bool,
    /// The rules for those whose user names no other.
    pub egress: Arc<str>,
    /// Whether `/proxy.pac` and `/wpad.dat` are served.
    pub pac: bool,
    /// How long connecting to a destination may take in all.
    pub connect_timeout: Duration,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// The name.
    pub name: Arc<str>,
    /// The password's hash (argon2 or bcrypt); without it a client certificate is the only way in.
    pub password: Option<Secret>,
    /// The rules, if not the listener's.
    pub egress: Option<Arc<str>>,
    /// How fast the bytes of all its connections together pass, each way.
    pub rate_limit: Option<ByteRate>,
    /// The most connections at a time; 0 is no limit.
    pub max_connections: u32,
    /// The most associations of datagrams at a time; 0 is no limit.
    pub max_associations: u32,
    /// How many bytes may pass.
    pub quota: Option<Quota>,
}

/// SOCKS 5 datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpSpec {
    /// Whether they are served.
    pub enabled: bool,
    /// The address that clients send to; by default that of ours which they reached by TCP.
    pub bind: Option<IpAddr>,
    /// The ports there; none for whichever is free. With a single one all associations share its socket.
    pub ports: Option<RangeInclusive<u16>>,
    /// The address that clients are told, where it is another (behind NAT).
    pub advertise: Option<IpAddr>,
    /// How long an association may be silent.
    pub idle_timeout: Duration,
    /// The most associations at a time, of all clients together.
    pub max_associations: u32,
    /// The most of one client address.
    pub max_per_client: u32,
}

/// What `private` addresses are to an egress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PrivateNets {
    /// Denied unless `allow` names them.
    #[default]
    Deny,
    /// As any other.
    Allow,
}

/// Rules on where clients may go, and the ways there. Rules are texts, as [`check_rule`](crate::egress::check_rule) takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressSpec {
    /// The name.
    pub name: Arc<str>,
    /// Addresses that are not of the public internet.
    pub private: PrivateNets,
    /// Where clients may go, and nowhere else. Empty is everywhere, but for private addresses.
    pub allow: Vec<Box<str>>,
    /// Where they may not, whatever `allow` says.
    pub deny: Vec<Box<str>>,
    /// The ports that nobody may go to unless `allow` names them.
    pub deny_ports: Vec<u16>,
    /// Ways out; the first that fits.
    pub routes: Vec<EgressRouteSpec>,
    /// The address that connections come from.
    pub source: Option<Source>,
}

/// Which visits go which way. An empty list is for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRouteSpec {
    /// Names and suffixes, as in the rules.
    pub domains: Vec<Box<str>>,
    /// Networks, for destinations that are addresses. Names are not resolved for it.
    pub cidrs: Vec<Prefix>,
    /// Ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Networks that clients come from.
    pub clients: Vec<Prefix>,
    /// Users.
    pub users: Vec<Arc<str>>,
    /// What is asked for.
    pub protocols: Vec<Kind>,
    /// The way.
    pub via: RouteTarget,
}

/// A way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// No proxy.
    Direct,
    /// None.
    Reject,
    /// A chain, by its name.
    Chain(Arc<str>),
}

impl RouteTarget {
    /// The name of the chain, if it is one.
    pub fn chain(&self) -> Option<&Arc<str>> {
        match self {
            RouteTarget::Chain(name) => Some(name),
            RouteTarget::Direct | RouteTarget::Reject => None,
        }
    }
}

/// Proxies one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSpec {
    /// The name.
    pub name: Arc<str>,
    /// At least one, in the order of the way out. Each is a group of parents, mostly of one.
    pub hops: Vec<ParentGroupSpec>,
    /// How long each hop may take.
    pub connect_timeout: Duration,
}

/// Parents of which one is taken for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentGroupSpec {
    /// At least one.
    pub parents: Vec<HopSpec>,
    /// How they share connections, how failures put one aside, and their health checks: an upstream group whose servers are
    /// the parents' addresses, in the same order. It is built as any other, under a name of its own.
    pub group: Arc<str>,
}

/// One proxy that connections go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopSpec {
    /// What it speaks.
    pub kind: HopKind,
    /// Where it is.
    pub address: Destination,
    /// Who we are to it: name and password. The kinds of SOCKS 4 know no password; the others have one here.
    pub credentials: Option<(Box<str>, Option<Secret>)>,
    /// For kinds with TLS: whom to believe, and what to prove.
    pub tls: Option<ConnectorSpec>,
    /// For `Https`: one connection that carries many, where the proxy speaks HTTP/2.
    pub multiplex: bool,
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HopKind {
    /// HTTP CONNECT.
    Http,
    /// The same over TLS.
    Https,
    /// SOCKS 4: addresses only, so that names are resolved here.
    Socks4,
    /// SOCKS 4a.
    Socks4a,
    /// SOCKS 5 (RFC 1928), names unresolved.
    Socks5,
    /// The same over TLS.
    Socks5Tls,
}
