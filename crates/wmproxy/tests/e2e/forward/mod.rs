//! The forward proxy: HTTP, CONNECT and SOCKS on one port, judged by what reaches its clients and destinations.

mod chains;
mod config;
mod http;
mod socks;
pub(crate) mod udp;
mod users;
mod ways;

use std::fmt::Display;

/// Rules that let clients go to this machine, where all destinations of tests are.
pub(super) const TO_LOOPBACK: &str = "[egress.default]\nprivate = \"allow\"\n";

/// A `[[forward]]` named `f` on a port of 127.0.0.1; `more` is further lines of the table.
pub(super) fn listener(more: impl Display) -> String {
    format!("[[forward]]\nname = \"f\"\nlisten = \"127.0.0.1:0\"\n{more}\n")
}

/// The same for clients that may go to this machine.
pub(super) fn forward(more: impl Display) -> String {
    format!("{TO_LOOPBACK}{}", listener(more))
}
