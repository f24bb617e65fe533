//! A group as it is built.

use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::addr::{Address, TargetSpec};
use wmproxy_net::preface::ProxyVersion;
use wmproxy_net::sockopt::{PeerSocket, Source};
use wmproxy_net::tls::ConnectorSpec;

use super::{
    CONNECT_TIMEOUT, FAIL_TIMEOUT, KeepaliveSpec, MAX_FAILS_DEFAULT, QueueSpec, RETRIES, SLOW_START,
    StickySpec,
};
use crate::balance::Balance;
use crate::health::{HealthSpec, ProbeSpec, Statuses};
use crate::peer::EjectPolicy;

/// A group as it is built: every value checked, port ranges counted out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    /// Its name in logs, metrics and the status; with an address, what the state of a peer is kept under.
    pub name: Arc<str>,
    /// The servers in the order of the config.
    pub servers: Vec<ServerSpec>,
    /// How connections are spread.
    pub balance: Balance,
    /// The PROXY header that peers get first, if they do.
    pub send_proxy_protocol: Option<ProxyVersion>,
    /// How its peers are talked to by TLS, if they are. The config's reader sets it: it knows where files lie.
    pub tls: Option<ConnectorSpec>,
    /// The chain of proxies that its peers are behind, if they are. Then their names are not resolved here.
    pub via: Option<Arc<str>>,
    /// How long one attempt to connect may take, a TLS handshake and the way through proxies included.
    pub connect_timeout: Duration,
    /// How many other peers are tried after the first.
    pub retries: u32,
    /// How many failures eject a peer; 0 for never.
    pub max_fails: u32,
    /// The statuses of answers that are failures, if any are.
    pub fail_status: Option<Statuses>,
    /// Within how long they eject it, and for how long at first.
    pub fail_timeout: Duration,
    /// Where connections wait for a peer that has room, if they do.
    pub queue: Option<QueueSpec>,
    /// Which idle connections are kept.
    pub keepalive: KeepaliveSpec,
    /// How long a peer that comes back takes to get its full share; zero for at once.
    pub slow_start: Duration,
    /// The cookie by which clients stay with their peers, if they do.
    pub sticky: Option<StickySpec>,
    /// How the health of its peers is checked, if it is.
    pub health: Option<HealthSpec>,
    /// What is set on the sockets towards its peers; what is special to TCP the listener adds.
    pub socket: PeerSocket,
}

/// One server of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// Where it is.
    pub target: TargetSpec,
    /// Its share, from 1 to 65535.
    pub weight: u32,
    /// The most connections on each of its addresses; 0 for no limit.
    pub max_connections: u32,
    /// Used only while no other server can be.
    pub backup: bool,
    /// Not used at all.
    pub down: bool,
    /// Used only for clients that stay with it.
    pub drain: bool,
}

impl ServerSpec {
    /// A server with the defaults.
    pub fn new(target: TargetSpec) -> ServerSpec {
        ServerSpec { target, weight: 1, max_connections: 0, backup: false, down: false, drain: false }
    }
}

impl GroupSpec {
    /// The group of targets that a listener names directly, with the defaults. `name` must not be that of
    /// an upstream, or the two would share what is known of peers with the same address.
    pub fn inline(name: impl Into<Arc<str>>, targets: Vec<TargetSpec>) -> GroupSpec {
        GroupSpec {
            name: name.into(),
            servers: targets.into_iter().map(ServerSpec::new).collect(),
            balance: Balance::RoundRobin,
            send_proxy_protocol: None,
            tls: None,
            via: None,
            connect_timeout: CONNECT_TIMEOUT.get(),
            retries: RETRIES,
            max_fails: MAX_FAILS_DEFAULT,
            fail_status: None,
            fail_timeout: FAIL_TIMEOUT.get(),
            queue: None,
            keepalive: KeepaliveSpec::default(),
            slow_start: SLOW_START.get(),
            sticky: None,
            health: None,
            socket: PeerSocket::default(),
        }
    }

    /// The same by TLS, as a URL like `https://host` asks for: the servers have to prove that they are `host`, a name or
    /// an IP address without brackets, by a certificate that the system trusts. `alpn` is what is offered to them.
    pub fn inline_by_tls(
        name: impl Into<Arc<str>>,
        targets: Vec<TargetSpec>,
        host: &str,
        alpn: &[&str],
    ) -> GroupSpec {
        let tls = ConnectorSpec {
            server_name: Some(host.to_owned()),
            alpn: alpn.iter().map(|protocol| (*protocol).to_owned()).collect(),
            ..ConnectorSpec::default()
        };
        GroupSpec { tls: Some(tls), ..GroupSpec::inline(name, targets) }
    }

    /// A server that no connection from `source` can ever reach, because it is IPv4 and the other IPv6.
    pub fn unreachable_from(&self, source: Option<Source>) -> Option<&TargetSpec> {
        let Some(Source::Address(ip)) = source else { return None };
        self.servers.iter().map(|server| &server.target).find(|target| match target {
            TargetSpec::Address(Address::Inet(address)) => address.is_ipv4() != ip.is_ipv4(),
            _ => false,
        })
    }

    /// Whether an answer of this status is a failure of its peer, to be told by
    /// [`Lease::failed`](crate::Lease::failed).
    pub fn is_failure(&self, status: u16) -> bool {
        self.fail_status.as_ref().is_some_and(|statuses| statuses.contains(status))
    }

    /// How health checks do TLS, if they do: like connections, but that they offer no protocol which HTTP checks can't
    /// speak.
    pub fn check_tls(&self) -> Option<ConnectorSpec> {
        let health = self.health.as_ref().filter(|health| health.tls)?;
        let mut tls = self.tls.clone()?;
        if matches!(health.probe, ProbeSpec::Http(_)) && !tls.alpn.is_empty() {
            tls.alpn = vec!["http/1.1".to_owned()];
        }
        Some(tls)
    }

    pub(crate) fn eject_policy(&self) -> EjectPolicy {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        EjectPolicy {
            max_fails: self.max_fails,
            fail_timeout_ms: millis(self.fail_timeout),
            // A trial that takes its whole connect timeout must not be joined by others.
            trial_ms: millis(self.fail_timeout.max(self.connect_timeout)),
        }
    }
}
