//! The end where the local service is: a socket for each flow.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use wmproxy_net::addr::Address;
use wmproxy_net::limit::{Direction, Gate, Permit};
use wmproxy_net::record::{AccessLog, ListenerMetrics, Outcome, Record, UdpDrop};
use wmproxy_net::udp::flows::{self, Flows, Keeper, now};
use wmproxy_net::udp::{Batch, Message, Sent, Train, UdpSocket};
use wmproxy_runtime::scope::{Leash, Scope};
use wmproxy_wire::flow::{EndReason, Ended, FlowId, Limits};
use wmproxy_wire::tunnel::datagram::{Ending, Origin};

use super::Carry;
use super::arrived::{Receiver, admit};
use super::carrier::Carrier;
use crate::client::DatagramEnd;

/// What the flows of a service go to.
#[derive(Clone)]
pub struct InnerService {
    /// Makes their sockets.
    pub end: Arc<dyn DatagramEnd>,
    /// Counts them.
    pub metrics: Arc<ListenerMetrics>,
    /// How many may be open, and how fast their bytes may pass.
    pub gate: Arc<Gate>,
    /// Where records go.
    pub log: Option<Arc<dyn AccessLog>>,
}

/// The flows of one carrier.
struct Inner {
    carrier: Carrier,
    service: InnerService,
    flows: Flows<Flow, u32>,
    scope: Scope,
}

/// What a flow holds. All of it is given back when the flow leaves the table.
struct Flow {
    /// Connected to the service: nobody else can answer.
    socket: Rc<UdpSocket>,
    record: Record,
    /// What goes before the first datagram.
    header: Option<Box<[u8]>>,
    /// The task that receives from the service.
    task: Option<Leash>,
    _permit: Permit,
}

/// Serves the flows that come through `carry`, on the calling worker, until that has ended. The tasks of flows are of `scope`;
/// dropping the future ends them.
pub async fn serve(carry: Carry, service: InnerService, scope: Scope) {
    let carrier = match Carrier::inner(carry) {
        Ok(carrier) => carrier,
        Err(error) => return tracing::debug!(service = %service.metrics.name, %error, "no way for datagrams"),
    };
    let flows = Flows::new(service.metrics.clone(), service.gate.clone(), limits(&*service.end));
    let inner = Rc::new(Inner { carrier, service, flows, scope });
    tokio::select! {
        result = inner.carrier.run(&inner) => if let Err(error) = result {
            tracing::debug!(service = %inner.service.metrics.name, %error, "the way of datagrams broke off");
        },
        // It ends only when no more flows may begin.
        () = flows::tend(&*inner) => {}
    }
    let all = std::iter::from_fn(|| inner.flows.table().pop());
    for mut ended in all {
        // With the tunnel the visitor is gone, as far as can be told here.
        ended.value.record.close(Outcome::ClientReset);
    }
}

fn limits(end: &dyn DatagramEnd) -> Limits {
    Limits { idle_timeout: end.idle_timeout(), max_requests: 0, max_responses: 0 }
}

impl Keeper for Inner {
    type Key = u32;
    type Flow = Flow;

    fn flows(&self) -> &Flows<Flow, u32> {
        &self.flows
    }

    fn settle(&self, mut ended: Ended<Flow, u32>) {
        let (number, flow) = (ended.key, &mut ended.value);
        flow.record.close(flows::outcome(ended.reason, &flow.record));
        let why = match ended.reason {
            EndReason::Idle => Ending::Idle,
            EndReason::Evicted => Ending::Evicted,
            EndReason::Limit | EndReason::Closed => Ending::Other,
        };
        self.say_end(number, why);
    }
}

impl Receiver for Rc<Inner> {
    fn data(&self, flow: u32, origin: Option<Origin>, datagrams: &[&[u8]]) {
        self.flows.count_drop(UdpDrop::PeerFull, self.carrier.take_dropped());
        let known = self.flows.table().lookup(&flow);
        let id = match (known, origin) {
            (Some(id), _) => Ok(id),
            (None, Some(origin)) => self.begin(flow, origin),
            // Its end got lost, or crossed with these.
            (None, None) => return self.say_end(flow, Ending::Unknown),
        };
        match id {
            Ok(id) => {
                if origin.is_some() {
                    self.carrier.put_opened(flow);
                }
                let forward = AssertUnwindSafe(|| self.forward(id, datagrams));
                if catch_unwind(forward).is_err() {
                    self.abandon(id);
                }
            }
            Err(why) => {
                self.flows.count_drop(why, datagrams.len() as u64);
                self.say_end(flow, Ending::Refused);
            }
        }
    }

    fn opened(&self, _: u32) {}

    fn ended(&self, flow: u32, why: Ending) {
        let id = self.flows.table().lookup(&flow);
        let Some(mut ended) = id.and_then(|id| self.flows.table().end(id)) else { return };
        let record = &mut ended.value.record;
        record.close(match why {
            Ending::Evicted => Outcome::Evicted,
            Ending::Idle => record.silence(),
            _ => Outcome::Done,
        });
    }
}

impl Inner {
    /// Tells the other end that a flow is over.
    fn say_end(&self, number: u32, why: Ending) {
        self.carrier.put_end(number, why);
        self.carrier.wake();
    }

    /// Begins a flow; or says why its datagrams are dropped.
    fn begin(self: &Rc<Self>, number: u32, origin: Origin) -> Result<FlowId, UdpDrop> {
        let InnerService { end, metrics, log, .. } = &self.service;
        let client = origin.visitor.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |visitor| visitor.ip());
        self.flows.welcome(client)?;
        let most = end.max_flows() as usize;
        while most > 0 && self.flows.table().len() >= most {
            flows::evict_oldest(&**self);
        }
        let socket = end.open(origin.visitor).map_err(|error| {
            tracing::debug!(service = %metrics.name, %error, "no socket for a flow");
            UdpDrop::NoFlow
        })?;
        let permit = flows::admit(&**self, client)?;
        let mut record = Record::open(metrics.clone(), log.clone(), origin.visitor);
        record.local = origin.local.map(|local| local.ip());
        record.peer = socket.peer_address().ok().map(Address::Inet);
        let header = end.header(origin.visitor, origin.local).map(Vec::into_boxed_slice);
        let socket = Rc::new(socket);
        // They may be others than when the carrier began.
        self.flows.table().set_limits(limits(&**end));
        let flow = Flow { socket: socket.clone(), record, header, task: None, _permit: permit };
        let id = self.flows.insert(number, flow);
        // It must not keep alive what holds its leash.
        let task = answer(Rc::downgrade(self), id, number, socket);
        let task = self.scope.spawn_leashed(task);
        if let Some(flow) = self.flows.table().get_mut(id) {
            flow.task = Some(task);
        }
        Ok(id)
    }

    /// Sends datagrams of the visitor to the service.
    fn forward(&self, id: FlowId, datagrams: &[&[u8]]) {
        let total = datagrams.len();
        let mut table = self.flows.table();
        let pass = table.on_request(now(), id, total as u64) as usize;
        let Some(flow) = table.get_mut(id) else { return };
        let sizes = datagrams.iter().map(|datagram| datagram.len());
        let may = admit([&*self.service.gate].into_iter(), Direction::Up, sizes, pass);
        let sent = flow.send(&datagrams[..may]);
        drop(table);
        self.flows.count_drop(UdpDrop::OverRate, (pass - may) as u64);
        self.flows.count_drop(UdpDrop::PeerFull, sent.dropped as u64);
        self.flows.count_drop(UdpDrop::Unfit, sent.unfit as u64);
        if let Some(error) = &sent.error {
            self.flows.count_drop(UdpDrop::Unreachable, (may - sent.settled()) as u64);
            self.fail(id, error);
        }
    }

    /// Sends what the service answered to the visitor. False when the flow has ended.
    fn pass_back(&self, mut batch: Batch<'_>, id: FlowId, number: u32) -> bool {
        let (messages, total) = self.flows.whole(&mut batch);
        let mut table = self.flows.table();
        let pass = table.on_response(now(), id, total as u64).pass as usize;
        let Some(flow) = table.get_mut(id) else { return false };
        let sizes = messages.iter().flatten().flat_map(Message::sizes);
        let may = admit([&*self.service.gate].into_iter(), Direction::Down, sizes, pass);
        let (mut sent, mut bytes, mut left) = (0, 0, may);
        for message in messages.iter().flatten() {
            for index in 0..message.count().min(left) {
                let datagram = batch.datagram(message, index);
                if self.carrier.put(number, None, datagram) {
                    sent += 1;
                    bytes += datagram.len() as u64;
                }
                left -= 1;
            }
        }
        flow.record.add_datagrams_out(sent, bytes);
        drop(table);
        self.flows.count_drop(UdpDrop::OverRate, (pass - may) as u64);
        self.flows.count_drop(UdpDrop::ClientFull, may as u64 - sent);
        self.carrier.wake();
        self.flows.tell_oldest();
        true
    }

    /// Ends a flow whose service the network calls unreachable.
    fn fail(&self, id: FlowId, error: &io::Error) {
        let ended = self.flows.table().end(id);
        let Some(mut ended) = ended else { return };
        tracing::debug!(service = %self.service.metrics.name, %error, "a flow's service is unreachable");
        ended.value.record.close(Outcome::PeerReset);
        self.say_end(ended.key, Ending::Unreachable);
    }

    /// Ends a flow in whose service this program panicked.
    fn abandon(&self, id: FlowId) {
        let ended = self.flows.table().end(id);
        if let Some(mut ended) = ended {
            ended.value.record.close(Outcome::Panicked);
            self.say_end(ended.key, Ending::Other);
        }
    }
}

/// The task of a flow: receives from the service until the flow has ended.
async fn answer(inner: Weak<Inner>, id: FlowId, number: u32, socket: Rc<UdpSocket>) {
    loop {
        let pass_back = |batch: Batch<'_>| {
            let Some(inner) = inner.upgrade() else { return false };
            let passed = catch_unwind(AssertUnwindSafe(|| inner.pass_back(batch, id, number)));
            // Without its task the flow would take datagrams and never answer.
            passed.inspect_err(|_| inner.abandon(id)).unwrap_or(false)
        };
        match socket.receive(pass_back).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                if let Some(inner) = inner.upgrade() {
                    inner.fail(id, &error);
                }
                return;
            }
        }
        tokio::task::consume_budget().await;
    }
}

impl Flow {
    /// Sends datagrams to the service, the first of all with the header.
    fn send(&mut self, datagrams: &[&[u8]]) -> Sent {
        let metrics = self.record.metrics().clone();
        let sizes = &metrics.blocks.local().udp_batch_to_peer;
        let greeted = match (&self.header, datagrams) {
            (Some(header), [first, ..]) => Some([header, *first].concat()),
            _ => None,
        };
        let mut train = Train::to_peer(&self.socket, sizes);
        for (index, datagram) in datagrams.iter().enumerate() {
            train.push(greeted.as_deref().filter(|_| index == 0).unwrap_or(datagram), 0);
        }
        let sent = train.finish();
        let mut bytes = sent.bytes;
        if greeted.is_some() && sent.datagrams > 0 {
            // A first datagram that did not go leaves the header to the next one.
            bytes -= self.header.take().map_or(0, |header| header.len());
        }
        self.record.add_datagrams_in(sent.datagrams as u64, bytes as u64);
        sent
    }
}
