//! The keys of `[[forward]]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_http::options::{HttpLimits, HttpOptions, HttpTimeouts};
use wmproxy_net::acl::Prefix;
use wmproxy_net::addr::ListenSpec;
use wmproxy_net::options::{AccessLogOptions, OneOrMany, Toggle};
use wmproxy_net::preface::TrustedProxy;
use wmproxy_net::relay::Splice;
use wmproxy_net::sockopt::{Dscp, Interface, Keepalive};
use wmproxy_net::tls::ListenerTls;
use wmproxy_wire::units::{ByteRate, CountRate, HumanDuration, Secret};

use super::spec::{ForwardSpec, UdpSpec};
use super::text::{PortRange, Quota};

/// A forward proxy: clients say where they want to go, by HTTP, CONNECT or SOCKS, all on one port. Where they may go and by
/// which way is told by an `[egress]`. All listeners of one `[[forward]]` carry its name; the address tells them apart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ForwardOptions {
    /// Names the listeners in logs, metrics and the admin API. By default it is made of the first address, as in
    /// `forward-8090`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where to listen: an address or a list of them, as `"127.0.0.1:8090"`, `":8090"` or `"unix:/run/x.sock"`. An address
    /// that others can reach needs `users`, a `client_ca`, an `allow`, or `open = true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub listen: Option<OneOrMany<ListenSpec>>,
    /// What is spoken: `http` (requests in absolute form and CONNECT, in HTTP/1 and, with TLS, HTTP/2), `socks5`, and
    /// `socks4` (with 4a). The first byte of a connection tells which.
    pub protocols: OneOrMany<ForwardProtocol>,
    /// Clients talk to the proxy by TLS: a table with `cert` and `key`, a list of such tables of which a client gets the one
    /// for the name it asks for, or `"self-signed"` for development. With `client_ca` clients prove by a certificate who
    /// they are; its subject's common name is the user's. The files are read again when they change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// With `tls`: clients may also come without it. The first byte of a connection tells.
    pub tls_optional: bool,
    /// Who may use the proxy, by name. Without any, and without `users_file`, nobody has to say who they are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, UserOptions>,
    /// A file of more users, one `NAME:HASH` a line, as `htpasswd -B` makes it. It is read at the start and at each reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_file: Option<String>,
    /// What clients show their users when they ask for a password.
    pub realm: String,
    /// Lets everybody who reaches the listener use the proxy: needed where it listens on an address that others can reach
    /// and neither `users`, `client_ca` nor `allow` say who may.
    pub open: bool,
    /// The `[egress]` with the rules on where clients may go. By default the one that is called `default`; if there is none,
    /// to every address of the public internet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// Datagrams (UDP ASSOCIATE of SOCKS 5).
    pub udp: ForwardUdpOptions,
    /// Whether SOCKS clients may have the proxy wait for a connection from where they are connected to (BIND), as FTP wants
    /// it.
    pub bind_command: bool,
    /// Whether browsers get a file that tells them to use this proxy (PAC), at `/proxy.pac` and `/wpad.dat`.
    pub pac: bool,
    /// How long connecting to a destination may take in all: resolving its name, and all its addresses.
    pub connect_timeout: HumanDuration,
    /// How long a tunnel (CONNECT, SOCKS, a WebSocket) may be without traffic in either direction before it ends.
    pub idle_timeout: HumanDuration,
    /// How long clients may take.
    pub timeouts: ForwardTimeouts,
    /// How much clients may send in requests of HTTP.
    pub limits: HttpLimits,
    /// Proxies that have to begin each connection with a PROXY header (version 1 or 2), or are closed. The client that it
    /// names counts for everything.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub accept_proxy_protocol: OneOrMany<TrustedProxy>,
    /// The most connections at a time on each listener; 0 is no limit.
    pub max_connections: u32,
    /// The most connections at a time of one client address; 0 is no limit.
    pub per_client_connections: u32,
    /// How often one client address may connect, as in `"10/s"` or `"600/m"`. More are reset at once. IPv6 clients count
    /// by their /64. By default there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_client_rate: Option<CountRate>,
    /// How many connections a client of `per_client_rate` may open at once after it was quiet: by default as many as the
    /// rate names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_client_burst: Option<u32>,
    /// Who may connect: addresses and prefixes. Of `allow` and `deny` the longest prefix that holds the client decides,
    /// and `deny` when both say the same. Whoever is in neither may come unless `allow` names somebody.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub allow: OneOrMany<Prefix>,
    /// Who may not connect; see `allow`.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub deny: OneOrMany<Prefix>,
    /// This listener's access log: a table as `[access_log]`, whose keys are the defaults here, or `false` for none. It
    /// has a line for each request of HTTP, each tunnel and each association of datagrams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<Toggle<AccessLogOptions>>,
    /// Whether the kernel passes bulk from socket to socket (splice) where both are in the clear: `auto`, or `off` for
    /// copying everything.
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
}

/// The egress of who names none.
pub const DEFAULT_EGRESS: &str = "default";

/// A protocol of a forward proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ForwardProtocol {
    /// HTTP and CONNECT.
    Http,
    /// SOCKS 5.
    Socks5,
    /// SOCKS 4 and 4a.
    Socks4,
}

/// Somebody who may use the proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserOptions {
    /// The hash of the password, as `wmproxy hash-password` prints it (argon2 or bcrypt). Without it only a client
    /// certificate lets this user in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A file to read `password` from; one newline at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// The `[egress]` with the rules for this user, instead of the listener's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// How fast the bytes of all connections of this user together pass, each way, as in `"10m/s"`. By default there is no
    /// limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<ByteRate>,
    /// The most connections at a time; 0 is no limit.
    pub max_connections: u32,
    /// The most associations of datagrams at a time; 0 is no limit but that of the listener.
    pub max_associations: u32,
    /// How many bytes may pass, both ways together, in a day or in a month of the calendar (UTC), as in `"10g/day"` or
    /// `"500g/month"`. What was used is remembered over restarts. By default there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// Datagrams (UDP ASSOCIATE of SOCKS 5).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ForwardUdpOptions {
    /// Whether they are relayed.
    pub enabled: bool,
    /// The address of this machine that clients send datagrams to. By default the one that they reached by TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<IpAddr>,
    /// The port that clients send datagrams to, or a range of them as in `"20000-20100"`; 0 is whichever is free. All
    /// associations share a single port.
    pub ports: PortRange,
    /// The address that clients are told to send datagrams to, where that is another one, as behind NAT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<IpAddr>,
    /// How long an association may be without datagrams in either direction before it ends.
    pub idle_timeout: HumanDuration,
    /// The most associations at a time, of all clients together; each holds descriptors. 0 is no limit.
    pub max_associations: u32,
    /// The most associations at a time of one client address; 0 is no limit.
    pub max_per_client: u32,
}

/// How long clients may take. None of them can be turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ForwardTimeouts {
    /// From the connection to the end of what comes before the first wish to go somewhere: the PROXY header, the TLS
    /// handshake, the greeting and the password of SOCKS.
    pub preface: HumanDuration,
    /// From the first byte of a request of HTTP to the end of its head, and from the connection to that first byte. After
    /// that a client that has begun gets a 408.
    pub header: HumanDuration,
    /// How long no byte of a request's body may come while we wait for it. After that the client gets a 408.
    pub body: HumanDuration,
    /// How long a connection of HTTP may be without a request before it is closed.
    pub keepalive: HumanDuration,
    /// How long a client may take nothing of a response while there is some for it. After that the connection is cut off.
    pub write: HumanDuration,
}

impl ForwardOptions {
    /// The listener's settings with every default filled in, without what needs files and other tables: `tls`, `users`,
    /// `by_certificate`; the egress is the one that is named.
    pub fn spec(&self, name: Arc<str>) -> ForwardSpec {
        let speaks = |protocol| self.protocols.0.contains(&protocol);
        ForwardSpec {
            listener: self.http().spec(name, Arc::new([])),
            http: speaks(ForwardProtocol::Http),
            socks5: speaks(ForwardProtocol::Socks5),
            socks4: speaks(ForwardProtocol::Socks4),
            tls_optional: self.tls_optional,
            users: Vec::new(),
            by_certificate: false,
            realm: self.realm.as_str().into(),
            udp: self.udp.spec(),
            bind_command: self.bind_command,
            egress: self.egress.as_deref().unwrap_or(DEFAULT_EGRESS).into(),
            pac: self.pac,
            connect_timeout: self.connect_timeout.get(),
        }
    }

    /// The same keys of a listener of HTTP.
    fn http(&self) -> HttpOptions {
        HttpOptions {
            timeouts: HttpTimeouts {
                preface: self.timeouts.preface,
                header: self.timeouts.header,
                body: self.timeouts.body,
                keepalive: self.timeouts.keepalive,
                write: self.timeouts.write,
                upgrade: self.idle_timeout,
            },
            limits: self.limits,
            accept_proxy_protocol: self.accept_proxy_protocol.clone(),
            max_connections: self.max_connections,
            per_client_connections: self.per_client_connections,
            per_client_rate: self.per_client_rate,
            per_client_burst: self.per_client_burst,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            splice: self.splice,
            tcp_nodelay: self.tcp_nodelay,
            tcp_keepalive: self.tcp_keepalive.clone(),
            tcp_user_timeout: self.tcp_user_timeout,
            tcp_fast_open: self.tcp_fast_open,
            mptcp: self.mptcp,
            interface: self.interface.clone(),
            mark: self.mark,
            dscp: self.dscp,
            ..HttpOptions::default()
        }
    }
}

impl ForwardUdpOptions {
    fn spec(&self) -> UdpSpec {
        UdpSpec {
            enabled: self.enabled,
            bind: self.bind,
            ports: self.ports.get(),
            advertise: self.advertise,
            idle_timeout: self.idle_timeout.get(),
            max_associations: self.max_associations,
            max_per_client: self.max_per_client,
        }
    }
}

impl Default for ForwardOptions {
    fn default() -> Self {
        ForwardOptions {
            name: None,
            listen: None,
            protocols: OneOrMany(vec![
                ForwardProtocol::Http,
                ForwardProtocol::Socks5,
                ForwardProtocol::Socks4,
            ]),
            tls: None,
            tls_optional: false,
            users: BTreeMap::new(),
            users_file: None,
            realm: "wmproxy".to_owned(),
            open: false,
            egress: None,
            udp: ForwardUdpOptions::default(),
            bind_command: false,
            pac: false,
            // Two tries of TCP's first packet at several addresses, as most clients wait longer than that.
            connect_timeout: HumanDuration::from_secs(10),
            // As an idle layer-4 connection.
            idle_timeout: HumanDuration::from_secs(600),
            timeouts: ForwardTimeouts::default(),
            limits: HttpLimits::default(),
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
        }
    }
}

impl Default for ForwardUdpOptions {
    fn default() -> Self {
        ForwardUdpOptions {
            enabled: true,
            bind: None,
            ports: PortRange::FREE,
            advertise: None,
            // As an idle flow of UDP at layer 4.
            idle_timeout: HumanDuration::from_secs(60),
            // Half of what a listener of UDP holds at layer 4: an association has two sockets.
            max_associations: 8192,
            // A client needs one for each program; many clients behind one address are the exception.
            max_per_client: 256,
        }
    }
}

impl Default for ForwardTimeouts {
    fn default() -> Self {
        let common = HttpTimeouts::default();
        ForwardTimeouts {
            preface: common.preface,
            header: common.header,
            body: common.body,
            keepalive: common.keepalive,
            write: common.write,
        }
    }
}
