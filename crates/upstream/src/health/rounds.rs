//! Who is checked when: the peers of a group, each at its own time, as long as the group lives.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use wmproxy_net::addr::Address;
use wmproxy_runtime::clock;

use super::options::HealthSpec;
use super::probe::{self, Means, Target};
use super::state::{Change, CheckResult, Health, LastCheck};
use crate::group::Group;
use crate::peer::Peer;
use crate::random;
use crate::set::PeerSet;

/// How many checks of all groups may be under way. Each holds a descriptor; with the default timeout of two
/// seconds, that many get through a thousand peers that all hang within eight.
const AT_ONCE: usize = 256;

/// The first checks of peers are spread over the interval, but over no more than this: until then a peer that is
/// dead gets connections.
const FIRST_WITHIN: Duration = Duration::from_secs(2);

/// What is known of a peer counts no more when it is older than so many intervals.
const STALE_INTERVALS: u32 = 3;

/// The process's right to so many checks at once.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Semaphore>);

impl Default for Slots {
    fn default() -> Self {
        Slots(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Checks the peers of a group for as long as it lives, as its options say: also those that come as names resolve
/// anew, and no longer those that go. Ends at once when it has no health checks. Drop it to stop, with all checks
/// that are under way.
///
/// To be run on the control runtime, once for a group. What is known of a peer stays with the peer, so that the
/// next generation's group goes on from there.
pub fn keep_checked(group: &Arc<Group>) -> impl Future<Output = ()> + Send + 'static {
    let spec = group.spec();
    let via = group.via().map(|via| via.cloned());
    let means =
        spec.health.clone().map(|health| Means::new(health, &spec.socket, group.check_connector(), via));
    let rounds = means.map(|means| Rounds::new(group, Arc::new(means)));
    async move {
        if let Some(rounds) = rounds {
            rounds.run().await;
        }
    }
}

/// A member of the group that is being checked.
#[derive(Debug)]
struct Member {
    peer: Arc<Peer>,
    target: Arc<Target>,
    /// Tells it from one with the same address that came and went before.
    ticket: u64,
}

/// A check that has ended.
struct Done {
    address: Address,
    ticket: u64,
    /// In milliseconds of the monotonic clock.
    begun_ms: u64,
    begun: Instant,
    took: Duration,
    result: CheckResult,
}

type Check = Pin<Box<dyn Future<Output = Done> + Send>>;

struct Rounds {
    group: Weak<Group>,
    changed: Arc<tokio::sync::Notify>,
    means: Arc<Means>,
    slots: Slots,
    set: Option<Arc<PeerSet>>,
    members: HashMap<Address, Member>,
    /// Whose time comes when, the soonest on top. Those that are gone are found out when it has come.
    due: BinaryHeap<Reverse<(Instant, u64, Address)>>,
    running: FuturesUnordered<Check>,
    next_ticket: u64,
}

impl Rounds {
    fn new(group: &Arc<Group>, means: Arc<Means>) -> Rounds {
        Rounds {
            group: Arc::downgrade(group),
            changed: group.changed(),
            means,
            slots: group.check_slots(),
            set: None,
            members: HashMap::new(),
            due: BinaryHeap::new(),
            running: FuturesUnordered::new(),
            next_ticket: 0,
        }
    }

    async fn run(mut self) {
        loop {
            match self.group.upgrade() {
                Some(group) => self.follow(&group),
                None => return,
            }
            // Beyond what may run at once, a check would only wait in another place.
            let next = self.due.peek().map(|Reverse((at, ..))| *at).filter(|_| self.running.len() < AT_ONCE);
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = due => self.start_next(),
                Some(done) = self.running.next(), if !self.running.is_empty() => self.finish(done),
            }
        }
    }

    /// Takes in whoever is new in the group, and forgets whoever is gone.
    fn follow(&mut self, group: &Group) {
        let set = group.set();
        if self.set.as_ref().is_some_and(|known| Arc::ptr_eq(known, &set)) {
            return;
        }
        // Servers that are down by the config are not used, whatever a check would say.
        let mut old = std::mem::take(&mut self.members);
        for slot in set.live() {
            let address = slot.peer.address().clone();
            let target = Target::new(&self.means.spec, &address, &group.spec().servers[slot.server].target);
            let known = old.remove(&address).filter(|known| Arc::ptr_eq(&known.peer, &slot.peer));
            let ticket = known.map_or_else(|| self.enrol(&slot.peer), |known| known.ticket);
            self.members
                .insert(address, Member { peer: slot.peer.clone(), target: Arc::new(target), ticket });
        }
        self.set = Some(set);
    }

    /// Decides when a peer is checked first: after an interval if it was checked just now by the generation before.
    fn enrol(&mut self, peer: &Peer) -> u64 {
        let now_ms = clock::now().0;
        peer.checks()
            .forget_stale(self.means.spec.interval * STALE_INTERVALS + self.means.spec.timeout, now_ms);
        let wait = match peer.checks().last() {
            None => random_part(self.means.spec.interval.min(FIRST_WITHIN)),
            Some(last) => {
                let ago = Duration::from_millis(now_ms.saturating_sub(last.at_ms));
                self.jittered().saturating_sub(ago)
            }
        };
        self.next_ticket += 1;
        self.due.push(Reverse((Instant::now() + wait, self.next_ticket, peer.address().clone())));
        self.next_ticket
    }

    /// Starts the check whose time has come.
    fn start_next(&mut self) {
        let Some(Reverse((_, ticket, address))) = self.due.pop() else { return };
        let Some(member) = self.members.get(&address).filter(|member| member.ticket == ticket) else {
            return;
        };
        let (means, slots, target) = (self.means.clone(), self.slots.clone(), member.target.clone());
        self.running.push(Box::pin(async move {
            // It is never closed. The check's own time begins when it has its turn.
            let _turn = slots.0.acquire().await;
            let (begun, begun_ms) = (Instant::now(), clock::now().0);
            let (took, result) = probe::check(&means, &target).await;
            Done { address, ticket, begun_ms, begun, took, result }
        }));
    }

    fn finish(&mut self, done: Done) {
        let Some(member) = self.members.get(&done.address).filter(|member| member.ticket == done.ticket)
        else {
            return;
        };
        let peer = member.peer.clone();
        let was_first = peer.checks().last().is_none();
        learn(&peer, &self.means.spec, done.begun_ms, done.took, done.result);
        if let Some(group) = self.group.upgrade() {
            group.tell_health();
        }
        // The first checks lie close together; the second ones are what spreads them over the interval for good.
        let wait = if was_first { random_part(self.means.spec.interval) } else { self.jittered() };
        let next = (done.begun + wait).max(Instant::now());
        self.due.push(Reverse((next, done.ticket, done.address)));
    }

    /// The interval, up to a tenth longer or shorter: what begins together does not stay together.
    fn jittered(&self) -> Duration {
        self.means.spec.interval.mul_f64(0.9) + random_part(self.means.spec.interval.mul_f64(0.2))
    }
}

/// A random time up to `whole`.
fn random_part(whole: Duration) -> Duration {
    Duration::from_millis(random::below(
        u64::try_from(whole.as_millis()).unwrap_or(u64::MAX).saturating_add(1),
    ))
}

/// Adds a check to what is known of the peer, and tells if that changes what becomes of it.
fn learn(peer: &Peer, spec: &HealthSpec, begun_ms: u64, took: Duration, result: CheckResult) {
    let (group, address) = (peer.group(), peer.address());
    debug!(%group, peer = %address, ?took, ?result, "checked");
    let now = clock::now().0;
    let reason = match &result {
        CheckResult::Failed(reason) => reason.clone(),
        CheckResult::Passed | CheckResult::Skipped(_) => String::new(),
    };
    let passed = result == CheckResult::Passed;
    let change = peer.checks().note(LastCheck { at_ms: now, took, result }, spec.thresholds);
    if passed && spec.port.is_none() && peer.checks().health() == Health::Up {
        peer.succeeded(begun_ms, None, now);
    }
    match change {
        None => {}
        Some(Change { to: Health::Down, in_a_row, .. }) => {
            peer.gauge().close_idle();
            warn!(%group, peer = %address, %reason, failures = in_a_row, "peer is down: its health checks fail");
        }
        Some(Change { from: Health::Down, after, .. }) => {
            peer.came_back(now);
            info!(%group, peer = %address, down_for = ?after.unwrap_or_default(), "peer is up again");
        }
        Some(_) => debug!(%group, peer = %address, "peer is up"),
    }
}

#[cfg(test)]
mod tests;
