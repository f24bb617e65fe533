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
use std::hash::Hash;

use crate::quic_initial::{MAX_CID, long_header, short_header_dcid};

/// Shorter ids are not learned: an id has to be told from the bytes of a stranger by its value alone, and of three
/// bytes or fewer too many are in use at a time on a busy server.
const MIN_CID: usize = 4;

/// Below this many entries a map keeps its memory.
const SHRINK_ABOVE: usize = 1_024;

/// From connection ids to what leads to their servers.
#[derive(Debug)]
pub struct CidMap<T> {
    ids: ClaimMap<Cid, T>,
    /// How many ids there are of each length: a short header does not say how long its id is.
    lengths: [u32; MAX_CID + 1],
}

/// A map whose entries live as long as somebody claims them.
#[derive(Debug)]
pub struct ClaimMap<K, T> {
    claimed: HashMap<K, Claimed<T>>,
    serial: u64,
}

#[derive(Debug)]
struct Claimed<T> {
    value: T,
    /// How many flows hold it.
    claims: u32,
    /// Which claims those are: when a key comes to lead elsewhere, the claims from before are void.
    serial: u64,
}

/// A connection id of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cid {
    length: u8,
    /// Zero behind the length.
    bytes: [u8; MAX_CID],
}

/// A flow's hold on a key. Goes back to the map that it came from.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Claim<K = Cid> {
    key: K,
    serial: u64,
}

impl<K> Claim<K> {
    /// The key that it holds.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl Cid {
    /// The id with these bytes. None if it is too short to be worth it, or longer than any of QUIC's.
    pub fn new(bytes: &[u8]) -> Option<Cid> {
        if !(MIN_CID..=MAX_CID).contains(&bytes.len()) {
            return None;
        }
        let mut padded = [0; MAX_CID];
        padded[..bytes.len()].copy_from_slice(bytes);
        Some(Cid { length: bytes.len() as u8, bytes: padded })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len()]
    }

    fn len(&self) -> usize {
        usize::from(self.length)
    }
}

impl<K, T> Default for ClaimMap<K, T> {
    fn default() -> Self {
        ClaimMap { claimed: HashMap::new(), serial: 0 }
    }
}

impl<K: Copy + Eq + Hash, T: PartialEq> ClaimMap<K, T> {
    /// Claims `key` once more, and lets it lead to `value`. If it led elsewhere, the claims from before are void.
    pub fn claim(&mut self, key: K, value: T) -> Claim<K> {
        let serial = match self.claimed.get_mut(&key) {
            Some(claimed) if claimed.value == value => {
                claimed.claims = claimed.claims.saturating_add(1);
                claimed.serial
            }
            _ => {
                self.serial += 1;
                self.claimed.insert(key, Claimed { value, claims: 1, serial: self.serial });
                self.serial
            }
        };
        Claim { key, serial }
    }

    /// Gives a claim back. With the last one the key is forgotten; then the answer is true.
    pub fn release(&mut self, claim: &Claim<K>) -> bool {
        let Some(claimed) = self.claimed.get_mut(&claim.key) else { return false };
        if claimed.serial != claim.serial {
            return false;
        }
        claimed.claims -= 1;
        if claimed.claims > 0 {
            return false;
        }
        self.claimed.remove(&claim.key);
        if self.claimed.capacity() > SHRINK_ABOVE && self.claimed.len() * 4 < self.claimed.capacity() {
            self.claimed.shrink_to_fit();
        }
        true
    }

    /// Where `key` leads.
    pub fn get(&self, key: &K) -> Option<&T> {
        Some(&self.claimed.get(key)?.value)
    }

    /// How many keys are claimed.
    pub fn len(&self) -> usize {
        self.claimed.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.claimed.is_empty()
    }
}

impl<T> Default for CidMap<T> {
    fn default() -> Self {
        CidMap { ids: ClaimMap::default(), lengths: [0; MAX_CID + 1] }
    }
}

impl<T: PartialEq> CidMap<T> {
    /// Claims `cid` for one more flow that leads to `value`; see [`ClaimMap::claim`].
    pub fn claim(&mut self, cid: Cid, value: T) -> Claim {
        if self.ids.get(&cid).is_none() {
            self.lengths[cid.len()] += 1;
        }
        self.ids.claim(cid, value)
    }

    /// Gives a claim back. With the last one the id is forgotten.
    pub fn release(&mut self, claim: &Claim) {
        if self.ids.release(claim) {
            self.lengths[claim.key.len()] -= 1;
        }
    }

    /// The claimed id that `datagram` is addressed to, with what it leads to. Of several that its short header could
    /// hold, the longest.
    pub fn find(&self, datagram: &[u8]) -> Option<(Cid, &T)> {
        if let Some(header) = long_header(datagram) {
            return self.get(header.dcid);
        }
        let lengths = (MIN_CID..=MAX_CID).rev().filter(|length| self.lengths[*length] != 0);
        lengths.filter_map(|length| short_header_dcid(datagram, length)).find_map(|cid| self.get(cid))
    }

    fn get(&self, cid: &[u8]) -> Option<(Cid, &T)> {
        let cid = Cid::new(cid)?;
        Some((cid, self.ids.get(&cid)?))
    }

    /// How many ids are claimed.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(bytes: &[u8]) -> Cid {
        Cid::new(bytes).unwrap()
    }

    fn short(cid: &[u8]) -> Vec<u8> {
        [&[0x40], cid, &[0xee; 30]].concat()
    }

    #[test]
    fn an_id_leads_to_its_server_until_the_last_flow_lets_it_go() {
        let (mut map, id) = (CidMap::default(), cid(&[1; 8]));
        let first = map.claim(id, "a");
        assert_eq!(map.find(&short(&[1; 8])), Some((id, &"a")));
        assert_eq!(map.find(&short(&[2; 8])), None);
        let second = map.claim(id, "a");
        map.release(&first);
        assert_eq!(map.find(&short(&[1; 8])), Some((id, &"a")));
        map.release(&second);
        assert_eq!((map.find(&short(&[1; 8])), map.len()), (None, 0));
    }

    #[test]
    fn the_ids_of_long_headers_count_too() {
        let mut map = CidMap::default();
        let _claim = map.claim(cid(&[7; 5]), ());
        let handshake = [&[0xe0, 0, 0, 0, 1, 5][..], &[7; 5], &[0, 0]].concat();
        assert!(map.find(&handshake).is_some());
        // Where a short header would have it, a long one has something else.
        assert_eq!(map.find(&[&[0x80][..], &[7; 20]].concat()), None);
    }

    #[test]
    fn the_longest_of_several_lengths_is_meant() {
        let mut map = CidMap::default();
        let _short = map.claim(cid(&[3; 4]), "short");
        let _long = map.claim(cid(&[3; 20]), "long");
        assert_eq!(map.find(&short(&[3; 20])), Some((cid(&[3; 20]), &"long")));
        assert_eq!(map.find(&short(&[3; 19])), Some((cid(&[3; 4]), &"short")));
        assert_eq!(map.find(&[0x40, 3, 3, 3]), None);
        assert_eq!(map.find(&[]), None);
    }

    #[test]
    fn a_later_server_with_the_same_id_takes_it_over() {
        let (mut map, id) = (CidMap::default(), cid(&[4; 8]));
        let old = map.claim(id, "old");
        let new = map.claim(id, "new");
        map.release(&old);
        assert_eq!(map.find(&short(&[4; 8])), Some((id, &"new")));
        map.release(&new);
        assert!(map.is_empty() && map.lengths == [0; MAX_CID + 1]);
    }

    #[test]
    fn ids_that_are_none_are_not_learned() {
        for length in [0, 3, 21, 255] {
            assert_eq!(Cid::new(&vec![1; length]), None, "{length}");
        }
        assert!(Cid::new(&[1; 4]).is_some() && Cid::new(&[1; 20]).is_some());
    }
}
