use super::*;
use crate::addr::{Address, Protocol};

struct House {
    flows: Flows<&'static str, u32>,
    settled: RefCell<Vec<(u32, EndReason)>>,
}

impl Keeper for House {
    type Key = u32;
    type Flow = &'static str;

    fn flows(&self) -> &Flows<&'static str, u32> {
        &self.flows
    }

    fn settle(&self, ended: Ended<&'static str, u32>) {
        assert_ne!(ended.value, "trouble");
        self.settled.borrow_mut().push((ended.key, ended.reason));
    }
}

fn house(max: u32, idle: Duration) -> House {
    let address = Address::Inet(([127, 0, 0, 1], 1).into());
    let metrics = Arc::new(ListenerMetrics::new("house".into(), Protocol::Udp, address, 1));
    let limits = Limits { idle_timeout: idle, max_requests: 0, max_responses: 0 };
    House { flows: Flows::new(metrics, Gate::new(max, 0), limits), settled: RefCell::default() }
}

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn on_local_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::LocalRuntime::new().expect("a runtime").block_on(test);
}

#[test]
fn the_oldest_makes_room_and_only_where_there_is_one() {
    let house = house(2, Duration::from_secs(60));
    let permits = [1, 2].map(|key| {
        let permit = admit(&house, CLIENT).unwrap();
        house.flows.insert(key, "guest");
        permit
    });
    let _third = admit(&house, CLIENT).unwrap();
    assert_eq!(*house.settled.borrow(), [(1, EndReason::Evicted)]);
    drop(permits);
    assert!(evict_oldest(&house) && !evict_oldest(&house));
    let _places = [(); 1].map(|()| admit(&house, CLIENT).unwrap());
    assert_eq!(admit(&house, CLIENT).map(drop), Err(UdpDrop::NoFlow), "nobody has a flow to end");
}

#[test]
fn flows_end_in_their_time_and_the_last_one_ends_the_tending() {
    on_local_runtime(async {
        let house = house(0, Duration::from_millis(20));
        for key in 1..4 {
            house.flows.insert(key, "guest");
        }
        house.flows.turn(Mode::Finishing);
        assert!(!house.flows.is_over());
        tend(&house).await;
        assert_eq!(*house.settled.borrow(), [1, 2, 3].map(|key| (key, EndReason::Idle)));
    });
}

#[test]
fn who_drains_waits_for_no_whole_timeout() {
    on_local_runtime(async {
        let house = house(0, Duration::from_secs(3600));
        house.flows.insert(1, "guest");
        house.flows.turn(Mode::Draining);
        tokio::time::timeout(20 * DRAIN_QUIET, tend(&house)).await.expect("the flow is quiet");
    });
}

#[test]
fn a_panic_in_a_flows_end_costs_no_other() {
    wmproxy_runtime::panic::install_hook();
    on_local_runtime(async {
        let house = house(0, Duration::from_millis(10));
        house.flows.insert(1, "trouble");
        house.flows.insert(2, "guest");
        house.flows.turn(Mode::Finishing);
        tend(&house).await;
        assert_eq!(*house.settled.borrow(), [(2, EndReason::Idle)]);
    });
}
