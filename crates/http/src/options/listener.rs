//! The keys of `[[http]]` itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_net::acl::Prefix;
use wmproxy_net::addr::ListenSpec;
use wmproxy_net::options::{AccessLogOptions, OneOrMany, Toggle};
use wmproxy_net::preface::TrustedProxy;
use wmproxy_net::relay::Splice;
use wmproxy_net::sockopt::{Dscp, Interface, Keepalive, Source};
use wmproxy_net::tls::ListenerTls;
use wmproxy_wire::units::{ByteSize, CountRate, HumanDuration};

use super::route::RouteOptions;
use super::value::BodyLimit;

/// An HTTP server: each request that comes to its listeners takes one of its routes. All listeners of one `[[http]]`
/// carry its name; the address tells them apart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpOptions {
    /// Names the listeners in logs, metrics and the admin API. By default it is made of the first address, as in
    /// `http-8080`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where to listen: an address or a list of them, as `":80"`, `"127.0.0.1:8080"` or `"unix:/run/x.sock"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub listen: Option<OneOrMany<ListenSpec>>,
    /// Serves https: a table with `cert` and `key`, a list of such tables of which a client gets the one for the name it
    /// asks for, or `"self-signed"` for development. The files are read again when they change. `alpn` comes from
    /// `protocols`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// What is spoken: `h1` (HTTP/1.1 and 1.0) and `h2` (HTTP/2). With TLS a client chooses from them (ALPN); without, one
    /// that begins with HTTP/2 (prior knowledge) is served so.
    pub protocols: OneOrMany<HttpProtocol>,
    /// How long clients may take.
    pub timeouts: HttpTimeouts,
    /// How much clients may send.
    pub limits: HttpLimits,
    /// Proxies in front of this one, whose `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`, `Forwarded` and
    /// `X-Request-Id` are believed: addresses, prefixes, and `unix` for whoever connects to a unix socket. The client is
    /// then the last one of `X-Forwarded-For` that is none of them. A PROXY header is believed as well where a
    /// connection of theirs begins with one. What others say in these fields is replaced.
    #[serde(skip_serializing_if = "is_empty")]
    pub trusted_proxies: OneOrMany<TrustedProxy>,
    /// Proxies that have to begin each connection with a PROXY header (version 1 or 2), or are closed. The client that it
    /// names counts for everything.
    #[serde(skip_serializing_if = "is_empty")]
    pub accept_proxy_protocol: OneOrMany<TrustedProxy>,
    /// The most connections at a time on each listener; 0 is no limit.
    pub max_connections: u32,
    /// The most connections at a time of one client address; 0 is no limit.
    pub per_client_connections: u32,
    /// How often one client address may connect, as in `"10/s"` or `"600/m"`. More are reset at once. IPv6 clients count
    /// by their /64. By default there is no limit. Requests are limited by a route's `limit_requests`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_client_rate: Option<CountRate>,
    /// How many connections a client of `per_client_rate` may open at once after it was quiet: by default as many as the
    /// rate names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_client_burst: Option<u32>,
    /// Who may connect: addresses and prefixes. Of `allow` and `deny` the longest prefix that holds the client decides,
    /// and `deny` when both say the same. Whoever is in neither may come unless `allow` names somebody. A route has its
    /// own `allow` and `deny`, which go by the client that trusted proxies name.
    #[serde(skip_serializing_if = "is_empty")]
    pub allow: OneOrMany<Prefix>,
    /// Who may not connect; see `allow`.
    #[serde(skip_serializing_if = "is_empty")]
    pub deny: OneOrMany<Prefix>,
    /// This listener's access log: a table as `[access_log]`, whose keys are the defaults here, or `false` for none. It
    /// has a line for each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<Toggle<AccessLogOptions>>,
    /// Whether the kernel passes large bodies from socket to socket (splice) where both are in the clear: `auto`, or
    /// `off` for copying everything.
    pub splice: Splice,
    /// Whether small writes go out at once instead of waiting to be joined (TCP_NODELAY), on both sides.
    pub tcp_nodelay: bool,
    /// After how long without traffic the kernel asks whether the other side is still there (SO_KEEPALIVE), on both
    /// sides; `false` is never. A table says more: `{ idle = "60s", interval = "10s", count = 3 }`.
    pub tcp_keepalive: Toggle<Keepalive>,
    /// How long data that was sent may go without an answer before the connection counts as dead (TCP_USER_TIMEOUT), on
    /// both sides; by default as long as the system takes, some 15 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_user_timeout: Option<HumanDuration>,
    /// Takes data with the first packet of a client (TCP Fast Open, RFC 7413). Such a packet may come twice, so only
    /// where a repeated first request does no harm.
    pub tcp_fast_open: bool,
    /// Lets clients use several paths for one connection (Multipath TCP, RFC 8684). Others connect as ever.
    pub mptcp: bool,
    /// The network device that clients have to come by, and answers leave through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    /// The mark of packets to clients, for this machine's rules of routing and filtering (SO_MARK); 0 is none. Needs
    /// CAP_NET_ADMIN.
    pub mark: u32,
    /// The class of service of packets to clients: a number from 0 to 63, or a name like `ef` or `af41`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
    /// Takes connections that are meant for other machines, as the firewall's TPROXY or a route delivers them
    /// (IP_TRANSPARENT). Needs CAP_NET_RAW or CAP_NET_ADMIN.
    pub transparent: bool,
    /// The address that servers see: one of this machine, or `client` for the client's own with another port, which
    /// needs CAP_NET_RAW or CAP_NET_ADMIN and a route back. What the `[upstream]` says goes first. With `client`, no
    /// connection to a server is used again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<RouteOptions>,
}

/// A family of versions of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpProtocol {
    /// HTTP/1.1 and 1.0.
    H1,
    /// HTTP/2.
    H2,
}

/// How long clients may take. None of them can be turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpTimeouts {
    /// From the connection to the end of what comes before the first request: the PROXY header and the TLS handshake.
    /// After that the connection is closed.
    pub preface: HumanDuration,
    /// From the first byte of a request to the end of its head, and from the connection to that first byte. After that a
    /// client that has begun gets a 408.
    pub header: HumanDuration,
    /// How long no byte of a request's body may come while we wait for it. After that the client gets a 408. In HTTP/1 less
    /// than 1 KiB in that time counts as nothing.
    pub body: HumanDuration,
    /// How long a connection may be without a request before it is closed.
    pub keepalive: HumanDuration,
    /// How long a client may take nothing of a response while there is some for it. After that the connection is cut off. Who
    /// reads slowly takes what the system holds for it; less than 1 KiB of that counts as nothing.
    pub write: HumanDuration,
    /// How long a connection that was upgraded, as to a WebSocket, may be without traffic in either direction.
    pub upgrade: HumanDuration,
}

/// How much clients may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpLimits {
    /// The size of a request's head, from 1k to 1m; a larger one gets a 431.
    pub header_bytes: ByteSize,
    /// How many fields a request may have, from 1 to 1000; one with more gets a 431.
    pub header_count: u32,
    /// The size of a request's target, path and query; a longer one gets a 414.
    pub target_bytes: ByteSize,
    /// The size of a request's body, or `unlimited`; a larger one gets a 413.
    pub body: BodyLimit,
    /// How many requests a connection may carry before it is closed; 0 is no limit.
    pub requests_per_connection: u32,
    /// How many requests of a HTTP/2 connection may be under way at once, from 1 to 1000.
    pub h2_streams: u32,
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions {
            name: None,
            listen: None,
            tls: None,
            protocols: OneOrMany(vec![HttpProtocol::H1, HttpProtocol::H2]),
            timeouts: HttpTimeouts::default(),
            limits: HttpLimits::default(),
            trusted_proxies: OneOrMany::default(),
            accept_proxy_protocol: OneOrMany::default(),
            max_connections: 0,
            per_client_connections: 0,
            per_client_rate: None,
            per_client_burst: None,
            allow: OneOrMany::default(),
            deny: OneOrMany::default(),
            access_log: None,
            splice: Splice::default(),
            tcp_nodelay: true,
            tcp_keepalive: Toggle::Off,
            tcp_user_timeout: None,
            tcp_fast_open: false,
            mptcp: false,
            interface: None,
            mark: 0,
            dscp: None,
            transparent: false,
            source: None,
            route: Vec::new(),
        }
    }
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        let seconds = HumanDuration::from_secs;
        HttpTimeouts {
            // A handshake is done in three round trips, a head in one: even over a satellite well below this.
            preface: seconds(10),
            header: seconds(10),
            body: seconds(30),
            // Above the 60 seconds after which common clients and balancers give up an idle connection, so that they close
            // it, and none of their requests meets a connection that is just being closed.
            keepalive: seconds(75),
            write: seconds(30),
            // As an idle layer-4 connection; pings of WebSockets are mostly below a minute apart.
            upgrade: seconds(600),
        }
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            header_bytes: ByteSize::new(32 << 10),
            header_count: 100,
            // As common servers have it: what they accept behind us, we accept.
            target_bytes: ByteSize::new(8 << 10),
            body: BodyLimit::Unlimited,
            requests_per_connection: 0,
            // What browsers open at once, and what RFC 9113 section 6.5.2 recommends as the least.
            h2_streams: 128,
        }
    }
}

pub(super) fn is_empty<T>(list: &OneOrMany<T>) -> bool {
    list.0.is_empty()
}
