//! CONNECT: a tunnel to where the client says (RFC 9110 section 9.3.6, RFC 9113 section 8.5).

use std::sync::Arc;

use super::refusal::Refusal;
use super::serve::{Forward, Granted};
use super::{Visit, Way};
use crate::exchange::{End, Exchange, Front, Line};
use crate::upgrade;

impl Forward {
    /// Connects, tells the client that it is, and from then on passes on what both say. In HTTP/1 nothing of that is the
    /// exchange's any more.
    pub(super) async fn connect(
        &self,
        ex: &mut Exchange<'_, '_>,
        visit: Visit<'_>,
        way: &Way,
    ) -> Result<End, Refusal> {
        let opened = self.open(ex, visit, way).await?;
        ex.response.clear();
        ex.response.set_status(200);
        ex.has_begun = true;
        ex.facts.status = 200;
        ex.is_persistent = false;
        if matches!(ex.front, Front::H2(_)) {
            ex.back.reset();
            let mut line = Line::H1(opened.stream);
            return Ok(End::Upgraded(upgrade::tunnel::run(ex, &mut line).await));
        }
        if let Err(cut) = ex.send_interim().await {
            return Ok(End::Cut(cut.outcome()));
        }
        if let Front::H1(client, wire) = &mut ex.front {
            let ahead = wire.take_ahead();
            // They are counted when they are passed on.
            wire.received = wire.received.saturating_sub(ahead.len() as u64);
            client.unread(ahead);
        }
        ex.count();
        Ok(End::Tunnel(Box::new(Granted::new(ex, opened.stream, Arc::clone(visit.guest)))))
    }
}
