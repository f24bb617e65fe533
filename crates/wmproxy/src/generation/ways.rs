//! The ways out of a generation: its upstream groups, the chains of proxies that some of them are reached through, and the
//! egress rules that lead clients of forward proxies there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use wmproxy_forward::chain::{Chain, Chains, Workshop};
use wmproxy_forward::egress::{Egress, OwnListeners};
use wmproxy_forward::gateway::Egresses;
use wmproxy_forward::options::{ForwardSpec, UserSpec};
use wmproxy_forward::users::Accounts;
use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::connect::Connect;
use wmproxy_net::tls::{Connector, ConnectorSpec, Renewal, state_directory};
use wmproxy_runtime::scope::{Leash, Scope};
use wmproxy_upstream::{Finder, Group, GroupSpec, Resolver};

use super::ends::TunnelEnds;
use super::{House, Part};
use crate::config::plan::{ModePlan, Plan};
use crate::config::tunnel::plan::TunnelEndPlan;

/// What forward proxies keep over reloads.
pub(crate) struct Outside {
    /// Users, what each has open and has used up.
    pub(crate) accounts: Arc<Accounts>,
    /// Where this process listens: clients do not get there by way of it.
    pub(crate) own: Arc<OwnListeners>,
    /// Where the admin API listens.
    admin: Cell<Option<SocketAddr>>,
    pub(super) finder: Arc<Finder>,
    _tasks: [Leash; 2],
}

/// The ways out of a generation.
pub(super) struct Ways {
    pub(super) groups: BTreeMap<Arc<str>, Arc<Group>>,
    pub(super) egresses: Egresses,
    pub(super) chains: Chains,
}

impl Outside {
    /// Nobody and nothing yet. Looking names up, and writing down what users have used up, are tasks of `control`.
    pub(super) fn new(control: &Scope) -> Outside {
        let directory = state_directory(|name| std::env::var(name).ok());
        let accounts = Accounts::open(directory.as_deref());
        let (finder, finding) = Finder::new(Arc::new(Resolver::new(&[])));
        let tasks = [control.spawn_control(finding), control.spawn_control(accounts.clone().run())];
        Outside {
            accounts,
            own: Arc::new(OwnListeners::new()),
            admin: Cell::new(None),
            finder,
            _tasks: tasks,
        }
    }
}

impl Outside {
    /// Notes where the admin API listens, or will. It counts with the next listeners.
    pub(crate) fn note_admin(&self, address: Option<&Address>) {
        self.admin.set(match address {
            Some(Address::Inet(address)) => Some(*address),
            _ => None,
        });
    }

    /// Notes where this process listens beside the admin API.
    pub(super) fn note_listeners<'a>(&self, parts: impl Iterator<Item = &'a Part>) {
        let bound = parts.filter_map(|part| match part.listener.bound.address {
            Address::Inet(address) => Some((part.listener.bound.protocol, address)),
            Address::Unix(_) | Address::Name(..) => None,
        });
        self.own.replace(bound.chain(self.admin.get().map(|address| (Protocol::Tcp, address))));
    }

    /// Has a plan count: users are kept to what it says of them, and names are looked up where it says.
    pub(super) fn take_over(&self, users: &[UserSpec], resolver: &Arc<Resolver>) {
        self.accounts.apply(users, SystemTime::now());
        self.finder.ask(resolver.clone());
    }
}

/// The users of all forward proxies of a plan, those that a tunnel's client offers among them. The listeners of one table have
/// the same ones.
pub(super) fn users(plan: &Plan) -> Vec<UserSpec> {
    let listeners = plan.listeners.iter().filter_map(|listener| match &listener.mode {
        ModePlan::Forward(spec) => Some(spec),
        _ => None,
    });
    let services = plan.tunnel_client.iter().flat_map(|client| &client.services);
    let offered = services.filter_map(|service| match &service.end {
        TunnelEndPlan::Forward(spec) => Some(spec),
        _ => None,
    });
    let mut tables: Vec<&Arc<ForwardSpec>> = Vec::new();
    for spec in listeners.chain(offered) {
        if !tables.iter().any(|known| Arc::ptr_eq(known, spec)) {
            tables.push(spec);
        }
    }
    tables.into_iter().flat_map(|spec| spec.users.iter().cloned()).collect()
}

impl House {
    /// Builds the ways out of a plan. Certificates are noted in `certificates`.
    ///
    /// # Errors
    /// A file that can't be read, or a name that nothing has, which a checked plan has not.
    pub(super) fn ways(
        &self,
        plan: &Plan,
        tunnels: &TunnelEnds,
        certificates: &mut Renewal,
    ) -> anyhow::Result<Ways> {
        let mut builder = Builder { house: self, plan, certificates, groups: BTreeMap::new() };
        let mut chains = Chains::new();
        for (name, spec) in &plan.chains {
            let chain = Chain::new(spec, &self.outside.finder, &mut builder)?;
            chains.insert(name.clone(), chain);
        }
        for (name, spec) in &plan.groups {
            if builder.groups.contains_key(name) {
                continue;
            }
            let via = match (plan.visits.get(name), &spec.via) {
                (Some(visit), _) => {
                    let client =
                        tunnels.client.as_ref().ok_or_else(|| anyhow!("there is no tunnel client"))?;
                    Some(client.tunnel().visit(visit.clone()))
                }
                (None, Some(chain)) => {
                    let chain = chains.get(chain).ok_or_else(|| anyhow!("no chain named `{chain}`"))?;
                    Some(chain.clone() as Arc<dyn Connect>)
                }
                (None, None) => None,
            };
            builder.build(spec.clone(), via)?;
        }
        let groups = builder.groups;
        let Outside { finder, own, .. } = &self.outside;
        let egress = |(name, spec)| -> anyhow::Result<_> {
            let egress = Egress::new(spec, &chains, finder.clone(), own.clone());
            Ok((Arc::clone(name), egress.with_context(|| format!("egress `{name}`"))?))
        };
        let egresses = plan.egresses.iter().map(egress).collect::<anyhow::Result<_>>()?;
        Ok(Ways { groups, egresses, chains })
    }
}

/// Makes groups, those of chains among them.
struct Builder<'a> {
    house: &'a House,
    plan: &'a Plan,
    certificates: &'a mut Renewal,
    groups: BTreeMap<Arc<str>, Arc<Group>>,
}

impl Builder<'_> {
    fn build(&mut self, spec: GroupSpec, via: Option<Arc<dyn Connect>>) -> anyhow::Result<Arc<Group>> {
        let house = self.house;
        let mut connector = |tls: &_| house.tls.connector(tls, self.certificates);
        let for_checks = spec.check_tls().map(|tls| connector(&tls)).transpose()?;
        let connector = spec.tls.as_ref().map(connector).transpose()?;
        let name = spec.name.clone();
        let group = house.peers.build_through(spec, [connector, for_checks], via);
        self.groups.insert(name, group.clone());
        Ok(group)
    }
}

impl Workshop for Builder<'_> {
    type Error = anyhow::Error;

    fn group(&mut self, name: &Arc<str>, via: Option<Arc<dyn Connect>>) -> anyhow::Result<Arc<Group>> {
        let spec = self.plan.groups.get(name).ok_or_else(|| anyhow!("no group named `{name}`"))?;
        let mut spec = spec.clone();
        if via.is_some() {
            // Its name is that of the chain and a number.
            spec.via = name.rsplit_once('/').map(|(chain, _)| chain.into());
        }
        self.build(spec, via)
    }

    fn connector(&mut self, spec: &ConnectorSpec) -> anyhow::Result<Arc<Connector>> {
        Ok(self.house.tls.connector(spec, self.certificates)?)
    }
}
