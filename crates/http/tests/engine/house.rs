//! One worker with one listener.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use wmproxy_http::facts::Scene;
use wmproxy_http::filter::Tables;
use wmproxy_http::options::{
    EndpointSpec, FilterSpec, HttpOptions, HttpSpec, ReverseProxyTable, ReverseSpec, RouteSpec,
};
use wmproxy_http::traffic::ListenerTraffic;
use wmproxy_http::{HttpService, RequestLog};
use wmproxy_net::accept::{Accepting, Service};
use wmproxy_net::addr::{Address, Protocol, TargetSpec};
use wmproxy_net::limit::Gate;
use wmproxy_net::listen::{self, Listener};
use wmproxy_net::record::{AccessLog, ClosedRecord, Outcome};
use wmproxy_net::sockopt::ListenSocket;
use wmproxy_runtime::scope::Scope;
use wmproxy_runtime::worker::Workers;
use wmproxy_testkit::http::Client;
use wmproxy_testkit::tcp::Addr;
use wmproxy_upstream::{Group, GroupSpec, Registry};

/// What was written down of requests, and how connections ended.
#[derive(Default)]
pub(crate) struct Log {
    /// Nothing is written down.
    pub(crate) is_off: AtomicBool,
    pub(crate) lines: Mutex<Vec<String>>,
    pub(crate) outcomes: Mutex<Vec<Outcome>>,
}

impl RequestLog for Log {
    fn write(&self, scene: &Scene<'_>) {
        if self.is_off.load(Ordering::Relaxed) {
            return;
        }
        let Scene { request, facts, .. } = scene;
        let line = format!(
            "{} {} {} {}/{}",
            String::from_utf8_lossy(request.method_name()),
            String::from_utf8_lossy(request.asked_target()),
            facts.status,
            facts.bytes_in,
            facts.bytes_out,
        );
        self.lines.lock().unwrap().push(line);
    }
}

impl AccessLog for Log {
    fn write(&self, record: &ClosedRecord) {
        self.outcomes.lock().unwrap().push(record.outcome);
    }
}

pub(crate) struct House {
    control: Runtime,
    workers: Workers,
    pub(crate) listener: Arc<Listener>,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) log: Arc<Log>,
    pub(crate) scope: Scope,
}

/// The route that passes everything on to the group `g`.
pub(crate) fn reverse() -> EndpointSpec {
    let table = ReverseProxyTable::default();
    EndpointSpec::Reverse(ReverseSpec {
        group: "g".into(),
        base: "".into(),
        authority: None,
        preserve_host: true,
        timeout: table.timeout.get(),
        try_timeout: table.timeout.get(),
        buffer: false,
        h2: false,
    })
}

/// A listener's settings, with one route to an endpoint.
pub(crate) fn spec(options: HttpOptions, endpoint: EndpointSpec) -> HttpSpec {
    let route = RouteSpec {
        name: "1".into(),
        matches: Default::default(),
        rewrite: Default::default(),
        try_paths: vec![],
        filters: FilterSpec::default(),
        endpoint,
    };
    options.spec("t".into(), Arc::new([route]))
}

impl House {
    /// Before these origins, with default settings.
    pub(crate) fn before(origins: &[SocketAddr]) -> House {
        House::with(spec(HttpOptions::default(), reverse()), origins)
    }

    pub(crate) fn with(spec: HttpSpec, origins: &[SocketAddr]) -> House {
        let house = House::empty(origins);
        let service = house.service(spec);
        house.open(service);
        house
    }

    /// A listener that nobody serves yet.
    pub(crate) fn empty(origins: &[SocketAddr]) -> House {
        let bound = listen::bind(Protocol::Tcp, &"127.0.0.1:0".parse().unwrap(), 1, &ListenSocket::default())
            .unwrap()
            .remove(0);
        let targets: Vec<_> = origins.iter().map(|addr| TargetSpec::Address(Address::Inet(*addr))).collect();
        let group = (!targets.is_empty()).then(|| Registry::new().build(GroupSpec::inline("g", targets)));
        House {
            control: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            workers: Workers::start(1).unwrap(),
            listener: Listener::new("t".into(), Arc::new(bound), Gate::new(0, 10_000), 1),
            group,
            log: Arc::default(),
            scope: Scope::new(),
        }
    }

    /// Has it served.
    pub(crate) fn open(&self, service: Service) {
        let (listener, scope) = (self.listener.clone(), self.scope.clone());
        self.on_worker(move || {
            let accepting = Accepting::start(listener, 0, service, scope.clone(), &Scope::new()).unwrap();
            ACCEPTING.with_borrow_mut(|all| all.push(accepting));
        });
    }

    fn service(&self, spec: HttpSpec) -> Service {
        let group = self.group.clone();
        let traffic = Arc::new(ListenerTraffic::new("t".into(), 1));
        let log = Some(self.log.clone() as Arc<dyn RequestLog>);
        let serve = HttpService::new(spec, |_| group.clone(), None, log, traffic, &Tables::new()).unwrap();
        Service { serve, log: Some(self.log.clone()) }
    }

    /// Serves with something else from now on.
    pub(crate) fn replace(&self, spec: HttpSpec) {
        self.replace_by(self.service(spec));
    }

    /// Serves with something else from now on.
    pub(crate) fn replace_by(&self, service: Service) {
        let listener = self.listener.clone();
        self.on_worker(move || ACCEPTING.with_borrow(|all| all[0].replace(listener, service)));
    }

    /// Takes the listener out of service.
    pub(crate) fn retire(&self) {
        self.on_worker(|| ACCEPTING.with_borrow_mut(|all| all.remove(0).finish()));
    }

    /// Ends the worker, with all that still runs on it.
    pub(crate) fn end(self) -> Arc<Log> {
        self.workers.end();
        self.log
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match self.listener.bound.address {
            Address::Inet(addr) => addr,
            _ => unreachable!("an IP listener"),
        }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&Addr::Inet(self.addr()))
    }

    pub(crate) fn on_worker(&self, run: impl FnOnce() + Send + 'static) {
        let mut run = Some(run);
        self.control.block_on(self.workers.on_each(|_| run.take().unwrap()));
    }

    /// What was written down, once there are so many lines.
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        eventually(|| self.log.lines.lock().unwrap().len() >= count);
        self.log.lines.lock().unwrap().clone()
    }

    /// Whether everything that connections and requests hold comes back.
    pub(crate) fn assert_nothing_left(&self) {
        eventually(|| self.listener.gate.active() == 0 && self.listener.metrics.active() == 0);
        // The accept loop is another scope's.
        eventually(|| self.scope.live() == 0);
        if let Some(group) = &self.group {
            eventually(|| group.snapshot(0).peers.iter().all(|peer| peer.in_flight == 0));
        }
    }
}

thread_local! {
    static ACCEPTING: std::cell::RefCell<Vec<Accepting>> = const { std::cell::RefCell::new(Vec::new()) };
}

pub(crate) fn eventually(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}
