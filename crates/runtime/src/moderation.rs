//! Moderation of wake-ups: where packets come fast, a worker waits a moment for more before it looks again.
//!
//! A worker that is quicker than its senders wakes for each two or three datagrams, and the wake-up costs more than they
//! do. Network cards have the same trouble with interrupts, and the same answer (adaptive coalescing): while the rate is
//! high, whatever comes within a short while is taken together. Nobody waits while the rate is low.

use std::cell::Cell;
use std::time::Duration;

use rustix::thread::{Timespec, nanosleep, set_current_timer_slack};
use rustix::time::{ClockId, clock_gettime};

/// How long a busy worker rests. Measured over loopback with 160,000 datagrams of 1200 bytes a second from plain senders:
/// 5.3 us of CPU each without a rest, 4.0 with 10 us, 3.8 with 30, 3.5 with 60, 3.3 with 100, and no less with 200. It is
/// also the most that it adds to a packet's way, each way, and what the worker's other connections wait while datagrams
/// come so fast one by one.
const REST: Duration = Duration::from_micros(100);

/// How long it rests at most where packets come in trains: the trains of a rest go on as one, so more of them in fewer
/// turns cost less. Measured over loopback with QUIC from senders that hand the kernel ten datagrams at a time: 1.56 s
/// of CPU a GB with 50 us, 1.20 with 100, 0.98 with 200, 0.84 with 300 and 0.69 with 500, with no less throughput; but
/// half a millisecond is a long time for whoever shares the worker.
const TRAIN_REST: Duration = Duration::from_micros(300);

/// Packets a message, on average, that make trains: half of a short one, for acknowledgements come the other way.
const TRAIN: u64 = 4;

/// Packets that a long rest is to bring: three sends full. A longer one would gain little, and 120 full-size datagrams
/// fit even into the queue that the kernel gives a socket without privilege (425 KB, each datagram counted as 2.3 KB).
const GATHER: u64 = 120;

/// Packets in a millisecond from which a rest may pay: four for each.
const BUSY: u64 = 40;

/// Packets that a rest has to bring on average. Below, as where a few clients ask one thing at a time and wait for the
/// answer, it delays more than it joins.
const WORTH: u64 = 3;

/// Windows without rests after rests that were not worth it; twice as many each time, up to the second number.
const PAUSE: (u32, u32) = (2, 128);

/// Over how long the rate is taken, in nanoseconds.
const WINDOW: u64 = 1_000_000;

thread_local! {
    static ARRIVED: Cell<Arrived> = const { Cell::new(Arrived { messages: 0, packets: 0 }) };
    static LOAD: Cell<Load> = const { Cell::new(Load::QUIET) };
}

/// What was received: each message is one packet, or a train of them.
#[derive(Debug, Clone, Copy, Default)]
struct Arrived {
    messages: u64,
    packets: u64,
}

/// How fast packets come of late, and whether resting has been of use.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// When the window began, in nanoseconds.
    since: u64,
    arrived: Arrived,
    rests: u64,
    /// How long to rest, in nanoseconds; 0 while it is not busy.
    rest: u64,
    /// Windows to go before the next try.
    pause: u32,
    /// How long the last pause was.
    last_pause: u32,
}

impl Load {
    const QUIET: Load = Load {
        since: 0,
        arrived: Arrived { messages: 0, packets: 0 },
        rests: 0,
        rest: 0,
        pause: 0,
        last_pause: 0,
    };

    /// Takes into account what came until `now`. The caller rests for as long as it says after that.
    fn after(mut self, arrived: Arrived, now: u64) -> Load {
        self.arrived.messages = self.arrived.messages.saturating_add(arrived.messages);
        self.arrived.packets = self.arrived.packets.saturating_add(arrived.packets);
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= WINDOW {
            self.judge(elapsed);
            (self.since, self.arrived, self.rests) = (now, Arrived::default(), 0);
        }
        self.rests += u64::from(self.rest > 0);
        self
    }

    fn judge(&mut self, elapsed: u64) {
        let busy = self.rest > 0;
        if busy && self.arrived.packets < WORTH * self.rests {
            self.last_pause = (self.last_pause * 2).clamp(PAUSE.0, PAUSE.1);
            self.pause = self.last_pause;
            self.rest = 0;
        } else if self.pause > 0 {
            self.pause -= 1;
        } else {
            if busy {
                self.last_pause = 0;
            }
            self.rest = self.arrived.rest(elapsed);
        }
    }
}

impl Arrived {
    /// How long to rest where so much comes in `elapsed`, both in nanoseconds.
    fn rest(self, elapsed: u64) -> u64 {
        if self.packets.saturating_mul(WINDOW) < BUSY.saturating_mul(elapsed) {
            return 0;
        }
        let (short, long) = (u64::from(REST.subsec_nanos()), u64::from(TRAIN_REST.subsec_nanos()));
        if self.packets < self.messages.saturating_mul(TRAIN) {
            return short;
        }
        (GATHER.saturating_mul(elapsed) / self.packets.max(1)).clamp(short, long)
    }
}

/// Tells that a message was received on this worker, and how many packets it holds.
#[inline]
pub fn note(packets: usize) {
    let Arrived { messages, packets: before } = ARRIVED.get();
    ARRIVED.set(Arrived { messages: messages + 1, packets: before + packets as u64 });
}

/// Prepares the calling thread, a worker's.
pub(crate) fn prepare() {
    // By default the kernel wakes a sleeper up to 50 us late to join it with others. Without, rests are only longer.
    let _ = set_current_timer_slack(std::num::NonZeroU64::new(1000));
}

/// Called when the worker has nothing left to do, just before it waits for events.
pub(crate) fn rest() {
    let arrived = ARRIVED.take();
    if arrived.packets == 0 {
        return;
    }
    let now = clock_gettime(ClockId::Monotonic);
    let now = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    let load = LOAD.get().after(arrived, now);
    LOAD.set(load);
    if load.rest > 0 {
        // A signal ends it early, which does no harm.
        let _ = nanosleep(&Timespec { tv_sec: 0, tv_nsec: load.rest.cast_signed() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    const REST: u64 = super::REST.as_nanos() as u64;
    const TRAIN_REST: u64 = super::TRAIN_REST.as_nanos() as u64;

    fn single(packets: u64) -> Arrived {
        Arrived { messages: packets, packets }
    }

    /// How long the turns of a worker rest, each so long after the one before and with so much.
    fn play(turns: impl IntoIterator<Item = (u64, Arrived)>) -> Vec<u64> {
        let mut load = Load::QUIET;
        let mut now = 0;
        let step = |(gap, arrived)| {
            now += gap;
            load = load.after(arrived, now);
            load.rest
        };
        turns.into_iter().map(step).collect()
    }

    #[test]
    fn many_packets_make_it_busy_and_few_do_not() {
        assert!(
            play((0..100).map(|_| (MS / 10, single(1)))).iter().all(|rest| *rest == 0),
            "10,000 a second"
        );
        let storm = play((0..1000).map(|_| (MS / 50, single(3))));
        assert!(storm.iter().skip(100).all(|rest| *rest == REST), "150,000 a second");
    }

    #[test]
    fn trains_are_waited_for_longer_but_not_too_many_of_them() {
        let rest_at = |trains: u64| {
            let train = Arrived { messages: trains, packets: 10 * trains };
            play((0..100).map(|_| (MS / 2, train))).pop().unwrap()
        };
        assert_eq!(rest_at(1), 0, "20,000 a second");
        assert_eq!(rest_at(10), TRAIN_REST, "200,000 a second");
        assert_eq!(rest_at(30), GATHER * MS / 600, "600,000 a second");
        assert_eq!(rest_at(200), REST, "4,000,000 a second");
        let acknowledged = Arrived { messages: 10 + 20, packets: 100 + 20 };
        assert_eq!(play((0..100).map(|_| (MS / 2, acknowledged))).pop(), Some(TRAIN_REST));
    }

    #[test]
    fn the_first_packet_after_a_pause_does_not_wait() {
        let storm = (0..100).map(|_| (MS / 50, single(3)));
        let after = play(storm.chain([(2 * MS, single(1)), (10 * MS, single(1))]));
        assert!(after[99] > 0 && after[100] == 0 && after[101] == 0);
    }

    #[test]
    fn clients_that_ask_and_wait_are_hardly_ever_held_up() {
        // Two packets for each of their turns, however long the worker rests between.
        let mut load = Load::QUIET;
        let (mut now, mut rests) = (0, 0);
        for _ in 0..100_000 {
            load = load.after(single(1), now);
            now += if load.rest > 0 { 120_000 } else { 20_000 };
            rests += u32::from(load.rest > 0);
        }
        assert!(rests > 0 && rests < 1000, "{rests} of 100,000 packets waited");
    }
}
