//! The plan of `[[tunnel_client.visitor]]`: a listener, and the private service that it leads to.

use std::sync::Arc;

use wmproxy_net::addr::{Address, AddressSpec, Protocol, TargetSpec};
use wmproxy_stream::options::{StreamOptions, StreamSpec};
use wmproxy_stream::route::Routes;
use wmproxy_tunnel::options::{VisitSpec, VisitorKind, VisitorOptions};
use wmproxy_upstream::GroupSpec;

use super::super::options::TunnelClientOptions;
use super::super::plan::{AccessLogPlan, ListenerPlan, ModePlan};
use super::super::resolve::Planner;
use super::super::tree::Path;
use super::plan::DatagramVisitorPlan;

/// What the groups of private services call the way to them.
const VIA: &str = "tunnel";

impl Planner<'_> {
    /// Plans the ways to private services: each is a listener of the plan. The groups of those of connections are noted in
    /// `visits`.
    pub(super) fn tunnel_visitors(
        &mut self,
        client: &TunnelClientOptions,
        access_log: Option<&AccessLogPlan>,
        path: &Path,
    ) {
        let table = path.key("visitor");
        for (index, visitor) in client.visitor.iter().enumerate() {
            let path = table.index(index);
            let before = self.errors();
            self.check_visited(visitor, client, &path);
            let written = (visitor.secret.as_ref(), visitor.secret_file.as_deref());
            let secret =
                self.proof_secret(&path, "secret", written, "it proves that the service may be visited");
            let protocol = match visitor.kind {
                VisitorKind::Tcp => Protocol::Tcp,
                VisitorKind::Udp => Protocol::Udp,
            };
            let listen = self.visitor_listen(visitor, protocol, &path);
            let (Some(secret), Some(listen)) = (secret, listen) else { continue };
            if self.errors() > before {
                continue;
            }
            let visit = VisitSpec { service: visitor.service.as_str().into(), secret };
            let mut group = format!("tunnel:visit/{}", visitor.service);
            // The same service may be visited at several places, perhaps with other secrets.
            if client.visitor[..index].iter().any(|other| other.service == visitor.service) {
                group = format!("{group}/{}", index + 1);
            }
            let group: Arc<str> = group.into();
            let listener = visitor_spec(visitor, &group, protocol);
            let name = listener.name.clone();
            let mode = match protocol {
                Protocol::Tcp => {
                    self.visited_group(group, visit, client);
                    ModePlan::Stream(Box::new(listener))
                }
                Protocol::Udp => ModePlan::Visit(Box::new(DatagramVisitorPlan { visit, listener })),
            };
            let access_log = access_log.cloned();
            self.listeners.push(ListenerPlan { name, protocol, address: listen, mode, access_log });
        }
    }

    /// The group of connections to a private service.
    fn visited_group(&mut self, group: Arc<str>, visit: VisitSpec, client: &TunnelClientOptions) {
        let target = TargetSpec::Address(Address::Name((&*visit.service).into(), 0));
        let mut spec = GroupSpec::inline(group.clone(), vec![target]);
        // There is one way there. A failure is the owner's, and may be over with the next visitor.
        (spec.retries, spec.max_fails) = (0, 0);
        spec.via = Some(VIA.into());
        spec.connect_timeout = client.connect_timeout.get();
        self.groups.insert(group.clone(), spec);
        self.visits.insert(group, visit);
    }

    fn check_visited(&mut self, visitor: &VisitorOptions, client: &TunnelClientOptions, path: &Path) {
        let place = path.key("service");
        self.check_allow(&visitor.allow, path);
        self.check_no_zero(visitor.idle_timeout.map(|time| ("idle_timeout", time)).as_slice(), path);
        let hint = "write the other client and its service, as in service = \"home/db\"";
        if visitor.service.is_empty() {
            if !self.is_in_doubt(&place) {
                let found = self.error(path, "`service` is missing");
                self.push(found.hint(hint));
            }
            return;
        }
        let Some((owner, service)) = visitor.service.split_once('/') else {
            let found = self.error(&place, "this names no client");
            return self.push(found.hint(hint));
        };
        self.check_name(&place, owner, false);
        self.check_name(&place, service, false);
        if client.name.as_deref() == Some(owner) {
            let found =
                self.error(&place, "this is this client's own service, which is reached without a tunnel");
            self.push(found.warning());
        }
    }

    fn visitor_listen(
        &mut self,
        visitor: &VisitorOptions,
        protocol: Protocol,
        path: &Path,
    ) -> Option<AddressSpec> {
        let place = path.key("listen");
        let Some(listen) = &visitor.listen else {
            if !self.is_in_doubt(&place) {
                let found = self.error(path, "`listen` is missing: nothing leads to the service from here");
                self.push(found.hint("write listen = \"127.0.0.1:5432\""));
            }
            return None;
        };
        if protocol == Protocol::Udp && matches!(listen, AddressSpec::Unix(_)) {
            self.problem(&place, "a unix socket takes no datagrams here");
            return None;
        }
        self.places(std::slice::from_ref(listen), &[protocol], &place);
        Some(listen.clone())
    }
}

/// The listener as a layer-4 proxy's.
fn visitor_spec(visitor: &VisitorOptions, group: &Arc<str>, protocol: Protocol) -> StreamSpec {
    let options = StreamOptions {
        idle_timeout: visitor.idle_timeout,
        allow: visitor.allow.clone(),
        max_connections: (visitor.max_connections > 0).then_some(visitor.max_connections),
        ..StreamOptions::default()
    };
    options.spec(group.clone(), Arc::new(Routes::new(Some(group.clone()))), protocol)
}
