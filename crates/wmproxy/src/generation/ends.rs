//! What is served where the ends of tunnels meet the other modes: a server's doors and fronts, a client's services.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use wmproxy_forward::chain::Chains;
use wmproxy_forward::gateway::ForwardGateway;
use wmproxy_forward::options::ForwardSpec;
use wmproxy_forward::service::ForwardService;
use wmproxy_http::RequestLog;
use wmproxy_http::options::HttpSpec;
use wmproxy_net::acl::Acl;
use wmproxy_net::connect::Connect;
use wmproxy_net::pressure;
use wmproxy_net::tls::Renewal;
use wmproxy_tunnel::client::{End, Offer};
use wmproxy_tunnel::datagrams::outer::OuterService;
use wmproxy_tunnel::server::Entrance;
use wmproxy_upstream::Group;

use super::House;
use super::build::Modes;
use super::tunnels::{Client, PreparedTunnels, Server, acceptor};
use crate::config::plan::{AccessLogPlan, ListenerPlan, Plan};
use crate::config::tunnel::plan::{
    DatagramVisitorPlan, TunnelClientPlan, TunnelEndPlan, TunnelServerPlan, TunnelServicePlan,
};
use crate::modes::Mode;
use crate::tunnel::door::{self, DoorSpec};
use crate::tunnel::ends;
use crate::tunnel::quic::QuicService;

/// The most flows of a service at a time, as of a listener of datagrams.
const MAX_FLOWS: u32 = 16_384;

/// What part of the descriptors all flows of services may have: whoever sends datagrams from addresses that are not their own
/// begins as many as there may be, and the other services must have some left.
const FLOWS_SHARE: u64 = 2;

/// The ends of tunnels that a generation is built with.
#[derive(Default)]
pub(super) struct TunnelEnds {
    pub(super) server: Option<Server>,
    pub(super) client: Option<Client>,
}

impl House {
    /// The ends of tunnels of a plan: those at work as far as they stay the same.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(super) fn tunnel_ends(&self, plan: &Plan, certificates: &mut Renewal) -> anyhow::Result<TunnelEnds> {
        let server = plan.tunnel_server.as_ref().map(|plan| self.tunnels.server(plan));
        let client = match &plan.tunnel_client {
            Some(plan) => Some(self.tunnels.client(plan, self.tls.connector(&plan.tls, certificates)?)),
            None => None,
        };
        Ok(TunnelEnds { server, client })
    }
}

impl Modes<'_> {
    /// What the ends of tunnels are to go by.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(super) fn tunnels(&mut self, plan: &Plan, chains: &Chains) -> anyhow::Result<PreparedTunnels> {
        let ends = self.tunnels;
        let server = match (&plan.tunnel_server, &ends.server) {
            (Some(plan), Some(server)) => {
                let tls = acceptor(plan, &self.house.tls, self.certificates)?;
                let log = plan.access_log.as_ref().map(|log| self.log(log)).transpose()?;
                Some(server.clone().prepared(plan, tls, log))
            }
            _ => None,
        };
        let client = match (&plan.tunnel_client, &ends.client) {
            (Some(plan), Some(client)) => {
                let via = plan.spec.via.as_ref().map(|name| {
                    let chain = chains.get(name).ok_or_else(|| anyhow!("no chain named `{name}`"))?;
                    anyhow::Ok(chain.clone() as Arc<dyn Connect>)
                });
                let offers = self.offers(plan, client)?;
                Some(self.house.tunnels.prepare_client(client.clone(), via.transpose()?, offers))
            }
            _ => None,
        };
        Ok(PreparedTunnels { server, client })
    }

    /// Where clients log in.
    pub(super) fn tunnel_door(&mut self, plan: &TunnelServerPlan) -> anyhow::Result<Mode> {
        let tls = acceptor(plan, &self.house.tls, self.certificates)?;
        let entrance = Entrance::new(self.server()?.tunnel().clone(), tls);
        let spec = DoorSpec { trusted: None, acl: Acl::new(&[], &[]), timeout: plan.spec.login_timeout };
        Ok(door::mode(spec, entrance))
    }

    /// Where they log in over QUIC.
    pub(super) fn tunnel_quic(&mut self, plan: &TunnelServerPlan) -> anyhow::Result<Mode> {
        let tls = acceptor(plan, &self.house.tls, self.certificates)?;
        Ok(Mode::Quic(QuicService { server: self.server()?.tunnel().clone(), tls }))
    }

    /// Where visitors ask for hosts.
    pub(super) fn tunnel_http(
        &mut self,
        plan: &TunnelServerPlan,
        wanted: &ListenerPlan,
    ) -> anyhow::Result<Mode> {
        let log = plan.request_log.as_ref().map(|log| self.request_log(log)).transpose()?;
        Ok(self.server()?.ports().http(front(plan, wanted), log)?)
    }

    /// Where visitors say a server name.
    pub(super) fn tunnel_https(
        &mut self,
        plan: &TunnelServerPlan,
        wanted: &ListenerPlan,
    ) -> anyhow::Result<Mode> {
        let requests = plan.request_log.as_ref().map(|log| self.request_log(log)).transpose()?;
        let relayed = plan.access_log.as_ref().map(|log| self.log(log)).transpose()?;
        let tls = plan.terminate.as_ref().map(|tls| self.house.tls.acceptor(tls, self.certificates));
        let tls = tls.transpose()?;
        Ok(self.server()?.ports().https(front(plan, wanted), tls, requests, relayed)?)
    }

    /// Where a private service of datagrams of another client is reached.
    pub(super) fn visit(
        &mut self,
        plan: &DatagramVisitorPlan,
        wanted: &ListenerPlan,
    ) -> anyhow::Result<Mode> {
        let log = wanted.access_log.as_ref().map(|plan| self.log(plan)).transpose()?;
        let client = self.tunnels.client.as_ref().ok_or_else(|| anyhow!("there is no tunnel client"))?;
        Ok(Mode::Tunnelled(Box::new(OuterService {
            way: client.tunnel().visit_datagrams(plan.visit.clone()),
            acl: plan.listener.acl.clone(),
            idle_timeout: plan.listener.idle_timeout,
            name: plan.visit.service.clone(),
            log,
        })))
    }

    fn server(&self) -> anyhow::Result<Server> {
        self.tunnels.server.clone().ok_or_else(|| anyhow!("there is no tunnel server"))
    }

    /// What a client offers, and what serves it here.
    ///
    /// # Errors
    /// A log file that can't be opened, or a name that nothing has, which a checked plan has not.
    pub(super) fn offers(&mut self, plan: &TunnelClientPlan, client: &Client) -> anyhow::Result<Vec<Offer>> {
        let has_flows = |service: &&TunnelServicePlan| matches!(service.end, TunnelEndPlan::Datagrams { .. });
        let max_flows = max_flows(pressure::descriptors(), plan.services.iter().filter(has_flows).count());
        plan.services.iter().map(|service| self.offer(service, plan, client, max_flows)).collect()
    }

    fn offer(
        &mut self,
        service: &TunnelServicePlan,
        plan: &TunnelClientPlan,
        client: &Client,
        max_flows: u32,
    ) -> anyhow::Result<Offer> {
        let log = plan.access_log.as_ref().map(|log| self.log(log)).transpose()?;
        let name: Arc<str> = format!("{}/{}", plan.spec.name, service.spec.service.name).into();
        let (end, group): (End, Option<Arc<Group>>) = match &service.end {
            TunnelEndPlan::Stream { group, idle_timeout } => {
                let group = find(self.groups, group)?;
                (ends::stream(&name, group.clone(), *idle_timeout, log), Some(group))
            }
            TunnelEndPlan::Datagrams { group, idle_timeout } => {
                let group = find(self.groups, group)?;
                (ends::datagrams(group.clone(), *idle_timeout, max_flows, log), Some(group))
            }
            TunnelEndPlan::Forward(spec) => {
                (self.proxy_end(&name, spec, plan.visit_log.as_ref()).context("the proxy")?, None)
            }
        };
        Ok(client.counters().offer(&name, service.spec.clone(), end, group.as_deref()))
    }

    fn proxy_end(
        &mut self,
        name: &Arc<str>,
        spec: &ForwardSpec,
        log: Option<&AccessLogPlan>,
    ) -> anyhow::Result<End> {
        let log = log.map(|plan| self.visit_log(plan)).transpose()?;
        let gateway = ForwardGateway::new(spec, self.egresses, &self.house.outside.accounts)?;
        let traffic = self.house.traffic.listener(name);
        let requests = log.clone().map(|log| log as Arc<dyn RequestLog>);
        Ok(ends::proxy(ForwardService::new(spec.clone(), gateway, None, requests, traffic), log))
    }
}

fn find(groups: &BTreeMap<Arc<str>, Arc<Group>>, name: &Arc<str>) -> anyhow::Result<Arc<Group>> {
    groups.get(name).cloned().ok_or_else(|| anyhow!("no upstream named `{name}`"))
}

/// How a front serves: as the plan says, under the listener's name.
fn front(plan: &TunnelServerPlan, wanted: &ListenerPlan) -> HttpSpec {
    HttpSpec { name: wanted.name.clone(), ..plan.front.clone() }
}

/// The most flows of each of so many services, under a limit of descriptors.
fn max_flows(descriptors: u64, services: usize) -> u32 {
    let share = descriptors / FLOWS_SHARE / (services as u64).max(1);
    u32::try_from(share).map_or(MAX_FLOWS, |share| share.clamp(1, MAX_FLOWS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_leave_descriptors_for_others() {
        assert_eq!((max_flows(1024, 1), max_flows(1024, 4), max_flows(0, 0)), (512, 128, 1));
        assert_eq!((max_flows(1 << 20, 2), max_flows(u64::MAX, 1)), (MAX_FLOWS, MAX_FLOWS));
    }
}
