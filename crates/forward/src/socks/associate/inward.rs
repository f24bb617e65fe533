//! From peers to the client.

use std::net::SocketAddr;

use wmproxy_net::limit::Direction;
use wmproxy_net::record::UdpDrop;
use wmproxy_net::udp::{BATCH, Batch, Message, Train};
use wmproxy_wire::socks::{Short, datagram};

use super::outward::PREFIX;
use super::session::Session;
use crate::chain::associate::Association;

impl Session {
    /// Sends a batch of a socket of ours to the client, as far as it comes from whom the client has sent to.
    pub(super) fn pass_back(&self, mut batch: Batch<'_>) {
        let mut messages: [Option<(Message, Short)>; BATCH] = [None; BATCH];
        let mut arrived = 0;
        let mut last: Option<SocketAddr> = None;
        for (index, slot) in messages.iter_mut().enumerate().take(batch.len()) {
            let message = batch.take(index);
            arrived += message.count();
            let Some(from) = message.from.filter(|_| !message.truncated) else {
                self.count_drop(UdpDrop::Malformed, message.count());
                continue;
            };
            let header = datagram::header(SocketAddr::new(from.ip().to_canonical(), from.port()));
            if last != Some(from) && !self.targets.borrow_mut().may_answer(&header[PREFIX..]) {
                self.count_drop(UdpDrop::Stranger, message.count());
                continue;
            }
            last = Some(from);
            *slot = Some((message, header));
        }
        self.metrics().blocks.local().udp_batch_from_peer.record(arrived as u64);
        let mut rest = messages.iter().flatten().peekable();
        while let Some((message, header)) = rest.next() {
            let Some(train) = self.train_to_client() else { return };
            let mut train = train.headed(header);
            let mut datagrams = self.load(&batch, message, &mut train);
            while let Some((message, _)) = rest.next_if(|(_, other)| other == header) {
                datagrams += self.load(&batch, message, &mut train);
            }
            self.settle(Direction::Down, &train.finish(), datagrams, 0);
        }
    }

    /// Sends a batch that came through a chain to the client: it has its headers already.
    pub(super) fn pass_through(&self, mut batch: Batch<'_>, parent: &Association) {
        let mut messages: [Option<Message>; BATCH] = [None; BATCH];
        let count = batch.len();
        for (index, slot) in messages.iter_mut().enumerate().take(count) {
            *slot = Some(batch.take(index));
        }
        let Some(mut train) = self.train_to_client() else { return };
        let is_paced = self.is_paced(Direction::Down);
        let (mut arrived, mut datagrams, mut headers) = (0, 0, 0);
        for message in messages.iter().flatten() {
            for at in 0..message.count() {
                arrived += 1;
                let data = Some(batch.datagram(message, at)).filter(|_| !message.truncated);
                let data = data.and_then(|data| parent.open(data)).unwrap_or_default();
                let why = match datagram::parse(data) {
                    Ok((header, _)) if header.fragment != 0 => UdpDrop::Fragment,
                    Ok((_, length)) if is_paced && !self.admits(Direction::Down, data.len() - length) => {
                        UdpDrop::OverRate
                    }
                    Ok((_, length)) => {
                        train.push(data, 0);
                        datagrams += 1;
                        headers += length;
                        continue;
                    }
                    Err(_) => UdpDrop::Malformed,
                };
                self.count_drop(why, 1);
            }
        }
        self.metrics().blocks.local().udp_batch_from_peer.record(arrived);
        self.settle(Direction::Down, &train.finish(), datagrams, headers);
    }

    /// Puts the datagrams of a message on a train, as many as may pass; answers how many.
    fn load<'a>(&self, batch: &'a Batch<'_>, message: &Message, train: &mut Train<'a>) -> usize {
        let count = message.count();
        let pass = match self.is_paced(Direction::Down) {
            false => count,
            true => message.sizes().take_while(|bytes| self.admits(Direction::Down, *bytes)).count(),
        };
        self.count_drop(UdpDrop::OverRate, count - pass);
        if pass > 0 {
            batch.load(message, 0, pass, train);
        }
        pass
    }

    /// A train to the client, from the address of ours that it sent to; none before it has sent anything.
    fn train_to_client(&self) -> Option<Train<'_>> {
        let sizes = &self.metrics().blocks.local().udp_batch_out;
        Some(Train::to_client(&self.inlet, self.source()?, self.local.get(), sizes))
    }
}
