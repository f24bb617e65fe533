//! What keeps flows to a rate: datagrams over it are dropped, as a router does. To let them wait would take memory that
//! anybody can make us take, and give the receiver what is too old to be of use.

use wmproxy_net::limit::{Direction, Gate};
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

/// How many of the first `count` datagrams of these sizes may pass, the flow's own rate and the listener's permitting. They came at
/// one moment, so those after the first that is too much are too much as well.
pub(super) fn admit(
    police: Option<&mut Police>,
    gate: &Gate,
    direction: Direction,
    sizes: impl Iterator<Item = usize>,
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
    sizes.take(count).take_while(|bytes| may_pass(*bytes as u64)).count()
}
