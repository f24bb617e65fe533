//! A worker's way to the other end: how it is asked for, and what becomes of flows when it is lost.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::limit::Gate;
use wmproxy_net::record::UdpDrop;
use wmproxy_net::udp::Cargo;
use wmproxy_net::udp::flows::now;
use wmproxy_runtime::scope::Leash;
use wmproxy_wire::flow::{FlowId, FlowKey, Now};
use wmproxy_wire::tunnel::datagram::Ending;

use super::waiting::Waiting;
use super::{Outer, flow};
use crate::datagrams::carrier::Carrier;
use crate::datagrams::{Carried, DatagramWay};

/// How long after one attempt the next may begin: a storm of datagrams must not become one of attempts, and a client that
/// comes back should not be waited for much longer than it takes.
const PAUSE: Duration = Duration::from_millis(200);

/// How long an attempt may take. What waits is of no more use then.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a link stays open without flows: less often than that it may as well be opened again.
const IDLE: Duration = Duration::from_secs(60);

/// Where new flows go.
#[derive(Default)]
pub(super) enum Way {
    /// Nobody has come yet.
    #[default]
    Unasked,
    /// It is being asked for.
    Asked { waiting: Waiting, _task: Leash },
    /// There it is.
    Open(Rc<Link>),
    /// There is none. It is not asked for before that moment.
    Lost(Now),
}

/// A way that is open. It ends when no flow uses it, and none will.
pub(super) struct Link {
    pub(super) carrier: Rc<Carrier>,
    pub(super) gates: Vec<Arc<Gate>>,
    /// The flows that use it, by their numbers there.
    numbers: RefCell<HashMap<u32, FlowId>>,
    /// Since when there are none.
    idle_since: Cell<Now>,
    /// The task that hands over what comes.
    task: Cell<Option<Leash>>,
}

impl Link {
    /// The flow with this number.
    pub(super) fn find(&self, number: u32) -> Option<FlowId> {
        self.numbers.borrow().get(&number).copied()
    }

    /// A number that no flow has, and none had for as long as can be: what is still on its way to an old flow must not come
    /// to a new one.
    pub(super) fn number(&self) -> u32 {
        loop {
            let number = self.carrier.number();
            if !self.numbers.borrow().contains_key(&number) {
                return number;
            }
        }
    }

    pub(super) fn add(&self, number: u32, id: FlowId) {
        self.numbers.borrow_mut().insert(number, id);
    }

    pub(super) fn remove(&self, number: u32) {
        let mut numbers = self.numbers.borrow_mut();
        numbers.remove(&number);
        if numbers.is_empty() {
            self.idle_since.set(now());
            // A storm of visitors must not leave its table behind.
            numbers.shrink_to(64);
        }
    }

    /// Tells the other end that a flow is over.
    pub(super) fn say_end(&self, number: u32, why: Ending) {
        self.carrier.put_end(number, why);
        self.carrier.wake();
    }

    fn is_idle(&self) -> bool {
        self.numbers.borrow().is_empty()
    }
}

impl Way {
    /// When it has been open without flows for long enough.
    pub(super) fn idle_until(&self) -> Option<Now> {
        let Way::Open(link) = self else { return None };
        let until = link.idle_since.get().as_millis() + IDLE.as_millis() as u64;
        link.is_idle().then(|| Now::from_millis(until))
    }
}

impl Outer {
    /// The link for a new flow. Without one it is asked for, and what came waits: none then.
    pub(super) fn link(self: &Rc<Self>, key: FlowKey, cargo: Cargo<'_>) -> Option<Rc<Link>> {
        let mut way = self.way.borrow_mut();
        match &*way {
            Way::Open(link) => return Some(link.clone()),
            Way::Lost(until) if now() < *until => {
                self.flows.count_drop(UdpDrop::NoFlow, cargo.count() as u64);
                return None;
            }
            Way::Unasked | Way::Lost(_) => {
                let task =
                    self.scope.spawn_leashed(ask(Rc::downgrade(self), self.service.borrow().way.clone()));
                *way = Way::Asked { waiting: Waiting::default(), _task: task };
            }
            Way::Asked { .. } => {}
        }
        let Way::Asked { waiting, .. } = &mut *way else { return None };
        let dropped = cargo.datagrams().filter(|datagram| !waiting.push(key, datagram)).count();
        self.flows.count_drop(UdpDrop::NoFlow, dropped as u64);
        None
    }

    /// Begins no more flows on the way there is.
    pub(super) fn leave_way(&self) {
        if let Way::Asked { waiting, .. } = self.way.take() {
            self.flows.count_drop(UdpDrop::Draining, waiting.len() as u64);
        }
    }

    /// Lets the way go that has been without flows for long enough.
    pub(super) fn leave_idle_way(&self) {
        if self.way.borrow().idle_until().is_some_and(|until| until <= now()) {
            self.way.take();
        }
    }

    /// The way was opened, or it was not.
    fn arrive(self: &Rc<Self>, carried: Result<Carried, ConnectError>) {
        let carried =
            carried.and_then(|Carried { carry, gates, over }| Ok((Carrier::outer(carry)?, gates, over)));
        let (next, link) = match carried {
            Ok((carrier, gates, over)) => {
                let link = Rc::new(Link {
                    carrier: Rc::new(carrier),
                    gates,
                    numbers: RefCell::default(),
                    idle_since: Cell::new(now()),
                    task: Cell::new(None),
                });
                let run = run(Rc::downgrade(self), Rc::downgrade(&link), link.carrier.clone(), over);
                link.task.set(Some(self.scope.spawn_leashed(run)));
                (Way::Open(link.clone()), Some(link))
            }
            Err(error) => {
                tracing::debug!(listener = %self.flows.metrics().name, %error, "no way for datagrams");
                (Way::Lost(later()), None)
            }
        };
        // Its task is the one that runs here, and ends with this.
        let Way::Asked { waiting, _task } = self.way.replace(next) else { return };
        match link {
            Some(_) => waiting.each(|key, datagrams| self.forward_client(key, Cargo::Loose(datagrams))),
            None => self.flows.count_drop(UdpDrop::NoFlow, waiting.len() as u64),
        }
        // For when it will have been idle for too long.
        self.flows.wake();
    }

    /// Ends the flows of a link that broke off.
    fn lose(&self, link: &Rc<Link>) {
        let is_current = matches!(&*self.way.borrow(), Way::Open(current) if Rc::ptr_eq(current, link));
        if is_current {
            self.way.replace(Way::Lost(later()));
        }
        let ids: Vec<_> = link.numbers.borrow().values().copied().collect();
        for id in ids {
            let ended = self.flows.table().end(id);
            ended.into_iter().for_each(flow::cut_off);
        }
        self.flows.tell_oldest();
    }
}

fn later() -> Now {
    Now::from_millis(now().as_millis() + PAUSE.as_millis() as u64)
}

/// The task that asks for a way.
async fn ask(outer: Weak<Outer>, way: Arc<dyn DatagramWay>) {
    let asking = Asking(outer);
    let late = |_| Err(ConnectError::new(Fault::TimedOut, "no way within some seconds"));
    let carried = timeout(PATIENCE, way.carry()).await.unwrap_or_else(late);
    asking.done(carried);
}

/// Sees that a defect of a way does not have visitors wait for ever.
struct Asking(Weak<Outer>);

impl Asking {
    fn done(&self, carried: Result<Carried, ConnectError>) {
        if let Some(outer) = self.0.upgrade() {
            outer.arrive(carried);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.done(Err(ConnectError::new(Fault::Other, "a defect")));
        }
    }
}

/// The task of a link: hands over what comes until it breaks off.
async fn run(
    outer: Weak<Outer>,
    link: Weak<Link>,
    carrier: Rc<Carrier>,
    over: Option<watch::Receiver<bool>>,
) {
    let answers = flow::Answers { outer: outer.clone(), link: link.clone() };
    let result = tokio::select! {
        result = carrier.run(&answers) => result,
        () = until(over) => Err(io::Error::other("the session is over")),
    };
    let (Some(outer), Some(link)) = (outer.upgrade(), link.upgrade()) else { return };
    tracing::debug!(listener = %outer.flows.metrics().name, ?result, "the way of datagrams ended");
    outer.lose(&link);
}

/// Waits until it turns true, or who would say so is gone; for ever where nobody is to.
async fn until(over: Option<watch::Receiver<bool>>) {
    match over {
        Some(mut over) => drop(over.wait_for(|over| *over).await),
        None => std::future::pending().await,
    }
}
