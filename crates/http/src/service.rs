//! What a listener does with its connections and with their requests.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::limit::Permit;
use wmproxy_net::preface::{self, Heard, Welcome};
use wmproxy_net::record::{AccessLog, Outcome, Record};
use wmproxy_net::stream::{ResetOnDrop, Stream};
use wmproxy_net::tls::Acceptor;
use wmproxy_upstream::Group;
use wmproxy_wire::http1::HeadLimits;

use crate::exchange::{End, Exchange, Passage};
use crate::facts::{ConnFacts, Scene};
use crate::filter::Tables;
use crate::forward::Gateway;
use crate::forward::serve::{Forward, Tunnel};
use crate::h1::Served as Left;
use crate::live;
use crate::options::HttpSpec;
use crate::refusals::Refusals;
use crate::reply::{self, Failure};
use crate::route::{BuildError, Route};
use crate::router::Router;
use crate::routes::compile;
use crate::traffic::{ListenerTraffic, RouteTraffic};
use crate::{h1, h2};

/// Serves the connections of a listener as its options say.
pub struct HttpService {
    spec: HttpSpec,
    pub(crate) answers: Answers,
    /// Ends the clients' TLS.
    tls: Option<Arc<Acceptor>>,
    log: Option<Arc<dyn RequestLog>>,
    pub(crate) traffic: Arc<ListenerTraffic>,
    /// Of requests without a route.
    unrouted: Arc<RouteTraffic>,
    limits: HeadLimits,
    /// Who serves the listener now, where that is somebody else: the next request of each connection goes there.
    successor: OnceLock<Arc<HttpService>>,
    /// The listener is out of service: connections end behind their request.
    retired: AtomicBool,
}

/// Who answers requests.
pub(crate) enum Answers {
    /// Whoever their routes lead to.
    Routes(Router<Route>),
    /// The same, where others may take the place of the routes while connections are open.
    Changing(ArcSwap<Router<Route>>),
    /// Whoever they name: this is a forward proxy.
    Forward(Forward),
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
        let router = compile(&spec, &spec.routes, group, &traffic, tables)?;
        Ok(HttpService::answering(Answers::Routes(router), spec, tls, log, traffic))
    }

    /// A forward proxy with `spec`, of which the routes mean nothing: `gateway` says who may go where, and by which way. Users
    /// are shown the `realm`, a valid value, when they are asked for a password.
    /// What a connection has to say before its first request somebody else hears; see
    /// [`serve_introduced`](HttpService::serve_introduced).
    pub fn new_forward(
        spec: HttpSpec,
        gateway: Arc<dyn Gateway>,
        realm: &str,
        log: Option<Arc<dyn RequestLog>>,
        traffic: Arc<ListenerTraffic>,
    ) -> Arc<HttpService> {
        HttpService::answering(Answers::Forward(Forward::new(gateway, realm)), spec, None, log, traffic)
    }

    pub(crate) fn answering(
        answers: Answers,
        spec: HttpSpec,
        tls: Option<Arc<Acceptor>>,
        log: Option<Arc<dyn RequestLog>>,
        traffic: Arc<ListenerTraffic>,
    ) -> Arc<HttpService> {
        let size = |size: wmproxy_wire::units::ByteSize| usize::try_from(size.get()).unwrap_or(usize::MAX);
        let limits = HeadLimits {
            bytes: size(spec.limits.header_bytes),
            target: size(spec.limits.target_bytes),
            fields: spec.limits.header_count as usize,
            any_host: matches!(answers, Answers::Forward(_)),
        };
        let (successor, retired) = (OnceLock::new(), AtomicBool::new(false));
        let unrouted = traffic.route(&Arc::from(""));
        Arc::new(HttpService { spec, answers, tls, log, traffic, unrouted, limits, successor, retired })
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
                true => h1::serve(self, &stream, &record, &facts, &permit).await,
                false => Left::Http2(self),
            };
            match served {
                Left::Ended(outcome) => record.borrow_mut().close(outcome),
                // Boxed, for it is large, and the others don't pay for it.
                left => go_on(left, Conn { stream, record: record.into_inner(), permit }, facts).await,
            }
        }
    }

    /// Serves a connection that has said what it has to say before its first request, and of which `facts` are known. The
    /// future holds no more than the connection needs while it is a tunnel.
    pub fn serve_introduced(self: Arc<Self>, conn: Conn, facts: ConnFacts) -> Served {
        // A box for what it is before and another for what it is then: one for both would be as large as the larger.
        let begun = Box::pin(self.begin(conn, facts));
        Box::pin(async move {
            if let Some(rest) = begun.await {
                rest.await;
            }
        })
    }

    /// Serves a connection for as long as it speaks HTTP/1, and gives the rest of its life if there is one.
    async fn begin(self: Arc<Self>, conn: Conn, facts: ConnFacts) -> Option<Served> {
        let Conn { stream, record, permit } = conn;
        let record = RefCell::new(record);
        let left = match self.speaks_h1(&record) {
            true => h1::serve(self, &stream, &record, &facts, &permit).await,
            false => Left::Http2(self),
        };
        if let Left::Ended(outcome) = left {
            record.borrow_mut().close(outcome);
            return None;
        }
        Some(go_on(left, Conn { stream, record: record.into_inner(), permit }, facts))
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
            tls_optional: false,
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
        Ok(ConnFacts::new(&self.spec.name, record, session))
    }

    /// Has a request answered, and writes it down.
    pub(crate) async fn answer(&self, ex: &mut Exchange<'_, '_>) -> End {
        let running = self.traffic.begin();
        // Kept until the request is over, with all that it leads to.
        let now: Guard<Arc<Router<Route>>>;
        let router = match &self.answers {
            Answers::Routes(router) => Ok(router),
            Answers::Changing(routes) => {
                now = routes.load();
                Ok(&**now)
            }
            Answers::Forward(forward) => Err(forward),
        };
        let (mut end, route) = match router {
            Ok(router) => {
                let route = self.route_of(router, ex);
                let led = match &route {
                    Ok(route) => self.lead(ex, route).await,
                    Err(failure) => Err(*failure),
                };
                let end = match led {
                    Ok(end) => end,
                    Err(failure) => self.fail(ex, failure).await,
                };
                (end, route.ok().map_or(&self.unrouted, |route| &route.traffic))
            }
            // Boxed, for the others don't pay for it.
            Err(forward) => (Box::pin(forward.answer(ex)).await, &self.unrouted),
        };
        match &mut end {
            // It goes on, and so does its account.
            End::Tunnel(granted) => granted.running = Some(running.hand_over(&self.traffic)),
            end => self.write_down(ex, end, route),
        }
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
        ex.facts.outcome = Some(match *end {
            End::Done | End::Tunnel(_) => {
                self.traffic.blocks.local().durations.record(ex.facts.began.elapsed());
                ex.facts.outcome.unwrap_or(Outcome::Done)
            }
            End::Cut(outcome) | End::Upgraded(outcome) => outcome,
        });
        self.note(&ex.scene(), route);
    }

    /// Writes down what is over.
    fn note(&self, scene: &Scene<'_>, route: &RouteTraffic) {
        route.count(scene.facts.status);
        if let Some(log) = &self.log {
            log.write(scene);
        }
    }

    /// Writes down a tunnel that is over.
    pub(crate) fn note_tunnel(&self, scene: &Scene<'_>) {
        self.note(scene, &self.unrouted);
    }

    /// Whether what comes is for somebody else, and may ask for tunnels.
    pub(crate) fn is_forward(&self) -> bool {
        matches!(self.answers, Answers::Forward(_))
    }

    /// Has the connections' next requests served by another.
    pub fn succeed(&self, by: Arc<HttpService>) {
        // Each worker says so, and all say the same.
        drop(self.successor.set(by));
    }
}

/// The rest of the life of a connection that does not end as HTTP/1. Each kind is boxed by itself: a tunnel is small.
fn go_on(left: Left, conn: Conn, facts: ConnFacts) -> Served {
    match left {
        Left::Ended(outcome) => {
            let mut conn = conn;
            conn.record.close(outcome);
            Box::pin(std::future::ready(()))
        }
        Left::Http2(service) => Box::pin(async move {
            let Conn { stream, record, permit } = conn;
            let record = RefCell::new(record);
            let outcome = h2::serve(service, stream, &record, &facts, &permit).await;
            record.borrow_mut().close(outcome);
        }),
        Left::Tunnel(service, granted) => Box::pin(Tunnel::new(service, granted, conn, facts).run()),
    }
}

/// Ends the connection behind a request of which the rest is not to be believed. Behind a CONNECT that is refused (501)
/// bytes for the other end of its tunnel may have come already. Of a client that did not go on its outcome says so.
pub(crate) fn distrust(ex: &mut Exchange<'_, '_>, status: u16) {
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
            Ok(by) => self.succeed(by),
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
