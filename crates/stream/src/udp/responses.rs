//! From peers to clients.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use wmproxy_net::limit::Direction;
use wmproxy_net::record::{Record, UdpDrop};
use wmproxy_net::udp::{BATCH, Batch, Message, Sent, Train, UdpSocket};
use wmproxy_runtime::clock;
use wmproxy_wire::flow::FlowId;

use super::cargo::Cargo;
use super::{Inner, flows, now, police};

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
                Ok(Ok(true)) => self.tell_oldest(),
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
        let messages = self.whole_messages(&mut batch);
        let total: usize = messages.iter().flatten().map(Message::count).sum();
        let metrics = self.listener.borrow().metrics.clone();
        metrics.blocks.local().udp_batch_from_peer.record(total as u64);
        let mut table = self.table.borrow_mut();
        let mut responses = table.on_response(now(), id, total as u64);
        let flow = match &mut responses.ended {
            Some(ended) => Some(&mut ended.value),
            None => table.get_mut(id),
        };
        let pass = responses.pass as usize;
        let police = flow.and_then(|flow| flow.police.as_deref_mut());
        let gate = &self.listener.borrow().gate;
        let may = police::admit(
            police,
            gate,
            Direction::Down,
            messages.iter().flatten().flat_map(Message::sizes),
            pass,
        );
        if may < pass {
            self.count_drop(UdpDrop::OverRate, (pass - may) as u64);
        }
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
        self.count_unsent(&sent, may);
        match responses.ended {
            Some(mut ended) => {
                drop(table);
                note(&mut ended.value, &sent);
                flows::close(ended);
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

    /// The messages of a batch that came whole.
    fn whole_messages(&self, batch: &mut Batch<'_>) -> [Option<Message>; BATCH] {
        let mut messages: [Option<Message>; BATCH] = [None; BATCH];
        for (index, slot) in messages.iter_mut().enumerate().take(batch.len()) {
            let message = batch.take(index);
            if message.truncated {
                self.count_drop(UdpDrop::Malformed, message.count() as u64);
            } else {
                *slot = Some(message);
            }
        }
        messages
    }

    /// Counts what did not go to a client of the `may` datagrams that were to.
    fn count_unsent(&self, sent: &Sent, may: usize) {
        // With an error the client's address can't be reached. The flow ends by its timeout if that stays so.
        let unreachable = if sent.error.is_some() { may - sent.settled() } else { 0 };
        for (why, datagrams) in [
            (UdpDrop::ClientFull, sent.dropped),
            (UdpDrop::Unreachable, unreachable),
            (UdpDrop::Unfit, sent.unfit),
        ] {
            if datagrams > 0 {
                self.count_drop(why, datagrams as u64);
            }
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
