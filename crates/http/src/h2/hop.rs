//! Tunnels through a proxy that speaks HTTP/2, many on one connection (RFC 9113 section 8.5).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::header::{PROXY_AUTHORIZATION, VIA};
use http::{HeaderValue, Method, Request, Uri, Version};
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_net::tls::TlsInfo;
use wmproxy_wire::destination::Destination;
use wmproxy_wire::head::Scheme;

use super::body::{Incoming, Outgoing};
use super::pool::{self, Free, Making};
use super::tunnel;
use crate::forward::pseudonym;

/// Connections that are tried in the place of one that turned out to be at its end: it may be one of several that were all
/// closed in the same moment, and another attempt costs nothing but a look.
const ATTEMPTS: usize = 3;

/// How long a proxy that was asked for a tunnel may be silent before it has to answer a PING, and how long it has for that. A
/// destination may take longer to be reached; the proxy itself does not.
const SILENCE: Duration = Duration::from_secs(2);

/// A proxy to go through, or a group of them that are reached and trusted in the same way. Each worker has connections of its
/// own to it, which close after a while without a tunnel.
#[derive(Debug)]
pub struct Hop {
    number: u64,
    idle_timeout: Duration,
    /// Whether the last one that was connected to wanted HTTP/1: then nobody waits for a connection that others make.
    is_http1: AtomicBool,
    silence: Duration,
}

/// Why a connection gave no tunnel.
enum Failed {
    Spoken(h2::Error),
    /// Nobody is there.
    Dead,
}

impl From<h2::Error> for Failed {
    fn from(error: h2::Error) -> Failed {
        Failed::Spoken(error)
    }
}

/// What became of the wish for a tunnel.
#[derive(Debug)]
pub enum Tunnel {
    /// It is there. The stream ends and fails by itself, and not with the others on its connection.
    Open(Stream),
    /// The proxy does not do it, and says so by this status.
    Refused(u16),
    /// The proxy does not speak HTTP/2: this is a connection to it on which nothing was said.
    Http1(Stream),
}

impl Hop {
    /// A hop whose connections are kept so long without a tunnel.
    pub fn new(idle_timeout: Duration) -> Hop {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Hop { number, idle_timeout, is_http1: AtomicBool::new(false), silence: SILENCE }
    }

    /// Opens a tunnel to `to`, on a connection that the calling worker has to the proxy, or on a new one. `proxy` is a number
    /// that tells the proxies of a group apart. `authorization` is the value of `Proxy-Authorization`, if there is to be one.
    ///
    /// `make` makes a connection to the proxy, with TLS that offers `h2` by ALPN. It is called by one task at a time: the others
    /// wait, to share what it makes. Neither has a deadline: drop the future to give up.
    ///
    /// # Errors
    /// As `make`, or as the proxy failed before it answered. Nothing was sent to the destination.
    pub async fn open(
        &self,
        proxy: u64,
        to: &Destination,
        authorization: Option<&[u8]>,
        mut make: impl AsyncFnMut() -> Result<(Stream, TlsInfo), ConnectError>,
    ) -> Result<Tunnel, ConnectError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (free, is_new) = match self.find(proxy).await {
                Ok(free) => (free, false),
                Err(making) => {
                    let (stream, tls) = make().await?;
                    let is_http1 = tls.alpn.as_deref() != Some(b"h2");
                    self.is_http1.store(is_http1, Ordering::Relaxed);
                    if is_http1 {
                        return Ok(Tunnel::Http1(stream));
                    }
                    let begun = making.begin_h2(stream, Scheme::Https, self.idle_timeout).await;
                    (begun.map_err(|error| Failed::from(error).fault())?, true)
                }
            };
            match ask(free, request(to, authorization)?, self.silence).await {
                Ok(tunnel) => return Ok(tunnel),
                Err(failed) if is_new || attempt == ATTEMPTS || !failed.may_be_late() => {
                    return Err(failed.fault());
                }
                Err(_) => {}
            }
        }
    }

    async fn find(&self, proxy: u64) -> Result<Free, Making> {
        if self.is_http1.load(Ordering::Relaxed) {
            return Err(Making::tunnel());
        }
        pool::find_tunnel(self.number, proxy).await
    }
}

/// The head that asks for a tunnel: nothing but the method and the authority, who asks, and that we do.
fn request(to: &Destination, authorization: Option<&[u8]>) -> Result<Request<()>, ConnectError> {
    let bad = |what: &'static str| ConnectError::new(Fault::Other, what);
    let uri: Uri =
        to.to_string().parse().map_err(|_| bad("the destination can't be written as an authority"))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    if let Some(authorization) = authorization {
        let value = HeaderValue::from_bytes(authorization);
        let mut value = value.map_err(|_| bad("the credentials for the proxy can't be written in a head"))?;
        // Never to be put into the table that compression shares.
        value.set_sensitive(true);
        request.headers_mut().insert(PROXY_AUTHORIZATION, value);
    }
    // A chain that leads back to us ends here at its second round.
    if let Ok(via) = HeaderValue::try_from(format!("2.0 {}", pseudonym())) {
        request.headers_mut().insert(VIA, via);
    }
    Ok(request)
}

async fn ask(free: Free, request: Request<()>, silence: Duration) -> Result<Tunnel, Failed> {
    let Free { mut connection, mut place, .. } = free;
    let (response, mut outgoing) = connection.send_request(request, false)?;
    let answer = tokio::select! {
        biased;
        answer = response => answer?,
        () = place.died(silence) => return Err(Failed::Dead),
    };
    let (head, incoming) = answer.into_parts();
    if !head.status.is_success() {
        // An end, for a reset counts against the connection with proxies that limit them. It fails where the proxy went first.
        let _ = outgoing.send_data(Bytes::new(), true);
        place.mark_whole();
        return Ok(Tunnel::Refused(head.status.as_u16()));
    }
    let transport = tunnel::Tunnel::new(Incoming::new(incoming), Outgoing::new(outgoing, false), place);
    Ok(Tunnel::Open(Stream::over(Box::new(transport))))
}

impl Failed {
    /// Whether the connection was at its end before the proxy had seen what was asked of it, as far as can be told. That the
    /// destination was connected to for nothing is the worst that comes of another attempt.
    fn may_be_late(&self) -> bool {
        match self {
            Failed::Dead => true,
            Failed::Spoken(error) => {
                error.is_io() || error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)
            }
        }
    }

    fn fault(&self) -> ConnectError {
        let Failed::Spoken(error) = self else {
            return ConnectError::new(Fault::HopDown, "the proxy does not even answer a PING");
        };
        if let Some(error) = error.get_io() {
            return ConnectError::new(
                Fault::of(error),
                format!("the connection to the proxy failed: {error}"),
            );
        }
        let fault = match error.reason() {
            // How a proxy says that it failed at its destination (RFC 9113 section 8.5).
            Some(Reason::CONNECT_ERROR) => Fault::Refused,
            Some(Reason::REFUSED_STREAM | Reason::ENHANCE_YOUR_CALM | Reason::NO_ERROR | Reason::CANCEL) => {
                Fault::Reset
            }
            _ => Fault::Broken,
        };
        ConnectError::new(fault, format!("the proxy opens no tunnel: {error}"))
    }
}

#[cfg(test)]
mod tests;
