//! What all endpoints that ask somebody else have in common: whether a request that failed may be asked once more, and
//! whether a connection may serve another one.

use std::time::Duration;

use wmproxy_net::stream::Stream;
use wmproxy_upstream::FailKind;
use wmproxy_wire::head::{Known, Response};
use wmproxy_wire::http1;

use crate::exchange::{Answer, Exchange, Line, NoResponse, Trouble};
use crate::reply::Failure;
use crate::upgrade::Wanted;

/// What a try that failed says of whom was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has refused the request unread.
    Refused,
    /// It had closed the connection while that was idle, which says nothing about it.
    Stale,
    /// It failed so.
    Failed(FailKind),
    /// Nothing: the trouble was the client's.
    Innocent,
}

/// That a connection may serve another request.
#[derive(Debug)]
pub(crate) struct Stay {
    /// How long its other end says that it keeps it.
    limit: Option<Duration>,
}

/// What a `trouble` says, on a connection that may have served another request before.
pub(crate) fn judge(trouble: &Trouble, is_reused: bool) -> Verdict {
    match trouble {
        Trouble::Peer(NoResponse::Refused(_)) => Verdict::Refused,
        Trouble::Peer(NoResponse::Silent(_)) if is_reused => Verdict::Stale,
        Trouble::Peer(_) => Verdict::Failed(FailKind::Broken),
        Trouble::PeerSlow => Verdict::Failed(FailKind::AnswerTimeout),
        _ => Verdict::Innocent,
    }
}

/// Whether a request may be asked once more. It may where acting twice does no harm, or nobody can have acted on it, and the
/// body is still there to be sent again (RFC 9110 section 9.2.2).
pub(crate) fn may_ask_again(ex: &Exchange<'_, '_>) -> bool {
    // Whoever has not got the whole request has not acted on it.
    let is_safe = ex.request.method.is_idempotent() || !ex.front.has_come();
    ex.can_ask_again() && !ex.has_begun && is_safe
}

/// Whether the response that is there makes the connection what the client wanted.
///
/// # Errors
/// It says so without having been asked, or not as it should.
pub(crate) fn is_granted(
    ex: &Exchange<'_, '_>,
    line: &Line,
    wanted: Option<&Wanted>,
) -> Result<bool, Failure> {
    match wanted {
        Some(wanted) => wanted.is_granted(ex, line),
        None if ex.response.status == 101 => Err(Failure::Status(502)),
        None => Ok(false),
    }
}

/// Whether the connection may serve another request once the response, of which the head is there, has come whole.
pub(crate) fn stay(ex: &Exchange<'_, '_>) -> Option<Stay> {
    // A peer that answers before it has the whole request may never read the rest, and take it for the next request;
    // and so may one that was asked whether it wants the body, and did not say so.
    let has_read = ex.up.is_done() && !http1::expects_continue(ex.request);
    let is_persistent = http1::is_persistent(ex.response.version, &ex.response.fields);
    (has_read && is_persistent).then(|| Stay { limit: idle_limit(ex.response) })
}

/// The connection that is left for the next request, if both messages are over to the last byte, and how long it may be kept.
pub(crate) fn left(
    ex: &Exchange<'_, '_>,
    line: Line,
    stay: Option<Stay>,
) -> Option<(Stream, Option<Duration>)> {
    match (line, stay) {
        (Line::H1(stream), Some(Stay { limit })) if ex.back.is_clear() => Some((stream, limit)),
        _ => None,
    }
}

/// Passes a response on to nobody, and says whether that was all of it: what came with its head mostly is, and more is not
/// worth being waited for.
pub(crate) fn discard(ex: &mut Exchange<'_, '_>, line: &mut Line, answer: Answer) -> bool {
    let Answer { mut scratch, place, .. } = answer;
    let first = line.back(ex.back).first_piece(&mut scratch, place, ex.down.trailers());
    ex.down.trailers().clear();
    first.is_ok_and(|piece| piece.is_last)
}

/// How long the peer says that it keeps the connection: `Keep-Alive: timeout=5`.
fn idle_limit(response: &Response) -> Option<Duration> {
    let mut parameters = response.fields.list(Known::KeepAlive);
    let seconds = parameters.find_map(|parameter| parameter.strip_prefix(b"timeout="))?;
    let seconds: u32 = std::str::from_utf8(seconds).ok()?.parse().ok()?;
    // It closes about then, so that the last second is no use.
    Some(Duration::from_secs(u64::from(seconds.saturating_sub(1))))
}
