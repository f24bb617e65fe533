//! Datagrams through a session: flows of visitors at one end, sockets towards the local service at the other.
//!
//! The [outer] end has the listener where visitors come: it finds their flows, and asks a [`DatagramWay`] for what carries
//! them. The [inner] end gives each flow a socket of its own towards the service. Neither waits for the other: what there is
//! no room for is dropped and counted, as a router does.

mod arrived;
mod carrier;
mod framed;
pub mod inner;
pub mod outer;
mod quic;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use wmproxy_net::connect::ConnectError;
use wmproxy_net::limit::Gate;
use wmproxy_net::stream::Stream;

pub use quic::{QuicCarry, QuicDatagrams};

/// What carries the datagrams of many flows between both ends.
#[derive(Debug)]
pub enum Carry {
    /// One behind the other on a stream, which belongs to the calling worker.
    Stream(Stream),
    /// Each by itself, on a connection of QUIC that services share.
    Quic(QuicCarry),
}

/// A way that was opened.
#[derive(Debug)]
pub struct Carried {
    /// What carries the datagrams.
    pub carry: Carry,
    /// What bounds its flows and their bytes besides the listener's own gate: the limits of a client, and of its service.
    pub gates: Vec<Arc<Gate>>,
    /// Turns true when nobody is at the other end any more, were it that the carrier itself does not know yet: behind a NAT that
    /// has forgotten it, a connection is silent for long before it breaks.
    pub over: Option<watch::Receiver<bool>>,
}

/// The way to the other end for the datagrams of a listener.
pub trait DatagramWay: Send + Sync {
    /// Opens a way, on the calling worker. Each worker asks for one when it has flows, and again when that has ended.
    fn carry(&self) -> Carrying<'_>;
}

/// Answers [`DatagramWay::carry`].
pub type Carrying<'a> = Pin<Box<dyn Future<Output = Result<Carried, ConnectError>> + 'a>>;
