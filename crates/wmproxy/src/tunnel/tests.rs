//! Ports and fronts by themselves: what is behind them is a server to which no client has come.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wmproxy_forward::egress::OwnListeners;
use wmproxy_http::filter::Tables;
use wmproxy_http::options::HttpOptions;
use wmproxy_http::traffic::Traffic;
use wmproxy_net::addr::{Address, Host, Protocol};
use wmproxy_net::limit::Gate;
use wmproxy_net::listen::{self, Listener};
use wmproxy_net::sockopt::ListenSocket;
use wmproxy_runtime::worker::Workers;
use wmproxy_tunnel::options::{ServerOptions, VisitorsOptions};
use wmproxy_tunnel::server::{Exposure, Place, Ports as _, TunnelServer};
use wmproxy_upstream::Registry;
use wmproxy_wire::tunnel::message::{HttpRules, Kind, Refusal, RefusalCode};

use super::ports::{Means, Own, PortsSpec, TunnelPorts};
use crate::modes::{self, Job, Scopes};

/// A house without a config.
struct House {
    workers: Workers,
    scopes: Scopes,
    ports: Arc<TunnelPorts>,
    own: Arc<OwnListeners>,
}

impl House {
    async fn new() -> House {
        let workers = Workers::start(2).unwrap();
        let scopes = Scopes::default();
        let own = Arc::new(OwnListeners::new());
        let means = Means {
            own: own.clone(),
            workers: workers.handle(),
            scopes: scopes.clone(),
            peers: Registry::new(),
            filters: Arc::new(Tables::new()),
            traffic: Arc::new(Traffic::new(2)),
        };
        let server = TunnelServer::new(ServerOptions::default().spec(Vec::new()));
        let house = House { workers, scopes, ports: TunnelPorts::new(means, server), own };
        house.ports.configure(Some(spec())).await;
        house
    }

    async fn publish(&self, wanted: &[Exposure]) -> Vec<Result<Vec<Place>, Refusal>> {
        self.ports.publish(wanted.to_vec()).await
    }

    /// Publishes one exposure, and gives its address.
    async fn open(&self, wanted: Exposure) -> SocketAddr {
        address(&self.publish(&[wanted]).await[0])
    }

    /// An http front at a port of its own.
    async fn http(&self) -> SocketAddr {
        let spec = HttpOptions::default().spec("front".into(), Arc::new([]));
        let mode = self.ports.http(spec, None).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let bound = listen::bind(Protocol::Tcp, &any, 2, &ListenSocket::default()).unwrap().remove(0);
        let Address::Inet(address) = bound.address else { panic!("an internet address") };
        let listener = Listener::new("front".into(), Arc::new(bound), Gate::new(0, 0), 2);
        self.workers
            .on_each(|worker| {
                let job = Job { id: 1, listener: listener.clone(), mode: mode.clone() };
                let scopes = self.scopes.clone();
                move || modes::start(worker, job, &scopes).unwrap()
            })
            .await;
        self.ports.configure(Some(PortsSpec { http: Some(address.port()), ..spec_at() })).await;
        address
    }
}

fn spec() -> PortsSpec {
    spec_at()
}

fn spec_at() -> PortsSpec {
    PortsSpec {
        host: Host::Ip(Ipv4Addr::LOCALHOST.into()),
        visitors: VisitorsOptions::default().spec(),
        patience: Duration::from_secs(1),
        log: None,
        http: None,
        https: None,
        advertise: None,
        own: Vec::new(),
    }
}

fn exposure(name: &str, kind: Kind, port: u16) -> Exposure {
    Exposure {
        name: name.into(),
        kind,
        port,
        hosts: Vec::new(),
        paths: Vec::new(),
        visitors: Vec::new(),
        terminate: false,
        max_connections: 0,
        http: HttpRules::default(),
        members: vec!["home/x".into()],
    }
}

fn host(name: &str, host: &str) -> Exposure {
    Exposure { hosts: vec![host.to_owned()], ..exposure(name, Kind::Http, 0) }
}

fn address(result: &Result<Vec<Place>, Refusal>) -> SocketAddr {
    match result.as_deref() {
        Ok([Place::Address(address)]) => *address,
        other => panic!("no address: {other:?}"),
    }
}

fn code(result: &Result<Vec<Place>, Refusal>) -> RefusalCode {
    result.as_ref().unwrap_err().code
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// The status of an answer to a request for a host.
fn ask(front: SocketAddr, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(front).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn forward_proxies_know_the_ports_that_are_offered() {
    run(async {
        let house = House::new().await;
        let tcp = house.open(exposure("tcp:a/ssh", Kind::Tcp, 0)).await;
        assert!(house.own.hold(Protocol::Tcp, tcp) && !house.own.hold(Protocol::Udp, tcp));
        let udp = house.open(exposure("udp:a/dns", Kind::Udp, 0)).await;
        assert!(house.own.hold(Protocol::Udp, udp) && !house.own.hold(Protocol::Tcp, tcp));
        house.ports.configure(None).await;
        assert!(!house.own.hold(Protocol::Udp, udp));
    });
}

#[test]
fn a_port_stays_while_its_exposure_does() {
    run(async {
        let house = House::new().await;
        let first = house.open(exposure("tcp:a/ssh", Kind::Tcp, 0)).await;
        let visitor = TcpStream::connect(first).unwrap();
        let changed = Exposure { max_connections: 7, ..exposure("tcp:a/ssh", Kind::Tcp, 0) };
        assert_eq!(house.open(changed).await, first);
        // Another name at the same port takes the sockets over.
        assert_eq!(house.open(exposure("tcp:b/ssh", Kind::Tcp, first.port())).await, first);
        assert_eq!(house.ports.listeners().iter().filter(|it| &*it.name == "tcp:b/ssh").count(), 1);
        drop(visitor);
        house.publish(&[]).await;
        assert!(TcpStream::connect(first).is_err());
        // And at once it can be had again.
        assert_eq!(house.open(exposure("tcp:c/ssh", Kind::Tcp, first.port())).await, first);
    });
}

#[test]
fn a_taken_port_is_refused_with_the_reason() {
    run(async {
        let house = House::new().await;
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let own = Own {
            protocol: Protocol::Tcp,
            address: Address::Inet(([127, 0, 0, 1], 9).into()),
            name: "web".into(),
        };
        house.ports.configure(Some(PortsSpec { own: vec![own], ..spec() })).await;
        let results = house
            .publish(&[
                exposure("tcp:a/x", Kind::Tcp, port),
                exposure("tcp:a/y", Kind::Tcp, 9),
                exposure("tcp:a/z", Kind::Tcp, 0),
            ])
            .await;
        assert_eq!((code(&results[0]), code(&results[1])), (RefusalCode::InUse, RefusalCode::InUse));
        assert!(results[1].as_ref().unwrap_err().text.contains("web"), "{:?}", results[1]);
        TcpStream::connect(address(&results[2])).unwrap();
        drop(other);
        assert_eq!(house.open(exposure("tcp:a/x", Kind::Tcp, port)).await.port(), port);
    });
}

#[test]
fn a_port_of_datagrams_is_one_of_its_own() {
    run(async {
        let house = House::new().await;
        let tcp = house.open(exposure("tcp:a/x", Kind::Tcp, 0)).await;
        let results = house
            .publish(&[exposure("tcp:a/x", Kind::Tcp, 0), exposure("udp:a/x", Kind::Udp, tcp.port())])
            .await;
        assert_eq!((address(&results[0]), address(&results[1])), (tcp, tcp));
        assert!(UdpSocket::bind(tcp).is_err());
        house.publish(&[exposure("tcp:a/x", Kind::Tcp, 0)]).await;
        // While it lingers, it can be had again.
        let results = house
            .publish(&[exposure("tcp:a/x", Kind::Tcp, 0), exposure("udp:b/x", Kind::Udp, tcp.port())])
            .await;
        assert_eq!(address(&results[1]), tcp);
    });
}

#[test]
fn a_front_leads_by_host_and_path_and_knows_nobody_else() {
    run(async {
        let house = House::new().await;
        assert_eq!(code(&house.publish(&[host("http:a/web", "a.test")]).await[0]), RefusalCode::Invalid);
        let front = house.http().await;
        let below = Exposure { paths: vec!["/api".to_owned()], ..host("http:b/api", "*.b.test") };
        let bad = Exposure { hosts: Vec::new(), ..host("http:c/none", "c.test") };
        let results = house.publish(&[host("http:a/web", "a.test"), below, bad]).await;
        let url = |text: &str| Ok(vec![Place::Url(text.to_owned())]);
        let port = front.port();
        assert_eq!(results[0], url(&format!("http://a.test:{port}")));
        assert_eq!(results[1], url(&format!("http://*.b.test:{port}/api")));
        assert_eq!(code(&results[2]), RefusalCode::Invalid);
        for (host, path, status) in [
            // Nobody is behind it, which is another thing than that there is nobody.
            ("a.test", "/", "HTTP/1.1 502 Bad Gateway"),
            ("A.test:80", "/x", "HTTP/1.1 502 Bad Gateway"),
            ("x.y.b.test", "/api/1", "HTTP/1.1 502 Bad Gateway"),
            ("x.y.b.test", "/", "HTTP/1.1 404 Not Found"),
            ("b.test", "/api", "HTTP/1.1 404 Not Found"),
            ("c.test", "/", "HTTP/1.1 404 Not Found"),
        ] {
            let answer = tokio::task::spawn_blocking(move || ask(front, host, path)).await.unwrap();
            assert_eq!(answer, status, "{host}{path}");
        }
        house.publish(&[]).await;
        let answer = tokio::task::spawn_blocking(move || ask(front, "a.test", "/")).await.unwrap();
        assert_eq!(answer, "HTTP/1.1 404 Not Found");
    });
}

#[test]
fn rules_that_make_no_sense_are_refused_alone() {
    run(async {
        let house = House::new().await;
        house.http().await;
        let rules = |http| Exposure { http, ..host("http:a/x", "a.test") };
        let pair = |a: &str, b: &str| vec![(a.to_owned(), b.to_owned())];
        for wrong in [
            HttpRules { users: pair("alice", "plain"), ..HttpRules::default() },
            HttpRules { set_request: pair("Connection", "x"), ..HttpRules::default() },
            HttpRules { set_response: pair("x-a", "{nothing}"), ..HttpRules::default() },
            HttpRules { remove_response: vec!["a b".to_owned()], ..HttpRules::default() },
            HttpRules { host: Some("a b".to_owned()), ..HttpRules::default() },
        ] {
            let results = house.publish(&[rules(wrong.clone()), host("http:b/x", "b.test")]).await;
            assert_eq!(code(&results[0]), RefusalCode::Invalid, "{wrong:?}");
            assert!(results[1].is_ok(), "{:?}", results[1]);
        }
    });
}

#[test]
fn a_thousand_are_open_soon_and_one_more_at_once() {
    run(async {
        let house = House::new().await;
        house.http().await;
        let port = |n: usize| exposure(&format!("tcp:a/{n}"), Kind::Tcp, 0);
        let front = |n: usize| host(&format!("http:a/{n}"), &format!("h{n}.test"));
        let mut wanted: Vec<_> = (0..500).map(port).chain((0..500).map(front)).collect();
        let begun = Instant::now();
        let results = house.publish(&wanted).await;
        assert!(results.iter().all(Result::is_ok));
        let all = begun.elapsed();
        wanted.push(front(1000));
        wanted.push(port(1000));
        let begun = Instant::now();
        let again = house.publish(&wanted).await;
        let one = begun.elapsed();
        assert_eq!(results, again[..1000]);
        let groups = house.ports.groups();
        assert!(groups.len() == 1002 && groups.is_sorted_by_key(|group| group.name()));
        // A debug build on a busy machine; a release takes a tenth of it.
        assert!(all < Duration::from_secs(20) && one < Duration::from_secs(8), "{all:?}, {one:?}");
        eprintln!("a thousand in {all:?}, one more in {one:?}");
    });
}
