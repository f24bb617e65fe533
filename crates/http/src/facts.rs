//! What is known of a request beside its head, from its first byte to its line in the access log.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wmproxy_net::addr::Address;
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::tls::TlsInfo;
use wmproxy_upstream::Peer;
use wmproxy_wire::destination::Destination;
use wmproxy_wire::head::{Request, Response, Scheme};

use crate::forward::Kind;
use crate::vars::RequestId;

/// What all requests of a connection have in common.
#[derive(Debug, Clone)]
pub struct ConnFacts {
    /// The listener's name.
    pub listener: Arc<str>,
    /// Who came, as a PROXY header says or else the socket; none for a unix socket.
    pub client: Option<SocketAddr>,
    /// The address of ours that it reached.
    pub local: Address,
    /// Whether it came by TLS.
    pub scheme: Scheme,
    /// The server name that it asked for in TLS.
    pub sni: Option<Box<str>>,
    /// The common name of the certificate by which it has proven who it is, where the listener asks for one.
    pub identity: Option<Arc<str>>,
}

impl ConnFacts {
    /// Of a connection that has said what comes before its data: a session, where it has one with us.
    pub fn new(listener: &Arc<str>, record: &Record, session: Option<TlsInfo>) -> ConnFacts {
        let certificate = session.as_ref().and_then(|session| session.client.as_ref());
        ConnFacts {
            listener: listener.clone(),
            client: record.client,
            local: record.local_address(),
            scheme: if session.is_some() { Scheme::Https } else { Scheme::Http },
            identity: certificate.and_then(|client| client.common_name.as_deref()).map(Arc::from),
            sni: session.and_then(|session| session.sni).map(Into::into),
        }
    }
}

/// What is known of one request. It is used again for the next one of its worker, so texts keep their memory.
#[derive(Debug)]
pub struct Facts {
    /// The client: where a trusted proxy names another than came, that one.
    pub client: Option<SocketAddr>,
    /// What the client used to reach the first of us: where a trusted proxy says it, that.
    pub scheme: Scheme,
    /// The host, normalised: in lower case, without port, dot at the end or brackets. Empty in a HTTP/1.0 request without one.
    pub host: String,
    /// The port that was asked for, if one was.
    pub port: Option<u16>,
    /// The path, normalised: what needs no percent-encoding decoded, the rest in upper case hex, dot segments resolved.
    pub path: Vec<u8>,
    /// The name of the route that it takes.
    pub route: Option<Arc<str>>,
    /// Who it is, where it had to say so.
    pub user: Option<Arc<str>>,
    /// The peer that it went to, or the last one tried.
    pub peer: Option<Arc<Peer>>,
    /// The address that it went to, where no peer of a group stands there.
    pub address: Option<SocketAddr>,
    /// Where it wants to go by way of a forward proxy.
    pub destination: Option<Destination>,
    /// The name of the way that it goes there.
    pub way: Option<Arc<str>>,
    /// In which words it says so.
    pub kind: Option<Kind>,
    /// The status that the client got; 0 before that.
    pub status: u16,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body, as they were sent.
    pub bytes_out: u64,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
    /// When its first byte came.
    pub began: Instant,
    /// How long connecting to where it wants to go took, where that was done for it.
    pub connect_time: Option<Duration>,
    /// From the request's way to the peer to the head of its response.
    pub upstream_time: Option<Duration>,
    /// Names it in logs and towards peers: what a trusted proxy says, or one of ours, made when first asked for.
    pub request_id: OnceCell<RequestId>,
}

impl Default for Facts {
    fn default() -> Self {
        Facts {
            client: None,
            scheme: Scheme::Http,
            host: String::new(),
            port: None,
            path: Vec::new(),
            route: None,
            user: None,
            peer: None,
            address: None,
            destination: None,
            way: None,
            kind: None,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            outcome: None,
            began: Instant::now(),
            connect_time: None,
            upstream_time: None,
            request_id: OnceCell::new(),
        }
    }
}

impl Facts {
    /// Begins anew with another request, and keeps the memory.
    pub fn begin(&mut self, conn: &ConnFacts) {
        let (mut host, mut path) = (std::mem::take(&mut self.host), std::mem::take(&mut self.path));
        host.clear();
        path.clear();
        *self = Facts { client: conn.client, scheme: conn.scheme, host, path, ..Facts::default() };
    }
}

/// A request with all that is known of it: what variables are read from.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Its connection.
    pub conn: &'a ConnFacts,
    /// Its head.
    pub request: &'a Request,
    /// The head of its response, once there is one.
    pub response: Option<&'a Response>,
    /// Everything else.
    pub facts: &'a Facts,
}
