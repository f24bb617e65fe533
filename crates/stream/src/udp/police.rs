//! What keeps flows to a rate: datagrams over it are dropped, as a router does. To let them wait would take memory that
//! anybody can make us take, and give the receiver what is too old to be of use.

use wmproxy_net::limit::{Direction, Gate};
use wmproxy_net::udp::Message;
use wmproxy_runtime::clock;
use wmproxy_wire::bucket::{Bucket, Pace};

use crate::options::RateLimit;

/// The rates of one flow. Only flows that have any hold it.
#[derive(Debug)]
pub(super) struct Police {
    up: Option<Bucket>,
    down: Option<Bucket>,
}

impl Police {
    pub(super) fn new(limit: &RateLimit) -> Option<Box<Police>> {
        let bucket = |rate| Bucket::new(Pace::of_datagrams(rate));
        let police = Police { up: limit.up.map(bucket), down: limit.down.map(bucket) };
        (!limit.is_off()).then(|| Box::new(police))
    }
}

/// How many of datagrams `skip .. skip + count` may pass, the flow's own rate and the listener's permitting. They came at
/// one moment, so those after the first that is too much are too much as well.
pub(super) fn admit<'a>(
    police: Option<&mut Police>,
    gate: &Gate,
    direction: Direction,
    messages: impl Iterator<Item = &'a Message>,
    skip: usize,
    count: usize,
) -> usize {
    let mut own = police.and_then(|police| match direction {
        Direction::Up => police.up.as_mut(),
        Direction::Down => police.down.as_mut(),
    });
    let meter = gate.meter(direction);
    if own.is_none() && !meter.is_limited() {
        return count;
    }
    let now = clock::precise();
    let mut may_pass = |bytes: u64| {
        if !own.as_mut().is_none_or(|own| own.admit(now, bytes)) {
            return false;
        }
        let passes = meter.admit(now, bytes);
        if !passes && let Some(own) = &mut own {
            own.give_back(bytes);
        }
        passes
    };
    let sizes = messages.flat_map(Message::sizes).skip(skip).take(count);
    sizes.take_while(|bytes| may_pass(*bytes as u64)).count()
}
