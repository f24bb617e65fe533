//! Bytes and their meaning, for every other crate of wmproxy.
//!
//! What lives here are pure functions and state machines: bytes and the time go in; a value, "more bytes
//! are needed" or an error comes out. What must not live here is anything that waits or looks around
//! itself: no tokio, no sockets, no clock, no threads, no `unsafe`. The time is an argument, every length,
//! count and depth has a limit that is an argument, and no input whatsoever panics. That is what lets each
//! room be tested by tables, by random input and by a seeded simulation that plays hours in a millisecond.
//!
//! How traffic passes through: the configuration is read with [`units`]; a UDP worker asks
//! [`flow`] for each batch of datagrams which flow it belongs to and whether it may pass, a limit [`bucket`]
//! and [`arrivals`]. What a connection says first is read with [`proxy_protocol`], [`client_hello`] and
//! [`quic_initial`]. A message of HTTP is a [`head`], which [`http1`] reads and writes together with the borders of its body;
//! what the connection becomes after an upgrade may be [`websocket`]. A client of a forward proxy says in [`socks`], or in a
//! head, to which [`destination`] it wants. The sockets stay with the caller throughout.

#![forbid(unsafe_code)]

pub mod arrivals;
pub mod bucket;
pub mod client_hello;
pub mod destination;
pub mod flow;
pub mod head;
pub mod http1;
pub mod http2;
pub mod proxy_protocol;
pub mod quic_initial;
pub mod socks;
pub mod tunnel;
pub mod units;
pub mod websocket;
