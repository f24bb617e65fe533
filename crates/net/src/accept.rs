//! The one accept loop of the program.
//!
//! A permit is taken before a connection is accepted, so that who is over the limit waits in the kernel's queue and
//! costs us nothing. Nothing that waits on a client runs in the loop.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wmproxy_runtime::scope::{Leash, Scope};

use crate::addr::Address;
use crate::conn::{Conn, Serve};
use crate::limit::Permit;
use crate::listen::{BACKLOG, Listener};
use crate::pressure;
use crate::record::{AcceptErrorKind, AccessLog, Outcome, Record};
use crate::sockopt;
use crate::stream::Stream;
use crate::sys;

/// Connections accepted before other tasks of the worker get their turn.
const BURST: usize = 16;

/// What is done with the connections of a listener; a reload puts another in its place.
#[derive(Clone)]
pub struct Service {
    /// The mode.
    pub serve: Arc<dyn Serve>,
    /// Where records go.
    pub log: Option<Arc<dyn AccessLog>>,
}

/// A listener at work on this worker. Dropping it stops it and throws away what waits in the queue; see
/// [`Accepting::finish`].
pub struct Accepting {
    acceptor: Rc<Acceptor>,
    listeners: Scope,
    _task: Leash,
}

struct Acceptor {
    socket: AsyncFd<Arc<OwnedFd>>,
    listener: RefCell<Arc<Listener>>,
    scope: Scope,
    service: RefCell<Service>,
}

enum Accepted {
    One,
    Empty,
    /// A client went away. Counts like one that stayed: an error that repeats must not hold the worker.
    Failed,
    Exhausted(io::Error),
    Dead(io::Error),
}

impl Accepting {
    /// Begins to accept on this worker. Connections are tasks of `connections`; the loop itself of `listeners`.
    ///
    /// # Errors
    /// The worker's event queue takes no more.
    pub fn start(
        listener: Arc<Listener>,
        worker: usize,
        service: Service,
        connections: Scope,
        listeners: &Scope,
    ) -> io::Result<Accepting> {
        let socket = sys::watch(listener.bound.socket(worker), Interest::READABLE)?;
        let acceptor = Rc::new(Acceptor {
            socket,
            listener: RefCell::new(listener),
            scope: connections,
            service: RefCell::new(service),
        });
        let task = listeners.spawn_leashed(acceptor.clone().run());
        Ok(Accepting { acceptor, listeners: listeners.clone(), _task: task })
    }

    /// Serves connections from now on with something else, and counts them in `listener`, which has the same sockets.
    /// Those that are open keep what they have.
    pub fn replace(&self, listener: Arc<Listener>, service: Service) {
        self.acceptor.listener.replace(listener);
        let old = self.acceptor.service.replace(service);
        let new = self.acceptor.service.borrow().serve.clone();
        old.serve.replaced(&new);
    }

    /// Stops, but first lets in whoever the kernel has promised it: for those clients the connection stands, or soon will.
    /// What waits in the queue is in when this returns; who is on the way comes in later, by a task of `listeners`.
    pub fn finish(self) {
        let bound = self.acceptor.listener.borrow().bound.clone();
        let is_passed_by = bound.step_aside();
        if !is_passed_by {
            // Or whoever came between the last look and the close would be let in by the kernel and then be reset. Where
            // the system can't do that either, so it is.
            let _ = sockopt::refuse_newcomers(self.acceptor.socket.get_ref());
        }
        self.let_in();
        let serve = self.acceptor.service.borrow().serve.clone();
        serve.retire();
        if is_passed_by {
            self.listeners.clone().spawn(async move {
                // The loop goes on meanwhile.
                bound.until_deserted().await;
                self.let_in();
            });
        }
    }

    fn let_in(&self) {
        // Bounded, for where nothing else helps the socket still listens: a storm must not keep the worker here.
        for _ in 0..BACKLOG {
            let permit = self.acceptor.listener.borrow().gate.try_enter();
            match permit.map(|permit| self.acceptor.accept(permit)) {
                Some(Accepted::One) => {}
                _ => return,
            }
        }
    }
}

impl Acceptor {
    async fn run(self: Rc<Self>) {
        loop {
            let mut ready = match self.socket.readable().await {
                Ok(ready) => ready,
                Err(error) => return self.report_dead(&error),
            };
            for _ in 0..BURST {
                if pressure::is_high() {
                    self.pause().await;
                    break;
                }
                let gate = self.listener.borrow().gate.clone();
                let permit = gate.enter().await;
                // A defect may cost this connection, but not all the later ones of the listener.
                let accepted = catch_unwind(AssertUnwindSafe(|| self.accept(permit)));
                match accepted.unwrap_or(Accepted::One) {
                    Accepted::One | Accepted::Failed => {}
                    Accepted::Empty => {
                        ready.clear_ready();
                        break;
                    }
                    Accepted::Exhausted(error) => {
                        pressure::note(&error);
                        self.pause().await;
                        break;
                    }
                    Accepted::Dead(error) => return self.report_dead(&error),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn accept(&self, permit: Permit) -> Accepted {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let error = match acceptfrom_with(self.socket.get_ref(), flags) {
                Ok((fd, from)) => {
                    // It is in; the next ones wait until it has its second descriptor, too.
                    if let Err(error) = pressure::check(&fd) {
                        pressure::note(&error);
                    }
                    let client = from.and_then(|addr| SocketAddr::try_from(addr).ok());
                    self.begin(fd, client, permit);
                    return Accepted::One;
                }
                Err(Errno::AGAIN) => return Accepted::Empty,
                Err(Errno::INTR) => continue,
                Err(error) => error,
            };
            let kind = sort(error);
            self.listener.borrow().metrics.blocks.local().accept_errors[kind as usize].add(1);
            match kind {
                AcceptErrorKind::Client => return Accepted::Failed,
                AcceptErrorKind::Resources => return Accepted::Exhausted(error.into()),
                AcceptErrorKind::Socket => return Accepted::Dead(error.into()),
            }
        }
    }

    fn begin(&self, fd: OwnedFd, client: Option<SocketAddr>, permit: Permit) {
        let Service { serve, log, .. } = self.service.borrow().clone();
        let listener = self.listener.borrow();
        let mut record = Record::open(listener.metrics.clone(), log, client);
        let inet = client.is_some();
        let stream = match Stream::new(fd, inet) {
            Ok(stream) => stream,
            Err(_) => return record.close(Outcome::NoResources),
        };
        let mut conn = Conn { stream, record, permit };
        if !serve.speaks_for_another(client)
            && let Err(refused) = conn.claim()
        {
            conn.record.close(refused);
            return conn.stream.reset_on_close();
        }
        // Known beforehand, unless the listener has several addresses.
        if listener.bound.has_many_addresses()
            && let Ok(Address::Inet(local)) = conn.stream.local_address()
        {
            conn.record.local = Some(local.ip());
        }
        self.scope.spawn_boxed(serve.serve(conn));
    }

    /// Rests until there are descriptors again.
    async fn pause(&self) {
        let metrics = self.listener.borrow().metrics.clone();
        let block = metrics.blocks.local();
        block.accept_pauses.add(1);
        loop {
            tokio::time::sleep(pressure::PAUSE).await;
            if !pressure::is_short(self.socket.get_ref()) {
                break;
            }
        }
        block.accept_resumes.add(1);
    }

    fn report_dead(&self, error: &io::Error) {
        tracing::error!(listener = %self.listener.borrow().metrics.name, %error, "the listening socket failed; nothing is accepted there");
    }
}

/// Whose trouble a failure of accept(2) is.
fn sort(error: Errno) -> AcceptErrorKind {
    match error {
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => AcceptErrorKind::Resources,
        Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT => {
            AcceptErrorKind::Socket
        }
        // Linux passes network errors of the new connection on through accept(2).
        _ => AcceptErrorKind::Client,
    }
}
