//! What a connection knows of its streams. No system call is made here; the clock is read where windows grow.

mod heard;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::task::{Context, Poll, Waker};

use wmproxy_runtime::clock;

use super::Side;
use super::entry::{Entry, INITIAL, WIDEST};
use super::frame::{FIN, Header, Kind, RST, SYN};
use crate::carrier::MAX_STREAMS;

/// How much is put together before streams have to wait for the next round. The rest of the way is the socket's.
const ROUND: usize = 256 << 10;

/// How much of a round is one stream's at the most, so that a bulky one does not fill it alone while others wait.
const SHARE: usize = 64 << 10;

/// How many streams are woken for a round: twice as many as fill it, for some have little to say.
const WOKEN: usize = 2 * (ROUND / SHARE);

/// Beyond that nothing is read, for what is read would make the answers to it longer and longer: who sends pings or streams
/// to be refused and does not read the answers.
const FULL: usize = ROUND + SHARE + (256 << 10);

/// By how much the windows of all streams together may have grown.
const GROWN: u32 = 64 << 20;

/// The streams of a connection, and what is to be said in them.
#[derive(Debug)]
pub(super) struct Core {
    streams: HashMap<u32, Entry>,
    next: u32,
    /// How many of the streams are ours, and theirs.
    counts: [u32; 2],
    /// Frames that are to be written.
    out: Vec<u8>,
    /// Counts how often those were taken to be written.
    round: u64,
    /// Who waits for the next round, in their order.
    waiting: VecDeque<u32>,
    /// Streams of the other side that nobody has taken yet.
    arrived: VecDeque<u32>,
    taker: Option<Waker>,
    has_opener: bool,
    has_taker: bool,
    /// Streams that have yet to be acknowledged.
    silent: Vec<u32>,
    held: usize,
    grown: u32,
    /// When the ping was sent that is not answered yet, and the shortest time that one took; in nanoseconds.
    pinged: Option<u64>,
    round_trip: Option<u64>,
    driver: Option<Waker>,
    over: Option<Stop>,
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) kind: io::ErrorKind,
    pub(super) why: &'static str,
}

/// What the other side says makes no sense.
pub(super) fn junk(why: &'static str) -> Stop {
    Stop { kind: io::ErrorKind::InvalidData, why }
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// What a stream says.
impl Core {
    pub(super) fn new(side: Side) -> Core {
        Core {
            streams: HashMap::new(),
            next: match side {
                Side::Client => 1,
                Side::Server => 2,
            },
            counts: [0; 2],
            out: Vec::new(),
            round: 1,
            waiting: VecDeque::new(),
            arrived: VecDeque::new(),
            taker: None,
            has_opener: true,
            has_taker: true,
            silent: Vec::new(),
            held: 0,
            grown: 0,
            pinged: None,
            round_trip: None,
            driver: None,
            over: None,
        }
    }

    pub(super) fn open(&mut self) -> io::Result<u32> {
        if let Some(over) = self.over() {
            return Err(over);
        }
        if self.counts[0] >= MAX_STREAMS {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many streams"));
        }
        // There are two billion numbers; those of streams that have lasted since the last time round are left out.
        while self.streams.contains_key(&self.next) {
            self.next = following(self.next);
        }
        let id = self.next;
        self.next = following(id);
        self.counts[0] += 1;
        self.streams.insert(id, Entry::new(false, INITIAL));
        Ok(id)
    }

    pub(super) fn poll_take(&mut self, cx: &Context<'_>) -> Poll<Option<u32>> {
        if let Some(id) = self.arrived.pop_front() {
            return Poll::Ready(Some(id));
        }
        if self.over.is_some() {
            return Poll::Ready(None);
        }
        self.taker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn read(&mut self, id: u32, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(entry) = self.streams.get_mut(&id) else { return Poll::Ready(Err(broken())) };
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let n = entry.take(buffer);
        if n == 0 {
            if entry.has_ended {
                return Poll::Ready(Ok(0));
            }
            if entry.is_reset || self.over.is_some() {
                return Poll::Ready(Err(broken()));
            }
            // A stream that waits holds nothing.
            entry.incoming = VecDeque::new();
            entry.wait_to_read(cx);
            return Poll::Pending;
        }
        self.held -= n;
        // No more than a window can have been read since.
        entry.credit += n as u32;
        let is_open = !entry.has_ended && !entry.is_reset && self.over.is_none();
        if is_open && entry.credit >= entry.width / 2 {
            self.grant(id);
        }
        Poll::Ready(Ok(n))
    }

    /// Lets the other side send what was read, and more if it has been quick.
    fn grant(&mut self, id: u32) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        let now = clock::precise();
        let took = now - std::mem::replace(&mut entry.granted, now);
        // Half a window in less than two round trips: the sender waits for us more than for the network.
        if self.round_trip.is_some_and(|round_trip| took < 2 * round_trip) {
            let more = entry.width.min(WIDEST - entry.width).min(GROWN - self.grown);
            self.grown += more;
            entry.width += more;
            entry.credit += more;
        }
        let credit = std::mem::take(&mut entry.credit);
        entry.window += credit;
        let flags = std::mem::take(&mut entry.debt);
        self.say(Header { kind: Kind::Window, flags, stream: id, length: credit });
    }

    pub(super) fn write(&mut self, id: u32, cx: &Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(entry) = self.streams.get_mut(&id) else { return Poll::Ready(Err(broken())) };
        if entry.is_finished || entry.is_stopped {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if entry.is_reset || self.over.is_some() {
            return Poll::Ready(Err(broken()));
        }
        if entry.wrote.0 != self.round {
            entry.wrote = (self.round, 0);
        }
        let share = if self.out.len() < ROUND { SHARE - entry.wrote.1 } else { 0 };
        let n = data.len().min(share).min(entry.room as usize);
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if n == 0 {
            entry.wait_to_write(cx);
            // Who has no window is woken by the other side, and not in a round.
            if entry.room > 0 && !std::mem::replace(&mut entry.is_waiting, true) {
                self.waiting.push_back(id);
            }
            return Poll::Pending;
        }
        entry.wrote.1 += n;
        // It is no more than the room, which has 32 bits.
        let length = n as u32;
        entry.room -= length;
        let flags = std::mem::take(&mut entry.debt);
        self.say(Header { kind: Kind::Data, flags, stream: id, length });
        self.out.extend_from_slice(&data[..n]);
        Poll::Ready(Ok(n))
    }

    pub(super) fn finish(&mut self, id: u32) -> io::Result<()> {
        let Some(entry) = self.streams.get_mut(&id) else { return Err(broken()) };
        if entry.is_reset || self.over.is_some() {
            return Err(broken());
        }
        if std::mem::replace(&mut entry.is_finished, true) || entry.is_stopped {
            return Ok(());
        }
        let flags = FIN | std::mem::take(&mut entry.debt);
        self.say(Header { kind: Kind::Data, flags, stream: id, length: 0 });
        Ok(())
    }

    pub(super) fn is_reset(&mut self, id: u32, cx: &Context<'_>) -> bool {
        let Some(entry) = self.streams.get_mut(&id) else { return true };
        if entry.is_reset || (self.over.is_some() && !entry.is_whole()) {
            return true;
        }
        entry.wait_to_read(cx);
        false
    }

    /// Forgets a stream of ours or theirs that nobody uses any more, and has the other side know.
    pub(super) fn release(&mut self, id: u32, resets: bool) {
        let Some(entry) = self.remove(id) else { return };
        if entry.is_reset || entry.is_unheard_of() {
            return;
        }
        let mut say = |kind, flags| self.say(Header { kind, flags, stream: id, length: 0 });
        if resets {
            return say(Kind::Data, RST | entry.debt);
        }
        if !entry.is_finished && !entry.is_stopped {
            say(Kind::Data, FIN | entry.debt);
        }
        if !entry.has_ended {
            say(Kind::Window, RST);
        }
    }

    fn remove(&mut self, id: u32) -> Option<Entry> {
        let entry = self.streams.remove(&id)?;
        self.held -= entry.incoming.len();
        self.grown -= entry.width - INITIAL;
        self.counts[usize::from(entry.is_theirs)] -= 1;
        Some(entry)
    }

    fn say(&mut self, header: Header) {
        if self.over.is_none() {
            self.out.extend_from_slice(&header.encode());
        }
    }
}

/// What the driver asks.
impl Core {
    /// Its waker, if there is something to write or nobody is left.
    pub(super) fn driver_if_needed(&mut self) -> Option<Waker> {
        let is_needed = !self.out.is_empty() || self.over.is_some() || self.is_deserted();
        if is_needed { self.driver.take() } else { None }
    }

    /// Has the driver woken when there is something for it.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        self.driver = Some(cx.waker().clone());
    }

    /// Gives the frames that are to be written for an empty buffer, and wakes some of those who wait for that. True if there
    /// are frames, or may be soon.
    pub(super) fn next_round(&mut self, written: &mut Vec<u8>, wakers: &mut Vec<Waker>) -> bool {
        if self.out.is_empty() && self.waiting.is_empty() {
            return false;
        }
        std::mem::swap(&mut self.out, written);
        self.round += 1;
        for _ in 0..WOKEN {
            let Some(id) = self.waiting.pop_front() else { break };
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.is_waiting = false;
                entry.wake_writer(wakers);
            }
        }
        true
    }

    /// Whether more is to be said than may be, so that nothing should be heard.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() > FULL
    }

    /// Whether nobody is left who could use the connection.
    pub(super) fn is_deserted(&self) -> bool {
        !self.has_opener && !self.has_taker && self.streams.is_empty()
    }

    /// Asks the other side whether it is there.
    pub(super) fn ping(&mut self) {
        self.pinged = Some(clock::precise());
        self.say(Header { kind: Kind::Ping, flags: SYN, stream: 0, length: 0 });
    }

    /// Why the connection is over, if it is.
    pub(super) fn over(&self) -> Option<io::Error> {
        self.over.map(|Stop { kind, why }| io::Error::new(kind, why))
    }

    /// Ends it, unless it is over already. Whoever waits for anything is to be woken.
    pub(super) fn end(&mut self, kind: io::ErrorKind, why: &'static str) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if self.over.is_none() {
            let code = u32::from(kind == io::ErrorKind::InvalidData);
            self.say(Header { kind: Kind::GoAway, flags: 0, stream: 0, length: code });
            self.over = Some(Stop { kind, why });
            wakers.extend(self.taker.take().into_iter().chain(self.driver.take()));
            for entry in self.streams.values_mut() {
                entry.wake_reader(&mut wakers);
                entry.wake_writer(&mut wakers);
            }
        }
        wakers
    }

    /// Gives back a large buffer that holds nothing.
    pub(super) fn trim(&mut self, most: usize) {
        if self.out.is_empty() {
            self.out.shrink_to(most);
        }
    }

    pub(super) fn forget_opener(&mut self) {
        self.has_opener = false;
    }

    pub(super) fn forget_taker(&mut self) {
        self.has_taker = false;
        while let Some(id) = self.arrived.pop_front() {
            self.release(id, true);
        }
    }
}

/// The next number of the same side. Those of the connection and of the other side are never met.
fn following(id: u32) -> u32 {
    match id.checked_add(2) {
        Some(next) => next,
        None if id.is_multiple_of(2) => 2,
        None => 1,
    }
}
