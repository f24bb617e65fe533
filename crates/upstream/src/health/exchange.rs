//! What all checks have in common: how they fail, how far they came, and reading and writing.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use wmproxy_net::stream::Stream;

use crate::peer::Blame;

use super::http::HttpError;

/// How many bytes of an answer a reason quotes: the first line of most protocols.
const QUOTED: usize = 80;

/// Why a check did not pass, in words for the log and the status.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    /// This machine has no descriptor, port or memory for it, or is not configured so that it could, or a proxy on the way
    /// failed: nothing is said about the peer.
    #[error("can't check: {0}")]
    Here(io::Error),
    #[error("can't connect: {0}")]
    Connect(io::Error),
    #[error("nothing connected within {0:?}")]
    ConnectTimeout(Duration),
    #[error("no TLS handshake within {0:?}")]
    TlsTimeout(Duration),
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    #[error("not all could be sent within {0:?}")]
    SendTimeout(Duration),
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("not what was expected within {0:?}, but {1}")]
    AnswerTimeout(Duration, Quoted),
    #[error("the connection failed: {0}")]
    Broken(io::Error),
    #[error("closed without an answer")]
    ClosedSilently,
    #[error("closed before what was expected came, but {0}")]
    Closed(Quoted),
    #[error("what was expected is not in the first {0} bytes, which begin with {1}")]
    TooMuch(usize, Quoted),
    #[error("the port is closed: {0}")]
    PortClosed(io::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl CheckError {
    /// Sorts an error of opening a socket or of connecting it.
    pub(super) fn connect(error: io::Error) -> CheckError {
        // What is wrong with a proxy on the way says as little of the peer as what is wrong here.
        let is_ours = !matches!(Blame::of(&error), Blame::Peer(_));
        if is_ours { CheckError::Here(error) } else { CheckError::Connect(error) }
    }
}

/// The beginning of an answer, fit for a line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quoted(String);

impl Quoted {
    pub(super) fn new(bytes: &[u8]) -> Quoted {
        let shown = bytes[..bytes.len().min(QUOTED)].escape_ascii();
        let more = if bytes.len() > QUOTED { "…" } else { "" };
        Quoted(format!("\"{shown}\"{more}"))
    }
}

impl std::fmt::Display for Quoted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a check has come, so that a timeout can say what it waited for.
#[derive(Debug, Default)]
pub(super) enum Stage {
    #[default]
    Connecting,
    /// The TLS handshake.
    Securing,
    Sending,
    /// With the beginning of what has come.
    Receiving(Vec<u8>),
}

impl Stage {
    /// Adds to what has come; no more than is ever quoted.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        if !matches!(self, Stage::Receiving(_)) {
            *self = Stage::Receiving(vec![]);
        }
        if let Stage::Receiving(begin) = self {
            let room = (QUOTED + 1).saturating_sub(begin.len());
            begin.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// The end of the check's time at this stage.
    pub(super) fn timeout(self, after: Duration) -> CheckError {
        match self {
            Stage::Connecting => CheckError::ConnectTimeout(after),
            Stage::Securing => CheckError::TlsTimeout(after),
            Stage::Sending => CheckError::SendTimeout(after),
            Stage::Receiving(begin) if begin.is_empty() => CheckError::Silent(after),
            Stage::Receiving(begin) => CheckError::AnswerTimeout(after, Quoted::new(&begin)),
        }
    }
}

/// Sends all of `data`.
pub(super) async fn send(stream: &Stream, mut data: &[u8], stage: &mut Stage) -> Result<(), CheckError> {
    *stage = Stage::Sending;
    while !data.is_empty() {
        let n = poll_fn(|cx| stream.poll_write(cx, data)).await.map_err(CheckError::Broken)?;
        data = &data[n..];
    }
    *stage = Stage::Receiving(vec![]);
    Ok(())
}

/// Receives what is there; 0 is the end.
pub(super) async fn receive(
    stream: &Stream,
    buffer: &mut [u8],
    stage: &mut Stage,
) -> Result<usize, CheckError> {
    let n = poll_fn(|cx| stream.poll_read(cx, buffer)).await.map_err(CheckError::Broken)?;
    stage.received(&buffer[..n]);
    Ok(n)
}

/// Whether `text` contains `wanted`, given that it does not before `searched`.
pub(super) fn contains(text: &[u8], wanted: &[u8], searched: usize) -> bool {
    // What was searched may end with the beginning of it.
    let from = searched.saturating_sub(wanted.len().saturating_sub(1));
    text[from.min(text.len())..].windows(wanted.len().max(1)).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_is_short_and_printable() {
        assert_eq!(Quoted::new(b"-ERR \"no\"\r\n\xff").to_string(), r#""-ERR \"no\"\r\n\xff""#);
        assert_eq!(Quoted::new(&[b'x'; 81]).to_string(), format!("\"{}\"…", "x".repeat(80)));
        assert_eq!(Quoted::new(&[b'x'; 80]).to_string(), format!("\"{}\"", "x".repeat(80)));
    }

    #[test]
    fn what_is_searched_for_is_found_over_every_seam() {
        let text = b"xx+PONGyy";
        for seam in 0..=text.len() {
            let first = contains(&text[..seam], b"+PONG", 0);
            assert_eq!(first, seam >= 7, "{seam}");
            assert!(first || contains(text, b"+PONG", seam), "{seam}");
        }
        assert!(!contains(b"+PON", b"+PONG", 0));
        assert!(!contains(b"", b"+PONG", 0));
    }

    #[test]
    fn a_timeout_says_what_was_waited_for() {
        let after = Duration::from_secs(2);
        let mut stage = Stage::default();
        assert_eq!(Stage::Connecting.timeout(after).to_string(), "nothing connected within 2s");
        assert_eq!(Stage::Securing.timeout(after).to_string(), "no TLS handshake within 2s");
        assert_eq!(Stage::Sending.timeout(after).to_string(), "not all could be sent within 2s");
        assert_eq!(Stage::Receiving(vec![]).timeout(after).to_string(), "no answer within 2s");
        stage.received(b"-NO");
        stage.received(b"AUTH");
        assert_eq!(stage.timeout(after).to_string(), "not what was expected within 2s, but \"-NOAUTH\"");
    }
}
