//! Operations in any order, sensible or not, on a table and its model. Where the simulation shows what an
//! owner does, this shows what it could do wrong; and what fails is cut down to a few steps.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use wmproxy_wire::flow::{FlowKey, FlowTable, Limits, Now};

use crate::model::{Checked, Tag};

#[derive(Debug, Clone)]
enum Operation {
    /// Inserts whether or not the key has a flow.
    Insert(u8),
    /// To the flow that is so far down the list, with so many datagrams.
    Request(usize, u64),
    Response(usize, u64),
    End(usize),
    Spend(usize),
    Evict,
    Pop,
    Expire,
    Advance(u64),
    Back(u64),
    Limits(Limits),
    Stale(usize),
}

fn limits() -> impl Strategy<Value = Limits> {
    (0u64..40, 0u64..5, 0u64..5).prop_map(|(idle, max_requests, max_responses)| Limits {
        idle_timeout: Duration::from_millis(idle),
        max_requests,
        max_responses,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (0u8..12).prop_map(Operation::Insert),
        6 => (any::<usize>(), 0u64..6).prop_map(|(flow, n)| Operation::Request(flow, n)),
        6 => (any::<usize>(), 0u64..6).prop_map(|(flow, n)| Operation::Response(flow, n)),
        1 => any::<usize>().prop_map(Operation::End),
        1 => any::<usize>().prop_map(Operation::Spend),
        1 => Just(Operation::Evict),
        1 => Just(Operation::Pop),
        3 => Just(Operation::Expire),
        3 => (0u64..30).prop_map(Operation::Advance),
        1 => (0u64..30).prop_map(Operation::Back),
        1 => limits().prop_map(Operation::Limits),
        2 => any::<usize>().prop_map(Operation::Stale),
    ]
}

fn key(number: u8) -> FlowKey {
    let client = SocketAddr::from((Ipv4Addr::new(10, 0, 0, number / 4), 1_000 + u16::from(number % 4)));
    FlowKey::from_client(client)
}

fn some_flow(checked: &Checked, number: usize) -> Option<Tag> {
    let mut tags: Vec<Tag> = checked.flows.keys().copied().collect();
    tags.sort_unstable();
    (!tags.is_empty()).then(|| tags[number % tags.len()])
}

fn apply(checked: &mut Checked, now: &mut u64, operation: Operation) {
    let at = Now::from_millis(*now);
    match operation {
        Operation::Insert(number) => {
            checked.lookup(&key(number));
            checked.insert(at, key(number));
        }
        Operation::Request(number, datagrams) => {
            if let Some(tag) = some_flow(checked, number) {
                checked.on_request(at, tag, datagrams);
            }
        }
        Operation::Response(number, datagrams) => {
            if let Some(tag) = some_flow(checked, number) {
                checked.on_response(at, tag, datagrams);
            }
        }
        Operation::End(number) => {
            if let Some(tag) = some_flow(checked, number) {
                checked.end(tag);
            }
        }
        Operation::Spend(number) => {
            if let Some(tag) = some_flow(checked, number) {
                checked.spend(tag);
            }
        }
        Operation::Evict => drop(checked.evict_oldest()),
        Operation::Pop => drop(checked.pop()),
        Operation::Expire => drop(checked.expire(at)),
        Operation::Advance(millis) => *now += millis,
        Operation::Back(millis) => *now = now.saturating_sub(millis),
        Operation::Limits(limits) => checked.set_limits(limits),
        Operation::Stale(number) => {
            if !checked.stale.is_empty() {
                checked.poke(at, checked.stale[number % checked.stale.len()]);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_order_of_operations_follows_the_rules(
        limits in limits(),
        operations in proptest::collection::vec(operation(), 0..200),
    ) {
        let mut checked = Checked::new(limits);
        let mut now = 1_000;
        for operation in operations {
            apply(&mut checked, &mut now, operation);
            checked.compare();
        }
        while checked.pop().is_some() {}
        checked.check_empty();
    }

    #[test]
    fn extreme_numbers_do_no_harm(
        idle: u64, requests: u64, responses: u64, steps: Vec<(u64, u64, u64)>,
    ) {
        let limits = Limits {
            idle_timeout: Duration::from_nanos(idle).saturating_mul(u32::MAX),
            max_requests: requests,
            max_responses: responses,
        };
        let mut table = FlowTable::new(limits);
        let mut total = std::collections::HashMap::new();
        for (now, up, down) in steps {
            let now = Now::from_millis(now);
            let id = table.lookup(&key(0)).unwrap_or_else(|| table.insert(now, key(0), ()));
            let passed = table.on_request(now, id, up);
            prop_assert!(passed <= up && (requests == 0 || passed <= requests));
            let asked = total.entry(id).or_insert(0u64);
            *asked = asked.saturating_add(passed);
            let passed = table.on_response(now, id, down).pass;
            let asked = total.get(&id).copied().unwrap_or(0);
            prop_assert!(passed <= down && (responses == 0 || passed <= responses.max(asked)));
            table.pop_expired(now);
        }
        while table.pop().is_some() {}
        prop_assert!(table.is_empty() && table.next_expiry().is_none());
    }
}
