//! Sockets and streams of wmproxy.
pub mod addr;
pub mod record;
