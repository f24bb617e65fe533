//! A server with clients that are written by hand, over loopback.

mod access;
mod hostile;
mod sessions;
mod visitors;

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::conn::{Conn, Serve};
use wmproxy_net::connect::{Connect, ConnectError, Visitor};
use wmproxy_net::limit::Gate;
use wmproxy_net::record::{ListenerMetrics, Record};
use wmproxy_net::sockopt::PeerSocket;
use wmproxy_net::stream::{self, Stream};
use wmproxy_net::tls::{self, Acceptor, AcceptorSpec, CertSpec, Connector, ConnectorSpec};
use wmproxy_runtime::scope::{Leash, Scope};
use wmproxy_testkit::{PATIENCE, TempDir};
use wmproxy_wire::destination::{Destination, Host};
use wmproxy_wire::tunnel::message::{
    ALPN, Challenge, Hello, HttpRules, Join, Kind, Message, Purpose, Refusal, RefusalCode, Register,
    Registered, Service, Start, Welcome,
};
use wmproxy_wire::units::Secret;

use super::*;
use crate::auth::{self, EXPORTER_LABEL, Exporter};
use crate::carrier::speech::{SpeechError, read_message, write_message};
use crate::options::{GrantSpec, PortRange, ServerSpec};

const MAX: usize = 1 << 20;

/// A server at work on this thread.
struct Site {
    server: Arc<TunnelServer>,
    ports: Arc<FakePorts>,
    address: SocketAddr,
    connector: Connector,
    /// The connections of clients.
    scope: Scope,
    _tasks: Vec<Leash>,
    _dir: TempDir,
}

/// Notes what is to be open, and says that it is.
#[derive(Default)]
struct FakePorts {
    wanted: Mutex<Vec<Exposure>>,
}

impl Ports for FakePorts {
    fn publish(&self, wanted: Vec<Exposure>) -> Publishing<'_> {
        let place = |exposure: &Exposure| match exposure.kind {
            Kind::Http | Kind::Https => {
                exposure.hosts.iter().map(|host| Place::Url(format!("http://{host}"))).collect()
            }
            _ => vec![Place::Address(([127, 0, 0, 1], exposure.port).into())],
        };
        let results = wanted.iter().map(|exposure| Ok(place(exposure))).collect();
        *self.wanted.lock().unwrap() = wanted;
        Box::pin(std::future::ready(results))
    }
}

impl FakePorts {
    fn open(&self) -> Vec<String> {
        self.wanted.lock().unwrap().iter().map(|exposure| exposure.name.to_string()).collect()
    }
}

fn grant(name: &str) -> GrantSpec {
    GrantSpec {
        name: name.into(),
        key: key_of(name),
        ports: vec![PortRange { first: 20000, last: 20100 }],
        hosts: vec![format!("*.{name}.example.com")],
        private: true,
        max_services: 10,
        max_connections: 0,
        rate_limit: None,
    }
}

fn key_of(name: &str) -> Secret {
    Secret::new(format!("the key of {name}")).unwrap()
}

fn spec(clients: Vec<GrantSpec>) -> ServerSpec {
    ServerSpec {
        clients,
        login_timeout: PATIENCE,
        max_pending: 100,
        max_pending_per_address: 50,
        heartbeat: PATIENCE,
        max_pool: 4,
        wait_timeout: PATIENCE,
        max_waiting: 10,
        grace: PATIENCE,
    }
}

fn tcp(id: u32, name: &str, port: u16) -> Service {
    Service {
        id,
        name: name.into(),
        kind: Kind::Tcp,
        is_private: false,
        port,
        hosts: Vec::new(),
        paths: Vec::new(),
        visitors: Vec::new(),
        clients: Vec::new(),
        group: None,
        is_up: true,
        terminate: false,
        max_connections: 0,
        rate_up: 0,
        rate_down: 0,
        http: HttpRules::default(),
    }
}

fn on_worker<F: Future<Output = ()>>(test: F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(4 * PATIENCE, test).await.expect("the test hangs") });
}

impl Site {
    fn new(spec: ServerSpec) -> Site {
        let dir = TempDir::new();
        let acceptor = Arc::new(acceptor(&dir));
        let server = TunnelServer::new(spec);
        let ports = Arc::new(FakePorts::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let entrance = Entrance::new(server.clone(), acceptor);
        let scope = Scope::new();
        let tasks = vec![
            scope.spawn_leashed(accept(listener, entrance, scope.clone())),
            scope.spawn_leashed(server.clone().keep_published(ports.clone())),
        ];
        Site { server, ports, address, connector: connector(), scope, _tasks: tasks, _dir: dir }
    }

    /// A connection with TLS, on which nothing has been said.
    async fn dial(&self) -> Caller {
        let stream =
            stream::connect(&Address::Inet(self.address), &PeerSocket::default(), None).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        tls::connect(&stream, &self.connector, name).await.unwrap();
        let exporter = stream.export_keying_material(EXPORTER_LABEL, b"").unwrap();
        Caller { stream, exporter }
    }

    async fn login(&self, name: &str) -> Login {
        let caller = self.dial().await;
        let welcome = caller.login(name, &key_of(name)).await.unwrap();
        Login { caller, welcome, epoch: 0 }
    }

    async fn join(&self, welcome: &Welcome, purpose: Purpose) -> Caller {
        let caller = self.dial().await;
        let mac = auth::join_proof(&welcome.secret, &caller.exporter, purpose);
        caller.say(Message::Join(Join { session: welcome.session, purpose, mac })).await;
        caller
    }

    /// A connection of the pool, once it lies there.
    async fn wait(&self, login: &Login) -> Caller {
        let before = self.server.status().counts.joins;
        let caller = self.join(&login.welcome, Purpose::Wait).await;
        until("a joined connection", || self.server.status().counts.joins > before).await;
        caller
    }

    async fn connect(&self, service: &str) -> Result<Stream, ConnectError> {
        let to = Destination { host: Host::Name(service.into()), port: 0 };
        let visitor = Visitor {
            client: Some(([192, 0, 2, 1], 1234).into()),
            local: Some(([127, 0, 0, 1], 20000).into()),
        };
        self.server.connect_for(&to, &visitor).await
    }
}

/// One side of a connection to the server.
struct Caller {
    stream: Stream,
    exporter: Exporter,
}

/// A client that has a session.
struct Login {
    caller: Caller,
    welcome: Welcome,
    epoch: u64,
}

impl Caller {
    async fn say(&self, message: Message) {
        write_message(&self.stream, &message).await.unwrap();
    }

    async fn hear(&self) -> Message {
        within(read_message(&self.stream, MAX)).await.unwrap()
    }

    async fn refusal(&self) -> Refusal {
        match self.hear().await {
            Message::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the server has closed it.
    async fn ended(&self) {
        within(async { while read_message(&self.stream, MAX).await.is_ok() {} }).await;
    }

    async fn challenge(&self, name: &str) -> (Hello, Challenge) {
        let nonce = auth::nonce();
        let hello = Hello { version: 1, capabilities: 0, name: name.into(), nonce, agent: "by hand".into() };
        self.say(Message::Hello(hello.clone())).await;
        match self.hear().await {
            Message::Challenge(challenge) => (hello, challenge),
            other => panic!("{other:?}"),
        }
    }

    async fn login(&self, name: &str, key: &Secret) -> Result<Welcome, Refusal> {
        let (hello, challenge) = self.challenge(name).await;
        self.say(Message::Proof(auth::client_proof(key, &self.exporter, &hello, &challenge))).await;
        match self.hear().await {
            Message::Welcome(welcome) => {
                let proof = auth::server_proof(key, &self.exporter, &hello, &challenge);
                assert!(auth::is_same(&welcome.mac, &proof));
                Ok(welcome)
            }
            Message::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    async fn start(&self) -> Start {
        match self.hear().await {
            Message::Start(start) => start,
            other => panic!("{other:?}"),
        }
    }
}

impl Login {
    async fn register(&mut self, services: Vec<Service>) -> Registered {
        self.epoch += 1;
        self.caller.say(Message::Register(Register { epoch: self.epoch, services })).await;
        self.registered().await
    }

    async fn registered(&self) -> Registered {
        loop {
            match self.caller.hear().await {
                Message::Registered(registered) if registered.epoch == self.epoch => return registered,
                Message::Registered(_) | Message::Need(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn offer(&mut self, services: Vec<Service>) {
        let registered = self.register(services).await;
        assert!(registered.results.iter().all(|placed| placed.result.is_ok()), "{registered:?}");
    }
}

async fn accept(listener: TcpListener, entrance: Arc<Entrance>, scope: Scope) {
    listener.set_nonblocking(true).unwrap();
    let address = Address::Inet(listener.local_addr().unwrap());
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let metrics = Arc::new(ListenerMetrics::new("tunnel".into(), Protocol::Tcp, address, 1));
    let gate = Gate::new(0, 0);
    loop {
        let (socket, from) = listener.accept().await.unwrap();
        let record = Record::open(metrics.clone(), None, Some(from));
        let stream = Stream::new(socket.into_std().unwrap().into(), true).unwrap();
        let conn = Conn { stream, record, permit: gate.enter_anyway() };
        scope.spawn_boxed(entrance.clone().serve(conn));
    }
}

fn acceptor(dir: &TempDir) -> Acceptor {
    let spec = AcceptorSpec {
        certs: vec![CertSpec::Identity { file: dir.join("identity.pem") }],
        alpn: vec![ALPN.into()],
        tls13_only: true,
        ..AcceptorSpec::default()
    };
    Acceptor::load(spec).unwrap().0
}

fn connector() -> Connector {
    let spec = ConnectorSpec {
        alpn: vec![ALPN.into()],
        insecure_skip_verify: true,
        tls13_only: true,
        ..ConnectorSpec::default()
    };
    Connector::load(spec).unwrap().0
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it comes in time")
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what} in time"));
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

/// What comes up to the end.
async fn rest(stream: &Stream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match within(poll_fn(|cx| stream.poll_read(cx, &mut buffer))).await? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

/// So many bytes.
async fn recv(stream: &Stream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut have = 0;
    while have < len {
        let n = within(poll_fn(|cx| stream.poll_read(cx, &mut bytes[have..]))).await.unwrap();
        assert!(n > 0, "an end after {have} of {len} bytes");
        have += n;
    }
    bytes
}

/// That bytes pass both ways, and each end is an end.
async fn talk(one: &Stream, other: &Stream) {
    send(one, b"from the visitor").await;
    finish(one).await;
    assert_eq!(rest(other).await.unwrap(), b"from the visitor");
    send(other, b"from the service").await;
    finish(other).await;
    assert_eq!(rest(one).await.unwrap(), b"from the service");
}
