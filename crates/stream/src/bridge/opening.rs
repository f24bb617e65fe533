//! The opening handshake over a stream, with deadlines and limits.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::time::timeout;
use wmproxy_net::record::Outcome;
use wmproxy_net::stream::Stream;
use wmproxy_net::tls;
use wmproxy_runtime::entropy;
use wmproxy_wire::websocket::handshake::{
    Ask, HeadLimits, Parsed, Refusal, Rejected, key_text, parse_request, parse_response, refusal_head,
    request_head,
};

use super::options::{BridgeSpec, Entry, Goal};

/// As large as other servers take them by default: browsers send their cookies along.
const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, fields: 100 };

/// A read of a head. Most are shorter than this.
const PIECE: usize = 1024;

/// How long an answer that ends a connection may take to be read. What is still under way from the other side is
/// discarded meanwhile: closing over it would send a reset, and that can destroy the answer.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// A request of a WebSocket client that is to be granted.
#[derive(Debug, Default)]
pub(super) struct Granted {
    /// Its `Sec-WebSocket-Key`.
    pub(super) key: Box<str>,
    /// The subprotocol that both sides have.
    pub(super) protocol: Option<Box<str>>,
}

/// Why a head did not come.
enum Failure<E> {
    /// The other side ended or reset the connection.
    Left,
    /// Its TLS failed.
    Tls,
    /// It is there, and wrong.
    Wrong(E),
}

impl<E> Failure<E> {
    /// How a read or a write failed.
    fn of(error: io::Error) -> Failure<E> {
        if tls::is_failure(&error) { Failure::Tls } else { Failure::Left }
    }
}

/// Reads the request of a client and checks it. Whoever is refused is told why.
pub(super) async fn accept(
    client: &Stream,
    entry: &Entry,
    protocols: &[String],
    patience: Duration,
) -> Result<Granted, Outcome> {
    let parse = |bytes: &[u8]| {
        Ok(match parse_request(bytes, LIMITS)? {
            Parsed::NeedMore => None,
            Parsed::Head { head, len } => {
                entry.check(&head)?;
                let offered = |protocol: &&str| protocols.iter().any(|ours| ours == protocol);
                let protocol = head.protocols.iter().copied().find(offered).map(Into::into);
                Some((Granted { key: head.key.into(), protocol }, len))
            }
        })
    };
    let (refusal, outcome) = match timeout(patience, read_head(client, parse)).await {
        Ok(Ok(granted)) => return Ok(granted),
        Ok(Err(Failure::Left)) => return Err(Outcome::ClientLeft),
        Ok(Err(Failure::Tls)) => return Err(Outcome::ClientTls),
        Ok(Err(Failure::Wrong(refusal))) => (refusal, Outcome::BadUpgrade),
        Err(_) => (Refusal::Timeout, Outcome::PrefaceTimeout),
    };
    tracing::debug!(%refusal, "a request for a WebSocket is refused");
    refuse(client, refusal).await;
    Err(outcome)
}

/// Asks a peer for an upgrade.
pub(super) async fn ask(
    peer: &Stream,
    goal: &Goal,
    spec: &BridgeSpec,
    patience: Duration,
) -> Result<(), Outcome> {
    let asked = timeout(patience, ask_inner(peer, goal, spec)).await;
    match asked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Failure::Left)) => Err(Outcome::PeerReset),
        Ok(Err(Failure::Tls)) => Err(Outcome::PeerTls),
        Ok(Err(Failure::Wrong(rejected))) => {
            tracing::debug!(%rejected, "a peer does not upgrade to WebSocket");
            Err(Outcome::UpgradeRefused)
        }
        Err(_) => Err(Outcome::ConnectTimeout),
    }
}

async fn ask_inner(peer: &Stream, goal: &Goal, spec: &BridgeSpec) -> Result<(), Failure<Rejected>> {
    let mut nonce = [0; 16];
    entropy::fill(&mut nonce);
    let key = key_text(nonce);
    let ask = Ask { host: &goal.host, path: &goal.path, key: &key, protocols: &spec.protocols };
    let head = request_head(&ask, spec.fields());
    write_all(peer, &head).await.map_err(Failure::of)?;
    let parse = |bytes: &[u8]| {
        Ok(match parse_response(bytes, &ask, LIMITS)? {
            Parsed::NeedMore => None,
            Parsed::Head { len, .. } => Some(((), len)),
        })
    };
    read_head(peer, parse).await
}

/// Reads until `parse` has a head; what came behind it is given back to the stream.
async fn read_head<T, E>(
    stream: &Stream,
    parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>,
) -> Result<T, Failure<E>> {
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        bytes.resize(before + PIECE, 0);
        let n = poll_fn(|cx| stream.poll_read(cx, &mut bytes[before..])).await.map_err(Failure::of)?;
        bytes.truncate(before + n);
        if n == 0 {
            return Err(Failure::Left);
        }
        // A head that comes byte by byte is not parsed from its start for each of them. What is no HTTP at all shows
        // in the first piece.
        let lines_end = bytes[before..].contains(&b'\n');
        if before > 0 && !lines_end && bytes.len() < LIMITS.bytes {
            continue;
        }
        if let Some((head, len)) = parse(&bytes).map_err(Failure::Wrong)? {
            stream.unread(bytes.split_off(len));
            return Ok(head);
        }
    }
}

async fn write_all(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| stream.poll_write(cx, bytes)).await?;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// Answers a request that is not granted, and sees to it that the answer arrives.
pub(super) async fn refuse(client: &Stream, refusal: Refusal) {
    let head = refusal_head(refusal);
    let said = async {
        if write_all(client, &head).await.is_ok() {
            leave(client).await;
        }
    };
    // Late or not, it is closed now.
    let _ = timeout(FAREWELL, said).await;
}

/// Says that nothing more comes, and waits until the other side has said so, too.
pub(super) async fn leave(stream: &Stream) {
    if poll_fn(|cx| stream.poll_shutdown_write(cx)).await.is_ok() {
        discard(stream).await;
    }
}

/// Reads to the end and keeps nothing.
pub(super) async fn discard(stream: &Stream) {
    let mut bytes = [0; PIECE];
    while let Ok(1..) = poll_fn(|cx| stream.poll_read(cx, &mut bytes)).await {}
}
