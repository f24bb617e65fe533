//! What visitors sent while there was no way yet.

use std::collections::VecDeque;

use wmproxy_wire::flow::FlowKey;

/// How much may wait: the first questions of a thousand visitors, or the first moments of a fast one. A way takes no more
/// than a round trip to open.
const MAX_BYTES: usize = 256 * 1024;

/// How much a datagram counts for besides its bytes.
const PLACE: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    datagrams: VecDeque<(FlowKey, Box<[u8]>)>,
    bytes: usize,
}

impl Waiting {
    /// Keeps a datagram. False when there is no room.
    pub(super) fn push(&mut self, key: FlowKey, datagram: &[u8]) -> bool {
        let bytes = datagram.len() + PLACE;
        if self.bytes + bytes > MAX_BYTES {
            return false;
        }
        self.bytes += bytes;
        self.datagrams.push_back((key, datagram.into()));
        true
    }

    pub(super) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// The datagrams, those of a visitor that came one after the other together.
    pub(super) fn each(&self, mut each: impl FnMut(FlowKey, &[&[u8]])) {
        let mut together: Vec<&[u8]> = Vec::new();
        let mut datagrams = self.datagrams.iter().peekable();
        while let Some((key, datagram)) = datagrams.next() {
            together.push(datagram);
            if datagrams.peek().is_none_or(|(next, _)| next != key) {
                each(*key, &together);
                together.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> FlowKey {
        FlowKey::from_client(([192, 0, 2, 1], port).into())
    }

    #[test]
    fn what_waits_comes_out_in_its_order() {
        let mut waiting = Waiting::default();
        for (port, data) in [(1, "a"), (1, "b"), (2, "c"), (1, "d")] {
            assert!(waiting.push(key(port), data.as_bytes()));
        }
        let mut got = Vec::new();
        waiting.each(|key, all| got.push((key.client().port(), all.concat())));
        assert_eq!(got, [(1, b"ab".to_vec()), (2, b"c".to_vec()), (1, b"d".to_vec())]);
    }

    #[test]
    fn no_more_waits_than_may() {
        for size in [0, 1200, 65_507] {
            let mut waiting = Waiting::default();
            let data = vec![0; size];
            let kept = (0..10_000).take_while(|_| waiting.push(key(1), &data)).count();
            assert_eq!((kept, waiting.len()), (MAX_BYTES / (size + PLACE), kept));
        }
    }
}
