//! The way to a service: a stream in its client's session, for a visitor or for datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wmproxy_net::connect::{Connect, ConnectError, Connecting, ConnectingAlone, Fault, Visitor};
use wmproxy_net::limit::Permit;
use wmproxy_net::stream::{Stream, throttle};
use wmproxy_wire::destination::{Destination, Host};
use wmproxy_wire::tunnel::message::{Form, Message, Start};

use super::client::{Ready, Taken};
use super::directory::Reachable;
use super::tunnel_server::TunnelServer;
use crate::carrier::speech::write_message;
use crate::datagrams::{Carried, Carry, Carrying, DatagramWay};

/// What a service's client is told of who comes.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) form: Form,
    pub(super) visitor: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    /// The client that it is, if it visits a private service.
    pub(super) client: Option<Arc<str>>,
}

/// A stream's place behind the limits of a client and of its service.
type Places = (Permit, Permit);

impl TunnelServer {
    /// Opens a stream to a service: its first message is on the way when this returns.
    pub(super) async fn open(&self, name: &str, arrival: Arrival) -> Result<Stream, ConnectError> {
        let opened = self.try_open(name, arrival).await;
        match &opened {
            Ok(_) => self.count(|counters| &counters.streams),
            Err(_) => self.count(|counters| &counters.streams_refused),
        }
        opened
    }

    async fn try_open(&self, name: &str, arrival: Arrival) -> Result<Stream, ConnectError> {
        let member = self.find(name)?;
        let places = match arrival.form {
            Form::Bytes => Some(enter(&member)?),
            // Flows are counted, not what carries them.
            Form::Datagrams => None,
        };
        let limit = self.spec().wait_timeout;
        let reached = tokio::time::timeout(limit, self.reach(name, arrival)).await;
        let mut stream = reached.unwrap_or_else(|_| Err(late()))?;
        let Some(places) = places else { return Ok(stream) };
        for gate in [&member.client.gate, &member.gate] {
            stream = throttle(stream, gate);
        }
        stream.keep(Box::new(places));
        Ok(stream)
    }

    fn find(&self, name: &str) -> Result<Arc<Reachable>, ConnectError> {
        let found = self.directory.load().find(name).cloned();
        found.ok_or_else(|| ConnectError::new(Fault::HostUnreachable, format!("nobody offers {name}")))
    }

    /// Takes what is ready until something of it lives. Nothing of the visitor is lost by that: it has sent nothing yet.
    async fn reach(&self, name: &str, arrival: Arrival) -> Result<Stream, ConnectError> {
        loop {
            let (member, ready) = self.ready(name).await?;
            let Some(stream) = ready.open().await.map_err(no_room)? else {
                self.count(|counters| &counters.pool_dead);
                continue;
            };
            let start = Message::Start(Start {
                service: member.service.id,
                form: arrival.form,
                visitor: arrival.visitor,
                local: arrival.local,
                client: arrival.client.as_deref().map(str::to_owned),
            });
            match write_message(&stream, &start).await {
                Ok(()) => return Ok(stream),
                Err(_) => self.count(|counters| &counters.pool_dead),
            }
        }
    }

    /// Waits for something that streams of a service's session are made of.
    async fn ready(&self, name: &str) -> Result<(Arc<Reachable>, Ready), ConnectError> {
        loop {
            let member = self.find(name)?;
            let ready = match member.client.take(self.spec().max_waiting) {
                Taken::Ready(ready) => ready,
                Taken::Wait(told) => told.await.map_err(|_| late())?,
                Taken::Full => {
                    return Err(ConnectError::new(Fault::Limited, "as many visitors wait as may"));
                }
            };
            // The service may have another number since, or another session may.
            let member = self.find(name)?;
            if member.session == Some(ready.session.number) {
                return Ok((member, ready));
            }
        }
    }
}

/// Takes a place behind each limit.
fn enter(member: &Reachable) -> Result<Places, ConnectError> {
    let limited = || ConnectError::new(Fault::Limited, "as many visitors are there as may");
    let of_client = member.client.gate.try_enter().ok_or_else(limited)?;
    let of_service = member.gate.try_enter().ok_or_else(limited)?;
    Ok((of_client, of_service))
}

fn no_room(error: io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => ConnectError::new(Fault::Limited, error.to_string()),
        _ => error.into(),
    }
}

fn late() -> ConnectError {
    ConnectError::new(Fault::TimedOut, "the client did not take the visitor in time")
}

/// The service that a destination names.
fn service_of(to: &Destination) -> Result<&str, ConnectError> {
    match &to.host {
        Host::Name(name) => Ok(name),
        Host::Ip(_) => Err(ConnectError::new(Fault::Unsupported, "services have names, and no addresses")),
    }
}

impl Connect for TunnelServer {
    fn connect<'a>(&'a self, to: &'a Destination) -> Connecting<'a> {
        self.connect_for(to, &Visitor::NOBODY)
    }

    fn connect_alone<'a>(&'a self, to: &'a Destination) -> ConnectingAlone<'a> {
        Box::pin(async { self.open(service_of(to)?, bytes_for(&Visitor::NOBODY)).await })
    }

    fn connect_for<'a>(&'a self, to: &'a Destination, visitor: &'a Visitor) -> Connecting<'a> {
        Box::pin(async { self.open(service_of(to)?, bytes_for(visitor)).await })
    }
}

fn bytes_for(visitor: &Visitor) -> Arrival {
    Arrival { form: Form::Bytes, visitor: visitor.client, local: visitor.local, client: None }
}

/// The way for the datagrams of an exposure.
struct Way {
    server: Arc<TunnelServer>,
    members: Vec<Arc<str>>,
    /// Which of them is next.
    next: AtomicUsize,
}

impl TunnelServer {
    /// The way for the datagrams of a listener, to whichever of these members is there: to each in turn.
    pub fn datagram_way(self: &Arc<Self>, members: Vec<Arc<str>>) -> Arc<dyn DatagramWay> {
        Arc::new(Way { server: self.clone(), members, next: AtomicUsize::new(0) })
    }
}

impl Way {
    /// A member whose client is there, or at least one that is known.
    fn choose(&self) -> Result<Arc<Reachable>, ConnectError> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.members.len().max(1);
        let turn = |step| self.members.get(first.wrapping_add(step) % count);
        let directory = self.server.directory.load();
        let known: Vec<_> =
            (0..count).filter_map(turn).filter_map(|name| directory.find(name)).cloned().collect();
        let here = known.iter().find(|member| member.is_here()).or(known.first());
        here.cloned().ok_or_else(|| ConnectError::new(Fault::HostUnreachable, "nobody offers it"))
    }

    async fn open(&self) -> Result<Carried, ConnectError> {
        let member = self.choose()?;
        let gates = vec![member.client.gate.clone(), member.gate.clone()];
        let limit = self.server.spec().wait_timeout;
        let is_quic = member.client.session().is_some_and(|session| session.datagrams.is_some());
        if is_quic {
            let ready = tokio::time::timeout(limit, self.server.ready(&member.name)).await;
            let (member, ready) = ready.unwrap_or_else(|_| Err(late()))?;
            if let Some(hub) = &ready.session.datagrams {
                let over = Some(ready.session.mailbox.watch_over());
                return Ok(Carried { carry: Carry::Quic(hub.service(member.service.id)), gates, over });
            }
        }
        let arrival = Arrival { form: Form::Datagrams, visitor: None, local: None, client: None };
        let stream = self.server.open(&member.name, arrival).await?;
        let over = member.client.session().map(|session| session.mailbox.watch_over());
        Ok(Carried { carry: Carry::Stream(stream), gates, over })
    }
}

impl DatagramWay for Way {
    fn carry(&self) -> Carrying<'_> {
        Box::pin(self.open())
    }
}
