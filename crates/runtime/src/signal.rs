//! The signals that the process acts on.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// TERM or INT: drain, then stop; a second one: stop at once.
    Stop,
    /// HUP: read the config again.
    Reload,
    /// USR1: open the log files again.
    ReopenLogs,
}

/// Catches the signals from its making on.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
}

impl Signals {
    /// Begins to catch. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// The system refused a handler.
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next request. Cancel safe.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.term.recv() => Request::Stop,
            _ = self.int.recv() => Request::Stop,
            _ = self.hup.recv() => Request::Reload,
            _ = self.usr1.recv() => Request::ReopenLogs,
        }
    }
}
