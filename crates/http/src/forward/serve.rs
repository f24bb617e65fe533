//! Requests to a forward proxy, from their head to whoever serves them: who asks, and where to, comes before anything else.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use wmproxy_net::record::Outcome;
use wmproxy_net::relay::Terms;
use wmproxy_wire::destination::{Destination, Host, parse_host};
use wmproxy_wire::head::authority::{self, Host as Named};
use wmproxy_wire::head::{Known, Method, Scheme};
use wmproxy_wire::http1::Length;

use super::refusal::Refusal;
use super::{Gateway, Guest, Kind, Opened, Visit, Way, heads, page, refusal};
use crate::exchange::{Brakes, End, Exchange, Front};

pub(crate) use super::tunnel::{Granted, Tunnel};

/// Answers requests of a forward proxy.
#[derive(Debug)]
pub(crate) struct Forward {
    gateway: Arc<dyn Gateway>,
    /// What asks for a name and a password.
    challenge: Box<[u8]>,
}

impl Forward {
    pub(crate) fn new(gateway: Arc<dyn Gateway>, realm: &str) -> Forward {
        Forward { gateway, challenge: refusal::challenge(realm) }
    }

    /// Has a request answered, by whoever it names or by the proxy itself.
    pub(crate) async fn answer(&self, ex: &mut Exchange<'_, '_>) -> End {
        let served = match sort(ex) {
            Ok(Some(kind)) => self.serve(ex, kind).await,
            Ok(None) => page::answer(ex, &*self.gateway).await,
            Err(refusal) => Err(refusal),
        };
        match served {
            Ok(end) => end,
            Err(refusal) => refusal.tell(ex, &self.challenge).await,
        }
    }

    /// Finds out who asks, where they may go and by which way, and has them go there.
    async fn serve(&self, ex: &mut Exchange<'_, '_>, kind: Kind) -> Result<End, Refusal> {
        let to = destination(ex)?;
        ex.facts.kind = Some(kind);
        ex.facts.destination = Some(to.clone());
        let admitted = self.admit(ex).await;
        // Whoever logs heads does not log passwords.
        ex.request.fields.remove(Known::ProxyAuthorization);
        let guest = admitted?;
        ex.facts.user = guest.name().cloned();
        if matches!(ex.body, Length::Known(length) if length > ex.service.spec().limits.body.bytes()) {
            return Err(Refusal::status(413));
        }
        heads::check_loop(ex.request)?;
        if let Some(end) = heads::last_forward(ex).await? {
            return Ok(end);
        }
        let visit = Visit { to: &to, kind, guest: &guest, client: ex.facts.client };
        let way = self.gateway.way(&visit)?;
        ex.facts.way = Some(Arc::clone(&way.name));
        ex.brakes = Brakes::of(guest.terms(Terms::new(Duration::ZERO), ex.permit));
        ex.guest = Some(Arc::clone(&guest));
        match kind {
            Kind::Connect => self.connect(ex, visit, &way).await,
            _ => self.pass(ex, visit, &way).await,
        }
    }

    /// Asks who it is.
    async fn admit(&self, ex: &mut Exchange<'_, '_>) -> Result<Arc<dyn Guest>, Refusal> {
        let mut all = ex.request.fields.all(Known::ProxyAuthorization);
        let credentials = all.next();
        if all.next().is_some() {
            return Err(Refusal::bad("It has more than one Proxy-Authorization."));
        }
        let mut admission = self.gateway.admit(ex.conn, credentials);
        let front = &mut ex.front;
        let admitted = poll_fn(|cx| match admission.as_mut().poll(cx) {
            Poll::Ready(admitted) => Poll::Ready(Ok(admitted)),
            Poll::Pending if front.is_gone(cx) => Poll::Ready(Err(Refusal::Gone(Outcome::ClientReset))),
            Poll::Pending => Poll::Pending,
        });
        Ok(admitted.await??)
    }

    /// Connects to where a visit goes, for as long as the client waits for it.
    pub(super) async fn open(
        &self,
        ex: &mut Exchange<'_, '_>,
        visit: Visit<'_>,
        way: &Way,
    ) -> Result<Opened, Refusal> {
        let mut opening = self.gateway.open(visit, way);
        let front = &mut ex.front;
        let opened = poll_fn(|cx| match opening.as_mut().poll(cx) {
            Poll::Ready(opened) => Poll::Ready(opened.map_err(Refusal::from)),
            Poll::Pending if front.is_gone(cx) => Poll::Ready(Err(Refusal::Gone(Outcome::ClientReset))),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        ex.facts.address = opened.address;
        ex.facts.connect_time = Some(opened.connect_time);
        Ok(opened)
    }
}

/// Which way of asking a request is; none for one to the proxy itself.
///
/// # Errors
/// It is one that no proxy can pass on.
fn sort(ex: &Exchange<'_, '_>) -> Result<Option<Kind>, Refusal> {
    let request = &ex.request;
    match (request.method, request.scheme) {
        (Method::Connect, _) => Ok(Some(Kind::Connect)),
        (_, Some(Scheme::Http)) => Ok(Some(Kind::Http)),
        // In HTTP/2 every request names a scheme: that by which it came is a request to ourselves.
        (_, Some(Scheme::Https)) if matches!(ex.front, Front::H2(_)) && request.protocol().is_none() => {
            Ok(None)
        }
        (_, Some(Scheme::Https)) => Err(Refusal::https()),
        (_, None) => Ok(None),
    }
}

/// Where a request goes, which is noted for all who want to know.
fn destination(ex: &mut Exchange<'_, '_>) -> Result<Destination, Refusal> {
    let text = ex.request.authority().ok_or(Refusal::status(400))?;
    let named = authority::parse(text).map_err(|_| Refusal::status(400))?;
    let usual = ex.request.scheme.unwrap_or(Scheme::Http).default_port();
    let port = match (named.port, ex.request.method) {
        (Some(0), _) => return Err(Refusal::bad("There is no port 0.")),
        (None, Method::Connect) => return Err(Refusal::bad("A CONNECT needs a port.")),
        (port, _) => port.unwrap_or(usual),
    };
    let host = match named.host {
        Named::V4(ip) => Host::Ip(ip.into()),
        // One of IPv4 inside is that.
        Named::V6(ip) => Host::Ip(IpAddr::V6(ip).to_canonical()),
        Named::Name(name) => parse_host(name).map_err(Refusal::no_host)?,
    };
    ex.facts.port = Some(port);
    ex.facts.scheme = ex.request.scheme.unwrap_or(ex.facts.scheme);
    ex.facts.path.extend_from_slice(ex.request.raw_path());
    match &host {
        Host::Name(name) => ex.facts.host.push_str(name),
        Host::Ip(ip) => {
            use std::fmt::Write as _;
            // Writing to memory does not fail.
            let _ = write!(ex.facts.host, "{ip}");
        }
    }
    Ok(Destination { host, port })
}
