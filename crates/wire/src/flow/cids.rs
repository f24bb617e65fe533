//! Which connection ids lead where: how a flow of QUIC is known again when its client's address has changed.
//!
//! A server chooses the id by which its client addresses it, and says so in the clear in its handshake packets. A NAT
//! that forgets its mapping gives the client another address in the middle of a connection; its packets then still
//! carry that id. The owner of this map *claims* the id for the flow that it came through, with whatever leads to the
//! server, asks for it ([`CidMap::find`]) when a datagram belongs to no flow, and releases the claim with the flow.
//!
//! What cannot work: ids that the server hands out later are encrypted, so nobody on the way knows them. A client that
//! changes its address *on purpose* uses one of those (RFC 9000, section 9.5).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::quic_initial::{MAX_CID, long_header, short_header_dcid};

/// Shorter ids are not learned: an id has to be told from the bytes of a stranger by its value alone, and of three
/// bytes or fewer too many are in use at a time on a busy server.
const MIN_CID: usize = 4;

/// Below this many entries the map keeps its memory.
const SHRINK_ABOVE: usize = 1_024;

/// From connection ids to what leads to their servers.
#[derive(Debug)]
pub struct CidMap<T> {
    claimed: HashMap<Cid, Claimed<T>>,
    /// How many ids there are of each length: a short header does not say how long its id is.
    lengths: [u32; MAX_CID + 1],
    serial: u64,
}

#[derive(Debug)]
struct Claimed<T> {
    value: T,
    /// How many flows hold it.
    claims: u32,
    /// Which claims those are: when two servers choose the same id, those of the first are void.
    serial: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Cid {
    length: u8,
    /// Zero behind the length.
    bytes: [u8; MAX_CID],
}

/// A flow's hold on a connection id. Goes back to [`CidMap::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Claim {
    cid: Cid,
    serial: u64,
}

impl Claim {
    /// The id that it holds.
    pub fn cid(&self) -> &[u8] {
        self.cid.as_bytes()
    }
}

impl Cid {
    fn new(bytes: &[u8]) -> Option<Cid> {
        if !(MIN_CID..=MAX_CID).contains(&bytes.len()) {
            return None;
        }
        let mut padded = [0; MAX_CID];
        padded[..bytes.len()].copy_from_slice(bytes);
        Some(Cid { length: bytes.len() as u8, bytes: padded })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl<T> Default for CidMap<T> {
    fn default() -> Self {
        CidMap { claimed: HashMap::new(), lengths: [0; MAX_CID + 1], serial: 0 }
    }
}

impl<T: PartialEq> CidMap<T> {
    /// Claims `cid` for one more flow that leads to `value`. If it led elsewhere, it no longer does. None for an id
    /// that is too short to be worth it, or longer than any of QUIC's.
    pub fn claim(&mut self, cid: &[u8], value: T) -> Option<Claim> {
        let cid = Cid::new(cid)?;
        let serial = match self.claimed.entry(cid) {
            Entry::Occupied(mut entry) if entry.get().value == value => {
                let claimed = entry.get_mut();
                claimed.claims = claimed.claims.saturating_add(1);
                claimed.serial
            }
            entry => {
                self.serial += 1;
                let claimed = Claimed { value, claims: 1, serial: self.serial };
                match entry {
                    Entry::Occupied(mut entry) => _ = entry.insert(claimed),
                    Entry::Vacant(entry) => {
                        entry.insert(claimed);
                        self.lengths[usize::from(cid.length)] += 1;
                    }
                }
                self.serial
            }
        };
        Some(Claim { cid, serial })
    }

    /// Gives a claim back. With the last one the id is forgotten.
    pub fn release(&mut self, claim: Claim) {
        let Entry::Occupied(mut entry) = self.claimed.entry(claim.cid) else { return };
        let claimed = entry.get_mut();
        if claimed.serial != claim.serial {
            return;
        }
        claimed.claims -= 1;
        if claimed.claims == 0 {
            entry.remove();
            self.lengths[usize::from(claim.cid.length)] -= 1;
            if self.claimed.capacity() > SHRINK_ABOVE && self.claimed.len() * 4 < self.claimed.capacity() {
                self.claimed.shrink_to_fit();
            }
        }
    }

    /// The claimed id that `datagram` is addressed to, with what it leads to. Of several that its short header could
    /// hold, the longest.
    pub fn find<'a>(&self, datagram: &'a [u8]) -> Option<(&'a [u8], &T)> {
        if let Some(header) = long_header(datagram) {
            return self.get(header.dcid);
        }
        let lengths = (MIN_CID..=MAX_CID).rev().filter(|length| self.lengths[*length] != 0);
        lengths.filter_map(|length| short_header_dcid(datagram, length)).find_map(|cid| self.get(cid))
    }

    fn get<'a>(&self, cid: &'a [u8]) -> Option<(&'a [u8], &T)> {
        Some((cid, &self.claimed.get(&Cid::new(cid)?)?.value))
    }

    /// How many ids are claimed.
    pub fn len(&self) -> usize {
        self.claimed.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.claimed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(cid: &[u8]) -> Vec<u8> {
        [&[0x40], cid, &[0xee; 30]].concat()
    }

    #[test]
    fn an_id_leads_to_its_server_until_the_last_flow_lets_it_go() {
        let mut map = CidMap::default();
        let first = map.claim(&[1; 8], "a").unwrap();
        assert_eq!(map.find(&short(&[1; 8])), Some((&[1; 8][..], &"a")));
        assert_eq!(map.find(&short(&[2; 8])), None);
        let second = map.claim(&[1; 8], "a").unwrap();
        map.release(first);
        assert_eq!(map.find(&short(&[1; 8])), Some((&[1; 8][..], &"a")));
        map.release(second);
        assert_eq!((map.find(&short(&[1; 8])), map.len()), (None, 0));
    }

    #[test]
    fn the_ids_of_long_headers_count_too() {
        let mut map = CidMap::default();
        let _claim = map.claim(&[7; 5], ()).unwrap();
        let handshake = [&[0xe0, 0, 0, 0, 1, 5][..], &[7; 5], &[0, 0]].concat();
        assert!(map.find(&handshake).is_some());
        // Where a short header would have it, a long one has something else.
        assert_eq!(map.find(&[&[0x80][..], &[7; 20]].concat()), None);
    }

    #[test]
    fn the_longest_of_several_lengths_is_meant() {
        let mut map = CidMap::default();
        let _short = map.claim(&[3; 4], "short").unwrap();
        let _long = map.claim(&[3; 20], "long").unwrap();
        assert_eq!(map.find(&short(&[3; 20])), Some((&[3; 20][..], &"long")));
        assert_eq!(map.find(&short(&[3; 19])), Some((&[3; 4][..], &"short")));
        assert_eq!(map.find(&[0x40, 3, 3, 3]), None);
        assert_eq!(map.find(&[]), None);
    }

    #[test]
    fn a_later_server_with_the_same_id_takes_it_over() {
        let mut map = CidMap::default();
        let old = map.claim(&[4; 8], "old").unwrap();
        let new = map.claim(&[4; 8], "new").unwrap();
        map.release(old);
        assert_eq!(map.find(&short(&[4; 8])), Some((&[4; 8][..], &"new")));
        map.release(new);
        assert!(map.is_empty());
    }

    #[test]
    fn ids_that_are_none_are_not_learned() {
        let mut map = CidMap::default();
        for length in [0, 3, 21, 255] {
            assert_eq!(map.claim(&vec![1; length], ()), None, "{length}");
        }
        assert!(map.claim(&[1; 4], ()).is_some() && map.claim(&[1; 20], ()).is_some());
    }
}
