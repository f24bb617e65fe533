//! The table itself. The rules it keeps are in the module's documentation.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use super::list::{Linked, Links, List};
use super::slab::{MAX_PLACES, Slab};
use super::{EndReason, Ended, FlowId, FlowKey, Limits, Now, Responses};

/// All flows of one worker of one listener, with what their owner keeps for each. Where something else than a client's
/// address tells them apart, that is their key.
#[derive(Debug)]
pub struct FlowTable<T, K = FlowKey> {
    limits: Limits,
    /// The sets of limits that flows live by, each with its flows. Those of `current` may be none, and so may
    /// be any whose flows have ended, until its place is wanted again.
    terms: Vec<Terms>,
    current: u32,
    flows: Slab<Flow<T, K>>,
    /// The flow that takes the datagrams of a key. Attackers choose the keys, so that the hasher must be
    /// keyed and hold against them. Measured with 2,000 flows, a lookup takes 40 ns (IPv6: 60 ns) with std's
    /// SipHash and 10 to 15 ns with foldhash, which promises less: once a batch, against some 5 us for each
    /// datagram of it, the difference does not matter.
    by_key: HashMap<K, FlowId>,
    latest: Now,
    serial: u64,
}

/// What a flow keeps of the limits in force when it began, and the flows that share it in order of their
/// last activity, which because they share the timeout is the order in which they expire.
#[derive(Debug)]
struct Terms {
    idle: u64,
    max_requests: u64,
    max_responses: u64,
    flows: List,
}

#[derive(Debug)]
struct Flow<T, K> {
    key: K,
    serial: u64,
    began: Now,
    active: Now,
    requests: u64,
    responses: u64,
    terms: u32,
    links: Links,
    /// Whether `by_key` leads here.
    open: bool,
    value: T,
}

#[cfg(test)]
pub(super) const FLOW_SIZE: usize = size_of::<Flow<(), FlowKey>>();

impl<T, K> Linked for Flow<T, K> {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// Below this many entries a map keeps its memory: giving back a few dozen KB is not worth moving them.
const SHRINK_ABOVE: usize = 1024;

impl<T, K: Copy + Eq + Hash> FlowTable<T, K> {
    /// An empty table, which holds no memory until the first flow.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            terms: vec![Terms::of(&limits)],
            current: 0,
            flows: Slab::new(),
            by_key: HashMap::new(),
            latest: Now::default(),
            serial: 0,
        }
    }

    /// The limits for new flows.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Sets the limits for new flows; those there are keep theirs.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        let terms = Terms::of(&limits);
        let same = |old: &Terms| {
            (old.idle, old.max_requests, old.max_responses)
                == (terms.idle, terms.max_requests, terms.max_responses)
        };
        let place = self.terms.iter().position(same);
        match place.or_else(|| self.terms.iter().position(|old| old.flows.is_empty())) {
            Some(place) => {
                if !same(&self.terms[place]) {
                    self.terms[place] = terms;
                }
                self.current = place as u32;
            }
            None => {
                self.terms.push(terms);
                self.current = self.terms.len() as u32 - 1;
            }
        }
    }

    /// How many flows there are, spent ones included.
    pub fn len(&self) -> usize {
        self.flows.len() as usize
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The flow that a datagram of `key` belongs to; at least one passes
    /// [`on_request`](Self::on_request). None: a new flow is to begin.
    pub fn lookup(&self, key: &K) -> Option<FlowId> {
        self.by_key.get(key).copied()
    }

    /// Begins a flow. One that has the key already is superseded: it takes no more requests, but is open to responses
    /// like a spent one.
    pub fn insert(&mut self, now: Now, key: K, value: T) -> FlowId {
        let now = self.advance(now);
        // Half a terabyte of flows: memory has run out long before. So this only keeps what the slab was promised.
        if self.flows.len() >= MAX_PLACES {
            drop(self.evict_oldest());
        }
        let serial = self.serial;
        self.serial += 1;
        let index = self.flows.insert(Flow {
            key,
            serial,
            began: now,
            active: now,
            requests: 0,
            responses: 0,
            terms: self.current,
            links: Links::ALONE,
            open: true,
            value,
        });
        self.terms[self.current as usize].flows.push_last(&mut self.flows, index);
        let id = FlowId { index, serial };
        if let Some(superseded) = self.by_key.insert(key, id)
            && let Some(flow) = self.flow_mut(superseded)
        {
            flow.open = false;
        }
        id
    }

    /// Takes a batch of the client's datagrams for a flow and returns how many of them, the first ones, may
    /// pass to its peer. The rest belong to the next flow of the same key: look it up again, and it is none
    /// until the owner begins it. Nothing passes to a flow that is spent or no more.
    pub fn on_request(&mut self, now: Now, id: FlowId, datagrams: u64) -> u64 {
        let now = self.advance(now);
        let Some(flow) = self.flows.get_mut(id.index).filter(|flow| flow.serial == id.serial && flow.open)
        else {
            return 0;
        };
        let terms = &mut self.terms[flow.terms as usize];
        let (pass, last) = take(&mut flow.requests, terms.max_requests, datagrams);
        if last {
            flow.open = false;
            self.by_key.remove(&flow.key);
            shrink(&mut self.by_key);
        }
        if pass > 0 {
            self.touch(now, id.index);
        }
        pass
    }

    /// Takes a batch of the peer's datagrams for a flow: how many of them, the first ones, may pass to its
    /// client, and the flow itself if it ended with them. Nothing passes from a flow that is no more.
    pub fn on_response(&mut self, now: Now, id: FlowId, datagrams: u64) -> Responses<T, K> {
        let now = self.advance(now);
        let Some(flow) = self.flows.get_mut(id.index).filter(|flow| flow.serial == id.serial) else {
            return Responses { pass: 0, ended: None };
        };
        let limit = match self.terms[flow.terms as usize].max_responses {
            0 => 0,
            most => most.max(flow.requests),
        };
        let (pass, last) = take(&mut flow.responses, limit, datagrams);
        if pass > 0 {
            self.touch(now, id.index);
        }
        let ended = if last { self.remove(id.index, EndReason::Limit) } else { None };
        Responses { pass, ended }
    }

    /// Ends one flow that was idle for its timeout and returns it; none when there is no further one. The
    /// owner calls it until then, or stops earlier to give way to other work.
    pub fn pop_expired(&mut self, now: Now) -> Option<Ended<T, K>> {
        let now = self.advance(now);
        let (index, terms) = self.terms.iter().find_map(|terms| {
            let index = terms.flows.first()?;
            (terms.expiry(self.flows.get(index)?) <= now).then_some((index, terms))
        })?;
        let flow = self.flows.get(index)?;
        let spent = terms.max_requests != 0 && flow.requests >= terms.max_requests;
        self.remove(index, if spent { EndReason::Limit } else { EndReason::Idle })
    }

    /// When the next flow expires if no datagram comes; none in an empty table.
    pub fn next_expiry(&self) -> Option<Now> {
        let first = |terms: &Terms| Some(terms.expiry(self.flows.get(terms.flows.first()?)?));
        self.terms.iter().filter_map(first).min()
    }

    /// Ends one flow that was idle for at least `quiet`, whatever its own timeout, and returns it: for an owner that
    /// wants to stop and takes a short silence for the end.
    pub fn pop_quiet(&mut self, now: Now, quiet: Duration) -> Option<Ended<T, K>> {
        let now = self.latest.max(now);
        let quiet_for = |terms: &Terms| {
            let index = terms.flows.first()?;
            (now.since(self.flows.get(index)?.active) >= quiet).then_some(index)
        };
        let index = self.terms.iter().find_map(quiet_for)?;
        self.remove(index, EndReason::Idle)
    }

    /// Since when the flow is idle that has been so for longest; none in an empty table.
    pub fn oldest(&self) -> Option<Now> {
        let first = |terms: &Terms| Some(self.flows.get(terms.flows.first()?)?.active);
        self.terms.iter().filter_map(first).min()
    }

    /// Ends the flow that has been idle for longest, for an owner that needs the room.
    pub fn evict_oldest(&mut self) -> Option<Ended<T, K>> {
        let first = |terms: &Terms| {
            let index = terms.flows.first()?;
            Some((self.flows.get(index)?.active, index))
        };
        let (_, index) = self.terms.iter().filter_map(first).min_by_key(|(active, _)| *active)?;
        self.remove(index, EndReason::Evicted)
    }

    /// Lets a flow take no more requests: the next datagram of its key begins another. For the answers still under way
    /// it stays open.
    pub fn spend(&mut self, id: FlowId) {
        if let Some(flow) = self.flow_mut(id)
            && std::mem::take(&mut flow.open)
        {
            let key = flow.key;
            self.by_key.remove(&key);
            shrink(&mut self.by_key);
        }
    }

    /// Ends a flow, if it lives still.
    pub fn end(&mut self, id: FlowId) -> Option<Ended<T, K>> {
        self.flow(id)?;
        self.remove(id.index, EndReason::Closed)
    }

    /// Ends any one flow and returns it; called until there is none, it empties the table.
    pub fn pop(&mut self) -> Option<Ended<T, K>> {
        let index = self.terms.iter().find_map(|terms| terms.flows.first())?;
        self.remove(index, EndReason::Closed)
    }

    /// What the owner keeps for a flow.
    pub fn get(&self, id: FlowId) -> Option<&T> {
        self.flow(id).map(|flow| &flow.value)
    }

    /// What the owner keeps for a flow, to change it.
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut T> {
        self.flow_mut(id).map(|flow| &mut flow.value)
    }

    /// Whose flow it is.
    pub fn key(&self, id: FlowId) -> Option<&K> {
        self.flow(id).map(|flow| &flow.key)
    }

    /// Every flow, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (FlowId, &K, &T)> {
        self.flows.iter().map(|(index, flow)| (FlowId { index, serial: flow.serial }, &flow.key, &flow.value))
    }

    fn flow(&self, id: FlowId) -> Option<&Flow<T, K>> {
        self.flows.get(id.index).filter(|flow| flow.serial == id.serial)
    }

    fn flow_mut(&mut self, id: FlowId) -> Option<&mut Flow<T, K>> {
        self.flows.get_mut(id.index).filter(|flow| flow.serial == id.serial)
    }

    /// The lists are in order of activity only if `now` never runs backwards.
    fn advance(&mut self, now: Now) -> Now {
        self.latest = self.latest.max(now);
        self.latest
    }

    fn touch(&mut self, now: Now, index: u32) {
        let Some(flow) = self.flows.get_mut(index) else { return };
        flow.active = now;
        let terms = flow.terms as usize;
        self.terms[terms].flows.move_last(&mut self.flows, index);
    }

    /// The one place where flows end: out of its list, the slab and the map.
    fn remove(&mut self, index: u32, reason: EndReason) -> Option<Ended<T, K>> {
        let terms = self.flows.get(index)?.terms as usize;
        self.terms[terms].flows.unlink(&mut self.flows, index);
        let flow = self.flows.remove(index)?;
        if flow.open {
            self.by_key.remove(&flow.key);
            shrink(&mut self.by_key);
        }
        Some(Ended {
            id: FlowId { index, serial: flow.serial },
            key: flow.key,
            value: flow.value,
            reason,
            began: flow.began,
            active: flow.active,
            requests: flow.requests,
            responses: flow.responses,
        })
    }

    #[cfg(test)]
    pub(super) fn sets_of_limits(&self) -> usize {
        self.terms.len()
    }

    /// Places of the slab and the map that hold memory. Of the map it is the power of two that its places are:
    /// `capacity` falls by one where a key that goes leaves a tombstone, which is up to chance and frees nothing.
    #[cfg(test)]
    pub(super) fn allocated(&self) -> usize {
        let map = self.by_key.capacity();
        self.flows.allocated() + if map == 0 { 0 } else { map.next_power_of_two() }
    }
}

impl Terms {
    fn of(limits: &Limits) -> Self {
        Self {
            idle: whole_millis(limits.idle_timeout),
            max_requests: limits.max_requests,
            max_responses: limits.max_responses,
            flows: List::new(),
        }
    }

    fn expiry<T, K>(&self, flow: &Flow<T, K>) -> Now {
        Now(flow.active.0.saturating_add(self.idle))
    }
}

/// Adds to `count` as many of `wanted` as `limit` (0 is none) leaves. Returns how many, and whether that
/// used the limit up just now.
fn take(count: &mut u64, limit: u64, wanted: u64) -> (u64, bool) {
    if limit == 0 {
        *count = count.saturating_add(wanted);
        return (wanted, false);
    }
    let taken = wanted.min(limit.saturating_sub(*count));
    *count += taken;
    (taken, taken > 0 && *count == limit)
}

/// Rounded up: a flow must not end before its time.
fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Gives memory back once fifteen sixteenths of it are unused: what moves now must come to several times as
/// much before it moves again. And moving takes time, in which the worker stands still: a map that held a
/// million moves only 100,000 entries, 20 ms, and not the 90 ms that it was at an eighth.
fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > SHRINK_ABOVE && map.len() < map.capacity() / 16 {
        map.shrink_to(map.len() * 2);
    }
}
