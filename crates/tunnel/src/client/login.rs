//! How a session begins: the connection, the server's identity, and both proofs of the key.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::timeout;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_wire::tunnel::codec::LOGIN_LIMIT;
use wmproxy_wire::tunnel::message::{Hello, Message, VERSION, Welcome};

use super::TunnelClient;
use super::link::Link;
use super::session::{SessionError, is_tunnel};
use crate::auth::{self, Exporter};
use crate::carrier::quic;
use crate::carrier::speech::{read_message, write_message};
use crate::options::{TransportKind, Trust};

/// How long the server may take for a login once it is connected to; it gives the client no longer either.
const PATIENCE: Duration = Duration::from_secs(10);

/// After so long without an answer another attempt begins beside the ones before it: what was sent into a network that has just
/// changed, or to a server that has just come back, is repeated after ever longer pauses only.
const AGAIN: Duration = Duration::from_secs(1);

/// The program, for the server's log.
const AGENT: &str = concat!("wmproxy ", env!("CARGO_PKG_VERSION"));

/// A connection on which the login was done.
pub(super) struct LoggedIn {
    pub(super) stream: Stream,
    /// The connection of QUIC that the stream is of.
    pub(super) connection: Option<quinn::Connection>,
    pub(super) welcome: Welcome,
    /// Of the certificate of who has proven the key, in hex digits.
    pub(super) fingerprint: Option<String>,
}

/// Connects to a server and logs in.
pub(super) async fn log_in(client: &TunnelClient, link: &Link) -> Result<LoggedIn, SessionError> {
    let patience = client.spec.connect_timeout;
    let connected = timeout(patience, connect(client, link)).await;
    let connected = connected.map_err(|_| SessionError::Late(patience))??;
    let Connected { stream, exporter, connection, fingerprint } = connected;
    let welcome = timeout(PATIENCE, prove(client, &stream, &exporter)).await;
    let welcome = welcome.map_err(|_| SessionError::Late(PATIENCE))??;
    // Not before: until now it may be anybody's.
    if let Some(fingerprint) = &fingerprint {
        link.identity.tell(client, &link.server, fingerprint);
    }
    Ok(LoggedIn { stream, connection, welcome, fingerprint })
}

/// A connection with TLS, to somebody who has proven nothing but what TLS was asked to verify.
struct Connected {
    stream: Stream,
    exporter: Exporter,
    connection: Option<quinn::Connection>,
    /// Of the certificate, in hex digits.
    fingerprint: Option<String>,
}

/// Connects, by whichever attempt ends first.
async fn connect(client: &TunnelClient, link: &Link) -> Result<Connected, SessionError> {
    let attempt = || async {
        match client.spec.transport {
            TransportKind::Tcp => over_tcp(client, link).await,
            TransportKind::Quic => over_quic(client, link).await,
        }
    };
    let mut attempts = FuturesUnordered::new();
    loop {
        attempts.push(attempt());
        tokio::select! {
            Some(connected) = attempts.next() => return connected,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn over_tcp(client: &TunnelClient, link: &Link) -> Result<Connected, SessionError> {
    let to = link.to.as_ref().ok_or(SessionError::NoAddress)?;
    let stream = client.reach.connect_alone(to).await?;
    let info = client.tls.secure(&stream, &link.server, &link.host).await.map_err(SessionError::Tls)?;
    stream.end_within_tls();
    let exporter = stream.export_keying_material(auth::EXPORTER_LABEL, &[]).filter(|_| is_tunnel(&info));
    let exporter = exporter.ok_or(SessionError::NoTunnel)?;
    let fingerprint = info.client.as_ref().map(|certificate| certificate.fingerprint.clone());
    Ok(Connected { stream, exporter, connection: None, fingerprint })
}

async fn over_quic(client: &TunnelClient, link: &Link) -> Result<Connected, SessionError> {
    let to = link.to.as_ref().ok_or(SessionError::NoAddress)?;
    let addresses = client.reach.resolve(to).await?;
    let connection = connect_on_worker(client, link, addresses).await?;
    let material = quic::export_keying_material(&connection, auth::EXPORTER_LABEL, &[]);
    let exporter = material.ok_or(SessionError::NoTunnel)?;
    let stream = quic::first_stream(&connection).await?;
    let fingerprint = fingerprint(&connection);
    Ok(Connected { stream, exporter, connection: Some(connection), fingerprint })
}

/// Makes a connection of QUIC on the first worker, where it then lives, to the first address that answers.
async fn connect_on_worker(
    client: &TunnelClient,
    link: &Link,
    addresses: Vec<SocketAddr>,
) -> Result<quinn::Connection, SessionError> {
    let (mut tell, told) = oneshot::channel();
    let (tls, scope) = (client.tls.quic_config(), client.scope.clone());
    let name = client.tls.spec().server_name.clone().unwrap_or_else(|| link.host.clone());
    let is_there = client.workers.run(0, move || {
        scope.clone().spawn(async move {
            let connected = async {
                let mut error = ConnectError::new(Fault::Unresolved, "the name has no addresses");
                for address in addresses {
                    match quic::connect(address, &name, tls.clone(), &scope).await {
                        Ok(connection) => return Ok(connection),
                        Err(failed) => error = failed.into(),
                    }
                }
                Err(error)
            };
            tokio::select! {
                connected = connected => drop(tell.send(connected)),
                // Nobody waits for it any more.
                () = tell.closed() => {}
            }
        });
    });
    if !is_there {
        return Err(SessionError::NoWorkers);
    }
    Ok(told.await.map_err(|_| SessionError::NoWorkers)??)
}

/// Proves the key, and has the server prove it.
async fn prove(client: &TunnelClient, stream: &Stream, exporter: &Exporter) -> Result<Welcome, SessionError> {
    let hello = Hello {
        version: VERSION,
        capabilities: 0,
        name: client.spec.name.to_string(),
        nonce: auth::nonce(),
        agent: AGENT.to_owned(),
    };
    write_message(stream, &Message::Hello(hello.clone())).await?;
    let challenge = match read_message(stream, LOGIN_LIMIT).await? {
        Message::Challenge(challenge) => challenge,
        Message::Refused(refusal) => return Err(SessionError::Refused(refusal)),
        _ => return Err(SessionError::Broken("not asking for a proof")),
    };
    if challenge.version == 0 || challenge.version > VERSION {
        return Err(SessionError::Version(challenge.version));
    }
    let key = &client.spec.key;
    let proof = auth::client_proof(key, exporter, &hello, &challenge);
    write_message(stream, &Message::Proof(proof)).await?;
    let welcome = match read_message(stream, LOGIN_LIMIT).await? {
        Message::Welcome(welcome) => welcome,
        Message::Refused(refusal) => return Err(SessionError::Refused(refusal)),
        _ => return Err(SessionError::Broken("not answering a proof")),
    };
    if !auth::is_same(&welcome.mac, &auth::server_proof(key, exporter, &hello, &challenge)) {
        return Err(SessionError::Unproven);
    }
    Ok(welcome)
}

/// The SHA-256 of the server's certificate, in hex digits.
fn fingerprint(connection: &quinn::Connection) -> Option<String> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast_ref::<Vec<rustls::pki_types::CertificateDer<'static>>>()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, chain.first()?);
    let mut hex = String::new();
    for byte in digest.as_ref() {
        let _ = write!(hex, "{byte:02x}");
    }
    Some(hex)
}

/// Whether the server's identity was told.
#[derive(Debug, Default)]
pub(super) struct Identity(pub(super) AtomicBool);

impl Identity {
    /// Says once, to who goes by the key alone, how to pin the server.
    fn tell(&self, client: &TunnelClient, server: &str, fingerprint: &str) {
        if client.spec.trust == Trust::Key && !self.0.swap(true, Ordering::Relaxed) {
            tracing::info!(
                server,
                "the server is known by the client's key; to pin it: fingerprint = \"sha256:{fingerprint}\""
            );
        }
    }
}
