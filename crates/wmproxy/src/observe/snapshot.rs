//! The process at one moment, as status and metrics show it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use wmproxy_forward::users::{LoginCounts, UserStatus};
use wmproxy_http::traffic::ListenerTraffic;
use wmproxy_net::record::ListenerMetrics;
use wmproxy_tunnel::client::ClientStatus;
use wmproxy_tunnel::server::ServerStatus;
use wmproxy_upstream::GroupStatus;

/// Everything that is shown. The counters behind `listeners` are read when they are printed.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// When the process started.
    pub(crate) started: SystemTime,
    /// The file that the configuration came from; none for the embedded default and `wmproxy stream`.
    pub(crate) config: Option<PathBuf>,
    /// The number of the configuration in force, counted from 1.
    pub(crate) generation: u64,
    /// How many workers there are.
    pub(crate) workers: usize,
    /// Connections and other tasks that are alive on them.
    pub(crate) tasks: u64,
    /// Tasks that ended by a panic.
    pub(crate) panics: u64,
    /// The process accepts no more and waits for what is open.
    pub(crate) draining: bool,
    /// Reloads that took effect.
    pub(crate) reloads_ok: u64,
    /// Reloads that changed nothing because something was wrong.
    pub(crate) reloads_failed: u64,
    /// Log lines dropped because their queue was full.
    pub(crate) log_dropped: u64,
    /// Writes of log lines that failed.
    pub(crate) log_failed: u64,
    /// The listeners in force and those that still drain. Several may bear the same name and address, of
    /// different generations: they are shown as one.
    pub(crate) listeners: Vec<Arc<ListenerMetrics>>,
    /// The counters of HTTP requests of those of them that serve HTTP.
    pub(crate) traffic: Vec<Arc<ListenerTraffic>>,
    /// The upstream groups in force.
    pub(crate) groups: Vec<GroupStatus>,
    /// What the users of forward proxies have open and have used up, by name.
    pub(crate) users: Vec<UserStatus>,
    /// How their passwords were.
    pub(crate) logins: LoginCounts,
    /// How often clients of forward proxies were told that they may not go somewhere, by reason.
    pub(crate) denials: Vec<(&'static str, u64)>,
    /// The ends of tunnels.
    pub(crate) tunnels: TunnelSnapshot,
    /// The certificates of listeners by their files, and when each ends.
    pub(crate) certificates: BTreeMap<PathBuf, SystemTime>,
}

/// The ends of tunnels, as far as there are any.
#[derive(Debug, Clone, Default)]
pub(crate) struct TunnelSnapshot {
    pub(crate) server: Option<ServerStatus>,
    pub(crate) client: Option<ClientStatus>,
}
