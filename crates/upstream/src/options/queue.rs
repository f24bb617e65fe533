//! Where connections wait for a server that has room.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_wire::units::HumanDuration;

use super::{Problems, ServerOptions};

/// A thousand who wait hold some two megabytes here and in the kernel, and are far more than a server will see to in time.
const QUEUE_MAX: u32 = 1000;
/// As long as connecting may take: who waits longer has mostly given up.
const QUEUE_TIMEOUT: HumanDuration = HumanDuration::from_secs(5);

/// Where connections wait for a server that has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Queue")]
pub struct QueueOptions {
    /// How many connections may wait at once; more are refused. Default `1000`.
    #[schemars(range(min = 1))]
    pub max: u32,
    /// How long a connection waits at the most. Default `"5s"`.
    pub timeout: HumanDuration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions { max: QUEUE_MAX, timeout: QUEUE_TIMEOUT }
    }
}

/// A queue, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSpec {
    /// How many may wait at once.
    pub max: usize,
    /// For how long at the most.
    pub timeout: Duration,
}

impl QueueOptions {
    pub(super) fn check(self, servers: &[ServerOptions], problems: &mut Problems) -> QueueSpec {
        if self.max == 0 {
            problems.add("queue.max", "must be at least 1; to refuse at once, leave queue out");
        }
        if self.timeout.is_zero() {
            problems.add("queue.timeout", "must be more than 0; to refuse at once, leave queue out");
        }
        if servers.iter().all(|server| server.max_connections == 0) {
            problems
                .add("queue", "nobody waits unless a server has max_connections; add that or remove this");
        }
        QueueSpec { max: self.max as usize, timeout: self.timeout.get() }
    }
}
