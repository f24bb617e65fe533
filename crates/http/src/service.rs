//! What a listener does with its connections and with their requests.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::limit::Permit;
use wmproxy_net::preface::{self, Heard, Welcome};
use wmproxy_net::record::{AccessLog, Outcome, Record};
use wmproxy_net::stream::{ResetOnDrop, Stream};
use wmproxy_net::tls::Acceptor;
use wmproxy_upstream::Group;
use wmproxy_wire::head::{Known, Method, Request, Scheme, authority, forwarded, path};
use wmproxy_wire::http1::{HeadLimits, Length};

use crate::exchange::{End, Exchange, Passage};
use crate::facts::{ConnFacts, Facts, Scene};
use crate::filter::{Pass, Tables, Verdict};
use crate::live;
use crate::options::HttpSpec;
use crate::refusals::Refusals;
use crate::reply::{self, Failure};
use crate::route::{BuildError, Endpoint, Route};
use crate::router::{Router, Sought};
use crate::traffic::{ListenerTraffic, RouteTraffic};
use crate::vars::RequestId;
use crate::{h1, h2};

/// Serves the connections of a listener as its options say.
pub struct HttpService {
    spec: HttpSpec,
    router: Router<Route>,
    /// Ends the clients' TLS.
    tls: Option<Arc<Acceptor>>,
    log: Option<Arc<dyn RequestLog>>,
    traffic: Arc<ListenerTraffic>,
    /// Of requests without a route.
    unrouted: Arc<RouteTraffic>,
    limits: HeadLimits,
    /// Who serves the listener now, where that is somebody else: the next request of each connection goes there.
    successor: OnceLock<Arc<HttpService>>,
    /// The listener is out of service: connections end behind their request.
    retired: AtomicBool,
}

/// Where requests that are over are written. Must return at once: it is called on a worker.
pub trait RequestLog: Send + Sync {
    /// Takes one request.
    fn write(&self, scene: &Scene<'_>);
}

impl HttpService {
    /// A service with `spec`, of which `group` finds the groups by their names. With `tls` it ends the clients' TLS. Its
    /// requests are counted in `traffic`, and limited by what is known in `tables`.
    ///
    /// # Errors
    /// What in the spec makes no sense; of one that was checked only a group can be missing.
    pub fn new(
        spec: HttpSpec,
        group: impl Fn(&str) -> Option<Arc<Group>>,
        tls: Option<Arc<Acceptor>>,
        log: Option<Arc<dyn RequestLog>>,
        traffic: Arc<ListenerTraffic>,
        tables: &Tables,
    ) -> Result<Arc<HttpService>, BuildError> {
        let build = |route| Route::new(route, &spec, &group, &traffic, tables).map(Arc::new);
        let routes: Vec<_> = spec.routes.iter().map(build).collect::<Result<_, _>>()?;
        let matches = spec.routes.iter().map(|route| route.matches.clone());
        let router = Router::new(matches.zip(routes))?;
        let size = |size: wmproxy_wire::units::ByteSize| usize::try_from(size.get()).unwrap_or(usize::MAX);
        let limits = HeadLimits {
            bytes: size(spec.limits.header_bytes),
            target: size(spec.limits.target_bytes),
            fields: spec.limits.header_count as usize,
        };
        let (successor, retired) = (OnceLock::new(), AtomicBool::new(false));
        let unrouted = traffic.route(&Arc::from(""));
        Ok(Arc::new(HttpService { spec, router, tls, log, traffic, unrouted, limits, successor, retired }))
    }

    /// Where connections are to be written that end before their first request.
    pub fn refusals(&self) -> Option<Arc<dyn AccessLog>> {
        self.log.clone().map(|log| Arc::new(Refusals(log)) as Arc<dyn AccessLog>)
    }

    pub(crate) fn spec(&self) -> &HttpSpec {
        &self.spec
    }

    pub(crate) fn head_limits(&self) -> &HeadLimits {
        &self.limits
    }

    /// Whether what this one says of those before it is believed.
    pub(crate) fn trusts(&self, from: Option<SocketAddr>) -> bool {
        self.spec.trusted_proxies.as_ref().is_some_and(|trusted| trusted.covers(from))
    }

    /// Who serves in its place, if it was replaced.
    pub(crate) fn successor(&self) -> Option<Arc<HttpService>> {
        let mut newest = self.successor.get()?;
        while let Some(newer) = newest.successor.get() {
            newest = newer;
        }
        Some(Arc::clone(newest))
    }

    /// Whether its connections are to end as soon as they can.
    pub(crate) fn is_retired(&self) -> bool {
        match self.successor.get() {
            Some(newer) => newer.is_retired(),
            None => self.retired.load(Ordering::Relaxed),
        }
    }

    /// The life of a connection. A block and no `async fn`, which would hold its arguments twice (rust-lang/rust#62958).
    #[expect(clippy::manual_async_fn, reason = "see above")]
    fn run(self: Arc<Self>, conn: Conn) -> impl Future<Output = ()> {
        async move {
            let Conn { stream, mut record, mut permit } = conn;
            let facts = match self.welcome(&stream, &mut record, &mut permit).await {
                Ok(facts) => facts,
                Err(outcome) => return record.close(outcome),
            };
            let record = RefCell::new(record);
            // It is given away, for a connection may outlive what served its beginning.
            let served = match self.speaks_h1(&record) {
                true => h1::serve(self, &stream, &record, &facts).await,
                false => Err(self),
            };
            let outcome = match served {
                Ok(outcome) => outcome,
                // Boxed, for it is large, and the others don't pay for it.
                Err(service) => Box::pin(h2::serve(service, stream, &record, &facts)).await,
            };
            record.borrow_mut().close(outcome);
            drop(permit);
        }
    }

    /// Whether a connection begins with HTTP/1, as far as is known before its first byte.
    fn speaks_h1(&self, record: &RefCell<Record>) -> bool {
        let record = record.borrow();
        let agreed = record.preface.as_ref().and_then(|preface| preface.alpn.as_deref());
        match agreed {
            Some(protocol) => protocol != "h2",
            None => self.spec.h1,
        }
    }

    /// Looks at who comes, and hears what they have to say before their first request.
    async fn welcome(
        &self,
        stream: &Stream,
        record: &mut Record,
        permit: &mut Permit,
    ) -> Result<ConnFacts, Outcome> {
        let unfinished = ResetOnDrop::new(stream);
        let rules = Welcome {
            proxy_header: self.spec.proxy_protocol.as_ref(),
            optional_header: self.spec.trusted_proxies.as_ref(),
            acl: &self.spec.acl,
            tls: self.tls.as_deref(),
            wants_hello: false,
            timeout: self.spec.timeouts.preface.get(),
        };
        let session = if rules.is_silent(record) {
            rules.check(record).map(|()| Heard::Nothing)
        } else {
            // Boxed, for most listeners have none.
            Box::pin(preface::welcome(stream, record, permit, rules)).await
        };
        // Of TLS the handshake has said it already.
        if !matches!(session, Err(outcome) if outcome != Outcome::ClientTls) {
            unfinished.disarm();
        }
        let session = match session? {
            Heard::Session(session) => Some(session),
            Heard::Nothing | Heard::Hello(_) => None,
        };
        Ok(ConnFacts {
            listener: self.spec.name.clone(),
            client: record.client,
            local: record.local_address(),
            scheme: if session.is_some() { Scheme::Https } else { Scheme::Http },
            sni: session.and_then(|session| session.sni).map(Into::into),
        })
    }

    /// Has a request answered, by whoever its route leads to, and writes it down.
    pub(crate) async fn answer(&self, ex: &mut Exchange<'_, '_>) -> End {
        let _running = self.traffic.begin();
        let route = self.route_of(ex);
        let led = match &route {
            Ok(route) => self.lead(ex, route).await,
            Err(failure) => Err(*failure),
        };
        let end = match led {
            Ok(end) => end,
            Err(failure) => self.fail(ex, failure).await,
        };
        self.write_down(ex, &end, route.ok().map_or(&self.unrouted, |route| &route.traffic));
        end
    }

    /// Tells a client that its request is none.
    pub(crate) async fn refuse(&self, ex: &mut Exchange<'_, '_>, status: u16) -> End {
        let _running = self.traffic.begin();
        let end = self.fail(ex, Failure::Status(status)).await;
        self.write_down(ex, &end, &self.unrouted);
        end
    }

    async fn fail(&self, ex: &mut Exchange<'_, '_>, failure: Failure) -> End {
        match failure {
            Failure::Gone(outcome) => End::Cut(outcome),
            Failure::Status(_) if ex.has_begun => End::Cut(Outcome::PeerReset),
            Failure::Status(status) => {
                let body = reply::plain(status, ex.response);
                distrust(ex, status);
                End::from(ex.respond(body.as_bytes(), Passage::default()).await)
            }
        }
    }

    fn write_down(&self, ex: &mut Exchange<'_, '_>, end: &End, route: &RouteTraffic) {
        ex.facts.bytes_in += ex.up.moved;
        ex.facts.bytes_out += ex.down.moved;
        ex.count();
        route.count(ex.facts.status);
        ex.facts.outcome = Some(match *end {
            End::Done => {
                self.traffic.blocks.local().durations.record(ex.facts.began.elapsed());
                ex.facts.outcome.unwrap_or(Outcome::Done)
            }
            End::Cut(outcome) | End::Upgraded(outcome) => outcome,
        });
        if let Some(log) = &self.log {
            log.write(&ex.scene());
        }
    }

    /// Finds the route of a request.
    fn route_of(&self, ex: &mut Exchange<'_, '_>) -> Result<&Route, Failure> {
        self.identify(ex.request, ex.facts, ex.conn)?;
        if matches!(ex.body, Length::Known(length) if length > self.spec.limits.body.bytes()) {
            return Err(Failure::Status(413));
        }
        let sought = Sought {
            host: &ex.facts.host,
            path: &ex.facts.path,
            request: ex.request,
            client: ex.facts.client.map(|client| client.ip()),
        };
        let found = self.router.find_certain(&sought).map_err(|_| Failure::Status(400))?;
        let route = found.ok_or(Failure::Status(404))?;
        ex.facts.route = Some(Arc::clone(&route.name));
        Ok(route)
    }

    /// Has a request pass its route's filters, and the route's endpoint answer. Where none of them does, the client is told by
    /// way of the same filters.
    async fn lead(&self, ex: &mut Exchange<'_, '_>, route: &Route) -> Result<End, Failure> {
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

/// Ends the connection behind a request of which the rest is not to be believed. Behind a CONNECT that is refused (501)
/// bytes for the other end of its tunnel may have come already. Of a client that did not go on its outcome says so.
fn distrust(ex: &mut Exchange<'_, '_>, status: u16) {
    if matches!(status, 400 | 408 | 413 | 414 | 431 | 501) {
        ex.is_persistent = false;
    }
    if status == 408 {
        ex.facts.outcome = Some(Outcome::ClientSlow);
    }
}

impl Serve for HttpService {
    fn speaks_for_another(&self, from: Option<SocketAddr>) -> bool {
        self.trusts(from) || self.spec.proxy_protocol.as_ref().is_some_and(|trusted| trusted.covers(from))
    }

    fn serve(self: Arc<Self>, conn: Conn) -> Served {
        Box::pin(self.run(conn))
    }

    fn replaced(&self, by: &Arc<dyn Serve>) {
        let by: Arc<dyn std::any::Any + Send + Sync> = by.clone();
        match by.downcast::<HttpService>() {
            // Each worker says so, and all say the same.
            Ok(by) => drop(self.successor.set(by)),
            // It is no HTTP any more.
            Err(_) => self.retire(),
        }
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        live::wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: fn(Arc<HttpService>, Conn) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_waits_is_small() {
        // The future is what a connection holds besides its socket; what a request needs is on its desk.
        let size = size(HttpService::run);
        assert!(size <= 2688, "{size} bytes");
    }
}
