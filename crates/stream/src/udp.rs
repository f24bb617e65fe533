//! UDP listeners: one task of each worker receives from clients, one task of each flow receives from its peer.
//!
//! What a flow is and when it ends, [`wmproxy_wire::flow`] decides; here are the sockets, the leases and the records.
//! A datagram mostly belongs to the flow of the address that it came from, and takes the short way (`requests`). Where
//! a PROXY header or QUIC has a say in it, `opening` finds out first what there is to know.

mod cids;
mod flows;
mod greeting;
mod held;
mod lanes;
mod opening;
mod police;
mod requests;
mod responses;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use wmproxy_net::listen::Listener;
use wmproxy_net::record::AccessLog;
use wmproxy_net::udp::flows::{self as net_flows, Flows, Keeper, Listening, Mode, now};
use wmproxy_net::udp::{Batch, UdpSocket};
use wmproxy_runtime::scope::Scope;
use wmproxy_upstream::Group;
use wmproxy_upstream::balance::HashKey;
use wmproxy_wire::flow::{Ended, FlowKey, Limits, Now};

use crate::options::StreamSpec;
use crate::route::Routes;
use cids::Cids;
use flows::{Flow, Shunned};
use held::Held;
use lanes::Lanes;
use opening::Opening;

/// What is done with the datagrams of a listener; a reload puts another in its place.
#[derive(Clone)]
pub struct UdpService {
    /// The listener's settings.
    pub spec: StreamSpec,
    /// Where datagrams go.
    pub routes: Arc<Routes<Arc<Group>>>,
    /// Where records go.
    pub log: Option<Arc<dyn AccessLog>>,
}

/// A listener at work on this worker. It ends when it was told to and its last flow has; its socket goes with it.
pub struct UdpListener(Weak<Inner>);

struct Inner {
    /// Held as long as there are flows: who wants the address back meanwhile gets the same sockets.
    listener: RefCell<Arc<Listener>>,
    socket: UdpSocket,
    /// Shared with those flows that began under it.
    service: RefCell<Rc<UdpService>>,
    flows: Flows<Flow>,
    /// Peers that just failed a client, so that its next datagram goes elsewhere.
    shunned: RefCell<Shunned>,
    /// Flows depend on more than where datagrams come from: on a PROXY header, or on what QUIC tells.
    is_special: Cell<bool>,
    /// Clients that have not said yet whom they want.
    held: RefCell<Held<Opening>>,
    lanes: Lanes,
    /// Where QUIC connections go, if the listener is to follow them.
    cids: RefCell<Option<Arc<Cids>>>,
    scope: Scope,
}

impl UdpListener {
    /// Begins to receive on this worker. The listener and its flows are tasks of `scope`.
    ///
    /// # Errors
    /// The worker's event queue takes no more.
    pub fn start(
        listener: Arc<Listener>,
        worker: usize,
        service: UdpService,
        scope: Scope,
    ) -> io::Result<UdpListener> {
        let socket = UdpSocket::new(listener.bound.socket(worker))?;
        let Listener { metrics, gate, .. } = &*listener;
        let flows = Flows::new(metrics.clone(), gate.clone(), limits(&service.spec));
        let inner = Rc::new(Inner {
            listener: RefCell::new(listener),
            socket,
            flows,
            service: RefCell::new(Rc::new(service)),
            shunned: RefCell::default(),
            is_special: Cell::new(false),
            held: RefCell::default(),
            lanes: Lanes::default(),
            cids: RefCell::default(),
            scope: scope.clone(),
        });
        inner.specialise();
        let listener = UdpListener(Rc::downgrade(&inner));
        scope.spawn(net_flows::serve(inner));
        Ok(listener)
    }

    /// Begins flows from now on with something else, and counts them in `listener`, which has the same sockets. Those
    /// there are keep what they have. Opens a listener again that was told to finish; false when it has ended.
    pub fn replace(&self, listener: &Arc<Listener>, service: &UdpService) -> bool {
        let Some(inner) = self.0.upgrade() else { return false };
        inner.listener.replace(listener.clone());
        inner.flows.replace(&listener.metrics, &listener.gate, limits(&service.spec));
        inner.service.replace(Rc::new(service.clone()));
        inner.specialise();
        inner.turn(Mode::Open);
        true
    }

    /// Begins no more flows, and ends with the last one there is.
    pub fn finish(&self) {
        self.turn(Mode::Finishing);
    }

    /// Begins no more flows, and ends each at its first silence: the process wants to stop.
    pub fn drain(&self) {
        self.turn(Mode::Draining);
    }

    fn turn(&self, mode: Mode) {
        if let Some(inner) = self.0.upgrade() {
            inner.turn(mode);
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl UdpService {
    /// Whether QUIC connections are to be known again from another address.
    fn follows_quic(&self) -> bool {
        let by_cid = |group: &Arc<Group>| group.spec().balance.hash_key() == Some(&HashKey::QuicCid);
        self.spec.quic || !self.routes.is_plain() || self.routes.destinations().any(by_cid)
    }
}

fn limits(spec: &StreamSpec) -> Limits {
    Limits {
        idle_timeout: spec.idle_timeout,
        max_requests: spec.max_requests,
        max_responses: spec.max_responses,
    }
}

impl Keeper for Inner {
    type Key = FlowKey;
    type Flow = Flow;

    fn flows(&self) -> &Flows<Flow> {
        &self.flows
    }

    fn settle(&self, ended: Ended<Flow>) {
        flows::settle(ended);
    }

    fn next_deadline(&self) -> Option<Now> {
        self.held.borrow().next_deadline()
    }

    fn expire(&self) {
        self.expire_held();
    }
}

impl Listening for Inner {
    fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    fn forward(self: &Rc<Self>, batch: Batch<'_>) {
        self.flows.each_client(batch, |key, cargo| {
            if self.is_special.get() {
                self.forward_special(key, cargo);
            } else {
                self.forward_client(key, cargo, |_| self.begin(key, Opening::default()));
            }
        });
    }
}

impl Inner {
    /// Gets ready for what the service asks for. What flows there are have learned stays known.
    fn specialise(&self) {
        let service = self.service.borrow().clone();
        let follows = service.follows_quic() || !self.lanes.is_empty();
        if follows && self.cids.borrow().is_none() {
            self.cids.replace(Some(Cids::of(&self.flows.gate())));
        } else if !follows {
            self.cids.replace(None);
        }
        self.is_special.set(follows || service.spec.trusted.is_some());
    }

    fn turn(&self, mode: Mode) {
        self.flows.turn(mode);
        if mode != Mode::Open {
            self.drop_held();
        }
    }
}
