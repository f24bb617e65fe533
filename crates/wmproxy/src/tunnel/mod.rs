//! Where the tunnel meets the other modes: who serves visitors at the server, and who serves them at the client.
//!
//! What lives here: the [ports] and [fronts] through which visitors come to what clients offer, the [door] by which clients
//! come in, and at the other end the [way](reach) to the server and the [ends] of services. What must not: who may offer what,
//! sessions and streams, which are the tunnel's own (`wmproxy_tunnel`); how connections, requests and datagrams are served,
//! which the modes know.
//!
//! What is offered comes and goes by the second, so that no generation holds it: ports and routes of a tunnel live beside the
//! generations, and a reload changes only what they are made with.

pub(crate) mod door;
pub(crate) mod ends;
pub(crate) mod fronts;
mod group;
mod port;
pub(crate) mod ports;
pub(crate) mod quic;
pub(crate) mod reach;
mod rules;
mod sni;
mod sockets;
mod spot;
#[cfg(test)]
mod tests;
