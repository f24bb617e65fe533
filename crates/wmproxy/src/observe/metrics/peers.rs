//! The metrics of upstream groups and their peers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use wmproxy_upstream::PeerStatus;
use wmproxy_upstream::health::Health;
use wmproxy_upstream::status::{ConnectionsStatus, PeerState};

use super::{count, family, gauge};
use crate::observe::snapshot::Snapshot;

/// The states that a peer can be in.
const PEER_STATES: [PeerState; 6] = [
    PeerState::Up,
    PeerState::Ejected,
    PeerState::Trial,
    PeerState::Unhealthy,
    PeerState::Drain,
    PeerState::Down,
];

/// Every peer once, with its group's name: two servers of a group may resolve to one address and then share
/// one state.
fn peers(snapshot: &Snapshot) -> Vec<(&str, &PeerStatus)> {
    let all = snapshot.groups.iter().flat_map(|g| g.peers.iter().map(|peer| (g.name.as_str(), peer)));
    let mut seen = BTreeSet::new();
    all.filter(|(group, peer)| seen.insert((*group, peer.address.as_str()))).collect()
}

pub(super) fn encode_peers(out: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let all = peers(snapshot);
    encode_queues(out, snapshot)?;
    encode_states(out, &all)?;
    encode_counters(out, &all)
}

/// Who a metric is of.
fn labels(group: &str, peer: &PeerStatus) -> [(&'static str, String); 2] {
    [("group", group.to_owned()), ("peer", peer.address.clone())]
}

fn encode_queues(out: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    family(
        out,
        ("wmproxy_upstream_queued", "Connections that wait for a peer of a group that has room"),
        MetricType::Gauge,
        |m| {
            // An older generation's group of the same name may still have waiters.
            let mut queued = BTreeMap::<&str, u64>::new();
            snapshot.groups.iter().for_each(|g| *queued.entry(&g.name).or_default() += g.queued as u64);
            queued.iter().try_for_each(|(group, n)| gauge(m, &[("group", *group)], *n))
        },
    )
}

/// What peers are at the moment.
fn encode_states(out: &mut DescriptorEncoder<'_>, all: &[(&str, &PeerStatus)]) -> fmt::Result {
    family(
        out,
        ("wmproxy_peer_in_flight", "Connections and UDP flows that a peer has"),
        MetricType::Gauge,
        |m| all.iter().try_for_each(|(group, peer)| gauge(m, &labels(group, peer), peer.in_flight.into())),
    )?;
    family(out, ("wmproxy_peer_state", "1 for the state that a peer is in"), MetricType::Gauge, |m| {
        all.iter().try_for_each(|(group, peer)| {
            PEER_STATES.iter().try_for_each(|state| {
                let labels = (labels(group, peer), [("state", state_word(*state))]);
                gauge(m, &labels, (peer.state == *state).into())
            })
        })
    })?;
    family(
        out,
        ("wmproxy_peer_latency_seconds", "The moving average that peak_ewma goes by"),
        MetricType::Gauge,
        |m| {
            all.iter().try_for_each(|(group, peer)| match peer.latency_ms {
                Some(ms) => m.encode_family(&labels(group, peer))?.encode_gauge(&(ms / 1000.0)),
                None => Ok(()),
            })
        },
    )?;
    family(
        out,
        ("wmproxy_peer_share_ratio", "How much of its weight counts: less than 1 during a peer's slow start"),
        MetricType::Gauge,
        |m| {
            all.iter().try_for_each(|(group, peer)| {
                m.encode_family(&labels(group, peer))?.encode_gauge(&(f64::from(peer.share_percent) / 100.0))
            })
        },
    )
}

/// What has come of peers since they were first known.
fn encode_counters(out: &mut DescriptorEncoder<'_>, all: &[(&str, &PeerStatus)]) -> fmt::Result {
    type Read = fn(&PeerStatus) -> u64;
    let counters: [(&str, &str, Read); 2] = [
        ("wmproxy_peer_leases", "Connections and UDP flows given to a peer", |p| p.leases),
        ("wmproxy_peer_ejections", "How often a peer was ejected", |p| p.ejections),
    ];
    for (name, help, read) in counters {
        family(out, (name, help), MetricType::Counter, |m| {
            all.iter().try_for_each(|(group, peer)| count(m, &labels(group, peer), read(peer)))
        })?;
    }
    family(
        out,
        ("wmproxy_peer_connect_errors", "Failures to connect to a peer, by kind"),
        MetricType::Counter,
        |m| {
            all.iter().try_for_each(|(group, peer)| {
                connect_errors(peer)
                    .iter()
                    .try_for_each(|(kind, n)| count(m, &(labels(group, peer), [("kind", *kind)]), *n))
            })
        },
    )?;
    family(
        out,
        ("wmproxy_peer_answer_errors", "Requests that a peer did not answer as it should, by kind"),
        MetricType::Counter,
        |m| {
            all.iter().try_for_each(|(group, peer)| {
                answer_errors(peer)
                    .iter()
                    .try_for_each(|(kind, n)| count(m, &(labels(group, peer), [("kind", *kind)]), *n))
            })
        },
    )
}

/// Of groups whose connections are used for request after request.
pub(super) fn encode_connections(out: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    // An older generation's group of the same name counts in the same place.
    let groups: BTreeMap<&str, ConnectionsStatus> =
        snapshot.groups.iter().filter_map(|g| Some((g.name.as_str(), g.connections?))).collect();
    family(
        out,
        ("wmproxy_upstream_idle_connections", "Connections to a group's peers that no request uses"),
        MetricType::Gauge,
        |m| groups.iter().try_for_each(|(group, c)| gauge(m, &[("group", *group)], c.idle as u64)),
    )?;
    type Read = fn(&ConnectionsStatus) -> u64;
    let counters: [(&str, &str, Read); 3] = [
        ("wmproxy_upstream_connections_reused", "Requests that got a connection that was idle", |c| c.reused),
        ("wmproxy_upstream_connections_opened", "Connections made for requests", |c| c.opened),
        ("wmproxy_upstream_connections_stale", "Idle connections that the peer had closed", |c| c.stale),
    ];
    for (name, help, read) in counters {
        family(out, (name, help), MetricType::Counter, |m| {
            groups.iter().try_for_each(|(group, c)| count(m, &[("group", *group)], read(c)))
        })?;
    }
    Ok(())
}

/// Of peers whose health is checked.
pub(super) fn encode_health(out: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let all = peers(snapshot);
    let checked: Vec<_> = all
        .iter()
        .filter_map(|(group, peer)| {
            let health = peer.health.as_ref()?;
            Some(([("group", (*group).to_owned()), ("peer", peer.address.clone())], health))
        })
        .collect();
    family(
        out,
        ("wmproxy_peer_health", "1 for what its health checks say about a peer"),
        MetricType::Gauge,
        |m| {
            checked.iter().try_for_each(|(labels, health)| {
                Health::ALL.iter().try_for_each(|state| {
                    let labels = (labels.clone(), [("state", state.as_str())]);
                    gauge(m, &labels, (health.state == *state).into())
                })
            })
        },
    )?;
    family(
        out,
        ("wmproxy_peer_checks", "Health checks by result; skipped are those that this machine could not do"),
        MetricType::Counter,
        |m| {
            checked.iter().try_for_each(|(labels, health)| {
                [("passed", health.passed), ("failed", health.failed), ("skipped", health.skipped)]
                    .iter()
                    .try_for_each(|(result, n)| count(m, &(labels.clone(), [("result", *result)]), *n))
            })
        },
    )?;
    family(
        out,
        ("wmproxy_peer_check_duration_seconds", "How long the last health check of a peer took"),
        MetricType::Gauge,
        |m| {
            let lasts = checked.iter().filter_map(|(labels, health)| Some((labels, health.last.as_ref()?)));
            lasts.into_iter().try_for_each(|(labels, last)| {
                m.encode_family(labels)?.encode_gauge(&(last.took_ms / 1000.0))
            })
        },
    )
}

/// The word for a state, here and in the status.
pub(crate) fn state_word(state: PeerState) -> &'static str {
    match state {
        PeerState::Up => "up",
        PeerState::Ejected => "ejected",
        PeerState::Trial => "trial",
        PeerState::Unhealthy => "unhealthy",
        PeerState::Drain => "draining",
        PeerState::Down => "down",
    }
}

/// How often a peer could not be connected to, by kind.
pub(crate) fn connect_errors(peer: &PeerStatus) -> [(&'static str, u64); 7] {
    let errors = &peer.connect_errors;
    [
        ("refused", errors.refused),
        ("timeout", errors.timeout),
        ("unreachable", errors.unreachable),
        ("reset", errors.reset),
        ("tls", errors.tls),
        ("unauthorized", errors.unauthorized),
        ("other", errors.other),
    ]
}

/// How often a peer did not answer a request as it should, by kind.
pub(crate) fn answer_errors(peer: &PeerStatus) -> [(&'static str, u64); 3] {
    let errors = &peer.answer_errors;
    [("status", errors.status), ("timeout", errors.timeout), ("broken", errors.broken)]
}
