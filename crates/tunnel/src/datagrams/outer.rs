//! The end where visitors come: a listener of datagrams, whose flows go through the tunnel.
//!
//! Each worker has a link to the other end, which it asks its service's way for when the first visitor comes, and
//! again when that has ended. While it is asked for, what visitors send waits, up to a bound; while there is none, it is
//! dropped.

mod flow;
mod link;
mod waiting;

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::acl::Acl;
use wmproxy_net::listen::Listener;
use wmproxy_net::record::AccessLog;
use wmproxy_net::udp::flows::{self as net_flows, Flows, Keeper, Listening, Mode};
use wmproxy_net::udp::{Batch, UdpSocket};
use wmproxy_runtime::scope::Scope;
use wmproxy_wire::flow::{Ended, FlowKey, Limits, Now};

use super::DatagramWay;
use flow::Flow;
use link::Way;

/// What is done with the datagrams of a listener; another may take its place at any time.
#[derive(Clone)]
pub struct OuterService {
    /// Where they go.
    pub way: Arc<dyn DatagramWay>,
    /// Who may come.
    pub acl: Acl,
    /// A flow ends after so long without a datagram in either direction.
    pub idle_timeout: Duration,
    /// Names the other end in records: `home/dns`.
    pub name: Arc<str>,
    /// Where records go.
    pub log: Option<Arc<dyn AccessLog>>,
}

/// A listener at work on this worker. It ends when it was told to and its last flow has; its socket goes with it.
pub struct DatagramListener(Weak<Outer>);

struct Outer {
    /// Held as long as there are flows: who wants the address back meanwhile gets the same sockets.
    listener: RefCell<Arc<Listener>>,
    socket: UdpSocket,
    flows: Flows<Flow>,
    service: RefCell<Rc<OuterService>>,
    way: RefCell<Way>,
    scope: Scope,
}

impl DatagramListener {
    /// Begins to receive on this worker. The listener and its flows are tasks of `scope`.
    ///
    /// # Errors
    /// The worker's event queue takes no more.
    pub fn start(
        listener: Arc<Listener>,
        worker: usize,
        service: OuterService,
        scope: Scope,
    ) -> io::Result<DatagramListener> {
        let socket = UdpSocket::new(listener.bound.socket(worker))?;
        let Listener { metrics, gate, .. } = &*listener;
        let flows = Flows::new(metrics.clone(), gate.clone(), limits(&service));
        let outer = Rc::new(Outer {
            listener: RefCell::new(listener),
            socket,
            flows,
            service: RefCell::new(Rc::new(service)),
            way: RefCell::default(),
            scope: scope.clone(),
        });
        let listener = DatagramListener(Rc::downgrade(&outer));
        scope.spawn(net_flows::serve(outer));
        Ok(listener)
    }

    /// Begins flows from now on with something else, and counts them in `listener`, which has the same sockets. Those
    /// there are keep what they have. Opens a listener again that was told to finish; false when it has ended.
    pub fn replace(&self, listener: &Arc<Listener>, service: &OuterService) -> bool {
        let Some(outer) = self.0.upgrade() else { return false };
        outer.listener.replace(listener.clone());
        outer.flows.replace(&listener.metrics, &listener.gate, limits(service));
        let before = outer.service.replace(Rc::new(service.clone()));
        if !Arc::ptr_eq(&before.way, &service.way) {
            outer.leave_way();
        }
        outer.flows.turn(Mode::Open);
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
        if let Some(outer) = self.0.upgrade() {
            outer.flows.turn(mode);
            outer.leave_way();
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.0.strong_count() == 0
    }
}

fn limits(service: &OuterService) -> Limits {
    Limits { idle_timeout: service.idle_timeout, max_requests: 0, max_responses: 0 }
}

impl Keeper for Outer {
    type Key = FlowKey;
    type Flow = Flow;

    fn flows(&self) -> &Flows<Flow> {
        &self.flows
    }

    fn settle(&self, ended: Ended<Flow>) {
        flow::settle(ended);
    }

    fn next_deadline(&self) -> Option<Now> {
        self.way.borrow().idle_until()
    }

    fn expire(&self) {
        self.leave_idle_way();
    }
}

impl Listening for Outer {
    fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    fn forward(self: &Rc<Self>, batch: Batch<'_>) {
        self.flows.each_client(batch, |key, cargo| self.forward_client(key, cargo));
    }
}
