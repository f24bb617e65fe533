//! The keys of `[[tunnel_client.service]]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_net::acl::Prefix;
use wmproxy_net::addr::AddressSpec;
use wmproxy_net::options::OneOrMany;
use wmproxy_net::preface::ProxyVersion;
use wmproxy_wire::tunnel::message::{HttpRules, Kind};
use wmproxy_wire::units::{ByteRate, HumanDuration, Secret};

/// A service that is offered on the tunnel server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, bound(deserialize = "HEALTH: Deserialize<'de>"))]
#[schemars(rename = "TunnelService")]
pub struct ServiceOptions<HEALTH> {
    /// Its name, once for each client: the service is `CLIENT/NAME` in logs, and to who visits it if it is private.
    #[schemars(required)]
    pub name: String,
    /// What it is: `tcp`, connections; `udp`, datagrams; `http`, requests for `hosts`; `https`, TLS connections for `hosts`,
    /// passed through to the service as they are; `proxy`, a forward proxy (HTTP, CONNECT and SOCKS) that leads into the
    /// client's network.
    #[serde(rename = "type")]
    pub kind: ServiceKind,
    /// Where the service is reached from here, as in `"127.0.0.1:22"`, `"nas.lan:80"` or `"unix:/run/app.sock"`. Required, but
    /// for `proxy`, which has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<AddressSpec>,
    /// `tcp`, `udp` and `proxy`: the server's port; `0` picks one of those that the client is granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `http` and `https`: the hosts that visitors ask for, names or `"*.example.com"` for every name below one.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub hosts: OneOrMany<String>,
    /// `http`: the beginnings of the paths that lead here, as in `["/api/"]`. By default every path; the longest one goes
    /// first.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub paths: OneOrMany<String>,
    /// Makes the service private: it has no port and no host on the server, and only other clients that know this secret
    /// reach it, with a `visitor`. Both ends prove it to each other; the server never learns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A file to read `secret` from; one newline at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
    /// The clients that may visit it, if it is private. By default any that know the secret.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub clients: OneOrMany<String>,
    /// Who may come: addresses and prefixes, judged by the server. By default everybody.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub visitors: OneOrMany<Prefix>,
    /// Tells the service who the visitor is, by a PROXY header before the data: `v1`, or `v2`. Only for services that
    /// expect it; not for `http`, where `X-Forwarded-For` says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_proxy_protocol: Option<ProxyVersion>,
    /// Services with the same group, type and port or host share the load, of this client and of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The most visitors at a time; `0` is no limit.
    pub max_connections: u32,
    /// How fast bytes pass, of all visitors together: `up` from them, `down` to them, as in
    /// `{ up = "4m/s", down = "10m/s" }`. By default there is no limit.
    #[serde(skip_serializing_if = "ServiceRates::is_off")]
    pub rate_limit: ServiceRates,
    /// How long a visitor may be without traffic before it ends, here: by default `10m`, and `60s` for `udp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<HumanDuration>,
    /// How long connecting to the service may take.
    pub connect_timeout: HumanDuration,
    /// Checks from here whether the service is well, as `health` of `[upstream]` does. While it is not, the server lets
    /// others of its `group` serve, and refuses visitors if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HEALTH>,
    /// `http` and `proxy`: who may come, by name; whoever does has to say a name and its password.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, ServiceUser>,
    /// `http`: changes of the fields of requests on their way to the service.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// `http`: changes of the fields of its answers.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
    /// `http`: the host that the service sees, instead of the one that the visitor asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_header: Option<String>,
    /// `http`: the service speaks HTTP/2 without TLS (h2c).
    pub http2: bool,
    /// `https`: the server ends TLS, with its own `tls` certificates, and serves requests as for `http`; the service gets
    /// plain HTTP.
    pub terminate: bool,
    /// `proxy`: where its clients may go, one of `[egress.NAME]`. The default one lets nobody into private networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// `proxy`: lets everybody use it who reaches its port, without `users`, `visitors` or a `secret`.
    pub open: bool,
}

/// A user of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TunnelUser")]
pub struct ServiceUser {
    /// The hash of the password, as `wmproxy hash-password` makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub password: Option<Secret>,
    /// A file to read `password` from; one newline at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
}

/// What a service is, as it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "TunnelServiceKind")]
pub enum ServiceKind {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
    /// Requests, by host and path.
    Http,
    /// TLS, by server name.
    Https,
    /// A forward proxy.
    Proxy,
}

/// How fast the bytes of a service pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TunnelRates")]
pub struct ServiceRates {
    /// From visitors, in bytes a second, as in `"4m/s"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<ByteRate>,
    /// To visitors, in bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<ByteRate>,
}

/// Changes of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TunnelHeaders")]
pub struct HeaderChanges {
    /// Fields that have this value then, and no other; variables in it, as in `"{client_ip}"`, are those of `[[http]]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Fields to take out.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub remove: OneOrMany<String>,
}

impl ServiceKind {
    /// As the protocol has it.
    pub fn kind(self) -> Kind {
        match self {
            ServiceKind::Tcp => Kind::Tcp,
            ServiceKind::Udp => Kind::Udp,
            ServiceKind::Http => Kind::Http,
            ServiceKind::Https => Kind::Https,
            ServiceKind::Proxy => Kind::Proxy,
        }
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        self.kind().as_str()
    }

    /// Whether visitors ask for a host, rather than come to a port.
    pub fn has_hosts(self) -> bool {
        matches!(self, ServiceKind::Http | ServiceKind::Https)
    }
}

impl ServiceRates {
    /// Whether they limit nothing.
    pub fn is_off(&self) -> bool {
        *self == ServiceRates::default()
    }
}

impl HeaderChanges {
    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        *self == HeaderChanges::default()
    }
}

impl<HEALTH> ServiceOptions<HEALTH> {
    /// Whether only visitors with a secret reach it.
    pub fn is_private(&self) -> bool {
        self.secret.is_some() || self.secret_file.is_some()
    }

    /// What the server does to its requests and answers. `users` are names with the hashes of passwords.
    pub fn http_rules(&self, users: &[(String, Secret)]) -> HttpRules {
        let pairs = |map: &BTreeMap<String, String>| map.clone().into_iter().collect();
        let hash = |(name, hash): &(String, Secret)| (name.clone(), hash.expose().to_owned());
        HttpRules {
            users: users.iter().map(hash).collect(),
            host: self.host_header.clone(),
            set_request: pairs(&self.request_headers.set),
            remove_request: self.request_headers.remove.0.clone(),
            set_response: pairs(&self.response_headers.set),
            remove_response: self.response_headers.remove.0.clone(),
            is_h2c: self.http2,
        }
    }
}

impl<HEALTH> Default for ServiceOptions<HEALTH> {
    fn default() -> Self {
        ServiceOptions {
            name: String::new(),
            kind: ServiceKind::Tcp,
            local: None,
            port: None,
            hosts: OneOrMany::default(),
            paths: OneOrMany::default(),
            secret: None,
            secret_file: None,
            clients: OneOrMany::default(),
            visitors: OneOrMany::default(),
            send_proxy_protocol: None,
            group: None,
            max_connections: 0,
            rate_limit: ServiceRates::default(),
            idle_timeout: None,
            connect_timeout: HumanDuration::from_secs(5),
            health_check: None,
            users: BTreeMap::new(),
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            host_header: None,
            http2: false,
            terminate: false,
            egress: None,
            open: false,
        }
    }
}
