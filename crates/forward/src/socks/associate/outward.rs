//! From the client to where its datagrams say.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use wmproxy_http::forward::{Kind, Visit};
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::limit::Direction;
use wmproxy_net::record::UdpDrop;
use wmproxy_net::udp::{Batch, Message, Train, has_way};
use wmproxy_runtime::clock;
use wmproxy_wire::destination::Destination;
use wmproxy_wire::socks::{self, datagram};

use super::link::Link;
use super::session::{SCOPE, Session};
use super::targets::{Entry, Target};
use crate::egress::DatagramWay;

/// How long what the rules said of a destination is gone by: they may name times of day.
const VERDICT: Duration = Duration::from_secs(60);

/// How long a name's address is kept to. Those behind it expect one client to stay with one of them, however short the time
/// is that their records may be cached.
const NAME: Duration = Duration::from_secs(300);

/// How long a name that was not found is not looked for again. That it is not there is cached elsewhere; this is for
/// whoever sends on and on.
const UNRESOLVED: Duration = Duration::from_secs(1);

/// How long a name may take to be found. Nobody waits longer for the answer to a datagram.
const PATIENCE: Duration = Duration::from_secs(10);

/// The bytes before the key of a destination in a header: reserved, reserved, FRAG.
pub(super) const PREFIX: usize = 3;

/// What is done with the datagrams at hand.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the stack, and most are trains")]
enum Course<'a> {
    /// They are sent to an address.
    Train(Train<'a>),
    /// They are sent to a parent.
    Link(Rc<Link>, Vec<&'a [u8]>),
    /// They wait for their name.
    Wait,
    Drop(UdpDrop),
}

/// Datagrams of one destination on their way.
struct Load<'a> {
    session: &'a Rc<Session>,
    /// What all of them begin with.
    header: &'a [u8],
    course: Course<'a>,
    datagrams: usize,
}

impl Session {
    /// Sends messages of one batch on, those of one destination in their order.
    pub(super) fn forward<'a>(
        self: &'a Rc<Self>,
        batch: &'a Batch<'_>,
        messages: impl Iterator<Item = &'a Message>,
    ) {
        let is_paced = self.is_paced(Direction::Up);
        let mut load = Load::new(self);
        let mut arrived = 0;
        for message in messages {
            let count = message.count();
            if message.truncated {
                self.count_drop(UdpDrop::Malformed, count);
                continue;
            }
            if !self.is_from_client(message) {
                self.count_drop(UdpDrop::Stranger, count);
                continue;
            }
            arrived += count;
            for at in 0..count {
                let datagram = batch.datagram(message, at);
                match load.turn_to(datagram) {
                    Ok(()) => self.lock_to(message),
                    Err(why) => {
                        self.count_drop(why, 1);
                        continue;
                    }
                }
                let is_limited = is_paced && !matches!(load.course, Course::Drop(_));
                if is_limited && !self.admits(Direction::Up, datagram.len() - load.header.len()) {
                    self.count_drop(UdpDrop::OverRate, 1);
                } else {
                    load.push(datagram);
                }
            }
        }
        load.flush();
        if arrived > 0 {
            self.metrics().blocks.local().udp_batch_in.record(arrived as u64);
        }
    }

    /// Finds out what is done with datagrams for a destination.
    fn course<'a>(self: &'a Rc<Self>, target: &socks::Target<'_>, key: &[u8]) -> Course<'a> {
        let now = clock::now();
        let known = self.targets.borrow_mut().course(key, now);
        if let Some(target) = known {
            return self.follow(target);
        }
        if self.held.borrow_mut().find(key).is_some() {
            return Course::Wait;
        }
        let Ok(destination) = target.destination() else { return Course::Drop(UdpDrop::Malformed) };
        if destination.port == 0 {
            return Course::Drop(UdpDrop::Malformed);
        }
        match self.judge(&destination) {
            Ok(Some(target)) => {
                self.learn(key, target, VERDICT);
                self.follow(target)
            }
            Ok(None) if self.held.borrow_mut().begin(key) => {
                let task = self.clone().look_up(key.into(), destination);
                let leash = SCOPE.with(|scope| scope.spawn_leashed(task));
                self.held.borrow_mut().keep(key, leash);
                Course::Wait
            }
            Ok(None) => Course::Drop(UdpDrop::Unresolved),
            Err(error) => {
                tracing::debug!(listener = %self.metrics().name, to = %destination, %error, "no datagrams for SOCKS");
                let why = reason(&error);
                self.learn(key, Target::Refused(why), VERDICT);
                Course::Drop(why)
            }
        }
    }

    fn follow<'a>(self: &'a Rc<Self>, target: Target) -> Course<'a> {
        match target {
            Target::Direct(address) => {
                self.train_to(address).map_or(Course::Drop(UdpDrop::NoFlow), Course::Train)
            }
            Target::Link(number) => match self.link(number) {
                Some(link) => Course::Link(link, Vec::new()),
                None => Course::Drop(UdpDrop::NoFlow),
            },
            Target::Refused(why) => Course::Drop(why),
            // Never said of what is to be sent.
            Target::Heard => Course::Drop(UdpDrop::Denied),
        }
    }

    /// Asks the rules. Where they need the addresses of a name for their answer, there is none yet.
    fn judge(self: &Rc<Self>, destination: &Destination) -> Result<Option<Target>, ConnectError> {
        let visit = self.visit(destination);
        let way = self.terms.gateway.way(&visit)?;
        self.note(destination, &way.name);
        match (self.terms.gateway.datagram_way(&way), destination.address()) {
            (DatagramWay::Direct, Some(address)) => {
                self.terms.gateway.permits(address, &visit)?;
                Ok(Some(Target::Direct(address)))
            }
            (DatagramWay::Direct, None) => Ok(None),
            (DatagramWay::Chain(chain), _) => self.link_through(&chain).map(|link| Some(Target::Link(link))),
        }
    }

    fn visit<'a>(&'a self, to: &'a Destination) -> Visit<'a> {
        let client = self.source().unwrap_or_else(|| SocketAddr::new(self.client(), 0));
        Visit { to, kind: Kind::Udp, guest: &self.terms.guest, client: Some(client) }
    }

    /// Notes where the first datagram goes.
    fn note(&self, destination: &Destination, way: &std::sync::Arc<str>) {
        let mut record = self.record();
        let forwarded = record.forwarded_mut();
        if forwarded.destination.is_none() {
            forwarded.destination = Some(destination.clone());
            forwarded.way = Some(way.clone());
        }
    }

    fn learn(&self, key: &[u8], target: Target, time: Duration) {
        let until = clock::now() + time;
        self.targets.borrow_mut().insert(key.into(), Entry { target, until });
    }

    /// Looks a name up and sends on what has waited for it.
    async fn look_up(self: Rc<Self>, key: Box<[u8]>, destination: Destination) {
        let looking = self.terms.gateway.resolve(self.visit(&destination));
        let found = tokio::time::timeout(PATIENCE, looking).await;
        let found = found
            .unwrap_or_else(|_| Err(ConnectError::new(Fault::TimedOut, "the name was not found in time")));
        self.guarded(|| {
            let (target, time) = match &found {
                Ok(addresses) => choose(addresses, self.client().is_ipv4())
                    .map_or((Target::Refused(UdpDrop::Unresolved), UNRESOLVED), |address| {
                        (Target::Direct(address), NAME)
                    }),
                Err(error) => {
                    tracing::debug!(listener = %self.metrics().name, to = %destination, %error, "no datagrams for SOCKS");
                    match reason(error) {
                        UdpDrop::Denied => (Target::Refused(UdpDrop::Denied), VERDICT),
                        _ => (Target::Refused(UdpDrop::Unresolved), UNRESOLVED),
                    }
                }
            };
            self.learn(&key, target, time);
            if let Target::Direct(address) = target {
                let until = clock::now() + time;
                self.targets.borrow_mut().hear(&datagram::header(address)[PREFIX..], until);
            }
        });
        // It holds the leash of this very task, which has nothing more to wait for.
        let Some(wait) = self.held.borrow_mut().release(&key) else { return };
        self.guarded(|| {
            let known = self.targets.borrow_mut().course(&key, clock::now());
            let course = known.map_or(Course::Drop(UdpDrop::Unresolved), |target| self.follow(target));
            let mut load = Load { session: &self, header: &[], course, datagrams: 0 };
            wait.shelf.datagrams().iter().for_each(|datagram| load.push(datagram));
            load.flush();
        });
    }

    fn train_to<'a>(self: &'a Rc<Self>, address: SocketAddr) -> Option<Train<'a>> {
        let outlet = self.outlet(address.is_ipv4());
        let unusable = |error: &std::io::Error| {
            tracing::debug!(listener = %self.metrics().name, %error, "no socket for the datagrams of SOCKS");
        };
        let socket = outlet.inspect_err(unusable).ok()?;
        Some(Train::to_client(socket, address, None, &self.metrics().blocks.local().udp_batch_to_peer))
    }
}

impl<'a> Load<'a> {
    fn new(session: &'a Rc<Session>) -> Load<'a> {
        Load { session, header: &[], course: Course::Wait, datagrams: 0 }
    }

    /// Sees to it that the course is that of a datagram.
    fn turn_to(&mut self, datagram: &'a [u8]) -> Result<(), UdpDrop> {
        if !self.header.is_empty() && datagram.starts_with(self.header) {
            return Ok(());
        }
        let Ok((header, length)) = datagram::parse(datagram) else { return Err(UdpDrop::Malformed) };
        if header.fragment != 0 {
            return Err(UdpDrop::Fragment);
        }
        self.flush();
        self.header = &datagram[..length];
        self.course = self.session.course(&header.target, &self.header[PREFIX..]);
        Ok(())
    }

    /// Takes on a datagram of that course.
    fn push(&mut self, datagram: &'a [u8]) {
        let data = &datagram[self.header.len()..];
        match &mut self.course {
            Course::Train(train) => train.push(data, 0),
            // The parent reads the header.
            Course::Link(_, datagrams) => datagrams.push(datagram),
            Course::Wait => {
                let mut held = self.session.held.borrow_mut();
                let wait = held.find(&self.header[PREFIX..]);
                if !wait.is_some_and(|wait| wait.shelf.push(data)) {
                    self.session.count_drop(UdpDrop::Unresolved, 1);
                }
                return;
            }
            Course::Drop(why) => return self.session.count_drop(*why, 1),
        }
        self.datagrams += 1;
    }

    /// Sends what was taken on.
    fn flush(&mut self) {
        let datagrams = std::mem::take(&mut self.datagrams);
        match std::mem::replace(&mut self.course, Course::Drop(UdpDrop::NoFlow)) {
            Course::Train(train) if datagrams > 0 => {
                self.session.settle(Direction::Up, &train.finish(), datagrams, 0);
            }
            Course::Link(link, all) if datagrams > 0 => {
                self.session.forward_to(&link, &all, self.header.len())
            }
            _ => {}
        }
    }
}

/// Of a name's addresses the first that this machine knows a way to. Those of the client's own family come first: answers
/// say by their address where they come from, and not every client that speaks IPv4 can read one of IPv6.
fn choose(addresses: &[SocketAddr], is_ipv4: bool) -> Option<SocketAddr> {
    if let [only] = addresses {
        return Some(*only);
    }
    let (own, other): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv4() == is_ipv4);
    let mut sorted = own.into_iter().chain(other);
    let first = sorted.clone().next();
    sorted.find(|address| has_way(*address)).or(first)
}

fn reason(error: &ConnectError) -> UdpDrop {
    match error.fault {
        Fault::Denied => UdpDrop::Denied,
        Fault::Unresolved | Fault::TimedOut => UdpDrop::Unresolved,
        _ => UdpDrop::NoFlow,
    }
}
