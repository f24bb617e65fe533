//! The documented rules once more, as plainly as they can be written, beside the table: each operation runs
//! on both, and the answers must agree.

use std::collections::{HashMap, HashSet};

use wmproxy_wire::flow::{EndReason, Ended, FlowId, FlowKey, FlowTable, Limits, Now};

/// A flow's value in these tests: a number that no other flow has.
pub(crate) type Tag = u64;

/// What the model knows of a flow.
#[derive(Debug, Clone)]
pub(crate) struct ModelFlow {
    pub(crate) id: FlowId,
    pub(crate) key: FlowKey,
    limits: Limits,
    began: Now,
    active: Now,
    /// When it was last active in order of events, where milliseconds are too coarse.
    order: u64,
    requests: u64,
    responses: u64,
    open: bool,
}

/// A table and its model, kept in step.
pub(crate) struct Checked {
    table: FlowTable<Tag>,
    limits: Limits,
    pub(crate) flows: HashMap<Tag, ModelFlow>,
    open: HashMap<FlowKey, Tag>,
    latest: Now,
    order: u64,
    next_tag: Tag,
    /// Ids of flows that ended, to be tried again.
    pub(crate) stale: Vec<FlowId>,
    seen: HashSet<FlowId>,
    pub(crate) ended: u64,
}

impl Checked {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            table: FlowTable::new(limits),
            limits,
            flows: HashMap::new(),
            open: HashMap::new(),
            latest: Now::default(),
            order: 0,
            next_tag: 0,
            stale: Vec::new(),
            seen: HashSet::new(),
            ended: 0,
        }
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.table.set_limits(limits);
        self.limits = limits;
        assert_eq!(*self.table.limits(), limits);
    }

    pub(crate) fn lookup(&self, key: &FlowKey) -> Option<Tag> {
        let id = self.table.lookup(key);
        let tag = self.open.get(key).copied();
        assert_eq!(id, tag.map(|tag| self.flows[&tag].id));
        assert_eq!(id.and_then(|id| self.table.get(id)), tag.as_ref());
        tag
    }

    /// Returns the new flow's tag.
    pub(crate) fn insert(&mut self, now: Now, key: FlowKey) -> Tag {
        self.advance(now);
        let tag = self.next_tag;
        self.next_tag += 1;
        let id = self.table.insert(now, key, tag);
        assert!(self.seen.insert(id), "an id came twice");
        if let Some(superseded) = self.open.insert(key, tag) {
            self.flows.get_mut(&superseded).unwrap().open = false;
        }
        self.order += 1;
        let flow = ModelFlow {
            id,
            key,
            limits: self.limits,
            began: self.latest,
            active: self.latest,
            order: self.order,
            requests: 0,
            responses: 0,
            open: true,
        };
        self.flows.insert(tag, flow);
        self.check_len();
        tag
    }

    pub(crate) fn on_request(&mut self, now: Now, tag: Tag, datagrams: u64) -> u64 {
        self.advance(now);
        let flow = self.flows.get_mut(&tag).unwrap();
        let pass = self.table.on_request(now, flow.id, datagrams);
        let most = flow.limits.max_requests;
        let expected = match (flow.open, most) {
            (false, _) => 0,
            (true, 0) => datagrams,
            (true, most) => datagrams.min(most - flow.requests),
        };
        assert_eq!(pass, expected, "requests that pass");
        flow.requests += pass;
        if flow.open && most != 0 && flow.requests == most {
            flow.open = false;
            self.open.remove(&flow.key);
        }
        self.passed(tag, pass);
        pass
    }

    /// Returns how many pass and whether the flow ended.
    pub(crate) fn on_response(&mut self, now: Now, tag: Tag, datagrams: u64) -> (u64, bool) {
        self.advance(now);
        let flow = self.flows.get_mut(&tag).unwrap();
        let responses = self.table.on_response(now, flow.id, datagrams);
        let most = match flow.limits.max_responses {
            0 => 0,
            most => most.max(flow.requests),
        };
        let expected = if most == 0 { datagrams } else { datagrams.min(most - flow.responses) };
        assert_eq!(responses.pass, expected, "responses that pass");
        flow.responses += expected;
        let last = most != 0 && flow.responses == most;
        assert_eq!(responses.ended.is_some(), last, "ended by responses");
        self.passed(tag, expected);
        if let Some(ended) = responses.ended {
            assert_eq!(self.gone(ended, EndReason::Limit), tag);
        }
        (expected, last)
    }

    pub(crate) fn end(&mut self, tag: Tag) {
        let ended = self.table.end(self.flows[&tag].id).expect("the flow lives");
        assert_eq!(self.gone(ended, EndReason::Closed), tag);
    }

    pub(crate) fn spend(&mut self, tag: Tag) {
        let flow = self.flows.get_mut(&tag).unwrap();
        self.table.spend(flow.id);
        if std::mem::take(&mut flow.open) {
            self.open.remove(&flow.key);
        }
    }

    pub(crate) fn evict_oldest(&mut self) -> Option<Tag> {
        let ended = self.table.evict_oldest();
        assert_eq!(ended.is_some(), !self.flows.is_empty());
        ended.map(|ended| self.evicted(ended))
    }

    pub(crate) fn pop(&mut self) -> Option<Tag> {
        let ended = self.table.pop();
        assert_eq!(ended.is_some(), !self.flows.is_empty());
        ended.map(|ended| self.gone(ended, EndReason::Closed))
    }

    pub(crate) fn next_expiry(&self) -> Option<Now> {
        let next = self.table.next_expiry();
        if self.thorough() {
            assert_eq!(next, self.flows.values().map(ModelFlow::expiry).min());
        }
        next
    }

    pub(crate) fn expire(&mut self, now: Now) -> Vec<Tag> {
        self.advance(now);
        let mut tags = Vec::new();
        while let Some(ended) = self.table.pop_expired(now) {
            let flow = &self.flows[&ended.value];
            assert!(flow.expiry() <= self.latest, "a flow expired early");
            let spent = flow.limits.max_requests != 0 && flow.requests == flow.limits.max_requests;
            tags.push(self.gone(ended, if spent { EndReason::Limit } else { EndReason::Idle }));
        }
        assert!(self.next_expiry().is_none_or(|next| next > self.latest), "flows stayed past their timeout");
        tags
    }

    /// Tries an id of an ended flow in every way there is: nothing may come of it.
    pub(crate) fn poke(&mut self, now: Now, stale: FlowId) {
        self.advance(now);
        assert_eq!(self.table.on_request(now, stale, 3), 0);
        let responses = self.table.on_response(now, stale, 3);
        assert!(responses.pass == 0 && responses.ended.is_none());
        assert!(self.table.end(stale).is_none());
        assert!(self.table.get(stale).is_none() && self.table.get_mut(stale).is_none());
        assert!(self.table.key(stale).is_none());
        self.check_len();
    }

    /// Compares everything, which is slow: for now and then.
    pub(crate) fn compare(&self) {
        let listed: HashMap<Tag, (FlowId, FlowKey)> =
            self.table.iter().map(|(id, key, tag)| (*tag, (id, *key))).collect();
        let expected: HashMap<Tag, (FlowId, FlowKey)> =
            self.flows.iter().map(|(tag, flow)| (*tag, (flow.id, flow.key))).collect();
        assert_eq!(listed, expected);
        for key in self.open.keys() {
            self.lookup(key);
        }
        self.next_expiry();
        self.check_len();
    }

    /// Checks that nothing is left of anything.
    pub(crate) fn check_empty(&self) {
        self.compare();
        assert!(self.table.is_empty() && self.table.next_expiry().is_none());
        assert_eq!(self.ended, self.next_tag, "every flow ends once");
    }

    /// Whether to look at every flow for this answer: in a storm only now and then, for time's sake.
    fn thorough(&self) -> bool {
        self.flows.len() <= 32 || self.order.is_multiple_of(64)
    }

    fn check_len(&self) {
        assert_eq!(self.table.len(), self.flows.len());
    }

    fn advance(&mut self, now: Now) {
        self.latest = self.latest.max(now);
    }

    fn passed(&mut self, tag: Tag, datagrams: u64) {
        if datagrams > 0 {
            self.order += 1;
            let flow = self.flows.get_mut(&tag).unwrap();
            (flow.active, flow.order) = (self.latest, self.order);
        }
    }

    fn evicted(&mut self, ended: Ended<Tag>) -> Tag {
        let flow = &self.flows[&ended.value];
        let others = self.flows.values().filter(|_| self.thorough());
        for other in others {
            assert!(flow.active <= other.active, "not the oldest was evicted");
            // Within a millisecond the order holds among flows of the same limits.
            assert!(flow.limits != other.limits || flow.order <= other.order);
        }
        self.gone(ended, EndReason::Evicted)
    }

    fn gone(&mut self, ended: Ended<Tag>, reason: EndReason) -> Tag {
        let flow = self.flows.remove(&ended.value).expect("a flow ended that had ended or never began");
        assert_eq!((ended.id, ended.key, ended.reason), (flow.id, flow.key, reason));
        assert_eq!((ended.began, ended.active), (flow.began, flow.active));
        assert_eq!((ended.requests, ended.responses), (flow.requests, flow.responses));
        if flow.open {
            self.open.remove(&flow.key);
        }
        self.stale.push(flow.id);
        self.ended += 1;
        ended.value
    }
}

impl ModelFlow {
    fn expiry(&self) -> Now {
        Now::from_millis(self.active.as_millis() + self.limits.idle_timeout.as_millis() as u64)
    }
}
