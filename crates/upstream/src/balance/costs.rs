//! What picking costs, for people: `cargo test --release -p wmproxy-upstream costs -- --ignored --nocapture`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Balance, Balancer, HashKey};
use crate::{Group, GroupSpec, LeaseKey, Registry};

const ALL: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::RandomTwo,
    Balance::PeakEwma,
    Balance::Hash(HashKey::ClientIp),
    Balance::Maglev(HashKey::ClientIp),
];

fn group(balance: Balance, count: usize) -> Arc<Group> {
    let target = |n: usize| format!("10.1.{}.{}:80", n >> 8, n & 255).parse().unwrap();
    let spec = GroupSpec { balance, ..GroupSpec::inline("g", (0..count).map(target).collect()) };
    Registry::new().build(spec)
}

fn each(times: u32, mut work: impl FnMut(u32)) -> Duration {
    let began = Instant::now();
    (0..times).for_each(&mut work);
    began.elapsed() / times
}

#[test]
#[ignore = "a measurement"]
fn costs_of_a_lease() {
    for count in [2, 10, 100, 1000] {
        for balance in ALL {
            let group = group(balance.clone(), count);
            let times = 2_000_000 / count as u32;
            let lease = |n: u32| {
                let key = LeaseKey::of_client(Some((std::net::Ipv4Addr::from(n), 1).into()));
                let mut lease = group.lease(&key, &[], 1).unwrap();
                lease.succeeded(Some(Duration::from_micros(100)), 1);
                black_box(&lease);
            };
            each(times / 10, lease);
            println!("{:18} {count:5} servers: {:?} a lease", balance.as_str(), each(times, lease));
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn costs_of_a_lease_when_all_are_ejected() {
    for balance in ALL {
        let group = group(balance.clone(), 1000);
        for peer in group.peers() {
            peer.failed(1, crate::FailKind::Refused, 1, &group.spec().eject_policy());
        }
        let lease = |n: u32| {
            let key = LeaseKey::of_client(Some((std::net::Ipv4Addr::from(n), 1).into()));
            black_box(group.lease(&key, &[], 2).unwrap());
        };
        println!("{:18} 1000 servers, all ejected: {:?} a lease", balance.as_str(), each(2000, lease));
    }
}

#[test]
#[ignore = "a measurement"]
fn costs_of_building() {
    for count in [2, 10, 100, 655, 656, 4096] {
        let members: Vec<_> = (0..count).map(|n| (format!("10.1.{}.{}:80", n >> 8, n & 255), 1)).collect();
        for balance in [Balance::Hash(HashKey::ClientIp), Balance::Maglev(HashKey::ClientIp)] {
            let took = each(5, |_| drop(black_box(Balancer::new(&balance, &members))));
            println!("{:8} {count:5} servers: {took:?}", balance.as_str());
        }
    }
}
