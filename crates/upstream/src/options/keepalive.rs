//! How idle connections are kept for later requests.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_wire::units::HumanDuration;

use super::Problems;

/// As many requests as a server of ordinary size works on at once; each costs it and us a few kilobytes.
const MAX_IDLE: u32 = 64;

/// Most servers close what is idle after 60 to 75 seconds, and whoever closes first meets no request on its way.
const IDLE_TIMEOUT: HumanDuration = HumanDuration::from_secs(60);

/// Which connections to the servers are kept while nobody uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "IdleConnections")]
pub struct KeepaliveOptions {
    /// How many connections to each address of a server are kept while no request uses them, all workers together; `0`
    /// closes each after its request. Default `64`.
    pub max_idle: u32,
    /// For how long; shorter where a server says that it keeps them shorter. Should be less than the servers' own time.
    /// Default `"60s"`.
    pub idle_timeout: HumanDuration,
}

impl Default for KeepaliveOptions {
    fn default() -> Self {
        KeepaliveOptions { max_idle: MAX_IDLE, idle_timeout: IDLE_TIMEOUT }
    }
}

/// Which idle connections are kept, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepaliveSpec {
    /// How many for each peer; 0 for none.
    pub max_idle: usize,
    /// For how long.
    pub idle_timeout: Duration,
}

impl Default for KeepaliveSpec {
    fn default() -> Self {
        KeepaliveOptions::default().check(&mut Problems::default())
    }
}

impl KeepaliveOptions {
    pub(super) fn check(self, problems: &mut Problems) -> KeepaliveSpec {
        if self.idle_timeout.is_zero() {
            problems.add("keepalive.idle_timeout", "must be more than 0; to keep nothing, say max_idle = 0");
        }
        KeepaliveSpec { max_idle: self.max_idle as usize, idle_timeout: self.idle_timeout.get() }
    }
}
