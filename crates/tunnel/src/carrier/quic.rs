//! Many streams on a connection of QUIC (RFC 9000).
//!
//! An endpoint and its connections live on one worker, as tasks of a [`Scope`]; their streams are for every worker. Before a
//! login a connection has one stream and a small window, see [`first_stream`]; [`many`] gives it the rest.

mod config;
mod listener;
mod transport;
mod windows;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;

use quinn::{ConnectionError, EndpointConfig, Runtime, TokioRuntime, VarInt};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::scope::Scope;

pub use config::raise_buffers;
pub use listener::{Arriving, Listener};

use super::{Incoming, Kind, MAX_STREAMS, Many, Source, Unplaced};
use transport::Bidirectional;
use windows::{Lookout, Windows};

/// The codes of alerts of TLS (RFC 9001 section 4.8).
const CRYPTO: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// Opens streams; see [`Many`].
#[derive(Debug, Clone)]
pub(super) struct Opener(Arc<Windows>);

/// The other side's streams; see [`Incoming`].
#[derive(Debug)]
pub(super) struct Accepted(Lookout);

/// Connects to a server from a socket of its own, and makes the handshake; without a deadline of its own. The connection and
/// its endpoint are tasks of `scope` on the calling worker.
///
/// # Errors
/// There is no way to the server, or it is not who it should be, or says no.
pub async fn connect(
    to: SocketAddr,
    name: &str,
    tls: Arc<rustls::ClientConfig>,
    scope: &Scope,
) -> io::Result<quinn::Connection> {
    let any = match to.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    raise_buffers(&socket);
    let client = config::client(tls)?;
    // The endpoint goes on as long as the connection does.
    let endpoint = quinn::Endpoint::new(EndpointConfig::default(), None, socket, runtime(scope))?;
    let connecting = endpoint.connect_with(client, to, name).map_err(io::Error::other)?;
    connecting.await.map_err(failed)
}

/// The first stream of a connection that has just been made: the client opens it, for the login.
///
/// # Errors
/// The connection is over.
pub async fn first_stream(connection: &quinn::Connection) -> io::Result<Stream> {
    let ways = match connection.side() {
        quinn::Side::Client => connection.open_bi().await,
        quinn::Side::Server => connection.accept_bi().await,
    };
    ways.map(|(send, receive)| Bidirectional::stream(send, receive, None)).map_err(failed)
}

/// Has a connection carry streams from now on, both ways. Somebody has to wait for the [next](Incoming::next) stream for as long
/// as it lasts, for the same task looks after the streams' windows.
pub fn many(connection: quinn::Connection) -> (Many, Incoming) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(MAX_STREAMS));
    let windows = Windows::new(connection);
    let (opener, accepted) = (Opener(windows.clone()), Accepted(Lookout::new(windows)));
    (Many(Kind::Quic(opener)), Incoming(Source::Quic(accepted)))
}

/// Keying material of the connection's TLS session (RFC 8446 section 7.5); none if it is over.
pub fn export_keying_material(
    connection: &quinn::Connection,
    label: &[u8],
    context: &[u8],
) -> Option<[u8; 32]> {
    let mut material = [0; 32];
    connection.export_keying_material(&mut material, label, context).ok()?;
    Some(material)
}

impl Opener {
    pub(super) async fn open(&self) -> io::Result<Stream> {
        let (send, receive) = self.connection().open_bi().await.map_err(failed)?;
        Ok(Bidirectional::stream(send, receive, Some(&self.0)))
    }

    pub(super) fn connection(&self) -> &quinn::Connection {
        self.0.connection()
    }

    pub(super) fn close(&self) {
        self.connection().close(VarInt::from_u32(0), b"");
    }

    pub(super) async fn closed(&self) -> io::Error {
        failed(self.connection().closed().await)
    }
}

impl Accepted {
    pub(super) async fn next(&mut self) -> Option<Unplaced> {
        let connection = self.0.connection().clone();
        let (send, receive) = tokio::select! {
            ways = connection.accept_bi() => ways.ok()?,
            // It has no end.
            () = self.0.look() => return None,
        };
        Some(Unplaced(Bidirectional::stream(send, receive, Some(self.0.windows()))))
    }
}

/// Has quinn's tasks counted like all others.
#[derive(Debug)]
struct Counted(Scope);

fn runtime(scope: &Scope) -> Arc<dyn Runtime> {
    Arc::new(Counted(scope.clone()))
}

impl Runtime for Counted {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn quinn::AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn_boxed(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }
}

/// Why a connection is over, in the words of the rest of the program.
fn failed(error: ConnectionError) -> io::Error {
    let kind = match &error {
        ConnectionError::TimedOut => io::ErrorKind::TimedOut,
        ConnectionError::Reset => io::ErrorKind::ConnectionReset,
        ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            io::ErrorKind::ConnectionRefused
        }
        ConnectionError::TransportError(error) if CRYPTO.contains(&u64::from(error.code)) => {
            let why = format!("TLS failed: {}", in_words(&error.reason));
            return io::Error::new(io::ErrorKind::InvalidData, why);
        }
        _ => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}

/// What a failed handshake says, without the wrapping of rustls around what a verifier of ours has found.
fn in_words(reason: &str) -> &str {
    let found = reason.split_once("Other(OtherError(").and_then(|(_, found)| found.strip_suffix("))"));
    found.unwrap_or(reason)
}

#[cfg(test)]
mod tests;
