//! A client against a server's end that is written by hand, and against the real one.

mod datagrams;
mod far;
mod login;
mod real;
mod secrets;
mod site;
mod visitors;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use wmproxy_net::addr::{Address, AddressSpec, Host, Protocol};
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::connect::{Connect, ConnectError, Connecting, ConnectingAlone};
use wmproxy_net::limit::Gate;
use wmproxy_net::record::{ListenerMetrics, Outcome};
use wmproxy_net::relay::{Terms, relay};
use wmproxy_net::sockopt::PeerSocket;
use wmproxy_net::stream::{self, Stream};
use wmproxy_net::tls::{Connector, ConnectorSpec};
use wmproxy_runtime::scope::{Leash, Scope};
use wmproxy_runtime::worker::Workers;
use wmproxy_testkit::PATIENCE;
use wmproxy_wire::destination::Destination;
use wmproxy_wire::tunnel::message::{ALPN, HttpRules, Kind, Service};
use wmproxy_wire::units::Secret;

use super::*;
use crate::options::{ClientSpec, ServiceSpec, TransportKind, Trust};

/// The way to a server on this machine.
#[derive(Debug)]
struct Loopback;

impl Loopback {
    async fn dial(to: &Destination) -> Result<Stream, ConnectError> {
        let address = Address::Inet(to.address().unwrap());
        Ok(stream::connect(&address, &PeerSocket::default(), None).await?)
    }
}

impl Connect for Loopback {
    fn connect<'a>(&'a self, to: &'a Destination) -> Connecting<'a> {
        Box::pin(Loopback::dial(to))
    }

    fn connect_alone<'a>(&'a self, to: &'a Destination) -> ConnectingAlone<'a> {
        Box::pin(Loopback::dial(to))
    }
}

impl Reach for Loopback {
    fn resolve<'a>(&'a self, to: &'a Destination) -> Resolving<'a> {
        Box::pin(std::future::ready(Ok(vec![to.address().unwrap()])))
    }
}

/// Passes visitors on to a backend, as the mode of layer 4 does.
struct Pass(SocketAddr);

impl Serve for Pass {
    fn serve(self: Arc<Self>, mut conn: Conn) -> Served {
        Box::pin(async move {
            let backend = Address::Inet(self.0);
            let Ok(peer) = stream::connect(&backend, &PeerSocket::default(), None).await else {
                conn.stream.reset_on_close();
                return conn.record.close(Outcome::ConnectFailed);
            };
            let outcome = relay(&conn.stream, &peer, Terms::new(PATIENCE), &mut conn.record).await;
            conn.record.close(outcome);
        })
    }
}

/// A client at work, with workers of its own.
struct Near {
    client: Arc<TunnelClient>,
    /// Its streams.
    scope: Scope,
    _running: Leash,
    _workers: Workers,
}

impl Near {
    fn new(spec: ClientSpec) -> Near {
        let workers = Workers::start(2).unwrap();
        let scope = Scope::new();
        let tls = ConnectorSpec {
            alpn: vec![ALPN.to_owned()],
            insecure_skip_verify: true,
            tls13_only: true,
            ..ConnectorSpec::default()
        };
        let tls = Arc::new(Connector::load(tls).unwrap().0);
        let client = TunnelClient::new(spec, Arc::new(Loopback), tls, workers.handle(), scope.clone());
        let running = Scope::new().spawn_control(client.clone().run());
        Near { client, scope, _running: running, _workers: workers }
    }

    /// Waits until the session with the first server is as it should be.
    async fn until(&self, what: &str, holds: impl Fn(&SessionStatus) -> bool) {
        let mut changes = self.client.changes();
        within(what, async {
            while !holds(&self.client.status().sessions[0]) {
                // The pool is no change.
                let _ = tokio::time::timeout(Duration::from_millis(2), changes.changed()).await;
            }
        })
        .await;
    }

    async fn until_state(&self, state: SessionState) {
        self.until(&format!("{state:?}"), |session| session.state == state).await;
    }
}

/// What a client that knows its server by the key alone is made of.
fn spec(servers: &[SocketAddr]) -> ClientSpec {
    let address = |addr: &SocketAddr| AddressSpec::Inet {
        host: Host::Ip(addr.ip()),
        first_port: addr.port(),
        last_port: addr.port(),
    };
    ClientSpec {
        servers: servers.iter().map(address).collect(),
        server_name: None,
        trust: Trust::Key,
        name: "home".into(),
        key: secret("the key"),
        transport: TransportKind::Tcp,
        pool: 2,
        mux: false,
        via: None,
        connect_timeout: Duration::from_secs(5),
        heartbeat: Duration::from_secs(5),
        max_backoff: Duration::from_millis(300),
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

fn service(name: &str, kind: Kind) -> Service {
    Service {
        id: 0,
        name: name.to_owned(),
        kind,
        is_private: false,
        port: 0,
        hosts: vec![],
        paths: vec![],
        visitors: vec![],
        clients: vec![],
        group: None,
        is_up: true,
        terminate: false,
        max_connections: 0,
        rate_up: 0,
        rate_down: 0,
        http: HttpRules::default(),
    }
}

/// An offer of a backend.
fn offer(name: &str, backend: SocketAddr) -> Offer {
    let address = Address::Name(name.into(), 0);
    Offer {
        spec: ServiceSpec { service: service(name, Kind::Tcp), secret: None },
        end: End::Bytes { serve: Arc::new(Pass(backend)), log: None },
        metrics: Arc::new(ListenerMetrics::new(name.into(), Protocol::Tcp, address, 2)),
        gate: Gate::new(0, 0),
        is_up: None,
    }
}

/// The same, for those who know the secret.
fn private(name: &str, backend: SocketAddr, text: &str) -> Offer {
    let mut offer = offer(name, backend);
    offer.spec.service.is_private = true;
    offer.spec.secret = Some(secret(text));
    offer
}

/// Fails the test when it takes too long.
async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

async fn send(stream: &Stream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| stream.poll_write(cx, bytes)).await.unwrap();
        bytes = &bytes[n..];
    }
}

async fn finish(stream: &Stream) {
    poll_fn(|cx| stream.poll_shutdown_write(cx)).await.unwrap();
}

async fn recv(stream: &Stream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut have = 0;
    while have < len {
        let n = poll_fn(|cx| stream.poll_read(cx, &mut bytes[have..])).await.unwrap();
        assert!(n > 0, "an end after {have} of {len} bytes");
        have += n;
    }
    bytes
}

/// What a stream has up to its end.
async fn recv_all(stream: &Stream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}
