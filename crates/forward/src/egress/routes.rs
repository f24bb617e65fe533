//! Which way a visit goes: the first route that fits.

use std::collections::HashSet;
use std::sync::Arc;

use ipnet::IpNet;
use wmproxy_http::forward::{Kind, Visit};
use wmproxy_net::acl::{Acl, Prefix};
use wmproxy_wire::destination::Host;

use super::names::Names;
use super::nets::Nets;
use super::ports::Ports;
use super::rule::Domain;
use crate::options::EgressRouteSpec;

/// The routes of an egress. A lookup costs the same for many domains and networks as for few.
#[derive(Debug)]
pub(super) struct Routes {
    names: Names,
    nets: Nets,
    /// Those for any destination.
    anywhere: Box<[u32]>,
    routes: Box<[Route]>,
}

/// What a route asks beside the destination's host.
#[derive(Debug)]
struct Route {
    ports: Option<Ports>,
    clients: Option<Acl>,
    users: Option<HashSet<Arc<str>>>,
    protocols: Box<[Kind]>,
}

impl Routes {
    /// Puts routes together. An error says which route it is, which of its domains, and why.
    pub(super) fn new(specs: &[EgressRouteSpec]) -> Result<Routes, (usize, usize, String)> {
        let (mut names, mut nets, mut anywhere) = (Vec::new(), Vec::new(), Vec::new());
        let mut routes = Vec::with_capacity(specs.len());
        for ((index, spec), number) in specs.iter().enumerate().zip(0u32..) {
            for (at, text) in spec.domains.iter().enumerate() {
                let domain: Domain = text.parse().map_err(|error| (index, at, error))?;
                names.push((domain, number));
            }
            nets.extend(spec.cidrs.iter().map(|net| (net.canonical(), number)));
            if spec.domains.is_empty() && spec.cidrs.is_empty() {
                anywhere.push(number);
            }
            routes.push(Route::new(spec));
        }
        Ok(Routes {
            names: Names::new(names),
            nets: Nets::new(nets),
            anywhere: anywhere.into(),
            routes: routes.into(),
        })
    }

    /// The index of the first route that fits.
    pub(super) fn first(&self, visit: &Visit<'_>) -> Option<usize> {
        let mut best = self.first_of(&self.anywhere, visit, self.routes.len());
        let see = |items: &[u32]| best = self.first_of(items, visit, best);
        match &visit.to.host {
            Host::Name(name) => self.names.find(name, see),
            Host::Ip(ip) => self.nets.find(ip.to_canonical(), see),
        }
        (best < self.routes.len()).then_some(best)
    }

    /// The index of the route that all visits of a guest take, wherever they go, if there is one. Of the visit only who makes
    /// it counts.
    pub(super) fn only(&self, visit: &Visit<'_>) -> Option<usize> {
        let (route, index) = self.routes.iter().zip(0..).find(|(route, _)| route.is_for(visit))?;
        (route.ports.is_none() && self.anywhere.contains(&index)).then_some(index as usize)
    }

    /// The first of these that fits, if it is before `best`.
    fn first_of(&self, items: &[u32], visit: &Visit<'_>, best: usize) -> usize {
        let mut items = items.iter().map(|item| *item as usize).take_while(|item| *item < best);
        items.find(|item| self.routes[*item].fits(visit)).unwrap_or(best)
    }
}

impl Route {
    fn new(spec: &EgressRouteSpec) -> Route {
        let nets = |list: &[Prefix]| list.iter().map(|prefix| prefix.net()).collect::<Vec<IpNet>>();
        Route {
            ports: (!spec.ports.is_empty()).then(|| spec.ports.iter().cloned().collect()),
            clients: (!spec.clients.is_empty()).then(|| Acl::new(&nets(&spec.clients), &[])),
            users: (!spec.users.is_empty()).then(|| spec.users.iter().cloned().collect()),
            protocols: spec.protocols.as_slice().into(),
        }
    }

    fn fits(&self, visit: &Visit<'_>) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(visit.to.port)) && self.is_for(visit)
    }

    /// Whether it fits who makes a visit.
    fn is_for(&self, visit: &Visit<'_>) -> bool {
        let is_user = |users: &HashSet<Arc<str>>| visit.guest.name().is_some_and(|name| users.contains(name));
        let is_client = |acl: &Acl| visit.client.is_some_and(|client| acl.permits(client.ip()));
        (self.protocols.is_empty() || self.protocols.contains(&visit.kind))
            && self.clients.as_ref().is_none_or(is_client)
            && self.users.as_ref().is_none_or(is_user)
    }
}
