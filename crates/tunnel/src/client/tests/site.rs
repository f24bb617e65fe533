//! The real server, on a worker of its own, that can be killed.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use tokio::sync::oneshot;
use wmproxy_net::acl::Acl;
use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::conn::{Conn, Serve};
use wmproxy_net::connect::{Connect, ConnectError, Visitor};
use wmproxy_net::limit::Gate;
use wmproxy_net::listen::{self, Listener};
use wmproxy_net::record::{ListenerMetrics, Record};
use wmproxy_net::sockopt::ListenSocket;
use wmproxy_net::stream::Stream;
use wmproxy_net::tls::Acceptor;
use wmproxy_runtime::scope::Scope;
use wmproxy_runtime::worker::Workers;
use wmproxy_testkit::{PATIENCE, TempDir};
use wmproxy_wire::destination::{Destination, Host};

use super::{far, recv_all, secret, send, within};
use crate::carrier::quic;
use crate::datagrams::DatagramWay;
use crate::datagrams::outer::{DatagramListener, OuterService};
use crate::options::{GrantSpec, PortRange, ServerSpec};
use crate::server::{Entrance, Exposure, Place, Ports, Publishing, ServerStatus, TunnelServer};

/// A server at work. A drop kills it, as far as anybody outside can see.
pub(super) struct Site {
    pub(super) server: Arc<TunnelServer>,
    pub(super) addr: SocketAddr,
    workers: Workers,
    _identity: Arc<TempDir>,
}

/// Opens everything that is wanted.
struct AllPorts;

impl Ports for AllPorts {
    fn publish(&self, wanted: Vec<Exposure>) -> Publishing<'_> {
        let place = |exposure: &Exposure| Ok(vec![Place::Address(([127, 0, 0, 1], exposure.port).into())]);
        let places = wanted.iter().map(place).collect();
        Box::pin(std::future::ready(places))
    }
}

/// A server for the clients `home` and `office`.
pub(super) fn spec() -> ServerSpec {
    let grant = |name: &str| GrantSpec {
        name: name.into(),
        key: secret("the key"),
        ports: vec![PortRange { first: 20000, last: 20100 }],
        hosts: vec![],
        private: true,
        max_services: 100,
        max_connections: 0,
        rate_limit: None,
    };
    ServerSpec {
        clients: vec![grant("home"), grant("office")],
        login_timeout: PATIENCE,
        max_pending: 1000,
        max_pending_per_address: 1000,
        heartbeat: PATIENCE,
        max_pool: 64,
        wait_timeout: PATIENCE,
        max_waiting: 1000,
        grace: PATIENCE,
    }
}

impl Site {
    pub(super) fn start() -> Site {
        Site::start_at(([127, 0, 0, 1], 0).into())
    }

    pub(super) fn start_at(addr: SocketAddr) -> Site {
        let workers = Workers::start(1).unwrap();
        let identity = Arc::new(TempDir::new());
        let server = TunnelServer::new(spec());
        let tls = far::acceptor(&identity);
        // The same number for both, if it is free.
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind(addr).unwrap();
            match UdpSocket::bind(tcp.local_addr().unwrap()) {
                Ok(udp) => break (tcp, udp),
                Err(error) => assert_eq!(addr.port(), 0, "{error}"),
            }
        };
        let addr = tcp.local_addr().unwrap();
        let at_work = server.clone();
        workers.handle().run(0, move || work(at_work, tls, tcp, udp));
        Site { server, addr, workers, _identity: identity }
    }

    /// Does something on the server's worker.
    pub(super) async fn run<T: Send + 'static, F: Future<Output = T> + 'static>(
        &self,
        what: impl FnOnce(Arc<TunnelServer>) -> F + Send + 'static,
    ) -> T {
        let (tell, told) = oneshot::channel();
        let server = self.server.clone();
        self.workers.handle().run(0, move || {
            Scope::new().spawn(async move { drop(tell.send(what(server).await)) });
        });
        within("an answer of the server's worker", told).await.unwrap()
    }

    /// Has a visitor say something to a service, and end: what it hears then.
    pub(super) async fn ask(&self, service: &str, question: &[u8]) -> Result<Vec<u8>, ConnectError> {
        let (service, question) = (service.to_owned(), question.to_owned());
        self.run(async move |server| {
            let stream = visit(&server, &service).await?;
            send(&stream, &question).await;
            // A reset may have come by now: that is an answer, too.
            std::future::poll_fn(|cx| stream.poll_shutdown_write(cx)).await?;
            Ok(recv_all(&stream).await?)
        })
        .await
    }

    /// Opens a listener whose datagrams go to a service.
    pub(super) async fn datagrams(&self, service: &str) -> SocketAddr {
        let members = vec![service.into()];
        self.run(async move |server| lead(server.datagram_way(members))).await
    }

    /// Waits until the client is as it should be.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&ServerStatus) -> bool) {
        within(what, async {
            while !holds(&self.server.status()) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

fn work(server: Arc<TunnelServer>, tls: Arc<Acceptor>, tcp: TcpListener, udp: UdpSocket) {
    let scope = Scope::new();
    let listener =
        quic::Listener::start(udp, tls.quic_config(), None, server.pending(), &scope).map(Arc::new).unwrap();
    scope.spawn(server.clone().serve_quic(listener, scope.clone()));
    scope.spawn(server.clone().keep_published(Arc::new(AllPorts)));
    tcp.set_nonblocking(true).unwrap();
    scope.clone().spawn(async move {
        let address = Address::Inet(tcp.local_addr().unwrap());
        let listener = tokio::net::TcpListener::from_std(tcp).unwrap();
        let metrics = Arc::new(ListenerMetrics::new("tunnel".into(), Protocol::Tcp, address, 1));
        let (entrance, gate) = (Entrance::new(server, tls), Gate::new(0, 0));
        loop {
            let (socket, from) = listener.accept().await.unwrap();
            let record = Record::open(metrics.clone(), None, Some(from));
            let stream = Stream::new(socket.into_std().unwrap().into(), true).unwrap();
            let conn = Conn { stream, record, permit: gate.enter_anyway() };
            scope.spawn_boxed(entrance.clone().serve(conn));
        }
    });
}

thread_local! {
    static LISTENERS: RefCell<Vec<DatagramListener>> = const { RefCell::new(Vec::new()) };
}

/// Opens a listener whose datagrams go that way; on a worker.
pub(super) fn lead(way: Arc<dyn DatagramWay>) -> SocketAddr {
    let spec = "127.0.0.1:0".parse().unwrap();
    let bound = listen::bind(Protocol::Udp, &spec, 1, &ListenSocket::default()).unwrap().pop().unwrap();
    let listener = Listener::new("udp".into(), Arc::new(bound), Gate::new(0, 0), 1);
    let Address::Inet(addr) = listener.bound.address else { panic!("no address") };
    let service =
        OuterService { way, acl: Acl::default(), idle_timeout: PATIENCE, name: "udp".into(), log: None };
    let started = DatagramListener::start(listener, 0, service, Scope::new()).unwrap();
    LISTENERS.with_borrow_mut(|listeners| listeners.push(started));
    addr
}

/// A visitor of a service; on the server's worker.
pub(super) async fn visit(server: &TunnelServer, service: &str) -> Result<Stream, ConnectError> {
    let to = Destination { host: Host::Name(service.into()), port: 0 };
    let visitor =
        Visitor { client: Some(([192, 0, 2, 1], 999).into()), local: Some(([127, 0, 0, 1], 20022).into()) };
    server.connect_for(&to, &visitor).await
}
