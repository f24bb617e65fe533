//! One peer: its counters, and whether it may be used.
//!
//! # Passive ejection
//! A peer that fails `max_fails` times within `fail_timeout` is ejected for `fail_timeout`. When that time is
//! over it is on trial: one connection is let through, and the others keep going elsewhere until its verdict
//! is in, so that a peer which swallows packets costs one client a connect timeout and not all of them. If it
//! succeeds, everything is forgotten; if it fails, the peer is ejected at once for twice as long as before.
//! A verdict counts only when its connection was begun after the decision that it would change: a hundred
//! connections that time out together are one ejection, not a hundred doublings.

mod blame;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};
use wmproxy_net::addr::Address;

use crate::health::Checks;
use crate::idle::Gauge;
use crate::latency::Latency;
use crate::queue::Lobby;
pub use blame::{Blame, FailKind};

/// The longest ejection, unless `fail_timeout` itself is longer. Doubling saves little beyond it, since a
/// trial costs one connection a retry, while this is how long a peer that has recovered may stand idle.
const MAX_EJECTION_MS: u64 = 300_000;

/// With which share of its weight, in percent, a peer begins its slow start. Some connections must come, or nothing in
/// it gets warm; nginx begins with none and HAProxy and Envoy with this.
const SLOW_START_PERCENT: u32 = 10;

/// When a group ejects its peers. Belongs to the group, not to the peer, whose state outlives a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EjectPolicy {
    /// How many failures eject; 0 for never.
    pub(crate) max_fails: u32,
    /// Within how long, and for how long at first. Milliseconds.
    pub(crate) fail_timeout_ms: u64,
    /// How long a trial may stay without a verdict before the peer is opened to everybody. Milliseconds.
    pub(crate) trial_ms: u64,
}

/// An address that connections may go to, with what is known of it.
///
/// Shared by all workers and kept across reloads. All counters are relaxed: they order nothing.
#[derive(Debug)]
pub struct Peer {
    group: Arc<str>,
    address: Address,
    in_flight: AtomicU32,
    /// Where those wait who want room here, or at another peer of the group.
    lobby: Arc<Lobby>,
    leases: AtomicU64,
    /// How many connections to it are kept for later.
    gauge: Arc<Gauge>,
    failures: [AtomicU64; FailKind::ALL.len()],
    /// Moving average in microseconds; 0 until the first.
    connect_time_us: AtomicU64,
    /// What the peak EWMA balancer goes by.
    latency: Latency,
    /// When it came back, or came to others that were there already; 0 when it has always been there.
    back_since: AtomicU64,
    ejections: AtomicU64,
    /// When the ejection ends; 0 while the peer is in good standing. Written under `health` only.
    ejected_until: AtomicU64,
    /// When the trial connection's time for a verdict is over; 0 while nobody is on trial.
    trial_until: AtomicU64,
    health: Mutex<Health>,
    checks: Checks,
}

/// What the decision to eject rests on. Behind a lock, since failures are rare.
#[derive(Debug, Default)]
struct Health {
    /// When the last failures happened, the oldest first; never more than `max_fails`.
    fails: VecDeque<u64>,
    /// When the current ejection began.
    ejected_at: u64,
    /// How often the time was doubled.
    doublings: u32,
    /// Failures of connections begun earlier say nothing new.
    fresh_after: u64,
}

/// Whether a peer may be used now, as far as its health goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// By everybody.
    Open,
    /// By one connection, which will be its trial.
    Trial,
    /// By nobody, unless there is no other.
    Shut,
}

impl Peer {
    /// A peer of which nothing is known yet.
    pub(crate) fn new(group: Arc<str>, address: Address, lobby: Arc<Lobby>) -> Peer {
        Peer {
            group,
            address,
            in_flight: AtomicU32::new(0),
            lobby,
            leases: AtomicU64::new(0),
            gauge: Arc::new(Gauge::new()),
            failures: Default::default(),
            connect_time_us: AtomicU64::new(0),
            latency: Latency::default(),
            back_since: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            trial_until: AtomicU64::new(0),
            health: Mutex::default(),
            checks: Checks::default(),
        }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The name of its group.
    pub fn group(&self) -> &Arc<str> {
        &self.group
    }

    /// Connections and flows that hold a lease on it now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// How many connections to it are idle, on all workers.
    pub fn idle(&self) -> usize {
        self.gauge.idle()
    }

    pub(crate) fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// What its health checks have found out.
    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }

    /// Leases ever given.
    pub fn leases(&self) -> u64 {
        self.leases.load(Relaxed)
    }

    /// Failures of one kind.
    pub fn failures(&self, kind: FailKind) -> u64 {
        self.failures[kind as usize].load(Relaxed)
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// The moving average of how long connecting takes; none before the first.
    pub fn connect_time(&self) -> Option<Duration> {
        match self.connect_time_us.load(Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// The moving average of how long it takes to connect or, for flows, to answer: one that jumps up to each peak and
    /// decays. None before the first connection.
    pub fn latency(&self, now_ms: u64) -> Option<Duration> {
        self.latency.get(now_ms)
    }

    /// What one more connection costs, as the peak EWMA balancer sees it, with `weight` for its share.
    pub(crate) fn cost(&self, weight: u32, now: u64) -> f64 {
        self.latency.cost(self.in_flight(), weight, now)
    }

    /// Notes that the peer is back from where nobody could use it, or new among others: its slow start begins.
    pub(crate) fn came_back(&self, now: u64) {
        self.back_since.store(now.max(1), Relaxed);
    }

    /// Which share of its weight counts now, in percent, when it grows to all of it within `slow_start_ms`.
    pub(crate) fn percent(&self, slow_start_ms: u64, now: u64) -> u32 {
        let since = self.back_since.load(Relaxed);
        let elapsed = now.saturating_sub(since);
        if since == 0 || elapsed >= slow_start_ms {
            return 100;
        }
        let grown = u64::from(100 - SLOW_START_PERCENT) * elapsed / slow_start_ms;
        // Less than 90: see above.
        SLOW_START_PERCENT + grown as u32
    }

    /// How long it stays ejected from `now_ms` on: none in good standing, zero when it is on trial.
    pub fn ejected_for(&self, now_ms: u64) -> Option<Duration> {
        match self.ejected_until.load(Relaxed) {
            0 => None,
            until => Some(Duration::from_millis(until.saturating_sub(now_ms))),
        }
    }

    pub(crate) fn gate(&self, now: u64) -> Gate {
        match self.ejected_until.load(Relaxed) {
            0 => Gate::Open,
            until if now < until => Gate::Shut,
            _ => match self.trial_until.load(Relaxed) {
                0 => Gate::Trial,
                until if now < until => Gate::Shut,
                // The trial went on so long without a failure that the peer can't be dead.
                _ => Gate::Open,
            },
        }
    }

    /// Whether one more connection fits under `max` (0 for no limit).
    pub(crate) fn has_room(&self, max: u32) -> bool {
        max == 0 || self.in_flight() < max
    }

    /// Counts one connection in, unless `max` (0 for no limit) are there already.
    pub(crate) fn enter(&self, max: u32) -> bool {
        let room = |n: u32| (max == 0 || n < max).then(|| n.saturating_add(1));
        self.in_flight.fetch_update(Relaxed, Relaxed, room).is_ok()
    }

    /// Counts one lease, once it is certain.
    pub(crate) fn count_lease(&self) {
        self.leases.fetch_add(1, Relaxed);
    }

    /// Counts one connection out.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.lobby.room_made();
    }

    /// Claims the one trial connection. Gives the time until which it has the peer for itself.
    pub(crate) fn begin_trial(&self, now: u64, policy: &EjectPolicy) -> Option<u64> {
        let until = now.saturating_add(policy.trial_ms).max(1);
        self.trial_until.compare_exchange(0, until, Relaxed, Relaxed).is_ok().then_some(until)
    }

    /// Gives back a trial that came to no verdict, so that the next connection may be one.
    pub(crate) fn abandon_trial(&self, until: u64) {
        // Fails when a verdict came from elsewhere, and then there is nothing to give back.
        let _ = self.trial_until.compare_exchange(until, 0, Relaxed, Relaxed);
    }

    /// Notes that a connection leased at `leased_at` works.
    pub(crate) fn succeeded(&self, leased_at: u64, connect_time: Option<Duration>, now: u64) {
        if let Some(time) = connect_time {
            self.average_in(time);
            self.latency.observe(time, now);
        }
        if self.ejected_until.load(Relaxed) == 0 {
            return;
        }
        let mut health = self.health();
        if self.ejected_until.load(Relaxed) == 0 || leased_at < health.ejected_at {
            return;
        }
        self.ejected_until.store(0, Relaxed);
        self.trial_until.store(0, Relaxed);
        let away = Duration::from_millis(now.saturating_sub(health.ejected_at));
        *health = Health { fresh_after: now, ..Health::default() };
        drop(health);
        self.came_back(now);
        info!(group = %self.group, peer = %self.address, last_ejection = ?away, "peer is back");
    }

    /// Notes that connecting took `time`.
    pub(crate) fn connected(&self, time: Duration) {
        self.average_in(time);
    }

    /// Notes that a flow or a request got its first answer after `time`.
    pub(crate) fn answered(&self, time: Duration, now: u64) {
        self.latency.observe(time, now);
    }

    /// Notes that a connection leased at `leased_at` failed.
    pub(crate) fn failed(&self, leased_at: u64, kind: FailKind, now: u64, policy: &EjectPolicy) {
        self.failures[kind as usize].fetch_add(1, Relaxed);
        self.latency.observe_failure(Duration::from_millis(now.saturating_sub(leased_at)), now);
        if policy.max_fails == 0 {
            return;
        }
        let mut health = self.health();
        if leased_at < health.fresh_after {
            return;
        }
        if self.ejected_until.load(Relaxed) != 0 {
            health.doublings = health.doublings.saturating_add(1);
        } else {
            health.fails.push_back(now);
            while health.fails.front().is_some_and(|&at| now.saturating_sub(at) > policy.fail_timeout_ms) {
                health.fails.pop_front();
            }
            if health.fails.len() < policy.max_fails as usize {
                return;
            }
            health.fails.clear();
        }
        let duration = ejection_ms(policy.fail_timeout_ms, health.doublings);
        let until = now.saturating_add(duration).max(1);
        health.ejected_at = now;
        health.fresh_after = until;
        self.ejected_until.store(until, Relaxed);
        self.trial_until.store(0, Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        drop(health);
        self.gauge.close_idle();
        let duration = Duration::from_millis(duration);
        warn!(group = %self.group, peer = %self.address, reason = kind.as_str(), "for" = ?duration, "peer ejected");
    }

    /// One eighth of each new value, the weight that TCP gives to a round trip (RFC 6298).
    fn average_in(&self, time: Duration) {
        // At least 1, since 0 means that there is none; two threads at once may lose one sample.
        let new = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let average = match self.connect_time_us.load(Relaxed) {
            0 => new,
            old => old - old / 8 + new / 8,
        };
        self.connect_time_us.store(average.max(1), Relaxed);
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing below can leave it half written, so that a poisoned one is as good.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the next ejection lasts: `fail_timeout`, doubled so often, up to the cap.
fn ejection_ms(fail_timeout_ms: u64, doublings: u32) -> u64 {
    let factor = 1u64.checked_shl(doublings).unwrap_or(u64::MAX);
    fail_timeout_ms.saturating_mul(factor).min(fail_timeout_ms.max(MAX_EJECTION_MS))
}

#[cfg(test)]
mod tests;
