//! Sending many datagrams in few calls.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use rustix::io::Errno;
use wmproxy_runtime::counter::Log2Histogram;

use super::UdpSocket;
use crate::sys::datagram::{Route, send};

/// What the kernel splits in one call at most (UDP_MAX_SEGMENTS before Linux 6.9).
const MAX_SEGMENTS: usize = 64;

/// All segments together are one packet for the kernel until it splits them: 65,535 less the headers of IPv6 and UDP.
const MAX_BYTES: usize = 65_535 - 48;

/// Datagrams for one receiver on their way into as few calls as possible.
///
/// A call can carry datagrams of one length, the last of which may be shorter. Whatever does not fit that begins the
/// next call, so the order stays.
pub struct Train<'a> {
    socket: &'a UdpSocket,
    route: Route,
    sizes: &'a Log2Histogram,
    /// What stands before the data of each datagram.
    header: &'a [u8],
    cars: [IoSlice<'a>; MAX_SEGMENTS],
    len: usize,
    segment: usize,
    segments: usize,
    bytes: usize,
    /// The last datagram was shorter than the others: nothing may follow it in this call.
    sealed: bool,
    sent: Sent,
}

/// What became of a [`Train`].
#[derive(Debug, Default)]
pub struct Sent {
    /// Datagrams that went, counted from the first.
    pub datagrams: usize,
    /// Their bytes, without [headers](Train::headed).
    pub bytes: usize,
    /// Datagrams that the socket had no room for.
    pub dropped: usize,
    /// Datagrams that can't be sent, as one that is larger than IPv4 allows.
    pub unfit: usize,
    /// What ended it: the datagrams after those above are unsent.
    pub error: Option<io::Error>,
}

impl Sent {
    /// How many datagrams are dealt with, gone or not: those after them are unsent.
    pub fn settled(&self) -> usize {
        self.datagrams + self.dropped + self.unfit
    }
}

impl<'a> Train<'a> {
    /// A train to the peer that `socket` is connected to. Counts the size of each call in `sizes`.
    pub fn to_peer(socket: &'a UdpSocket, sizes: &'a Log2Histogram) -> Train<'a> {
        Train::new(socket, Route::default(), sizes)
    }

    /// A train to a client, from the address of ours that it reached. Counts the size of each call in `sizes`.
    pub fn to_client(
        socket: &'a UdpSocket,
        client: SocketAddr,
        from: Option<IpAddr>,
        sizes: &'a Log2Histogram,
    ) -> Train<'a> {
        Train::new(socket, Route { to: Some(client), from }, sizes)
    }

    pub(super) fn new(socket: &'a UdpSocket, route: Route, sizes: &'a Log2Histogram) -> Train<'a> {
        Train {
            socket,
            route,
            sizes,
            header: &[],
            cars: [IoSlice::new(&[]); MAX_SEGMENTS],
            len: 0,
            segment: 0,
            segments: 0,
            bytes: 0,
            sealed: false,
            sent: Sent::default(),
        }
    }

    /// The same with this before the data of each datagram. Only while it is empty.
    #[must_use]
    pub fn headed(mut self, header: &'a [u8]) -> Train<'a> {
        debug_assert!(self.len == 0);
        self.header = header;
        self
    }

    /// Adds a datagram (`segment` 0), or several of `segment` bytes each, the last of which may be shorter.
    pub fn push(&mut self, mut data: &'a [u8], segment: usize) {
        if !self.header.is_empty() && segment != 0 {
            // What came as one may be too long for one with headers.
            let most = (MAX_BYTES / (self.header.len() + segment)).max(1) * segment;
            while data.len() > most {
                let (first, rest) = data.split_at(most);
                self.push_fitting(first, segment);
                data = rest;
            }
        }
        self.push_fitting(data, segment);
    }

    fn push_fitting(&mut self, data: &'a [u8], segment: usize) {
        let segment = if segment == 0 || segment > data.len() { data.len() } else { segment };
        let segments = if segment == 0 { 1 } else { data.len().div_ceil(segment) };
        let header = self.header.len();
        let fits = self.len > 0
            && !self.sealed
            && segment > 0
            && (segment == self.segment || segments == 1 && segment < self.segment)
            && header + self.segment <= usize::from(self.socket.gso_limit.get())
            && self.segments + segments <= MAX_SEGMENTS
            && self.bytes + data.len() + header * (self.segments + segments) <= MAX_BYTES;
        if !fits {
            self.flush();
            self.segment = segment;
            self.sealed = segment == 0;
        }
        self.cars[self.len] = IoSlice::new(data);
        self.len += 1;
        self.segments += segments;
        self.bytes += data.len();
        self.sealed |= self.bytes != self.segments * self.segment;
    }

    /// Sends what is left and tells how it went.
    pub fn finish(mut self) -> Sent {
        self.flush();
        self.sent
    }

    fn flush(&mut self) {
        let len = std::mem::take(&mut self.len);
        let segments = std::mem::take(&mut self.segments);
        let bytes = std::mem::take(&mut self.bytes);
        if segments == 0 || self.sent.error.is_some() {
            return;
        }
        let limit = self.socket.gso_limit.get();
        let whole = self.header.len() + self.segment;
        let segment = u16::try_from(whole).ok().filter(|s| segments > 1 && *s <= limit);
        if segments > 1 && segment.is_none() {
            return self.send_singly(len);
        }
        let result = match self.header {
            [] => send(self.socket.as_fd(), self.route, &self.cars[..len], segment),
            _ => self.send_headed(len, segment),
        };
        let failed = result.as_ref().err().filter(|_| segment.is_some());
        let Some(lower) = failed.and_then(|error| gso_limit_after(error, whole)) else {
            return match failed.is_some_and(is_unfit) {
                // A firewall may mean but one of them, or none of that size.
                true => self.send_singly(len),
                false => self.note(result, segments, bytes),
            };
        };
        let before = self.sent.datagrams;
        self.send_singly(len);
        // Only if it was the joining that failed, and not, say, the receiver's address; and towards clients only if the
        // device can't do it, for one of them with a narrow way says nothing of the others.
        if self.sent.datagrams > before && (self.route.to.is_none() || lower == 0) {
            tracing::debug!(?result, limit = lower, "sending datagrams one by one from here on");
            self.socket.gso_limit.set(lower);
        }
    }

    /// Sends what is in the first `len` cars by one call, with a header before each datagram. The kernel gathers both:
    /// they are copied no more often than without one.
    fn send_headed(&self, len: usize, segment: Option<u16>) -> io::Result<()> {
        let mut cars = [IoSlice::new(&[]); 2 * MAX_SEGMENTS];
        let mut used = 0;
        for car in &self.cars[..len] {
            let mut rest: &[u8] = car;
            loop {
                let (datagram, after) = rest.split_at(rest.len().min(self.segment));
                cars[used] = IoSlice::new(self.header);
                cars[used + 1] = IoSlice::new(datagram);
                used += 2;
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
        }
        send(self.socket.as_fd(), self.route, &cars[..used], segment)
    }

    /// Sends what is in the first `len` cars, each datagram by itself.
    fn send_singly(&mut self, len: usize) {
        for at in 0..len {
            let car = self.cars[at];
            for datagram in car.chunks(self.segment.max(1)) {
                let pieces = [IoSlice::new(self.header), IoSlice::new(datagram)];
                let result = send(self.socket.as_fd(), self.route, &pieces, None);
                self.note(result, 1, datagram.len());
                if self.sent.error.is_some() {
                    return;
                }
            }
        }
    }

    /// Accounts for one call.
    fn note(&mut self, result: io::Result<()>, datagrams: usize, bytes: usize) {
        match result {
            Ok(()) => {
                self.sent.datagrams += datagrams;
                self.sent.bytes += bytes;
                self.sizes.record(datagrams as u64);
            }
            Err(error) if is_full(&error) => self.sent.dropped += datagrams,
            Err(error) if datagrams == 1 && is_unfit(&error) => self.sent.unfit += 1,
            Err(error) => self.sent.error = Some(error),
        }
    }
}

/// The socket's or the device's queue has no room.
fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::NOBUFS))
}

/// It is this datagram or its receiver that can't be, or that a firewall here forbids; the next one may go.
fn is_unfit(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MSGSIZE | Errno::INVAL | Errno::PERM | Errno::ACCESS))
}

/// What GSO is good for after it failed: nothing if the device can't (EIO), smaller segments if this one was larger
/// than the way's MTU (EINVAL). None if GSO had no part in it.
fn gso_limit_after(error: &io::Error, segment: usize) -> Option<u16> {
    match Errno::from_io_error(error)? {
        Errno::IO => Some(0),
        Errno::INVAL | Errno::MSGSIZE => Some(u16::try_from(segment).unwrap_or(u16::MAX).saturating_sub(1)),
        _ => None,
    }
}
