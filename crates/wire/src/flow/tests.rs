use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use super::*;

const FREE: Limits = Limits { idle_timeout: Duration::from_millis(100), max_requests: 0, max_responses: 0 };

fn at(millis: u64) -> Now {
    Now::from_millis(millis)
}

fn key(client: &str) -> FlowKey {
    FlowKey::from_client(client.parse().unwrap())
}

/// Begins a flow.
fn begin(table: &mut FlowTable<&'static str>, now: u64, client: &str, name: &'static str) -> FlowId {
    table.insert(at(now), key(client), name)
}

fn expired(table: &mut FlowTable<&'static str>, now: u64) -> Vec<(&'static str, EndReason)> {
    std::iter::from_fn(|| table.pop_expired(at(now))).map(|ended| (ended.value, ended.reason)).collect()
}

#[test]
fn a_flow_lives_on_traffic_in_either_direction() {
    let mut table = FlowTable::new(FREE);
    let id = begin(&mut table, 0, "10.0.0.1:1", "a");
    assert_eq!(table.on_request(at(90), id, 1), 1);
    assert_eq!(table.on_response(at(180), id, 2).pass, 2);
    assert_eq!(table.next_expiry(), Some(at(280)));
    assert!(table.pop_expired(at(279)).is_none());
    let ended = table.pop_expired(at(280)).unwrap();
    assert_eq!((ended.id, ended.value, ended.reason), (id, "a", EndReason::Idle));
    assert_eq!((ended.requests, ended.responses), (1, 2));
    assert_eq!((ended.began, ended.active), (at(0), at(180)));
    assert!(table.is_empty() && table.lookup(&key("10.0.0.1:1")).is_none());
}

#[test]
fn each_lane_of_a_client_is_a_flow() {
    let mut table = FlowTable::new(FREE);
    let first = begin(&mut table, 0, "10.0.0.1:1", "first");
    let other = key("10.0.0.1:1").in_lane(7);
    assert_eq!((table.lookup(&other), other.lane(), other.client()), (None, 7, key("10.0.0.1:1").client()));
    let second = table.insert(at(0), other, "second");
    assert_eq!((table.lookup(&key("10.0.0.1:1")), table.lookup(&other)), (Some(first), Some(second)));
}

#[test]
fn a_flow_that_is_declared_spent_takes_answers_only() {
    let mut table = FlowTable::new(FREE);
    let old = begin(&mut table, 0, "10.0.0.1:1", "old");
    table.spend(old);
    table.spend(old);
    assert_eq!((table.lookup(&key("10.0.0.1:1")), table.on_request(at(1), old, 1)), (None, 0));
    let new = begin(&mut table, 1, "10.0.0.1:1", "new");
    table.spend(old);
    assert_eq!(table.lookup(&key("10.0.0.1:1")), Some(new));
    assert_eq!((table.on_response(at(2), old, 3).pass, table.len()), (3, 2));
    assert_eq!(expired(&mut table, 101), [("new", EndReason::Idle)]);
    assert_eq!(expired(&mut table, 102), [("old", EndReason::Idle)]);
}

#[test]
fn a_quiet_flow_ends_before_its_timeout_when_that_is_asked_for() {
    let mut table = FlowTable::new(FREE);
    begin(&mut table, 0, "10.0.0.1:1", "a");
    begin(&mut table, 30, "10.0.0.1:2", "b");
    let quiet = Duration::from_millis(40);
    assert!(table.pop_quiet(at(39), quiet).is_none());
    let ended = table.pop_quiet(at(40), quiet).unwrap();
    assert_eq!((ended.value, ended.reason), ("a", EndReason::Idle));
    assert!(table.pop_quiet(at(40), quiet).is_none());
    assert_eq!(table.pop_quiet(at(70), quiet).unwrap().value, "b");
}

#[test]
fn a_datagram_before_the_expiry_is_asked_for_keeps_the_flow() {
    let mut table = FlowTable::new(FREE);
    let id = begin(&mut table, 0, "10.0.0.1:1", "a");
    assert_eq!(table.on_request(at(5_000), id, 1), 1);
    assert!(table.pop_expired(at(5_000)).is_none());
}

#[test]
fn flows_are_told_apart_by_client_and_local_address() {
    let client: SocketAddr = "10.0.0.1:1".parse().unwrap();
    let local = |text: &str| -> IpAddr { text.parse().unwrap() };
    let mut table = FlowTable::new(FREE);
    let one = FlowKey::new(client, local("192.0.2.1"));
    let other = FlowKey::new(client, local("192.0.2.2"));
    let id = table.insert(at(0), one, "a");
    assert_eq!((table.lookup(&one), table.lookup(&other)), (Some(id), None));
    assert_eq!((one.client(), one.local()), (client, local("192.0.2.1")));
}

#[test]
fn an_ipv6_flow_label_is_no_part_of_the_key_but_the_scope_is() {
    let client = |label, scope| {
        let address = SocketAddrV6::new("fe80::1".parse().unwrap(), 1, label, scope);
        FlowKey::from_client(address.into())
    };
    assert_eq!(client(1, 2), client(9, 2));
    assert_ne!(client(1, 2), client(1, 3));
}

#[test]
fn a_spent_flow_waits_for_answers_while_the_next_one_begins() {
    let mut table = FlowTable::new(Limits { max_requests: 2, ..FREE });
    let client = "10.0.0.1:1";
    let first = begin(&mut table, 0, client, "first");
    assert_eq!(table.on_request(at(0), first, 5), 2, "of a batch, what the limit leaves");
    assert_eq!(table.lookup(&key(client)), None);
    assert_eq!(table.on_request(at(0), first, 3), 0);

    let second = begin(&mut table, 10, client, "second");
    assert_eq!(table.lookup(&key(client)), Some(second));
    assert_eq!(table.on_request(at(10), second, 1), 1);
    assert_eq!(table.on_response(at(20), first, 1).pass, 1);

    assert_eq!(expired(&mut table, 110), [("second", EndReason::Idle)]);
    assert_eq!(expired(&mut table, 120), [("first", EndReason::Limit)]);
}

#[test]
fn refused_requests_do_not_keep_a_spent_flow() {
    let mut table = FlowTable::new(Limits { max_requests: 1, ..FREE });
    let id = begin(&mut table, 0, "10.0.0.1:1", "a");
    assert_eq!(table.on_request(at(0), id, 1), 1);
    assert_eq!(table.on_request(at(99), id, 1), 0);
    assert_eq!(expired(&mut table, 100), [("a", EndReason::Limit)]);
}

#[test]
fn the_last_response_ends_the_flow() {
    let mut table = FlowTable::new(Limits { max_responses: 3, ..FREE });
    let id = begin(&mut table, 0, "10.0.0.1:1", "a");
    let first = table.on_response(at(1), id, 2);
    assert!(first.pass == 2 && first.ended.is_none());
    let last = table.on_response(at(2), id, 2);
    assert_eq!(last.pass, 1);
    let ended = last.ended.unwrap();
    assert_eq!((ended.value, ended.reason, ended.responses), ("a", EndReason::Limit, 3));
    assert!(table.is_empty() && table.lookup(&key("10.0.0.1:1")).is_none());
    assert_eq!(table.on_response(at(3), id, 1).pass, 0);
}

#[test]
fn questions_asked_in_one_go_all_get_their_answers() {
    let mut table = FlowTable::new(Limits { max_responses: 1, ..FREE });
    let id = begin(&mut table, 0, "10.0.0.1:1", "a");
    assert_eq!(table.on_request(at(0), id, 2), 2);
    let first = table.on_response(at(1), id, 1);
    assert!(first.pass == 1 && first.ended.is_none());
    let second = table.on_response(at(2), id, 3);
    assert_eq!((second.pass, second.ended.unwrap().value), (1, "a"));
}

#[test]
fn what_was_idle_for_longest_makes_room() {
    let mut table = FlowTable::new(FREE);
    let a = begin(&mut table, 0, "10.0.0.1:1", "a");
    begin(&mut table, 0, "10.0.0.2:1", "b");
    // In the same millisecond: the order of events decides.
    assert_eq!(table.on_response(at(0), a, 1).pass, 1);
    let evicted = table.evict_oldest().unwrap();
    assert_eq!((evicted.value, evicted.reason), ("b", EndReason::Evicted));
    assert_eq!(table.evict_oldest().unwrap().value, "a");
    assert!(table.evict_oldest().is_none());
}

#[test]
fn an_old_id_never_reaches_the_flow_in_its_place() {
    let mut table = FlowTable::new(FREE);
    let old = begin(&mut table, 0, "10.0.0.1:1", "old");
    table.end(old);
    let new = begin(&mut table, 0, "10.0.0.1:1", "new");
    assert_eq!(old.index, new.index, "the place is used again");
    assert_eq!(table.on_request(at(0), old, 1), 0);
    assert!(table.end(old).is_none() && table.get(old).is_none());
    assert_eq!(table.get(new), Some(&"new"));
}

#[test]
fn a_key_inserted_again_supersedes_its_flow() {
    let mut table = FlowTable::new(FREE);
    let old = begin(&mut table, 0, "10.0.0.1:1", "old");
    let new = begin(&mut table, 50, "10.0.0.1:1", "new");
    assert_eq!(table.lookup(&key("10.0.0.1:1")), Some(new));
    assert_eq!((table.on_request(at(50), old, 1), table.on_request(at(50), new, 1)), (0, 1));
    assert_eq!(expired(&mut table, 100), [("old", EndReason::Idle)]);
    assert_eq!(table.lookup(&key("10.0.0.1:1")), Some(new), "the end of the old one leaves the key alone");
}

#[test]
fn a_reload_leaves_the_flows_there_are_untouched() {
    let mut table = FlowTable::new(FREE);
    let old = begin(&mut table, 0, "10.0.0.1:1", "old");
    table.set_limits(Limits { idle_timeout: Duration::from_millis(10), max_requests: 1, ..FREE });
    let new = begin(&mut table, 0, "10.0.0.2:1", "new");
    assert_eq!((table.on_request(at(5), old, 9), table.on_request(at(5), new, 9)), (9, 1));
    assert_eq!(table.next_expiry(), Some(at(15)));
    assert_eq!(expired(&mut table, 104), [("new", EndReason::Limit)]);
    assert_eq!(expired(&mut table, 105), [("old", EndReason::Idle)]);
}

#[test]
fn many_reloads_leave_one_set_of_limits_for_each_in_use() {
    let mut table = FlowTable::new(FREE);
    begin(&mut table, 0, "10.0.0.1:1", "a");
    for millis in 1..1_000 {
        table.set_limits(Limits { idle_timeout: Duration::from_millis(millis), ..FREE });
    }
    assert_eq!(table.sets_of_limits(), 2);
}

#[test]
fn time_does_not_run_backwards() {
    let mut table = FlowTable::new(FREE);
    begin(&mut table, 1_000, "10.0.0.1:1", "a");
    begin(&mut table, 500, "10.0.0.2:1", "b");
    assert_eq!(expired(&mut table, 1_099), []);
    assert_eq!(expired(&mut table, 1_100).len(), 2);
    assert_eq!((at(5).since(at(3)), at(3).since(at(5))), (Duration::from_millis(2), Duration::ZERO));
}

#[test]
fn a_part_of_a_millisecond_counts_as_a_whole_one() {
    let mut table = FlowTable::new(Limits { idle_timeout: Duration::from_micros(1), ..FREE });
    begin(&mut table, 0, "10.0.0.1:1", "a");
    assert_eq!(table.next_expiry(), Some(at(1)));
}

#[test]
fn memory_shrinks_after_a_storm() {
    let mut table = FlowTable::new(FREE);
    assert_eq!(table.allocated(), 0);
    for number in 0..100_000u32 {
        let client = SocketAddr::from((Ipv4Addr::from(number), 1));
        // One in a thousand stays, so that what is left is scattered over all the memory.
        let stays = number.is_multiple_of(1_000);
        let idle_timeout = Duration::from_secs(if stays { 9 } else { 1 });
        table.set_limits(Limits { idle_timeout, ..FREE });
        table.insert(at(0), FlowKey::from_client(client), number);
    }
    assert!(table.allocated() >= 200_000);
    while table.pop_expired(at(1_000)).is_some() {}
    assert_eq!(table.len(), 100);
    // At most a chunk for each that is left, one spare, and the map.
    assert!(table.allocated() <= 101 * 64 + 4_096, "{}", table.allocated());
    while table.pop().is_some() {}
    assert!(table.allocated() <= 64 + 2_048, "{}", table.allocated());
}

#[test]
fn a_flow_around_a_border_of_chunks_does_not_allocate_each_time() {
    let mut table = FlowTable::new(FREE);
    for port in 1..=64 {
        table.insert(at(0), key(&format!("10.0.0.1:{port}")), port);
    }
    let mut sizes = HashSet::new();
    for _ in 0..10 {
        let id = table.insert(at(0), key("10.0.0.2:1"), 65);
        sizes.insert(table.allocated());
        table.end(id);
        sizes.insert(table.allocated());
    }
    assert_eq!(sizes.len(), 1);
}

#[test]
fn a_flow_takes_little_beside_its_value() {
    // What `slab.rs` reckons with.
    assert_eq!(table::FLOW_SIZE, 112);
}
