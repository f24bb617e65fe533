//! The options of `[[stream]]`, and what the data plane takes from them.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_net::acl::{Acl, Prefix};
use wmproxy_net::addr::{ListenSpec, Protocol};
use wmproxy_net::options::{AccessLogOptions, OneOrMany, Toggle};
use wmproxy_wire::units::HumanDuration;

/// A layer-4 proxy: what comes to its listeners goes to its upstream, byte for byte. All listeners of one
/// `[[stream]]` carry its name; protocol and address tell them apart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Names the listeners in logs, metrics and the admin API. By default it is made of the first address,
    /// as in `tcp-5432`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where to listen: an address or a list of them. `tcp://` is what a bare address means; `udp://:53` is
    /// UDP on every address, `:8000-8010` a listener for each of these ports, `unix:/run/x.sock` a socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub listen: Option<OneOrMany<ListenSpec>>,
    /// Where to go: the name of an `[upstream]`, an address, or a list of addresses to balance between. With
    /// a range of ports, as in `10.0.0.5:8000-8010`, each listener goes to its own port; every `listen` then
    /// needs a range of the same length.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub upstream: Option<OneOrMany<String>>,
    /// How long a connection or flow may be without traffic in either direction before it ends: by default
    /// `10m` for tcp and `60s` for udp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<HumanDuration>,
    /// The most connections, or flows, at a time on each listener; 0 is no limit. By default there is none
    /// for tcp, and 16384 for udp, where every flow holds a descriptor and anybody can make one up. The
    /// oldest idle flow makes room for a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// The most connections, or flows, at a time of one client address; 0 is no limit.
    #[serde(default)]
    pub per_client_connections: u32,
    /// Who may come: addresses and prefixes. Of `allow` and `deny` the longest prefix that holds the client
    /// decides, and `deny` when both say the same. Whoever is in neither may come unless `allow` names somebody.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub allow: OneOrMany<Prefix>,
    /// Who may not come; see `allow`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub deny: OneOrMany<Prefix>,
    /// What is special to udp.
    #[serde(default)]
    pub udp: UdpOptions,
    /// This listener's access log: a table as `[access_log]`, whose keys are the defaults here, or `false`
    /// for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<Toggle<AccessLogOptions>>,
    /// Whether small writes go out at once instead of waiting to be joined (TCP_NODELAY), on both sides.
    #[serde(default = "yes")]
    pub tcp_nodelay: bool,
    /// After how long without traffic the kernel asks whether the other side is still there (SO_KEEPALIVE),
    /// on both sides; `false` is never.
    #[serde(default = "off")]
    pub tcp_keepalive: Toggle<HumanDuration>,
}

/// When a flow ends, besides by its idle timeout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UdpOptions {
    /// The flow ends after so many datagrams to the client, as after the one answer of DNS; but not before there
    /// are as many as the client sent, so that questions asked in one go all get their answers. 0 is no limit.
    pub max_responses: u64,
    /// The flow takes so many datagrams of the client; its next one begins a new flow, while this one stays
    /// open for the answers still under way. 0 is no limit.
    pub max_requests: u64,
}

/// What the data plane needs to know of one listener: nothing is optional any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// The listener's name.
    pub name: Arc<str>,
    /// The upstream group's name.
    pub group: Arc<str>,
    /// See [`StreamOptions::idle_timeout`]; never zero.
    pub idle_timeout: Duration,
    /// The most connections or flows at a time; 0 is no limit.
    pub max_connections: u32,
    /// The most connections or flows at a time of one client address; 0 is no limit.
    pub per_client_connections: u32,
    /// Who may come.
    pub acl: Acl,
    /// See [`UdpOptions::max_requests`]; 0 is no limit.
    pub max_requests: u64,
    /// See [`UdpOptions::max_responses`]; 0 is no limit.
    pub max_responses: u64,
    /// Whether TCP_NODELAY is set.
    pub tcp_nodelay: bool,
    /// After how long idle keepalive probes start; none are sent without it.
    pub tcp_keepalive: Option<Duration>,
}

/// Longer than any pause of an interactive protocol with its own keepalive, short enough that sessions whose
/// ends vanished do not pile up.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Above the 30 s that RFC 4787 (REQ-5) calls too short for a NAT's mapping to be renewed in.
const UDP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A flow costs a descriptor, and a spoofed address is enough to make one: half of the usual 32k ports for
/// outgoing sockets, and well below the hard limit of descriptors of common distributions.
const UDP_MAX_FLOWS: u32 = 16_384;

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            name: None,
            listen: None,
            upstream: None,
            idle_timeout: None,
            max_connections: None,
            per_client_connections: 0,
            allow: OneOrMany::default(),
            deny: OneOrMany::default(),
            udp: UdpOptions::default(),
            access_log: None,
            tcp_nodelay: yes(),
            tcp_keepalive: off(),
        }
    }
}

impl StreamOptions {
    /// The listeners' settings with every default filled in.
    pub fn spec(&self, name: Arc<str>, group: Arc<str>, protocol: Protocol) -> StreamSpec {
        let (idle_timeout, max_connections) = match protocol {
            Protocol::Tcp => (TCP_IDLE_TIMEOUT, 0),
            Protocol::Udp => (UDP_IDLE_TIMEOUT, UDP_MAX_FLOWS),
        };
        let nets = |list: &OneOrMany<Prefix>| list.0.iter().map(|p| p.net()).collect::<Vec<_>>();
        StreamSpec {
            name,
            group,
            idle_timeout: self.idle_timeout.map_or(idle_timeout, HumanDuration::get),
            max_connections: self.max_connections.unwrap_or(max_connections),
            per_client_connections: self.per_client_connections,
            acl: Acl::new(&nets(&self.allow), &nets(&self.deny)),
            max_requests: self.udp.max_requests,
            max_responses: self.udp.max_responses,
            tcp_nodelay: self.tcp_nodelay,
            tcp_keepalive: self.tcp_keepalive.on().map(|d| d.get()),
        }
    }
}

fn is_empty<T>(list: &OneOrMany<T>) -> bool {
    list.0.is_empty()
}

fn yes() -> bool {
    true
}

fn off() -> Toggle<HumanDuration> {
    Toggle::Off
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_the_protocol() {
        let options = StreamOptions::default();
        let tcp = options.spec("a".into(), "g".into(), Protocol::Tcp);
        assert_eq!((tcp.idle_timeout, tcp.max_connections), (Duration::from_secs(600), 0));
        let udp = options.spec("a".into(), "g".into(), Protocol::Udp);
        assert_eq!((udp.idle_timeout, udp.max_connections), (Duration::from_secs(60), 16_384));
        assert!(udp.acl.is_open());
    }

    #[test]
    fn what_is_said_counts_for_every_protocol() {
        let options = StreamOptions {
            idle_timeout: Some(HumanDuration::from_secs(5)),
            max_connections: Some(7),
            deny: OneOrMany(vec!["10.0.0.0/8".parse().unwrap()]),
            tcp_keepalive: Toggle::On(HumanDuration::from_secs(30)),
            ..StreamOptions::default()
        };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let spec = options.spec("a".into(), "g".into(), protocol);
            assert_eq!((spec.idle_timeout, spec.max_connections), (Duration::from_secs(5), 7));
            assert_eq!(spec.tcp_keepalive, Some(Duration::from_secs(30)));
            assert!(!spec.acl.permits("10.1.1.1".parse().unwrap()));
        }
    }
}
