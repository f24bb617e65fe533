//! The flows of services that take datagrams.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use wmproxy_net::udp::UdpSocket;

use super::offers::{Offered, Offers};
use super::serve::Served;
use super::session::Session;
use super::{DatagramEnd, End};
use crate::datagrams::Carry;
use crate::datagrams::inner::{self, InnerService};

/// The end of a service as it is offered now: whatever carries its flows goes on when another takes its place, and so do the
/// flows. New ones go to the new end.
pub(super) struct Latest(ArcSwap<Arc<dyn DatagramEnd>>);

impl Latest {
    pub(super) fn new(end: Arc<dyn DatagramEnd>) -> Latest {
        Latest(ArcSwap::from_pointee(end))
    }

    pub(super) fn replace(&self, end: Arc<dyn DatagramEnd>) {
        self.0.store(Arc::new(end));
    }
}

impl DatagramEnd for Latest {
    fn open(&self, visitor: Option<SocketAddr>) -> io::Result<UdpSocket> {
        self.0.load().open(visitor)
    }

    fn header(&self, visitor: Option<SocketAddr>, local: Option<SocketAddr>) -> Option<Vec<u8>> {
        self.0.load().header(visitor, local)
    }

    fn idle_timeout(&self) -> Duration {
        self.0.load().idle_timeout()
    }

    fn max_flows(&self) -> u32 {
        self.0.load().max_flows()
    }
}

/// The services whose datagrams come on the session's own connection, by their numbers, and what ends each.
#[derive(Default)]
pub(super) struct Flows(Mutex<HashMap<u32, oneshot::Sender<()>>>);

/// Serves the datagrams of all services in `offers`, where the session has a connection for them, and of no others.
pub(super) fn follow(session: &Arc<Session>, offers: &Offers) {
    let Some(datagrams) = session.datagrams.get() else { return };
    // Those of private services come on streams, behind the proof of the secret.
    let takes = |offered: &Offered| offered.latest.is_some() && !offered.offer.spec.service.is_private;
    let mut running = session.flows.0.lock().unwrap_or_else(PoisonError::into_inner);
    let serving = session.serving.load();
    running.retain(|id, _| serving.get(*id).is_some_and(|served| takes(&served.offered)));
    for offered in offers.list.iter().filter(|offered| takes(offered)) {
        if running.contains_key(&offered.id) {
            continue;
        }
        let Some(served) = serving.get(offered.id).cloned() else { continue };
        let (stop, stopped) = oneshot::channel();
        let carry = Carry::Quic(datagrams.service(offered.id));
        let worker = offered.id as usize % session.client.workers.count().max(1);
        let session = session.clone();
        let workers = session.client.workers.clone();
        if workers.run(worker, move || serve(&session, &served, carry, Some(stopped))) {
            running.insert(offered.id, stop);
        }
    }
}

/// Serves the flows that a carrier brings, on the calling worker: until it ends, or the session does, or the service is
/// `stopped`.
pub(super) fn serve(
    session: &Arc<Session>,
    served: &Served,
    carry: Carry,
    stopped: Option<oneshot::Receiver<()>>,
) {
    let offer = &served.offered.offer;
    let (Some(end), End::Datagrams { .. }) = (&served.offered.latest, &offer.end) else { return };
    let service = InnerService {
        end: end.clone(),
        metrics: offer.metrics.clone(),
        gate: offer.gate.clone(),
        log: Some(served.log.clone()),
    };
    let (scope, session) = (session.client.scope.clone(), session.clone());
    scope.clone().spawn(async move {
        let stopped = async {
            match stopped {
                Some(stopped) => drop(stopped.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner::serve(carry, service, scope) => {}
            // Datagrams may be lost: nobody stays for them.
            () = session.over() => {}
            () = stopped => {}
        }
    });
}
