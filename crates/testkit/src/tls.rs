//! Certificates on order, and TLS clients and backends that block.
//!
//! They are rustls's own buffered connections, where the proxy drives the unbuffered ones; what only another
//! implementation can show is tested with OpenSSL's programs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection, StreamOwned, SupportedProtocolVersion,
};

use crate::{Addr, PATIENCE, TempDir};

/// A root whom nobody trusts but who is told to, and the directory of what it signs.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate and its key.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Pair {
    /// As the value of an option `tls`.
    pub fn toml(&self) -> String {
        format!("{{ cert = \"{}\", key = \"{}\" }}", self.cert.display(), self.key.display())
    }
}

impl Authority {
    /// Makes one.
    #[allow(clippy::new_without_default, reason = "it makes a directory, which is no default")]
    pub fn new() -> Authority {
        let dir = TempDir::new();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Roots of the same name are mistaken for each other.
        let name = format!("testkit {}", dir.path().display());
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        dir.write("ca.pem", &issuer.pem());
        Authority { dir, issuer }
    }

    /// The file of its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Signs a certificate for these names, into files of this name. Those that are there are replaced.
    pub fn issue(&self, file: &str, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let write = |name: String, text: &str| {
            let next = self.dir.write(&format!("{name}.next"), text);
            // As whoever renews certificates does.
            std::fs::rename(next, self.dir.join(&name)).unwrap();
            self.dir.join(&name)
        };
        let key = write(format!("{file}.key"), &key.serialize_pem());
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Pair { cert: write(format!("{file}.pem"), &cert.pem()), key }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }
}

fn load(pair: &Pair) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_file_iter(&pair.cert).unwrap().collect::<Result<_, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_file(&pair.key).unwrap())
}

/// Makes connections by TLS. Remembers sessions, as a browser does.
#[derive(Debug, Clone)]
pub struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// One that trusts an authority.
    pub fn new(authority: &Authority) -> TlsClient {
        Self::build(authority, None, rustls::ALL_VERSIONS, &[])
    }

    /// One that proves who it is.
    pub fn with_cert(authority: &Authority, pair: &Pair) -> TlsClient {
        Self::build(authority, Some(pair), rustls::ALL_VERSIONS, &[])
    }

    /// One that offers application protocols.
    pub fn with_alpn(authority: &Authority, protocols: &[&str]) -> TlsClient {
        Self::build(authority, None, rustls::ALL_VERSIONS, protocols)
    }

    /// One of before 2018.
    pub fn of_tls12(authority: &Authority) -> TlsClient {
        Self::build(authority, None, &[&rustls::version::TLS12], &[])
    }

    fn build(
        authority: &Authority,
        pair: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> TlsClient {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(authority.roots());
        let mut config = match pair.map(load) {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsClient(Arc::new(config))
    }

    /// Connects, and goes through the handshake with who should be `name`.
    ///
    /// # Errors
    /// As the handshake failed.
    pub fn connect(&self, addr: &Addr, name: &str) -> io::Result<TlsConn> {
        let socket = TcpStream::connect(addr.inet()).unwrap();
        self.over(socket, name)
    }

    /// The same over a connection that is there.
    ///
    /// # Errors
    /// As the handshake failed.
    pub fn over(&self, mut socket: TcpStream, name: &str) -> io::Result<TlsConn> {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = ClientConnection::new(self.0.clone(), name).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(TlsConn(StreamOwned::new(session, socket)))
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct TlsConn(StreamOwned<ClientConnection, TcpStream>);

impl TlsConn {
    /// Writes all of it.
    ///
    /// # Panics
    /// When that fails.
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
        self.0.flush().unwrap();
    }

    /// Reads exactly so much.
    ///
    /// # Errors
    /// The connection failed, or ended before.
    pub fn try_recv(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes what comes back.
    ///
    /// # Panics
    /// When it does not.
    pub fn echo(&mut self, bytes: &[u8]) {
        self.send(bytes);
        assert_eq!(self.try_recv(bytes.len()).unwrap(), bytes);
    }

    /// Says that nothing more will come: close_notify, and no FIN.
    pub fn finish(&mut self) {
        self.0.conn.send_close_notify();
        self.0.flush().unwrap();
    }

    /// Cuts its direction off, without close_notify.
    pub fn cut(&mut self) {
        self.0.sock.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads to the end that the other side declares.
    ///
    /// # Errors
    /// The connection failed, or ended without close_notify.
    pub fn recv_all(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.0.sock
    }

    /// SHA-256 of the server's certificate would do as well, but this needs no hash: the certificate itself.
    pub fn certificate(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// The protocol that was agreed on.
    pub fn alpn(&self) -> Option<String> {
        self.0.conn.alpn_protocol().map(|protocol| String::from_utf8(protocol.to_vec()).unwrap())
    }

    /// Whether it is one of TLS 1.3.
    pub fn is_tls13(&self) -> bool {
        self.0.conn.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether an earlier session went on.
    pub fn was_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl Read for TlsConn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for TlsConn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A TLS server that sends back what comes, and ends after its client.
#[derive(Debug)]
pub struct TlsBackend {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    shaken: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl TlsBackend {
    /// One with a certificate.
    pub fn echo(pair: &Pair) -> TlsBackend {
        Self::start(Self::config(pair, None))
    }

    /// One that wants to know who its clients are.
    pub fn echo_to_known(pair: &Pair, clients: &Authority) -> TlsBackend {
        Self::start(Self::config(pair, Some(clients)))
    }

    pub(crate) fn config(pair: &Pair, clients: Option<&Authority>) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(clients.roots(), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = load(pair);
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }

    fn start(config: Arc<ServerConfig>) -> TlsBackend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, shaken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (stop.clone(), shaken.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (config, counted) = (config.clone(), counted.clone());
                // A client that goes away is the test's business, not the backend's.
                std::thread::spawn(move || drop(serve(socket, config, &counted)));
            }
        });
        TlsBackend { addr, stop, shaken, thread: Some(thread) }
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Handshakes that it has seen through.
    pub fn shaken(&self) -> usize {
        self.shaken.load(Ordering::Relaxed)
    }
}

impl Drop for TlsBackend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut socket: TcpStream, config: Arc<ServerConfig>, shaken: &AtomicUsize) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut session = ServerConnection::new(config).unwrap();
    while session.is_handshaking() {
        if let Err(error) = session.complete_io(&mut socket) {
            // What is said about it goes out all the same.
            let _ = session.write_tls(&mut socket);
            return Err(error);
        }
    }
    shaken.fetch_add(1, Ordering::Relaxed);
    let mut stream = StreamOwned::new(session, socket);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => stream.write_all(&buffer[..n])?,
        }
        stream.flush()?;
    }
    stream.conn.send_close_notify();
    stream.flush()
}
