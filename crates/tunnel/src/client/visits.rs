//! Visits: the ways to private services of other clients.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use wmproxy_net::connect::{Connect, ConnectError, Connecting, ConnectingAlone, Fault, Visitor};
use wmproxy_net::stream::Stream;
use wmproxy_wire::destination::Destination;
use wmproxy_wire::tunnel::message::{Form, Message, Purpose, Visit};

use super::TunnelClient;
use super::secret;
use super::session::Session;
use crate::carrier::speech;
use crate::datagrams::{Carried, Carry, Carrying, DatagramWay};
use crate::options::{TransportKind, VisitSpec};

/// How long who comes waits for a session, where there is none: as long as it takes to be back after a short loss.
const PATIENCE: Duration = Duration::from_secs(3);

/// The way to a private service of another client.
pub(super) struct Visits {
    client: Arc<TunnelClient>,
    spec: VisitSpec,
    /// Why the last one failed, if it did: who visits sees nothing but a connection that ends, so the log has to tell; once.
    failed: Mutex<Option<String>>,
}

impl Visits {
    pub(super) fn new(client: Arc<TunnelClient>, spec: VisitSpec) -> Visits {
        Visits { client, spec, failed: Mutex::new(None) }
    }

    /// The stream to the owner; a failure is logged.
    async fn open(&self, form: Form, visitor: Option<SocketAddr>) -> Result<Stream, ConnectError> {
        let opened = self.find(form, visitor).await;
        self.note(opened.as_ref().err());
        opened
    }

    fn note(&self, error: Option<&ConnectError>) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let why = error.map(ToString::to_string);
        if *failed == why {
            return;
        }
        if let Some(why) = &why {
            tracing::warn!(service = %self.spec.service, "visits fail: {why}");
        }
        *failed = why;
    }

    /// The stream to the owner, through whichever server leads there. On any thread, for health checks come by it, too; so it
    /// shares nothing with a worker's other connections, which are for the many.
    async fn find(&self, form: Form, visitor: Option<SocketAddr>) -> Result<Stream, ConnectError> {
        let visit = self.visit(form, visitor);
        let mut error = None;
        for session in self.sessions().await {
            let opened = async {
                let stream = match self.open_shared(&session, &visit).await {
                    Some(opened) => opened?,
                    None => session.join_alone(Purpose::Visit, &visit).await?,
                };
                self.settle(&session, stream).await
            };
            match opened.await {
                Err(failed) if is_elsewhere(&failed) => error = Some(failed),
                opened => return opened,
            }
        }
        Err(error.unwrap_or_else(no_session))
    }

    fn visit(&self, form: Form, visitor: Option<SocketAddr>) -> Message {
        Message::Visit(Visit { service: self.spec.service.to_string(), form, visitor })
    }

    /// A stream of the session's connection, if it has one for streams both ways.
    async fn open_shared(&self, session: &Session, visit: &Message) -> Option<Result<Stream, ConnectError>> {
        if self.client.spec.transport != TransportKind::Quic {
            return None;
        }
        let many = session.many.get()?;
        let opened = async {
            let stream = many.open().await?;
            speech::write_message(&stream, visit).await?;
            Ok(stream)
        };
        Some(opened.await)
    }

    async fn settle(&self, session: &Session, stream: Stream) -> Result<Stream, ConnectError> {
        secret::tell(&stream, &self.spec).await?;
        stream.keep(Box::new(session.visitors.hold()));
        Ok(stream)
    }

    /// The sessions that there are, in the order of the servers. If there is none, one is waited for.
    async fn sessions(&self) -> Vec<Arc<Session>> {
        let find = || {
            let sessions = self.client.links.iter().filter_map(|link| link.session.borrow().clone());
            sessions.collect::<Vec<_>>()
        };
        let mut changes = self.client.changed.subscribe();
        let found = timeout(PATIENCE, async {
            loop {
                let sessions = find();
                // Its sender is the client's, which is here.
                if !sessions.is_empty() || changes.changed().await.is_err() {
                    return sessions;
                }
            }
        });
        found.await.unwrap_or_default()
    }
}

/// Whether the owner may be at another server.
fn is_elsewhere(error: &ConnectError) -> bool {
    !matches!(error.fault, Fault::Unauthorized | Fault::Resources | Fault::Limited)
}

fn no_session() -> ConnectError {
    ConnectError::new(Fault::HopDown, "there is no session with a tunnel server")
}

impl Connect for Visits {
    fn connect<'a>(&'a self, _: &'a Destination) -> Connecting<'a> {
        Box::pin(self.open(Form::Bytes, None))
    }

    fn connect_alone<'a>(&'a self, _: &'a Destination) -> ConnectingAlone<'a> {
        Box::pin(self.open(Form::Bytes, None))
    }

    fn connect_for<'a>(&'a self, _: &'a Destination, visitor: &'a Visitor) -> Connecting<'a> {
        Box::pin(self.open(Form::Bytes, visitor.client))
    }
}

impl DatagramWay for Visits {
    fn carry(&self) -> Carrying<'_> {
        Box::pin(async {
            let stream = self.open(Form::Datagrams, None).await?;
            Ok(Carried { carry: Carry::Stream(stream), gates: Vec::new(), over: None })
        })
    }
}

impl std::fmt::Debug for Visits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visits").field("service", &self.spec.service).finish_non_exhaustive()
    }
}
