//! What a group looks like from outside.

use std::sync::Arc;

use serde::Serialize;

use crate::balance::Balance;
use crate::group::Group;
use crate::health::{CheckResult, Health};
use crate::peer::{FailKind, Gate, Peer};
use crate::set::Slot;

/// A group at one moment, for the status.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// How connections are spread.
    pub balance: &'static str,
    /// Its peers in the order of the config.
    pub peers: Vec<PeerStatus>,
    /// How many connections wait for a peer that has room.
    pub queued: usize,
    /// What becomes of connections that are used for request after request; none where no request ever went.
    pub connections: Option<ConnectionsStatus>,
    /// The names that have never been resolved.
    pub unresolved: Vec<String>,
}

/// The connections of a group that are used for request after request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConnectionsStatus {
    /// How many are idle now.
    pub idle: usize,
    /// How many requests got one that was idle.
    pub reused: u64,
    /// How many were made.
    pub opened: u64,
    /// How many idle ones the peer had closed, or said something on, before they were wanted.
    pub stale: u64,
}

/// A peer at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Where it is.
    pub address: String,
    /// Its share.
    pub weight: u32,
    /// The most connections; 0 for no limit.
    pub max_connections: u32,
    /// Whether it is used only while no other can be.
    pub backup: bool,
    /// Whether it is used.
    pub state: PeerState,
    /// Connections and flows that hold it now.
    pub in_flight: u32,
    /// Connections and flows that ever held it.
    pub leases: u64,
    /// Failures by kind.
    pub connect_errors: ConnectErrors,
    /// Failures to answer requests, by kind.
    pub answer_errors: AnswerErrors,
    /// How often it was ejected.
    pub ejections: u64,
    /// How many milliseconds it still is ejected; 0 when it is not.
    pub ejected_for_ms: u64,
    /// The moving average of how long connecting takes, in milliseconds; none before the first.
    pub connect_time_ms: Option<f64>,
    /// The peak EWMA of how long it takes to connect or to answer, in milliseconds; none before the first, and in a group
    /// that is not balanced by it.
    pub latency_ms: Option<f64>,
    /// Which share of its weight counts now, in percent: less than 100 during its slow start.
    pub share_percent: u32,
    /// What its health checks say; none in a group without any.
    pub health: Option<HealthStatus>,
}

/// Whether a peer is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// As its weight says.
    Up,
    /// Not until its ejection is over, unless there is no other.
    Ejected,
    /// Its ejection is over, and one connection decides about it.
    Trial,
    /// Not until its health checks hold it for up.
    Unhealthy,
    /// For clients that stay with it only, by the config.
    Drain,
    /// Not at all, by the config.
    Down,
}

/// What health checks say about a peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HealthStatus {
    /// Whether it is well.
    pub state: Health,
    /// How many milliseconds it has been so; none when nothing is known.
    pub for_ms: Option<u64>,
    /// How many checks passed.
    pub passed: u64,
    /// How many failed.
    pub failed: u64,
    /// How many this machine could not do.
    pub skipped: u64,
    /// The last one; none before the first.
    pub last: Option<LastCheckStatus>,
}

/// The last health check of a peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastCheckStatus {
    /// `passed`, `failed` or `skipped`.
    pub result: &'static str,
    /// Why it did not pass.
    pub reason: Option<String>,
    /// How many milliseconds ago it ended.
    pub ago_ms: u64,
    /// How many milliseconds it took.
    pub took_ms: f64,
}

impl HealthStatus {
    fn of(peer: &Peer, now: u64) -> HealthStatus {
        let checks = peer.checks();
        let [passed, failed, skipped] = checks.counts();
        let last = checks.last().map(|last| {
            let (result, reason) = match last.result {
                CheckResult::Passed => ("passed", None),
                CheckResult::Failed(reason) => ("failed", Some(reason)),
                CheckResult::Skipped(reason) => ("skipped", Some(reason)),
            };
            let took_ms = last.took.as_secs_f64() * 1000.0;
            LastCheckStatus { result, reason, ago_ms: now.saturating_sub(last.at_ms), took_ms }
        });
        let for_ms = checks.since().map(|since| now.saturating_sub(since));
        HealthStatus { state: checks.health(), for_ms, passed, failed, skipped, last }
    }
}

/// Failures to answer requests, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct AnswerErrors {
    /// A status that counts as a failure.
    pub status: u64,
    /// No answer in time.
    pub timeout: u64,
    /// What came was no answer, or broke off.
    pub broken: u64,
}

impl AnswerErrors {
    fn of(peer: &Peer) -> AnswerErrors {
        AnswerErrors {
            status: peer.failures(FailKind::Status),
            timeout: peer.failures(FailKind::AnswerTimeout),
            broken: peer.failures(FailKind::Broken),
        }
    }
}

/// Failures to connect, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ConnectErrors {
    /// Nobody listened.
    pub refused: u64,
    /// No answer in time.
    pub timeout: u64,
    /// No way there.
    pub unreachable: u64,
    /// It hung up.
    pub reset: u64,
    /// TLS failed.
    pub tls: u64,
    /// A proxy did not let us in.
    pub unauthorized: u64,
    /// Anything else.
    pub other: u64,
}

impl ConnectErrors {
    fn of(peer: &Peer) -> ConnectErrors {
        ConnectErrors {
            refused: peer.failures(FailKind::Refused),
            timeout: peer.failures(FailKind::Timeout),
            unreachable: peer.failures(FailKind::Unreachable),
            reset: peer.failures(FailKind::Reset),
            tls: peer.failures(FailKind::Tls),
            unauthorized: peer.failures(FailKind::Unauthorized),
            other: peer.failures(FailKind::Other),
        }
    }
}

impl Group {
    /// Its peers, backups and those that are down included, in the order of the config: for metrics.
    pub fn peers(&self) -> Vec<Arc<Peer>> {
        let set = self.set();
        let mut slots: Vec<_> = set.live().chain(&set.down).collect();
        slots.sort_by_key(|slot| slot.server);
        slots.into_iter().map(|slot| Arc::clone(&slot.peer)).collect()
    }

    fn connections(&self) -> Option<ConnectionsStatus> {
        let pool = self.pool();
        let opened = pool.sum(|counts| &counts.opened);
        (opened > 0).then(|| ConnectionsStatus {
            idle: self.peers().iter().map(|peer| peer.idle()).sum(),
            reused: pool.sum(|counts| &counts.reused),
            opened,
            stale: pool.sum(|counts| &counts.stale),
        })
    }

    /// What it looks like at `now_ms` of the monotonic clock.
    pub fn snapshot(&self, now_ms: u64) -> GroupStatus {
        let set = self.set();
        let mut peers: Vec<(usize, PeerStatus)> = vec![];
        let mut add = |slots: &[Slot], is_backup: Option<bool>, out: Option<PeerState>| {
            peers.extend(slots.iter().map(|slot| {
                let is_backup = is_backup.unwrap_or(self.spec().servers[slot.server].backup);
                (slot.server, PeerStatus::of(self, slot, is_backup, out, now_ms))
            }));
        };
        add(&set.primary.slots, Some(false), None);
        add(&set.backup.slots, Some(true), None);
        add(&set.draining, None, Some(PeerState::Drain));
        add(&set.down, None, Some(PeerState::Down));
        peers.sort_by_key(|(server, _)| *server);
        let unresolved = self.names().iter().filter(|name| !name.is_resolved());
        GroupStatus {
            name: self.name().to_string(),
            balance: self.spec().balance.as_str(),
            peers: peers.into_iter().map(|(_, status)| status).collect(),
            queued: self.queued(),
            connections: self.connections(),
            unresolved: unresolved.map(|name| name.host().to_owned()).collect(),
        }
    }
}

impl PeerStatus {
    /// `out` is how the config takes it out, if it does.
    fn of(group: &Group, slot: &Slot, backup: bool, out: Option<PeerState>, now: u64) -> PeerStatus {
        let peer = &slot.peer;
        let ejected_for = peer.ejected_for(now);
        let by_latency = group.spec().balance == Balance::PeakEwma;
        let latency = peer.latency(now).filter(|_| by_latency);
        let state = match (out, ejected_for, peer.gate(now)) {
            (Some(PeerState::Down), ..) => PeerState::Down,
            _ if slot.is_unhealthy() => PeerState::Unhealthy,
            (out, None, _) | (out, _, Gate::Open) => out.unwrap_or(PeerState::Up),
            (_, Some(left), _) if left.is_zero() => PeerState::Trial,
            _ => PeerState::Ejected,
        };
        PeerStatus {
            address: peer.address().to_string(),
            weight: slot.weight,
            max_connections: slot.max_connections,
            backup,
            state,
            in_flight: peer.in_flight(),
            leases: peer.leases(),
            connect_errors: ConnectErrors::of(peer),
            answer_errors: AnswerErrors::of(peer),
            ejections: peer.ejections(),
            ejected_for_ms: ejected_for.map_or(0, |left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            connect_time_ms: peer.connect_time().map(|time| time.as_secs_f64() * 1000.0),
            latency_ms: latency.map(|time| time.as_secs_f64() * 1000.0),
            share_percent: peer.percent(group.slow_start_ms(), now),
            health: slot.checked.then(|| HealthStatus::of(peer, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GroupOptions, LeaseKey, Registry};

    #[test]
    fn a_snapshot_tells_all() {
        let options: GroupOptions = serde_json::from_str(
            r#"{ "servers": [{ "address": "10.0.0.9:1", "backup": true }, "10.0.0.1:80", "app.internal:80",
                 { "address": "10.0.0.2:80", "down": true, "weight": 2 }] }"#,
        )
        .unwrap();
        let group = Registry::new().build(options.spec("web").unwrap());
        let mut lease = group.lease(&LeaseKey::default(), &[], 1000).unwrap();
        lease.failed(FailKind::Timeout, 1000);
        let status = group.snapshot(2000);
        assert_eq!((status.name.as_str(), status.balance), ("web", "round_robin"));
        assert_eq!(status.unresolved, ["app.internal"]);
        let states: Vec<_> =
            status.peers.iter().map(|p| (p.address.as_str(), p.state, p.backup, p.weight)).collect();
        assert_eq!(
            states,
            [
                ("10.0.0.9:1", PeerState::Up, true, 1),
                ("10.0.0.1:80", PeerState::Ejected, false, 1),
                ("10.0.0.2:80", PeerState::Down, false, 2),
            ]
        );
        let failed = &status.peers[1];
        assert_eq!(
            (failed.in_flight, failed.leases, failed.ejections, failed.ejected_for_ms),
            (1, 1, 1, 9000)
        );
        assert_eq!(failed.connect_errors, ConnectErrors { timeout: 1, ..ConnectErrors::default() });
        assert_eq!(group.snapshot(11_000).peers[1].state, PeerState::Trial);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["peers"][1]["state"], "ejected");
        assert_eq!(json["peers"][1]["connect_errors"]["timeout"], 1);
        let peers: Vec<_> = group.peers().iter().map(|peer| peer.address().to_string()).collect();
        assert_eq!(peers, ["10.0.0.9:1", "10.0.0.1:80", "10.0.0.2:80"]);
    }
}
