//! One direction of an exchange: a body on its way from one side to the other.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use wmproxy_net::relay::{Carry, CarryError, Splice};
use wmproxy_net::stream::{Stall, Stream};
use wmproxy_runtime::clock::{self, Ticks};
use wmproxy_wire::head::Fields;

use super::sides::{Broken, Piece, Sink, Source};
use crate::scratch::Scratch;
use crate::timer::Timer;

/// Pieces of one direction before the other tasks of the worker get their turn: about a millisecond of copying, as in
/// the relay.
const ROUNDS: usize = 16;

/// A body of which so much is still to come, as it is, from one plain socket to another, is passed on by the kernel. Below
/// that the pipe's own calls cost as much as the copying that they save; see the relay.
const BULK: u64 = 256 * 1024;

/// Bytes that the kernel sends from a file before the other tasks get their turn, as in the relay.
const TURN: u64 = 2 * 1024 * 1024;

/// Who takes less than this within its timeout, of what the kernel holds for it, takes nothing: or a byte now and then would
/// keep a peer busy for ever.
const LEAST: u64 = 1024;

/// Which end of a way stopped.
#[derive(Debug)]
pub(crate) enum Break {
    /// Where the body comes from.
    Source(Broken),
    /// Where it goes to.
    Sink(Broken),
}

/// Whom a way waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// For more of the body.
    Source,
    /// For room.
    Sink,
}

/// The body of a message on its way, with its trailers.
#[derive(Debug)]
pub(crate) struct Way {
    state: State,
    /// Whom it waits for, if it is not done.
    pub(crate) waits: Waits,
    /// When it last got any further.
    pub(crate) last: Ticks,
    /// So many bytes of the body have come.
    pub(crate) moved: u64,
    /// What had come by when, the last time that somebody looked.
    mark: (Ticks, u64),
    /// What was left for the other side to take, when it took nothing from here.
    stall: Stall,
    /// Bytes that the kernel passed on, since they were last asked for.
    pub(crate) spliced: u64,
    trailers: Fields,
    splice: Splice,
    /// What is passed on in bulk.
    carry: Option<Carry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The body has come whole; what is pending is still to be sent.
    Ending,
    Done,
    Abandoned,
}

impl Default for Way {
    fn default() -> Way {
        Way {
            state: State::Done,
            waits: Waits::Source,
            last: Ticks(0),
            moved: 0,
            mark: (Ticks(0), 0),
            stall: Stall::default(),
            spliced: 0,
            trailers: Fields::new(),
            splice: Splice::Off,
            carry: None,
        }
    }
}

impl Way {
    /// Begins with another message, which goes through pipes if it is worth it and `splice` allows it.
    pub(crate) fn begin(&mut self, splice: Splice) {
        self.splice = splice;
        self.carry = None;
        self.state = State::Open;
        self.waits = Waits::Source;
        self.last = clock::now();
        self.moved = 0;
        self.mark = (self.last, 0);
        self.stall = Stall::default();
        self.trailers.clear();
    }

    /// Begins with another message, of which nothing but its head is to go.
    pub(crate) fn begin_head(&mut self) {
        self.begin(Splice::Off);
        self.state = State::Ending;
    }

    /// Whether the message is whole on the other side, or never will be.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Abandoned)
    }

    /// Whether the message is whole on the other side.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Nothing moves here any more.
    pub(crate) fn abandon(&mut self) {
        self.state = State::Abandoned;
        self.carry = None;
    }

    /// When the body has to have come further: `pause` behind its last piece. Whoever sends a byte now and then goes by
    /// `least` as well, that is to come in each such time.
    pub(crate) fn due(&mut self, pause: Duration, least: u64) -> Ticks {
        if self.moved - self.mark.1 >= least {
            self.mark = (self.last, self.moved);
        }
        (self.last + pause).min(self.mark.0 + pause)
    }

    /// Ready when the other side takes nothing for `timeout`: neither from here, nor what the kernel holds for it, where `to`
    /// is its connection and this body's alone.
    pub(crate) fn poll_stalled(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Timer<'_>,
        to: Option<&Stream>,
        timeout: Duration,
    ) -> Poll<()> {
        loop {
            ready!(timer.poll_until(cx, self.stall.due(self.last, timeout)));
            let left = to.map_or(0, Stream::unacknowledged);
            if self.stall.is_over(&mut self.last, clock::now(), left, LEAST) {
                return Poll::Ready(());
            }
        }
    }

    /// Where trailers are read to.
    pub(crate) fn trailers(&mut self) -> &mut Fields {
        &mut self.trailers
    }

    /// Sends a piece on.
    pub(crate) fn pass(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl Sink,
        scratch: &mut Scratch,
        piece: Piece,
    ) -> Result<(), Break> {
        self.moved += piece.place.len() as u64;
        if piece.is_last {
            self.state = State::Ending;
        }
        self.last = clock::now();
        to.send(cx, scratch, piece, &self.trailers).map_err(Break::Sink)
    }

    /// Moves what can be moved now. Ready when the message is whole on the other side.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Source,
        to: &mut impl Sink,
        scratch: &mut Scratch,
    ) -> Poll<Result<(), Break>> {
        let turn = self.moved + TURN;
        for _ in 0..ROUNDS {
            match self.state {
                State::Open => {}
                State::Ending => {
                    self.waits = Waits::Sink;
                    ready!(to.poll_flush(cx)).map_err(Break::Sink)?;
                    self.state = State::Done;
                    return Poll::Ready(Ok(()));
                }
                State::Done | State::Abandoned => return Poll::Ready(Ok(())),
            }
            if self.carry.is_some() || self.begin_carry(from, to) {
                return self.poll_carry(cx, from, to);
            }
            if self.moved >= turn {
                break;
            }
            self.waits = Waits::Sink;
            if ready!(self.poll_put(cx, from, to))? || ready!(self.poll_send(cx, from, to))? {
                continue;
            }
            let most = ready!(to.poll_ready(cx)).map_err(Break::Sink)?;
            self.waits = Waits::Source;
            let Poll::Ready(piece) = from.poll_piece(cx, scratch, most, &mut self.trailers) else {
                // A head waits no longer for a body that is not there.
                if to.poll_flush(cx).map_err(Break::Sink)?.is_pending() {
                    self.waits = Waits::Sink;
                }
                return Poll::Pending;
            };
            self.pass(cx, to, scratch, piece.map_err(Break::Source)?)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether something went from where it lies.
    fn poll_put(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Source,
        to: &mut impl Sink,
    ) -> Poll<Result<bool, Break>> {
        let bytes = from.at_hand();
        if bytes.is_empty() {
            return Poll::Ready(Ok(false));
        }
        let Some(sent) = ready!(to.poll_put(cx, bytes)).map_err(Break::Sink)? else {
            return Poll::Ready(Ok(false));
        };
        if sent == bytes.len() {
            self.state = State::Ending;
        }
        from.used(sent);
        self.moved += sent as u64;
        self.last = clock::now();
        Poll::Ready(Ok(true))
    }

    /// Whether the kernel has sent something by itself.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Source,
        to: &mut impl Sink,
    ) -> Poll<Result<bool, Break>> {
        let (Some(_), Some(socket)) = (to.bulk(), to.socket()) else { return Poll::Ready(Ok(false)) };
        let sent = ready!(from.poll_send(cx, socket)).map_err(Break::Sink)? as u64;
        if sent > 0 {
            to.gave(sent);
            self.moved += sent;
            self.spliced += sent;
            self.last = clock::now();
        }
        Poll::Ready(Ok(sent > 0))
    }

    /// Whether the rest of the body can go in bulk, as it does then.
    fn begin_carry(&mut self, from: &impl Source, to: &impl Sink) -> bool {
        let (Some(coming), Some(going)) = (from.bulk(), to.bulk()) else { return false };
        let is_bulk = self.splice == Splice::Auto && coming >= BULK && coming == going;
        if is_bulk {
            self.carry = Some(Carry::new(coming, self.splice));
        }
        is_bulk
    }

    fn poll_carry(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Source,
        to: &mut impl Sink,
    ) -> Poll<Result<(), Break>> {
        let (Some(carry), Some(source), Some(sink)) = (&mut self.carry, from.socket(), to.socket()) else {
            return Poll::Ready(Err(Break::Source(Broken::Cut)));
        };
        let left = carry.left();
        let (done, moved) = carry.poll(cx, source, sink);
        self.waits = if carry.waits_for_room() { Waits::Sink } else { Waits::Source };
        let came = left - carry.left();
        from.took(came);
        to.gave(moved.bytes);
        self.moved += came;
        self.spliced += moved.spliced;
        if moved.any {
            self.last = clock::now();
        }
        ready!(done).map_err(|error| match error {
            CarryError::Source(error) => Break::Source(Broken::Failed(error)),
            CarryError::Cut => Break::Source(Broken::Cut),
            CarryError::Destination(error) => Break::Sink(Broken::Failed(error)),
        })?;
        self.carry = None;
        self.state = State::Done;
        Poll::Ready(Ok(()))
    }
}
