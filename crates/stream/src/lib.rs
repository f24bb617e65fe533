//! The layer-4 proxy: what comes in goes to a peer of an upstream group, byte for byte.
//!
//! What lives here: the options of `[[stream]]` ([`options`]), the table of its upstreams by server name ([`route`]), the
//! service of TCP connections ([`tcp`]), the flows of UDP listeners ([`udp`]), and bridges between TCP and WebSocket
//! ([`bridge`]). What must not: sockets and system calls (`net`), the choice of a peer (`upstream`), the rules of a flow's
//! life and every wire format (`wire`), anything else above layer 4.
//!
//! A connection passes through so: the accept loop hands it to [`tcp::TcpService`], which hears what comes before the
//! data, asks the listener's allow and deny lists, chooses the upstream, dials a peer and relays until both sides are
//! done. A datagram comes to [`udp::UdpListener`], which finds its flow or begins one, with a lease on a peer and a socket
//! of its own, and sends it on.

pub mod bridge;
pub mod options;
pub mod route;
pub mod tcp;
pub mod udp;
