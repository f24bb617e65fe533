use std::sync::Barrier;

use super::*;
use crate::carrier::tests::{Ends, Way, run};

fn hub(ends: &Ends) -> Arc<QuicDatagrams> {
    QuicDatagrams::new(ends.server.0.connection().unwrap().clone())
}

#[test]
fn workers_that_come_at_once_get_a_lane_each() {
    run(async {
        let ends = Ends::new(Way::Quic).await;
        let hub = hub(&ends);
        let (start, end) = (Barrier::new(2), Barrier::new(2));
        let take = || {
            let outcomes = (0..500).map(|_| {
                start.wait();
                let taken = hub.service(1).outer();
                end.wait();
                taken.map(drop)
            });
            outcomes.collect::<Vec<_>>()
        };
        let outcomes = std::thread::scope(|threads| {
            let other = threads.spawn(take);
            let mut outcomes = take();
            outcomes.extend(other.join().unwrap());
            outcomes
        });
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    });
}

#[test]
fn a_number_is_not_given_to_a_second_flow() {
    run(async {
        let ends = Ends::new(Way::Quic).await;
        let hub = hub(&ends);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 {
            // The other end may not have heard yet that the flows of the one before are over.
            let packets = [hub.service(1).outer().unwrap(), hub.service(1).outer().unwrap()];
            for packets in &packets {
                assert!(seen.insert(packets.number()) && seen.insert(packets.number()));
            }
        }
    });
}
