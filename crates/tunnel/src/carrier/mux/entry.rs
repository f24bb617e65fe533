//! One stream among those of a connection.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use super::frame::{ACK, SYN};

/// How much may be sent in a stream before the other side has said anything of it, as yamux has it.
pub(super) const INITIAL: u32 = 256 << 10;

/// What a window grows to: 670 Mbit/s over 50 ms. A visitor who does not read costs this at the most.
pub(super) const WIDEST: u32 = 4 << 20;

/// What both ends know of a stream.
#[derive(Debug)]
pub(super) struct Entry {
    /// What came and was not read.
    pub(super) incoming: VecDeque<u8>,
    /// How much more may come.
    pub(super) window: u32,
    /// How much may be on its way or unread at a time.
    pub(super) width: u32,
    /// So much was read that the other side may not send again yet.
    pub(super) credit: u32,
    /// When it was last allowed more, in nanoseconds.
    pub(super) granted: u64,
    /// How much may be sent.
    pub(super) room: u32,
    /// The flag that the next frame has to bear: [`SYN`] of ours, [`ACK`] of theirs.
    pub(super) debt: u16,
    /// The round that it last wrote in, and how much it did there.
    pub(super) wrote: (u64, usize),
    /// Whether it stands in the queue for the next round.
    pub(super) is_waiting: bool,
    /// Whether the other side opened it.
    pub(super) is_theirs: bool,
    /// The other side has said all.
    pub(super) has_ended: bool,
    /// We have.
    pub(super) is_finished: bool,
    /// The other side reads no more.
    pub(super) is_stopped: bool,
    /// It broke off.
    pub(super) is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Entry {
    pub(super) fn new(is_theirs: bool, room: u32) -> Entry {
        Entry {
            incoming: VecDeque::new(),
            window: INITIAL,
            width: INITIAL,
            credit: 0,
            granted: 0,
            room,
            debt: if is_theirs { ACK } else { SYN },
            wrote: (0, 0),
            is_waiting: false,
            is_theirs,
            has_ended: false,
            is_finished: false,
            is_stopped: false,
            is_reset: false,
            reader: None,
            writer: None,
        }
    }

    /// Whether the other side does not know of it yet.
    pub(super) fn is_unheard_of(&self) -> bool {
        self.debt == SYN
    }

    /// Whether nothing more can be said in it, either way.
    pub(super) fn is_whole(&self) -> bool {
        self.has_ended && (self.is_finished || self.is_stopped)
    }

    /// Has the task woken by whatever comes.
    pub(super) fn wait_to_read(&mut self, cx: &Context<'_>) {
        keep(&mut self.reader, cx);
    }

    /// Has the task woken when there is room.
    pub(super) fn wait_to_write(&mut self, cx: &Context<'_>) {
        keep(&mut self.writer, cx);
    }

    pub(super) fn wake_reader(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.reader.take());
    }

    pub(super) fn wake_writer(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.writer.take());
    }

    /// Copies out what came, as much as there is place for.
    pub(super) fn take(&mut self, buffer: &mut [u8]) -> usize {
        let n = self.incoming.len().min(buffer.len());
        let (front, back) = self.incoming.as_slices();
        let first = n.min(front.len());
        buffer[..first].copy_from_slice(&front[..first]);
        buffer[first..n].copy_from_slice(&back[..n - first]);
        self.incoming.drain(..n);
        n
    }
}

fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
