//! Datagrams that come in parts, until they are whole.
//!
//! Who sends parts and never the last may make us keep only so much, and only for so long: then the oldest go. A part that
//! is lost loses its datagram, and no other.

use std::collections::VecDeque;
use std::time::Duration;

use super::MAX_DATAGRAM;
use super::packet::Part;
use crate::flow::Now;

/// How long the rest of a datagram may be under way behind its first part: several times what any path delays it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most datagrams that wait for parts: what a path brings at a time in another order than it was sent. They are searched
/// one by one.
const MOST: usize = 256;

/// The datagrams of a service that are not whole yet. `B` holds the bytes of a part.
#[derive(Debug)]
pub struct Parts<B> {
    /// The oldest first.
    begun: VecDeque<Begun<B>>,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Begun<B> {
    flow: u32,
    datagram: u16,
    since: Now,
    parts: Vec<Option<B>>,
    missing: usize,
    bytes: usize,
}

/// How much a part counts for besides its bytes: its place among the others, and what its allocation has around it. So the
/// limit also bounds parts without any bytes.
const PLACE: usize = 64;

/// What a part came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Came<B> {
    /// The datagram is whole: its parts in their order.
    Whole(Vec<B>),
    /// More has to come. So many datagrams were given up for it.
    Waits(u64),
    /// It makes no sense, or came before.
    Odd,
}

impl<B: AsRef<[u8]>> Parts<B> {
    /// None yet, and never more than so many bytes.
    pub fn new(limit: usize) -> Parts<B> {
        Parts { begun: VecDeque::new(), bytes: 0, limit }
    }

    /// How many datagrams are not whole yet.
    pub fn len(&self) -> usize {
        self.begun.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// How much memory they count for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a part.
    pub fn take(&mut self, now: Now, flow: u32, part: Part, data: B) -> Came<B> {
        let Part { datagram, index, count } = part;
        let (index, count) = (usize::from(index), usize::from(count));
        let length = data.as_ref().len();
        if index >= count || length > MAX_DATAGRAM {
            return Came::Odd;
        }
        // The newest last: mostly it is that one.
        let same = |begun: &Begun<B>| (begun.flow, begun.datagram) == (flow, datagram);
        let at = match self.begun.iter().rposition(same) {
            Some(at) => at,
            None => {
                let mut parts = Vec::new();
                parts.resize_with(count, || None);
                let bytes = count * PLACE;
                self.bytes += bytes;
                self.begun.push_back(Begun { flow, datagram, since: now, parts, missing: count, bytes });
                self.begun.len() - 1
            }
        };
        let begun = &mut self.begun[at];
        let has_room = begun.bytes - begun.parts.len() * PLACE + length <= MAX_DATAGRAM;
        let is_same_count = begun.parts.len() == count;
        match begun.parts.get_mut(index) {
            Some(place @ None) if is_same_count && has_room => *place = Some(data),
            _ => return Came::Odd,
        }
        begun.bytes += length;
        begun.missing -= 1;
        self.bytes += length;
        if begun.missing > 0 {
            return Came::Waits(self.shed(now));
        }
        match self.remove(at) {
            Some(whole) => Came::Whole(whole.parts.into_iter().flatten().collect()),
            None => Came::Odd,
        }
    }

    /// Gives up the datagrams whose rest has not come in time, and says how many.
    pub fn expire(&mut self, now: Now) -> u64 {
        let mut given_up = 0;
        while self.begun.front().is_some_and(|oldest| now.since(oldest.since) >= PATIENCE) {
            self.remove(0);
            given_up += 1;
        }
        given_up
    }

    fn shed(&mut self, now: Now) -> u64 {
        let mut given_up = self.expire(now);
        while self.bytes > self.limit || self.begun.len() > MOST {
            self.remove(0);
            given_up += 1;
        }
        given_up
    }

    fn remove(&mut self, at: usize) -> Option<Begun<B>> {
        let begun = self.begun.remove(at)?;
        self.bytes -= begun.bytes;
        Some(begun)
    }
}
