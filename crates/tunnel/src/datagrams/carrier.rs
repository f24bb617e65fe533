//! What carries datagrams, whichever it is.

use std::io;

use wmproxy_wire::tunnel::datagram::packet::Body;
use wmproxy_wire::tunnel::datagram::{Ending, MAX_DATAGRAM, Origin};

use super::Carry;
use super::arrived::Receiver;
use super::framed::Framed;
use super::quic::Packets;

/// Carries the datagrams of many flows between both ends.
#[derive(Debug)]
pub(super) enum Carrier {
    /// All of it arrives, in its order.
    Frames(Framed),
    /// Each by itself, if it arrives.
    Packets(Packets),
}

impl Carrier {
    /// The end of a carrier where visitors come.
    ///
    /// # Errors
    /// It has ended already.
    pub(super) fn outer(carry: Carry) -> io::Result<Carrier> {
        Ok(match carry {
            Carry::Stream(stream) => Carrier::Frames(Framed::new(stream)),
            Carry::Quic(part) => Carrier::Packets(part.outer()?),
        })
    }

    /// The end where the local service is.
    ///
    /// # Errors
    /// It has ended already.
    pub(super) fn inner(carry: Carry) -> io::Result<Carrier> {
        Ok(match carry {
            Carry::Stream(stream) => Carrier::Frames(Framed::new(stream)),
            Carry::Quic(part) => Carrier::Packets(part.inner()?),
        })
    }

    /// A number for a new flow, another one each time until all have had their turn.
    pub(super) fn number(&self) -> u32 {
        match self {
            Carrier::Frames(frames) => frames.number(),
            Carrier::Packets(packets) => packets.number(),
        }
    }

    /// Takes a datagram. False when there is no room for it: it is not waited for.
    pub(super) fn put(&self, flow: u32, origin: Option<&Origin>, data: &[u8]) -> bool {
        data.len() <= MAX_DATAGRAM
            && match self {
                Carrier::Frames(frames) => frames.put(flow, origin, data),
                Carrier::Packets(packets) => packets.put(flow, origin, data),
            }
    }

    /// Whether what was put arrives: then the other end need be told only once whose a flow is.
    pub(super) fn is_reliable(&self) -> bool {
        matches!(self, Carrier::Frames(_))
    }

    /// Tells the other end that a flow is known.
    pub(super) fn put_opened(&self, flow: u32) {
        match self {
            Carrier::Frames(_) => {}
            Carrier::Packets(packets) => packets.say(flow, Body::Opened),
        }
    }

    /// Tells the other end that a flow is over.
    pub(super) fn put_end(&self, flow: u32, why: Ending) {
        match self {
            Carrier::Frames(frames) => frames.put_end(flow, why),
            Carrier::Packets(packets) => packets.say(flow, Body::End(why)),
        }
    }

    /// Has what was put sent.
    pub(super) fn wake(&self) {
        match self {
            Carrier::Frames(frames) => frames.wake(),
            Carrier::Packets(packets) => packets.wake(),
        }
    }

    /// Sends what was put, and hands over what comes, until it has ended.
    pub(super) async fn run(&self, receiver: &impl Receiver) -> io::Result<()> {
        match self {
            Carrier::Frames(frames) => frames.run(receiver).await,
            Carrier::Packets(packets) => packets.run(receiver).await,
        }
    }

    /// How many datagrams were lost here that had come; since this was last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        match self {
            Carrier::Frames(_) => 0,
            Carrier::Packets(packets) => packets.take_dropped(),
        }
    }
}
