//! One flow: how it begins and how it ends.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use wmproxy_net::addr::Address;
use wmproxy_net::limit::Permit;
use wmproxy_net::record::{Outcome, Record, UdpDrop};
use wmproxy_net::udp::UdpSocket;
use wmproxy_net::udp::flows as net_flows;
use wmproxy_runtime::clock;
use wmproxy_runtime::scope::Leash;
use wmproxy_upstream::{Blame, Group, Lease, Peer};
use wmproxy_wire::flow::{EndReason, Ended, FlowId, FlowKey};

use super::Inner;
use super::cids::{Learner, Target};
use super::greeting::Greeting;
use super::opening::Opening;
use super::police::Police;

/// What a flow holds. All of it is given back when the flow leaves the table.
pub(super) struct Flow {
    /// Connected to the peer: nobody else can answer.
    pub(super) socket: Rc<UdpSocket>,
    pub(super) lease: Lease,
    pub(super) record: Record,
    /// Whether the peer has answered yet.
    pub(super) answered: bool,
    /// What keeps it to a rate.
    pub(super) police: Option<Box<Police>>,
    /// The PROXY header that its peer is still to get.
    pub(super) greeting: Option<Box<Greeting>>,
    /// What it knows of its QUIC connection.
    pub(super) learner: Option<Box<Learner>>,
    /// The task that receives from the peer.
    task: Option<Leash>,
    _permit: Permit,
}

/// Clients whose peer failed them, with that peer; the newest last.
#[derive(Default)]
pub(super) struct Shunned(VecDeque<(FlowKey, Arc<Peer>)>);

impl Shunned {
    /// How many clients are remembered. The next datagram mostly comes within a second; a peer that fails more
    /// clients than this at a time is ejected anyway.
    const MAX: usize = 64;

    pub(super) fn add(&mut self, key: FlowKey, peer: Arc<Peer>) {
        if self.0.len() == Self::MAX {
            self.0.pop_front();
        }
        self.0.push_back((key, peer));
    }

    /// The peers that failed this client; they are forgotten with the asking.
    pub(super) fn take(&mut self, key: &FlowKey) -> Vec<Arc<Peer>> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut peers = Vec::new();
        self.0.retain(|(client, peer)| {
            if client == key {
                peers.push(peer.clone());
            }
            client != key
        });
        peers
    }
}

/// Closes the record of a flow that the table ended, and frees what it held.
pub(super) fn settle(mut ended: Ended<Flow>) {
    let outcome = net_flows::outcome(ended.reason, &ended.value.record);
    if !ended.value.answered && ended.reason == EndReason::Idle {
        // Nothing said against it for a whole idle timeout: silence is no failure of a peer that need not answer.
        ended.value.lease.succeeded(None, clock::now().0);
    }
    ended.value.record.close(outcome);
}

impl Inner {
    /// Begins the flow of `key`; or says why its datagram is dropped.
    pub(super) fn begin(self: &Rc<Self>, key: FlowKey, mut opening: Opening) -> Result<FlowId, UdpDrop> {
        let service = self.service.borrow().clone();
        let client = opening.client(key).ip();
        if !self.is_open_for(&opening) {
            return Err(UdpDrop::Draining);
        }
        if !service.spec.acl.permits(client) {
            return Err(UdpDrop::Denied);
        }
        self.flows.welcome(client)?;
        // Before the permit, which may cost another its flow: without a peer that would be in vain.
        let group = opening.group(&service)?;
        let (socket, lease) = self.lease(&group, key, &opening)?;
        let permit = net_flows::admit(&**self, client)?;
        let mut record = Record::open(self.flows.metrics().clone(), service.log.clone(), Some(key.client()));
        let local = Some(key.local()).filter(|local| !local.is_unspecified());
        record.group = Some(group.name().clone());
        record.peer = Some(lease.address().clone());
        record.local = local;
        opening.note(&mut record);
        let socket = Rc::new(socket);
        let police = Police::new(&service.spec.rate_limit);
        let greeting = Greeting::of(&group, &record, service.spec.proxy_protocol_every_datagram);
        let cids = self.cids.borrow().clone();
        let target = || Target { group: group.clone(), peer: lease.peer().clone() };
        let learner = cids.map(|cids| Box::new(Learner::new(cids, target(), client, opening)));
        let flow = Flow {
            socket: socket.clone(),
            lease,
            record,
            answered: false,
            police,
            greeting,
            learner,
            task: None,
            _permit: permit,
        };
        let id = self.flows.insert(key, flow);
        let task = self.scope.spawn_leashed(self.clone().answer(id, key.client(), local, socket));
        if let Some(flow) = self.flows.table().get_mut(id) {
            flow.task = Some(task);
        }
        Ok(id)
    }

    /// A peer and a socket to it.
    fn lease(&self, group: &Group, key: FlowKey, opening: &Opening) -> Result<(UdpSocket, Lease), UdpDrop> {
        let lease_key = opening.lease_key(key);
        let client = opening.client(key).ip();
        let socket = {
            let service = self.service.borrow();
            group.spec().socket.with(service.spec.socket.tcp, service.spec.source)
        };
        if let Some(known) = &opening.known {
            let (peer, now) = (&known.target.peer, clock::now().0);
            // Who shows the id has the connection already. Anybody behind the same address can claim to be it without.
            let lease = match known.is_certain() {
                true => group.lease_again(peer, now),
                false => group.lease_peer(peer, now).ok_or(UdpDrop::NoFlow)?,
            };
            let Address::Inet(peer) = *lease.address() else { return Err(UdpDrop::NoFlow) };
            let socket = UdpSocket::connect(peer, &socket, Some(client)).map_err(|_| UdpDrop::NoFlow)?;
            return Ok((socket, lease));
        }
        let mut tried = self.shunned.borrow_mut().take(&key);
        let mut shunning = !tried.is_empty();
        let mut attempts_left = group.spec().retries.saturating_add(1);
        while attempts_left > 0 {
            let mut lease = match group.lease(&lease_key, &tried, clock::now().0) {
                Ok(lease) => lease,
                // With nobody else to go to, the peer that failed is tried again.
                Err(_) if shunning => {
                    shunning = false;
                    tried.clear();
                    continue;
                }
                Err(_) => return Err(UdpDrop::NoFlow),
            };
            attempts_left -= 1;
            let Address::Inet(peer) = *lease.address() else { return Err(UdpDrop::NoFlow) };
            match UdpSocket::connect(peer, &socket, Some(client)) {
                Ok(socket) => return Ok((socket, lease)),
                Err(error) => match Blame::of(&error) {
                    Blame::Peer(kind) => {
                        lease.failed(kind, clock::now().0);
                        tried.push(lease.peer().clone());
                    }
                    // Towards another peer there may be a port.
                    Blame::NoWay | Blame::LocalPort | Blame::Hop => tried.push(lease.peer().clone()),
                    Blame::Resources => return Err(UdpDrop::NoFlow),
                },
            }
        }
        Err(UdpDrop::NoFlow)
    }

    /// Ends a flow in whose service this program panicked.
    pub(super) fn abandon(&self, id: FlowId) {
        let ended = self.flows.table().end(id);
        if let Some(mut ended) = ended {
            ended.value.record.close(Outcome::Panicked);
        }
    }

    /// Ends a flow whose peer the network calls unreachable, and remembers that for its client's next datagram.
    pub(super) fn fail(&self, id: FlowId, error: &std::io::Error) {
        let ended = self.flows.table().end(id);
        let Some(mut ended) = ended else { return };
        let flow = &mut ended.value;
        match Blame::of(error) {
            Blame::Peer(kind) => {
                flow.lease.failed(kind, clock::now().0);
                flow.record.close(Outcome::PeerReset);
                self.shunned.borrow_mut().add(ended.key, flow.lease.peer().clone());
            }
            Blame::NoWay | Blame::LocalPort | Blame::Resources | Blame::Hop => {
                flow.record.close(Outcome::NoResources)
            }
        }
    }
}
