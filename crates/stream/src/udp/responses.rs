//! From peers to clients.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use wmproxy_net::limit::Direction;
use wmproxy_net::record::{Record, UdpDrop};
use wmproxy_net::udp::flows::{self as net_flows, now};
use wmproxy_net::udp::{Batch, Cargo, Message, Sent, Train, UdpSocket};
use wmproxy_runtime::clock;
use wmproxy_wire::flow::FlowId;

use super::{Inner, flows, police};

impl Inner {
    /// The task of a flow: receives from its peer until the flow has ended.
    pub(super) async fn answer(
        self: Rc<Self>,
        id: FlowId,
        client: SocketAddr,
        local: Option<IpAddr>,
        socket: Rc<UdpSocket>,
    ) {
        loop {
            let pass_back = |batch: Batch<'_>| {
                catch_unwind(AssertUnwindSafe(|| self.pass_back(batch, id, client, local)))
            };
            match socket.receive(pass_back).await {
                Ok(Ok(true)) => self.flows.tell_oldest(),
                Ok(Ok(false)) => return,
                // Without its task the flow would take requests and never answer.
                Ok(Err(_)) => return self.abandon(id),
                Err(error) => return self.fail(id, &error),
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Sends a batch of answers to the client. False when the flow has ended.
    fn pass_back(&self, mut batch: Batch<'_>, id: FlowId, client: SocketAddr, local: Option<IpAddr>) -> bool {
        let (messages, total) = self.flows.whole(&mut batch);
        let metrics = self.flows.metrics().clone();
        let mut table = self.flows.table();
        let mut responses = table.on_response(now(), id, total as u64);
        let flow = match &mut responses.ended {
            Some(ended) => Some(&mut ended.value),
            None => table.get_mut(id),
        };
        let pass = responses.pass as usize;
        let police = flow.and_then(|flow| flow.police.as_deref_mut());
        let gate = &self.flows.gate();
        let may = police::admit(
            police,
            gate,
            Direction::Down,
            messages.iter().flatten().flat_map(Message::sizes),
            pass,
        );
        self.flows.count_drop(UdpDrop::OverRate, (pass - may) as u64);
        let mut train = Train::to_client(&self.socket, client, local, &metrics.blocks.local().udp_batch_out);
        let mut left = may;
        for message in messages.iter().flatten() {
            let take = left.min(message.count());
            Cargo::Received(&batch, std::slice::from_ref(message)).load(0, take, &mut train);
            left -= take;
            if left == 0 {
                break;
            }
        }
        let sent = train.finish();
        self.flows.count_unsent(&sent, may);
        match responses.ended {
            Some(mut ended) => {
                drop(table);
                note(&mut ended.value, &sent);
                net_flows::close(self, ended);
                false
            }
            None => match table.get_mut(id) {
                Some(flow) => {
                    note(flow, &sent);
                    if let Some(learner) = flow.learner.as_deref_mut().filter(|learner| learner.is_learning())
                    {
                        for message in messages.iter().flatten() {
                            (0..message.count()).for_each(|at| learner.look(batch.datagram(message, at)));
                        }
                    }
                    true
                }
                None => false,
            },
        }
    }
}

fn note(flow: &mut flows::Flow, sent: &Sent) {
    if !flow.answered {
        flow.answered = true;
        flow.lease.answered(flow.record.age(), clock::now().0);
    }
    Record::add_datagrams_out(&mut flow.record, sent.datagrams as u64, sent.bytes as u64);
}
