//! Tunnels that a CONNECT of HTTP/1 has made: what of the request is left when its desk is given back.

use std::sync::Arc;

use wmproxy_net::conn::Conn;
use wmproxy_net::record::Outcome;
use wmproxy_net::relay::{Terms, relay};
use wmproxy_net::stream::Stream;
use wmproxy_wire::head::{Known, Request};

use super::Guest;
use crate::exchange::Exchange;
use crate::facts::{ConnFacts, Facts, Scene};
use crate::service::HttpService;
use crate::traffic::RunsOn;

/// So many bytes of a head's fields are kept for the log, the first ones: a tunnel may live for days.
const KEPT: usize = 1024;

/// A CONNECT that the client was told of as granted.
#[derive(Debug)]
pub(crate) struct Granted {
    peer: Stream,
    guest: Arc<dyn Guest>,
    request: Request,
    facts: Facts,
    /// That it is under way.
    pub(crate) running: Option<RunsOn>,
}

/// A client's connection that is a tunnel to its end.
pub(crate) struct Tunnel {
    service: Arc<HttpService>,
    granted: Box<Granted>,
    conn: Conn,
    of: ConnFacts,
    /// Bytes of what came before it.
    before: (u64, u64),
}

impl Granted {
    /// Takes from an exchange what is to be known when the tunnel ends.
    pub(super) fn new(ex: &mut Exchange<'_, '_>, peer: Stream, guest: Arc<dyn Guest>) -> Granted {
        let mut request = Request::new();
        request.version = ex.request.version;
        request.set_method(ex.request.method_name());
        request.set_target(ex.request.target());
        if let Some(authority) = ex.request.authority() {
            request.set_authority(authority);
        }
        let mut room = KEPT;
        for field in ex.request.fields.iter() {
            let Some(left) = room.checked_sub(field.name.len() + field.value.len()) else { break };
            if field.known != Known::ProxyAuthorization {
                request.fields.push(field.name, field.value);
                room = left;
            }
        }
        Granted { peer, guest, request, facts: std::mem::take(ex.facts), running: None }
    }
}

impl Tunnel {
    /// The rest of a connection whose CONNECT was granted.
    pub(crate) fn new(service: Arc<HttpService>, granted: Box<Granted>, conn: Conn, of: ConnFacts) -> Tunnel {
        let before = conn.record.bytes();
        Tunnel { service, granted, conn, of, before }
    }

    /// Passes on what both sides say until both are done. A block and no `async fn`, which would hold its arguments twice
    /// (rust-lang/rust#62958).
    #[expect(clippy::manual_async_fn, reason = "see above")]
    pub(crate) fn run(mut self) -> impl Future<Output = ()> {
        async move {
            let Tunnel { service, granted, conn, .. } = &mut self;
            let spec = service.spec();
            let terms = Terms { splice: spec.splice, ..Terms::new(spec.timeouts.upgrade.get()) };
            let terms = granted.guest.terms(terms, &conn.permit);
            let outcome = relay(&conn.stream, &granted.peer, terms, &mut conn.record).await;
            conn.record.close(outcome);
            granted.facts.outcome = Some(outcome);
        }
    }
}

impl Drop for Tunnel {
    /// Writes it down, however it ended.
    fn drop(&mut self) {
        let Tunnel { service, granted, conn, of, before } = self;
        let after = conn.record.bytes();
        let facts = &mut granted.facts;
        facts.bytes_in += after.0 - before.0;
        facts.bytes_out += after.1 - before.1;
        facts.outcome.get_or_insert(Outcome::Drained);
        service.note_tunnel(&Scene { conn: of, request: &granted.request, response: None, facts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_one_is_small() {
        fn size<F>(_: fn(Tunnel) -> F) -> usize {
            size_of::<F>()
        }
        let (future, granted) = (size(Tunnel::run), size_of::<Granted>());
        assert!(future + granted <= 1408, "{future} and {granted} bytes");
    }
}
