//! The real binary, end to end: started on port 0, spoken to over real sockets, judged by what its users can see.
//!
//! One test binary, so that only one thing links; a module for each feature. Every [`Proxy`] fails its test at the
//! end on an unexpected warning, a connection still counted, a leaked descriptor or a bad exit.
#![allow(clippy::unwrap_used, reason = "tests")]

mod balance;
mod balance_queue;
mod balance_return;
mod cli;
mod default_config;
mod docs;
mod drain;
mod exhaustion;
mod files;
mod forward;
mod health;
mod http;
mod interop;
mod listeners;
mod observe;
mod preface;
mod privileges;
mod quic;
mod rates;
mod reload;
mod reload_mixed;
mod sni;
mod start;
mod tcp_data;
mod tcp_ends;
mod tcp_limits;
mod tcp_listen;
mod tls;
mod tls_peers;
mod transparency;
mod tunnel;
mod udp_data;
mod udp_flows;
mod udp_proxy_protocol;
mod watch;
mod websocket;

use std::fmt::Display;
use std::time::Duration;

use wmproxy_testkit::{Proxy, Setup, eventually};

/// The binary under test.
pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_wmproxy");

/// Has every connection and flow written to `access.log`.
pub(crate) const ACCESS_LOG: &str = "[access_log]\nfile = \"{dir}/access.log\"\nformat = \"json\"\n";

/// Starts the binary on a config.
pub(crate) fn start(config: &str) -> Proxy {
    setup(config).start()
}

/// Prepares the binary for a config.
pub(crate) fn setup(config: &str) -> Setup {
    wmproxy_testkit::raise_nofile();
    Setup::new(BIN, config)
}

/// A `[[stream]]` named `name`; `more` is further lines of the table.
pub(crate) fn stream(name: &str, listen: &str, upstream: impl Display, more: &str) -> String {
    format!("[[stream]]\nname = \"{name}\"\nlisten = \"{listen}\"\nupstream = \"{upstream}\"\n{more}\n")
}

/// A `[[stream]]` named `t` on a TCP port of 127.0.0.1.
pub(crate) fn tcp(upstream: impl Display, more: &str) -> String {
    stream("t", "127.0.0.1:0", upstream, more)
}

/// A `[[stream]]` named `u` on a UDP port of 127.0.0.1, whose flows end soon: the teardown waits for their end.
pub(crate) fn udp(upstream: impl Display, more: &str) -> String {
    let idle = if more.contains("idle_timeout") { "" } else { "idle_timeout = \"2s\"\n" };
    stream("u", "udp://127.0.0.1:0", upstream, &format!("{idle}{more}"))
}

/// Waits until so many datagrams were dropped for `reason`, and sees that it were no more.
pub(crate) fn wait_dropped(proxy: &Proxy, reason: &str, count: u32) {
    let dropped = || proxy.metrics().sum("wmproxy_udp_dropped_total", &[("reason", reason)]);
    eventually(&format!("{count} to be dropped for {reason}"), || dropped() >= f64::from(count));
    assert_eq!(dropped(), f64::from(count), "{reason}");
}

/// Sees that `run` takes less than `limit`, by its own account. A busy machine may hold up any run, so there are three.
pub(crate) fn assert_quick(limit: Duration, mut run: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    let is_quick = (0..3).any(|_| {
        took.push(run());
        took.last() < Some(&limit)
    });
    assert!(is_quick, "{limit:?} were not enough: {took:?}");
}

/// An `[upstream.NAME]` of these servers; `more` is further lines of the table.
pub(crate) fn group(name: &str, servers: &[String], more: &str) -> String {
    let servers: Vec<String> = servers
        .iter()
        .map(|server| if server.starts_with('{') { server.clone() } else { format!("\"{server}\"") })
        .collect();
    format!("[upstream.{name}]\nservers = [{}]\n{more}\n", servers.join(", "))
}
