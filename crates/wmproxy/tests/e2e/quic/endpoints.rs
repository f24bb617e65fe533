//! QUIC servers and clients of quinn, to stand on both sides of the proxy.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, Incoming};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::runtime::{Handle, Runtime};
use wmproxy_testkit::PATIENCE;

/// What every server speaks.
const ALPN: &[u8] = b"test";

/// A QUIC server. Answers a stream that says `name?` with its name, and any other with the same bytes.
pub(super) struct QuicServer {
    runtime: Option<Runtime>,
    endpoint: Endpoint,
    certificate: CertificateDer<'static>,
    connections: Arc<AtomicUsize>,
}

impl QuicServer {
    /// A server for one host name.
    pub(super) fn start(name: &str) -> QuicServer {
        QuicServer::accepting(name, Some)
    }

    /// One that has each client prove its address first.
    pub(super) fn with_retry(name: &str) -> QuicServer {
        QuicServer::accepting(name, |incoming| {
            if incoming.remote_address_validated() {
                return Some(incoming);
            }
            incoming.retry().unwrap();
            None
        })
    }

    fn accepting(name: &str, admit: fn(Incoming) -> Option<Incoming>) -> QuicServer {
        let runtime = runtime();
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config =
            quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(Arc::new(tls)).unwrap()));
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
        };
        let connections = Arc::new(AtomicUsize::new(0));
        let accept =
            accept(endpoint.clone(), name.into(), admit, connections.clone(), runtime.handle().clone());
        runtime.spawn(accept);
        QuicServer { runtime: Some(runtime), endpoint, certificate, connections }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// How many connections it ever accepted.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for QuicServer {
    fn drop(&mut self) {
        self.endpoint.close(0u32.into(), b"");
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(
    endpoint: Endpoint,
    name: Arc<str>,
    admit: fn(Incoming) -> Option<Incoming>,
    connections: Arc<AtomicUsize>,
    handle: Handle,
) {
    while let Some(incoming) = endpoint.accept().await {
        let Some(incoming) = admit(incoming) else { continue };
        let (name, connections) = (name.clone(), connections.clone());
        handle.spawn(async move {
            let Ok(connection) = incoming.await else { return };
            connections.fetch_add(1, Ordering::SeqCst);
            while let Ok((send, receive)) = connection.accept_bi().await {
                let _ = answer(send, receive, &name).await;
            }
        });
    }
}

async fn answer(
    mut send: quinn::SendStream,
    mut receive: quinn::RecvStream,
    name: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut buffer = vec![0; 64 << 10];
    let mut is_first = true;
    while let Some(len) = receive.read(&mut buffer).await? {
        let is_question = std::mem::replace(&mut is_first, false) && &buffer[..len] == b"name?";
        send.write_all(if is_question { name.as_bytes() } else { &buffer[..len] }).await?;
    }
    send.finish()?;
    Ok(())
}

/// A QUIC client that trusts these servers.
pub(super) struct QuicClient {
    runtime: Runtime,
    endpoint: Endpoint,
    roots: rustls::RootCertStore,
    /// Offered before the one that the servers speak, to make the hello longer.
    protocols: Vec<Vec<u8>>,
}

/// An established connection.
pub(super) struct QuicConnection {
    handle: Handle,
    connection: Connection,
}

impl QuicClient {
    pub(super) fn trusting<'a>(servers: impl IntoIterator<Item = &'a QuicServer>) -> QuicClient {
        let runtime = runtime();
        let mut roots = rustls::RootCertStore::empty();
        for server in servers {
            roots.add(server.certificate.clone()).unwrap();
        }
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
        };
        QuicClient { runtime, endpoint, roots, protocols: Vec::new() }
    }

    /// Makes each hello longer by so many protocols of 200 bytes.
    pub(super) fn with_protocols(mut self, count: usize) -> QuicClient {
        self.protocols = (0..count).map(|i| vec![b'a' + (i % 26) as u8; 200]).collect();
        self
    }

    /// Connects to `addr` and asks for `name`.
    pub(super) fn connect(&self, addr: SocketAddr, name: &str) -> QuicConnection {
        self.try_connect(addr, name, PATIENCE).unwrap_or_else(|error| panic!("connect to {name}: {error}"))
    }

    /// The same within a time.
    pub(super) fn try_connect(
        &self,
        addr: SocketAddr,
        name: &str,
        patience: Duration,
    ) -> Result<QuicConnection, String> {
        let mut tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        tls.alpn_protocols = self.protocols.iter().cloned().chain([ALPN.to_vec()]).collect();
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let connecting = {
            let _inside = self.runtime.enter();
            self.endpoint.connect_with(config, addr, name).unwrap()
        };
        let connected = async { tokio::time::timeout(patience, connecting).await };
        let connection = self.runtime.block_on(connected).map_err(|error| error.to_string())?;
        let connection = connection.map_err(|error| error.to_string())?;
        Ok(QuicConnection { handle: self.runtime.handle().clone(), connection })
    }

    /// Goes on from another port, as a client does that knows it has moved.
    pub(super) fn rebind(&self) {
        let _inside = self.runtime.enter();
        self.endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    }
}

impl Drop for QuicClient {
    fn drop(&mut self) {
        self.endpoint.close(0u32.into(), b"");
        // Or the servers, and with them the proxy's flows, would wait for their idle timeouts.
        let idle = async { tokio::time::timeout(PATIENCE, self.endpoint.wait_idle()).await };
        let _ = self.runtime.block_on(idle);
    }
}

impl QuicConnection {
    /// Which server this is.
    pub(super) fn name(&self) -> String {
        String::from_utf8(self.ask(b"name?".to_vec())).unwrap()
    }

    /// Sends `bytes` and takes what comes back, on a stream of its own.
    pub(super) fn ask(&self, bytes: Vec<u8>) -> Vec<u8> {
        let (connection, limit) = (self.connection.clone(), bytes.len() + 1_000);
        let asking = async move {
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            let write = async {
                send.write_all(&bytes).await.unwrap();
                send.finish().unwrap();
            };
            let ((), got) = tokio::join!(write, receive.read_to_end(limit));
            got.unwrap()
        };
        let asking = async { tokio::time::timeout(PATIENCE * 3, asking).await };
        self.handle.block_on(asking).expect("an answer in time")
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}
