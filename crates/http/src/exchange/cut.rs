//! How responses end before their time.

use std::io;

use wmproxy_net::record::Outcome;

use super::{Break, Broken, End};

/// How a response was cut off in its middle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    /// The peer broke off.
    #[error("the peer broke off: {0}")]
    Peer(Broken),
    /// It sent nothing more.
    #[error("the peer sent nothing more")]
    PeerSlow,
    /// The client has gone.
    #[error("the client has gone: {0}")]
    Client(Broken),
    /// It took nothing more, or sent nothing more.
    #[error("the client took or sent nothing more")]
    ClientSlow,
    /// Whoever asks has used up what they may.
    #[error("whoever asks has used up what they may")]
    Spent,
    /// The file that was being sent is another one now.
    #[error("the file has changed meanwhile")]
    Changed,
    /// What was being sent can't be read any further.
    #[error("it can't be read any further: {0}")]
    Unreadable(io::Error),
}

impl Cut {
    /// How the client's connection ends.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Cut::Peer(_) => Outcome::PeerReset,
            Cut::PeerSlow => Outcome::PeerSilent,
            Cut::Client(_) => Outcome::ClientReset,
            Cut::ClientSlow => Outcome::ClientSlow,
            Cut::Spent => Outcome::Quota,
            Cut::Changed => Outcome::FileChanged,
            Cut::Unreadable(_) => Outcome::FileUnreadable,
        }
    }
}

impl From<Result<(), Cut>> for End {
    /// What became of a response that was made here.
    fn from(sent: Result<(), Cut>) -> End {
        match sent {
            Ok(()) => End::Done,
            Err(cut) => {
                tracing::debug!(%cut, "a response is cut off");
                End::Cut(cut.outcome())
            }
        }
    }
}

impl From<Break> for Cut {
    fn from(broken: Break) -> Cut {
        match broken {
            Break::Source(Broken::Changed) => Cut::Changed,
            Break::Source(Broken::Unreadable(error)) => Cut::Unreadable(error),
            Break::Source(broken) => Cut::Peer(broken),
            Break::Sink(broken) => Cut::Client(broken),
        }
    }
}
