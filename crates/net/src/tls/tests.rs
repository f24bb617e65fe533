//! Handshakes and sessions between two of our own streams on one runtime, over loopback.

mod nested;
mod reading;
mod session;
mod trust;
mod waiting;

use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::sign::CertifiedKey;

use super::*;

/// A directory of a test, removed with it.
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn directory(name: &str) -> Directory {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("wmproxy-tls-{name}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    Directory(path)
}

/// A pair for these names, signed by itself.
pub(super) fn certified(names: &[&str]) -> CertifiedKey {
    let directory = directory("certified");
    let key = KeyPair::generate().unwrap();
    let cert = params(names).self_signed(&key).unwrap();
    let spec = CertSpec::Files {
        cert: directory.write("c.pem", &cert.pem()),
        key: directory.write("k.pem", &key.serialize_pem()),
    };
    files::load_pair(&spec, 0).unwrap().0
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// A root that signs what a test needs, in a directory of its own.
struct Authority {
    directory: Directory,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let directory = directory("authority");
        let name = directory.path().file_name().unwrap().to_str().unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        directory.write("ca.pem", &issuer.pem());
        Authority { directory, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    fn issue(&self, file: &str, names: &[&str]) -> CertSpec {
        let key = KeyPair::generate().unwrap();
        let cert = params(names).signed_by(&key, &self.issuer).unwrap();
        CertSpec::Files {
            cert: self.directory.write(&format!("{file}.pem"), &cert.pem()),
            key: self.directory.write(&format!("{file}.key"), &key.serialize_pem()),
        }
    }

    fn accepts(&self, names: &[&str]) -> AcceptorSpec {
        AcceptorSpec { certs: vec![self.issue("server", names)], ..AcceptorSpec::default() }
    }

    fn connects(&self) -> ConnectorSpec {
        ConnectorSpec { ca: Some(self.ca()), ..ConnectorSpec::default() }
    }
}

fn acceptor(spec: AcceptorSpec) -> Acceptor {
    Acceptor::load(spec).unwrap().0
}

fn connector(spec: ConnectorSpec) -> Connector {
    Connector::load(spec).unwrap().0
}

/// Two ends of a connection.
fn pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    let stream = |socket: TcpStream| {
        socket.set_nonblocking(true).unwrap();
        socket.set_nodelay(true).unwrap();
        Stream::new(socket.into(), true).unwrap()
    };
    (stream(far), stream(near))
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(30);
    tokio::runtime::LocalRuntime::new()
        .unwrap()
        .block_on(async { tokio::time::timeout(limit, test).await.expect("in time") })
}

/// A handshake between the two.
async fn shake(
    acceptor: &Acceptor,
    connector: &Connector,
    host: &str,
) -> (Stream, Stream, Result<TlsInfo, TlsError>, Result<TlsInfo, TlsError>) {
    let (client, server) = pair();
    let name = connector.name_for(host).unwrap();
    let (accepted, connected) = tokio::join!(accept(&server, acceptor), connect(&client, connector, name));
    (client, server, accepted, connected)
}

/// Two ends of a connection whose handshake is over, the client's first.
async fn secured() -> (Stream, Stream) {
    let authority = Authority::new();
    let (acceptor, connector) = (acceptor(authority.accepts(&["a.test"])), connector(authority.connects()));
    let (client, server, accepted, connected) = shake(&acceptor, &connector, "a.test").await;
    assert!(accepted.is_ok() && connected.is_ok());
    (client, server)
}

async fn read(stream: &Stream, room: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; room];
    let n = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
    buffer.truncate(n);
    Ok(buffer)
}

async fn read_exactly(stream: &Stream, bytes: usize) -> io::Result<Vec<u8>> {
    let mut all = vec![];
    while all.len() < bytes {
        let part = read(stream, bytes - all.len()).await?;
        assert!(!part.is_empty(), "the end after {} of {bytes}", all.len());
        all.extend(part);
    }
    Ok(all)
}

async fn write(stream: &Stream, mut data: &[u8]) {
    while !data.is_empty() {
        let n = poll_fn(|cx| stream.poll_write(cx, data)).await.unwrap();
        data = &data[n..];
    }
}

async fn finish(stream: &Stream) {
    poll_fn(|cx| stream.poll_shutdown_write(cx)).await.unwrap();
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn garbage_where_a_handshake_should_be_is_refused() {
    let authority = Authority::new();
    run(async {
        let acceptor = acceptor(authority.accepts(&["a.test"]));
        let (client, server) = pair();
        write(&client, b"GET / HTTP/1.1\r\n\r\n").await;
        let error = accept(&server, &acceptor).await.unwrap_err();
        assert!(matches!(error, TlsError::Protocol(_)), "{error}");
        assert_eq!(error.client_outcome(), Outcome::ClientTls);
        let alert = read(&client, 100).await.unwrap();
        assert_eq!(&alert[..3], &[21, 3, 3], "an alert");
        let (client, server) = pair();
        drop(client);
        let error = accept(&server, &acceptor).await.unwrap_err();
        assert!(matches!(error, TlsError::Unfinished), "{error}");
    });
}

#[test]
fn a_server_has_to_be_who_it_should() {
    let (authority, other) = (Authority::new(), Authority::new());
    run(async {
        let acceptor = acceptor(authority.accepts(&["a.test", "127.0.0.1"]));
        for (spec, host, reason) in [
            (authority.connects(), "a.test", None),
            (authority.connects(), "127.0.0.1", None),
            (authority.connects(), "b.test", Some("not valid for name \"b.test\"")),
            (other.connects(), "a.test", Some("UnknownIssuer")),
            (ConnectorSpec { insecure_skip_verify: true, ..other.connects() }, "b.test", None),
            (ConnectorSpec { server_name: Some("a.test".into()), ..authority.connects() }, "b.test", None),
        ] {
            let connector = connector(spec);
            let (_, _, accepted, connected) = shake(&acceptor, &connector, host).await;
            match reason {
                None => drop(connected.unwrap()),
                Some(reason) => {
                    let error = connected.unwrap_err();
                    assert!(error.is_untrusted() && error.to_string().contains(reason), "{error}");
                    // It was told why.
                    assert!(accepted.unwrap_err().to_string().contains("fatal alert"));
                }
            }
        }
    });
}

#[test]
fn clients_prove_who_they_are_where_that_is_asked() {
    let (authority, other) = (Authority::new(), Authority::new());
    run(async {
        let acceptor =
            acceptor(AcceptorSpec { client_ca: Some(authority.ca()), ..authority.accepts(&["a.test"]) });
        let with = |cert| connector(ConnectorSpec { cert, ..authority.connects() });
        let alice = with(Some(authority.issue("alice", &["alice"])));
        let (_, _, accepted, _) = shake(&acceptor, &alice, "a.test").await;
        let client = accepted.unwrap().client.unwrap();
        assert_eq!(client.fingerprint.len(), 64);
        assert!(client.subject.contains("CN="), "{client:?}");
        for stranger in [with(None), with(Some(other.issue("mallory", &["alice"])))] {
            let (_, _, accepted, _) = shake(&acceptor, &stranger, "a.test").await;
            let error = accepted.unwrap_err();
            assert_eq!(error.client_outcome(), Outcome::ClientTls, "{error}");
        }
    });
}

#[test]
fn a_certificate_that_may_be_left_out_is_verified_where_it_is_shown() {
    let (authority, other) = (Authority::new(), Authority::new());
    run(async {
        let spec = AcceptorSpec { client_ca: Some(authority.ca()), ..authority.accepts(&["a.test"]) };
        let acceptor = acceptor(AcceptorSpec { client_optional: true, ..spec });
        let with = |cert| connector(ConnectorSpec { cert, ..authority.connects() });
        let alice = with(Some(authority.issue("alice", &["alice"])));
        let (_, _, accepted, _) = shake(&acceptor, &alice, "a.test").await;
        assert_eq!(accepted.unwrap().client.unwrap().common_name.as_deref(), Some("rcgen self signed cert"));
        let (_, _, accepted, _) = shake(&acceptor, &with(None), "a.test").await;
        assert_eq!(accepted.unwrap().client, None, "who shows none has proven nothing");
        let mallory = with(Some(other.issue("mallory", &["alice"])));
        let (_, _, accepted, _) = shake(&acceptor, &mallory, "a.test").await;
        assert_eq!(accepted.unwrap_err().client_outcome(), Outcome::ClientTls);
    });
}

#[test]
fn a_strict_server_says_that_it_does_not_know_a_name() {
    let authority = Authority::new();
    run(async {
        let acceptor = acceptor(AcceptorSpec { strict_sni: true, ..authority.accepts(&["a.test"]) });
        let connector = connector(ConnectorSpec { insecure_skip_verify: true, ..authority.connects() });
        let (.., accepted, connected) = shake(&acceptor, &connector, "a.test").await;
        assert!(accepted.is_ok() && connected.is_ok());
        let (.., accepted, connected) = shake(&acceptor, &connector, "b.test").await;
        let error = accepted.unwrap_err();
        assert!(matches!(&error, TlsError::UnknownName(Some(name)) if name == "b.test"), "{error}");
        assert_eq!(error.client_outcome(), Outcome::NoRoute);
        let told = connected.unwrap_err().to_string();
        assert!(told.contains("UnrecognisedName"), "{told}");
        // What is no TLS asks for no name.
        let (client, server) = pair();
        write(&client, b"GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(accept(&server, &acceptor).await.unwrap_err().client_outcome(), Outcome::ClientTls);
    });
}

#[test]
fn a_client_comes_back_with_its_ticket_even_after_the_files_changed() {
    let authority = Authority::new();
    run(async {
        let spec = authority.accepts(&["a.test"]);
        let store = Store::new();
        let acceptor = store.acceptor(&spec, &mut Renewal::new()).unwrap();
        let connector = connector(authority.connects());
        let kind = async |acceptor: &Acceptor| {
            let (client, server) = pair();
            let name = connector.name_for("a.test").unwrap();
            let unbuffered = UnbufferedServerConnection::new(acceptor.config()).unwrap();
            let mut session = Session::server(unbuffered, vec![], None);
            let mut sni = None;
            let taking = async {
                session.handshake(&server, &mut sni).await.unwrap();
                poll_fn(|cx| session.poll_write(cx, &server, b"x")).await.unwrap();
            };
            let making = async {
                connect(&client, &connector, name).await.unwrap();
                // The tickets come before the data.
                read_exactly(&client, 1).await.unwrap();
            };
            tokio::join!(taking, making);
            session.state().handshake_kind()
        };
        assert_eq!(kind(&acceptor).await, Some(HandshakeKind::Full));
        assert_eq!(kind(&acceptor).await, Some(HandshakeKind::Resumed));
        let before = acceptor.certificates();
        authority.issue("server", &["a.test"]);
        let mut renewal = Renewal::new();
        let same = store.acceptor(&spec, &mut renewal).unwrap();
        assert!(Arc::ptr_eq(&same, &acceptor), "the same for the same options");
        renewal.apply();
        assert_ne!(acceptor.certificates(), before, "a new certificate");
        assert_eq!(kind(&acceptor).await, Some(HandshakeKind::Resumed));
    });
}

#[test]
fn what_a_reload_has_loaded_does_not_replace_what_is_newer() {
    let authority = Authority::new();
    let spec = authority.accepts(&["a.test"]);
    let connects =
        ConnectorSpec { cert: Some(authority.issue("client", &["c.test"])), ..authority.connects() };
    let store = Store::new();
    let acceptor = store.acceptor(&spec, &mut Renewal::new()).unwrap();
    let connector = store.connector(&connects, &mut Renewal::new()).unwrap();
    let issue =
        || [("server", "a.test"), ("client", "c.test")].map(|(file, name)| authority.issue(file, &[name]));
    issue();
    let mut renewal = Renewal::new();
    store.acceptor(&spec, &mut renewal).unwrap();
    store.connector(&connects, &mut renewal).unwrap();
    issue();
    // The first look sees a change, the second that it is over.
    assert_eq!((acceptor.follow().unwrap(), connector.follow().unwrap()), (false, false));
    assert_eq!((acceptor.follow().unwrap(), connector.follow().unwrap()), (true, true));
    let newest = acceptor.certificates();
    renewal.apply();
    assert_eq!(acceptor.certificates(), newest);
    // Nothing is left to be loaded, so what is used are the files as they are.
    assert_eq!((acceptor.follow().unwrap(), connector.follow().unwrap()), (false, false));
    assert_eq!((acceptor.follow().unwrap(), connector.follow().unwrap()), (false, false));
}

#[test]
fn a_blocking_peer_that_knows_nothing_of_tls_gets_an_alert_and_an_end() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let plain = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        socket.write_all(b"SSH-2.0-server\r\n").unwrap();
        let mut got = vec![];
        let _ = socket.read_to_end(&mut got);
        got
    });
    run(async {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let stream = Stream::new(socket.into(), true).unwrap();
        let connector = connector(authority.connects());
        let error = connect(&stream, &connector, connector.name_for("a.test").unwrap()).await.unwrap_err();
        assert!(matches!(error, TlsError::Protocol(_)), "{error}");
    });
    let got = plain.join().unwrap();
    assert_eq!(got[0], 22, "a ClientHello, and nothing in the clear");
    assert!(got.windows(5).any(|part| part[..3] == [21, 3, 3] || part[..3] == [21, 3, 1]), "an alert");
}
