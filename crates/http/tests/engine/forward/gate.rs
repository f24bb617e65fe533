//! A gateway made by hand, and a listener before it.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wmproxy_http::facts::ConnFacts;
use wmproxy_http::forward::{Gateway, Guest, Opened, Pending, Unknown, Visit, Way};
use wmproxy_http::options::{HttpOptions, HttpSpec};
use wmproxy_http::traffic::ListenerTraffic;
use wmproxy_http::{HttpService, RequestLog};
use wmproxy_net::accept::Service;
use wmproxy_net::addr::Address;
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::limit::{Direction, Permit};
use wmproxy_net::relay::{Brake, Terms};
use wmproxy_net::sockopt::PeerSocket;
use wmproxy_net::stream;
use wmproxy_testkit::http::Client;
use wmproxy_wire::head::Scheme;
use wmproxy_wire::units::ByteRate;

use crate::house::House;

/// `alice` with the password `secret`, as credentials.
pub(crate) const ALICE: &str = "Basic YWxpY2U6c2VjcmV0";

/// Lets in who may come, and connects names to where the test wants.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Whether somebody has to be [`ALICE`].
    pub(crate) is_closed: AtomicBool,
    /// What everybody gets in place of an answer.
    pub(crate) unknown: Mutex<Option<Unknown>>,
    /// Where names lead; an address leads to itself.
    pub(crate) names: Mutex<BTreeMap<String, SocketAddr>>,
    /// What names lead to in place of a connection.
    pub(crate) faults: Mutex<BTreeMap<String, ConnectError>>,
    /// What the way is known by.
    pub(crate) key: AtomicU64,
    /// Connections made.
    pub(crate) opened: AtomicUsize,
    /// Bytes that guests may have in all; 0 is no limit.
    pub(crate) quota: AtomicU64,
    pub(crate) spent: Arc<AtomicU64>,
    /// How fast the bytes of each request pass.
    pub(crate) rate: Mutex<Option<ByteRate>>,
    /// Whether the file for browsers is served.
    pub(crate) has_pac: AtomicBool,
    /// Destinations that a way was asked for.
    pub(crate) asked: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Somebody {
    name: Option<Arc<str>>,
    quota: u64,
    spent: Arc<AtomicU64>,
    rate: Option<ByteRate>,
}

impl Guest for Somebody {
    fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    fn spend(&self, bytes: u64) -> bool {
        let spent = self.spent.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.quota == 0 || spent < self.quota
    }

    fn terms(&self, terms: Terms, permit: &Permit) -> Terms {
        let brake = |direction| Brake::new(self.rate, permit.gate(), direction);
        Terms { up: brake(Direction::Up), down: brake(Direction::Down), ..terms }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Gateway for Gate {
    fn admit<'a>(
        &'a self,
        _: &'a ConnFacts,
        credentials: Option<&'a [u8]>,
    ) -> Pending<'a, Result<Arc<dyn Guest>, Unknown>> {
        let is_alice = credentials == Some(ALICE.as_bytes());
        Box::pin(async move {
            if let Some(unknown) = *self.unknown.lock().unwrap() {
                return Err(unknown);
            }
            if self.is_closed.load(Ordering::Relaxed) && !is_alice {
                return Err(Unknown::Unauthenticated);
            }
            let name = is_alice.then(|| "alice".into());
            let quota = self.quota.load(Ordering::Relaxed);
            let (spent, rate) = (self.spent.clone(), *self.rate.lock().unwrap());
            Ok(Arc::new(Somebody { name, quota, spent, rate }) as Arc<dyn Guest>)
        })
    }

    fn way(&self, visit: &Visit<'_>) -> Result<Way, ConnectError> {
        let to = visit.to.to_string();
        self.asked.lock().unwrap().push(to.clone());
        if to.starts_with("denied.example:") {
            return Err(ConnectError::new(Fault::Denied, "the rules deny denied.example"));
        }
        Ok(Way { name: "direct".into(), key: self.key.load(Ordering::Relaxed), inner: Arc::new(()) })
    }

    fn open<'a>(&'a self, visit: Visit<'a>, _: &'a Way) -> Pending<'a, Result<Opened, ConnectError>> {
        Box::pin(async move {
            let to = visit.to.to_string();
            if let Some(error) = self.faults.lock().unwrap().get(&to) {
                return Err(error.clone());
            }
            let named = self.names.lock().unwrap().get(&to).copied();
            let address = named
                .or_else(|| visit.to.address())
                .ok_or_else(|| ConnectError::new(Fault::Unresolved, format!("{to} has no address")))?;
            let began = Instant::now();
            let stream = stream::connect(&Address::Inet(address), &PeerSocket::default(), None).await?;
            self.opened.fetch_add(1, Ordering::Relaxed);
            Ok(Opened { stream, address: Some(address), connect_time: began.elapsed() })
        })
    }

    fn pac(&self, authority: &str, is_tls: bool) -> Option<String> {
        let is_there = self.has_pac.load(Ordering::Relaxed);
        is_there.then(|| format!("PROXY {authority} {is_tls}"))
    }
}

/// A forward proxy without a preface.
pub(crate) struct Front(pub(crate) Arc<HttpService>);

impl Serve for Front {
    fn serve(self: Arc<Self>, conn: Conn) -> Served {
        let facts = ConnFacts {
            listener: "t".into(),
            client: conn.record.client,
            local: conn.record.local_address(),
            scheme: Scheme::Http,
            sni: None,
            identity: None,
        };
        Arc::clone(&self.0).serve_introduced(conn, facts)
    }

    fn replaced(&self, by: &Arc<dyn Serve>) {
        let by: Arc<dyn Any + Send + Sync> = by.clone();
        match by.downcast::<Front>() {
            Ok(by) => self.0.succeed(Arc::clone(&by.0)),
            Err(_) => self.0.retire(),
        }
    }

    fn retire(&self) {
        self.0.retire();
    }
}

/// A forward proxy with a gateway.
pub(crate) struct Proxy {
    pub(crate) house: House,
    pub(crate) gate: Arc<Gate>,
}

impl Proxy {
    /// With these names.
    pub(crate) fn with(names: &[(&str, SocketAddr)]) -> Proxy {
        Proxy::with_options(HttpOptions::default(), names)
    }

    pub(crate) fn with_options(options: HttpOptions, names: &[(&str, SocketAddr)]) -> Proxy {
        let proxy = Proxy { house: House::empty(&[]), gate: Arc::default() };
        proxy.gate.names.lock().unwrap().extend(names.iter().map(|(name, addr)| (name.to_string(), *addr)));
        let service = proxy.service(options.spec("t".into(), Arc::new([])), proxy.gate.clone());
        proxy.house.open(service);
        proxy
    }

    pub(crate) fn service(&self, spec: HttpSpec, gate: Arc<Gate>) -> Service {
        let log = self.house.log.clone() as Arc<dyn RequestLog>;
        let traffic = Arc::new(ListenerTraffic::new("t".into(), 1));
        let http = HttpService::new_forward(spec, gate, "wmproxy", Some(log), traffic);
        Service { serve: Arc::new(Front(http)), log: Some(self.house.log.clone()) }
    }

    pub(crate) fn connect(&self) -> Client {
        self.house.connect()
    }

    /// Asks for a tunnel, and has it.
    pub(crate) fn tunnel(&self, to: &str) -> Client {
        let mut client = self.connect();
        client.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n"));
        let head = client.head();
        assert_eq!(head.status(), 200, "{head:?}");
        client
    }

    pub(crate) fn opened(&self) -> usize {
        self.gate.opened.load(Ordering::Relaxed)
    }

    /// Fails so where `to` is asked for.
    pub(crate) fn fail(&self, to: &str, fault: Fault, text: &'static str) {
        self.gate.faults.lock().unwrap().insert(to.into(), ConnectError::new(fault, text));
    }
}

/// A pause that is longer than what is to come at once takes.
pub(crate) const SOON: Duration = Duration::from_millis(20);
