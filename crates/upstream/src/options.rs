//! The options of an upstream group, and what they come to once they are checked.

mod keepalive;
mod queue;
mod server;
mod spec;
mod sticky;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_net::addr::{Address, TargetSpec};
use wmproxy_net::preface::ProxyVersion;
use wmproxy_net::sockopt::{Dscp, Interface, PeerSocket, Source, Way};
use wmproxy_net::tls::PeerTls;
use wmproxy_wire::units::HumanDuration;

use crate::balance::{Balance, HashKey};
use crate::health::{Beginning, HealthOptions, HealthSpec, Kind, Statuses};
pub use keepalive::{KeepaliveOptions, KeepaliveSpec};
pub use queue::{QueueOptions, QueueSpec};
pub use server::ServerOptions;
pub use spec::{GroupSpec, ServerSpec};
pub use sticky::{SameSite, StickyOptions, StickySpec};

/// The most servers of one group, port ranges counted out. Most balancers look at each of them, which for a thousand
/// takes 8 to 24 microseconds a connection (see `balance/costs.rs`).
const MAX_SERVERS: usize = 4096;

/// The most failures that can be asked for: each peer remembers when its last ones happened.
const MAX_FAILS: u32 = 1000;

const CONNECT_TIMEOUT: HumanDuration = HumanDuration::from_secs(5);
const RETRIES: u32 = 1;
const MAX_FAILS_DEFAULT: u32 = 1;
const FAIL_TIMEOUT: HumanDuration = HumanDuration::from_secs(10);
const SLOW_START: HumanDuration = HumanDuration::from_secs(0);

/// A group of servers that connections are spread over.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupOptions {
    /// The servers, each `"host:port"`, `"host:first-last"`, `"unix:/path"` or a table. A host name is resolved
    /// again whenever its answer expires, and all its addresses are used. Required.
    #[schemars(length(min = 1))]
    pub servers: Vec<ServerOptions>,
    /// How connections are spread: `round_robin` (by weight, evenly interleaved), `least_connections` (the
    /// fewest for the weight), `random_two` (the less busy of two at random), `peak_ewma` (of two at random the one that
    /// answers sooner, its connections counted), `hash` (a client keeps its server; when servers come and go, only their
    /// own clients move) or `maglev` (like `hash` with exact shares, at the price of some more clients that move).
    /// Default `round_robin`.
    pub balance: Method,
    /// What `hash` and `maglev` go by: `client_ip`, `client_addr` (address and port), `sni` (the server name that the
    /// client asks for in TLS or QUIC), `quic_cid` (the connection id that a QUIC client begins with) or, of a request of
    /// HTTP, `path`, `header:NAME`, `cookie:NAME` or `query:NAME`. Who did not send it goes by `client_ip`. Only with
    /// these two balancers, and then by default `client_ip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_key: Option<HashKey>,
    /// Tells the servers who the client is, by a PROXY header before the data: `v1`, a line of text, or `v2`, which
    /// also passes on the server name and what came in a header of that version. Only for servers that expect it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_proxy_protocol: Option<ProxyVersion>,
    /// Talks to the servers by TLS: `true`, or a table with more. What they prove to be is verified, and nothing is ever
    /// sent in the clear instead. Default `false`.
    pub tls: PeerTls,
    /// The chain, one of `[chain.NAME]`, through whose proxies connections to the servers go, health checks included. Names
    /// of servers are resolved by the last proxy of it. Not for UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// How long connecting to one server may take, its TLS handshake and the way through a chain included. Default `"5s"`.
    pub connect_timeout: HumanDuration,
    /// How many other servers are tried when one can't be connected to. Default `1`.
    pub retries: u32,
    /// So many failures within `fail_timeout` eject a server; `0` never does. A failure is that it can't be connected to
    /// and, for requests of HTTP, that no answer comes in time, that what comes is none, or that its status is one of
    /// `fail_status`. Default `1`.
    pub max_fails: u32,
    /// The statuses of answers that count as failures of the server, like `"502-504"`. Clients get these answers all the
    /// same. With it `max_fails` should be more than `1`. By default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_status: Option<Statuses>,
    /// Within which time `max_fails` failures eject a server, and for how long. Then one connection tries it;
    /// each time that fails the ejection lasts twice as long as before, up to 5 minutes. When all servers are
    /// ejected, all are tried nonetheless. Default `"10s"`.
    pub fail_timeout: HumanDuration,
    /// Where connections wait for a server that has room, first come first served, when all have their
    /// `max_connections`. Without it they are refused at once. UDP flows never wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueOptions>,
    /// Which connections to the servers are kept for the next request of HTTP. None are where a connection speaks for
    /// one client: with `send_proxy_protocol` or `source = "client"`.
    pub keepalive: KeepaliveOptions,
    /// How long it takes until a server that was ejected or down, or was added by a reload or by DNS, has its full share
    /// of new connections again. It begins with a tenth. Default `"0s"`, at once.
    pub slow_start: HumanDuration,
    /// Keeps each client of HTTP with the server that it had first, by a cookie. New clients go where `balance` says, and
    /// so do those whose server is ejected, down or full, which then stay with the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyOptions>,
    /// Health checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthOptions>,
    /// The address that the servers see: one of this machine like `"10.0.0.5"`, or `client` for the client's own
    /// with another port, which needs CAP_NET_RAW or CAP_NET_ADMIN and a route back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The network device that connections to the servers leave through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    /// The mark of packets to the servers, for this machine's rules of routing and filtering (SO_MARK); `0` is
    /// none. Needs CAP_NET_ADMIN. Default `0`.
    pub mark: u32,
    /// The class of service of packets to the servers: a number from 0 to 63, or a name like `ef` or `af41`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
    /// Sends the first data with the first packet (TCP Fast Open, RFC 7413), once a server has given out a cookie.
    /// Only for protocols in which the client speaks first and a repeated first request does no harm: a server
    /// that is down is then noticed too late to try another one. Default `false`.
    pub tcp_fast_open: bool,
    /// Uses several paths to a server for one connection where it wants that, too (Multipath TCP, RFC 8684).
    /// Default `false`.
    pub mptcp: bool,
}

impl Default for GroupOptions {
    fn default() -> Self {
        GroupOptions {
            servers: vec![],
            balance: Method::default(),
            hash_key: None,
            send_proxy_protocol: None,
            tls: PeerTls::default(),
            via: None,
            connect_timeout: CONNECT_TIMEOUT,
            retries: RETRIES,
            max_fails: MAX_FAILS_DEFAULT,
            fail_status: None,
            fail_timeout: FAIL_TIMEOUT,
            queue: None,
            keepalive: KeepaliveOptions::default(),
            slow_start: SLOW_START,
            sticky: None,
            health: None,
            source: None,
            interface: None,
            mark: 0,
            dscp: None,
            tcp_fast_open: false,
            mptcp: false,
        }
    }
}

/// The names of the balancers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// By weight, evenly interleaved.
    #[default]
    RoundRobin,
    /// The fewest connections for the weight.
    LeastConnections,
    /// The less busy of two at random.
    RandomTwo,
    /// The sooner to answer of two at random.
    PeakEwma,
    /// By a consistent hash of `hash_key`.
    Hash,
    /// By a table made from a hash of `hash_key`.
    Maglev,
}

impl GroupOptions {
    /// Checks what the types alone can't.
    ///
    /// # Errors
    /// Every problem, each with its place below the group, such as `servers[1].weight`, and what would be right.
    pub fn spec(&self, name: &str) -> Result<GroupSpec, Vec<(String, String)>> {
        let mut problems = Problems::default();
        let servers = self.check_servers(&mut problems);
        let balance = match (self.balance, self.hash_key.clone()) {
            (Method::Hash, key) => Balance::Hash(key.unwrap_or(HashKey::ClientIp)),
            (Method::Maglev, key) => Balance::Maglev(key.unwrap_or(HashKey::ClientIp)),
            (_, Some(_)) => {
                let hint = "add one of them or remove this";
                problems.add(
                    "hash_key",
                    format!("has no effect without balance = \"hash\" or \"maglev\"; {hint}"),
                );
                Balance::RoundRobin
            }
            (Method::RoundRobin, None) => Balance::RoundRobin,
            (Method::LeastConnections, None) => Balance::LeastConnections,
            (Method::RandomTwo, None) => Balance::RandomTwo,
            (Method::PeakEwma, None) => Balance::PeakEwma,
        };
        if self.connect_timeout.is_zero() {
            problems.add("connect_timeout", "no server connects in no time; the default is \"5s\"");
        }
        if self.fail_timeout.is_zero() {
            problems.add("fail_timeout", "must be more than 0; to never eject a server, say max_fails = 0");
        }
        if self.max_fails > MAX_FAILS {
            problems.add("max_fails", format!("at most {MAX_FAILS}; 0 never ejects a server"));
        }
        let health = self.check_health(&servers, &mut problems);
        self.check_via(&servers, &mut problems);
        let spec = GroupSpec {
            name: name.into(),
            servers,
            balance,
            send_proxy_protocol: self.send_proxy_protocol,
            tls: None,
            via: self.via.as_deref().map(Arc::from),
            connect_timeout: self.connect_timeout.get(),
            retries: self.retries,
            max_fails: self.max_fails,
            fail_status: self.fail_status.clone(),
            fail_timeout: self.fail_timeout.get(),
            queue: self.queue.map(|queue| queue.check(&self.servers, &mut problems)),
            keepalive: self.keepalive.check(&mut problems),
            slow_start: self.slow_start.get(),
            sticky: self.sticky.as_ref().map(|sticky| sticky.check(&mut problems)),
            health,
            socket: self.socket(),
        };
        if let (Some(from), Some(target)) = (self.source, spec.unreachable_from(self.source)) {
            problems.add(
                "source",
                format!("{from} and {target} are of two families, so one can't reach the other"),
            );
        }
        if problems.0.is_empty() { Ok(spec) } else { Err(problems.0) }
    }

    fn socket(&self) -> PeerSocket {
        PeerSocket {
            way: Way { interface: self.interface.clone(), mark: self.mark, dscp: self.dscp },
            source: self.source,
            fast_open: self.tcp_fast_open,
            mptcp: self.mptcp,
            ..PeerSocket::default()
        }
    }

    /// Refuses what can't pass through proxies.
    fn check_via(&self, servers: &[ServerSpec], problems: &mut Problems) {
        if self.via.is_none() {
            return;
        }
        let is_unix = |target: &&TargetSpec| matches!(target, TargetSpec::Address(Address::Unix(_)));
        if let Some(unix) = servers.iter().map(|server| &server.target).find(is_unix) {
            problems.add("via", format!("{unix} is on this machine, where no proxy leads to"));
        }
        if self.health.as_ref().is_some_and(|health| health.kind == Kind::Udp) {
            problems.add("health.type", "datagrams do not pass through `via`; it may be \"tcp\" or \"http\"");
        }
        let sockets = [
            ("source", self.source.is_some()),
            ("interface", self.interface.is_some()),
            ("mark", self.mark != 0),
            ("dscp", self.dscp.is_some()),
            ("tcp_fast_open", self.tcp_fast_open),
            ("mptcp", self.mptcp),
        ];
        for (key, _) in sockets.into_iter().filter(|(_, is_set)| *is_set) {
            problems.add(key, "has no effect with `via`: connections are those of the chain's proxies");
        }
    }

    fn check_health(&self, servers: &[ServerSpec], problems: &mut Problems) -> Option<HealthSpec> {
        let targets = servers.iter().map(|server| &server.target);
        let beginning = Beginning { tls: self.tls != PeerTls::Off, proxy: self.send_proxy_protocol };
        match self.health.as_ref()?.spec(targets, beginning) {
            Ok(spec) => Some(spec),
            Err(found) => {
                found.into_iter().for_each(|(key, message)| problems.add(format!("health.{key}"), message));
                None
            }
        }
    }

    fn check_servers(&self, problems: &mut Problems) -> Vec<ServerSpec> {
        if self.servers.is_empty() {
            problems.add("servers", "at least one server is needed, such as servers = [\"10.0.0.1:80\"]");
        } else if self.servers.iter().all(|server| server.backup) {
            problems.add("servers", "every server is a backup; at least one must not be");
        }
        let count = self.servers.iter().fold(0, |sum: usize, s| sum.saturating_add(s.address.count()));
        if count > MAX_SERVERS {
            problems
                .add("servers", format!("these are {count} servers; at most {MAX_SERVERS} fit in a group"));
            return vec![];
        }
        let mut seen = HashMap::new();
        let mut specs = vec![];
        for (i, server) in self.servers.iter().enumerate() {
            let place = |field: &str| server.place(i, field);
            if server.weight == 0 {
                problems
                    .add(place("weight"), "must be from 1 to 65535; to take a server out, say down = true");
            } else if server.weight > u32::from(u16::MAX) {
                problems.add(place("weight"), "must be from 1 to 65535");
            }
            let targets = match TargetSpec::expand(&server.address) {
                Ok(targets) => targets,
                Err(error) => {
                    problems.add(place("address"), error.to_string());
                    continue;
                }
            };
            let twice = targets.iter().find_map(|target| Some((target, *seen.get(target)?)));
            if let Some((target, first)) = twice {
                let hint = "say it once, with a higher weight if it should get more";
                problems.add(place("address"), format!("{target} is already in servers[{first}]; {hint}"));
            }
            seen.extend(targets.iter().cloned().map(|target| (target, i)));
            specs.extend(targets.into_iter().map(|target| ServerSpec {
                target,
                weight: server.weight,
                max_connections: server.max_connections,
                backup: server.backup,
                down: server.down,
                drain: server.drain,
            }));
        }
        specs
    }
}

#[derive(Default)]
struct Problems(Vec<(String, String)>);

impl Problems {
    fn add(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.0.push((place.into(), message.into()));
    }
}
