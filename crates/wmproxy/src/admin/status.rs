//! The answer to `GET /api/v1/status`. Fields are added to it, never renamed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use wmproxy_forward::users;
use wmproxy_net::record::ListenerMetrics;
use wmproxy_tunnel::client::ClientStatus;
use wmproxy_upstream::GroupStatus;

use super::tunnels::TunnelServerStatus;
use crate::observe::clock::rfc3339;
use crate::observe::metrics::{answer_errors, connect_errors, state_word};
use crate::observe::snapshot::Snapshot;

/// A running process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// RFC 3339, local time.
    pub(crate) started: String,
    pub(crate) uptime_seconds: u64,
    /// The config file; null for the embedded default and `wmproxy stream`.
    pub(crate) config: Option<String>,
    pub(crate) generation: u64,
    pub(crate) workers: usize,
    pub(crate) draining: bool,
    pub(crate) listeners: Vec<ListenerStatus>,
    pub(crate) upstreams: Vec<UpstreamStatus>,
    /// Of forward proxies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) users: Vec<UserStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_server: Option<TunnelServerStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_client: Option<ClientStatus>,
}

/// A user of forward proxies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserStatus {
    pub(crate) name: String,
    /// Tunnels and connections of clients that it has open.
    pub(crate) connections: u32,
    /// Associations of datagrams that it has open.
    pub(crate) associations: u32,
    /// Both ways together, since the process began.
    pub(crate) bytes: u64,
    /// Of users that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<QuotaStatus>,
}

/// What is left of a user's quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuotaStatus {
    /// The day or month that it is counted over, UTC: `2026-11-23` or `2026-11`.
    pub(crate) period: String,
    pub(crate) limit: u64,
    pub(crate) used: u64,
    pub(crate) left: u64,
}

/// A listener's figures since the process started. `in` is from the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerStatus {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) address: String,
    pub(crate) accepted: u64,
    pub(crate) active: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Of UDP listeners only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) datagrams_in: Option<u64>,
    /// Of UDP listeners only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) datagrams_out: Option<u64>,
}

/// An upstream group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct UpstreamStatus {
    pub(crate) name: String,
    pub(crate) balance: String,
    pub(crate) peers: Vec<PeerStatus>,
    /// Connections that wait for a peer that has room.
    #[serde(default)]
    pub(crate) queued: usize,
    /// Of groups whose connections are used for request after request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<ConnectionsStatus>,
    /// Host names of the group that have never been resolved.
    pub(crate) unresolved: Vec<String>,
}

/// The connections of an upstream group that are used for request after request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConnectionsStatus {
    /// That no request uses now.
    pub(crate) idle: usize,
    /// Requests that got one that was idle.
    pub(crate) reused: u64,
    pub(crate) opened: u64,
    /// Idle ones that the peer had closed before they were wanted.
    pub(crate) stale: u64,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerStatus {
    pub(crate) address: String,
    /// `up`, `ejected`, `trial` (one connection decides whether it is up again), `unhealthy`, `draining` (only for clients
    /// that stay with it) or `down`.
    pub(crate) state: String,
    pub(crate) backup: bool,
    pub(crate) weight: u32,
    /// 0 is no limit.
    pub(crate) max_connections: u32,
    pub(crate) in_flight: u32,
    /// Connections and flows that it ever got.
    pub(crate) leases: u64,
    /// By kind.
    pub(crate) connect_errors: BTreeMap<String, u64>,
    /// Requests that it did not answer as it should, by kind.
    #[serde(default)]
    pub(crate) answer_errors: BTreeMap<String, u64>,
    pub(crate) ejections: u64,
    /// 0 when it is not ejected.
    pub(crate) ejected_for_ms: u64,
    /// The moving average; null before the first.
    pub(crate) connect_time_ms: Option<f64>,
    /// The moving average that `peak_ewma` goes by, of groups that are balanced so; null before the first.
    #[serde(default)]
    pub(crate) latency_ms: Option<f64>,
    /// Which share of its weight counts now: less than 100 during its slow start.
    #[serde(default = "all")]
    pub(crate) share_percent: u32,
    /// Of groups with health checks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<HealthStatus>,
}

/// What health checks say about a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HealthStatus {
    /// `unknown`, `up` or `down`.
    pub(crate) state: String,
    /// How long it has been so; null when nothing is known.
    pub(crate) for_ms: Option<u64>,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Checks that this machine could not do; they say nothing about the peer.
    pub(crate) skipped: u64,
    /// Null before the first.
    pub(crate) last: Option<LastCheckStatus>,
}

/// The last health check of a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LastCheckStatus {
    /// `passed`, `failed` or `skipped`.
    pub(crate) result: String,
    /// Why it did not pass.
    pub(crate) reason: Option<String>,
    pub(crate) ago_ms: u64,
    pub(crate) took_ms: f64,
}

fn all() -> u32 {
    100
}

impl Status {
    /// What a snapshot shows at `now`.
    pub(crate) fn of(snapshot: &Snapshot, now: SystemTime) -> Status {
        let server = snapshot.tunnels.server.as_ref();
        let uptime = now.duration_since(snapshot.started).unwrap_or(Duration::ZERO);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: rfc3339(snapshot.started),
            uptime_seconds: uptime.as_secs(),
            config: snapshot.config.as_ref().map(|path| path.display().to_string()),
            generation: snapshot.generation,
            workers: snapshot.workers,
            draining: snapshot.draining,
            listeners: listeners(snapshot),
            upstreams: snapshot.groups.iter().map(upstream).collect(),
            users: snapshot.users.iter().map(user).collect(),
            tunnel_server: server.map(|server| TunnelServerStatus::of(server, snapshot)),
            tunnel_client: snapshot.tunnels.client.clone(),
        }
    }
}

fn listeners(snapshot: &Snapshot) -> Vec<ListenerStatus> {
    let mut all: Vec<ListenerStatus> = Vec::new();
    for one in snapshot.listeners.iter().map(|listener| listener_status(listener)) {
        match all.iter_mut().find(|known| known.is_same(&one)) {
            // An older generation's that still drains.
            Some(known) => known.add(&one),
            None => all.push(one),
        }
    }
    all
}

fn listener_status(listener: &ListenerMetrics) -> ListenerStatus {
    let blocks = &listener.blocks;
    let udp = listener.has_datagrams();
    ListenerStatus {
        name: listener.name.to_string(),
        protocol: listener.protocol.to_string(),
        address: listener.address.to_string(),
        active: listener.active(),
        accepted: blocks.sum(|b| &b.accepted),
        bytes_in: blocks.sum(|b| &b.bytes_in),
        bytes_out: blocks.sum(|b| &b.bytes_out),
        datagrams_in: udp.then(|| blocks.sum(|b| &b.datagrams_in)),
        datagrams_out: udp.then(|| blocks.sum(|b| &b.datagrams_out)),
    }
}

impl ListenerStatus {
    fn is_same(&self, other: &ListenerStatus) -> bool {
        (&self.name, &self.protocol, &self.address) == (&other.name, &other.protocol, &other.address)
    }

    fn add(&mut self, other: &ListenerStatus) {
        let both = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a + b);
        self.accepted += other.accepted;
        self.active += other.active;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.datagrams_in = both(self.datagrams_in, other.datagrams_in);
        self.datagrams_out = both(self.datagrams_out, other.datagrams_out);
    }
}

fn user(user: &users::UserStatus) -> UserStatus {
    UserStatus {
        name: user.name.clone(),
        connections: user.connections,
        associations: user.associations,
        bytes: user.bytes,
        quota: user.quota.as_ref().map(|quota| QuotaStatus {
            period: quota.period.clone(),
            limit: quota.limit,
            used: quota.used,
            left: quota.left,
        }),
    }
}

fn upstream(group: &GroupStatus) -> UpstreamStatus {
    let peers = group.peers.iter().map(|peer| PeerStatus {
        address: peer.address.clone(),
        state: state_word(peer.state).into(),
        backup: peer.backup,
        weight: peer.weight,
        max_connections: peer.max_connections,
        in_flight: peer.in_flight,
        leases: peer.leases,
        connect_errors: connect_errors(peer).map(|(kind, n)| (kind.to_owned(), n)).into(),
        answer_errors: answer_errors(peer).map(|(kind, n)| (kind.to_owned(), n)).into(),
        ejections: peer.ejections,
        ejected_for_ms: peer.ejected_for_ms,
        connect_time_ms: peer.connect_time_ms,
        latency_ms: peer.latency_ms,
        share_percent: peer.share_percent,
        health: peer.health.as_ref().map(health),
    });
    UpstreamStatus {
        name: group.name.clone(),
        balance: group.balance.into(),
        peers: peers.collect(),
        queued: group.queued,
        connections: group.connections.map(|c| ConnectionsStatus {
            idle: c.idle,
            reused: c.reused,
            opened: c.opened,
            stale: c.stale,
        }),
        unresolved: group.unresolved.clone(),
    }
}

fn health(health: &wmproxy_upstream::status::HealthStatus) -> HealthStatus {
    let last = health.last.as_ref().map(|last| LastCheckStatus {
        result: last.result.into(),
        reason: last.reason.clone(),
        ago_ms: last.ago_ms,
        took_ms: last.took_ms,
    });
    HealthStatus {
        state: health.state.as_str().into(),
        for_ms: health.for_ms,
        passed: health.passed,
        failed: health.failed,
        skipped: health.skipped,
        last,
    }
}
