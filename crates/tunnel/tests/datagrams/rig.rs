//! Both ends of the tunnel's datagrams, each on a worker of its own.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wmproxy_net::acl::Acl;
use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::limit::{Gate, Limits};
use wmproxy_net::listen::{self, Listener};
use wmproxy_net::record::{ListenerMetrics, Outcome, UdpDrop};
use wmproxy_net::sockopt::{ListenSocket, PeerSocket};
use wmproxy_net::stream::Stream;
use wmproxy_net::tls::{self, Acceptor, AcceptorSpec, CertSpec, Connector, ConnectorSpec};
use wmproxy_net::udp::UdpSocket;
use wmproxy_runtime::scope::{Leash, Scope};
use wmproxy_runtime::worker::{Handle, Workers};
use wmproxy_testkit::tls::Authority;
use wmproxy_tunnel::client::DatagramEnd;
use wmproxy_tunnel::datagrams::inner::{self, InnerService};
use wmproxy_tunnel::datagrams::outer::{DatagramListener, OuterService};
use wmproxy_tunnel::datagrams::{Carried, Carry, Carrying, DatagramWay, QuicDatagrams};

/// What carries the datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A connection of TCP with TLS.
    Stream,
    /// Datagrams of QUIC.
    Quic,
    /// A connection whose other end never reads.
    Deaf,
}

/// How a rig is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    /// Of visitors.
    pub(crate) limits: Limits,
    /// Of the way, besides.
    pub(crate) way_limits: Option<Limits>,
    pub(crate) outer_idle: Duration,
    pub(crate) inner_idle: Duration,
    pub(crate) inner_max: u32,
    pub(crate) with_header: bool,
}

impl Setup {
    pub(crate) fn new(kind: Kind) -> Setup {
        let idle = Duration::from_secs(30);
        let limits = Limits::default();
        Setup {
            kind,
            limits,
            way_limits: None,
            outer_idle: idle,
            inner_idle: idle,
            inner_max: 0,
            with_header: false,
        }
    }
}

/// Both ends at work. Ends with its drop, and fails then if anything is left.
pub(crate) struct Rig {
    pub(crate) addr: SocketAddr,
    pub(crate) outer: Arc<ListenerMetrics>,
    pub(crate) inner: Arc<ListenerMetrics>,
    pub(crate) way: Arc<TestWay>,
    scope: Scope,
    /// The outer end, and the inner one.
    workers: Option<[Workers; 2]>,
}

thread_local! {
    static LISTENER: RefCell<Option<DatagramListener>> = const { RefCell::new(None) };
}

/// A way that can be cut, and refused.
pub(crate) struct TestWay {
    kind: Kind,
    scope: Scope,
    /// The inner end's worker.
    inner_worker: Handle,
    tls: (Arc<Acceptor>, Arc<Connector>),
    service: InnerService,
    gates: Vec<Arc<Gate>>,
    pub(crate) is_refused: AtomicBool,
    pub(crate) asked: AtomicUsize,
    inner: Arc<Mutex<Vec<Leash>>>,
    connections: Arc<Mutex<Vec<quinn::Connection>>>,
    deaf: Mutex<Vec<std::net::TcpStream>>,
}

/// Sends to one address.
pub(crate) struct TestEnd {
    to: Mutex<SocketAddr>,
    setup: Setup,
}

impl DatagramEnd for TestEnd {
    fn open(&self, _: Option<SocketAddr>) -> io::Result<UdpSocket> {
        UdpSocket::connect(*self.to.lock().unwrap(), &PeerSocket::default(), None)
    }

    fn header(&self, visitor: Option<SocketAddr>, local: Option<SocketAddr>) -> Option<Vec<u8>> {
        let text =
            |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
        self.setup.with_header.then(|| format!("{} {}\n", text(visitor), text(local)).into_bytes())
    }

    fn idle_timeout(&self) -> Duration {
        self.setup.inner_idle
    }

    fn max_flows(&self) -> u32 {
        self.setup.inner_max
    }
}

impl DatagramWay for TestWay {
    fn carry(&self) -> Carrying<'_> {
        Box::pin(async {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.is_refused.load(Ordering::SeqCst) {
                return Err(ConnectError::new(Fault::HostUnreachable, "as the test wants it"));
            }
            let (service, scope) = (self.service.clone(), self.scope.clone());
            let here = match self.kind {
                Kind::Stream => {
                    let (near, far) = tcp_pair();
                    let connector = self.tls.1.clone();
                    self.serve(move || async move {
                        let far = stream(far);
                        if connector.secure(&far, "outer", "localhost").await.is_ok() {
                            inner::serve(Carry::Stream(far), service, scope).await;
                        }
                    });
                    let near = stream(near);
                    tls::accept(&near, &self.tls.0).await.map_err(lost)?;
                    Carry::Stream(near)
                }
                Kind::Deaf => {
                    let (near, far) = tcp_pair();
                    self.deaf.lock().unwrap().push(far);
                    Carry::Stream(stream(near))
                }
                Kind::Quic => {
                    let (server, client) = quic_configs();
                    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                    let server = quinn::Endpoint::server(server, any).unwrap();
                    let addr = server.local_addr().unwrap();
                    let connections = self.connections.clone();
                    self.serve(move || async move {
                        let endpoint = quinn::Endpoint::client(any).unwrap();
                        let connecting = endpoint.connect_with(client, addr, "localhost").unwrap();
                        let Ok(far) = connecting.await else { return };
                        connections.lock().unwrap().push(far.clone());
                        let hub = QuicDatagrams::new(far);
                        let part = hub.service(7);
                        let serve = inner::serve(Carry::Quic(part), service, scope);
                        tokio::join!(hub.run(), serve);
                    });
                    let near = server.accept().await.unwrap().await.map_err(lost)?;
                    let hub = QuicDatagrams::new(near);
                    self.scope.spawn(hub.clone().run());
                    Carry::Quic(hub.service(7))
                }
            };
            Ok(Carried { carry: here, gates: self.gates.clone(), over: None })
        })
    }
}

impl TestWay {
    /// Runs the inner end on its worker.
    fn serve<F: Future<Output = ()> + 'static>(&self, inner: impl FnOnce() -> F + Send + 'static) {
        let (scope, leashes) = (self.scope.clone(), self.inner.clone());
        self.inner_worker.run(0, move || leashes.lock().unwrap().push(scope.spawn_leashed(inner())));
    }

    /// Breaks off what carries the datagrams.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.close(0u8.into(), b""));
        self.inner.lock().unwrap().clear();
    }
}

impl Rig {
    /// Leads visitors to `service`.
    pub(crate) fn start(service: SocketAddr, setup: Setup) -> Rig {
        let spec = "127.0.0.1:0".parse().unwrap();
        let options = ListenSocket::default();
        let bound = listen::bind(Protocol::Udp, &spec, 1, &options).unwrap().pop().unwrap();
        let gate = Gate::new(0, 0);
        gate.set(&setup.limits);
        let listener = Listener::new("outer".into(), Arc::new(bound), gate, 1);
        let Address::Inet(addr) = listener.bound.address else { panic!("an address") };
        let inner = ListenerMetrics::new("inner".into(), Protocol::Udp, Address::Inet(service), 1);
        let inner = Arc::new(inner);
        let scope = Scope::new();
        let workers = [(); 2].map(|()| Workers::start(1).unwrap());
        let end = Arc::new(TestEnd { to: Mutex::new(service), setup });
        let service = InnerService { end, metrics: inner.clone(), gate: Gate::new(0, 0), log: None };
        let gates = setup.way_limits.map(|limits| {
            let gate = Gate::new(0, 0);
            gate.set(&limits);
            gate
        });
        let way = Arc::new(TestWay {
            kind: setup.kind,
            scope: scope.clone(),
            inner_worker: workers[1].handle(),
            tls: tls_ends(),
            service,
            gates: gates.into_iter().collect(),
            is_refused: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
            inner: Arc::default(),
            connections: Arc::default(),
            deaf: Mutex::default(),
        });
        let outer = listener.metrics.clone();
        let service = OuterService {
            way: way.clone(),
            acl: Acl::default(),
            idle_timeout: setup.outer_idle,
            name: "home/test".into(),
            log: None,
        };
        let begun = scope.clone();
        workers[0].handle().run(0, move || {
            LISTENER.set(Some(DatagramListener::start(listener, 0, service, begun).unwrap()));
        });
        Rig { addr, outer, inner, way, scope, workers: Some(workers) }
    }

    /// What both workers have taken of the processors.
    pub(crate) fn cpu(&self) -> Duration {
        let taken = self.workers.iter().flatten().map(|workers| {
            let (tell, told) = std::sync::mpsc::channel();
            workers.handle().run(0, move || {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                tell.send(Duration::new(now.tv_sec as u64, now.tv_nsec as u32)).unwrap();
            });
            told.recv().unwrap()
        });
        taken.sum()
    }

    /// Lets the listener drain.
    pub(crate) fn drain(&self) {
        let outer = &self.workers.as_ref().unwrap()[0];
        outer.handle().run(0, || LISTENER.with_borrow(|listener| listener.as_ref().unwrap().drain()));
    }

    /// How many datagrams of visitors were dropped for this reason.
    pub(crate) fn dropped(&self, why: UdpDrop) -> u64 {
        self.outer.blocks.sum(|block| &block.udp_drops[why as usize])
    }

    /// How many flows ended so, at the outer end and at the inner one.
    pub(crate) fn ended(&self, outcome: Outcome) -> (u64, u64) {
        let ends = |metrics: &ListenerMetrics| metrics.blocks.sum(|block| &block.outcomes[outcome as usize]);
        (ends(&self.outer), ends(&self.inner))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.workers.take());
        if !std::thread::panicking() {
            assert_eq!((self.outer.active(), self.inner.active()), (0, 0), "flows are left");
            assert_eq!(self.scope.live(), 0, "tasks are left");
        }
    }
}

fn stream(socket: std::net::TcpStream) -> Stream {
    socket.set_nonblocking(true).unwrap();
    Stream::new(socket.into(), true).unwrap()
}

fn tcp_pair() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// It was cut before it was there.
fn lost(error: impl std::fmt::Display) -> ConnectError {
    ConnectError::new(Fault::Reset, error.to_string())
}

fn tls_ends() -> (Arc<Acceptor>, Arc<Connector>) {
    let authority = Authority::new();
    let pair = authority.issue("outer", &["localhost"]);
    let certs = vec![CertSpec::Files { cert: pair.cert, key: pair.key }];
    let accepts = AcceptorSpec {
        certs,
        client_ca: None,
        client_optional: false,
        alpn: vec![],
        strict_sni: false,
        tls13_only: true,
    };
    let connects = ConnectorSpec { ca: Some(authority.ca()), tls13_only: true, ..ConnectorSpec::default() };
    let (acceptor, _) = Acceptor::load(accepts).unwrap();
    let (connector, _) = Connector::load(connects).unwrap();
    (Arc::new(acceptor), Arc::new(connector))
}

fn quic_configs() -> (quinn::ServerConfig, quinn::ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let cert = made.cert.der().clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.clone()).unwrap();
    let server = quinn::ServerConfig::with_single_cert(vec![cert], key.into()).unwrap();
    (server, quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap())
}
