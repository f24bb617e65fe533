//! The metrics of forward proxies: their users, and what was refused to clients.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::super::snapshot::Snapshot;
use super::{count, family, gauge};

pub(super) fn encode_users(out: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let Snapshot { users, logins, denials, .. } = snapshot;
    let help = "Tunnels and connections of clients that a user of forward proxies has open";
    family(out, ("wmproxy_user_connections", help), MetricType::Gauge, |m| {
        users.iter().try_for_each(|user| gauge(m, &[("user", &*user.name)], user.connections.into()))
    })?;
    let help = "Associations of datagrams that a user of forward proxies has open";
    family(out, ("wmproxy_user_associations", help), MetricType::Gauge, |m| {
        users.iter().try_for_each(|user| gauge(m, &[("user", &*user.name)], user.associations.into()))
    })?;
    let help = "Bytes of a user of forward proxies, both ways together";
    family(out, ("wmproxy_user_bytes", help), MetricType::Counter, |m| {
        users.iter().try_for_each(|user| count(m, &[("user", &*user.name)], user.bytes))
    })?;
    let help = "Passwords for forward proxies that were not just known, by what became of them";
    family(out, ("wmproxy_user_logins", help), MetricType::Counter, |m| {
        let all = [
            ("right", logins.right),
            ("wrong", logins.wrong),
            ("delayed", logins.delayed),
            ("busy", logins.busy),
        ];
        all.into_iter().try_for_each(|(result, number)| count(m, &[("result", result)], number))
    })?;
    let help = "Visits and datagrams of clients of forward proxies that the egress rules forbid, by reason";
    family(out, ("wmproxy_egress_denials", help), MetricType::Counter, |m| {
        denials.iter().try_for_each(|(reason, number)| count(m, &[("reason", *reason)], *number))
    })
}
