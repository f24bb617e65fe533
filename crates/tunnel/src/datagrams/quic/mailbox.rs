//! Packets on their way from who drives the connection to who they are for.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// What may wait for a worker that is elsewhere: as much as the kernel would hold for a socket. The oldest go first then.
const MAX_BYTES: usize = 2 << 20;

/// How much a packet counts for besides its bytes: its place in the queue, and the connection's buffer that it keeps.
const PLACE: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    queue: Mutex<Queue>,
    came: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<Bytes>,
    bytes: usize,
    has_ended: bool,
}

impl Mailbox {
    /// Adds a packet.
    pub(super) fn push(&self, packet: Bytes) {
        let mut queue = self.queue();
        let was_empty = queue.packets.is_empty();
        queue.bytes += packet.len() + PLACE;
        queue.packets.push_back(packet);
        while queue.bytes > MAX_BYTES {
            let Some(oldest) = queue.packets.pop_front() else { break };
            queue.bytes -= oldest.len() + PLACE;
            self.add_dropped(1);
        }
        drop(queue);
        if was_empty {
            self.came.notify_one();
        }
    }

    /// Lets nothing more come.
    pub(super) fn end(&self) {
        self.queue().has_ended = true;
        self.came.notify_one();
    }

    /// Waits for packets and takes all of them; none when no more will come. Cancel safe.
    pub(super) async fn take(&self) -> Option<Vec<Bytes>> {
        loop {
            {
                let mut queue = self.queue();
                if !queue.packets.is_empty() {
                    queue.bytes = 0;
                    return Some(mem::take(&mut queue.packets).into());
                }
                if queue.has_ended {
                    return None;
                }
            }
            self.came.notified().await;
        }
    }

    /// Counts packets that got lost here.
    pub(super) fn add_dropped(&self, packets: u64) {
        if packets > 0 {
            self.dropped.fetch_add(packets, Ordering::Relaxed);
        }
    }

    /// How many those were since the last time.
    pub(super) fn take_dropped(&self) -> u64 {
        match self.dropped.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.dropped.swap(0, Ordering::Relaxed),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_where_nobody_takes_them() {
        let mailbox = Mailbox::default();
        let packet = Bytes::from(vec![0; 1000]);
        for number in 0..10_000u32 {
            mailbox.push([&number.to_be_bytes()[..], &packet].concat().into());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let kept = runtime.block_on(mailbox.take()).unwrap();
        assert_eq!(kept.len() as u64 + mailbox.take_dropped(), 10_000);
        assert_eq!((kept.len(), mailbox.take_dropped()), (MAX_BYTES / (1004 + PLACE), 0));
        assert_eq!(kept.last().unwrap()[..4], 9_999u32.to_be_bytes());
        mailbox.end();
        assert_eq!(runtime.block_on(mailbox.take()), None);
    }
}
