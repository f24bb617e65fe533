//! Leases that wait for their turn.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock;

use super::{Group, Lease, LeaseKey, NoPeer};
use crate::options::QueueSpec;
use crate::peer::Peer;
use crate::queue::LOOK_AGAIN;

impl Group {
    /// How many connections wait for a peer that has room.
    pub fn queued(&self) -> usize {
        self.line.len()
    }

    /// Leases a peer like [`lease`](Group::lease), and waits for one as the group's queue says when those that could serve
    /// are full: then backups do not stand in for them, nor are ejected ones tried. `client` is watched meanwhile; who has
    /// gone gives up its place.
    ///
    /// # Errors
    /// As `lease`, and those of the queue. Without a queue it never waits.
    pub async fn lease_in_turn(
        &self,
        key: &LeaseKey,
        tried: &[Arc<Peer>],
        client: Option<&Stream>,
    ) -> Result<Lease, NoPeer> {
        let Some(queue) = self.spec.queue else { return self.lease(key, tried, clock::now().0) };
        // Who comes while others wait does not get ahead of them, but of those who have no use for what there is.
        if self.line.len() == 0 || !self.set.load().is_worth_a_wait(&self.request(key, tried, clock::now().0))
        {
            match self.lease_or_full(key, tried) {
                Err(NoPeer::Full) => {}
                done => return done,
            }
        }
        // Boxed: few wait, and everybody who dials would hold the room for it.
        Box::pin(self.wait(queue, key, tried, client)).await
    }

    async fn wait(
        &self,
        queue: QueueSpec,
        key: &LeaseKey,
        tried: &[Arc<Peer>],
        client: Option<&Stream>,
    ) -> Result<Lease, NoPeer> {
        let place = self.line.join(queue.max).ok_or(NoPeer::QueueFull)?;
        let mut look_again = None;
        let turn = poll_fn(|cx| {
            if place.poll_turn(cx).is_pending() {
                return Poll::Pending;
            }
            match self.lease_or_full(key, tried) {
                Err(NoPeer::Full) if tried.is_empty() => {}
                // There may be room at a peer that was tried: others need not wait for somebody who can't use it.
                Err(NoPeer::Full) => place.pass(),
                done => return Poll::Ready(done),
            }
            let tick = look_again.get_or_insert_with(|| {
                let mut tick = interval_at(Instant::now() + LOOK_AGAIN, LOOK_AGAIN);
                tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
                tick
            });
            while tick.poll_tick(cx).is_ready() {}
            Poll::Pending
        });
        let gone = async {
            match client {
                Some(client) => client.gone().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            lease = turn => lease,
            () = gone => Err(NoPeer::ClientGone),
            () = tokio::time::sleep(queue.timeout) => Err(NoPeer::QueueTimeout),
        }
    }

    fn lease_or_full(&self, key: &LeaseKey, tried: &[Arc<Peer>]) -> Result<Lease, NoPeer> {
        self.set.load().lease_or_full(&self.request(key, tried, clock::now().0))
    }
}

#[cfg(test)]
mod tests;
