//! What visitors come to by http and https: all exposures share the same addresses, and a request's host and path, or the name
//! in a ClientHello, tell them apart.
//!
//! The routes of all fronts are made of the exposures, and put in place as a whole whenever these change. A front that a
//! generation prepares has them from its first connection on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use wmproxy_http::filter::Tables;
use wmproxy_http::options::{HttpSpec, RouteSpec};
use wmproxy_http::traffic::Traffic;
use wmproxy_http::{BuildError, HttpService, RequestLog};
use wmproxy_net::record::AccessLog;
use wmproxy_net::tls::Acceptor;
use wmproxy_stream::route::{NamePattern, Routes};
use wmproxy_stream::tcp::TcpService;
use wmproxy_tunnel::server::{Exposure, Place};
use wmproxy_upstream::Group;
use wmproxy_wire::tunnel::message::{Kind, Refusal, RefusalCode};

use super::group::Groups;
use super::rules;
use super::sni::{Names, Onward, SniService};
use super::spot::{self, PortsSpec};

/// The fronts, and what they lead to.
pub(super) struct Fronts {
    groups: Groups,
    filters: Arc<Tables>,
    traffic: Arc<Traffic>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    offered: HashMap<Arc<str>, Offered>,
    leads: Leads,
    /// Those of the generation at work, and of those before as long as they have connections.
    http: Vec<Weak<HttpService>>,
    https: Vec<Weak<SniService>>,
}

/// An exposure, and what leads to it.
struct Offered {
    exposure: Exposure,
    group: Arc<Group>,
    lead: Lead,
}

#[derive(Clone)]
enum Lead {
    /// By http, or behind our own TLS.
    Routes(Vec<RouteSpec>),
    /// The bytes of its TLS go on as they are.
    Relay(Arc<TcpService>),
}

/// What leads to all exposures.
struct Leads {
    http: Vec<RouteSpec>,
    /// Those behind our own TLS.
    https: Vec<RouteSpec>,
    names: Names,
    groups: HashMap<Arc<str>, Arc<Group>>,
}

impl Default for Leads {
    fn default() -> Self {
        Leads { http: Vec::new(), https: Vec::new(), names: Routes::new(None), groups: HashMap::new() }
    }
}

impl Fronts {
    /// No front, and nothing to lead to.
    pub(super) fn new(groups: Groups, filters: Arc<Tables>, traffic: Arc<Traffic>) -> Fronts {
        Fronts { groups, filters, traffic, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What it holds is put in its place whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A front for http. The routes of `spec` mean nothing.
    ///
    /// # Errors
    /// What in the spec makes no sense.
    pub(super) fn http(
        &self,
        spec: HttpSpec,
        log: Option<Arc<dyn RequestLog>>,
    ) -> Result<Arc<HttpService>, BuildError> {
        let state = &mut *self.state();
        let service = self.service(spec, &state.leads.http, &state.leads, None, log)?;
        state.http.push(Arc::downgrade(&service));
        Ok(service)
    }

    /// A front for https. `tls` is for what asks for that; requests are written to `log`, and connections that are passed on
    /// to `relayed`.
    ///
    /// # Errors
    /// What in the spec makes no sense.
    pub(super) fn https(
        &self,
        spec: HttpSpec,
        tls: Option<Arc<Acceptor>>,
        log: Option<Arc<dyn RequestLog>>,
        relayed: Option<Arc<dyn AccessLog>>,
    ) -> Result<Arc<SniService>, BuildError> {
        let state = &mut *self.state();
        // A PROXY header comes once, and is read where the ClientHello is.
        let behind = HttpSpec { proxy_protocol: None, ..spec.clone() };
        let http = self.service(behind, &state.leads.https, &state.leads, tls.clone(), log)?;
        let service = SniService::new(spec, Arc::new(state.leads.names.clone()), http, tls, relayed);
        state.https.push(Arc::downgrade(&service));
        Ok(service)
    }

    fn service(
        &self,
        spec: HttpSpec,
        routes: &[RouteSpec],
        leads: &Leads,
        tls: Option<Arc<Acceptor>>,
        log: Option<Arc<dyn RequestLog>>,
    ) -> Result<Arc<HttpService>, BuildError> {
        let spec = HttpSpec { routes: routes.into(), ..spec };
        let traffic = self.traffic.listener(&spec.name);
        HttpService::new_changing(
            spec,
            |name| leads.groups.get(name).cloned(),
            tls,
            log,
            traffic,
            &self.filters,
        )
    }

    /// Leads to these exposures from now on and to no others, as `spec` says; to those that are as before as before, unless
    /// `is_new` says that the spec is another one.
    pub(super) fn publish(
        &self,
        wanted: &[&Exposure],
        spec: &PortsSpec,
        is_new: bool,
    ) -> Vec<Result<Vec<Place>, Refusal>> {
        let state = &mut *self.state();
        state.http.retain(|front| front.strong_count() > 0);
        state.https.retain(|front| front.strong_count() > 0);
        let mut before = std::mem::take(&mut state.offered);
        let mut leads = Leads::default();
        let mut results = Vec::with_capacity(wanted.len());
        for exposure in wanted {
            let kept = before.remove(&exposure.name).filter(|kept| !is_new && kept.exposure == **exposure);
            let offered = kept.map_or_else(|| self.offer(exposure, spec, state), Ok);
            let result = offered.and_then(|offered| {
                leads.add(&offered)?;
                state.offered.insert(exposure.name.clone(), offered);
                spot::urls(exposure, spec)
            });
            results.push(result);
        }
        for routes in [&mut leads.http, &mut leads.https] {
            routes.sort_by_key(|route| std::cmp::Reverse(rules::depth(route)));
        }
        let is_gone = |name: &Arc<str>| !leads.groups.contains_key(name);
        let gone = state.leads.groups.iter().filter(|(name, _)| is_gone(name));
        gone.for_each(|(_, group)| group.close_idle());
        state.leads = leads;
        if let Err(error) = self.show(state) {
            tracing::error!(%error, "the routes of the tunnel stay as they were");
        }
        results
    }

    fn offer(&self, exposure: &Exposure, spec: &PortsSpec, state: &State) -> Result<Offered, Refusal> {
        // That there is a front at all.
        spot::urls(exposure, spec)?;
        let is_relayed = exposure.kind == Kind::Https && !exposure.terminate;
        if exposure.kind == Kind::Https && exposure.terminate {
            let front = state.https.iter().rev().find_map(Weak::upgrade);
            is_covered(exposure, front.as_ref().and_then(|front| front.tls()))?;
        }
        let group = self.groups.of(exposure, spec.patience);
        let lead = if is_relayed {
            Lead::Relay(TcpService::new(
                spot::stream(exposure, spec),
                Arc::new(Routes::to(group.clone())),
                None,
            ))
        } else {
            Lead::Routes(rules::routes(exposure)?)
        };
        Ok(Offered { exposure: exposure.clone(), group, lead })
    }

    /// Has every front lead as the state says.
    fn show(&self, state: &State) -> Result<(), BuildError> {
        let leads = &state.leads;
        let group = |name: &str| leads.groups.get(name).cloned();
        for front in state.http.iter().filter_map(Weak::upgrade) {
            front.reroute(&leads.http, group, &self.filters)?;
        }
        if state.https.is_empty() {
            return Ok(());
        }
        let names = Arc::new(leads.names.clone());
        for front in state.https.iter().filter_map(Weak::upgrade) {
            front.http().reroute(&leads.https, group, &self.filters)?;
            front.rename(names.clone());
        }
        Ok(())
    }

    /// The groups behind all exposures.
    pub(super) fn groups(&self) -> Vec<Arc<Group>> {
        self.state().leads.groups.values().cloned().collect()
    }
}

/// Whether our certificates are for the hosts of an exposure.
fn is_covered(exposure: &Exposure, tls: Option<&Arc<Acceptor>>) -> Result<(), Refusal> {
    let Some(tls) = tls else {
        return Err(rules::invalid("the server has no certificates to end TLS with"));
    };
    match exposure.hosts.iter().find(|host| !tls.covers(&host.to_ascii_lowercase())) {
        Some(host) => Err(rules::invalid(format!("the server has no certificate for `{host}`"))),
        None => Ok(()),
    }
}

impl Leads {
    /// # Errors
    /// Another exposure has a name of it.
    fn add(&mut self, offered: &Offered) -> Result<(), Refusal> {
        let Offered { exposure, group, lead } = offered;
        if exposure.kind == Kind::Https {
            let onward = match lead {
                Lead::Routes(_) => Onward::Here,
                Lead::Relay(relay) => Onward::Relay(relay.clone()),
            };
            self.add_names(exposure, &onward)?;
        }
        match lead {
            Lead::Routes(routes) if exposure.kind == Kind::Https => self.https.extend_from_slice(routes),
            Lead::Routes(routes) => self.http.extend_from_slice(routes),
            Lead::Relay(_) => {}
        }
        self.groups.insert(exposure.name.clone(), group.clone());
        Ok(())
    }

    fn add_names(&mut self, exposure: &Exposure, onward: &Onward) -> Result<(), Refusal> {
        let mut patterns = Vec::with_capacity(exposure.hosts.len());
        for host in &exposure.hosts {
            let pattern =
                NamePattern::parse(host).map_err(|why| rules::invalid(format!("`{host}`: {why}")))?;
            match (self.names.named(&pattern), onward) {
                (None, _) => patterns.push(pattern),
                (Some(Onward::Here), Onward::Here) => {}
                (Some(_), _) => {
                    let text = format!("`{host}` belongs to another service");
                    return Err(Refusal { code: RefusalCode::InUse, text });
                }
            }
        }
        // All of them or none: a service that is refused must not take the names of others.
        for pattern in patterns {
            self.names.add_name(pattern, onward.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_refused_for_one_host_gets_none() {
        let hosts = |hosts: &[&str]| Exposure {
            name: "https:home/web".into(),
            kind: Kind::Https,
            port: 0,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            paths: Vec::new(),
            visitors: Vec::new(),
            terminate: true,
            max_connections: 0,
            http: Default::default(),
            members: Vec::new(),
        };
        let mut leads = Leads::default();
        let host: NamePattern = NamePattern::parse("a.example").unwrap();
        assert!(leads.add_names(&hosts(&["a.example", "b..example"]), &Onward::Here).is_err());
        assert!(leads.names.named(&host).is_none());
        for _ in 0..2 {
            assert!(leads.add_names(&hosts(&["a.example", "*.b.example"]), &Onward::Here).is_ok());
        }
        assert!(leads.names.named(&host).is_some());
    }
}
