//! The check over TCP: connect, say something, and wait for what is expected.

use wmproxy_net::stream::Stream;

use super::exchange::{CheckError, Quoted, Stage, contains, receive, send};

/// How much of an answer is looked at. What says that a server is well comes first in every protocol.
const LIMIT: usize = 16 << 10;

/// Has the exchange on a connection.
pub(super) async fn check(
    stream: &Stream,
    text: &[u8],
    expect: Option<&[u8]>,
    stage: &mut Stage,
) -> Result<(), CheckError> {
    send(stream, text, stage).await?;
    let Some(expect) = expect else { return Ok(()) };
    let (mut got, mut buffer) = (vec![], [0; 2048]);
    loop {
        let n = receive(stream, &mut buffer, stage).await?;
        if n == 0 && got.is_empty() {
            return Err(CheckError::ClosedSilently);
        } else if n == 0 {
            return Err(CheckError::Closed(Quoted::new(&got)));
        }
        let searched = got.len();
        got.extend_from_slice(&buffer[..n.min(LIMIT - searched)]);
        if contains(&got, expect, searched) {
            return Ok(());
        }
        if got.len() == LIMIT {
            return Err(CheckError::TooMuch(LIMIT, Quoted::new(&got)));
        }
    }
}
