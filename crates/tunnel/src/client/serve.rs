//! A visitor has come: its stream goes to whatever serves the service.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use wmproxy_net::conn::Conn;
use wmproxy_net::record::{AccessLog, ClosedRecord, Outcome, Record};
use wmproxy_net::stream::Stream;
use wmproxy_wire::tunnel::message::{Failed, Form, Kind, Message, Refusal, RefusalCode, Start};

use super::flows;
use super::offers::{Offered, Offers};
use super::secret::{self, Stranger};
use super::session::Session;
use super::{End, TunnelClient};
use crate::datagrams::Carry;

/// What the visitors of a session are served by.
#[derive(Default)]
pub(super) struct Serving(HashMap<u32, Arc<Served>>);

/// A service in a session.
pub(super) struct Served {
    pub(super) offered: Arc<Offered>,
    /// The service's log, which tells the server of what failed.
    pub(super) log: Arc<dyn AccessLog>,
}

impl Serving {
    /// Everything in `offers`. What goes wrong goes to `notes`.
    pub(super) fn new(offers: &Offers, notes: &mpsc::Sender<Message>) -> Serving {
        let served = |offered: &Arc<Offered>| {
            let (End::Bytes { log, .. } | End::Datagrams { log, .. }) = &offered.offer.end;
            let log = Reporting {
                below: log.clone(),
                service: offered.id,
                // Where a forward proxy's visitors want to go is their affair.
                notes: (offered.offer.spec.service.kind != Kind::Proxy).then(|| notes.clone()),
            };
            (offered.id, Arc::new(Served { offered: offered.clone(), log: Arc::new(log) }))
        };
        Serving(offers.list.iter().map(served).collect())
    }

    /// The service with a number.
    pub(super) fn get(&self, service: u32) -> Option<&Arc<Served>> {
        self.0.get(&service)
    }
}

/// Serves what comes on a stream behind `start`, in a task of its own on the calling worker.
pub(super) fn begin(session: &Arc<Session>, stream: Stream, start: Start) {
    let Some(served) = session.serving.load().get(start.service).cloned() else {
        return refuse(session, &stream, start.service, RefusalCode::NoService, "no such service is offered");
    };
    if !served.offered.offer.spec.service.is_private {
        return hand_over(session, &served, stream, start);
    }
    let session = session.clone();
    session.client.scope.clone().spawn(async move {
        let TunnelClient { spec, guesses, .. } = &*session.client;
        let offer = &served.offered.offer;
        match secret::ask(&stream, &spec.name, &offer.spec, &start, guesses).await {
            Ok(()) => hand_over(&session, &served, stream, start),
            Err(Stranger { refusal, outcome }) => {
                Record::open(offer.metrics.clone(), Some(served.log.clone()), start.visitor).close(outcome);
                if let Some(others) = session.client.pace.admit() {
                    let service = served.offered.name();
                    tracing::warn!(service, others, "a visitor is not let in: {}", refusal.text);
                }
                refuse(&session, &stream, start.service, refusal.code, refusal.text);
            }
        }
    });
}

/// Resets a visitor's stream, and has both logs say why.
fn refuse(session: &Session, stream: &Stream, service: u32, code: RefusalCode, text: impl Into<String>) {
    let text = text.into();
    tracing::debug!(server = session.link.server, service, "a visitor is refused: {text}");
    stream.reset_on_close();
    session.note_failure(service, code, text);
}

fn hand_over(session: &Arc<Session>, served: &Arc<Served>, stream: Stream, start: Start) {
    match (&served.offered.offer.end, start.form) {
        (End::Bytes { .. }, Form::Bytes) => serve_bytes(session, served, stream, &start),
        (End::Datagrams { .. }, Form::Datagrams) => {
            flows::serve(session, served, Carry::Stream(stream), None)
        }
        _ => {
            let text = "what comes is not what the service takes";
            refuse(session, &stream, start.service, RefusalCode::Invalid, text);
        }
    }
}

/// Makes a connection of the stream as a listener does.
fn serve_bytes(session: &Session, served: &Served, stream: Stream, start: &Start) {
    let offer = &served.offered.offer;
    let End::Bytes { serve, .. } = &offer.end else { return };
    let mut record = Record::open(offer.metrics.clone(), Some(served.log.clone()), start.visitor);
    let Some(permit) = offer.gate.try_enter() else {
        record.close(Outcome::QueueFull);
        return refuse(
            session,
            &stream,
            start.service,
            RefusalCode::Limit,
            "it has as many visitors as it may",
        );
    };
    // The place is the server's: nothing here has an address that the visitor came to.
    if let Some(local) = start.local {
        record.preface_mut().destination = Some(local);
    }
    stream.keep(Box::new(session.visitors.hold()));
    let mut conn = Conn { stream, record, permit };
    if !serve.speaks_for_another(start.visitor)
        && let Err(outcome) = conn.claim()
    {
        conn.record.close(outcome);
        let text = "the visitor comes too often, or too many times";
        return refuse(session, &conn.stream, start.service, RefusalCode::Limit, text);
    }
    session.client.scope.spawn_boxed(serve.clone().serve(conn));
}

/// An access log that has the server know which visitors could not be served.
struct Reporting {
    below: Option<Arc<dyn AccessLog>>,
    service: u32,
    /// To the server; none where failures are not this end's.
    notes: Option<mpsc::Sender<Message>>,
}

impl AccessLog for Reporting {
    fn wants(&self, outcome: Outcome) -> bool {
        (self.notes.is_some() && is_failure(outcome))
            || self.below.as_ref().is_some_and(|below| below.wants(outcome))
    }

    fn write(&self, record: &ClosedRecord) {
        if let Some(notes) = self.notes.as_ref().filter(|_| is_failure(record.outcome)) {
            // Without the address: what is in this network is nobody's business there.
            let text = format!("the local service: {}", record.outcome.as_str());
            let refusal = Refusal { code: RefusalCode::Unavailable, text };
            let _ = notes.try_send(Message::Failed(Failed { service: self.service, refusal }));
        }
        if let Some(below) = self.below.as_ref().filter(|below| below.wants(record.outcome)) {
            below.write(record);
        }
    }
}

/// Whether a visitor got nothing, and not by its own doing.
fn is_failure(outcome: Outcome) -> bool {
    use Outcome as O;
    matches!(
        outcome,
        O::ConnectFailed
            | O::ConnectTimeout
            | O::NoPeer
            | O::NoHealthyPeer
            | O::QueueFull
            | O::QueueTimeout
            | O::PeerTls
            | O::NoWay
            | O::NoResources
            | O::Panicked
    )
}
