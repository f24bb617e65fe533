//! Listeners that find out by routes who answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use wmproxy_net::tls::Acceptor;
use wmproxy_upstream::Group;
use wmproxy_wire::head::{Known, Method, Request, Scheme, authority, forwarded, path};
use wmproxy_wire::http1::Length;

use crate::exchange::{End, Exchange};
use crate::facts::{ConnFacts, Facts, Scene};
use crate::filter::{Pass, Tables, Verdict};
use crate::options::{HttpSpec, RouteSpec};
use crate::reply::{self, Failure};
use crate::route::{BuildError, Endpoint, Route};
use crate::router::{Router, Sought};
use crate::service::{Answers, HttpService, RequestLog, distrust};
use crate::traffic::ListenerTraffic;
use crate::vars::RequestId;

impl HttpService {
    /// A service whose routes [`reroute`](HttpService::reroute) may change while it runs; those of `spec` are what it begins
    /// with. What else there is, [`new`](HttpService::new) says.
    ///
    /// # Errors
    /// As `reroute`.
    pub fn new_changing(
        mut spec: HttpSpec,
        group: impl Fn(&str) -> Option<Arc<Group>>,
        tls: Option<Arc<Acceptor>>,
        log: Option<Arc<dyn RequestLog>>,
        traffic: Arc<ListenerTraffic>,
        tables: &Tables,
    ) -> Result<Arc<HttpService>, BuildError> {
        let routes = std::mem::take(&mut spec.routes);
        let router = compile(&spec, &routes, group, &traffic, tables)?;
        let answers = Answers::Changing(ArcSwap::from_pointee(router));
        Ok(HttpService::answering(answers, spec, tls, log, traffic))
    }

    /// Puts `routes` in the place of those that there are, from the next request of every connection on; requests under way
    /// keep theirs. Nothing happens in a service that [`new_changing`](HttpService::new_changing) did not make.
    ///
    /// # Errors
    /// What in them makes no sense; then nothing has changed.
    pub fn reroute(
        &self,
        routes: &[RouteSpec],
        group: impl Fn(&str) -> Option<Arc<Group>>,
        tables: &Tables,
    ) -> Result<(), BuildError> {
        if let Answers::Changing(now) = &self.answers {
            now.store(Arc::new(compile(self.spec(), routes, group, &self.traffic, tables)?));
        }
        Ok(())
    }

    /// Finds the route of a request.
    pub(crate) fn route_of<'r>(
        &self,
        router: &'r Router<Route>,
        ex: &mut Exchange<'_, '_>,
    ) -> Result<&'r Route, Failure> {
        self.identify(ex.request, ex.facts, ex.conn)?;
        if matches!(ex.body, Length::Known(length) if length > self.spec().limits.body.bytes()) {
            return Err(Failure::Status(413));
        }
        let sought = Sought {
            host: &ex.facts.host,
            path: &ex.facts.path,
            request: ex.request,
            client: ex.facts.client.map(|client| client.ip()),
        };
        let found = router.find_certain(&sought).map_err(|_| Failure::Status(400))?;
        let route = found.ok_or(Failure::Status(404))?;
        ex.facts.route = Some(Arc::clone(&route.name));
        Ok(route)
    }

    /// Has a request pass its route's filters, and the route's endpoint answer. Where none of them does, the client is told by
    /// way of the same filters.
    pub(crate) async fn lead(&self, ex: &mut Exchange<'_, '_>, route: &Route) -> Result<End, Failure> {
        let (filters, mut pass) = (&route.filters, Pass::default());
        let led = match ex.admit(filters, &mut pass).await {
            Ok(Verdict::Pass) => self.hand_to(ex, route, &pass).await,
            Ok(Verdict::Refuse) => {
                let body = reply::usual_body(ex.response);
                Ok(End::from(ex.deliver(filters, &pass, body.as_bytes()).await))
            }
            Err(failure) => Err(failure),
        };
        match led {
            Err(Failure::Status(status)) if !ex.has_begun => {
                let body = reply::plain(status, ex.response);
                distrust(ex, status);
                Ok(End::from(ex.deliver(filters, &pass, body.as_bytes()).await))
            }
            led => led,
        }
    }

    async fn hand_to(&self, ex: &mut Exchange<'_, '_>, route: &Route, pass: &Pass) -> Result<End, Failure> {
        let filters = &route.filters;
        let scene = Scene { conn: ex.conn, request: ex.request, response: None, facts: ex.facts };
        match &route.endpoint {
            Endpoint::Reverse(reverse) => {
                let end = reverse.answer(ex, route, pass).await;
                // It goes when the client has its answer, and so takes nothing from it.
                if let (Some(copy), Some(watcher), true) = (ex.copy.take(), &route.watcher, ex.up.is_done()) {
                    watcher.send(*copy, ex.facts.client);
                }
                end
            }
            Endpoint::Files(files) => files.answer(ex, filters, pass).await,
            Endpoint::Redirect(redirect) => {
                redirect.answer(&scene, ex.response);
                Ok(End::from(ex.deliver(filters, pass, b"").await))
            }
            Endpoint::Respond(fixed) => {
                let mut body = Vec::new();
                fixed.answer(&scene, ex.response, &mut body);
                Ok(End::from(ex.deliver(filters, pass, &body).await))
            }
        }
    }

    /// Finds out whom a request is for, and from whom it comes: once, for all who want to know.
    fn identify(&self, request: &Request, facts: &mut Facts, conn: &ConnFacts) -> Result<(), Failure> {
        if request.method == Method::Connect {
            // For a forward proxy.
            return Err(Failure::Status(501));
        }
        if let Some(text) = request.authority() {
            let authority = authority::parse(text).map_err(|_| Failure::Status(400))?;
            facts.port = authority.port;
            let mut host = std::mem::take(&mut facts.host).into_bytes();
            authority.host.write(&mut host);
            if host.first() == Some(&b'[') {
                host.pop();
                host.remove(0);
            }
            // What a host may hold is ASCII.
            facts.host = String::from_utf8(host).map_err(|_| Failure::Status(400))?;
        }
        path::normalise(request.raw_path(), &mut facts.path).map_err(|_| Failure::Status(400))?;
        if self.trusts(conn.client) {
            facts.client = self.client_before(request, conn.client);
            match request.fields.list(Known::XForwardedProto).last() {
                Some(b"https") => facts.scheme = Scheme::Https,
                Some(b"http") => facts.scheme = Scheme::Http,
                _ => {}
            }
            if let Some(id) = request.fields.get(Known::XRequestId).and_then(RequestId::believed) {
                facts.request_id = id.into();
            }
        }
        Ok(())
    }

    /// The client that trusted proxies name.
    fn client_before(&self, request: &Request, from: Option<SocketAddr>) -> Option<SocketAddr> {
        // Nobody comes from there: it stands for a unix socket.
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let is_trusted = |ip: IpAddr| ip == nowhere || self.trusts(Some(SocketAddr::new(ip, 0)));
        let start = from.map_or(nowhere, |from| from.ip());
        let client = forwarded::client_by_x_forwarded_for(&request.fields, start, is_trusted);
        if client == start { from } else { Some(SocketAddr::new(client, 0)) }
    }
}

/// The routes of a listener with `spec`, put together.
///
/// # Errors
/// What in them makes no sense.
pub(crate) fn compile(
    spec: &HttpSpec,
    routes: &[RouteSpec],
    group: impl Fn(&str) -> Option<Arc<Group>>,
    traffic: &ListenerTraffic,
    tables: &Tables,
) -> Result<Router<Route>, BuildError> {
    let build = |route| Route::new(route, spec, &group, traffic, tables).map(Arc::new);
    let built: Vec<_> = routes.iter().map(build).collect::<Result<_, _>>()?;
    let matches = routes.iter().map(|route| route.matches.clone());
    Ok(Router::new(matches.zip(built))?)
}
