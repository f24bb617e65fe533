//! What keeps a lane to a rate.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use wmproxy_runtime::clock;
use wmproxy_wire::bucket::{Bucket, Pace};
use wmproxy_wire::units::ByteRate;

use crate::limit::{Direction, Gate, Meter};
use crate::stream::Stream;

/// How long a wait goes on before it is looked at again, in nanoseconds: a reload may have shortened it.
const LOOK: u64 = 250_000_000;

/// Says before each read of a lane how much may be read, and when: in pieces, so that a slow lane is slow evenly.
///
/// A piece is taken from the buckets only when there is something to read, for what an idle connection holds others
/// can't have, and what was not read of it goes back.
#[derive(Debug)]
pub struct Brake {
    own: Option<Bucket>,
    /// The listener's, and the user's.
    shared: [Option<Arc<Gate>>; 2],
    direction: Direction,
    /// The piece that is taken and not yet used.
    taken: Option<Taken>,
    /// Made when it is first needed.
    sleep: Option<Pin<Box<Sleep>>>,
    /// What `sleep` waits for.
    due: u64,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    bytes: usize,
    /// From when on it may pass.
    at: u64,
    /// How often the shared rates had been changed when it was taken.
    changes: u32,
}

impl Brake {
    /// For one direction of a connection with a rate of its own, or of a listener that has one for all; none without
    /// either.
    pub fn new(own: Option<ByteRate>, gate: &Arc<Gate>, direction: Direction) -> Option<Box<Brake>> {
        let shared = gate.meter(direction).is_limited().then(|| gate.clone());
        if own.is_none() && shared.is_none() {
            return None;
        }
        let own = own.map(|rate| Bucket::new(Pace::of_stream(rate)));
        Some(Box::new(Brake { own, shared: [shared, None], direction, taken: None, sleep: None, due: 0 }))
    }

    /// The same brake, which keeps to the rate of a second gate as well, if that has one: of the user whose connection it is.
    pub fn and(brake: Option<Box<Brake>>, gate: &Arc<Gate>, direction: Direction) -> Option<Box<Brake>> {
        let Some(mut brake) = brake else { return Brake::new(None, gate, direction) };
        debug_assert_eq!(brake.direction, direction);
        if gate.meter(direction).is_limited() {
            brake.shared[1] = Some(gate.clone());
        }
        Some(brake)
    }

    /// What its bytes are counted by together with those of other connections.
    fn meters(&self) -> impl Iterator<Item = &Meter> {
        self.shared.iter().flatten().map(|gate| gate.meter(self.direction))
    }

    /// Whether there is something to read, but its time has not come. Such a connection is not idle.
    pub fn is_waiting(&self) -> bool {
        self.taken.is_some()
    }

    /// How many bytes may be read now from the stream that it brakes; then [`Brake::used`] has to be told.
    ///
    /// # Errors
    /// The stream has failed.
    pub fn poll_allowance(&mut self, cx: &mut Context<'_>, from: &Stream) -> Poll<io::Result<usize>> {
        self.forget_if_changed();
        if self.taken.is_none() {
            ready!(from.poll_readable(cx))?;
        }
        self.poll_piece(cx).map(Ok)
    }

    /// How many bytes may pass now; then [`Brake::used`] has to be told, be it that none have passed.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            self.forget_if_changed();
            let taken = match self.taken {
                Some(taken) => taken,
                None => {
                    let taken = self.take(clock::precise());
                    *self.taken.insert(taken)
                }
            };
            let now = clock::precise();
            if taken.at <= now {
                return Poll::Ready(taken.bytes);
            }
            let due = taken.at.min(now.saturating_add(LOOK));
            let until = Instant::now() + Duration::from_nanos(due - now);
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
            // Left alone while it is set for a moment that will do. It may still be set for an earlier piece, whose time
            // had come before it fired.
            if self.due <= now || self.due > due {
                self.due = due;
                sleep.as_mut().reset(until);
            }
            ready!(sleep.as_mut().poll(cx));
            self.due = 0;
        }
    }

    /// Takes anew what was taken before a reload changed a shared rate.
    fn forget_if_changed(&mut self) {
        if let Some(taken) = self.taken
            && taken.changes != self.changes()
        {
            self.taken = None;
            if let Some(own) = &mut self.own {
                own.give_back(taken.bytes as u64);
            }
        }
    }

    fn changes(&self) -> u32 {
        self.meters().map(Meter::changes).fold(0, u32::wrapping_add)
    }

    /// Says how much was read of what was allowed.
    pub fn used(&mut self, bytes: usize) {
        self.forget_if_changed();
        if let Some(taken) = self.taken.take() {
            self.give_back(taken.bytes.saturating_sub(bytes));
        }
    }

    /// Says how much has passed without asking, for it was there already. What comes next waits for it.
    pub fn spent(&mut self, bytes: usize) {
        let (now, bytes) = (clock::precise(), bytes as u64);
        if let Some(own) = &mut self.own {
            own.reserve(now, bytes);
        }
        for meter in self.meters() {
            if let Some(pace) = meter.pace() {
                meter.reserve(&pace, now, bytes);
            }
        }
    }

    fn take(&mut self, now: u64) -> Taken {
        let changes = self.changes();
        // Asked for once: a reload may change it at any time.
        let paces = self.shared.each_ref().map(|gate| gate.as_ref()?.meter(self.direction).pace());
        let own = self.own.as_ref().map(Bucket::pace);
        // Without any, which is when a reload takes the shared limits away, anything goes.
        let bytes =
            own.into_iter().chain(paces.iter().flatten()).map(Pace::piece).min().unwrap_or(usize::MAX);
        let mut at = self.own.as_mut().map_or(now, |own| own.reserve(now, bytes as u64));
        for (gate, pace) in self.shared.iter().zip(&paces) {
            if let (Some(gate), Some(pace)) = (gate, pace) {
                at = at.max(gate.meter(self.direction).reserve(pace, now, bytes as u64));
            }
        }
        Taken { bytes, at, changes }
    }

    fn give_back(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if let Some(own) = &mut self.own {
            own.give_back(bytes as u64);
        }
        self.meters().for_each(|meter| meter.give_back(bytes as u64));
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        self.used(0);
    }
}
