//! The forward proxy mode: clients say where they want to go, and rules say whether they may and by which way.
//!
//! What lives here: the options of `[[forward]]`, `[egress]` and `[chain]`; [users] and what each of them may use up; the
//! [egress] rules, which decide before anything is resolved and again on every address; [chains](chain) of other proxies;
//! [SOCKS](socks); and the [listener](service) that tells the protocols of one port apart. What must not: HTTP itself
//! (`http`, which asks through [`Gateway`](wmproxy_http::forward::Gateway)), the bytes of SOCKS (`wire`), sockets and TLS
//! (`net`), names and how they are resolved (`upstream`).
//!
//! A connection passes through so: what it has to say before its data, then its first byte, which names the protocol; who it
//! is; where it wants to go, which the egress rules allow or not; the way there; the reply, only once it is connected;
//! the relay.

pub mod chain;
pub mod egress;
pub mod gateway;
pub mod options;
pub mod service;
pub mod socks;
pub mod users;

mod lock;
