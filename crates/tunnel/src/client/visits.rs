//! Visits: the ways to private services of other clients.

use std::net::SocketAddr;
use std::sync::Arc;
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
    pub(super) client: Arc<TunnelClient>,
    pub(super) spec: VisitSpec,
}

impl Visits {
    /// The stream to the owner, through whichever server there is a session with. On the calling worker.
    async fn open(&self, form: Form, visitor: Option<SocketAddr>) -> Result<Stream, ConnectError> {
        let visit = self.visit(form, visitor);
        let session = self.session().await?;
        let stream = match self.open_shared(&session, &visit).await {
            Some(opened) => opened?,
            None => session.join(Purpose::Visit, Some(&visit)).await?,
        };
        self.settle(&session, stream).await
    }

    /// The same on any thread.
    async fn open_alone(&self) -> Result<Stream, ConnectError> {
        let visit = self.visit(Form::Bytes, None);
        let session = self.session().await?;
        let stream = match self.open_shared(&session, &visit).await {
            Some(opened) => opened?,
            None => session.join_alone(Purpose::Visit, Some(&visit)).await?,
        };
        self.settle(&session, stream).await
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

    /// A session; the first that there is, in the order of the servers.
    async fn session(&self) -> Result<Arc<Session>, ConnectError> {
        let find = || self.client.links.iter().find_map(|link| link.session.borrow().clone());
        let mut changes = self.client.changed.subscribe();
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(session) = find() {
                    return Some(session);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        });
        let none = || ConnectError::new(Fault::HopDown, "there is no session with a tunnel server");
        found.await.ok().flatten().ok_or_else(none)
    }
}

impl Connect for Visits {
    fn connect<'a>(&'a self, _: &'a Destination) -> Connecting<'a> {
        Box::pin(self.open(Form::Bytes, None))
    }

    fn connect_alone<'a>(&'a self, _: &'a Destination) -> ConnectingAlone<'a> {
        Box::pin(self.open_alone())
    }

    fn connect_for<'a>(&'a self, _: &'a Destination, visitor: &'a Visitor) -> Connecting<'a> {
        Box::pin(self.open(Form::Bytes, visitor.client))
    }
}

impl DatagramWay for Visits {
    fn carry(&self) -> Carrying<'_> {
        Box::pin(async {
            let stream = self.open(Form::Datagrams, None).await?;
            Ok(Carried { carry: Carry::Stream(stream), gates: Vec::new() })
        })
    }
}

impl std::fmt::Debug for Visits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visits").field("service", &self.spec.service).finish_non_exhaustive()
    }
}
