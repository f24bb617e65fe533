//! Requests in absolute form: each goes to the origin that it names.

use std::net::SocketAddr;
use std::time::Instant;

use wmproxy_runtime::clock;
use wmproxy_wire::head::Known;

use super::refusal::Refusal;
use super::serve::Forward;
use super::{Visit, Way, heads, idle};
use crate::endpoint::passing::{self, Verdict};
use crate::exchange::{Answer, End, Exchange, Line, Passage, Patience};
use crate::upgrade::{self, Wanted};

/// A connection to an origin.
struct Link {
    line: Line,
    address: Option<SocketAddr>,
    is_reused: bool,
}

impl Forward {
    /// Asks the origin, and passes its response on.
    pub(super) async fn pass(
        &self,
        ex: &mut Exchange<'_, '_>,
        visit: Visit<'_>,
        way: &Way,
    ) -> Result<End, Refusal> {
        ex.brakes.settle().await;
        let wanted = upgrade::wanted(ex);
        heads::prepare(ex, visit.to, wanted.as_ref().map(Wanted::protocols));
        // Its answer may be what an application polls for, so it has as long as a tunnel without traffic.
        let patience = ex.service.spec().timeouts.upgrade.get();
        let patience = Patience { head: patience, pause: patience, total: patience, began: clock::now() };
        let (mut link, answer) = self.ask(ex, visit, way, wanted.as_ref(), patience).await?;
        if passing::is_granted(ex, &link.line, wanted.as_ref())?
            && let Some(wanted) = &wanted
        {
            return Ok(Box::pin(upgrade::run(ex, &mut link.line, answer, wanted)).await?);
        }
        if ex.response.status == 407 {
            return Err(Refusal::false_proxy());
        }
        let stay = passing::stay(ex).filter(|_| !is_bound(ex));
        heads::finish(ex);
        ex.date();
        ex.begin(answer.length);
        if let Err(cut) = ex.pass(&mut link.line, answer, patience, Passage::default()).await {
            tracing::debug!(listener = %ex.conn.listener, %cut, "a response is cut off");
            return Ok(End::Cut(cut.outcome()));
        }
        if let Some((stream, limit)) = passing::left(ex, link.line, stay) {
            let idle = idle::Idle { stream, address: link.address };
            idle::put((way.key, visit.to.clone()), idle, limit);
        }
        Ok(End::Done)
    }

    /// Asks by a connection that is idle, and where that turns out to be dead, by a new one.
    async fn ask(
        &self,
        ex: &mut Exchange<'_, '_>,
        visit: Visit<'_>,
        way: &Way,
        wanted: Option<&Wanted>,
        patience: Patience,
    ) -> Result<(Link, Answer), Refusal> {
        let mut idle = idle::take(&(way.key, visit.to.clone()));
        loop {
            let mut link = match idle.take() {
                Some(idle) => Link { line: Line::H1(idle.stream), address: idle.address, is_reused: true },
                None => {
                    let opened = self.open(ex, visit, way).await?;
                    Link { line: Line::H1(opened.stream), address: opened.address, is_reused: false }
                }
            };
            ex.facts.address = link.address;
            if let Some(wanted) = wanted {
                wanted.fit(ex.request, &link.line)?;
            }
            let asked = Instant::now();
            match ex.ask(&mut link.line, patience).await {
                Ok(answer) => {
                    ex.facts.upstream_time = Some(asked.elapsed());
                    return Ok((link, answer));
                }
                Err(trouble) => {
                    tracing::debug!(listener = %ex.conn.listener, to = %visit.to, ?trouble, "a request failed");
                    let is_stale = passing::judge(&trouble, link.is_reused) == Verdict::Stale;
                    if !is_stale || !passing::may_ask_again(ex) {
                        return Err(trouble.into());
                    }
                }
            }
        }
    }
}

/// Whether the origin may take whoever uses the connection for the one who has used it first (RFC 4559 section 6).
fn is_bound(ex: &Exchange<'_, '_>) -> bool {
    let names = |value: &[u8]| {
        let scheme = value.split(|&byte| byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    };
    ex.request.fields.all(Known::Authorization).any(names)
        || ex.response.fields.list(Known::WwwAuthenticate).any(names)
}
