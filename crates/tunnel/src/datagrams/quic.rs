//! Datagrams over QUIC, each by itself: what is lost holds up nothing else.

mod mailbox;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use wmproxy_net::udp::flows::now;
use wmproxy_runtime::moderation;
use wmproxy_wire::tunnel::datagram::Origin;
use wmproxy_wire::tunnel::datagram::packet::{Body, MAX_PACKET_HEADER, Packet, Part};
use wmproxy_wire::tunnel::datagram::parts::{Came, Parts};

use super::arrived::{Arrived, Item, Receiver};
use mailbox::Mailbox;

/// What a service's datagrams that are not whole yet may take: sixteen of the largest.
const MAX_PARTS: usize = 1 << 20;

/// Where the packets of a batch are put together. A packet keeps its chunk alive until it is sent.
const CHUNK: usize = 64 * 1024;

/// What the connection's buffer counts for a packet besides its bytes.
const OVERHEAD: usize = size_of::<Bytes>();

/// Packets that are handed out before other tasks have their turn.
const TURN: usize = 128;

/// Hands the datagrams that come on a connection to the services that they are for. One for each connection.
#[derive(Debug)]
pub struct QuicDatagrams {
    connection: quinn::Connection,
    places: Mutex<Places>,
    /// Packets that were for nobody, or made no sense.
    strays: AtomicU64,
    /// How many flows have begun here, in all lanes.
    begun: AtomicU32,
}

#[derive(Debug, Default)]
struct Places {
    boxes: HashMap<(u32, Lane), Arc<Mailbox>>,
    /// Nothing will come any more.
    has_ended: bool,
}

/// Who of a service's end gets a packet: the lower eight bits of the flow's number say so, where there is more than one.
type Lane = Option<u8>;

/// The part of a connection of QUIC that is a service's.
#[derive(Debug, Clone)]
pub struct QuicCarry {
    hub: Arc<QuicDatagrams>,
    service: u32,
}

/// Carries the datagrams of one owner, which is a worker of an outer end, or an inner end.
#[derive(Debug)]
pub(super) struct Packets {
    hub: Arc<QuicDatagrams>,
    service: u32,
    lane: Lane,
    mailbox: Arc<Mailbox>,
    parts: RefCell<Parts<Bytes>>,
    /// Numbers the datagrams that go in parts.
    parted: Cell<u16>,
    /// The most bytes of a packet; asked for once a batch.
    most: Cell<Option<usize>>,
    writer: RefCell<Writer>,
}

/// Where packets are put together.
#[derive(Debug, Default)]
struct Writer {
    chunk: BytesMut,
    header: Vec<u8>,
}

impl QuicDatagrams {
    /// Those of a connection. Nothing comes before [`run`](Self::run).
    pub fn new(connection: quinn::Connection) -> Arc<QuicDatagrams> {
        let (places, strays, begun) = (Mutex::default(), AtomicU64::new(0), AtomicU32::new(0));
        Arc::new(QuicDatagrams { connection, places, strays, begun })
    }

    /// The part of a service.
    pub fn service(self: &Arc<Self>, service: u32) -> QuicCarry {
        QuicCarry { hub: self.clone(), service }
    }

    /// How many packets came that were for nobody, or made no sense.
    pub fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    /// Hands out what comes, until the connection is lost; then, or when this is dropped, whatever uses it ends. On any
    /// thread: the one that drives the connection is best.
    pub async fn run(self: Arc<Self>) {
        let ended = EndOnDrop(&self);
        loop {
            let Ok(first) = self.connection.read_datagram().await else { break };
            self.hand_out(first);
            // Whatever has come with it goes in the same turn.
            for _ in 0..TURN {
                match self.connection.read_datagram().now_or_never() {
                    Some(Ok(packet)) => self.hand_out(packet),
                    Some(Err(_)) | None => break,
                }
            }
            tokio::task::yield_now().await;
        }
        drop(ended);
    }

    fn hand_out(&self, packet: Bytes) {
        let place = Packet::read(&packet).ok().and_then(|read| {
            let places = self.places();
            let place = places.boxes.get(&(read.service, Some(read.flow as u8)));
            place.or_else(|| places.boxes.get(&(read.service, None))).cloned()
        });
        match place {
            Some(place) => place.push(packet),
            None => {
                self.strays.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct EndOnDrop<'a>(&'a QuicDatagrams);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        let mut places = self.0.places();
        places.has_ended = true;
        places.boxes.drain().for_each(|(_, mailbox)| mailbox.end());
    }
}

impl QuicCarry {
    /// For a worker of the outer end, one of several.
    ///
    /// # Errors
    /// The connection is lost, or there are too many.
    pub(super) fn outer(self) -> io::Result<Packets> {
        let service = self.service;
        self.place(|places| {
            let is_free = |lane: &u8| !places.boxes.contains_key(&(service, Some(*lane)));
            Ok(Some((0..=u8::MAX).find(is_free).ok_or(io::ErrorKind::QuotaExceeded)?))
        })
    }

    /// For the inner end.
    ///
    /// # Errors
    /// The connection is lost, or the service has an inner end here already.
    pub(super) fn inner(self) -> io::Result<Packets> {
        let service = self.service;
        self.place(|places| match places.boxes.contains_key(&(service, None)) {
            true => Err(io::ErrorKind::AddrInUse.into()),
            false => Ok(None),
        })
    }

    fn place(self, choose: impl FnOnce(&Places) -> io::Result<Lane>) -> io::Result<Packets> {
        let QuicCarry { hub, service } = self;
        let mailbox = Arc::new(Mailbox::default());
        let mut places = hub.places();
        if places.has_ended {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let lane = choose(&places)?;
        places.boxes.insert((service, lane), mailbox.clone());
        drop(places);
        Ok(Packets {
            hub,
            service,
            lane,
            mailbox,
            parts: RefCell::new(Parts::new(MAX_PARTS)),
            parted: Cell::new(0),
            most: Cell::new(None),
            writer: RefCell::default(),
        })
    }
}

impl Packets {
    /// A number for a flow. The lanes count together, and for as long as the connection lasts: that a flow is over may have got
    /// lost, so that who has the lane next must not begin with the same numbers.
    pub(super) fn number(&self) -> u32 {
        let count = self.hub.begun.fetch_add(1, Ordering::Relaxed);
        count << 8 | u32::from(self.lane.unwrap_or_default())
    }

    /// Sends a datagram. False when there is no room for it, or the other end takes none.
    pub(super) fn put(&self, flow: u32, origin: Option<&Origin>, data: &[u8]) -> bool {
        let Some(most) = self.most() else { return false };
        let connection = &self.hub.connection;
        let mut writer = self.writer.borrow_mut();
        writer.begin(&self.packet(flow, origin, Body::Data(data)));
        let whole = writer.header.len() + data.len();
        if whole <= most {
            return connection.datagram_send_buffer_space() >= whole && writer.send(connection, data);
        }
        let Some(size) = most.checked_sub(MAX_PACKET_HEADER).filter(|size| *size > 0) else { return false };
        let count = data.len().div_ceil(size);
        // All of them or none: a part alone is of no use.
        let all = data.len() + count * (MAX_PACKET_HEADER + OVERHEAD);
        let Ok(count) = u8::try_from(count) else { return false };
        if connection.datagram_send_buffer_space() < all {
            return false;
        }
        let datagram = self.parted.get();
        self.parted.set(datagram.wrapping_add(1));
        data.chunks(size).zip(0..).all(|(data, index)| {
            writer.begin(&self.packet(flow, origin, Body::Part(Part { datagram, index, count }, data)));
            writer.send(connection, data)
        })
    }

    /// Tells the other end something of a flow. It may get lost.
    pub(super) fn say(&self, flow: u32, body: Body<'static>) {
        let mut writer = self.writer.borrow_mut();
        writer.begin(&self.packet(flow, None, body));
        writer.send(&self.hub.connection, &[]);
    }

    /// The batch is over.
    pub(super) fn wake(&self) {
        self.most.set(None);
    }

    /// Hands over what comes, until the connection is lost.
    pub(super) async fn run(&self, receiver: &impl Receiver) -> io::Result<()> {
        loop {
            let came = self.mailbox.take().await.ok_or(io::ErrorKind::ConnectionReset)?;
            moderation::note(came.len());
            self.deliver(&came, receiver);
            tokio::task::yield_now().await;
        }
    }

    /// How many packets were dropped because they came faster than they were dealt with, or were parts of nothing; since
    /// this was last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        self.mailbox.take_dropped()
    }

    /// The most bytes of a packet; none if the other end takes none.
    fn most(&self) -> Option<usize> {
        if self.most.get().is_none() {
            self.most.set(self.hub.connection.max_datagram_size());
        }
        self.most.get()
    }

    fn packet<'a>(&self, flow: u32, origin: Option<&Origin>, body: Body<'a>) -> Packet<'a> {
        Packet { service: self.service, flow, origin: origin.copied(), body }
    }

    fn deliver(&self, came: &[Bytes], receiver: &impl Receiver) {
        let now = now();
        let mut parts = self.parts.borrow_mut();
        self.mailbox.add_dropped(parts.expire(now));
        // Those that became whole, and where among the others they belong.
        let mut whole = Vec::new();
        for (at, packet) in came.iter().enumerate() {
            let Ok(Packet { flow, body: Body::Part(part, data), origin, .. }) = Packet::read(packet) else {
                continue;
            };
            match parts.take(now, flow, part, packet.slice_ref(data)) {
                Came::Whole(parts) => whole.push((at, flow, origin, parts.concat())),
                Came::Waits(given_up) => self.mailbox.add_dropped(given_up),
                Came::Odd => self.mailbox.add_dropped(1),
            }
        }
        drop(parts);
        let mut whole = whole.iter().peekable();
        let mut arrived = Arrived::default();
        for (at, packet) in came.iter().enumerate() {
            let Ok(packet) = Packet::read(packet) else { continue };
            match packet.body {
                Body::Data(data) => arrived.push(packet.flow, Item::Data(packet.origin, data)),
                Body::Part(..) => {
                    if let Some((_, flow, origin, data)) = whole.next_if(|(place, ..)| *place == at) {
                        arrived.push(*flow, Item::Data(*origin, data));
                    }
                }
                Body::Opened => arrived.push(packet.flow, Item::Opened),
                Body::End(why) => arrived.push(packet.flow, Item::End(why)),
                Body::Unknown => {}
            }
        }
        arrived.deliver(receiver);
    }
}

impl Writer {
    fn begin(&mut self, packet: &Packet<'_>) {
        self.header.clear();
        packet.put_header(&mut self.header);
    }

    /// Sends the packet that was begun, with its data.
    fn send(&mut self, connection: &quinn::Connection, data: &[u8]) -> bool {
        let length = self.header.len() + data.len();
        if self.chunk.capacity() < length {
            self.chunk = BytesMut::with_capacity(CHUNK.max(length));
        }
        self.chunk.extend_from_slice(&self.header);
        self.chunk.extend_from_slice(data);
        connection.send_datagram(self.chunk.split().freeze()).is_ok()
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        let mut places = self.hub.places();
        let key = (self.service, self.lane);
        if places.boxes.get(&key).is_some_and(|mailbox| Arc::ptr_eq(mailbox, &self.mailbox)) {
            places.boxes.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
