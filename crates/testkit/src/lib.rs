//! Test tools: backends that misbehave on order, raw clients, the real binary on port 0 with a strict teardown,
//! and the check of the workspace's arrows.
//!
//! Everything here blocks: threads and plain sockets, so that a test reads from top to bottom and a defect of an
//! async runtime can't hide the same defect in the proxy. Nothing here knows a crate of the proxy; what a test
//! learns of the proxy it learns as a user does, from its sockets, its admin API, its log and `/proc`.
//! It must stay a dev-dependency: see [`arrows`].
//!
//! Failures are panics, with a text that says what was expected.
#![allow(clippy::unwrap_used, reason = "a panic is how a test tool reports")]

pub mod admin;
pub mod arrows;
pub mod backend;
pub mod dir;
pub mod exec;
pub mod h2;
pub mod http;
pub mod link;
pub mod metrics;
pub mod names;
pub mod nat;
pub mod pattern;
pub mod proxy;
pub mod tcp;
pub mod tls;
pub mod udp;
pub mod wait;

pub use backend::Backend;
pub use dir::TempDir;
pub use http::{Client, Gate, Origin};
pub use link::Link;
pub use metrics::Metrics;
pub use names::NameServer;
pub use nat::Nat;
pub use pattern::{Pattern, Rng};
pub use proxy::{Proxy, Setup};
pub use tcp::{Addr, Conn};
pub use tls::{Authority, TlsBackend, TlsClient};
pub use udp::{UdpBackend, UdpClient};
pub use wait::{eventually, raise_nofile};

/// How long a test waits for anything before it fails: generous, for a slow machine under load; nothing waits that
/// long when all is well.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
