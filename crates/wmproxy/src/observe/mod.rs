//! What the process tells about itself: its log, the access logs, the metrics and the status.
//!
//! What lives here turns events and records into lines, and counters into texts. What must not live here:
//! anything that counts (that is the rooms' own doing) and anything that serves (that is `admin`). A line goes
//! from a worker into a [`sink`]'s queue and from there, on the sink's own thread, to its file.

pub(crate) mod access;
pub(crate) mod clock;
mod escape;
pub(crate) mod filter;
mod line;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod requests;
pub(crate) mod screen;
pub(crate) mod sink;
pub(crate) mod sinks;
pub(crate) mod snapshot;
pub(crate) mod template;
pub(crate) mod visits;
mod writer;

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod metrics_tests;
#[cfg(test)]
pub(crate) mod scratch;
#[cfg(test)]
mod sink_tests;
