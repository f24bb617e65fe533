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
/// 5.3 us of CPU each without a rest, 4.0 with 10 us, 3.8 with 30, 3.5 with 60, 3.3 with 100, and no less with 200; with
/// QUIC from senders of trains, 1.7 s a GB with 50 us, 1.3 with 100, 1.5 with 200. It is also the most that it adds to a
/// packet's way, each way, and what the worker's other connections wait while datagrams come so fast.
const REST: Duration = Duration::from_micros(100);

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
    static PACKETS: Cell<u64> = const { Cell::new(0) };
    static LOAD: Cell<Load> = const { Cell::new(Load::QUIET) };
}

/// How fast packets come of late, and whether resting has been of use.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// When the window began, in nanoseconds.
    since: u64,
    packets: u64,
    rests: u64,
    busy: bool,
    /// Windows to go before the next try.
    pause: u32,
    /// How long the last pause was.
    last_pause: u32,
}

impl Load {
    const QUIET: Load = Load { since: 0, packets: 0, rests: 0, busy: false, pause: 0, last_pause: 0 };

    /// Takes into account that so many packets came until `now`. The caller rests if it is busy after that.
    fn after(mut self, packets: u64, now: u64) -> Load {
        self.packets = self.packets.saturating_add(packets);
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= WINDOW {
            self.judge(elapsed);
            (self.since, self.packets, self.rests) = (now, 0, 0);
        }
        self.rests += u64::from(self.busy);
        self
    }

    fn judge(&mut self, elapsed: u64) {
        let fast = self.packets.saturating_mul(WINDOW) >= BUSY.saturating_mul(elapsed);
        if self.busy && self.packets < WORTH * self.rests {
            self.last_pause = (self.last_pause * 2).clamp(PAUSE.0, PAUSE.1);
            self.pause = self.last_pause;
            self.busy = false;
        } else if self.pause > 0 {
            self.pause -= 1;
        } else {
            if self.busy {
                self.last_pause = 0;
            }
            self.busy = fast;
        }
    }
}

/// Tells that so many packets were received on this worker.
#[inline]
pub fn note(packets: usize) {
    PACKETS.set(PACKETS.get() + packets as u64);
}

/// Prepares the calling thread, a worker's.
pub(crate) fn prepare() {
    // By default the kernel wakes a sleeper up to 50 us late to join it with others. Without, rests are only longer.
    let _ = set_current_timer_slack(std::num::NonZeroU64::new(1000));
}

/// Called when the worker has nothing left to do, just before it waits for events.
pub(crate) fn rest() {
    let packets = PACKETS.take();
    if packets == 0 {
        return;
    }
    let now = clock_gettime(ClockId::Monotonic);
    let now = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    let load = LOAD.get().after(packets, now);
    LOAD.set(load);
    if load.busy {
        // A signal ends it early, which does no harm.
        let _ = nanosleep(&Timespec { tv_sec: 0, tv_nsec: i64::from(REST.subsec_nanos()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Which turns of a worker rest, each so long after the one before and with so many packets.
    fn play(turns: impl IntoIterator<Item = (u64, u64)>) -> Vec<bool> {
        let mut load = Load::QUIET;
        let mut now = 0;
        let step = |(gap, packets)| {
            now += gap;
            load = load.after(packets, now);
            load.busy
        };
        turns.into_iter().map(step).collect()
    }

    #[test]
    fn many_packets_make_it_busy_and_few_do_not() {
        assert!(play((0..100).map(|_| (MS / 10, 1))).iter().all(|busy| !busy), "10,000 a second");
        let storm = play((0..1000).map(|_| (MS / 50, 3)));
        assert!(storm.iter().skip(100).all(|busy| *busy), "150,000 a second");
    }

    #[test]
    fn the_first_packet_after_a_pause_does_not_wait() {
        let storm = (0..100).map(|_| (MS / 50, 3));
        let after = play(storm.chain([(2 * MS, 1), (10 * MS, 1)]));
        assert!(after[99] && !after[100] && !after[101]);
    }

    #[test]
    fn clients_that_ask_and_wait_are_hardly_ever_held_up() {
        // Two packets for each of their turns, however long the worker rests between.
        let mut load = Load::QUIET;
        let (mut now, mut rests) = (0, 0);
        for _ in 0..100_000 {
            load = load.after(1, now);
            now += if load.busy { 120_000 } else { 20_000 };
            rests += u32::from(load.busy);
        }
        assert!(rests > 0 && rests < 1000, "{rests} of 100,000 packets waited");
    }
}
