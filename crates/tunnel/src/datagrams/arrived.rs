//! What one read brought, by flows.

use wmproxy_net::limit::{Direction, Gate};
use wmproxy_runtime::clock;
use wmproxy_wire::tunnel::datagram::{Ending, Origin};

/// The most datagrams that are handed over at a time: what one call can send on.
const TOGETHER: usize = 64;

/// Takes what the other end sent.
pub(super) trait Receiver {
    /// Takes datagrams of a flow in their order; `origin` says whose it is, if they do.
    fn data(&self, flow: u32, origin: Option<Origin>, datagrams: &[&[u8]]);

    /// The other end knows the flow.
    fn opened(&self, flow: u32);

    /// The other end has ended the flow.
    fn ended(&self, flow: u32, why: Ending);
}

/// What came, in its order.
#[derive(Debug, Default)]
pub(super) struct Arrived<'a>(Vec<(u32, Item<'a>)>);

#[derive(Debug)]
pub(super) enum Item<'a> {
    Data(Option<Origin>, &'a [u8]),
    Opened,
    End(Ending),
}

impl<'a> Arrived<'a> {
    pub(super) fn push(&mut self, flow: u32, item: Item<'a>) {
        self.0.push((flow, item));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Hands it over, as many datagrams of a flow together as can be. The order in each flow stays.
    pub(super) fn deliver(mut self, receiver: &impl Receiver) {
        // A stable sort; of what is in order already it only finds that out.
        self.0.sort_by_key(|(flow, _)| *flow);
        let mut rest = &self.0[..];
        while let [(flow, first), behind @ ..] = rest {
            rest = behind;
            match first {
                Item::Opened => receiver.opened(*flow),
                Item::End(why) => receiver.ended(*flow, *why),
                Item::Data(origin, data) => {
                    let mut datagrams = [*data; TOGETHER];
                    let mut count = 1;
                    while let [(next, Item::Data(again, data)), behind @ ..] = rest
                        && next == flow
                        && count < TOGETHER
                        && (again.is_none() || again == origin)
                    {
                        datagrams[count] = data;
                        count += 1;
                        rest = behind;
                    }
                    receiver.data(*flow, *origin, &datagrams[..count]);
                }
            }
        }
    }
}

/// How many of the first `count` datagrams of these sizes may pass all gates. They came at one moment, so those after the
/// first that is too much are too much as well.
pub(super) fn admit<'a>(
    gates: impl Iterator<Item = &'a Gate> + Clone,
    direction: Direction,
    sizes: impl Iterator<Item = usize>,
    count: usize,
) -> usize {
    if !gates.clone().any(|gate| gate.meter(direction).is_limited()) {
        return count;
    }
    let now = clock::precise();
    let may_pass = |bytes: &usize| gates.clone().all(|gate| gate.meter(direction).admit(now, *bytes as u64));
    sizes.take(count).take_while(may_pass).count()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[derive(Default)]
    struct Seen(RefCell<Vec<(u32, String)>>);

    impl Receiver for Seen {
        fn data(&self, flow: u32, origin: Option<Origin>, datagrams: &[&[u8]]) {
            let origin = if origin.is_some() { "new " } else { "" };
            self.0
                .borrow_mut()
                .push((flow, format!("{origin}{}", String::from_utf8_lossy(&datagrams.join(&b',')))));
        }

        fn opened(&self, flow: u32) {
            self.0.borrow_mut().push((flow, "opened".into()));
        }

        fn ended(&self, flow: u32, why: Ending) {
            self.0.borrow_mut().push((flow, format!("{why:?}")));
        }
    }

    #[test]
    fn flows_that_came_mixed_are_handed_over_each_together_and_in_order() {
        let mut arrived = Arrived::default();
        let origin = Some(Origin::default());
        for (flow, item) in [
            (2, Item::Data(origin, b"a")),
            (1, Item::Data(None, b"x")),
            (2, Item::Data(origin, b"b")),
            (1, Item::End(Ending::Idle)),
            (2, Item::Data(None, b"c")),
            (2, Item::Opened),
            (1, Item::Data(origin, b"y")),
            (2, Item::Data(None, b"d")),
        ] {
            arrived.push(flow, item);
        }
        let seen = Seen::default();
        arrived.deliver(&seen);
        let expected = [(1, "x"), (1, "Idle"), (1, "new y"), (2, "new a,b,c"), (2, "opened"), (2, "d")];
        assert_eq!(*seen.0.borrow(), expected.map(|(flow, what)| (flow, what.to_owned())));
    }

    #[test]
    fn no_more_go_together_than_one_call_can_send() {
        let mut arrived = Arrived::default();
        (0..TOGETHER * 2 + 1).for_each(|_| arrived.push(7, Item::Data(None, b"1")));
        let seen = Seen::default();
        arrived.deliver(&seen);
        let counts: Vec<_> = seen.0.borrow().iter().map(|(_, all)| all.matches('1').count()).collect();
        assert_eq!(counts, [TOGETHER, TOGETHER, 1]);
    }
}
