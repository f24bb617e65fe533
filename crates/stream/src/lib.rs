//! The layer-4 proxy: what comes in goes to a peer of an upstream group, byte for byte.
//!
//! What lives here: the options of `[[stream]]` ([`options`]), the table of its upstreams ([`route`]), the service of TCP connections ([`tcp`]) and the flows
//! of UDP listeners ([`udp`]). What must not: sockets and system calls (`net`), the choice of a peer (`upstream`), the
//! rules of a flow's life (`wire::flow`), anything above layer 4.
//!
//! A connection passes through so: the accept loop hands it to [`tcp::TcpService`], which asks the listener's allow
//! and deny lists, dials a peer and relays until both sides are done. A datagram comes to [`udp::UdpListener`], which
//! finds its flow or begins one, with a lease on a peer and a socket of its own, and sends it on.

pub mod bridge;
pub mod options;
pub mod route;
pub mod tcp;
pub mod udp;
