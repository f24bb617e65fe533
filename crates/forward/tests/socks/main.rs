//! SOCKS from the first byte to the relay, over sockets of this machine, with a gateway that knows what the tests do.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bind;
mod datagrams;
mod gateway;
mod house;
mod v4;
mod v5;
