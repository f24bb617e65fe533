//! The options of `[[stream]]`, and what the data plane takes from them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_net::acl::{Acl, Prefix};
use wmproxy_net::addr::{ListenSpec, Protocol};
use wmproxy_net::limit::Limits;
use wmproxy_net::options::{AccessLogOptions, OneOrMany, Toggle};
use wmproxy_net::preface::{Trusted, TrustedProxy};
use wmproxy_net::relay::Splice;
use wmproxy_net::sockopt::{Dscp, Interface, Keepalive, ListenSocket, Source, TcpOptions, Way};
use wmproxy_net::tls::{AcceptorSpec, ListenerTls};
use wmproxy_wire::bucket::Frequency;
use wmproxy_wire::units::{ByteRate, CountRate, HumanDuration, Secret};

use crate::bridge::options::{BridgeMode, BridgeSpec};
use crate::bridge::url::BridgeUrl;
use crate::route::Routes;

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
    /// needs a range of the same length. Required, unless `sni`, `alpn` or `bridge_url` says where to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<OneOrMany<String>>,
    /// Upstreams by the server name that the client asks for in TLS (SNI), or in QUIC on udp, which is read
    /// without decrypting anything: a name, `"*.example.com"` for every name below `example.com`, however many
    /// labels more it has, and `default` for everybody else, without which `upstream` is, and without that the
    /// connection is closed. The exact name goes before the longest wildcard. What is no TLS is closed; on udp,
    /// what is no QUIC goes where `default` says. With Encrypted Client Hello the outer name counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sni: BTreeMap<String, OneOrMany<String>>,
    /// Upstreams by an application protocol that the client offers in TLS (ALPN), such as `h2` or
    /// `"acme-tls/1"`. Of several the client's first counts, and any of them before its server name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alpn: BTreeMap<String, OneOrMany<String>>,
    /// Proxies that connections come through: addresses, prefixes, and `unix` for whoever connects to a unix
    /// socket. Each of them has to begin with a PROXY header (version 1 or 2), or is closed; the client that it
    /// names counts for `allow`, `deny`, limits, balancing and logs. From anybody else such a header is
    /// ordinary data.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub accept_proxy_protocol: OneOrMany<TrustedProxy>,
    /// How long a client may take for what has to come before its data: the PROXY header, the TLS handshake,
    /// the ClientHello to route by, the request for a WebSocket, all of them together.
    #[serde(default = "preface_timeout")]
    pub preface_timeout: HumanDuration,
    /// Ends the clients' TLS: a table with `cert` and `key`, a list of such tables of which a client gets the one for
    /// the name it asks for, or `"self-signed"` for development. The files are read again when they change. Only for
    /// tcp listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
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
    /// How often one client address may come: new connections, or flows, in a time, as in `"10/s"` or
    /// `"600/m"`. More are reset at once, and for udp their datagrams dropped. IPv6 clients count by their
    /// /64. By default there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_client_rate: Option<CountRate>,
    /// How many a client of `per_client_rate` may open at once after it was quiet: by default as many as the
    /// rate names, so 10 for `"10/s"` and 600 for `"600/m"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_client_burst: Option<u32>,
    /// How fast the bytes of each connection pass: `up` from the client, `down` to it, as in
    /// `{ up = "4m/s", down = "10m/s" }`. What is too fast waits; for udp, where this is the rate of each
    /// flow, datagrams over it are dropped. By default there is no limit.
    #[serde(default, skip_serializing_if = "RateLimit::is_off")]
    pub rate_limit: RateLimit,
    /// The same for all connections, or flows, of a listener together, over all workers; those that wait get
    /// their turns one after the other.
    #[serde(default, skip_serializing_if = "RateLimit::is_off")]
    pub listener_rate_limit: RateLimit,
    /// Whether the kernel passes the bytes of tcp connections from socket to socket (splice) once they come in
    /// bulk: `auto`, or `off` for copying everything.
    #[serde(default)]
    pub splice: Splice,
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
    /// on both sides; `false` is never. A table says more: `{ idle = "60s", interval = "10s", count = 3 }`.
    #[serde(default = "off")]
    pub tcp_keepalive: Toggle<Keepalive>,
    /// How long data that was sent may go without an answer before the connection counts as dead
    /// (TCP_USER_TIMEOUT), on both sides; by default as long as the system takes, some 15 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_user_timeout: Option<HumanDuration>,
    /// Takes data with the first packet of a client (TCP Fast Open, RFC 7413). Such a packet may come twice, so
    /// only for protocols that bear a repeated first request.
    #[serde(default)]
    pub tcp_fast_open: bool,
    /// Lets clients use several paths for one connection (Multipath TCP, RFC 8684). Others connect as ever.
    #[serde(default)]
    pub mptcp: bool,
    /// The network device that clients have to come by, and answers leave through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    /// The mark of packets to clients, for this machine's rules of routing and filtering (SO_MARK); 0 is none.
    /// Needs CAP_NET_ADMIN.
    #[serde(default)]
    pub mark: u32,
    /// The class of service of packets to clients: a number from 0 to 63, or a name like `ef` or `af41`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
    /// Takes connections and datagrams that are meant for other machines, as the firewall's TPROXY or a route
    /// delivers them (IP_TRANSPARENT). Needs CAP_NET_RAW or CAP_NET_ADMIN.
    #[serde(default)]
    pub transparent: bool,
    /// The address that servers see: one of this machine, or `client` for the client's own with another port,
    /// which needs CAP_NET_RAW or CAP_NET_ADMIN and a route back. What the `[upstream]` says goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Passes TCP on as a WebSocket: `tcp2ws` connects to a WebSocket server at `bridge_url`, `ws2tcp` is a
    /// WebSocket server for clients, such as browsers. Bytes go out in binary frames; text and binary ones are
    /// taken. Only for tcp listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeMode>,
    /// With `tcp2ws`: what is asked for, as in `"wss://host/path"`; `wss` is TLS. Without an `upstream` it is also
    /// where to connect; with one, that is connected to, and asked for this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_url: Option<BridgeUrl>,
    /// With `ws2tcp`: the hosts that clients may ask for, each with any port if it has none; others get a 403. By
    /// default any.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub bridge_host: OneOrMany<String>,
    /// With `ws2tcp`: the path that clients have to ask for, whatever the query; others get a 404. By default any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_path: Option<String>,
    /// With `ws2tcp`: the sites whose pages may connect, as in `"https://app.example.com"`; those of others get a
    /// 403. Clients that are no browsers say no site, and may connect. By default any.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub bridge_origin: OneOrMany<String>,
    /// The subprotocols to offer a server, or those to grant a client that offers them; for `ws2tcp` by default
    /// `binary`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub bridge_subprotocol: OneOrMany<String>,
    /// Fields to add to our part of the handshake, as in `{ Authorization = "Bearer ..." }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bridge_headers: BTreeMap<String, Secret>,
    /// How often the other end of the WebSocket is pinged. It is cut off when nothing has come from it up to the
    /// next ping. By default there are no pings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_ping: Option<HumanDuration>,
}

/// How fast bytes pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// From the client, in bytes a second, as in `"4m/s"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<ByteRate>,
    /// To the client, in bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<ByteRate>,
}

impl RateLimit {
    /// Whether it limits nothing.
    pub fn is_off(&self) -> bool {
        *self == RateLimit::default()
    }
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
    /// Follows QUIC connections: when a client's address changes in the middle of one, as behind a NAT, it keeps
    /// its server. On where `sni`, `alpn` or `hash_key = "quic_cid"` says that it is QUIC anyway.
    pub quic: bool,
    /// With `send_proxy_protocol`: puts the header before every datagram, instead of before the first one of each
    /// flow. For servers such as dnsdist and BIND, and where the first datagram may be lost.
    pub proxy_protocol_every_datagram: bool,
}

/// What the data plane needs to know of one listener: nothing is optional any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// The listener's name.
    pub name: Arc<str>,
    /// Where to go: the names of upstream groups.
    pub routes: Arc<Routes<Arc<str>>>,
    /// Who has to begin with a PROXY header.
    pub trusted: Option<Trusted>,
    /// See [`StreamOptions::preface_timeout`]; never zero.
    pub preface_timeout: Duration,
    /// What its TLS is made of, if it ends the clients'. The config's reader sets it: it knows where files lie.
    pub tls: Option<AcceptorSpec>,
    /// See [`StreamOptions::idle_timeout`]; never zero.
    pub idle_timeout: Duration,
    /// The most connections or flows at a time; 0 is no limit.
    pub max_connections: u32,
    /// The most connections or flows at a time of one client address; 0 is no limit.
    pub per_client_connections: u32,
    /// How often one client may come.
    pub per_client: Option<Frequency>,
    /// Of each connection or flow.
    pub rate_limit: RateLimit,
    /// Of all together.
    pub listener_rate_limit: RateLimit,
    /// Whether bulk is spliced.
    pub splice: Splice,
    /// Who may come.
    pub acl: Acl,
    /// See [`UdpOptions::max_requests`]; 0 is no limit.
    pub max_requests: u64,
    /// See [`UdpOptions::max_responses`]; 0 is no limit.
    pub max_responses: u64,
    /// See [`UdpOptions::quic`].
    pub quic: bool,
    /// See [`UdpOptions::proxy_protocol_every_datagram`].
    pub proxy_protocol_every_datagram: bool,
    /// What is set on the listening sockets, and with them on those of clients.
    pub socket: ListenSocket,
    /// The address that peers see, unless their group says another.
    pub source: Option<Source>,
    /// Which side is a WebSocket, if one is.
    pub bridge: Option<Arc<BridgeSpec>>,
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
            sni: BTreeMap::new(),
            alpn: BTreeMap::new(),
            accept_proxy_protocol: OneOrMany::default(),
            preface_timeout: preface_timeout(),
            tls: None,
            idle_timeout: None,
            max_connections: None,
            per_client_connections: 0,
            per_client_rate: None,
            per_client_burst: None,
            rate_limit: RateLimit::default(),
            listener_rate_limit: RateLimit::default(),
            splice: Splice::default(),
            allow: OneOrMany::default(),
            deny: OneOrMany::default(),
            udp: UdpOptions::default(),
            access_log: None,
            tcp_nodelay: yes(),
            tcp_keepalive: off(),
            tcp_user_timeout: None,
            tcp_fast_open: false,
            mptcp: false,
            interface: None,
            mark: 0,
            dscp: None,
            transparent: false,
            source: None,
            bridge: None,
            bridge_url: None,
            bridge_host: OneOrMany::default(),
            bridge_path: None,
            bridge_origin: OneOrMany::default(),
            bridge_subprotocol: OneOrMany::default(),
            bridge_headers: BTreeMap::new(),
            bridge_ping: None,
        }
    }
}

impl StreamOptions {
    /// The listeners' settings with every default filled in.
    pub fn spec(&self, name: Arc<str>, routes: Arc<Routes<Arc<str>>>, protocol: Protocol) -> StreamSpec {
        let (idle_timeout, max_connections) = match protocol {
            Protocol::Tcp => (TCP_IDLE_TIMEOUT, 0),
            Protocol::Udp => (UDP_IDLE_TIMEOUT, UDP_MAX_FLOWS),
        };
        let nets = |list: &OneOrMany<Prefix>| list.0.iter().map(|p| p.net()).collect::<Vec<_>>();
        StreamSpec {
            name,
            routes,
            trusted: Trusted::new(&self.accept_proxy_protocol.0),
            preface_timeout: self.preface_timeout.get(),
            tls: None,
            idle_timeout: self.idle_timeout.map_or(idle_timeout, HumanDuration::get),
            max_connections: self.max_connections.unwrap_or(max_connections),
            per_client_connections: self.per_client_connections,
            per_client: self.per_client_rate.map(|rate| Frequency::new(rate, self.per_client_burst)),
            rate_limit: self.rate_limit,
            listener_rate_limit: self.listener_rate_limit,
            splice: self.splice,
            acl: Acl::new(&nets(&self.allow), &nets(&self.deny)),
            max_requests: self.udp.max_requests,
            max_responses: self.udp.max_responses,
            quic: self.udp.quic,
            proxy_protocol_every_datagram: self.udp.proxy_protocol_every_datagram,
            socket: self.socket(),
            source: self.source,
            // What is wrong with it is reported by who checks the options.
            bridge: BridgeSpec::new(self).ok().flatten().map(Arc::new),
        }
    }

    fn socket(&self) -> ListenSocket {
        ListenSocket {
            way: Way { interface: self.interface.clone(), mark: self.mark, dscp: self.dscp },
            transparent: self.transparent,
            fast_open: self.tcp_fast_open,
            mptcp: self.mptcp,
            tcp: TcpOptions {
                nodelay: self.tcp_nodelay,
                keepalive: self.tcp_keepalive.on().copied(),
                user_timeout: self.tcp_user_timeout.map(HumanDuration::get),
            },
        }
    }
}

impl StreamSpec {
    /// What the listener's gate keeps to.
    pub fn limits(&self) -> Limits {
        Limits {
            max: self.max_connections,
            max_per_client: self.per_client_connections,
            per_client: self.per_client,
            up: self.listener_rate_limit.up,
            down: self.listener_rate_limit.down,
        }
    }
}

fn is_empty<T>(list: &OneOrMany<T>) -> bool {
    list.0.is_empty()
}

/// A ClientHello follows the connection within two round trips, a handshake is done in three: even over a satellite
/// well below this.
fn preface_timeout() -> HumanDuration {
    HumanDuration::from_secs(10)
}

fn yes() -> bool {
    true
}

fn off() -> Toggle<Keepalive> {
    Toggle::Off
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Arc<Routes<Arc<str>>> {
        Arc::new(Routes::to(Arc::from("g")))
    }

    #[test]
    fn defaults_follow_the_protocol() {
        let options = StreamOptions::default();
        let tcp = options.spec("a".into(), routes(), Protocol::Tcp);
        assert_eq!((tcp.idle_timeout, tcp.max_connections), (Duration::from_secs(600), 0));
        let udp = options.spec("a".into(), routes(), Protocol::Udp);
        assert_eq!((udp.idle_timeout, udp.max_connections), (Duration::from_secs(60), 16_384));
        assert!(udp.acl.is_open());
    }

    #[test]
    fn what_is_said_counts_for_every_protocol() {
        let options = StreamOptions {
            idle_timeout: Some(HumanDuration::from_secs(5)),
            max_connections: Some(7),
            deny: OneOrMany(vec!["10.0.0.0/8".parse().unwrap()]),
            tcp_keepalive: Toggle::On(Keepalive::after(Duration::from_secs(30))),
            ..StreamOptions::default()
        };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let spec = options.spec("a".into(), routes(), protocol);
            assert_eq!((spec.idle_timeout, spec.max_connections), (Duration::from_secs(5), 7));
            assert_eq!(
                spec.socket.tcp.keepalive.map(|keepalive| keepalive.idle),
                Some(Duration::from_secs(30))
            );
            assert!(!spec.acl.permits("10.1.1.1".parse().unwrap()));
        }
    }
}
