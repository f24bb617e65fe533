//! What a seed decides: numbers, grants, services.

use std::time::Duration;

use wmproxy_wire::tunnel::message::{Kind, Service};
use wmproxy_wire::units::Secret;

use crate::options::{GrantSpec, PortRange, ServerSpec};

pub(super) const GRACE: Duration = Duration::from_secs(30);
pub(super) const NAMES: [&str; 3] = ["home", "lab", "shop"];
/// Ports that some are granted, and some worlds do not give.
pub(super) const PORTS: [u16; 4] = [20_000, 20_001, 20_002, 20_003];
const HOSTS: [&str; 3] = ["a.example.com", "b.example.com", "*.example.com"];

/// SplitMix64: one word of state, and good enough for a simulation.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A server that grants something to most of them.
pub(super) fn spec(rng: &mut Rng) -> ServerSpec {
    let mut grant = |name: &str| GrantSpec {
        name: name.into(),
        key: Secret::new("key").unwrap(),
        ports: PORTS
            .into_iter()
            .filter(|_| rng.percent(80))
            .map(|port| PortRange { first: port, last: port })
            .collect(),
        hosts: HOSTS.into_iter().filter(|_| rng.percent(60)).map(str::to_owned).collect(),
        private: rng.percent(80),
        max_services: 3,
        max_connections: 0,
        rate_limit: None,
    };
    let mut clients: Vec<_> = NAMES.iter().map(|name| grant(name)).collect();
    if rng.percent(15) {
        clients.remove(rng.below(NAMES.len()));
    }
    ServerSpec {
        clients,
        login_timeout: Duration::from_secs(10),
        max_pending: 100,
        max_pending_per_address: 10,
        heartbeat: Duration::from_secs(15),
        max_pool: 8,
        wait_timeout: Duration::from_secs(5),
        max_waiting: 8,
        grace: GRACE,
    }
}

pub(super) fn service(rng: &mut Rng, id: u32) -> Service {
    let kind = rng.pick(&[Kind::Tcp, Kind::Tcp, Kind::Udp, Kind::Http, Kind::Https]);
    let is_web = matches!(kind, Kind::Http | Kind::Https);
    let mut hosts: Vec<_> = HOSTS.into_iter().filter(|_| rng.percent(40)).map(str::to_owned).collect();
    if hosts.is_empty() {
        hosts.push(HOSTS[0].to_owned());
    }
    Service {
        id,
        name: format!("s{id}"),
        kind,
        is_private: !is_web && rng.percent(15),
        port: if is_web { 0 } else { rng.pick(&[0, 0, PORTS[0], PORTS[1], PORTS[2], PORTS[3], 9]) },
        hosts: if is_web { hosts } else { Vec::new() },
        paths: if is_web && rng.percent(30) && kind == Kind::Http { vec!["/x".into()] } else { Vec::new() },
        group: rng.percent(35).then(|| "g".to_owned()),
        is_up: rng.percent(80),
        max_connections: if rng.percent(10) { 7 } else { 0 },
        ..Service::default()
    }
}
