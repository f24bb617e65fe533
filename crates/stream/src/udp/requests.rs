//! From clients to peers.

use wmproxy_net::limit::Direction;
use wmproxy_net::record::UdpDrop;
use wmproxy_net::udp::flows::now;
use wmproxy_net::udp::{BATCH, Cargo, Sent, Train};
use wmproxy_wire::flow::{FlowId, FlowKey};

use super::flows::Flow;
use super::{Inner, police};

/// How many flows one receive's datagrams of one client may use up before the rest are dropped: each failing peer and
/// each `max_requests` begins another.
const FLOWS_A_BATCH: usize = BATCH * 64;

impl Inner {
    /// Sends on what one client sent, in its flow and, where that takes no more, in the next, which `begin` begins with
    /// the datagram at hand.
    pub(super) fn forward_client(
        &self,
        key: FlowKey,
        cargo: Cargo<'_>,
        begin: impl Fn(&[u8]) -> Result<FlowId, UdpDrop>,
    ) {
        let total = cargo.count();
        let mut done = 0;
        let mut failures = 0;
        for _ in 0..FLOWS_A_BATCH {
            if done == total {
                return;
            }
            let id = self.flows.table().lookup(&key);
            let id = match id.map_or_else(|| begin(cargo.datagram(done)), Ok) {
                Ok(id) => id,
                Err(why) => return self.flows.count_drop(why, (total - done) as u64),
            };
            match self.forward_flow(id, cargo, done, total) {
                Ok(sent) => done += sent,
                // The error is that of an earlier datagram; these are still to be sent, to another peer.
                Err((sent, error)) => {
                    done += sent;
                    failures += 1;
                    self.fail(id, &error);
                    if failures > 2 {
                        return self.flows.count_drop(UdpDrop::Unreachable, (total - done) as u64);
                    }
                }
            }
        }
        self.flows.count_drop(UdpDrop::NoFlow, (total - done) as u64);
    }

    /// Sends datagrams `start .. end` on in the flow of `key`, as many as it takes. Answers how many are dealt with; the
    /// flow may have ended with them.
    pub(super) fn forward_known(&self, key: FlowKey, cargo: Cargo<'_>, start: usize, end: usize) -> usize {
        let Some(id) = self.flows.table().lookup(&key) else { return 0 };
        match self.forward_flow(id, cargo, start, end) {
            Ok(sent) => sent,
            Err((sent, error)) => {
                self.fail(id, &error);
                sent
            }
        }
    }

    /// Sends datagrams `done .. total` of `cargo` to the flow's peer, as many as the flow takes. Answers how many are
    /// dealt with.
    fn forward_flow(
        &self,
        id: FlowId,
        cargo: Cargo<'_>,
        done: usize,
        total: usize,
    ) -> Result<usize, (usize, std::io::Error)> {
        let mut table = self.flows.table();
        let pass = table.on_request(now(), id, (total - done) as u64) as usize;
        let Some(flow) = table.get_mut(id) else { return Ok(0) };
        let gate = &self.flows.gate();
        let sizes = cargo.sizes().skip(done);
        let may = police::admit(flow.police.as_deref_mut(), gate, Direction::Up, sizes, pass);
        let sent = send(flow, cargo, done, may);
        self.flows.count_drop(UdpDrop::PeerFull, sent.dropped as u64);
        self.flows.count_drop(UdpDrop::Unfit, sent.unfit as u64);
        let settled = sent.settled();
        if sent.error.is_none() && may < pass {
            self.flows.count_drop(UdpDrop::OverRate, (pass - may) as u64);
            return Ok(settled + pass - may);
        }
        match sent.error {
            None => Ok(settled),
            Some(error) => Err((settled, error)),
        }
    }
}

/// Sends datagrams `skip .. skip + count` to a flow's peer, with the PROXY header where it is wanted.
fn send(flow: &mut Flow, cargo: Cargo<'_>, skip: usize, count: usize) -> Sent {
    let metrics = flow.record.metrics().clone();
    let sizes = &metrics.blocks.local().udp_batch_to_peer;
    let (sent, headers) = match &flow.greeting {
        None => {
            let mut train = Train::to_peer(&flow.socket, sizes);
            cargo.load(skip, count, &mut train);
            (train.finish(), 0)
        }
        Some(greeting) => {
            let greeted = greeting.greet(&cargo, skip, count);
            let mut train = Train::to_peer(&flow.socket, sizes);
            greeted.load(&mut train);
            let sent = train.finish();
            let headers = greeting.bytes_in(&greeted, &sent);
            if greeting.is_over(&sent) {
                flow.greeting = None;
            }
            (sent, headers)
        }
    };
    flow.record.add_datagrams_in(sent.datagrams as u64, sent.bytes.saturating_sub(headers) as u64);
    sent
}
