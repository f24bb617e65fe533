//! What visitors come to by https: the name in a ClientHello says whether the bytes go on as they are, or TLS ends here.

use std::sync::Arc;

use arc_swap::ArcSwap;
use wmproxy_http::HttpService;
use wmproxy_http::options::HttpSpec;
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::preface::{self, Heard, Welcome};
use wmproxy_net::record::{AccessLog, Outcome};
use wmproxy_net::stream::ResetOnDrop;
use wmproxy_net::tls::Acceptor;
use wmproxy_stream::route::Routes;
use wmproxy_stream::tcp::TcpService;

/// Where a name leads.
#[derive(Clone)]
pub(super) enum Onward {
    /// To a service that ends TLS itself.
    Relay(Arc<TcpService>),
    /// To the routes behind our own TLS.
    Here,
}

/// What leads where.
pub(super) type Names = Routes<Onward>;

/// Serves the connections of an https front.
pub(crate) struct SniService {
    /// Of which the acl, the PROXY header and the time for what comes before the data count here.
    spec: HttpSpec,
    names: ArcSwap<Names>,
    /// Serves whoever's TLS ends here.
    http: Arc<HttpService>,
    tls: Option<Arc<Acceptor>>,
    /// Where connections are written that are passed on.
    log: Option<Arc<dyn AccessLog>>,
}

impl SniService {
    /// Leads by `names`. `http` serves those whose TLS ends here, by `tls`; what else comes leaves its record in `log`.
    pub(super) fn new(
        spec: HttpSpec,
        names: Arc<Names>,
        http: Arc<HttpService>,
        tls: Option<Arc<Acceptor>>,
        log: Option<Arc<dyn AccessLog>>,
    ) -> Arc<SniService> {
        let names = ArcSwap::new(names);
        Arc::new(SniService { spec, names, http, tls, log })
    }

    /// Leads new connections by other names.
    pub(super) fn rename(&self, names: Arc<Names>) {
        self.names.store(names);
    }

    /// What ends TLS here, if anything does.
    pub(super) fn tls(&self) -> Option<&Arc<Acceptor>> {
        self.tls.as_ref()
    }

    /// What serves whoever's TLS ends here.
    pub(super) fn http(&self) -> &Arc<HttpService> {
        &self.http
    }

    async fn run(self: Arc<Self>, mut conn: Conn) {
        let onward = match self.hear(&mut conn).await {
            Ok(onward) => onward,
            Err(outcome) => return conn.record.close(outcome),
        };
        match onward {
            Onward::Relay(relay) => {
                conn.record.write_to(self.log.clone());
                relay.serve(conn).await;
            }
            Onward::Here => self.http.clone().serve(conn).await,
        }
    }

    /// Hears whom a connection is for. The ClientHello stays in the stream. Who is turned away is told so, or reset.
    async fn hear(&self, conn: &mut Conn) -> Result<Onward, Outcome> {
        let Conn { stream, record, permit } = conn;
        let unfinished = ResetOnDrop::new(stream);
        let rules = Welcome {
            proxy_header: self.spec.proxy_protocol.as_ref(),
            optional_header: None,
            acl: &self.spec.acl,
            tls: None,
            tls_optional: false,
            wants_hello: true,
            timeout: self.spec.timeouts.preface.get(),
        };
        let Heard::Hello(hello) = preface::welcome(stream, record, permit, rules).await? else {
            return Err(Outcome::NotTls);
        };
        let onward = self.find(hello.server_name.as_deref());
        if onward.is_none() {
            preface::refuse_name(stream);
        }
        unfinished.disarm();
        onward.ok_or(Outcome::NoRoute)
    }

    fn find(&self, name: Option<&str>) -> Option<Onward> {
        let name = name?;
        let known = self.names.load().find(Some(name), []).cloned();
        // Where a certificate is for the name, who asks for it is told in HTTP that nobody offers it.
        let is_covered = || self.tls.as_ref().is_some_and(|tls| tls.covers(name));
        known.or_else(|| is_covered().then_some(Onward::Here))
    }
}

impl Serve for SniService {
    fn speaks_for_another(&self, from: Option<std::net::SocketAddr>) -> bool {
        self.spec.proxy_protocol.as_ref().is_some_and(|trusted| trusted.covers(from))
    }

    fn serve(self: Arc<Self>, conn: Conn) -> Served {
        Box::pin(self.run(conn))
    }

    fn replaced(&self, by: &Arc<dyn Serve>) {
        let by: Arc<dyn std::any::Any + Send + Sync> = by.clone();
        match by.downcast::<SniService>() {
            Ok(by) => self.http.succeed(by.http.clone()),
            Err(_) => self.http.retire(),
        }
    }

    fn retire(&self) {
        self.http.retire();
    }
}
