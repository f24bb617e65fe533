use std::collections::HashMap;

use super::*;
use crate::balance::{Balance, HashKey};
use crate::{Registry, ServerSpec};

fn server(text: &str) -> ServerSpec {
    ServerSpec::new(text.parse().unwrap())
}

fn group(servers: Vec<ServerSpec>, change: impl FnOnce(&mut GroupSpec)) -> Arc<Group> {
    let mut spec = GroupSpec { servers, ..GroupSpec::inline("g", vec![]) };
    change(&mut spec);
    Registry::new().build(spec)
}

fn three() -> Vec<ServerSpec> {
    ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(server).into()
}

fn lease(group: &Group, now: u64) -> Lease {
    group.lease(&LeaseKey::default(), &[], now).unwrap()
}

/// The addresses of the next leases, each of which is over at once.
fn next(group: &Group, count: usize, now: u64) -> Vec<String> {
    (0..count).map(|_| lease(group, now).address().to_string()).collect()
}

fn fail(group: &Group, address: &str, now: u64) {
    let peer = group.peers().into_iter().find(|peer| peer.address().to_string() == address).unwrap();
    peer.failed(now, FailKind::Refused, now, &group.policy);
}

#[test]
fn weights_are_shares() {
    let servers = [("10.0.0.1:1", 3), ("10.0.0.2:1", 1)];
    let servers = servers.map(|(text, weight)| ServerSpec { weight, ..server(text) });
    let group = group(servers.into(), |_| {});
    let mut given: HashMap<String, u32> = HashMap::new();
    for address in next(&group, 400, 0) {
        *given.entry(address).or_default() += 1;
    }
    assert_eq!((given["10.0.0.1:1"], given["10.0.0.2:1"]), (300, 100));
}

#[test]
fn a_connection_that_goes_on_keeps_its_peer_whatever_becomes_of_it() {
    let group =
        group(vec![ServerSpec { max_connections: 1, ..server("10.0.0.1:1") }, server("10.0.0.2:1")], |_| {});
    let peer = Arc::clone(lease(&group, 0).peer());
    let first = group.lease_again(&peer, 0);
    fail(&group, &peer.address().to_string(), 0);
    let again = group.lease_again(&peer, 1);
    assert!(Arc::ptr_eq(again.peer(), &peer));
    assert_eq!((peer.in_flight(), peer.leases()), (2, 3));
    drop((first, again));
    assert_eq!(peer.in_flight(), 0);
}

#[test]
fn a_backup_is_used_only_without_a_primary() {
    let servers = vec![server("10.0.0.1:1"), ServerSpec { backup: true, ..server("10.0.0.2:1") }];
    let group = group(servers, |_| {});
    assert_eq!(next(&group, 2, 0), ["10.0.0.1:1"; 2]);
    fail(&group, "10.0.0.1:1", 0);
    assert_eq!(next(&group, 2, 1), ["10.0.0.2:1"; 2]);
    // Tried counts like ejected.
    let backup = lease(&group, 1);
    let tried = [Arc::clone(backup.peer())];
    let other = group.lease(&LeaseKey::default(), &tried, 1).unwrap();
    assert_eq!(other.address().to_string(), "10.0.0.1:1", "an ejected primary before nobody");
}

#[test]
fn a_server_that_is_down_gets_nothing() {
    let mut servers = three();
    servers[0].down = true;
    assert_eq!(next(&group(servers.clone(), |_| {}), 3, 0), ["10.0.0.2:1", "10.0.0.3:1", "10.0.0.2:1"]);
    servers.iter_mut().for_each(|server| server.down = true);
    let all_down = group(servers, |_| {});
    assert_eq!(all_down.lease(&LeaseKey::default(), &[], 0).unwrap_err(), NoPeer::Down);
}

#[test]
fn after_an_ejection_one_trial_decides() {
    let group = group(three(), |_| {});
    fail(&group, "10.0.0.1:1", 0);
    assert!(!next(&group, 6, 9_999).contains(&"10.0.0.1:1".into()));
    let leases: Vec<_> = (0..9).map(|_| lease(&group, 10_000)).collect();
    let (trial, rest): (Vec<_>, Vec<_>) =
        leases.into_iter().partition(|lease| lease.address().to_string() == "10.0.0.1:1");
    assert_eq!((trial.len(), rest.len()), (1, 8), "others wait for the verdict elsewhere");
    // The client went away during the trial: the next one is it.
    drop(trial);
    let mut trial = (0..3)
        .map(|_| lease(&group, 10_001))
        .find(|lease| lease.address().to_string() == "10.0.0.1:1")
        .expect("a trial was given back");
    trial.succeeded(None, 10_002);
    assert_eq!(next(&group, 6, 10_003).iter().filter(|a| *a == "10.0.0.1:1").count(), 2, "its full share");
}

#[test]
fn when_all_are_ejected_all_are_tried() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::RandomTwo] {
        let group = group(three(), |spec| spec.balance = balance.clone());
        for address in ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"] {
            fail(&group, address, 0);
        }
        let mut seen = next(&group, 60, 1);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3, "{balance:?}");
        // The first that works gets everything from then on.
        let mut works = lease(&group, 1);
        let address = works.address().to_string();
        works.succeeded(None, 2);
        assert_eq!(next(&group, 4, 3), vec![address; 4], "{balance:?}");
    }
}

#[test]
fn full_peers_are_skipped_and_full_groups_say_so() {
    let mut servers = three();
    servers.truncate(2);
    servers[0].max_connections = 1;
    servers[1].max_connections = 2;
    let group = group(servers, |_| {});
    let held: Vec<_> = (0..3).map(|_| lease(&group, 0)).collect();
    assert_eq!(group.lease(&LeaseKey::default(), &[], 0).unwrap_err(), NoPeer::Full);
    let tried: Vec<_> = held.iter().map(|lease| Arc::clone(lease.peer())).collect();
    assert_eq!(group.lease(&LeaseKey::default(), &tried, 0).unwrap_err(), NoPeer::Tried);
    drop(held);
    assert_eq!(lease(&group, 0).in_flight(), 1, "room again");
}

#[test]
fn a_client_keeps_its_peer_under_hash() {
    let group = group(three(), |spec| spec.balance = Balance::Hash(HashKey::ClientIp));
    let key = |n: u8, port: u16| LeaseKey::of_client(Some(([192, 0, 2, n], port).into()));
    let mut seen = std::collections::HashSet::new();
    for n in 0..50 {
        let first = group.lease(&key(n, 1), &[], 0).unwrap();
        for port in 2..5 {
            assert!(Arc::ptr_eq(group.lease(&key(n, port), &[], 0).unwrap().peer(), first.peer()));
        }
        let second = group.lease(&key(n, 1), &[Arc::clone(first.peer())], 0).unwrap();
        assert!(!Arc::ptr_eq(second.peer(), first.peer()));
        seen.insert(first.address().to_string());
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn limits_hold_under_threads() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::RandomTwo] {
        let mut servers = three();
        servers.iter_mut().for_each(|server| server.max_connections = 2);
        let group = group(servers, |spec| spec.balance = balance.clone());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for now in 0..3_000 {
                        match group.lease(&LeaseKey::default(), &[], now) {
                            Ok(lease) => assert!((1..=2).contains(&lease.in_flight())),
                            Err(error) => assert_eq!(error, NoPeer::Full),
                        }
                    }
                });
            }
        });
        let peers = group.peers();
        assert!(peers.iter().all(|peer| peer.in_flight() == 0 && peer.leases() > 0), "{balance:?}");
    }
}

#[test]
fn the_trial_is_one_connection_under_threads() {
    for round in 0..100 {
        let group = group(three(), |spec| spec.balance = Balance::RandomTwo);
        fail(&group, "10.0.0.1:1", 0);
        let held: Vec<Lease> = std::thread::scope(|scope| {
            let lease_some = || (0..50).map(|_| lease(&group, 10_000)).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(lease_some)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!((held.len(), group.peers()[0].in_flight()), (200, 1), "round {round}");
    }
}

#[test]
fn two_names_with_one_address_are_one_peer() {
    let servers = vec![
        ServerSpec { backup: true, ..server("localhost:1") },
        server("app.localhost:1"),
        server("127.0.0.1:1"),
    ];
    let group = group(servers, |_| {});
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(group.resolve_once(&crate::Resolver::new(&[]))).unwrap();
    let set = group.set();
    assert!(set.primary.slots.iter().any(|slot| slot.peer.address().to_string() == "127.0.0.1:1"));
    assert!(set.backup.slots.iter().all(|slot| slot.peer.address().to_string() != "127.0.0.1:1"));
}

#[test]
fn the_second_address_of_localhost_stands_by() {
    let group = group(vec![server("localhost:1")], |_| {});
    assert_eq!(group.lease(&LeaseKey::default(), &[], 0).unwrap_err(), NoPeer::Unresolved);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(group.resolve_once(&crate::Resolver::new(&[]))).unwrap();
    assert_eq!(next(&group, 3, 0), ["127.0.0.1:1"; 3]);
}

/// How many of `count` leases, each over at once, a server gets.
fn share(group: &Group, address: &str, count: usize, now: u64) -> usize {
    next(group, count, now).iter().filter(|given| *given == address).count()
}

#[test]
fn who_comes_back_starts_slowly() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::RandomTwo] {
        let group = group(three(), |spec| {
            spec.balance = balance.clone();
            spec.slow_start = Duration::from_secs(30);
        });
        let even = |share: usize| share.abs_diff(700) < 100;
        assert!(even(share(&group, "10.0.0.1:1", 2100, 0)), "all are new at start");
        fail(&group, "10.0.0.1:1", 1);
        group.peers()[0].succeeded(2, None, 20_000);
        // A tenth of one in 2.1, then half of one in 2.5, then its third.
        for (now, weight) in [(20_000, 0.1), (33_334, 0.5), (50_000, 1.0)] {
            let ideal = 2100.0 * weight / (2.0 + weight);
            let got = share(&group, "10.0.0.1:1", 2100, now) as f64;
            assert!((got - ideal).abs() < 100.0, "{balance:?} at {now}: {got} for {ideal}");
        }
    }
}

#[test]
fn a_slow_start_by_hash_gives_a_clients_peer_back_for_good() {
    for balance in [Balance::Hash(HashKey::ClientIp), Balance::Maglev(HashKey::ClientIp)] {
        let group = group(three(), |spec| {
            spec.balance = balance.clone();
            spec.slow_start = Duration::from_secs(30);
        });
        let pick = |n: u16, now: u64| {
            let client = ([192, 0, (n >> 8) as u8, n as u8], 1).into();
            group.lease(&LeaseKey::of_client(Some(client)), &[], now).unwrap().address().to_string()
        };
        let at = |now: u64| (0..900).map(|n| pick(n, now)).collect::<Vec<_>>();
        let settled = at(0);
        fail(&group, "10.0.0.1:1", 1);
        group.peers()[0].succeeded(2, None, 20_000);
        let mut before = at(20_000);
        for now in [25_000, 35_000, 50_000] {
            let after = at(now);
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
            assert!(moved.into_iter().all(|(_, after)| after == "10.0.0.1:1"), "{balance:?} at {now}");
            before = after;
        }
        assert_eq!(before, settled, "{balance:?}");
    }
}

#[test]
fn a_server_that_a_reload_adds_starts_slowly() {
    let registry = Registry::new();
    let spec = |servers: Vec<ServerSpec>| GroupSpec {
        servers,
        slow_start: Duration::from_secs(3600),
        ..GroupSpec::inline("g", vec![])
    };
    let old = registry.build(spec(three()[..2].to_vec()));
    let now = clock::now().0;
    assert_eq!(next(&old, 2, now).len(), 2);
    let new = registry.build(spec(three()));
    let percent: Vec<_> = new.snapshot(clock::now().0).peers.iter().map(|peer| peer.share_percent).collect();
    assert_eq!(percent, [100, 100, 10]);
    // In a group of which nobody has worked yet, all are equals.
    let first = Registry::new().build(spec(three()));
    assert!(first.snapshot(clock::now().0).peers.iter().all(|peer| peer.share_percent == 100));
}

#[test]
fn primaries_take_over_from_backups_when_they_return() {
    let servers =
        vec![server("10.0.0.1:1"), server("10.0.0.2:1"), ServerSpec { backup: true, ..server("10.0.0.3:1") }];
    let group = group(servers, |_| {});
    fail(&group, "10.0.0.1:1", 0);
    assert_eq!(next(&group, 3, 1), ["10.0.0.2:1"; 3], "one primary is enough");
    fail(&group, "10.0.0.2:1", 1);
    assert_eq!(next(&group, 3, 2), ["10.0.0.3:1"; 3]);
    // The first one's ejection is over: a connection tries it, the rest stays with the backup until that is decided.
    let mut trial = lease(&group, 10_000);
    assert_eq!(trial.address().to_string(), "10.0.0.1:1");
    assert_eq!(next(&group, 3, 10_000), ["10.0.0.3:1"; 3]);
    trial.succeeded(None, 10_000);
    assert_eq!(next(&group, 3, 10_000), ["10.0.0.1:1"; 3]);
}

#[test]
fn latency_decides_and_survives_a_reload() {
    let registry = Registry::new();
    let spec = || GroupSpec {
        balance: Balance::PeakEwma,
        servers: three()[..2].to_vec(),
        ..GroupSpec::inline("g", vec![])
    };
    let group = registry.build(spec());
    // Who is unknown is asked first, and so each of them once.
    for _ in 0..2 {
        let mut lease = lease(&group, 1000);
        let slow = lease.address().to_string() == "10.0.0.1:1";
        lease.succeeded(Some(Duration::from_millis(if slow { 40 } else { 1 })), 1000);
    }
    assert_eq!(next(&group, 50, 1001), vec!["10.0.0.2:1"; 50]);
    let latencies = |group: &Group| -> Vec<_> {
        group.snapshot(1001).peers.iter().map(|peer| peer.latency_ms.unwrap().round()).collect()
    };
    assert_eq!(latencies(&group), [40.0, 1.0]);
    let again = registry.build(spec());
    drop(group);
    assert_eq!(latencies(&again), [40.0, 1.0]);
}
