//! From clients to peers.

use std::net::IpAddr;
use std::rc::Rc;

use wmproxy_net::limit::Direction;
use wmproxy_net::record::UdpDrop;
use wmproxy_net::udp::{BATCH, Batch, Message, Train};
use wmproxy_wire::flow::{FlowId, FlowKey};

use super::{Inner, now, police};

/// How many flows one receive's datagrams of one client may use up before the rest are dropped: each failing peer and
/// each `max_requests` begins another.
const FLOWS_A_BATCH: usize = BATCH * 64;

impl Inner {
    /// Sends a batch on, the datagrams of each client together and in their order.
    pub(super) fn forward(self: &Rc<Self>, mut batch: Batch<'_>) {
        let mut messages: [Option<(FlowKey, Message)>; BATCH] = [None; BATCH];
        let mut datagrams = 0;
        let count = batch.len();
        for (index, slot) in messages.iter_mut().enumerate().take(count) {
            let message = batch.take(index);
            datagrams += message.count();
            *slot = match message.from {
                // Nobody can be answered at port 0.
                Some(client) if client.port() != 0 && !message.truncated => {
                    let key = match message.local {
                        Some(local) => FlowKey::new(client, local),
                        None => FlowKey::from_client(client),
                    };
                    Some((key, message))
                }
                _ => {
                    self.count_drop(UdpDrop::Malformed, message.count() as u64);
                    None
                }
            };
        }
        self.listener.borrow().metrics.blocks.local().udp_batch_in.record(datagrams as u64);
        let mut together = Vec::with_capacity(count);
        for first in 0..count {
            let Some((key, message)) = messages[first].take() else { continue };
            let local = message.local;
            together.clear();
            together.push(message);
            for later in &mut messages[first + 1..count] {
                if later.as_ref().is_some_and(|(other, _)| *other == key) {
                    together.extend(later.take().map(|(_, message)| message));
                }
            }
            self.forward_client(&batch, key, local, &together);
        }
    }

    /// Sends on what one client sent, in its flow and, where that takes no more, in the next.
    fn forward_client(
        self: &Rc<Self>,
        batch: &Batch<'_>,
        key: FlowKey,
        local: Option<IpAddr>,
        messages: &[Message],
    ) {
        let total: usize = messages.iter().map(Message::count).sum();
        let mut done = 0;
        let mut failures = 0;
        for _ in 0..FLOWS_A_BATCH {
            if done == total {
                return;
            }
            let id = self.table.borrow().lookup(&key);
            let id = match id.map_or_else(|| self.begin(key, local), Ok) {
                Ok(id) => id,
                Err(why) => return self.count_drop(why, (total - done) as u64),
            };
            match self.forward_flow(batch, id, messages, done, total) {
                Ok(sent) => done += sent,
                // The error is that of an earlier datagram; these are still to be sent, to another peer.
                Err((sent, error)) => {
                    done += sent;
                    failures += 1;
                    self.fail(id, &error);
                    if failures > 2 {
                        return self.count_drop(UdpDrop::Unreachable, (total - done) as u64);
                    }
                }
            }
        }
        self.count_drop(UdpDrop::NoFlow, (total - done) as u64);
    }

    /// Sends datagrams `done .. total` of `messages` to the flow's peer, as many as the flow takes. Answers how many
    /// are dealt with.
    fn forward_flow(
        &self,
        batch: &Batch<'_>,
        id: FlowId,
        messages: &[Message],
        done: usize,
        total: usize,
    ) -> Result<usize, (usize, std::io::Error)> {
        let mut table = self.table.borrow_mut();
        let pass = table.on_request(now(), id, (total - done) as u64) as usize;
        let Some(flow) = table.get_mut(id) else { return Ok(0) };
        let gate = &self.listener.borrow().gate;
        let may = police::admit(flow.police.as_deref_mut(), gate, Direction::Up, messages.iter(), done, pass);
        let metrics = flow.record.metrics().clone();
        let mut train = Train::to_peer(&flow.socket, &metrics.blocks.local().udp_batch_to_peer);
        load(batch, messages, done, may, &mut train);
        let sent = train.finish();
        flow.record.add_datagrams_in(sent.datagrams as u64, sent.bytes as u64);
        if sent.dropped > 0 {
            self.count_drop(UdpDrop::PeerFull, sent.dropped as u64);
        }
        if sent.unfit > 0 {
            self.count_drop(UdpDrop::Unfit, sent.unfit as u64);
        }
        let settled = sent.settled();
        if sent.error.is_none() && may < pass {
            self.count_drop(UdpDrop::OverRate, (pass - may) as u64);
            return Ok(settled + pass - may);
        }
        match sent.error {
            None => Ok(settled),
            Some(error) => Err((settled, error)),
        }
    }
}

/// Puts the datagrams `skip .. skip + count` of all `messages` on a train.
pub(super) fn load<'a>(
    batch: &'a Batch<'_>,
    messages: &[Message],
    mut skip: usize,
    mut count: usize,
    train: &mut Train<'a>,
) {
    if count == 0 {
        return;
    }
    for message in messages {
        let here = message.count();
        if skip >= here {
            skip -= here;
            continue;
        }
        let take = count.min(here - skip);
        batch.load(message, skip, take, train);
        count -= take;
        skip = 0;
        if count == 0 {
            return;
        }
    }
}
