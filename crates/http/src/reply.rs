//! What a client is told when no endpoint answers: which status stands for which trouble.

use wmproxy_net::record::Outcome;
use wmproxy_upstream::{DialError, FailKind, NoPeer};
use wmproxy_wire::head::{Known, Response, usual_reason};

use crate::exchange::{Broken, Trouble};

/// Why a request gets no response of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client is told so.
    Status(u16),
    /// There is nobody to tell.
    Gone(Outcome),
}

impl From<&DialError> for Failure {
    /// 503 where nobody was asked, for that may soon be otherwise; 504 where nobody answered; 502 where somebody refused.
    fn from(error: &DialError) -> Failure {
        Failure::Status(match error {
            DialError::NoPeer { reason, .. } => return (*reason).into(),
            DialError::Failed { kind: FailKind::Timeout, .. } => 504,
            DialError::Failed { .. } | DialError::Hop { .. } => 502,
            DialError::NoWay { .. } | DialError::Resources { .. } => 503,
        })
    }
}

impl From<NoPeer> for Failure {
    fn from(reason: NoPeer) -> Failure {
        match reason {
            NoPeer::ClientGone => Failure::Gone(Outcome::QueueLeft),
            NoPeer::Tried => Failure::Status(502),
            _ => Failure::Status(503),
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Client(Broken::Malformed(error)) => Failure::Status(error.status()),
            Trouble::Client(_) => Failure::Gone(Outcome::ClientReset),
            Trouble::ClientGone => Failure::Gone(Outcome::ClientReset),
            Trouble::ClientSlow => Failure::Status(408),
            Trouble::TooLarge => Failure::Status(413),
            Trouble::Spent => Failure::Status(429),
            Trouble::Peer(_) => Failure::Status(502),
            Trouble::PeerSlow => Failure::Status(504),
        }
    }
}

/// Writes the response with a status that says it all, and gives its body.
pub(crate) fn plain(status: u16, response: &mut Response) -> String {
    response.clear();
    response.set_status(status);
    usual_body(response)
}

/// Completes a response that says what is wrong by its status, and gives its body.
pub(crate) fn usual_body(response: &mut Response) -> String {
    response.fields.push_known(Known::ContentType, b"text/plain; charset=utf-8");
    // What went wrong now is nothing to keep.
    response.fields.push_known(Known::CacheControl, b"no-store");
    format!("{} {}\n", response.status, usual_reason(response.status))
}
