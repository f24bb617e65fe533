//! One flow of a visitor: how it begins, what passes, and how it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};

use wmproxy_net::addr::Address;
use wmproxy_net::limit::{Direction, Gate, Permit};
use wmproxy_net::record::{Outcome, Record, UdpDrop};
use wmproxy_net::udp::flows::{self as net_flows, Mode, now};
use wmproxy_net::udp::{Cargo, Train};
use wmproxy_wire::flow::{EndReason, Ended, FlowId, FlowKey};
use wmproxy_wire::tunnel::datagram::{Ending, Origin};

use super::Outer;
use super::link::Link;
use crate::datagrams::arrived::{Receiver, admit};

/// What a flow holds. All of it is given back when the flow leaves the table.
pub(super) struct Flow {
    record: Record,
    link: Rc<Link>,
    /// What the other end calls it.
    number: u32,
    /// Whose it is, as long as the other end may not know.
    origin: Option<Origin>,
    /// Its places behind the listener's gate, and the link's.
    _permits: Vec<Permit>,
}

/// Takes what the other end sends on a link.
pub(super) struct Answers {
    pub(super) outer: Weak<Outer>,
    pub(super) link: Weak<Link>,
}

/// Closes the record of a flow that the table ended, and tells the other end.
pub(super) fn settle(mut ended: Ended<Flow>) {
    let flow = &mut ended.value;
    let why = match ended.reason {
        EndReason::Idle => Ending::Idle,
        EndReason::Evicted => Ending::Evicted,
        EndReason::Limit | EndReason::Closed => Ending::Other,
    };
    flow.record.close(net_flows::outcome(ended.reason, &flow.record));
    flow.link.say_end(flow.number, why);
}

/// Closes the record of a flow whose link broke off.
pub(super) fn cut_off(mut ended: Ended<Flow>) {
    ended.value.record.close(Outcome::PeerReset);
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.link.remove(self.number);
    }
}

impl Outer {
    /// Sends on what one visitor sent.
    pub(super) fn forward_client(self: &Rc<Self>, key: FlowKey, cargo: Cargo<'_>) {
        let total = cargo.count();
        let known = self.flows.table().lookup(&key);
        let id = match known {
            Some(id) => id,
            None => {
                if let Err(why) = self.may_begin(key) {
                    return self.flows.count_drop(why, total as u64);
                }
                let Some(link) = self.link(key, cargo) else { return };
                match self.begin(key, link) {
                    Ok(id) => id,
                    Err(why) => return self.flows.count_drop(why, total as u64),
                }
            }
        };
        self.forward_flow(id, cargo, total);
    }

    /// Whether a flow of a visitor may begin at all.
    fn may_begin(&self, key: FlowKey) -> Result<(), UdpDrop> {
        if self.flows.mode() != Mode::Open {
            return Err(UdpDrop::Draining);
        }
        if !self.service.borrow().acl.permits(key.client().ip()) {
            return Err(UdpDrop::Denied);
        }
        Ok(())
    }

    /// Begins a flow; or says why its datagrams are dropped.
    fn begin(&self, key: FlowKey, link: Rc<Link>) -> Result<FlowId, UdpDrop> {
        let client = key.client();
        self.flows.welcome(client.ip())?;
        let mut permits = Vec::with_capacity(1 + link.gates.len());
        for gate in &link.gates {
            permits.push(gate.try_enter().ok_or(UdpDrop::NoFlow)?);
        }
        // Last, for it may cost another its flow.
        permits.push(net_flows::admit(self, client.ip())?);
        let service = self.service.borrow().clone();
        let mut record = Record::open(self.flows.metrics().clone(), service.log.clone(), Some(client));
        record.local = Some(key.local()).filter(|local| !local.is_unspecified());
        record.group = Some(service.name.clone());
        let local = match record.local_address() {
            Address::Inet(local) => Some(local),
            Address::Unix(_) | Address::Name(..) => None,
        };
        let number = link.number();
        let origin = Some(Origin { visitor: Some(client), local });
        let flow = Flow { record, link: link.clone(), number, origin, _permits: permits };
        let id = self.flows.insert(key, flow);
        link.add(number, id);
        Ok(id)
    }

    /// Puts the datagrams of a flow on its link.
    fn forward_flow(&self, id: FlowId, cargo: Cargo<'_>, total: usize) {
        let mut table = self.flows.table();
        let pass = table.on_request(now(), id, total as u64) as usize;
        let Some(flow) = table.get_mut(id) else { return };
        let gate = self.flows.gate();
        let may = admit(flow.gates(&gate), Direction::Up, cargo.sizes(), pass);
        let Flow { record, link, number, origin, .. } = flow;
        let (mut sent, mut bytes) = (0, 0);
        for datagram in cargo.datagrams().take(may) {
            if link.carrier.put(*number, origin.as_ref(), datagram) {
                sent += 1;
                bytes += datagram.len() as u64;
                if link.carrier.is_reliable() {
                    *origin = None;
                }
            }
        }
        record.add_datagrams_in(sent, bytes);
        link.carrier.wake();
        drop(table);
        self.flows.count_drop(UdpDrop::OverRate, (pass - may) as u64);
        self.flows.count_drop(UdpDrop::PeerFull, may as u64 - sent);
    }

    /// Sends answers to the visitor.
    fn pass_back(&self, id: FlowId, datagrams: &[&[u8]]) {
        let mut table = self.flows.table();
        let total = datagrams.len() as u64;
        let pass = table.on_response(now(), id, total).pass as usize;
        let Some(key) = table.key(id).copied() else { return };
        let Some(flow) = table.get_mut(id) else { return };
        flow.origin = None;
        let gate = self.flows.gate();
        let sizes = datagrams.iter().map(|datagram| datagram.len());
        let may = admit(flow.gates(&gate), Direction::Down, sizes, pass);
        let metrics = flow.record.metrics().clone();
        let sizes = &metrics.blocks.local().udp_batch_out;
        let local = Some(key.local()).filter(|local| !local.is_unspecified());
        let mut train = Train::to_client(&self.socket, key.client(), local, sizes);
        datagrams[..may].iter().for_each(|datagram| train.push(datagram, 0));
        let sent = train.finish();
        flow.record.add_datagrams_out(sent.datagrams as u64, sent.bytes as u64);
        drop(table);
        self.flows.count_drop(UdpDrop::OverRate, (pass - may) as u64);
        self.flows.count_unsent(&sent, may);
    }

    /// Ends a flow as the other end says.
    fn end(&self, id: FlowId, why: Ending) {
        let ended = self.flows.table().end(id);
        let Some(mut ended) = ended else { return };
        let record = &mut ended.value.record;
        record.close(match why {
            Ending::Idle => record.silence(),
            Ending::Evicted => Outcome::Evicted,
            Ending::Refused => Outcome::NoPeer,
            Ending::Unreachable | Ending::Unknown => Outcome::PeerReset,
            Ending::Other => Outcome::Done,
        });
    }

    /// Ends a flow in whose service this program panicked.
    fn abandon(&self, id: FlowId) {
        let ended = self.flows.table().end(id);
        if let Some(mut ended) = ended {
            ended.value.record.close(Outcome::Panicked);
        }
    }
}

impl Flow {
    /// What bounds its bytes.
    fn gates<'a>(&'a self, listener: &'a Gate) -> impl Iterator<Item = &'a Gate> + Clone + use<'a> {
        self.link.gates.iter().map(|gate| &**gate).chain([listener])
    }
}

impl Receiver for Answers {
    fn data(&self, number: u32, _: Option<Origin>, datagrams: &[&[u8]]) {
        let (Some(outer), Some(link)) = (self.outer.upgrade(), self.link.upgrade()) else { return };
        outer.flows.count_drop(UdpDrop::ClientFull, link.carrier.take_dropped());
        match link.find(number) {
            Some(id) => {
                let passed = catch_unwind(AssertUnwindSafe(|| outer.pass_back(id, datagrams)));
                if passed.is_err() {
                    outer.abandon(id);
                }
                outer.flows.tell_oldest();
            }
            None => {
                link.say_end(number, Ending::Unknown);
            }
        }
    }

    fn opened(&self, number: u32) {
        let (Some(outer), Some(link)) = (self.outer.upgrade(), self.link.upgrade()) else { return };
        if let Some(id) = link.find(number)
            && let Some(flow) = outer.flows.table().get_mut(id)
        {
            flow.origin = None;
        }
    }

    fn ended(&self, number: u32, why: Ending) {
        let (Some(outer), Some(link)) = (self.outer.upgrade(), self.link.upgrade()) else { return };
        if let Some(id) = link.find(number) {
            outer.end(id, why);
        }
    }
}
