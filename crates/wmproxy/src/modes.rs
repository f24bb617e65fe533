//! The one list of what a listener can be, and how each runs on a worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use wmproxy_forward::service::ForwardService;
use wmproxy_http::HttpService;
use wmproxy_net::accept::{Accepting, Service};
use wmproxy_net::addr::Protocol;
use wmproxy_net::listen::Listener;
use wmproxy_net::record::AccessLog;
use wmproxy_net::tls::Acceptor;
use wmproxy_runtime::scope::Scope;
use wmproxy_stream::options::StreamSpec;
use wmproxy_stream::route::Routes;
use wmproxy_stream::tcp::TcpService;
use wmproxy_stream::udp::{UdpListener, UdpService};
use wmproxy_tunnel::datagrams::outer::{DatagramListener, OuterService};
use wmproxy_upstream::Group;

use crate::observe::visits::VisitFile;
use crate::tunnel::quic::{self, QuicDoor, QuicService};

/// What is served on a listener: a mode with everything that it needs, the same on every worker.
#[derive(Clone)]
pub(crate) enum Mode {
    /// Connections.
    Tcp(Service),
    /// Datagrams.
    Udp(Box<UdpService>),
    /// Datagrams that go through a tunnel.
    Tunnelled(Box<OuterService>),
    /// Clients of a tunnel server, over QUIC. Its listener has one socket.
    Quic(QuicService),
}

impl Mode {
    /// A layer-4 proxy.
    pub(crate) fn stream(
        spec: &StreamSpec,
        protocol: Protocol,
        routes: Arc<Routes<Arc<Group>>>,
        tls: Option<Arc<Acceptor>>,
        log: Option<Arc<dyn AccessLog>>,
    ) -> Mode {
        match protocol {
            Protocol::Tcp => Mode::Tcp(Service { serve: TcpService::new(spec.clone(), routes, tls), log }),
            Protocol::Udp => Mode::Udp(Box::new(UdpService { spec: spec.clone(), routes, log })),
        }
    }

    /// A forward proxy. Its requests of HTTP are written down one by one, whatever else as a record.
    pub(crate) fn forward(service: Arc<ForwardService>, log: Option<Arc<VisitFile>>) -> Mode {
        Mode::Tcp(Service { serve: service, log: log.map(|log| log as Arc<dyn AccessLog>) })
    }

    /// An HTTP server. It writes its requests down itself, and of its connections only those that came to none.
    pub(crate) fn http(service: Arc<HttpService>) -> Mode {
        Mode::Tcp(Service { log: service.refusals(), serve: service })
    }
}

/// What a worker needs to run its part of a listener.
#[derive(Clone)]
pub(crate) struct Job {
    /// Names the bound address for as long as the process lives.
    pub(crate) id: u64,
    pub(crate) listener: Arc<Listener>,
    pub(crate) mode: Mode,
}

/// The scopes of a worker's tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scopes {
    /// Connections and flows: what a drain waits for.
    pub(crate) connections: Scope,
    /// Accept loops, which end when they are told to.
    pub(crate) listeners: Scope,
}

enum Running {
    Tcp(Accepting),
    Udp(UdpListener),
    Tunnelled(DatagramListener),
    Quic(QuicDoor),
}

impl Running {
    /// Whether it was told to end, and has.
    fn has_ended(&self) -> bool {
        match self {
            // They go at once when they are told to.
            Running::Tcp(_) | Running::Quic(_) => false,
            Running::Udp(udp) => udp.has_ended(),
            Running::Tunnelled(udp) => udp.has_ended(),
        }
    }

    /// Takes it out of service, and flows at their first silence.
    fn drain(self) {
        match self {
            Running::Tcp(accepting) => accepting.finish(),
            Running::Udp(udp) => udp.drain(),
            Running::Tunnelled(udp) => udp.drain(),
            Running::Quic(door) => drop(door),
        }
    }
}

thread_local! {
    /// The listeners of this worker.
    static RUNNING: RefCell<HashMap<u64, Running>> = RefCell::default();
}

/// Starts a listener on the calling worker, which is number `worker`.
pub(crate) fn start(worker: usize, job: Job, scopes: &Scopes) -> io::Result<()> {
    let Job { id, listener, mode } = job;
    let running = match mode {
        Mode::Tcp(service) => {
            let connections = scopes.connections.clone();
            Running::Tcp(Accepting::start(listener, worker, service, connections, &scopes.listeners)?)
        }
        Mode::Udp(service) => {
            Running::Udp(UdpListener::start(listener, worker, *service, scopes.connections.clone())?)
        }
        Mode::Tunnelled(service) => {
            let connections = scopes.connections.clone();
            Running::Tunnelled(DatagramListener::start(listener, worker, *service, connections)?)
        }
        Mode::Quic(_) if worker != quic::WORKER => return Ok(()),
        Mode::Quic(service) => Running::Quic(QuicDoor::start(&listener, service, scopes)?),
    };
    RUNNING.with_borrow_mut(|all| all.insert(id, running));
    Ok(())
}

/// Gives a listener of the calling worker something else to serve; what is open stays as it is. One that has ended
/// meanwhile is started again.
pub(crate) fn replace(worker: usize, job: Job, scopes: &Scopes) -> io::Result<()> {
    let replaced = RUNNING.with_borrow(|all| match (all.get(&job.id), &job.mode) {
        (Some(Running::Tcp(accepting)), Mode::Tcp(service)) => {
            accepting.replace(job.listener.clone(), service.clone());
            Some(Ok(()))
        }
        (Some(Running::Udp(udp)), Mode::Udp(service)) => {
            udp.replace(&job.listener, service).then_some(Ok(()))
        }
        (Some(Running::Tunnelled(udp)), Mode::Tunnelled(service)) => {
            udp.replace(&job.listener, service).then_some(Ok(()))
        }
        (Some(Running::Quic(door)), Mode::Quic(service)) => match door.replace(service) {
            Ok(is_replaced) => is_replaced.then_some(Ok(())),
            Err(error) => Some(Err(error)),
        },
        _ => None,
    });
    replaced.unwrap_or_else(|| start(worker, job, scopes))
}

/// Takes a listener of the calling worker out of service. Its connections and flows go on.
pub(crate) fn retire(id: u64) {
    RUNNING.with_borrow_mut(|all| {
        all.retain(|_, running| !running.has_ended());
        let Some(running) = all.remove(&id) else { return };
        match &running {
            Running::Tcp(_) | Running::Quic(_) => return running.drain(),
            Running::Udp(udp) => udp.finish(),
            Running::Tunnelled(udp) => udp.finish(),
        }
        // It answers its clients until the last flow has ended, and may be wanted again before that.
        all.insert(id, running);
    });
}

/// Takes back a listener that was just started: nobody has come to it yet.
pub(crate) fn cancel(id: u64) {
    RUNNING.with_borrow_mut(|all| match all.remove(&id) {
        Some(running @ (Running::Udp(_) | Running::Tunnelled(_))) => running.drain(),
        Some(Running::Tcp(_) | Running::Quic(_)) | None => {}
    });
}

/// Takes all listeners of the calling worker out of service, for good.
pub(crate) fn drain() {
    RUNNING.with_borrow_mut(|all| {
        all.drain().for_each(|(_, running)| running.drain());
    });
    wmproxy_upstream::idle::close_all();
    wmproxy_http::close_shared();
}
