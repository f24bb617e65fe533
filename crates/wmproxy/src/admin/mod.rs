//! The admin endpoint: a small HTTP API to see and steer a running process, and the client for it.
//!
//! What lives here: where the API listens, who may use it, its routes and the shapes of its answers, and the
//! commands `reload`, `stop` and `status`. What must not: what a reload or a stop does. The process offers that
//! as [`Control`]. A request passes the [`guard`] first and then reaches its route in [`server`].

pub(crate) mod bind;
pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod guard;
pub(crate) mod remote;
pub(crate) mod report;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod tunnels;

#[cfg(test)]
mod tests;

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use wmproxy_wire::units::Secret;

use crate::config::problem::Problems;
use crate::observe::snapshot::Snapshot;

/// `GET`: a [`status::Status`].
pub(crate) const STATUS_PATH: &str = "/api/v1/status";
/// `POST`: 200 and a [`Reloaded`], or 422 and a [`ReloadFailure`].
pub(crate) const RELOAD_PATH: &str = "/api/v1/reload";
/// `POST`, with a [`StopRequest`] or nothing: 202 and a [`Stopping`].
pub(crate) const STOP_PATH: &str = "/api/v1/stop";
/// `GET`: metrics in the OpenMetrics form.
pub(crate) const METRICS_PATH: &str = "/metrics";

/// What the process lets the API do.
pub(crate) trait Control: Send + Sync + 'static {
    /// The process now. Called for each status and each scrape.
    fn snapshot(&self) -> Snapshot;

    /// What a request must present now; none lets everyone in who can connect.
    fn token(&self) -> Option<Secret>;

    /// Begins a reload. It goes on when the receiver is dropped, as it is when the caller hangs up: half a
    /// reload would be neither generation.
    fn reload(&self) -> oneshot::Receiver<Result<Reloaded, ReloadFailure>>;

    /// Begins to stop: after a drain, or at once. Returns before it is done.
    fn stop(&self, now: bool);
}

/// A reload that took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// The number of the generation in force now.
    pub(crate) generation: u64,
    /// What took effect otherwise than its author may think, such as an option that needs a restart.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

/// A reload that changed nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReloadFailure {
    /// What was wrong, in one line.
    pub(crate) error: String,
    /// Every problem of the config, as `check --json` prints them; null when it was something else.
    #[serde(default)]
    pub(crate) problems: serde_json::Value,
    /// The same for people: each with its file, line and the text underlined.
    #[serde(default)]
    pub(crate) rendered: String,
}

impl ReloadFailure {
    /// The config has these problems.
    pub(crate) fn config(problems: &Problems) -> Self {
        ReloadFailure {
            error: "the config has problems".into(),
            problems: problems.to_json(),
            rendered: problems.render(false),
        }
    }

    /// The config is good, and something else stood in the way: a port taken, a file unreadable.
    pub(crate) fn other(error: impl Display) -> Self {
        ReloadFailure { error: error.to_string(), ..ReloadFailure::default() }
    }
}

/// How to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StopRequest {
    /// Without a drain.
    pub(crate) now: bool,
}

/// The stop has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopping {
    /// Of the process that stops.
    pub(crate) pid: u32,
    /// Connections and flows that are open.
    pub(crate) active: u64,
}

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApiError {
    /// What is wrong with the request, or why it was not done.
    pub(crate) error: String,
}
