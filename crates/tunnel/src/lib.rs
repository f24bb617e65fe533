//! The NAT traversal mode: clients behind NAT offer services, and a server on a public machine leads visitors to them.
//!
//! What lives here: the options of `[tunnel_server]` and `[tunnel_client]`; the [proofs](auth) of who both ends are; the
//! [server's](server) sessions and what they may offer; the [client's](client) sessions and how they come back; the
//! [carriers](carrier) of streams, and the [datagrams] of flows. What must not: the bytes of the protocol (`wire`), sockets
//! and TLS (`net`), what visitors speak and where local services are: the modes serve those, which know nothing of tunnels.
//!
//! A visitor passes through so: a listener of another mode takes it, and dials a peer through the server's
//! [`Connect`](wmproxy_net::connect::Connect), which opens a stream in the client's session. At the other end the stream is a
//! [`Conn`](wmproxy_net::conn::Conn) with the visitor's address, and whatever [`Serve`](wmproxy_net::conn::Serve)s the
//! service takes it from there. A tunnel is a stretch of the way between both, and nothing else.

pub mod auth;
pub mod carrier;
pub mod client;
pub mod datagrams;
pub mod options;
pub mod server;

mod pace;
