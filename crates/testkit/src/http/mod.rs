//! HTTP/1 by hand: a client that sends any bytes, an origin that answers as its script says, and between them a
//! reader that forgives nothing.
//!
//! None of it is built on an HTTP library: what one library puts right, another proxy in the chain may not, and the
//! tests look for just that. [`Origin`] keeps the requests that it saw and, beside them, the very bytes.

mod client;
mod message;
mod origin;
mod reader;

pub use client::Client;
pub use message::{Framing, Head, Message};
pub use origin::{Call, Origin, Reply};
pub use reader::Reader;

use std::sync::{Arc, Condvar, Mutex};

use crate::PATIENCE;

/// A door that a test opens: what stands behind it waits.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed one.
    pub fn new() -> Self {
        Gate::default()
    }

    /// Opens it, for good.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    ///
    /// # Panics
    /// When nobody opens it.
    pub fn wait(&self) {
        let (open, changed) = &*self.0;
        let state = changed.wait_timeout_while(open.lock().unwrap(), PATIENCE, |open| !*open).unwrap();
        assert!(*state.0, "nobody opened the gate");
    }
}
