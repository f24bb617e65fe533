//! The PROXY header that a peer gets with a flow's datagrams.

use wmproxy_net::preface::{Introduction, ProxyVersion};
use wmproxy_net::record::Record;
use wmproxy_net::udp::{Cargo, Sent, Train};
use wmproxy_upstream::Group;

/// What stands before the datagrams of a flow that are still to come.
#[derive(Debug)]
pub(super) struct Greeting {
    header: Introduction,
    every: bool,
}

/// Datagrams with headers before them.
#[derive(Debug, Default)]
pub(super) struct Greeted {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// How many of them begin with a header.
    with_header: usize,
}

impl Greeting {
    /// What the peers of `group` are to be told of the client of `record`, before the first datagram or before `every`
    /// one; if anything.
    pub(super) fn of(group: &Group, record: &Record, every: bool) -> Option<Box<Greeting>> {
        group.spec().send_proxy_protocol?;
        // The config allows no other version for datagrams.
        let header = Introduction::new(ProxyVersion::V2, record);
        Some(Box::new(Greeting { header, every }))
    }

    /// The datagrams `skip .. skip + count`, with headers.
    pub(super) fn greet(&self, cargo: &Cargo<'_>, skip: usize, count: usize) -> Greeted {
        let mut greeted =
            Greeted { with_header: if self.every { count } else { count.min(1) }, ..Greeted::default() };
        for index in 0..count {
            if index < greeted.with_header {
                greeted.bytes.extend_from_slice(self.header.as_bytes());
            }
            greeted.bytes.extend_from_slice(cargo.datagram(skip + index));
            greeted.ends.push(greeted.bytes.len());
        }
        greeted
    }

    /// Whether nothing more needs a header, after `sent` went out. A first datagram that did not go leaves the header to
    /// the next one.
    pub(super) fn is_over(&self, sent: &Sent) -> bool {
        !self.every && sent.datagrams > 0
    }

    /// How many of the bytes sent were headers.
    pub(super) fn bytes_in(&self, greeted: &Greeted, sent: &Sent) -> usize {
        greeted.with_header.min(sent.datagrams) * self.header.as_bytes().len()
    }
}

impl Greeted {
    /// Puts them on a train.
    pub(super) fn load<'a>(&'a self, train: &mut Train<'a>) {
        let mut start = 0;
        for &end in &self.ends {
            train.push(&self.bytes[start..end], 0);
            start = end;
        }
    }
}
