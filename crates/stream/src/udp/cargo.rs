//! The datagrams of one client on their way, whether they lie in the worker's buffers or not.

use wmproxy_net::udp::{Batch, Message, Train};

/// Datagrams of one client, in their order.
#[derive(Clone, Copy)]
pub(super) enum Cargo<'a> {
    /// As they were received.
    Received(&'a Batch<'a>, &'a [Message]),
    /// One by one: they were held, or are parts of what was received.
    Loose(&'a [&'a [u8]]),
}

impl<'a> Cargo<'a> {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        match self {
            Cargo::Received(_, messages) => messages.iter().map(Message::count).sum(),
            Cargo::Loose(datagrams) => datagrams.len(),
        }
    }

    /// Puts the datagrams `skip .. skip + count` on a train.
    pub(super) fn load(&self, mut skip: usize, mut count: usize, train: &mut Train<'a>) {
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
    pub(super) fn sizes(&self) -> impl Iterator<Item = usize> {
        let (messages, datagrams) = match *self {
            Cargo::Received(_, messages) => (messages, &[][..]),
            Cargo::Loose(datagrams) => (&[][..], datagrams),
        };
        messages.iter().flat_map(Message::sizes).chain(datagrams.iter().map(|datagram| datagram.len()))
    }

    /// Each of them.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> {
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
    pub(super) fn datagram(&self, mut index: usize) -> &'a [u8] {
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
