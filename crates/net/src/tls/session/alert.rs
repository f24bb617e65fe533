//! What the other side is told of a session that fails.

use std::mem;
use std::task::{Context, Waker};

use super::Session;
use crate::stream::Stream;
use crate::tls::engine::{Sink, Want};

/// A fatal alert, unrecognized_name (RFC 6066 section 3), before anything is encrypted.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

impl Session {
    /// Tries to tell the other side by an alert what went wrong.
    pub(in crate::tls) fn send_alert(&mut self, stream: &Stream) {
        let mut kept = mem::take(&mut self.incoming);
        let mut used = 0;
        // No further than that: rustls would look at what it has failed on once more.
        while self.state().wants_write() {
            let mut nowhere = Sink::none();
            if self.step(&mut kept, &mut used, &mut nowhere, Want::Open).is_err() {
                break;
            }
        }
        // Whoever does not take it learns nothing from it.
        let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()), stream);
    }

    /// Tries to tell a client that there is no certificate for the name it asks for.
    pub(in crate::tls) fn send_unrecognized_name(&mut self, stream: &Stream) {
        self.outgoing = UNRECOGNIZED_NAME.to_vec();
        self.sent = 0;
        let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()), stream);
    }
}
