//! Datagrams through a session: flows of visitors at one end, sockets towards the local service at the other.

use std::future::Future;
use std::pin::Pin;

use wmproxy_net::connect::ConnectError;
use wmproxy_net::stream::Stream;

/// What carries the datagrams of many flows between both ends.
#[derive(Debug)]
pub enum Carry {
    /// One behind the other on a stream, which belongs to the calling worker.
    Stream(Stream),
    /// Each by itself, on a connection of QUIC that services share.
    Quic(QuicCarry),
}

/// The part of a connection of QUIC that is a service's.
#[derive(Debug, Clone)]
pub struct QuicCarry {
    /// The connection.
    pub connection: quinn::Connection,
    /// The service's number in the session.
    pub service: u32,
}

/// The way to the other end for the datagrams of a listener.
pub trait DatagramWay: Send + Sync {
    /// Opens a way, on the calling worker. Each worker asks for one when it has flows, and again when that has ended.
    fn carry(&self) -> Carrying<'_>;
}

/// Answers [`DatagramWay::carry`].
pub type Carrying<'a> = Pin<Box<dyn Future<Output = Result<Carry, ConnectError>> + 'a>>;
