//! Visits of private services: a client's stream is joined with one to the service's owner.
//!
//! What both say to each other, the proofs that they know the service's secret included, passes as it is: this end never
//! learns the secret.

use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::connect::Fault;
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::relay::{Terms, relay};
use wmproxy_net::stream::Stream;
use wmproxy_wire::tunnel::codec::LOGIN_LIMIT;
use wmproxy_wire::tunnel::message::{Message, Refusal, RefusalCode, Visit};

use super::client::Client;
use super::entrance::finish;
use super::open::Arrival;
use super::session::{LAST_WORD, Session};
use super::tunnel_server::TunnelServer;
use crate::carrier::Unplaced;
use crate::carrier::speech::{read_message, write_message};

/// How long nothing may pass. Both ends have shorter times of their own; this one is for what they forget.
const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

impl TunnelServer {
    /// Takes a stream that a session's client has opened on a connection that carries many: it is for a visit.
    pub(super) fn take_visit(self: Arc<Self>, session: &Session, stream: Unplaced) {
        let stream = stream.place();
        let (client, held) = (session.client.clone(), session.visits.hold());
        self.scope.clone().spawn(async move {
            let _held = held;
            let limit = self.spec().login_timeout;
            match tokio::time::timeout(limit, read_message(&stream, LOGIN_LIMIT)).await {
                Ok(Ok(Message::Visit(visit))) => self.visit(client, visit, stream).await,
                Ok(_) => {
                    self.count(|counters| &counters.broken);
                    stream.reset_on_close();
                }
                Err(_) => {
                    self.count(|counters| &counters.logins_late);
                    stream.reset_on_close();
                }
            }
        });
    }

    /// Sees a visit through to its end.
    pub(super) async fn visit(self: Arc<Self>, client: Arc<Client>, visit: Visit, stream: Stream) {
        let owner = match self.open_visit(&client, &visit).await {
            Ok(owner) => owner,
            Err(refusal) => {
                self.count(|counters| &counters.visits_refused);
                if let Some(others) = self.pace.admit() {
                    let (service, why) = (visit.service.escape_debug(), &refusal.text);
                    tracing::warn!(client = %client.name, %service, why, others, "a visit was refused");
                }
                let word = Message::Refused(refusal);
                let _ = tokio::time::timeout(LAST_WORD, write_message(&stream, &word)).await;
                return finish(&stream).await;
            }
        };
        self.count(|counters| &counters.visits);
        let mut record = Record::open(self.visits.clone(), None, visit.visitor);
        let outcome = Box::pin(relay(&stream, &owner, Terms::new(IDLE_TIMEOUT), &mut record)).await;
        record.close(outcome);
        if outcome != Outcome::Done {
            tracing::debug!(client = %client.name, service = %visit.service.escape_debug(), outcome = outcome.as_str(), "a visit has broken off");
        }
    }

    async fn open_visit(&self, client: &Arc<Client>, visit: &Visit) -> Result<Stream, Refusal> {
        let refused = |code, text: String| Refusal { code, text };
        let found = self.directory.load().find_private(&visit.service, visit.form, &client.name).cloned();
        let member = found.ok_or_else(|| {
            refused(RefusalCode::NoService, "there is no such service, or none that you may visit".into())
        })?;
        let arrival = Arrival {
            form: visit.form,
            visitor: visit.visitor,
            local: None,
            client: Some(client.name.clone()),
        };
        self.open(&member.name, arrival).await.map_err(|error| {
            let code = match error.fault {
                Fault::Limited => RefusalCode::Limit,
                _ => RefusalCode::Unavailable,
            };
            refused(code, error.text.into_owned())
        })
    }
}
