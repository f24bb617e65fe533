//! A listener that tells the protocols of one port apart.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use wmproxy_http::facts::ConnFacts;
use wmproxy_http::traffic::ListenerTraffic;
use wmproxy_http::{HttpService, RequestLog};
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::preface::{self, Heard, Welcome, read_first};
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::relay::relay;
use wmproxy_net::stream::ResetOnDrop;
use wmproxy_net::tls::Acceptor;
use wmproxy_wire::socks::{v4, v5};

use crate::options::ForwardSpec;
use crate::socks::{self, Agreed, SocksGateway, Tunnel, Version};

/// Serves the connections of a listener as its options say.
pub struct ForwardService {
    spec: ForwardSpec,
    gateway: Arc<dyn SocksGateway>,
    /// Ends the clients' TLS.
    tls: Option<Arc<Acceptor>>,
    /// Serves who speaks HTTP.
    http: Arc<HttpService>,
    /// Tells associations of datagrams that the listener is out of service.
    retired: watch::Sender<bool>,
    /// Those that it stands in for: they hear of that, too, as long as they have connections.
    before: Mutex<Vec<Weak<ForwardService>>>,
    me: Weak<ForwardService>,
}

/// What a connection speaks.
#[derive(Debug)]
enum Spoken {
    Http,
    /// SOCKS, and what of it has come.
    Socks(Version, Vec<u8>),
}

impl ForwardService {
    /// A service with `spec`, whose clients are led by `gateway`. With `tls` it ends their TLS. Requests of HTTP are written
    /// to `log` and counted in `traffic`; connections of SOCKS leave their record.
    pub fn new(
        spec: ForwardSpec,
        gateway: Arc<dyn SocksGateway>,
        tls: Option<Arc<Acceptor>>,
        log: Option<Arc<dyn RequestLog>>,
        traffic: Arc<ListenerTraffic>,
    ) -> Arc<ForwardService> {
        let http =
            HttpService::new_forward(spec.listener.clone(), gateway.clone(), &spec.realm, log, traffic);
        let (retired, before) = (watch::Sender::new(false), Mutex::default());
        Arc::new_cyclic(|me| ForwardService { spec, gateway, tls, http, retired, before, me: me.clone() })
    }

    /// What serves its clients that speak HTTP.
    pub fn http(&self) -> &Arc<HttpService> {
        &self.http
    }

    pub(crate) fn spec(&self) -> &ForwardSpec {
        &self.spec
    }

    pub(crate) fn gateway(&self) -> &Arc<dyn SocksGateway> {
        &self.gateway
    }

    /// Turns true when the listener is out of service.
    pub(crate) fn retired(&self) -> watch::Receiver<bool> {
        self.retired.subscribe()
    }

    /// Takes over from another. Each worker says so.
    fn stand_in_for(&self, other: &ForwardService) {
        let others = other.before().clone();
        let mut before = self.before();
        for service in others.into_iter().chain([other.me.clone()]) {
            if service.strong_count() > 0 && !before.iter().any(|known| known.ptr_eq(&service)) {
                before.push(service);
            }
        }
    }

    fn before(&self) -> MutexGuard<'_, Vec<Weak<ForwardService>>> {
        // No code of ours panics with it half changed.
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a client may take for what it has to say before its data.
    pub(crate) fn patience(&self) -> Duration {
        self.spec.listener.timeouts.preface.get()
    }

    /// The life of a connection. A block and no `async fn`, which would hold its arguments twice (rust-lang/rust#62958).
    #[expect(clippy::manual_async_fn, reason = "see above")]
    fn run(self: Arc<Self>, mut conn: Conn) -> impl Future<Output = ()> {
        async move {
            let due = Instant::now() + self.patience();
            // Both boxed, for what a handshake needs is gone when the connection settles down to being idle.
            let agreed = match Box::pin(self.introduce(due, &mut conn)).await {
                Ok((Spoken::Http, facts)) => return self.http.clone().serve_introduced(conn, *facts).await,
                Ok((Spoken::Socks(version, first), facts)) => {
                    Box::pin(socks::agree(&self, version, first, due, &mut conn, facts)).await
                }
                Err(outcome) => Err(outcome),
            };
            let outcome = match agreed {
                Ok(Agreed::Tunnel(Tunnel { peer, terms, guest: _place })) => {
                    relay(&conn.stream, &peer, terms, &mut conn.record).await
                }
                Ok(Agreed::Association(association)) => return Box::pin(association.run(conn)).await,
                Err(outcome) => outcome,
            };
            conn.record.close(outcome);
        }
    }

    /// Looks at who comes, hears what they have to say before their data, and the first byte of that: all under one
    /// deadline. Who is turned away is reset, for a FIN would look like an answer without content.
    async fn introduce(&self, due: Instant, conn: &mut Conn) -> Result<(Spoken, Box<ConnFacts>), Outcome> {
        let heard = timeout_at(due, self.hear(conn)).await.unwrap_or(Err(Outcome::PrefaceTimeout));
        // Of TLS the handshake has said it already.
        if !matches!(heard, Ok(_) | Err(Outcome::ClientTls)) {
            drop(ResetOnDrop::new(&conn.stream));
        }
        heard
    }

    async fn hear(&self, conn: &mut Conn) -> Result<(Spoken, Box<ConnFacts>), Outcome> {
        let Conn { stream, record, permit } = conn;
        let rules = self.rules();
        let session = if rules.is_silent(record) {
            rules.check(record)?;
            None
        } else {
            // Boxed, for most listeners have none.
            match Box::pin(preface::welcome(stream, record, permit, rules)).await? {
                Heard::Session(session) => Some(session),
                Heard::Nothing | Heard::Hello(_) => None,
            }
        };
        let facts = Box::new(ConnFacts::new(&self.spec.listener.name, record, session));
        if !self.has_socks() || self.spec.http && has_agreed(record) {
            return Ok((Spoken::Http, facts));
        }
        let first = read_first(stream).await?;
        let spoken = match first.first() {
            Some(&v5::VERSION) if self.spec.socks5 => Spoken::Socks(Version::V5, first),
            Some(&v4::VERSION) if self.spec.socks4 => Spoken::Socks(Version::V4, first),
            Some(&(v4::VERSION | v5::VERSION)) => return Err(Outcome::NotSpoken),
            _ if self.spec.http => {
                stream.unread(first);
                Spoken::Http
            }
            _ => return Err(Outcome::NotSpoken),
        };
        Ok((spoken, facts))
    }

    fn has_socks(&self) -> bool {
        self.spec.socks5 || self.spec.socks4
    }

    fn rules(&self) -> Welcome<'_> {
        let listener = &self.spec.listener;
        Welcome {
            proxy_header: listener.proxy_protocol.as_ref(),
            optional_header: listener.trusted_proxies.as_ref(),
            acl: &listener.acl,
            tls: self.tls.as_deref(),
            tls_optional: self.spec.tls_optional,
            wants_hello: false,
            timeout: self.patience(),
        }
    }
}

/// Whether the client has chosen a protocol in TLS. Those of SOCKS have no name there.
fn has_agreed(record: &Record) -> bool {
    record.preface.as_ref().is_some_and(|preface| preface.alpn.is_some())
}

impl Serve for ForwardService {
    fn speaks_for_another(&self, from: Option<SocketAddr>) -> bool {
        let listener = &self.spec.listener;
        [&listener.proxy_protocol, &listener.trusted_proxies]
            .into_iter()
            .flatten()
            .any(|trusted| trusted.covers(from))
    }

    fn serve(self: Arc<Self>, conn: Conn) -> Served {
        Box::pin(self.run(conn))
    }

    fn replaced(&self, by: &Arc<dyn Serve>) {
        let service: Arc<dyn Any + Send + Sync> = by.clone();
        match service.downcast::<ForwardService>() {
            Ok(by) => {
                by.stand_in_for(self);
                let by: Arc<dyn Serve> = by.http.clone();
                self.http.replaced(&by);
            }
            // It is no forward proxy any more.
            Err(_) => self.retire(),
        }
    }

    fn retire(&self) {
        self.retired.send_replace(true);
        for before in self.before().iter().filter_map(Weak::upgrade) {
            before.retired.send_replace(true);
        }
        self.http.retire();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: fn(Arc<ForwardService>, Conn) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_tunnel_is_small() {
        // The future is what a connection holds while it waits; buffers are the worker's.
        let size = size(ForwardService::run);
        assert!(size <= 1024, "{size} bytes");
    }
}
