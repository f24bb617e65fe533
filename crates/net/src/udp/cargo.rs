//! The datagrams of one client on their way, whether they lie in the worker's buffers or not.

use wmproxy_wire::flow::FlowKey;

use super::flows::Flows;
use super::{BATCH, Batch, Message, Train};
use crate::record::UdpDrop;

/// Datagrams of one client, in their order.
#[derive(Clone, Copy)]
pub enum Cargo<'a> {
    /// As they were received.
    Received(&'a Batch<'a>, &'a [Message]),
    /// One by one: they were held, or are parts of what was received.
    Loose(&'a [&'a [u8]]),
}

impl<T, K: Copy + Eq + std::hash::Hash> Flows<T, K> {
    /// Hands over what came to a listener, the datagrams of each client together and in their order.
    pub fn each_client(&self, mut batch: Batch<'_>, mut each: impl FnMut(FlowKey, Cargo<'_>)) {
        let mut messages: [Option<(FlowKey, Message)>; BATCH] = [None; BATCH];
        let mut datagrams = 0;
        let count = batch.len();
        for (index, slot) in messages.iter_mut().enumerate().take(count) {
            let message = batch.take(index);
            datagrams += message.count();
            *slot = match message.from {
                // Nobody can be answered at port 0.
                Some(client) if client.port() != 0 && !message.truncated => {
                    let key = match message.local {
                        Some(local) => FlowKey::new(client, local),
                        None => FlowKey::from_client(client),
                    };
                    Some((key, message))
                }
                _ => {
                    self.count_drop(UdpDrop::Malformed, message.count() as u64);
                    None
                }
            };
        }
        self.metrics().blocks.local().udp_batch_in.record(datagrams as u64);
        let mut together = Vec::with_capacity(count);
        for first in 0..count {
            let Some((key, message)) = messages[first].take() else { continue };
            together.clear();
            together.push(message);
            for later in &mut messages[first + 1..count] {
                if later.as_ref().is_some_and(|(other, _)| *other == key) {
                    together.extend(later.take().map(|(_, message)| message));
                }
            }
            each(key, Cargo::Received(&batch, &together));
        }
    }

    /// The messages of a peer that came whole, and how many datagrams they are.
    pub fn whole(&self, batch: &mut Batch<'_>) -> ([Option<Message>; BATCH], usize) {
        let mut messages: [Option<Message>; BATCH] = [None; BATCH];
        let mut datagrams = 0;
        for (index, slot) in messages.iter_mut().enumerate().take(batch.len()) {
            let message = batch.take(index);
            if message.truncated {
                self.count_drop(UdpDrop::Malformed, message.count() as u64);
            } else {
                datagrams += message.count();
                *slot = Some(message);
            }
        }
        self.metrics().blocks.local().udp_batch_from_peer.record(datagrams as u64);
        (messages, datagrams)
    }
}

impl<'a> Cargo<'a> {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Cargo::Received(_, messages) => messages.iter().map(Message::count).sum(),
            Cargo::Loose(datagrams) => datagrams.len(),
        }
    }

    /// Puts the datagrams `skip .. skip + count` on a train.
    pub fn load(&self, mut skip: usize, mut count: usize, train: &mut Train<'a>) {
        let (batch, messages) = match *self {
            Cargo::Received(batch, messages) => (batch, messages),
            Cargo::Loose(datagrams) => {
                return datagrams[skip..skip + count].iter().for_each(|datagram| train.push(datagram, 0));
            }
        };
        for message in messages {
            if count == 0 {
                return;
            }
            let here = message.count();
            if skip >= here {
                skip -= here;
                continue;
            }
            let take = count.min(here - skip);
            batch.load(message, skip, take, train);
            count -= take;
            skip = 0;
        }
    }

    /// The bytes of each.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        let (messages, datagrams) = match *self {
            Cargo::Received(_, messages) => (messages, &[][..]),
            Cargo::Loose(datagrams) => (&[][..], datagrams),
        };
        messages.iter().flat_map(Message::sizes).chain(datagrams.iter().map(|datagram| datagram.len()))
    }

    /// Each of them.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> {
        let (received, loose) = match *self {
            Cargo::Received(batch, messages) => (Some((batch, messages)), &[][..]),
            Cargo::Loose(datagrams) => (None, datagrams),
        };
        let received = received.into_iter().flat_map(|(batch, messages)| {
            messages.iter().flat_map(move |message| {
                (0..message.count()).map(move |index| batch.datagram(message, index))
            })
        });
        received.chain(loose.iter().copied())
    }

    /// Datagram number `index`; empty behind the last.
    pub fn datagram(&self, mut index: usize) -> &'a [u8] {
        match *self {
            Cargo::Received(batch, messages) => {
                for message in messages {
                    if index < message.count() {
                        return batch.datagram(message, index);
                    }
                    index -= message.count();
                }
                &[]
            }
            Cargo::Loose(datagrams) => datagrams.get(index).copied().unwrap_or_default(),
        }
    }
}
