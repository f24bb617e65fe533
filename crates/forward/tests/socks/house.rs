//! One worker with one listener.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use wmproxy_forward::options::ForwardOptions;
use wmproxy_forward::service::ForwardService;
use wmproxy_http::traffic::ListenerTraffic;
use wmproxy_net::accept::{Accepting, Service};
use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::limit::Gate;
use wmproxy_net::listen::{self, Listener};
use wmproxy_net::record::{AccessLog, ClosedRecord, UdpDrop};
use wmproxy_net::sockopt::ListenSocket;
use wmproxy_runtime::scope::Scope;
use wmproxy_runtime::worker::Workers;
use wmproxy_testkit::tcp::{Addr, Conn};
use wmproxy_wire::units::HumanDuration;

use super::gateway::Doorman;

/// The records that were closed.
#[derive(Default)]
struct Log(Mutex<Vec<ClosedRecord>>);

impl AccessLog for Log {
    fn write(&self, record: &ClosedRecord) {
        self.0.lock().unwrap().push(record.clone());
    }
}

pub(crate) struct House {
    control: Runtime,
    workers: Workers,
    listener: Arc<Listener>,
    log: Arc<Log>,
    scope: Scope,
    pub(crate) gateway: Arc<Doorman>,
}

thread_local! {
    static ACCEPTING: RefCell<Vec<Accepting>> = const { RefCell::new(Vec::new()) };
}

impl House {
    pub(crate) fn new() -> House {
        House::with(Doorman::default(), |_| {})
    }

    pub(crate) fn with(gateway: Doorman, change: impl FnOnce(&mut ForwardOptions)) -> House {
        House::at("127.0.0.1:0", gateway, change)
    }

    pub(crate) fn at(address: &str, gateway: Doorman, change: impl FnOnce(&mut ForwardOptions)) -> House {
        let mut options = ForwardOptions::default();
        change(&mut options);
        let gateway = Arc::new(gateway);
        let traffic = Arc::new(ListenerTraffic::new("t".into(), 1));
        let serve = ForwardService::new(options.spec("t".into()), gateway.clone(), None, None, traffic);
        let bound = listen::bind(Protocol::Tcp, &address.parse().unwrap(), 1, &ListenSocket::default());
        let house = House {
            control: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            workers: Workers::start(1).unwrap(),
            listener: Listener::new("t".into(), Arc::new(bound.unwrap().remove(0)), Gate::new(0, 10_000), 1),
            log: Arc::default(),
            scope: Scope::new(),
            gateway,
        };
        let (listener, scope, log) = (house.listener.clone(), house.scope.clone(), house.log.clone());
        let mut begin = Some(move || {
            let service = Service { serve, log: Some(log) };
            let accepting = Accepting::start(listener, 0, service, scope, &Scope::new()).unwrap();
            ACCEPTING.with_borrow_mut(|all| all.push(accepting));
        });
        house.control.block_on(house.workers.on_each(|_| begin.take().unwrap()));
        house
    }

    pub(crate) fn connect(&self) -> Conn {
        Conn::connect(&Addr::from(self.addr()))
    }

    /// A connection from another address of this machine.
    pub(crate) fn connect_from(&self, ip: &str) -> Conn {
        Conn::connect_from(ip.parse().unwrap(), &Addr::from(self.addr()))
    }

    /// A connection to another address of this machine.
    pub(crate) fn connect_to(&self, ip: &str) -> Conn {
        Conn::connect(&Addr::from(SocketAddr::new(ip.parse().unwrap(), self.addr().port())))
    }

    fn addr(&self) -> SocketAddr {
        match self.listener.bound.address {
            Address::Inet(addr) => addr,
            _ => unreachable!("an IP listener"),
        }
    }

    /// Takes the listener out of service.
    pub(crate) fn retire(&self) {
        let finish = || || ACCEPTING.take().into_iter().for_each(Accepting::finish);
        self.control.block_on(self.workers.on_each(|_| finish()));
    }

    /// How many datagrams were dropped for this.
    pub(crate) fn dropped(&self, why: UdpDrop) -> u64 {
        self.listener.metrics.blocks.sum(|block| &block.udp_drops[why as usize])
    }

    /// Whether there is a connection.
    pub(crate) fn is_busy(&self) -> bool {
        self.scope.live() > 0
    }

    /// The record of whoever ends next.
    pub(crate) fn next_record(&self) -> ClosedRecord {
        eventually(|| !self.log.0.lock().unwrap().is_empty());
        self.log.0.lock().unwrap().remove(0)
    }

    /// What was asked of the gateway, in its order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.gateway.asked.lock().unwrap().clone()
    }

    /// The record of the one connection, once it has ended; nothing of it is left then.
    pub(crate) fn record(&self) -> ClosedRecord {
        eventually(|| self.log.0.lock().unwrap().len() == 1 && self.scope.live() == 0);
        assert_eq!(self.listener.gate.active(), 0);
        self.log.0.lock().unwrap().remove(0)
    }
}

pub(crate) fn eventually(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Clients have this long for their handshake.
pub(crate) fn hurry(options: &mut ForwardOptions) {
    options.timeouts.preface = HumanDuration::from_millis(150);
}

/// Somebody who takes one connection.
pub(crate) struct Peer(TcpListener);

impl Peer {
    pub(crate) fn new() -> Peer {
        Peer(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub(crate) fn v6() -> Peer {
        Peer(TcpListener::bind("[::1]:0").unwrap())
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn port(&self) -> [u8; 2] {
        self.addr().port().to_be_bytes()
    }

    /// The connection, and from where it comes.
    pub(crate) fn accept(&self) -> (Conn, SocketAddr) {
        let (socket, from) = self.0.accept().unwrap();
        (Conn::new(socket.into()), from)
    }
}
