//! Connections that end before their first request: no request's line tells of them, so they get one of their own.

use std::sync::Arc;
use std::time::Instant;

use wmproxy_net::record::{AccessLog, ClosedRecord, Outcome};
use wmproxy_wire::head::{Request, Scheme};

use crate::facts::{ConnFacts, Facts, Scene};
use crate::service::RequestLog;

/// Writes refused connections to the log of requests: as one that has no head, no status, and the outcome that says why.
pub(crate) struct Refusals(pub(crate) Arc<dyn RequestLog>);

impl AccessLog for Refusals {
    /// Who just leaves, or says nothing, asked for nothing and was refused nothing.
    fn wants(&self, outcome: Outcome) -> bool {
        matches!(
            outcome,
            Outcome::Denied
                | Outcome::ClientLimit
                | Outcome::RateLimited
                | Outcome::PrefaceTimeout
                | Outcome::BadProxyHeader
                | Outcome::ClientTls
                | Outcome::NoResources
        )
    }

    fn write(&self, record: &ClosedRecord) {
        // TLS may break later as well. Then requests came, each with its line.
        if record.bytes_in + record.bytes_out > 0 {
            return;
        }
        let sni = record.preface.as_ref().and_then(|preface| preface.sni.clone());
        let is_tls = sni.is_some() || record.outcome == Outcome::ClientTls;
        let conn = ConnFacts {
            listener: Arc::clone(&record.listener),
            client: record.client,
            local: record.local.clone(),
            scheme: if is_tls { Scheme::Https } else { Scheme::Http },
            sni,
            identity: None,
        };
        let now = Instant::now();
        let mut facts = Facts::default();
        facts.begin(&conn);
        facts.began = now.checked_sub(record.duration).unwrap_or(now);
        facts.outcome = Some(record.outcome);
        self.0.write(&Scene { conn: &conn, request: &Request::default(), response: None, facts: &facts });
    }
}
