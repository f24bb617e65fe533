//! Both ends of the tunnel's datagrams in one thread, with visitors and a local service in others.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::LocalRuntime;
use tokio::sync::oneshot;
use wmproxy_net::acl::Acl;
use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::limit::{Gate, Limits};
use wmproxy_net::listen::{self, Listener};
use wmproxy_net::record::{ListenerMetrics, Outcome, UdpDrop};
use wmproxy_net::sockopt::{ListenSocket, PeerSocket};
use wmproxy_net::stream::Stream;
use wmproxy_net::udp::UdpSocket;
use wmproxy_runtime::scope::{Leash, Scope};
use wmproxy_tunnel::client::DatagramEnd;
use wmproxy_tunnel::datagrams::inner::{self, InnerService};
use wmproxy_tunnel::datagrams::outer::{DatagramListener, OuterService};
use wmproxy_tunnel::datagrams::{Carried, Carry, Carrying, DatagramWay, QuicDatagrams};

/// What carries the datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A connection of TCP without TLS.
    Stream,
    /// Datagrams of QUIC.
    Quic,
    /// A connection whose other end never reads.
    Deaf,
}

/// How a rig is to be.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub kind: Kind,
    /// Of visitors.
    pub limits: Limits,
    /// Of the way, besides.
    pub way_limits: Option<Limits>,
    pub outer_idle: Duration,
    pub inner_idle: Duration,
    pub inner_max: u32,
    pub with_header: bool,
}

impl Setup {
    pub fn new(kind: Kind) -> Setup {
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
pub struct Rig {
    pub addr: SocketAddr,
    pub outer: Arc<ListenerMetrics>,
    pub inner: Arc<ListenerMetrics>,
    pub way: Arc<TestWay>,
    scope: Scope,
    tell: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A way that can be cut, and refused.
pub struct TestWay {
    kind: Kind,
    scope: Scope,
    service: InnerService,
    gates: Vec<Arc<Gate>>,
    pub is_refused: AtomicBool,
    pub asked: AtomicUsize,
    inner: Mutex<Vec<Leash>>,
    connections: Mutex<Vec<quinn::Connection>>,
    deaf: Mutex<Vec<std::net::TcpStream>>,
}

/// Sends to one address.
pub struct TestEnd {
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
            let (here, there) = match self.kind {
                Kind::Stream => {
                    let (near, far) = tcp_pair();
                    (Carry::Stream(stream(near)), Some(Carry::Stream(stream(far))))
                }
                Kind::Deaf => {
                    let (near, far) = tcp_pair();
                    self.deaf.lock().unwrap().push(far);
                    (Carry::Stream(stream(near)), None)
                }
                Kind::Quic => {
                    let (near, far) = quic_pair().await;
                    self.connections.lock().unwrap().push(far.clone());
                    let hubs = [near, far].map(QuicDatagrams::new);
                    hubs.iter().for_each(|hub| self.scope.spawn(hub.clone().run()));
                    (Carry::Quic(hubs[0].service(7)), Some(Carry::Quic(hubs[1].service(7))))
                }
            };
            if let Some(there) = there {
                let serve = inner::serve(there, self.service.clone(), self.scope.clone());
                self.inner.lock().unwrap().push(self.scope.spawn_leashed(serve));
            }
            Ok(Carried { carry: here, gates: self.gates.clone() })
        })
    }
}

impl TestWay {
    /// Breaks off what carries the datagrams.
    pub fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.close(0u8.into(), b""));
        self.inner.lock().unwrap().clear();
    }
}

impl Rig {
    /// Leads visitors to `service`.
    pub fn start(service: SocketAddr, setup: Setup) -> Rig {
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
            service,
            gates: gates.into_iter().collect(),
            is_refused: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
            inner: Mutex::default(),
            connections: Mutex::default(),
            deaf: Mutex::default(),
        });
        let (tell, told) = oneshot::channel();
        let outer = listener.metrics.clone();
        let rig_way = way.clone();
        let run = {
            let (way, scope) = (way.clone(), scope.clone());
            move || {
                let outer = OuterService {
                    way,
                    acl: Acl::default(),
                    idle_timeout: setup.outer_idle,
                    name: "home/test".into(),
                    log: None,
                };
                LocalRuntime::new().unwrap().block_on(async {
                    let running = DatagramListener::start(listener, 0, outer, scope).unwrap();
                    // Without a word the flows end where they stand.
                    if told.await.is_ok() {
                        running.drain();
                        while !running.has_ended() {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                });
            }
        };
        let thread = std::thread::spawn(run);
        Rig { addr, outer, inner, way: rig_way, scope, tell: Some(tell), thread: Some(thread) }
    }

    /// Lets the listener drain.
    pub fn drain(&mut self) {
        let _ = self.tell.take().map(|tell| tell.send(()));
    }

    /// How many datagrams of visitors were dropped for this reason.
    pub fn dropped(&self, why: UdpDrop) -> u64 {
        self.outer.blocks.sum(|block| &block.udp_drops[why as usize])
    }

    /// How many flows ended so, at the outer end and at the inner one.
    pub fn ended(&self, outcome: Outcome) -> (u64, u64) {
        let ends = |metrics: &ListenerMetrics| metrics.blocks.sum(|block| &block.outcomes[outcome as usize]);
        (ends(&self.outer), ends(&self.inner))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.tell.take());
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        if !std::thread::panicking() {
            assert!(ended, "the rig panicked");
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

async fn quic_pair() -> (quinn::Connection, quinn::Connection) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let server = quinn::ServerConfig::with_single_cert(vec![cert.der().clone()], key.into()).unwrap();
    let client = quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = quinn::Endpoint::server(server, any).unwrap();
    let near = quinn::Endpoint::client(any).unwrap();
    let connecting = near.connect_with(client, server.local_addr().unwrap(), "localhost").unwrap();
    let accepting = async { server.accept().await.unwrap().await.unwrap() };
    let (connected, accepted) = tokio::join!(connecting, accepting);
    (accepted, connected.unwrap())
}
