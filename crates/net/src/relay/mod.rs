//! The TCP relay: one state machine for both directions of a connection.
//!
//! It runs in the connection's own task. Bytes go through the worker's shared scratch buffer, or, where they come in
//! bulk, through a pipe of the worker's pool, so an idle connection holds neither. What the other side did not take at
//! once is kept, and nothing more is read until it has: that is the back-pressure. The end of one direction is passed
//! on as such (half-close), a reset as a reset.

mod brake;
mod carry;
mod lane;
mod splice;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Sleep;
use wmproxy_runtime::clock::{self, Ticks};

use crate::limit::Budget;
use crate::record::{Outcome, Record};
use crate::stream::{ResetOnDrop, Stream};
use lane::{Break, Broken, Lane, Side};

pub use brake::Brake;
pub use carry::{Carry, CarryError};
pub use lane::Moved;
pub use splice::pipes_open;

/// How bytes are moved.
#[derive(Debug)]
pub struct Terms {
    /// How long nothing may move in either direction. A connection that waits for its rate is not idle; nor is one of which
    /// a side takes what the kernel holds for it, for which it has so long once more.
    pub idle_timeout: Duration,
    /// Whether bulk is spliced.
    pub splice: Splice,
    /// What keeps the bytes from the client to a rate.
    pub up: Option<Box<Brake>>,
    /// The same for those to it.
    pub down: Option<Box<Brake>>,
    /// What the bytes of both ways are taken from; the relay ends when it is used up.
    pub budget: Option<Arc<Budget>>,
}

/// Whether the kernel may pass bytes on without copying them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Splice {
    /// Where they come in bulk, and both sides are plain sockets.
    #[default]
    Auto,
    /// Never.
    Off,
}

impl Terms {
    /// Without limits.
    pub fn new(idle_timeout: Duration) -> Terms {
        Terms { idle_timeout, splice: Splice::Auto, up: None, down: None, budget: None }
    }
}

/// Moves bytes between `client` and `peer` until both are done, and says how it ended.
///
/// Both streams are then to be closed, which sends a FIN after an orderly end and else a RST, so that each side learns
/// that the other did not finish.
// No `async fn`, which would hold its arguments twice (rust-lang/rust#62958).
pub fn relay<'a>(
    client: &'a Stream,
    peer: &'a Stream,
    terms: Terms,
    record: &'a mut Record,
) -> impl Future<Output = Outcome> + 'a {
    let Terms { idle_timeout, splice, up, down, budget } = terms;
    let mut relay = Relay {
        client,
        peer,
        record,
        idle_ms: u64::try_from(idle_timeout.as_millis()).unwrap_or(u64::MAX).max(1),
        up: Lane::new(splice, up),
        down: Lane::new(splice, down),
        budget,
        cut_by: None,
        last: clock::now(),
        left: 0,
        armed: false,
    };
    async move {
        let mut watch = None;
        let sleep = tokio::time::sleep(relay.idle_timeout());
        tokio::pin!(sleep);
        // A relay that is dropped before its end was cut off.
        let unfinished = [ResetOnDrop::new(relay.client), ResetOnDrop::new(relay.peer)];
        let outcome = poll_fn(|cx| {
            relay
                .poll_lanes(cx)
                .or_else(|| relay.poll_watch(cx, &mut watch))
                .map_or_else(|| relay.poll_idle(cx, sleep.as_mut()), Poll::Ready)
        })
        .await;
        if outcome == Outcome::Done {
            unfinished.into_iter().for_each(ResetOnDrop::disarm);
        }
        outcome
    }
}

const CLIENT: Side = Side { reset: Outcome::ClientReset, tls: Outcome::ClientTls };
const PEER: Side = Side { reset: Outcome::PeerReset, tls: Outcome::PeerTls };

/// All in one place: a closure that refers to its parts costs every connection a word for each.
struct Relay<'a> {
    client: &'a Stream,
    peer: &'a Stream,
    record: &'a mut Record,
    /// Milliseconds: half of what a duration takes.
    idle_ms: u64,
    /// From the client to the peer.
    up: Lane,
    /// From the peer to the client.
    down: Lane,
    budget: Option<Arc<Budget>>,
    /// Who stopped taking bytes while the other lane still ran.
    cut_by: Option<Outcome>,
    /// When something moved last.
    last: Ticks,
    /// So many bytes were left for the sides to take at the last look; 0 if nobody has looked since something moved. Four
    /// bytes that cost a connection nothing, for they lie between others.
    left: u32,
    /// Whether the timer knows this task. Its deadline is moved only when it fires: a timer that is moved for each
    /// packet costs more than the packet.
    armed: bool,
}

impl<'a> Relay<'a> {
    fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }

    /// Moves what can be moved; the outcome when that was the last.
    fn poll_lanes(&mut self, cx: &mut Context<'_>) -> Option<Outcome> {
        let (up, sent) = self.up.pump(cx, self.client, self.peer, left(&self.budget));
        let mut more = spend(&self.budget, sent);
        let (down, received) = self.down.pump(cx, self.peer, self.client, left(&self.budget));
        more &= spend(&self.budget, received);
        if sent.any || received.any {
            self.record.add_bytes(sent.bytes, received.bytes);
            self.record.add_spliced(sent.spliced + received.spliced);
            self.last = clock::now();
            self.left = 0;
        }
        if !more {
            return Some(Outcome::Quota);
        }
        if let Poll::Ready(Err(broken)) = up {
            let side = broken.outcome(CLIENT, PEER);
            if self.cut(broken, &down) {
                return Some(side);
            }
            self.cut_by.get_or_insert(side);
            self.up.abandon();
        }
        if let Poll::Ready(Err(broken)) = down {
            let side = broken.outcome(PEER, CLIENT);
            if self.cut(broken, &up) {
                return Some(self.cut_by.unwrap_or(side));
            }
            self.cut_by.get_or_insert(side);
            self.down.abandon();
        }
        (self.up.is_closed() && self.down.is_closed()).then(|| self.cut_by.unwrap_or(Outcome::Done))
    }

    /// Whether a broken lane ends both. A source that is reset does. A destination that takes no more does not yet:
    /// what it said before it went, an early answer perhaps, is still to be read from the other lane.
    fn cut(&self, broken: Break, other: &Poll<Result<(), Break>>) -> bool {
        broken.at == Broken::Source || matches!(other, Poll::Ready(_))
    }

    /// Sees a client's reset that no lane would meet: while nothing is read from it, because it has said its FIN or
    /// because the peer has not taken what it said. Only then is there a watch, so that other connections don't pay.
    ///
    /// A peer is not watched: what it sent before its reset is still an answer, and is passed on as far as it came.
    fn poll_watch(
        &self,
        cx: &mut Context<'_>,
        watch: &mut Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    ) -> Option<Outcome> {
        if !self.up.is_deaf() {
            *watch = None;
            return None;
        }
        let client = self.client;
        let watch = watch.get_or_insert_with(|| Box::pin(client.failed()));
        watch.as_mut().poll(cx).is_ready().then(|| self.cut_by.unwrap_or(Outcome::ClientReset))
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<Outcome> {
        loop {
            if self.armed && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            if sleep.as_mut().poll_elapsed(cx).is_pending() {
                self.armed = true;
                return Poll::Pending;
            }
            if self.up.is_braked() || self.down.is_braked() {
                self.last = clock::now();
            }
            let quiet = clock::now().since(self.last);
            if quiet >= self.idle_timeout() && self.is_stalled() {
                return Poll::Ready(self.record.silence());
            }
            let rest = self.idle_timeout().saturating_sub(quiet);
            let rest = if rest.is_zero() { self.idle_timeout() } else { rest };
            sleep.as_mut().reset(tokio::time::Instant::now() + rest);
            self.armed = false;
        }
    }

    /// Whether neither side takes anything from the kernel either, as far as two looks tell; see
    /// [`Stall`](crate::stream::Stall).
    fn is_stalled(&mut self) -> bool {
        // More comes to neither while nothing moves, so that the sum falls if one of them takes something.
        let left = self.client.unacknowledged() + self.peer.unacknowledged();
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut self.left, left);
        if left < before {
            self.last = clock::now();
        }
        // With something left and nothing to compare it with another look is due.
        left >= before && (left == 0 || before != 0)
    }
}

/// How many bytes a lane may move now.
fn left(budget: &Option<Arc<Budget>>) -> u64 {
    budget.as_ref().map_or(u64::MAX, |budget| budget.left())
}

/// Takes what a lane has moved, and says whether more may.
fn spend(budget: &Option<Arc<Budget>>, moved: Moved) -> bool {
    budget.as_ref().is_none_or(|budget| budget.spend(moved.bytes))
}

/// `Sleep::poll` under a name that says what it answers.
trait PollElapsed {
    fn poll_elapsed(self, cx: &mut Context<'_>) -> Poll<()>;
}

impl PollElapsed for Pin<&mut Sleep> {
    fn poll_elapsed(self, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(self, cx)
    }
}

/// Errors that mean no more than that the other side has gone.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod over_tests;
#[cfg(test)]
mod rate_tests;
#[cfg(test)]
mod tests;
