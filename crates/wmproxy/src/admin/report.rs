//! A status for people.

use std::fmt::Write as _;

use super::status::{ListenerStatus, PeerStatus, QuotaStatus, Status};
use super::tunnels;

/// A table whose columns are as wide as they need to be. The first column is flush left, numbers flush right.
pub(super) struct Table {
    pub(super) rows: Vec<Vec<String>>,
    /// From this column on there are numbers.
    numbers: usize,
}

impl Table {
    pub(super) fn new(head: &[&str], numbers: usize) -> Table {
        Table { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()], numbers }
    }

    pub(super) fn push_to(&self, out: &mut String) {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a string can't fail.
                let _ = if column < self.numbers {
                    write!(line, "  {cell:<width$}")
                } else {
                    write!(line, "  {cell:>width$}")
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

/// The whole status as text.
pub(super) fn render(status: &Status) -> String {
    let mut out = format!(
        "wmproxy {}, pid {}, up {}{}\n{} (generation {}), {} worker{}\n",
        status.version,
        status.pid,
        uptime(status.uptime_seconds),
        if status.draining { ", draining" } else { "" },
        status.config.as_ref().map_or("no config file".to_owned(), |file| format!("config {file}")),
        status.generation,
        status.workers,
        if status.workers == 1 { "" } else { "s" },
    );
    if !status.listeners.is_empty() {
        out.push('\n');
        listeners(&status.listeners).push_to(&mut out);
    }
    if status.upstreams.iter().any(|upstream| !upstream.peers.is_empty()) {
        out.push('\n');
        let mut table =
            Table::new(&["UPSTREAM", "PEER", "STATE", "IN FLIGHT", "TOTAL", "FAILURES", "EJECTIONS"], 3);
        for upstream in &status.upstreams {
            table.rows.extend(upstream.peers.iter().map(|peer| peer_row(&upstream.name, peer)));
        }
        table.push_to(&mut out);
    }
    push_users(&mut out, status);
    if let Some(server) = &status.tunnel_server {
        tunnels::push_server(&mut out, server);
    }
    if let Some(client) = &status.tunnel_client {
        tunnels::push_client(&mut out, client);
    }
    push_queues(&mut out, status);
    push_failing(&mut out, status);
    let unresolved: Vec<_> = status.upstreams.iter().filter(|group| !group.unresolved.is_empty()).collect();
    if !unresolved.is_empty() {
        out.push('\n');
    }
    for group in unresolved {
        let are = if group.unresolved.len() == 1 { "is" } else { "are" };
        out.push_str(&format!("{}: {} {are} not resolved\n", group.name, group.unresolved.join(", ")));
    }
    out
}

/// The users of forward proxies, and what is left of their quotas.
fn push_users(out: &mut String, status: &Status) {
    if status.users.is_empty() {
        return;
    }
    out.push('\n');
    let mut table = Table::new(&["USER", "CONNECTIONS", "ASSOCIATIONS", "BYTES", "QUOTA LEFT"], 1);
    table.rows.extend(status.users.iter().map(|user| {
        let left = |quota: &QuotaStatus| {
            format!("{} of {} in {}", bytes(quota.left), bytes(quota.limit), quota.period)
        };
        vec![
            user.name.clone(),
            user.connections.to_string(),
            user.associations.to_string(),
            bytes(user.bytes),
            user.quota.as_ref().map_or("-".to_owned(), left),
        ]
    }));
    table.push_to(out);
}

/// Where connections wait for a peer that has room.
fn push_queues(out: &mut String, status: &Status) {
    let queues: Vec<_> = status.upstreams.iter().filter(|upstream| upstream.queued > 0).collect();
    if !queues.is_empty() {
        out.push('\n');
    }
    for upstream in queues {
        let waits = if upstream.queued == 1 { "connection waits" } else { "connections wait" };
        out.push_str(&format!("{}: {} {waits} for a peer\n", upstream.name, upstream.queued));
    }
}

/// Why the last health check of each peer did not pass, if it did not.
fn push_failing(out: &mut String, status: &Status) {
    let peers =
        status.upstreams.iter().flat_map(|upstream| upstream.peers.iter().map(move |p| (upstream, p)));
    let reason = |peer: &PeerStatus| peer.health.as_ref()?.last.as_ref()?.reason.clone();
    let failing: Vec<_> =
        peers.filter_map(|(upstream, peer)| Some((&upstream.name, &peer.address, reason(peer)?))).collect();
    if !failing.is_empty() {
        out.push('\n');
    }
    for (upstream, peer, reason) in failing {
        out.push_str(&format!("{upstream}: the last health check of {peer}: {reason}\n"));
    }
}

fn listeners(all: &[ListenerStatus]) -> Table {
    let mut table = Table::new(&["LISTENER", "ADDRESS", "ACTIVE", "ACCEPTED", "IN", "OUT"], 2);
    table.rows.extend(all.iter().map(|listener| {
        vec![
            listener.name.clone(),
            format!("{}://{}", listener.protocol, listener.address),
            listener.active.to_string(),
            listener.accepted.to_string(),
            bytes(listener.bytes_in),
            bytes(listener.bytes_out),
        ]
    }));
    table
}

fn peer_row(upstream: &str, peer: &PeerStatus) -> Vec<String> {
    vec![
        upstream.to_owned(),
        peer.address.clone(),
        peer_state(peer),
        peer.in_flight.to_string(),
        peer.leases.to_string(),
        peer.connect_errors.values().chain(peer.answer_errors.values()).sum::<u64>().to_string(),
        peer.ejections.to_string(),
    ]
}

/// With how long an ejection still lasts, how far a slow start is, and whether the peer is a backup.
fn peer_state(peer: &PeerStatus) -> String {
    let mut state = peer.state.clone();
    if peer.ejected_for_ms > 0 {
        state.push_str(&format!(" for {}", uptime(peer.ejected_for_ms.div_ceil(1000))));
    }
    if peer.state == "unhealthy"
        && let Some(ms) = peer.health.as_ref().and_then(|health| health.for_ms)
    {
        state.push_str(&format!(" for {}", uptime(ms / 1000)));
    }
    if peer.share_percent < 100 {
        state.push_str(&format!(" at {} %", peer.share_percent));
    }
    if peer.backup {
        state.push_str(" (backup)");
    }
    state
}

/// The two largest units: `3d 4h`, `12m 5s`.
pub(crate) fn uptime(seconds: u64) -> String {
    let parts =
        [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(parts.len() - 1);
    let shown: Vec<String> = parts[first..].iter().take(2).map(|(n, unit)| format!("{n}{unit}")).collect();
    shown.join(" ")
}

/// In powers of 1024, as the config writes sizes.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["k", "m", "g", "t", "p", "e"];
    if n < 1024 {
        return n.to_string();
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::UpstreamStatus;

    #[test]
    fn units_are_those_that_people_read() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3_700, "1h 1m"), (273_600, "3d 4h")] {
            assert_eq!(uptime(seconds), text);
        }
        for (n, text) in [(0, "0"), (1023, "1023"), (1536, "1.5k"), (1 << 30, "1.0g"), (u64::MAX, "16.0e")] {
            assert_eq!(bytes(n), text);
        }
    }

    fn listener(name: &str, address: &str, accepted: u64) -> ListenerStatus {
        ListenerStatus {
            name: name.into(),
            protocol: "tcp".into(),
            address: address.into(),
            accepted,
            active: 2,
            bytes_in: 2048,
            bytes_out: 5,
            datagrams_in: None,
            datagrams_out: None,
        }
    }

    fn peer() -> PeerStatus {
        PeerStatus {
            address: "10.0.0.5:80".into(),
            state: "up".into(),
            backup: false,
            weight: 1,
            max_connections: 0,
            in_flight: 2,
            leases: 12,
            connect_errors: [("refused".to_owned(), 1)].into(),
            answer_errors: [].into(),
            ejections: 0,
            ejected_for_ms: 0,
            connect_time_ms: None,
            latency_ms: None,
            share_percent: 100,
            health: None,
        }
    }

    #[test]
    fn columns_line_up() {
        let ejected = PeerStatus {
            address: "10.0.0.6:80".into(),
            state: "ejected".into(),
            backup: true,
            ejections: 1,
            ejected_for_ms: 79_001,
            ..peer()
        };
        let status = Status {
            version: "1.2.3".into(),
            pid: 42,
            started: String::new(),
            uptime_seconds: 61,
            config: Some("/etc/wmproxy.toml".into()),
            generation: 3,
            workers: 2,
            draining: false,
            listeners: vec![listener("web", "127.0.0.1:80", 12_345), listener("redis", "[::1]:6379", 1)],
            users: vec![],
            tunnel_server: None,
            tunnel_client: None,
            upstreams: vec![UpstreamStatus {
                name: "web".into(),
                balance: "round_robin".into(),
                peers: vec![PeerStatus { share_percent: 37, ..peer() }, ejected],
                queued: 3,
                connections: None,
                unresolved: vec!["app.internal".into()],
            }],
        };
        assert_eq!(
            render(&status),
            "wmproxy 1.2.3, pid 42, up 1m 1s\n\
             config /etc/wmproxy.toml (generation 3), 2 workers\n\
             \n\
             \x20 LISTENER  ADDRESS             ACTIVE  ACCEPTED    IN  OUT\n\
             \x20 web       tcp://127.0.0.1:80       2     12345  2.0k    5\n\
             \x20 redis     tcp://[::1]:6379         2         1  2.0k    5\n\
             \n\
             \x20 UPSTREAM  PEER         STATE                        IN FLIGHT  TOTAL  FAILURES  EJECTIONS\n\
             \x20 web       10.0.0.5:80  up at 37 %                           2     12         1          0\n\
             \x20 web       10.0.0.6:80  ejected for 1m 20s (backup)          2     12         1          1\n\
             \n\
             web: 3 connections wait for a peer\n\
             \n\
             web: app.internal is not resolved\n"
        );
    }
}
