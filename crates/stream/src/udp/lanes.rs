//! Several QUIC connections of one client address, told apart by connection id.
//!
//! A client may keep all of its connections on one socket. Where the server depends on the name that it asks for, those
//! connections are flows of their own, each in a lane of the address (see [`FlowKey::in_lane`]). A datagram is in the
//! lane whose connection id it carries: the one that the client made up for its first packets, or one of the server's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use wmproxy_wire::flow::{Cid, FlowKey};
use wmproxy_wire::quic_initial::{Kind, Packet, long_header, packets, short_header_dcid};

/// The most connections that one address may have at a time: more than a browser has to all servers together.
const MAX_LANES: usize = 256;

/// The ids of one lane: what the client made up, and what its server showed.
const MAX_IDS: usize = 6;

/// The lanes of a worker's listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Lanes(Rc<RefCell<HashMap<FlowKey, Vec<Lane>>>>);

#[derive(Debug)]
struct Lane {
    number: u16,
    ids: Vec<Cid>,
}

/// A flow's lane, which it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    lanes: Lanes,
    key: FlowKey,
}

impl Lanes {
    /// The lane of `key`'s address that a datagram is in. None: it begins a connection, or the address has none.
    pub(super) fn find(&self, key: &FlowKey, datagram: &[u8]) -> Option<FlowKey> {
        let all = self.0.borrow();
        let lanes = all.get(key)?;
        let at = match long_header(datagram) {
            Some(header) => lanes.iter().rposition(|lane| lane.has(header.dcid)),
            None => lanes.iter().rposition(|lane| lane.ids.iter().any(|id| is_to(id, datagram))),
        };
        let at = match at {
            Some(at) => at,
            None if begins(datagram) => return None,
            // An id that was never shown, or no QUIC at all: most likely the latest.
            None => lanes.len() - 1,
        };
        Some(key.in_lane(lanes[at].number))
    }

    /// The lane of `key`'s address, if it has but one.
    pub(super) fn only(&self, key: &FlowKey) -> Option<FlowKey> {
        match &self.0.borrow().get(key)?[..] {
            [lane] => Some(key.in_lane(lane.number)),
            _ => None,
        }
    }

    /// Whether `key`'s address has any.
    pub(super) fn has(&self, key: &FlowKey) -> bool {
        self.0.borrow().contains_key(key)
    }

    /// Whether no address has any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Takes a free lane of `key`'s address for a connection that begins with the id `dcid`. None if it has too many.
    pub(super) fn take(&self, key: FlowKey, dcid: Option<Cid>) -> Option<Taken> {
        let mut all = self.0.borrow_mut();
        let lanes = all.entry(key).or_default();
        if lanes.len() >= MAX_LANES {
            return None;
        }
        let number = (0..).find(|number| lanes.iter().all(|lane| lane.number != *number))?;
        lanes.push(Lane { number, ids: dcid.into_iter().collect() });
        Some(Taken { lanes: self.clone(), key: key.in_lane(number) })
    }
}

impl Lane {
    fn has(&self, id: &[u8]) -> bool {
        self.ids.iter().any(|own| own.as_bytes() == id)
    }
}

impl Taken {
    /// The key of the lane.
    pub(super) fn key(&self) -> FlowKey {
        self.key
    }

    /// Adds an id that the server showed.
    pub(super) fn learn(&self, id: Cid) {
        let mut all = self.lanes.0.borrow_mut();
        let lanes = all.get_mut(&self.key.in_lane(0)).into_iter().flatten();
        for lane in lanes.filter(|lane| lane.number == self.key.lane()) {
            if lane.ids.len() < MAX_IDS && !lane.has(id.as_bytes()) {
                lane.ids.push(id);
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut all = self.lanes.0.borrow_mut();
        let address = self.key.in_lane(0);
        let Some(lanes) = all.get_mut(&address) else { return };
        lanes.retain(|lane| lane.number != self.key.lane());
        if lanes.is_empty() {
            all.remove(&address);
            if all.capacity() > 1_024 && all.len() * 4 < all.capacity() {
                all.shrink_to_fit();
            }
        }
    }
}

fn is_to(id: &Cid, datagram: &[u8]) -> bool {
    short_header_dcid(datagram, id.as_bytes().len()) == Some(id.as_bytes())
}

/// Whether a client's datagram may be the beginning of a connection.
fn begins(datagram: &[u8]) -> bool {
    match packets(datagram).next() {
        Some(Packet::Long(packet)) => packet.kind != Kind::Handshake,
        Some(Packet::UnknownVersion) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> FlowKey {
        FlowKey::from_client(([10, 0, 0, 1], 1).into())
    }

    fn id(byte: u8) -> Option<Cid> {
        Cid::new(&[byte; 8])
    }

    fn long(kind: u8, dcid: u8) -> Vec<u8> {
        [&[0xc0 | kind << 4, 0, 0, 0, 1, 8][..], &[dcid; 8], &[0, 0, 1, 0]].concat()
    }

    fn short(dcid: u8) -> Vec<u8> {
        [&[0x40][..], &[dcid; 8], &[0; 20]].concat()
    }

    #[test]
    fn connections_of_one_address_are_told_apart_by_their_ids() {
        let lanes = Lanes::default();
        assert_eq!(lanes.find(&key(), &short(1)), None);
        let first = lanes.take(key(), id(1)).unwrap();
        assert_eq!(first.key(), key());
        assert_eq!(
            (lanes.find(&key(), &long(0, 1)), lanes.only(&key())),
            (Some(first.key()), Some(first.key()))
        );
        assert_eq!(lanes.find(&key(), &long(0, 2)), None, "another connection begins");
        let second = lanes.take(key(), id(2)).unwrap();
        assert_eq!((second.key().lane(), lanes.only(&key())), (1, None));
        first.learn(id(11).unwrap());
        second.learn(id(12).unwrap());
        for (datagram, lane) in [(long(2, 11), 0), (short(11), 0), (long(0, 12), 1), (short(12), 1)] {
            assert_eq!(lanes.find(&key(), &datagram).unwrap().lane(), lane);
        }
        // What nobody can know is taken for the latest.
        for unknown in [short(9), long(2, 9), b"no QUIC".to_vec(), Vec::new()] {
            assert_eq!(lanes.find(&key(), &unknown).unwrap().lane(), 1);
        }
        drop(first);
        assert_eq!(lanes.take(key(), None).unwrap().key().lane(), 0);
        drop(second);
        assert!(lanes.is_empty() && !lanes.has(&key()));
    }

    #[test]
    fn an_address_has_no_more_than_so_many() {
        let lanes = Lanes::default();
        let taken: Vec<_> = (0..MAX_LANES).map(|_| lanes.take(key(), None).unwrap()).collect();
        assert!(lanes.take(key(), None).is_none());
        assert!(lanes.take(FlowKey::from_client(([10, 0, 0, 2], 1).into()), None).is_some());
        drop(taken);
        assert!(lanes.0.borrow().is_empty());
    }
}
