//! The metrics of tunnels: sessions, services, visitors and what was refused. What passes is counted by listeners, which bear
//! the names of the services.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use wmproxy_tunnel::client::{ClientStatus, SessionState};
use wmproxy_tunnel::server::{Counts, ServerStatus};

use super::super::snapshot::Snapshot;
use super::{count, family, gauge};

pub(super) fn encode_tunnels(out: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    if let Some(server) = &snapshot.tunnels.server {
        encode_server(out, server)?;
    }
    snapshot.tunnels.client.as_ref().map_or(Ok(()), |client| encode_client(out, client))
}

fn encode_server(out: &mut DescriptorEncoder<'_>, server: &ServerStatus) -> fmt::Result {
    let clients = || server.clients.iter();
    let help = "1 for a tunnel client that has a session, 0 for one whose services are kept for it";
    family(out, ("wmproxy_tunnel_client_up", help), MetricType::Gauge, |m| {
        clients().try_for_each(|c| gauge(m, &[("client", &*c.name)], c.session.is_some().into()))
    })?;
    let help = "Connections that wait ready for visitors of a tunnel client";
    family(out, ("wmproxy_tunnel_pool_connections", help), MetricType::Gauge, |m| {
        let pool = |c: &wmproxy_tunnel::server::ClientEntry| c.session.as_ref().map_or(0, |s| s.pool as u64);
        clients().try_for_each(|c| gauge(m, &[("client", &*c.name)], pool(c)))
    })?;
    let help = "Visitors that wait for a tunnel client";
    family(out, ("wmproxy_tunnel_visitors_waiting", help), MetricType::Gauge, |m| {
        clients().try_for_each(|c| gauge(m, &[("client", &*c.name)], c.waiting.into()))
    })?;
    let services =
        || clients().flat_map(|client| client.services.iter().map(move |service| (client, service)));
    let help = "Visitors that have a stream to a service";
    family(out, ("wmproxy_tunnel_visitors", help), MetricType::Gauge, |m| {
        services().try_for_each(|(client, service)| {
            gauge(m, &[("client", &*client.name), ("service", &*service.name)], service.visitors.into())
        })
    })?;
    let help = "1 for a service that is offered and able to serve";
    family(out, ("wmproxy_tunnel_service_up", help), MetricType::Gauge, |m| {
        services().try_for_each(|(client, service)| {
            let is_up = service.is_up && service.refusal.is_none();
            gauge(m, &[("client", &*client.name), ("service", &*service.name)], is_up.into())
        })
    })?;
    let help = "Connections to the tunnel server that have not proven anything yet";
    family(out, ("wmproxy_tunnel_pending", help), MetricType::Gauge, |m| {
        m.encode_gauge(&u64::from(server.pending))
    })?;
    let help = "What happened at the tunnel server, by kind";
    family(out, ("wmproxy_tunnel_events", help), MetricType::Counter, |m| {
        events(&server.counts)
            .into_iter()
            .try_for_each(|(event, number)| count(m, &[("event", event)], number))
    })
}

/// What happened at a server, by its name in metrics and in the status.
pub(crate) fn events(counts: &Counts) -> [(&'static str, u64); 15] {
    [
        ("logins", counts.logins),
        ("logins_refused", counts.logins_refused),
        ("logins_late", counts.logins_late),
        ("pending_refused", counts.pending_refused),
        ("broken", counts.broken),
        ("joins", counts.joins),
        ("joins_refused", counts.joins_refused),
        ("takeovers", counts.takeovers),
        ("losses", counts.losses),
        ("services_refused", counts.services_refused),
        ("streams", counts.streams),
        ("streams_refused", counts.streams_refused),
        ("pool_dead", counts.pool_dead),
        ("visits", counts.visits),
        ("visits_refused", counts.visits_refused),
    ]
}

fn encode_client(out: &mut DescriptorEncoder<'_>, client: &ClientStatus) -> fmt::Result {
    let sessions = || client.sessions.iter();
    let help = "1 while there is a session with a tunnel server";
    family(out, ("wmproxy_tunnel_session_up", help), MetricType::Gauge, |m| {
        let is_up = |state| matches!(state, SessionState::Open | SessionState::Leaving);
        sessions().try_for_each(|s| gauge(m, &[("server", &*s.server)], is_up(s.state).into()))
    })?;
    let help = "Sessions with a tunnel server that there were before the present one";
    family(out, ("wmproxy_tunnel_reconnects", help), MetricType::Counter, |m| {
        sessions().try_for_each(|s| count(m, &[("server", &*s.server)], s.reconnects))
    })?;
    let help = "How long the last ping to a tunnel server took there and back";
    family(out, ("wmproxy_tunnel_round_trip_seconds", help), MetricType::Gauge, |m| {
        sessions().try_for_each(|s| match s.round_trip_ms {
            Some(ms) => m.encode_family(&[("server", &*s.server)])?.encode_gauge(&(ms / 1000.0)),
            None => Ok(()),
        })
    })?;
    let help = "1 for an own service that is offered at a tunnel server";
    family(out, ("wmproxy_tunnel_service_offered", help), MetricType::Gauge, |m| {
        let placed = || sessions().flat_map(|s| s.services.iter().map(move |placed| (s, placed)));
        placed().try_for_each(|(session, placed)| {
            let labels = [("server", &*session.server), ("service", &*placed.name)];
            gauge(m, &labels, placed.refusal.is_none().into())
        })
    })?;
    let help = "1 for an own service that is able to serve";
    family(out, ("wmproxy_tunnel_local_service_up", help), MetricType::Gauge, |m| {
        client.services.iter().try_for_each(|s| gauge(m, &[("service", &*s.name)], s.is_up.into()))
    })
}
