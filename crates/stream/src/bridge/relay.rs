//! The relay of a bridge: one state machine for both directions, in the connection's own task.
//!
//! Bytes go through the worker's scratch buffer. A read from TCP becomes one binary frame, its head written in front
//! of it; of a read from the WebSocket the payloads are moved together, so that many small messages are one write.
//! What the other side did not take is kept, and nothing more is read until it has.
//!
//! The ends are mapped so: a FIN of TCP is a Close 1000, after which nothing more may be sent there (RFC 6455 section
//! 5.5.1), but what the other end still sends is passed on up to its Close. A Close 1000, or without a code, is a FIN, and
//! so is 1001 from a client, whose page was left; our Close answers it when TCP has ended, too. So a half-close passes
//! through two bridges. Everything else is a reset there, and a Close that says why here: 1001 from a server is one that
//! goes down, maybe in the middle.

mod lanes;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, timeout};
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::relay::{Brake, Terms};
use wmproxy_net::stream::{ResetOnDrop, Stream};
use wmproxy_net::tls;
use wmproxy_runtime::clock::{self, Ticks};
use wmproxy_wire::websocket::{CloseCode, Decoder, HEAD_MAX, Limits, Role};

use super::opening::{FAREWELL, discard, leave};
use super::outbox::Outbox;

/// The worker's buffer, and with it the largest frame that we send. As that of the relay without a bridge.
const SCRATCH: usize = 64 * 1024;

/// Reads of a direction before the other tasks of the worker get their turn.
const ROUNDS: usize = 16;

thread_local! {
    /// With room for a frame's head in front of what is read.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; HEAD_MAX + SCRATCH].into_boxed_slice());
}

/// The two sides of a bridge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends<'a> {
    /// The WebSocket, its handshake done or, for a server, granted by what is written first.
    pub(super) ws: &'a Stream,
    pub(super) tcp: &'a Stream,
    /// Our own part in the WebSocket. As its server we have the client there.
    pub(super) role: Role,
}

/// How a bridge ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Both sides have said all.
    Done,
    /// Not in good order: TCP is reset, and the WebSocket told why unless it is gone.
    Cut(Outcome, Option<(CloseCode, &'static str)>),
}

/// How far one side has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// It has ended; what is kept of it is still to be written.
    Ending,
    Closed,
}

struct Machine<'a> {
    ends: Ends<'a>,
    decoder: Decoder,
    /// Towards the WebSocket.
    outbox: Outbox,
    /// Payload that TCP did not take yet, of which so much is written.
    kept: (Box<[u8]>, usize),
    /// What comes from TCP; `Closed` once our Close is on its way.
    tcp: State,
    /// What comes from the WebSocket; `Ending` from its Close to our FIN.
    ws: State,
    /// Set when one side takes no more while it may still have something to say.
    cut: Option<Outcome>,
    from_tcp: Option<Box<Brake>>,
    from_ws: Option<Box<Brake>>,
    idle_timeout: Duration,
    /// When payload moved last.
    last: Ticks,
    /// When anything at all came from the WebSocket.
    heard: Ticks,
    ping: Option<Ping>,
    /// Whether the timer knows this task; its deadline is moved only when it fires.
    armed: bool,
    /// Sees a reset of the client while nothing is read from it.
    watch: Option<Watch<'a>>,
    /// Until the WebSocket has been taken leave of.
    unfinished: Option<ResetOnDrop<'a>>,
}

type Watch<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Asks every so often whether the other end of the WebSocket is still there.
#[derive(Debug, Clone, Copy)]
struct Ping {
    every: Duration,
    /// When it is time for the next.
    due: Ticks,
    /// When the last one was sent that nothing was heard after.
    asked: Option<Ticks>,
}

/// Relays until both sides are done. `greeting` is written to the WebSocket first.
pub(super) async fn relay(
    ends: Ends<'_>,
    greeting: Vec<u8>,
    ping: Option<Duration>,
    terms: Terms,
    record: &mut Record,
) -> Outcome {
    let unfinished = ResetOnDrop::new(ends.tcp);
    let mut machine = Machine::new(ends, greeting, ping, terms);
    let verdict = {
        let first = ping.map_or(machine.idle_timeout, |every| every.min(machine.idle_timeout));
        let sleep = tokio::time::sleep(first);
        tokio::pin!(sleep);
        poll_fn(|cx| machine.poll(cx, sleep.as_mut(), record)).await
    };
    let outcome = match verdict {
        Verdict::Done => {
            unfinished.disarm();
            Outcome::Done
        }
        Verdict::Cut(outcome, _) => outcome,
    };
    // Boxed: only its end is in there.
    Box::pin(machine.part(verdict)).await;
    outcome
}

impl<'a> Machine<'a> {
    fn new(ends: Ends<'a>, greeting: Vec<u8>, ping: Option<Duration>, terms: Terms) -> Machine<'a> {
        let now = clock::now();
        let (theirs, from_ws, from_tcp) = match ends.role {
            Role::Server => (Role::Client, terms.up, terms.down),
            Role::Client => (Role::Server, terms.down, terms.up),
        };
        Machine {
            ends,
            // Nothing is kept of a message, so that none is too long.
            decoder: Decoder::new(theirs, Limits::default()),
            outbox: Outbox::new(ends.role, greeting),
            kept: (Box::default(), 0),
            tcp: State::Open,
            ws: State::Open,
            cut: None,
            from_tcp,
            from_ws,
            idle_timeout: terms.idle_timeout,
            last: now,
            heard: now,
            ping: ping.map(|every| Ping { every, due: now + every, asked: None }),
            armed: false,
            watch: None,
            unfinished: Some(ResetOnDrop::new(ends.ws)),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
        record: &mut Record,
    ) -> Poll<Verdict> {
        loop {
            if let Some(verdict) = self.pump(cx, record) {
                return Poll::Ready(verdict);
            }
            if let Some(verdict) = self.poll_watch(cx) {
                return Poll::Ready(verdict);
            }
            let silent = self.outbox.is_empty();
            if let Poll::Ready(verdict) = self.poll_time(cx, sleep.as_mut(), record) {
                return Poll::Ready(verdict);
            }
            // A ping of ours is there to be sent.
            if self.outbox.is_empty() == silent {
                return Poll::Pending;
            }
        }
    }

    /// Moves what can be moved.
    fn pump(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Option<Verdict> {
        for _ in 0..ROUNDS {
            let outward = self.poll_outward(cx, record);
            let inward = self.poll_inward(cx, record);
            let idle = outward.is_pending() && inward.is_pending();
            for moved in [outward, inward] {
                if let Poll::Ready(Err(verdict)) = moved {
                    return Some(verdict);
                }
            }
            if let Some(verdict) = self.finished() {
                return Some(verdict);
            }
            if idle {
                return None;
            }
        }
        cx.waker().wake_by_ref();
        None
    }

    /// Sees a client's reset that no read would meet, as the relay without a bridge does: while what it said before is
    /// not taken, and after its FIN.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Option<Verdict> {
        let Ends { ws, tcp, role } = self.ends;
        let (client, deaf, say) = match role {
            Role::Server => (ws, !self.kept.0.is_empty() || self.ws == State::Ending, None),
            Role::Client => {
                let deaf = self.tcp != State::Open || !self.outbox.is_empty();
                (tcp, deaf, Some((CloseCode::INTERNAL_ERROR, "reset")))
            }
        };
        if !deaf && !self.is_braked() {
            self.watch = None;
            return None;
        }
        let watch = self.watch.get_or_insert_with(|| Box::pin(client.failed()));
        let failed = watch.as_mut().poll(cx).is_ready();
        failed.then(|| Verdict::Cut(self.cut.unwrap_or(Outcome::ClientReset), say))
    }

    /// Whether both sides have ended, and all of it is written.
    fn finished(&self) -> Option<Verdict> {
        let both = self.tcp == State::Closed && self.ws == State::Closed && self.outbox.is_empty();
        both.then(|| self.cut.map_or(Verdict::Done, |outcome| Verdict::Cut(outcome, None)))
    }

    /// Which of two outcomes it is, by which side the WebSocket is on.
    fn blame_ws(&self, client: Outcome, peer: Outcome) -> Outcome {
        if self.ends.role == Role::Server { client } else { peer }
    }

    fn ws_reset(&self) -> Outcome {
        self.blame_ws(Outcome::ClientReset, Outcome::PeerReset)
    }

    /// The outcome of an error of the WebSocket's side.
    fn ws_broke(&self, error: &io::Error) -> Outcome {
        if tls::is_failure(error) {
            return self.blame_ws(Outcome::ClientTls, Outcome::PeerTls);
        }
        self.ws_reset()
    }

    /// The outcome of an error of TCP's side.
    fn tcp_broke(&self, error: &io::Error) -> Outcome {
        if tls::is_failure(error) {
            return self.blame_ws(Outcome::PeerTls, Outcome::ClientTls);
        }
        self.blame_ws(Outcome::PeerReset, Outcome::ClientReset)
    }

    /// The code of a Close with which we leave in the middle. From a client 1001 would say that all is well.
    fn leaving(&self) -> CloseCode {
        match self.ends.role {
            Role::Server => CloseCode::GOING_AWAY,
            Role::Client => CloseCode::INTERNAL_ERROR,
        }
    }

    /// Sees to the idle timeout and to pings, in the worker's coarse time.
    fn poll_time(
        &mut self,
        cx: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
        record: &Record,
    ) -> Poll<Verdict> {
        loop {
            if self.armed && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            if sleep.as_mut().poll(cx).is_pending() {
                self.armed = true;
                return Poll::Pending;
            }
            let now = clock::now();
            if self.is_braked() {
                self.last = now;
            }
            let quiet = now.since(self.last);
            if quiet >= self.idle_timeout {
                return Poll::Ready(Verdict::Cut(record.silence(), Some((self.leaving(), "idle"))));
            }
            let Some(wait) = self.keep_alive(now) else {
                let outcome = self.blame_ws(Outcome::ClientNoPong, Outcome::PeerNoPong);
                return Poll::Ready(Verdict::Cut(outcome, None));
            };
            sleep.as_mut().reset(Instant::now() + wait.min(self.idle_timeout - quiet));
            self.armed = false;
        }
    }

    /// Pings when it is time. Answers how long that is away, or nothing when the other end does not answer.
    ///
    /// Whatever came since the last ping counts as its answer, for a pong may stand behind bytes that are still to be
    /// read. And who is not being read from can't be heard.
    fn keep_alive(&mut self, now: Ticks) -> Option<Duration> {
        let listens = self.kept.0.is_empty() && !self.is_braked();
        // Behind a frame that is not written yet a ping would wait; after a Close none may come.
        let asks = self.outbox.is_empty() && self.tcp == State::Open && self.ws == State::Open;
        let Some(ping) = &mut self.ping else { return Some(Duration::MAX) };
        if now < ping.due {
            return Some(ping.due.since(now));
        }
        if listens && ping.asked.is_some_and(|asked| self.heard < asked) {
            return None;
        }
        ping.asked = asks.then_some(now);
        ping.due = now + ping.every;
        if asks {
            self.outbox.ping();
        }
        Some(ping.every)
    }

    fn is_braked(&self) -> bool {
        [&self.from_tcp, &self.from_ws].into_iter().flatten().any(|brake| brake.is_waiting())
    }

    /// Takes leave of the WebSocket, which is then closed in good order if it could be told all, and else reset.
    async fn part(mut self, verdict: Verdict) {
        let unfinished = self.unfinished.take();
        if self.say_goodbye(verdict).await
            && let Some(unfinished) = unfinished
        {
            unfinished.disarm();
        }
    }

    /// Whether all was said.
    async fn say_goodbye(&mut self, verdict: Verdict) -> bool {
        let ws = self.ends.ws;
        let end = poll_fn(|cx| ws.poll_shutdown_write(cx));
        match verdict {
            // The server closes first (section 7.1.1), which leaves the waiting for stray segments to it.
            Verdict::Done if self.ends.role == Role::Client => {
                let _ = timeout(FAREWELL, discard(ws)).await;
                // With TLS there is still our close_notify to be sent. Who has gone by now was told all by our Close.
                let _ = timeout(FAREWELL, end).await;
                true
            }
            Verdict::Done => timeout(FAREWELL, end).await.is_ok_and(|said| said.is_ok()),
            Verdict::Cut(_, None) => false,
            Verdict::Cut(_, Some((code, reason))) => {
                if self.tcp != State::Closed {
                    self.outbox.close(code, reason);
                }
                let said = async {
                    let flushed = poll_fn(|cx| self.outbox.poll_flush(cx, ws)).await.is_ok();
                    if flushed {
                        leave(ws).await;
                    }
                    flushed
                };
                timeout(FAREWELL, said).await.unwrap_or(false)
            }
        }
    }
}

impl Drop for Machine<'_> {
    /// Who is cut off, by a forced stop, is told so if that goes at once: nobody waits any more.
    fn drop(&mut self) {
        let Some(unfinished) = self.unfinished.take() else { return };
        let cx = &mut Context::from_waker(Waker::noop());
        let ws = self.ends.ws;
        if self.tcp == State::Closed || !matches!(self.outbox.poll_flush(cx, ws), Poll::Ready(Ok(()))) {
            return;
        }
        self.outbox.close(self.leaving(), "shutting down");
        let told = matches!(self.outbox.poll_flush(cx, ws), Poll::Ready(Ok(())))
            && matches!(ws.poll_shutdown_write(cx), Poll::Ready(Ok(())));
        if told {
            unfinished.disarm();
        }
    }
}

#[cfg(test)]
mod tests;
