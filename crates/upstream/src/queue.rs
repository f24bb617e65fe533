//! Waiting for a peer that has room, first come first served over all workers.
//!
//! Everybody who may wait for the peers of one group meets in its lobby, which lives as long as they do and so over
//! reloads. In it each generation's group has a line of its own, for it may go by other limits than the next. Only who
//! is first in a line looks for a peer, and who gets one, gives up or goes away calls the next. So nobody is overtaken,
//! and one place that is freed wakes one waiter and not all.
//!
//! Somebody may find that the only peer with room is one that failed him before. He then lets those behind him look, up
//! to the first who gets it or who would take any, and keeps his place: as soon as there is room again, he looks first.
//!
//! No call is lost: who joins counts itself before it looks at the peers, and who leaves a peer counts itself out
//! before it looks for waiters, each with a fence in between. One of the two always sees the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How often the first in line looks for peers unasked. It is woken by whoever makes room; but nobody calls when an
/// ejection is over, a health check succeeds or a name gets another address.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where those wait who want a peer of one group.
#[derive(Debug, Default)]
pub(crate) struct Lobby {
    /// In all lines together. Written under the lock, read without.
    waiting: AtomicUsize,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    next_line: u64,
    next_ticket: u64,
    /// By line and ticket, so that the first entry of a line is the first in it.
    waiters: BTreeMap<(u64, u64), Waker>,
    /// By line the ticket of the last of those at its head for whom the room that there is is none.
    passed: BTreeMap<u64, u64>,
}

impl Lines {
    /// Whose turn it is in a line: the first who has not passed. Those before him may look once more when they are woken.
    fn turn(&self, line: u64) -> Option<(u64, &Waker)> {
        let from = self.passed.get(&line).map_or(0, |ticket| ticket + 1);
        let ((_, ticket), waker) = self.waiters.range((line, from)..=(line, u64::MAX)).next()?;
        Some((*ticket, waker))
    }
}

impl Lobby {
    /// Calls the first of each line after a peer got room.
    #[inline]
    pub(crate) fn room_made(&self) {
        fence(SeqCst);
        if self.waiting.load(Relaxed) != 0 {
            self.call_first_of_each();
        }
    }

    #[cold]
    fn call_first_of_each(&self) {
        let mut first: Vec<Waker> = vec![];
        let mut lines = self.lines();
        // This may be room for those who passed, too.
        lines.passed.clear();
        let mut from = 0;
        while let Some((&(line, _), waker)) = lines.waiters.range((from, 0)..).next() {
            first.push(waker.clone());
            from = line + 1;
        }
        drop(lines);
        first.into_iter().for_each(Waker::wake);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Whole after each statement, so that a panic leaves it usable.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line of one group.
#[derive(Debug)]
pub(crate) struct Line {
    lobby: Arc<Lobby>,
    id: u64,
    /// Written under the lobby's lock, read without.
    length: AtomicUsize,
}

impl Line {
    pub(crate) fn new(lobby: Arc<Lobby>) -> Line {
        let mut lines = lobby.lines();
        let id = lines.next_line;
        lines.next_line += 1;
        drop(lines);
        Line { lobby, id, length: AtomicUsize::new(0) }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.length.load(Relaxed)
    }

    /// Takes the last place in line; none when `max` wait already.
    pub(crate) fn join(&self, max: usize) -> Option<Place<'_>> {
        let mut lines = self.lobby.lines();
        if self.len() >= max {
            return None;
        }
        let ticket = lines.next_ticket;
        lines.next_ticket += 1;
        lines.waiters.insert((self.id, ticket), Waker::noop().clone());
        self.length.fetch_add(1, Relaxed);
        self.lobby.waiting.fetch_add(1, Relaxed);
        drop(lines);
        fence(SeqCst);
        Some(Place { line: self, ticket })
    }
}

/// A place in line, given up on drop.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    line: &'a Line,
    ticket: u64,
}

impl Place<'_> {
    /// Ready when this is the first in line, or those before it have [passed](Place::pass). Whatever happens later wakes
    /// the task: room that is made, and the others before it that go or pass.
    pub(crate) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut lines = self.line.lobby.lines();
        let key = (self.line.id, self.ticket);
        if let Some(waker) = lines.waiters.get_mut(&key) {
            waker.clone_from(cx.waker());
        }
        let is_late = lines.turn(self.line.id).is_some_and(|(ticket, _)| ticket < self.ticket);
        if is_late { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Lets the next one look whose turn it is: the room that there is, if any, is of no use here. To be said only by who
    /// has looked in its turn and can't use every peer.
    pub(crate) fn pass(&self) {
        let id = self.line.id;
        let mut lines = self.line.lobby.lines();
        if lines.turn(id).is_none_or(|(ticket, _)| ticket != self.ticket) {
            // Said already, or there is new room meanwhile and others were called.
            return;
        }
        lines.passed.insert(id, self.ticket);
        let next = lines.turn(id).map(|(_, waker)| waker.clone());
        drop(lines);
        if let Some(next) = next {
            next.wake();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let id = self.line.id;
        let mut lines = self.line.lobby.lines();
        let had_turn = lines.turn(id).is_some_and(|(ticket, _)| ticket == self.ticket);
        lines.waiters.remove(&(id, self.ticket));
        self.line.length.fetch_sub(1, Relaxed);
        self.line.lobby.waiting.fetch_sub(1, Relaxed);
        // There may be more room than for one, or a call that this one was too late to answer.
        let next = if had_turn { lines.turn(id).map(|(_, waker)| waker.clone()) } else { None };
        if lines.waiters.range((id, 0)..=(id, u64::MAX)).next().is_none() {
            lines.passed.remove(&id);
        }
        drop(lines);
        if let Some(next) = next {
            next.wake();
        }
    }
}

#[cfg(test)]
mod tests;
