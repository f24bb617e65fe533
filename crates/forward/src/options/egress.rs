//! The keys of `[egress.NAME]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_http::forward::Kind;
use wmproxy_net::acl::Prefix;
use wmproxy_net::options::OneOrMany;
use wmproxy_net::sockopt::Source;

use super::spec::{EgressRouteSpec, EgressSpec, PrivateNets, RouteTarget};
use super::text::{PortRange, Via};

/// Rules on where clients of a `[[forward]]` may go, and the ways there.
///
/// A rule is an address (`10.20.1.2`, `2001:db8::1`) or network (`10.20.0.0/16`), a name (`www.example.com`), every name
/// below one at any depth (`*.example.com`) or that and the name itself (`.example.com`), names with a `*` for anything but a
/// dot (`api-*.example.com`), or `*` for everything. Behind it or alone stand ports (`:443`, `:8000-8099`, `:80,443`; IPv6 goes
/// into brackets then: `[2001:db8::1]:22`), and behind that hours in which it holds (`@mon-fri/08:00-18:00`, `@sat,sun`,
/// `@22:00-06:00`), of this machine's time zone or, with `/utc` behind them, of UTC.
///
/// What is denied is not resolved. What a name resolves to is judged as well: a name is open only if each of its addresses
/// is. Behind a chain that takes names only rules on names and ports count for them. Nobody gets to where this proxy itself
/// listens, unless a rule of `allow` names just that address and port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressOptions {
    /// What addresses are that are not of the public internet, such as those of this machine, of private networks, of
    /// clouds' metadata, and IPv6 addresses that stand for one of these: `deny` for everything that no `allow` names,
    /// `allow` for treating them as any other.
    pub private: PrivateNets,
    /// Where clients may go, and nowhere else. Without any rule that is everywhere, but for what is private. A private
    /// address is open where a rule names it, or a network of such addresses (`10.0.0.0/8`, but not `0.0.0.0/0`, in which
    /// most are public), or, if it is of a private network and not of this machine, the name that leads there. Clouds'
    /// metadata only a rule on that one address opens. With `"*"` everything else stays open beside it:
    /// `["*", "10.20.0.0/16"]`.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub allow: OneOrMany<String>,
    /// Where clients may not go, whatever `allow` says.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub deny: OneOrMany<String>,
    /// Ports that nobody may go to unless a rule of `allow` names them. By default 25, where mail is delivered: an open way
    /// there sends spam in your name.
    pub deny_ports: Vec<u16>,
    /// The address that connections come from: one of this machine, or `client` for the client's own with another port,
    /// which needs CAP_NET_RAW or CAP_NET_ADMIN and a route back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Ways out. The first that fits is taken; where none does, it is direct.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<EgressRouteOptions>,
}

/// Which destinations go which way. What is left out fits everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressRouteOptions {
    /// Names, written as in rules: `www.example.com`, `*.example.com`, `.example.com`, `api-*.example.com`, and `*` for all.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub domains: OneOrMany<String>,
    /// Networks, for destinations that clients give as addresses. No name is resolved for it.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub cidrs: OneOrMany<Prefix>,
    /// Ports, and ranges like `"8000-8099"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// Networks that clients come from.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub clients: OneOrMany<Prefix>,
    /// Users, by their names.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub users: OneOrMany<String>,
    /// What is asked for: `http`, `connect`, `socks4`, `socks5` or `udp`.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub protocols: OneOrMany<VisitKind>,
    /// The way: the name of a `[chain]`, `direct` for none, or `reject` for nowhere. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub via: Option<Via>,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VisitKind {
    /// A request of HTTP in absolute form.
    Http,
    /// CONNECT.
    Connect,
    /// SOCKS 4 and 4a.
    Socks4,
    /// SOCKS 5.
    Socks5,
    /// Datagrams.
    Udp,
}

/// The port where mail is delivered: whoever may go there through a proxy sends spam in its name.
const SMTP: u16 = 25;

impl Default for EgressOptions {
    fn default() -> Self {
        EgressOptions {
            private: PrivateNets::default(),
            allow: OneOrMany::default(),
            deny: OneOrMany::default(),
            deny_ports: vec![SMTP],
            source: None,
            route: Vec::new(),
        }
    }
}

impl EgressOptions {
    /// The rules as they are written. `via` of a route that has none is to reject.
    pub fn spec(&self, name: &str) -> EgressSpec {
        let texts = |list: &OneOrMany<String>| list.0.iter().map(|text| text.as_str().into()).collect();
        let route = |route: &EgressRouteOptions| EgressRouteSpec {
            domains: texts(&route.domains),
            cidrs: route.cidrs.0.clone(),
            ports: route.ports.iter().filter_map(PortRange::get).collect(),
            clients: route.clients.0.clone(),
            users: route.users.0.iter().map(|name| name.as_str().into()).collect(),
            protocols: route.protocols.0.iter().map(|kind| Kind::from(*kind)).collect(),
            via: match &route.via {
                Some(Via::Direct) => RouteTarget::Direct,
                Some(Via::Chain(name)) => RouteTarget::Chain((&**name).into()),
                Some(Via::Reject) | None => RouteTarget::Reject,
            },
        };
        EgressSpec {
            name: name.into(),
            private: self.private,
            allow: texts(&self.allow),
            deny: texts(&self.deny),
            deny_ports: self.deny_ports.clone(),
            routes: self.route.iter().map(route).collect(),
            source: self.source,
        }
    }
}

impl From<VisitKind> for Kind {
    fn from(kind: VisitKind) -> Kind {
        match kind {
            VisitKind::Http => Kind::Http,
            VisitKind::Connect => Kind::Connect,
            VisitKind::Socks4 => Kind::Socks4,
            VisitKind::Socks5 => Kind::Socks5,
            VisitKind::Udp => Kind::Udp,
        }
    }
}
