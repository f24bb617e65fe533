//! Sessions whose streams share a connection: of QUIC, or of yamux.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock;
use wmproxy_wire::tunnel::message::Purpose;

use super::backoff::Backoff;
use super::pool::next_start;
use super::serve;
use super::session::{Phase, Session};
use crate::carrier::{Incoming, Many, mux, quic};
use crate::datagrams::QuicDatagrams;

/// After that long a connection that breaks off is replaced at once.
const STABLE: Duration = Duration::from_secs(10);

/// Has a connection of QUIC, on which the login was done, carry the session's streams and datagrams. They are served on all
/// workers in turn.
pub(super) fn carry(session: &Arc<Session>, connection: quinn::Connection) {
    let datagrams = QuicDatagrams::new(connection.clone());
    let (many, mut incoming) = quic::many(connection);
    let _ = session.many.set(many);
    let _ = session.datagrams.set(datagrams.clone());
    let session = session.clone();
    session.client.workers.clone().run(0, move || {
        let scope = session.client.scope.clone();
        let over = session.clone();
        scope.spawn(async move {
            tokio::select! {
                () = datagrams.run() => {}
                () = over.over() => {}
            }
        });
        scope.spawn(async move { spread(&session, &mut incoming).await });
    });
}

/// Gives each stream to a worker.
async fn spread(session: &Arc<Session>, incoming: &mut Incoming) {
    let workers = session.client.workers.count().max(1);
    let mut turn = 0;
    while let Some(unplaced) = incoming.next().await {
        let session = session.clone();
        let worker = turn % workers;
        turn += 1;
        if worker == 0 {
            // This one.
            take(&session, unplaced.place());
        } else {
            session.client.workers.clone().run(worker, move || take(&session, unplaced.place()));
        }
    }
}

/// Serves whoever a stream is for, on the calling worker.
fn take(session: &Arc<Session>, stream: Stream) {
    let session = session.clone();
    session.client.scope.clone().spawn(async move {
        // It is opened for somebody who is there.
        let patience = session.client.spec.connect_timeout;
        let late = |_| ConnectError::new(Fault::TimedOut, "nothing came in time");
        let start = tokio::select! {
            start = timeout(patience, next_start(&stream, patience)) => start.map_err(late),
            () = session.over() => return,
        };
        match start.flatten() {
            Ok(start) => serve::begin(&session, stream, start),
            Err(error) => {
                tracing::debug!(server = session.link.server, "a stream is for nobody: {error}");
                stream.reset_on_close();
            }
        }
    });
}

/// Keeps a connection that carries the session's streams, on one worker: another one for each server.
pub(super) fn keep(session: &Arc<Session>) {
    let worker = session.link.index % session.client.workers.count().max(1);
    let session = session.clone();
    session.client.workers.clone().run(worker, move || {
        let scope = session.client.scope.clone();
        scope.spawn(async move {
            tokio::select! {
                () = keep_open(&session) => {}
                () = session.over() => {}
            }
        });
    });
}

async fn keep_open(session: &Arc<Session>) {
    let mut backoff = Backoff::new(session.client.spec.max_backoff);
    while session.phase() == Phase::Open {
        let began = clock::now();
        let error = match connect(session).await {
            Ok(stream) => {
                let (many, mut incoming) = mux::start(stream, mux::Side::Client, &session.client.scope);
                let _open = CloseOnDrop(&many);
                while let Some(unplaced) = incoming.next().await {
                    take(session, unplaced.place());
                }
                many.closed().await.to_string()
            }
            Err(error) => error.to_string(),
        };
        if clock::now().since(began) >= STABLE {
            backoff.reset();
        }
        tracing::debug!(server = session.link.server, "no connection for visitors: {error}");
        tokio::time::sleep(backoff.pause(Duration::MAX)).await;
    }
}

async fn connect(session: &Session) -> Result<Stream, ConnectError> {
    let late = |_| ConnectError::new(Fault::TimedOut, "the server did not answer in time");
    timeout(session.client.spec.connect_timeout, Box::pin(session.join(Purpose::Many))).await.map_err(late)?
}

/// Ends a connection with whoever waits for its streams.
struct CloseOnDrop<'a>(&'a Many);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
