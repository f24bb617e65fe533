//! What a route does to requests and responses on their way.
//!
//! What lives here: the filters, each in its own room, and [`Filters`], which has those of one route in their fixed order.
//! What must not: sockets, peers, and who answers. A route without filters has none of them, and asking it costs a branch.
//!
//! A request meets them so. [`Filters::poll_request`]: `allow` and `deny`, `limit_requests`, `limit_connections`,
//! `basic_auth`; a limit by `{user}` comes behind that. On the way to a peer only: [`Filters::retarget`], which strips, adds
//! and rewrites prefixes, and [`Filters::change_request`], the rules for its fields. [`Filters::error_page`] may put
//! another body in the place of the response's; `on_response` has the rules for its fields, and compresses.

pub mod auth;
pub(crate) mod compress;
pub mod headers;
pub mod limit;
pub(crate) mod mirror;
pub mod rewrite;
mod tables;
pub(crate) mod tries;

#[cfg(test)]
mod tests;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};
use wmproxy_net::acl::Acl;
use wmproxy_wire::head::{Known, Request, Response};
use wmproxy_wire::units::ByteRate;

use crate::facts::{ConnFacts, Facts, Scene};
use crate::options::{Encoding, ErrorPage, FilterSpec, PageStatus, RouteSpec};
use crate::vars::TemplateError;
use auth::{AuthError, BasicAuth, Check};
use compress::{Compress, Encoder};
use headers::Rules;
use limit::requests::{Admission, RequestLimit};
use limit::running::{Place, RunningLimit};
use rewrite::{BadPath, Rewrite, RewriteError};
pub use tables::Tables;
use tries::Tries;

/// The filters of a route.
#[derive(Debug, Default)]
pub struct Filters {
    /// What decides whether a request passes, in order.
    gates: Box<[Gate]>,
    rewrite: Option<Box<Rewrite>>,
    request_rules: Option<Rules>,
    response_rules: Option<Rules>,
    /// Whether `Authorization` is for us and not for peers.
    keeps_authorization: bool,
    compress: Option<Compress>,
    rate: Option<ByteRate>,
    error_pages: Box<[(PageStatus, ErrorPage)]>,
    /// What is asked for one after the other.
    pub(crate) tries: Option<Tries>,
}

/// What decides whether a request passes.
#[derive(Debug)]
enum Gate {
    Acl(Acl),
    Requests(RequestLimit),
    Running(RunningLimit),
    Auth(BasicAuth),
}

/// Why filters can't be made of their options.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Something is wrong with `rewrite`.
    #[error("rewrite: {0}")]
    Rewrite(#[from] RewriteError),
    /// Something is wrong with `basic_auth`.
    #[error("basic_auth: {0}")]
    Auth(#[from] AuthError),
    /// Something is wrong with `try`.
    #[error("try: {0}")]
    Try(#[from] TemplateError),
}

/// How far a request has come through its filters, and what they hold for it until it is dropped.
#[derive(Debug, Default)]
pub struct Pass {
    /// The gate that it stands before.
    gate: usize,
    waiting: Option<Box<Waiting>>,
    place: Option<Place>,
    /// How the client takes the response best, of what the route offers.
    coding: Option<Encoding>,
}

/// What a request waits for before a gate.
enum Waiting {
    Turn(Pin<Box<Sleep>>),
    Check(Check),
}

/// A request with what filters may change.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Its connection.
    pub conn: &'a ConnFacts,
    /// Its head.
    pub request: &'a mut Request,
    /// What else is known of it.
    pub facts: &'a mut Facts,
    /// The response, or the head of one that is ours to fill in.
    pub response: &'a mut Response,
}

/// What filters say of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Pass,
    /// It is refused: the turn's response has the status and the fields that belong to it. It needs a body of the usual
    /// kind, and what says how it is sent.
    Refuse,
}

impl Filters {
    /// Those of a route. What they count belongs to `owner`, over reloads too: the route's name with its listener's.
    ///
    /// # Errors
    /// A rewrite that does not compile, or a file of users that can't be read.
    pub fn new(route: &RouteSpec, owner: &str, tables: &Tables) -> Result<Filters, FilterError> {
        let spec = &route.filters;
        Ok(Filters {
            gates: gates(spec, owner, tables)?,
            rewrite: Rewrite::new(&route.rewrite)?.map(Box::new),
            request_rules: Rules::new(&spec.request_headers),
            response_rules: Rules::new(&spec.response_headers),
            keeps_authorization: spec.basic_auth.as_ref().is_some_and(|auth| !auth.forward),
            compress: Compress::new(&spec.compress),
            rate: spec.rate_limit,
            error_pages: spec.error_pages.iter().map(|(status, page)| (*status, page.clone())).collect(),
            tries: Tries::new(&route.try_paths)?,
        })
    }

    /// Whether a request may pass. It may have to wait for that, in line or for its password to be compared; then it is to
    /// be asked again, with the same pass.
    #[inline]
    pub fn poll_request(&self, cx: &mut Context<'_>, pass: &mut Pass, turn: &mut Turn<'_>) -> Poll<Verdict> {
        while let Some(gate) = self.gates.get(pass.gate) {
            if ready!(gate.poll(cx, pass, turn)) == Verdict::Refuse {
                return Poll::Ready(Verdict::Refuse);
            }
            pass.gate += 1;
        }
        if let Some(compress) = &self.compress {
            // Asked for now, for the rules may take the field out so that a peer sends its responses plain.
            pass.coding = compress.negotiate(turn.request);
        }
        Poll::Ready(Verdict::Pass)
    }

    /// Gives a request the target that a peer is asked for: that of `path`, which is in its normal form and by default the
    /// request's own. It may be done again with another path.
    ///
    /// # Errors
    /// What comes out would lead out of where it was put: a 400.
    #[inline]
    pub fn retarget(
        &self,
        path: Option<&[u8]>,
        conn: &ConnFacts,
        request: &mut Request,
        facts: &Facts,
    ) -> Result<(), BadPath> {
        if self.rewrite.is_none() && path.is_none() {
            return Ok(());
        }
        rewrite::retarget(self.rewrite.as_deref(), path, conn, request, facts)
    }

    /// Whether `strip_prefix` leaves nothing of a path, which has no slash at its end.
    pub(crate) fn strips_all(&self, path: &[u8]) -> bool {
        self.rewrite.as_ref().is_some_and(|rewrite| rewrite.strips_all(path))
    }

    /// Changes a request's fields for a peer, once.
    #[inline]
    pub fn change_request(&self, conn: &ConnFacts, request: &mut Request, facts: &Facts) {
        if self.keeps_authorization {
            request.fields.remove(Known::Authorization);
        }
        if let Some(rules) = &self.request_rules {
            rules.apply_to_request(conn, request, facts);
        }
    }

    /// The body that stands for the one of a response with this status. A 204 and such have none anyhow.
    pub fn error_page(&self, status: u16) -> Option<&ErrorPage> {
        let of = |exact: bool| {
            let is_exact = move |wanted: &PageStatus| matches!(wanted, PageStatus::One(_)) == exact;
            self.error_pages.iter().find(move |(wanted, _)| is_exact(wanted) && wanted.covers(status))
        };
        of(true).or_else(|| of(false)).map(|(_, page)| page)
    }

    /// Changes the head of a final response, whoever made it; `has_body` is whether one follows. Gives what its body has to
    /// pass through, if it is to be compressed; the head says no length then.
    #[inline]
    pub(crate) fn on_response(&self, pass: &Pass, turn: &mut Turn<'_>, has_body: bool) -> Option<Encoder> {
        if let Some(rules) = &self.response_rules {
            rules.apply_to_response(turn.conn, turn.request, turn.response, turn.facts);
        }
        self.compress.as_ref()?.encoder(pass.coding, turn.request, turn.response, has_body)
    }

    /// How fast the bytes of a response may go.
    pub fn rate(&self) -> Option<ByteRate> {
        self.rate
    }
}

/// What decides whether a request passes, in order.
fn gates(spec: &FilterSpec, owner: &str, tables: &Tables) -> Result<Box<[Gate]>, FilterError> {
    let mut gates = Vec::new();
    if !spec.acl.is_open() {
        gates.push(Gate::Acl(spec.acl.clone()));
    }
    let requests = spec.limit_requests.as_ref().and_then(|limit| Some((limit, limit.rate?)));
    let requests = requests
        .map(|(limit, rate)| RequestLimit::new(limit, rate, tables.requests(owner, rate)))
        .map(|limit| (limit.needs_user(), Gate::Requests(limit)));
    let running = spec.limit_connections.as_ref().and_then(|limit| Some((limit, limit.max?)));
    let running = running
        .map(|(limit, max)| RunningLimit::new(limit, max, tables.running(owner)))
        .map(|limit| (limit.needs_user(), Gate::Running(limit)));
    let (after, before): (Vec<_>, Vec<_>) =
        requests.into_iter().chain(running).partition(|(needs_user, _)| *needs_user);
    gates.extend(before.into_iter().map(|(_, gate)| gate));
    if let Some(auth) = &spec.basic_auth {
        let store = tables.users(&auth.users).map_err(AuthError::from)?;
        gates.push(Gate::Auth(BasicAuth::new(store, &auth.realm)?));
    }
    gates.extend(after.into_iter().map(|(_, gate)| gate));
    Ok(gates.into())
}

impl Gate {
    fn poll(&self, cx: &mut Context<'_>, pass: &mut Pass, turn: &mut Turn<'_>) -> Poll<Verdict> {
        if let Some(waiting) = &mut pass.waiting {
            let verdict = ready!(waiting.poll(cx, self, turn));
            pass.waiting = None;
            return Poll::Ready(verdict);
        }
        let scene = Scene { conn: turn.conn, request: turn.request, response: None, facts: turn.facts };
        match self {
            // A unix socket has no address; who may open it is up to the file system.
            Gate::Acl(acl) => match turn.facts.client {
                Some(client) if !acl.permits(client.ip()) => Poll::Ready(refuse(turn, 403)),
                _ => Poll::Ready(Verdict::Pass),
            },
            Gate::Running(limit) => match limit.enter(&scene) {
                Ok(place) => {
                    pass.place = place;
                    Poll::Ready(Verdict::Pass)
                }
                Err(_) => Poll::Ready(refuse(turn, limit.status())),
            },
            Gate::Requests(limit) => match limit.admit(&scene) {
                Admission::Now => Poll::Ready(Verdict::Pass),
                Admission::Refused(after) => Poll::Ready(refuse_for(turn, limit.status(), after)),
                Admission::After(wait) => {
                    pass.waiting = Some(Box::new(Waiting::Turn(Box::pin(sleep(wait)))));
                    self.poll(cx, pass, turn)
                }
            },
            Gate::Auth(auth) => match auth.ask(turn.request) {
                auth::Answer::Known(user) => Poll::Ready(admit(turn, user)),
                auth::Answer::Refused => Poll::Ready(challenge(turn, auth)),
                auth::Answer::Busy => Poll::Ready(refuse_for(turn, 503, Duration::from_secs(1))),
                auth::Answer::Check(check) => {
                    pass.waiting = Some(Box::new(Waiting::Check(check)));
                    self.poll(cx, pass, turn)
                }
            },
        }
    }
}

impl Waiting {
    fn poll(&mut self, cx: &mut Context<'_>, gate: &Gate, turn: &mut Turn<'_>) -> Poll<Verdict> {
        match (self, gate) {
            (Waiting::Turn(sleep), _) => sleep.as_mut().poll(cx).map(|()| Verdict::Pass),
            (Waiting::Check(check), Gate::Auth(auth)) => match ready!(check.poll(cx)) {
                Some(user) => Poll::Ready(admit(turn, user)),
                None => Poll::Ready(challenge(turn, auth)),
            },
            (Waiting::Check(_), _) => unreachable!("only one gate compares passwords"),
        }
    }
}

fn admit(turn: &mut Turn<'_>, user: std::sync::Arc<str>) -> Verdict {
    turn.facts.user = Some(user);
    Verdict::Pass
}

fn challenge(turn: &mut Turn<'_>, auth: &BasicAuth) -> Verdict {
    auth.challenge(turn.response);
    Verdict::Refuse
}

fn refuse(turn: &mut Turn<'_>, status: u16) -> Verdict {
    turn.response.clear();
    turn.response.set_status(status);
    Verdict::Refuse
}

/// Refuses, and says when to come again, in whole seconds (RFC 9110 section 10.2.3).
fn refuse_for(turn: &mut Turn<'_>, status: u16, after: Duration) -> Verdict {
    let verdict = refuse(turn, status);
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    turn.response.fields.push_known(Known::RetryAfter, seconds.max(1).to_string().as_bytes());
    verdict
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waiting::Turn(_) => "Turn",
            Waiting::Check(_) => "Check",
        })
    }
}
