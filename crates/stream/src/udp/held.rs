//! QUIC clients that have not said yet whom they want: their datagrams wait here, within limits, until they have.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use wmproxy_wire::client_hello::ClientHello;
use wmproxy_wire::flow::{Cid, FlowKey, Now};
use wmproxy_wire::quic_initial::{ClientFlight, Limits, NoHello, long_header};

/// What one client may take. A hello with a post-quantum key has some 1,800 bytes in two datagrams; behind them may
/// come as much early data as a client sends without an answer, ten datagrams (RFC 9002, section 7.2), and a round of
/// retransmissions. Chrome cuts its hello into some ten pieces.
const HELLO: Limits = Limits { hello: 16 << 10, datagrams: 24, pieces: 64 };

/// The most bytes that are held for a client: its datagrams at the size of Ethernet, and some.
const MAX_CLIENT_BYTES: usize = 48 << 10;

/// The most clients and bytes that a worker holds. Most hellos come whole and are never held, so whoever fills this is
/// no crowd of clients but an attack; then the one that has waited for longest goes.
const MAX_CLIENTS: usize = 1_024;
const MAX_BYTES: usize = 8 << 20;

/// Datagrams of one client, in the order in which they came.
pub(super) type Datagrams = Vec<Box<[u8]>>;

/// A client with one of its connections: an address and the id that was made up for the server. An address may begin
/// several connections at a time, and be a proxy's with many clients behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Beginner {
    address: FlowKey,
    dcid: Option<Cid>,
}

impl Beginner {
    /// Who sent `datagram` from `address`.
    pub(super) fn of(address: FlowKey, datagram: &[u8]) -> Beginner {
        Beginner { address, dcid: long_header(datagram).and_then(|header| Cid::new(header.dcid)) }
    }

    /// The connection id, if the datagram shows one.
    pub(super) fn dcid(&self) -> Option<Cid> {
        self.dcid
    }
}

/// The clients of a worker that wait, each with a `T` that is known of it.
#[derive(Debug)]
pub(super) struct Held<T> {
    clients: HashMap<Beginner, Waiting<T>>,
    /// By when they came. All wait equally long, but for those from before a reload.
    order: BTreeMap<u64, Beginner>,
    /// What their datagrams and their hellos take.
    bytes: usize,
    serial: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    flight: ClientFlight,
    datagrams: Datagrams,
    /// Those of its datagrams.
    bytes: usize,
    deadline: Now,
    serial: u64,
    about: T,
}

/// A client whose hello is complete, or known not to come.
#[derive(Debug)]
pub(super) struct Settled<T> {
    pub(super) hello: Result<ClientHello, NoHello>,
    /// What was held, in order, without the datagram that decided it.
    pub(super) held: Datagrams,
    pub(super) about: T,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Held { clients: HashMap::new(), order: BTreeMap::new(), bytes: 0, serial: 0 }
    }
}

impl<T> Held<T> {
    /// Takes the next datagram of a client. None: it is held until `deadline`, which counts from the first one. `about`
    /// is asked at the first one, too.
    pub(super) fn push(
        &mut self,
        key: Beginner,
        datagram: &[u8],
        deadline: Now,
        about: impl FnOnce() -> T,
    ) -> Option<Settled<T>> {
        match self.clients.entry(key) {
            Entry::Occupied(mut entry) => {
                let waiting = entry.get_mut();
                let before = waiting.memory();
                let pushed = waiting.push(datagram);
                self.bytes = self.bytes - before + waiting.memory();
                match pushed {
                    Ok(None) => None,
                    done => {
                        let waiting = entry.remove();
                        self.forget(&waiting);
                        Some(waiting.settle(done))
                    }
                }
            }
            Entry::Vacant(entry) => {
                let mut flight = ClientFlight::new(HELLO);
                // The usual case: nothing is allocated for it here.
                let hello = flight.push(datagram).transpose();
                if let Some(hello) = hello {
                    return Some(Settled { hello, held: Vec::new(), about: about() });
                }
                self.serial += 1;
                self.order.insert(self.serial, key);
                let waiting = Waiting {
                    flight,
                    datagrams: vec![datagram.into()],
                    bytes: datagram.len(),
                    deadline,
                    serial: self.serial,
                    about: about(),
                };
                self.bytes += waiting.memory();
                entry.insert(waiting);
                None
            }
        }
    }

    /// Whether this client waits.
    pub(super) fn has(&self, key: &Beginner) -> bool {
        self.clients.contains_key(key)
    }

    /// How many datagrams of the longest waiting client had to go to keep within the limits; 0 when nobody has to. To
    /// be asked until it is 0.
    pub(super) fn shed(&mut self) -> usize {
        if self.clients.len() <= MAX_CLIENTS && self.bytes <= MAX_BYTES { 0 } else { self.pop_first() }
    }

    /// How many datagrams of a client were held for too long; 0 when there is none such. To be asked until it is 0.
    pub(super) fn expire(&mut self, now: Now) -> usize {
        match self.next_deadline() {
            Some(deadline) if deadline <= now => self.pop_first(),
            _ => 0,
        }
    }

    /// Lets everybody go. How many datagrams that were.
    pub(super) fn clear(&mut self) -> usize {
        std::iter::from_fn(|| Some(self.pop_first()).filter(|datagrams| *datagrams > 0)).sum()
    }

    /// When the one that has waited for longest has done so for too long.
    pub(super) fn next_deadline(&self) -> Option<Now> {
        let (_, key) = self.order.first_key_value()?;
        Some(self.clients.get(key)?.deadline)
    }

    fn pop_first(&mut self) -> usize {
        let Some((_, key)) = self.order.pop_first() else { return 0 };
        let Some(waiting) = self.clients.remove(&key) else { return 0 };
        self.forget(&waiting);
        waiting.datagrams.len()
    }

    fn forget(&mut self, waiting: &Waiting<T>) {
        self.order.remove(&waiting.serial);
        self.bytes -= waiting.memory();
        if self.clients.is_empty() {
            // After an attack nothing of it stays.
            self.clients.shrink_to_fit();
        }
    }
}

impl<T> Waiting<T> {
    fn push(&mut self, datagram: &[u8]) -> Result<Option<ClientHello>, NoHello> {
        let hello = self.flight.push(datagram)?;
        if hello.is_none() {
            if self.bytes + datagram.len() > MAX_CLIENT_BYTES {
                return Err(NoHello::TooLong);
            }
            self.bytes += datagram.len();
            self.datagrams.push(datagram.into());
        }
        Ok(hello)
    }

    fn memory(&self) -> usize {
        self.bytes + self.flight.memory()
    }

    fn settle(self, done: Result<Option<ClientHello>, NoHello>) -> Settled<T> {
        // Only called with a hello or the reason why there is none.
        let hello = done.and_then(|hello| hello.ok_or(NoHello::Malformed));
        Settled { hello, held: self.datagrams, about: self.about }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> Beginner {
        Beginner::of(FlowKey::from_client(([10, 0, 0, 1], port).into()), &early(100))
    }

    fn at(ms: u64) -> Now {
        Now::from_millis(ms)
    }

    /// A 0-RTT packet that overtook its hello: says nothing, and is worth waiting for.
    fn early(length: usize) -> Vec<u8> {
        let header = [0xd0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];
        let rest = (length - header.len() - 2) as u16 | 0x4000;
        let mut packet = [&header[..], &rest.to_be_bytes()].concat();
        packet.resize(length, 9);
        packet
    }

    #[test]
    fn what_is_no_quic_is_settled_at_once() {
        let mut held = Held::default();
        let settled = held.push(key(1), b"hello", at(9), || 7).unwrap();
        assert_eq!((settled.hello, settled.held.len(), settled.about), (Err(NoHello::NotQuic), 0, 7));
        assert_eq!(held.next_deadline(), None);
    }

    #[test]
    fn the_connections_of_an_address_wait_each_for_itself() {
        let mut held = Held::default();
        let mut other = early(100);
        other[6] ^= 1;
        let address = FlowKey::from_client(([10, 0, 0, 1], 1).into());
        let keys = [&early(100), &other].map(|datagram| Beginner::of(address, datagram));
        assert!(held.push(keys[0], &early(100), at(5), || 1).is_none());
        assert!(held.push(keys[1], &other, at(5), || 2).is_none());
        assert!(held.has(&keys[0]) && held.has(&keys[1]));
        // What belongs to no connection that begins does not wait with them.
        let stray = Beginner::of(address, b"no QUIC");
        let settled = held.push(stray, b"no QUIC", at(5), || 3).unwrap();
        assert_eq!((settled.hello, settled.held.len(), settled.about), (Err(NoHello::NotQuic), 0, 3));
    }

    #[test]
    fn what_says_nothing_waits_until_its_deadline() {
        let mut held = Held::default();
        assert!(held.push(key(1), &early(100), at(5), || ()).is_none());
        assert!(held.push(key(2), &early(100), at(6), || ()).is_none());
        assert!(held.push(key(1), &early(200), at(7), || panic!("is known")).is_none());
        assert_eq!((held.next_deadline(), held.expire(at(4))), (Some(at(5)), 0));
        assert_eq!((held.expire(at(6)), held.expire(at(6)), held.expire(at(6))), (2, 1, 0));
        assert_eq!((held.bytes, held.clients.len(), held.order.len()), (0, 0, 0));
    }

    #[test]
    fn who_sends_too_much_is_settled_with_all_that_was_held() {
        let mut held = Held::default();
        let settled = (0..100).find_map(|_| held.push(key(1), &early(1_200), at(5), || ())).unwrap();
        assert_eq!((settled.hello, settled.held.len()), (Err(NoHello::TooManyDatagrams), HELLO.datagrams));
        let settled = (0..100).find_map(|_| held.push(key(1), &early(9_000), at(5), || ())).unwrap();
        assert_eq!((settled.hello, settled.held.len()), (Err(NoHello::TooLong), MAX_CLIENT_BYTES / 9_000));
        assert_eq!((held.bytes, held.order.len()), (0, 0));
    }

    #[test]
    fn a_storm_sheds_those_who_waited_for_longest() {
        let mut held = Held::default();
        for port in 0..=MAX_CLIENTS as u16 {
            assert_eq!(held.shed(), 0);
            assert!(held.push(key(port), &early(100), at(5), || ()).is_none());
        }
        assert_eq!((held.shed(), held.shed()), (1, 0));
        assert!(!held.clients.contains_key(&key(0)));
        assert_eq!(held.clear(), MAX_CLIENTS);
        let large = early(16_000);
        let mut pushed = 0;
        while held.shed() == 0 {
            pushed += 1;
            assert!(held.push(key(pushed), &large, at(5), || ()).is_none());
        }
        assert_eq!(usize::from(pushed), MAX_BYTES / large.len() + 1);
    }
}
