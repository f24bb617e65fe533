//! What carries the streams of a session: connections of their own, or many on one.
//!
//! What lives here: messages on a stream ([`speech`]), and the two ways to have many streams on one connection, [`mux`] on a
//! connection of TCP and [`quic`]. What must not: what a stream is for, and who may open one.
//!
//! A stream of either kind is a [`Stream`] like any other: its end is an end, its reset a reset, and who does not read holds
//! up nobody but who writes to them.

pub mod mux;
pub mod quic;
pub mod speech;

use std::io;

use wmproxy_net::stream::Stream;

/// The most streams of a connection that are open at a time, those of each side counted by themselves: twice as many visitors as
/// a whole server is made for, of one client.
pub(crate) const MAX_STREAMS: u32 = 4096;

/// A connection that carries many streams. Clones are the same connection; it is for every worker to use.
#[derive(Debug, Clone)]
pub struct Many(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Mux(mux::Opener),
    Quic(quic::Opener),
}

/// The streams that the other side opens.
#[derive(Debug)]
pub struct Incoming(Source);

#[derive(Debug)]
enum Source {
    Mux(mux::Accepted),
    Quic(quic::Accepted),
}

/// A stream that belongs to no worker yet.
#[derive(Debug)]
pub struct Unplaced(Stream);

impl Many {
    /// Opens a stream, for the calling worker. The other side learns of it with the first bytes that are written.
    ///
    /// # Errors
    /// The connection is over, or carries as many streams as it may ([`io::ErrorKind::QuotaExceeded`]).
    pub async fn open(&self) -> io::Result<Stream> {
        match &self.0 {
            Kind::Mux(opener) => opener.open(),
            Kind::Quic(opener) => opener.open().await,
        }
    }

    /// The connection of QUIC that it is, if it is one.
    pub fn connection(&self) -> Option<&quinn::Connection> {
        match &self.0 {
            Kind::Mux(_) => None,
            Kind::Quic(opener) => Some(opener.connection()),
        }
    }

    /// Ends the connection at once, and with it all of its streams, as a reset.
    pub fn close(&self) {
        match &self.0 {
            Kind::Mux(opener) => opener.close(),
            Kind::Quic(opener) => opener.close(),
        }
    }

    /// Waits until the connection is over, and says why.
    pub async fn closed(&self) -> io::Error {
        match &self.0 {
            Kind::Mux(opener) => opener.closed().await,
            Kind::Quic(opener) => opener.closed().await,
        }
    }
}

impl Incoming {
    /// The next stream; none when the connection is over.
    pub async fn next(&mut self) -> Option<Unplaced> {
        match &mut self.0 {
            Source::Mux(accepted) => accepted.next().await,
            Source::Quic(accepted) => accepted.next().await,
        }
    }
}

impl Unplaced {
    /// Makes it a stream of the calling worker.
    pub fn place(self) -> Stream {
        self.0
    }
}

#[cfg(test)]
pub(crate) mod tests;
