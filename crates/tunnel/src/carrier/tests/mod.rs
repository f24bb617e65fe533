//! Both ways to carry many streams, held to the same: both ends of a connection in one process, on loopback.

mod contract;
mod oracle;
mod others;

use std::future::{Future, poll_fn};
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::limit::Gate;
use wmproxy_net::stream::Stream;
use wmproxy_net::tls::{Acceptor, AcceptorSpec, CertSpec, Connector, ConnectorSpec};
use wmproxy_runtime::scope::Scope;
use wmproxy_testkit::tls::Authority;
use wmproxy_wire::tunnel::message::ALPN;

use super::*;

/// How long anything may take that is certain to happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Mux,
    Quic,
}

pub(super) const WAYS: [Way; 2] = [Way::Mux, Way::Quic];

/// Both ends of a connection: the one that connected, and the one that listened.
pub(crate) struct Ends {
    pub(super) client: (Many, Incoming),
    pub(crate) server: (Many, Incoming),
    /// The tasks of both.
    pub(super) scope: Scope,
}

/// Runs a test on a worker of its own, which must not take for ever.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it takes too long") })
}

/// Two connected streams with sockets.
pub(super) fn sockets() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let stream = |socket: TcpStream| {
        socket.set_nonblocking(true).unwrap();
        socket.set_nodelay(true).unwrap();
        Stream::new(OwnedFd::from(socket), true).unwrap()
    };
    (stream(client), stream(server))
}

/// What both sides of TLS need, for a server named `tunnel.test`.
pub(super) fn tls() -> (Acceptor, Connector) {
    let authority = Authority::new();
    let pair = authority.issue("server", &["tunnel.test"]);
    let accepts = AcceptorSpec {
        certs: vec![CertSpec::Files { cert: pair.cert, key: pair.key }],
        alpn: vec![ALPN.into()],
        ..AcceptorSpec::default()
    };
    let connects =
        ConnectorSpec { ca: Some(authority.ca()), alpn: vec![ALPN.into()], ..ConnectorSpec::default() };
    (Acceptor::load(accepts).unwrap().0, Connector::load(connects).unwrap().0)
}

pub(super) fn listener(acceptor: &Acceptor, gate: Arc<Gate>, scope: &Scope) -> quic::Listener {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    quic::Listener::start(socket, acceptor.quic_config(), acceptor.derive(b"test"), gate, scope).unwrap()
}

impl Ends {
    pub(crate) async fn new(way: Way) -> Ends {
        let scope = Scope::new();
        match way {
            Way::Mux => {
                let (client, server) = sockets();
                let client = mux::start(client, mux::Side::Client, &scope);
                Ends { client, server: mux::start(server, mux::Side::Server, &scope), scope }
            }
            Way::Quic => {
                let (acceptor, connector) = tls();
                let listener = listener(&acceptor, Gate::new(0, 0), &scope);
                let to = listener.local_addr().unwrap();
                let accept = async { listener.accept(|_| {}).await.unwrap().finish().await.unwrap().0 };
                let connect = quic::connect(to, "tunnel.test", connector.quic_config(), &scope);
                let (server, client) = tokio::join!(accept, connect);
                Ends { client: quic::many(client.unwrap()), server: quic::many(server), scope }
            }
        }
    }

    /// A stream that the server has opened, with what each end has of it: the server, then the client. Its first byte was
    /// written and read.
    pub(super) async fn pair(&mut self) -> (Stream, Stream) {
        let near = self.server.0.open().await.unwrap();
        write(&near, b"!").await.unwrap();
        let far = self.client.1.next().await.unwrap().place();
        assert_eq!(read(&far, 1).await.unwrap(), b"!");
        (near, far)
    }
}

pub(super) async fn read(stream: &Stream, room: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; room];
    let n = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
    buffer.truncate(n);
    Ok(buffer)
}

/// Everything up to the end.
pub(super) async fn read_to_end(stream: &Stream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        match read(stream, 50_000).await? {
            part if part.is_empty() => return Ok(all),
            part => all.extend(part),
        }
    }
}

pub(super) async fn write(stream: &Stream, data: &[u8]) -> io::Result<()> {
    speech::write_all(stream, data).await
}

pub(super) async fn finish(stream: &Stream) -> io::Result<()> {
    poll_fn(|cx| stream.poll_shutdown_write(cx)).await
}

/// Bytes that are the same for the same seed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut noise = Vec::with_capacity(len + 8);
    while noise.len() < len {
        noise.extend_from_slice(&random.next().to_le_bytes());
    }
    noise.truncate(len);
    noise
}

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }
}
