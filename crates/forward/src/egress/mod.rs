//! Where clients may go, and by which way.
//!
//! What lives here: the rules of an `[egress]` and its routes, from their text to the answer for a visit; what an address is
//! for; the addresses that we listen on ourselves. What must not: who the client is ([`users`](crate::users)), the protocols
//! that it asks by, how proxies are talked to ([`chain`](crate::chain)).
//!
//! A visit passes through so. [`Egress::way`] asks the routes for the way out and judges what the client wrote: a name by
//! the rules about names and ports, an address by all of them. Nothing is resolved for a visit that is denied by then.
//! [`Egress::open`] goes there. Behind a chain whoever is last resolves names, so that only what was said of the name counts.
//! Otherwise the name is resolved here, once; **every** address is judged, and a single one that is denied forbids the
//! name, for nobody can tell which of them another look would give; and only addresses that were judged are connected to.
//!
//! What rules cost does not depend on how many there are. On 2026-11-23, on the two busy cores of the machine that builds
//! this, [`Egress::way`] took 0.2 us for a name and 0.1 us for an address with 30 rules as with 300,000 (names, suffixes and
//! networks, 100,000 of each), which took 24 MB and 1.6 s to put together. `cost_of_many_rules` in the tests measures it.

mod class;
mod counts;
mod hours;
mod list;
mod names;
mod nets;
mod own;
mod policy;
mod ports;
mod problem;
mod refusal;
mod routes;
mod rule;
mod sets;
mod ways;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wmproxy_http::forward::{Kind, Opened, Visit, Way};
use wmproxy_net::addr::Protocol;
use wmproxy_net::connect::{Connect, ConnectError, Fault};
use wmproxy_net::sockopt::{PeerSocket, Source};
use wmproxy_upstream::{Finder, connect_first};
use wmproxy_wire::destination::{Destination, Host};

use crate::chain::{Chain, Chains};
use crate::options::{EgressSpec, RouteTarget};
pub use counts::denials;
use hours::{Clock, Minute};
use list::{List, Said};
pub use own::OwnListeners;
use policy::{Denial, Policy};
pub use problem::{RuleError, RulePlace, check_domain, check_rule};
use routes::Routes;
use rule::Rule;
use ways::{Out, Ways, out};

/// The rules of one `[egress]`, ready for use by every worker.
#[derive(Debug)]
pub struct Egress {
    name: Arc<str>,
    policy: Policy,
    routes: Routes,
    /// Where each route leads; none where it rejects.
    targets: Box<[Option<Way>]>,
    direct: Way,
    source: Option<Source>,
    /// Asked only if some rule is for some hours.
    clock: Option<Clock>,
    finder: Arc<Finder>,
    own: Arc<OwnListeners>,
}

/// How datagrams go their way.
#[derive(Debug, Clone)]
pub enum DatagramWay {
    /// By a socket of ours.
    Direct,
    /// Through a proxy.
    Chain(Arc<Chain>),
}

impl Egress {
    /// Makes rules ready for use. Names are found by `finder`; `own` is where we listen, as of whenever it is asked.
    ///
    /// # Errors
    /// The first rule that can't be used.
    pub fn new(
        spec: &EgressSpec,
        chains: &Chains,
        finder: Arc<Finder>,
        own: Arc<OwnListeners>,
    ) -> Result<Arc<Egress>, RuleError> {
        let bad = |place, text| RuleError { egress: Arc::clone(&spec.name), place, text };
        let rules = |texts: &[Box<str>], place: fn(usize) -> RulePlace| {
            let rules =
                texts.iter().enumerate().map(|(at, text)| text.parse().map_err(|text| bad(place(at), text)));
            rules.collect::<Result<Vec<Rule>, RuleError>>()
        };
        let allow = rules(&spec.allow, RulePlace::Allow)?;
        let policy = Policy {
            private: spec.private,
            allow: (!allow.is_empty()).then(|| List::new(allow)),
            deny: List::new(rules(&spec.deny, RulePlace::Deny)?),
            deny_ports: spec.deny_ports.iter().map(|port| *port..=*port).collect(),
        };
        let routes = Routes::new(&spec.routes)
            .map_err(|(route, index, text)| bad(RulePlace::Domain { route, index }, text))?;
        let mut ways = Ways::new();
        let direct = ways.of("direct", Out::Direct);
        let targets = spec.routes.iter().enumerate().map(|(route, spec)| match &spec.via {
            RouteTarget::Direct => Ok(Some(direct.clone())),
            RouteTarget::Reject => Ok(None),
            RouteTarget::Chain(name) => {
                let chain = chains.get(name).ok_or_else(|| {
                    bad(
                        RulePlace::Via { route },
                        format!("there is no [chain.{name}]; other ways are \"direct\" and \"reject\""),
                    )
                })?;
                Ok(Some(ways.of(name, Out::Chain(Arc::clone(chain)))))
            }
        });
        let targets = targets.collect::<Result<_, RuleError>>()?;
        Ok(Arc::new(Egress {
            name: Arc::clone(&spec.name),
            clock: policy.has_hours().then(Clock::system),
            policy,
            routes,
            targets,
            direct,
            source: spec.source,
            finder,
            own,
        }))
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The address that connections and datagrams come from, if not any.
    pub fn source(&self) -> Option<Source> {
        self.source
    }

    /// Whether a visit is allowed, as far as that shows before its name is resolved, and by which way. Waits for nothing and
    /// allocates nothing, unless it is to say no.
    ///
    /// # Errors
    /// [`Fault::Denied`].
    pub fn way(&self, visit: &Visit<'_>) -> Result<Way, ConnectError> {
        self.way_at(visit, self.now())
    }

    fn way_at(&self, visit: &Visit<'_>, at: Minute) -> Result<Way, ConnectError> {
        let way = match self.routes.first(visit) {
            Some(route) => self.targets[route].as_ref().ok_or(Denial::Rejected),
            None => Ok(&self.direct),
        };
        let way = way.map_err(|denial| self.refuse(denial, visit))?;
        let judged = match &visit.to.host {
            Host::Ip(ip) => self.judge(*ip, visit, Said::default(), at),
            Host::Name(name) => {
                self.policy.name(name, visit.to.port, out(way)?.resolves_here(), at).map(drop)
            }
        };
        judged.map_err(|denial| self.refuse(denial, visit))?;
        Ok(Way {
            name: Arc::clone(&way.name),
            key: self.key(way.key, visit, at),
            inner: Arc::clone(&way.inner),
        })
    }

    /// What a connection has to have in common with another to stand in for it, beside the destination.
    fn key(&self, way: u64, visit: &Visit<'_>, at: Minute) -> u64 {
        let source = match self.source {
            Some(Source::Client) => visit.client.map(|client| client.ip()),
            Some(Source::Address(_)) | None => None,
        };
        if source.is_none() && self.clock.is_none() {
            return way;
        }
        // A connection of the hours in which other rules held was judged by those.
        let mut hasher = DefaultHasher::new();
        (way, source).hash(&mut hasher);
        self.policy.holding(at).for_each(|holds| holds.hash(&mut hasher));
        hasher.finish()
    }

    /// Goes where a visit wants to, by the way that it was given. Resolving and connecting have `limit` for all of it.
    ///
    /// # Errors
    /// [`Fault::Denied`] for what addresses turn out to be; how it failed.
    pub async fn open(
        &self,
        visit: Visit<'_>,
        way: &Way,
        socket: &PeerSocket,
        limit: Duration,
    ) -> Result<Opened, ConnectError> {
        let begun = Instant::now();
        let opening = async {
            match out(way)? {
                Out::Direct => {
                    self.open_directly(&visit, socket).await.map(|(stream, to)| (stream, Some(to)))
                }
                Out::Chain(chain) => self.open_through(chain, &visit).await.map(|stream| (stream, None)),
            }
        };
        let (stream, address) = match tokio::time::timeout(limit, opening).await {
            Ok(opened) => opened?,
            Err(_) => {
                let text = format!("{} did not answer within {}s", visit.to, limit.as_secs_f32());
                return Err(ConnectError::new(Fault::TimedOut, text));
            }
        };
        Ok(Opened { stream, address, connect_time: begun.elapsed() })
    }

    async fn open_directly(
        &self,
        visit: &Visit<'_>,
        socket: &PeerSocket,
    ) -> Result<(wmproxy_net::stream::Stream, SocketAddr), ConnectError> {
        let addresses = self.resolve(visit).await?;
        let client = visit.client.map(|client| client.ip());
        let connected = match self.source {
            None => connect_first(&addresses, socket, client).await,
            source => connect_first(&addresses, &PeerSocket { source, ..socket.clone() }, client).await,
        };
        Ok(connected?)
    }

    async fn open_through(
        &self,
        chain: &Arc<Chain>,
        visit: &Visit<'_>,
    ) -> Result<wmproxy_net::stream::Stream, ConnectError> {
        if chain.takes_names() {
            self.check(visit)?;
            return chain.connect(visit.to).await;
        }
        let addresses = self.resolve(visit).await?;
        let Some(address) = addresses.iter().find(|address| address.is_ipv4()) else {
            return Err(ConnectError::new(Fault::Unsupported, format!("{} has no IPv4 address", visit.to)));
        };
        chain.connect(&Destination::from(*address)).await
    }

    /// Checks again what [`way`](Egress::way) has: rules, hours and listeners may be others by now.
    fn check(&self, visit: &Visit<'_>) -> Result<(), ConnectError> {
        let at = self.now();
        let checked = match &visit.to.host {
            Host::Ip(ip) => self.judge_whole(*ip, visit, Said::default(), at),
            Host::Name(name) => self.policy.name(name, visit.to.port, false, at).map(drop),
        };
        checked.map_err(|denial| self.refuse(denial, visit))
    }

    /// Whether a visit may go to this address: that of its destination, or one that its name has.
    ///
    /// # Errors
    /// [`Fault::Denied`].
    pub fn permits(&self, address: SocketAddr, visit: &Visit<'_>) -> Result<(), ConnectError> {
        let at = self.now();
        let said = self.said(visit, at)?;
        let visit_there =
            Visit { to: &Destination { host: visit.to.host.clone(), port: address.port() }, ..*visit };
        self.judge_whole(address.ip(), &visit_there, said, at)
            .map_err(|denial| self.refuse_found(address, denial, visit))
    }

    /// The addresses of a visit's destination, every one of which was judged; at least one.
    ///
    /// # Errors
    /// [`Fault::Denied`], also where only one of several is; that the name has no addresses.
    pub async fn resolve(&self, visit: &Visit<'_>) -> Result<Vec<SocketAddr>, ConnectError> {
        let port = visit.to.port;
        let name = match &visit.to.host {
            Host::Ip(ip) => {
                let judged = self.judge_whole(*ip, visit, Said::default(), self.now());
                judged.map_err(|denial| self.refuse(denial, visit))?;
                return Ok(vec![SocketAddr::new(ip.to_canonical(), port)]);
            }
            Host::Name(name) => name,
        };
        self.said(visit, self.now())?;
        let found = self.finder.find(name, visit.client.map(|client| client.ip())).await?;
        let at = self.now();
        let said = self.said(visit, at)?;
        let judged = found.iter().map(|ip| {
            let address = SocketAddr::new(ip.to_canonical(), port);
            let judged = self.judge_whole(*ip, visit, said, at);
            judged.map(|()| address).map_err(|denial| self.refuse_found(address, denial, visit))
        });
        judged.collect()
    }

    /// How datagrams go a way.
    pub fn datagram_way(&self, way: &Way) -> DatagramWay {
        match way.inner.downcast_ref() {
            Some(Out::Chain(chain)) => DatagramWay::Chain(Arc::clone(chain)),
            Some(Out::Direct) | None => DatagramWay::Direct,
        }
    }

    /// What is said of the name of a visit that is to be resolved here; nothing of an address.
    fn said(&self, visit: &Visit<'_>, at: Minute) -> Result<Said, ConnectError> {
        match &visit.to.host {
            Host::Ip(_) => Ok(Said::default()),
            Host::Name(name) => {
                self.policy.name(name, visit.to.port, true, at).map_err(|denial| self.refuse(denial, visit))
            }
        }
    }

    fn judge(&self, ip: IpAddr, visit: &Visit<'_>, name: Said, at: Minute) -> Result<(), Denial> {
        self.policy.address(ip, visit.to.port, name, at).map(drop)
    }

    /// Judges by the rules, and by where we listen. The latter may need a question to the system, which is left to the time
    /// when there is something to be connected.
    fn judge_whole(&self, ip: IpAddr, visit: &Visit<'_>, name: Said, at: Minute) -> Result<(), Denial> {
        let said = self.policy.address(ip, visit.to.port, name, at)?;
        let protocol = if visit.kind == Kind::Udp { Protocol::Udp } else { Protocol::Tcp };
        if !said.exact && self.own.hold(protocol, SocketAddr::new(ip, visit.to.port)) {
            return Err(Denial::Own);
        }
        Ok(())
    }

    fn now(&self) -> Minute {
        self.clock.as_ref().map_or_else(Minute::default, Clock::minute)
    }
}

#[cfg(test)]
mod tests;
