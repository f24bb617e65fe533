//! Waiting for a peer that has room, first come first served over all workers.
//!
//! Everybody who may wait for the peers of one group meets in its lobby, which lives as long as they do and so over
//! reloads. In it each generation's group has a line of its own, for it may go by other limits than the next. Only who
//! is first in a line looks for a peer, and who gets one, gives up or goes away calls the next. So nobody is overtaken,
//! and one place that is freed wakes one waiter and not all.
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
        let lines = self.lines();
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
    /// Ready when this is the first in line. Whatever happens later wakes the task: room that is made, and the others
    /// before it that go.
    pub(crate) fn poll_first(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut lines = self.line.lobby.lines();
        let key = (self.line.id, self.ticket);
        if let Some(waker) = lines.waiters.get_mut(&key) {
            waker.clone_from(cx.waker());
        }
        let first = lines.waiters.range((self.line.id, 0)..).next();
        if first.is_some_and(|(first, _)| *first == key) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let id = self.line.id;
        let mut lines = self.line.lobby.lines();
        let was_first =
            lines.waiters.range((id, 0)..).next().is_some_and(|(first, _)| *first == (id, self.ticket));
        lines.waiters.remove(&(id, self.ticket));
        self.line.length.fetch_sub(1, Relaxed);
        self.line.lobby.waiting.fetch_sub(1, Relaxed);
        // There may be more room than for one, or a call that this one was too late to answer.
        let next = if was_first { lines.waiters.range((id, 0)..(id + 1, 0)).next() } else { None };
        let next = next.map(|(_, waker)| waker.clone());
        drop(lines);
        if let Some(next) = next {
            next.wake();
        }
    }
}

#[cfg(test)]
mod tests;
