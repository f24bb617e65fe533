//! The bytes of a handshake, both ways.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use wmproxy_net::preface::read_more;
use wmproxy_net::record::Outcome;
use wmproxy_net::stream::Stream;
use wmproxy_net::tls;
use wmproxy_wire::socks::{Parsed, SocksError};

/// How long a client that was refused may take to hear it. RFC 1928 section 6 has the connection closed within ten seconds.
const FAREWELL: Duration = Duration::from_secs(2);

/// What of a refused client's bytes is read meanwhile. A close with bytes unread resets the connection, and a reset may
/// overtake the refusal.
const DISCARDED: usize = 64 * 1024;

/// Why a handshake goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// What came is no message of it.
    Bad(SocksError),
    /// The connection is over.
    Over(Outcome),
}

impl From<Outcome> for Stop {
    fn from(outcome: Outcome) -> Stop {
        Stop::Over(outcome)
    }
}

/// A client in its handshake. What we say goes out when the client has to be waited for, so that all that is known by then
/// is one packet; and nothing is held of a client from which nothing has come.
#[derive(Debug)]
pub(super) struct Talk<'a> {
    stream: &'a Stream,
    /// What has come and is not consumed.
    heard: Vec<u8>,
    /// What is to be said.
    said: Vec<u8>,
    /// Until when the client may take.
    due: Instant,
}

impl<'a> Talk<'a> {
    /// With a client that has begun with `first`, and has until `due` to go on.
    pub(super) fn new(stream: &'a Stream, first: Vec<u8>, due: Instant) -> Talk<'a> {
        Talk { stream, heard: first, said: Vec::new(), due }
    }

    /// Gives the client so long from now.
    pub(super) fn extend(&mut self, patience: Duration) {
        self.due = Instant::now() + patience;
    }

    /// The client's connection.
    pub(super) fn stream(&self) -> &'a Stream {
        self.stream
    }

    /// Where to write what is to be said.
    pub(super) fn say(&mut self) -> &mut Vec<u8> {
        &mut self.said
    }

    /// Hears a message, and consumes it. `parse` sees all that has come from its beginning on.
    pub(super) async fn hear<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Parsed<T>, SocksError>,
    ) -> Result<T, Stop> {
        loop {
            if !self.heard.is_empty()
                && let Parsed::Done(message, used) = parse(&self.heard).map_err(Stop::Bad)?
            {
                if used == self.heard.len() {
                    self.heard = Vec::new();
                } else {
                    self.heard.drain(..used);
                }
                return Ok(message);
            }
            self.flush().await?;
            let more = timeout_at(self.due, read_more(self.stream, &mut self.heard));
            if more.await.unwrap_or(Err(Outcome::ClientSlow))? == 0 {
                return Err(Stop::Over(Outcome::ClientLeft));
            }
        }
    }

    /// Sends what is to be said.
    pub(super) async fn flush(&mut self) -> Result<(), Outcome> {
        if self.said.is_empty() {
            return Ok(());
        }
        let said = std::mem::take(&mut self.said);
        let mut written = 0;
        let all = poll_fn(|cx| {
            while written < said.len() {
                match self.stream.poll_write(cx, &said[written..]) {
                    Poll::Ready(Ok(n)) => written += n,
                    Poll::Ready(Err(error)) if tls::is_failure(&error) => {
                        return Poll::Ready(Err(Outcome::ClientTls));
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Outcome::ClientReset)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        });
        timeout_at(self.due, all).await.unwrap_or(Err(Outcome::ClientSlow))
    }

    /// Says the last word to a client that is let go on, and gives back to the stream what it has sent ahead.
    pub(super) async fn settle(mut self) -> Result<(), Outcome> {
        self.flush().await?;
        self.stream.unread(self.heard);
        Ok(())
    }

    /// Says the last word to a client that is refused, sees that it is heard, and says how the connection ended.
    pub(super) async fn part(mut self, outcome: Outcome) -> Outcome {
        self.extend(FAREWELL);
        if self.flush().await.is_ok() {
            // Whoever does not go by itself is not waited for.
            let _ = timeout(FAREWELL, end_and_discard(self.stream)).await;
        }
        outcome
    }
}

/// Ends our half, and reads what still comes.
async fn end_and_discard(stream: &Stream) {
    if poll_fn(|cx| stream.poll_shutdown_write(cx)).await.is_err() {
        return;
    }
    let mut discarded = 0;
    poll_fn(|cx| {
        let mut chunk = [0; 2048];
        loop {
            match stream.poll_read(cx, &mut chunk) {
                Poll::Ready(Ok(n)) if n > 0 && discarded < DISCARDED => discarded += n,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
