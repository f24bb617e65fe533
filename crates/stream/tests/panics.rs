//! A panic is a defect, but it ends one connection or flow and nothing beside. Nothing in here is known to panic, so
//! the fault is put where a stranger's code is called: into the access log.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use wmproxy_net::accept::{Accepting, Service};
use wmproxy_net::addr::{Address, Protocol, TargetSpec};
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::limit::Gate;
use wmproxy_net::listen::{self, Listener};
use wmproxy_net::record::{AccessLog, ClosedRecord};
use wmproxy_net::sockopt::ListenSocket;
use wmproxy_runtime::scope::Scope;
use wmproxy_runtime::worker::Workers;
use wmproxy_stream::options::{StreamOptions, StreamSpec};
use wmproxy_stream::route::Routes;
use wmproxy_stream::tcp::TcpService;
use wmproxy_stream::udp::{UdpListener, UdpService};
use wmproxy_upstream::{Group, GroupSpec, Registry};

/// Panics while it is told to.
#[derive(Default)]
struct Faulty(AtomicBool);

impl AccessLog for Faulty {
    fn write(&self, record: &ClosedRecord) {
        assert!(!self.0.load(Ordering::SeqCst), "on purpose, at the end of {:?}", record.client);
    }
}

/// One worker with one listener before one peer.
struct House {
    control: Runtime,
    workers: Workers,
    listener: Arc<Listener>,
    group: Arc<Group>,
    spec: StreamSpec,
    log: Arc<Faulty>,
    scope: Scope,
}

impl House {
    fn routes(&self) -> Arc<Routes<Arc<Group>>> {
        Arc::new(Routes::to(self.group.clone()))
    }

    fn new(protocol: Protocol, peer: SocketAddr) -> House {
        wmproxy_runtime::panic::install_hook();
        let spec = StreamOptions::default().spec("t".into(), Arc::new(Routes::to(Arc::from("g"))), protocol);
        let spec = StreamSpec { idle_timeout: Duration::from_millis(200), ..spec };
        let bound = listen::bind(protocol, &"127.0.0.1:0".parse().unwrap(), 1, &ListenSocket::default())
            .unwrap()
            .remove(0);
        let targets = vec![TargetSpec::Address(Address::Inet(peer))];
        House {
            control: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            workers: Workers::start(1).unwrap(),
            listener: Listener::new("t".into(), Arc::new(bound), Gate::new(0, 10), 1),
            group: Registry::new().build(GroupSpec::inline("g", targets)),
            spec,
            log: Arc::default(),
            scope: Scope::new(),
        }
    }

    fn addr(&self) -> SocketAddr {
        match self.listener.bound.address {
            Address::Inet(addr) => addr,
            _ => unreachable!("an IP listener"),
        }
    }

    fn on_worker(&self, run: impl FnOnce() + Send + 'static) {
        let mut run = Some(run);
        self.control.block_on(self.workers.on_each(|_| run.take().unwrap()));
    }

    /// Whether everything that a connection or a flow holds comes back: its task, its place, its peer.
    fn assert_nothing_left(&self, tasks: usize) {
        eventually(|| self.listener.gate.active() == 0 && self.listener.metrics.active() == 0);
        eventually(|| self.scope.live() == tasks);
        eventually(|| self.group.snapshot(0).peers[0].in_flight == 0);
        assert!(self.listener.gate.has_room_for(self.addr().ip()));
    }
}

fn eventually(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn echo_tcp(conn: &mut TcpStream) {
    conn.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    conn.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

fn echo_udp(client: &UdpSocket) {
    client.send(b"hello").unwrap();
    let mut answer = [0; 16];
    assert_eq!(client.recv(&mut answer).unwrap(), 5);
}

fn udp_client(to: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(to).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client
}

#[test]
fn a_panic_ends_one_connection_and_no_other() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let house = House::new(Protocol::Tcp, backend.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut conn, _)) = backend.accept() {
            std::thread::spawn(move || std::io::copy(&mut conn.try_clone().unwrap(), &mut conn));
        }
    });
    let spec = StreamSpec { idle_timeout: Duration::from_secs(30), ..house.spec.clone() };
    let service =
        Service { serve: TcpService::new(spec, house.routes(), None), log: Some(house.log.clone()) };
    let (listener, scope) = (house.listener.clone(), house.scope.clone());
    // Held by the worker's thread until that ends, as the process's own listeners are.
    house.on_worker(move || {
        std::mem::forget(Accepting::start(listener, 0, service, scope.clone(), &Scope::new()).unwrap());
    });
    let mut stays = TcpStream::connect(house.addr()).unwrap();
    let mut goes = TcpStream::connect(house.addr()).unwrap();
    echo_tcp(&mut stays);
    echo_tcp(&mut goes);
    let before = wmproxy_runtime::panic::count();
    house.log.0.store(true, Ordering::SeqCst);
    drop(goes);
    eventually(|| wmproxy_runtime::panic::count() > before);
    house.log.0.store(false, Ordering::SeqCst);
    echo_tcp(&mut stays);
    echo_tcp(&mut TcpStream::connect(house.addr()).unwrap());
    drop(stays);
    house.assert_nothing_left(0);
}

/// Panics where it is to take its first connection, in the accept loop itself.
struct Stumbles {
    has_stumbled: AtomicBool,
    next: Arc<TcpService>,
}

impl Serve for Stumbles {
    fn serve(self: Arc<Self>, conn: Conn) -> Served {
        assert!(self.has_stumbled.swap(true, Ordering::SeqCst), "on purpose, while accepting");
        self.next.clone().serve(conn)
    }
}

#[test]
fn a_panic_while_accepting_costs_one_client_and_not_the_listener() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let house = House::new(Protocol::Tcp, backend.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut conn, _) = backend.accept().unwrap();
        std::io::copy(&mut conn.try_clone().unwrap(), &mut conn)
    });
    let next = TcpService::new(house.spec.clone(), house.routes(), None);
    let serve = Arc::new(Stumbles { has_stumbled: AtomicBool::new(false), next });
    let (listener, scope) = (house.listener.clone(), house.scope.clone());
    house.on_worker(move || {
        let service = Service { serve, log: None };
        std::mem::forget(Accepting::start(listener, 0, service, scope, &Scope::new()).unwrap());
    });
    let before = wmproxy_runtime::panic::count();
    let mut first = TcpStream::connect(house.addr()).unwrap();
    first.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Closed, in whatever way.
    assert!(!matches!(first.read(&mut [0; 8]), Ok(1..)));
    eventually(|| wmproxy_runtime::panic::count() > before);
    echo_tcp(&mut TcpStream::connect(house.addr()).unwrap());
    house.assert_nothing_left(0);
}

#[test]
fn a_panic_ends_one_flow_and_not_the_listener() {
    let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
    let house = House::new(Protocol::Udp, backend.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((len, from)) = backend.recv_from(&mut bytes) {
            let _ = backend.send_to(&bytes[..len], from);
        }
    });
    let service =
        UdpService { spec: house.spec.clone(), routes: house.routes(), log: Some(house.log.clone()) };
    let (listener, scope) = (house.listener.clone(), house.scope.clone());
    house.on_worker(move || drop(UdpListener::start(listener, 0, service, scope).unwrap()));
    let client = udp_client(house.addr());
    echo_udp(&client);
    let before = wmproxy_runtime::panic::count();
    house.log.0.store(true, Ordering::SeqCst);
    // Ended by its idle timeout, in the listener's own task.
    eventually(|| wmproxy_runtime::panic::count() > before && house.listener.metrics.active() == 0);
    house.log.0.store(false, Ordering::SeqCst);
    echo_udp(&client);
    echo_udp(&udp_client(house.addr()));
    // One task is the listener's.
    house.assert_nothing_left(1);
}
