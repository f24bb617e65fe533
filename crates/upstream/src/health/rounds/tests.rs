use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};
use wmproxy_net::addr::TargetSpec;

use super::*;
use crate::health::{Beginning, HealthOptions};
use crate::lookup::Answer;
use crate::{FailKind, GroupSpec, LeaseKey, NoPeer, Registry};

fn spec(servers: &[String], health: &str) -> GroupSpec {
    let targets: Vec<TargetSpec> = servers.iter().map(|text| text.parse().unwrap()).collect();
    let options: HealthOptions = serde_json::from_str(&format!("{{ {health} }}")).unwrap();
    let health = Some(options.spec(targets.iter(), Beginning::default()).unwrap());
    GroupSpec { health, ..GroupSpec::inline("g", targets) }
}

/// A server that lets everybody connect, and hears when they do.
struct Server {
    at: SocketAddr,
    listener: Option<TcpListener>,
}

impl Server {
    fn start() -> Server {
        let mut server = Server { at: "127.0.0.1:0".parse().unwrap(), listener: None };
        server.revive();
        server
    }

    /// Nobody listens any more.
    fn die(&mut self) {
        self.listener = None;
    }

    fn revive(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.at).unwrap();
        let listener = socket.listen(64).unwrap();
        self.at = listener.local_addr().unwrap();
        self.listener = Some(listener);
    }

    /// The time of the next check.
    async fn checked(&self) -> Instant {
        self.listener.as_ref().unwrap().accept().await.unwrap();
        Instant::now()
    }

    fn text(&self) -> String {
        self.at.to_string()
    }
}

/// Runs a script beside the checks of a group.
async fn beside<T>(group: &Arc<Group>, script: impl Future<Output = T>) -> T {
    tokio::select! {
        () = keep_checked(group) => unreachable!("the group is alive"),
        value = script => value,
    }
}

/// Waits until the peer's checks say so. Gives how many checks there were by then.
async fn becomes(peer: &Peer, health: Health) -> u64 {
    while peer.checks().health() != health {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let [passed, failed, _] = peer.checks().counts();
    passed + failed
}

fn lease(group: &Group) -> Result<crate::Lease, NoPeer> {
    group.lease(&LeaseKey::default(), &[], clock::now().0)
}

#[tokio::test(start_paused = true)]
async fn the_first_check_comes_soon_and_the_others_at_the_interval() {
    let server = Server::start();
    let group = Registry::new().build(spec(&[server.text()], r#""interval": "10s""#));
    let begun = Instant::now();
    let times = beside(&group, async {
        let mut times = vec![];
        for _ in 0..12 {
            times.push(server.checked().await);
        }
        times
    })
    .await;
    assert!(times[0] - begun <= FIRST_WITHIN + Duration::from_millis(10), "{:?}", times[0] - begun);
    assert!(times[1] - times[0] <= Duration::from_secs(10));
    let gaps: Vec<_> = times[1..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (least, most) = (Duration::from_millis(8_990), Duration::from_millis(11_020));
    assert!(gaps.iter().all(|gap| (least..=most).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| gap != &gaps[0]), "no two groups stay in step: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn many_peers_are_not_checked_at_the_same_time() {
    let servers: Vec<Server> = (0..40).map(|_| Server::start()).collect();
    let texts: Vec<String> = servers.iter().map(Server::text).collect();
    let group = Registry::new().build(spec(&texts, r#""interval": "60s""#));
    let begun = Instant::now();
    let (first, second): (Vec<_>, Vec<_>) = beside(&group, async {
        let two = |server| async move { (Server::checked(server).await, Server::checked(server).await) };
        let mut all: FuturesUnordered<_> = servers.iter().map(two).collect();
        let mut times = vec![];
        while let Some(pair) = all.next().await {
            times.push(pair);
        }
        times.into_iter().unzip()
    })
    .await;
    // How many of them fall into each fifth of the time in which they are to lie.
    let spread = |times: &[Instant], from: Instant, within: Duration| {
        let mut fifths = [0; 6];
        for time in times {
            fifths[((*time - from).as_secs_f64() / within.as_secs_f64() * 5.0) as usize] += 1;
        }
        fifths
    };
    let fifths = spread(&first, begun, FIRST_WITHIN);
    assert!(fifths[..5].iter().all(|count| *count < 20), "{fifths:?}");
    let fifths = spread(&second, begun, Duration::from_secs(62));
    assert!(fifths[..5].iter().all(|count| *count < 20), "{fifths:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_goes_after_fall_failures_and_comes_back_after_rise_successes() {
    let mut server = Server::start();
    let group = Registry::new().build(spec(&[server.text()], r#""interval": "1s", "rise": 3, "fall": 2"#));
    let peer = group.peers().remove(0);
    drop(lease(&group).expect("a peer that nothing is known of is used"));
    beside(&group, async {
        let before = becomes(&peer, Health::Up).await;
        assert_eq!(before, 1);
        server.die();
        let after = becomes(&peer, Health::Down).await;
        assert_eq!(after - before, 2);
        assert_eq!(lease(&group).unwrap_err(), NoPeer::Unhealthy);
        assert_eq!(lease(&group).unwrap_err().to_string(), "every peer is down by its health checks");
        server.revive();
        assert_eq!(becomes(&peer, Health::Up).await - after, 3);
        drop(lease(&group).unwrap());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_dead_at_the_start_is_found_out_at_once() {
    let mut server = Server::start();
    server.die();
    let group = Registry::new().build(spec(&[server.text()], r#""interval": "60s", "timeout": "1s""#));
    let begun = Instant::now();
    let checks = beside(&group, becomes(&group.peers()[0], Health::Down)).await;
    assert!(checks == 1 && begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_healthy_get_everything_and_backups_come_in() {
    let (mut dead, server, backup) = (Server::start(), Server::start(), Server::start());
    dead.die();
    let mut spec = spec(&[dead.text(), server.text(), backup.text()], r#""interval": "1s""#);
    spec.servers[2].backup = true;
    let group = Registry::new().build(spec);
    let peers = group.peers();
    beside(&group, async {
        becomes(&peers[0], Health::Down).await;
        for _ in 0..4 {
            assert!(Arc::ptr_eq(lease(&group).unwrap().peer(), &peers[1]));
        }
        drop(server);
        becomes(&peers[1], Health::Down).await;
        becomes(&peers[2], Health::Up).await;
        assert!(Arc::ptr_eq(lease(&group).unwrap().peer(), &peers[2]));
        // The passive view does not open what checks have shut.
        drop(backup);
        becomes(&peers[2], Health::Down).await;
        assert_eq!(lease(&group).unwrap_err(), NoPeer::Unhealthy);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_an_ejection_where_connections_go_to_what_is_checked() {
    for (port, ends) in [(false, true), (true, false)] {
        let server = Server::start();
        let port = if port { format!(r#", "port": {}"#, server.at.port()) } else { String::new() };
        let group = Registry::new().build(spec(&[server.text()], &format!(r#""interval": "1s"{port}"#)));
        let peer = group.peers().remove(0);
        lease(&group).unwrap().failed(FailKind::Refused, clock::now().0);
        assert!(peer.ejected_for(clock::now().0).is_some());
        // A check that begins within the same tick of the clock is not taken for one from before.
        beside(&group, async {
            becomes(&peer, Health::Up).await;
            server.checked().await;
            server.checked().await;
        })
        .await;
        assert_eq!(peer.ejected_for(clock::now().0).is_none(), ends);
    }
}

#[tokio::test(start_paused = true)]
async fn checks_follow_the_names() {
    // Two addresses and one port.
    let old = Server::start();
    let port = old.at.port();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::from([127, 0, 0, 2]), port)).unwrap();
    let new = Server { at: old.at, listener: Some(socket.listen(64).unwrap()) };
    let group = Registry::new().build(spec(&[format!("app.test:{port}")], r#""interval": "1s""#));
    let resolve = |text: &str| {
        let v4 = Some(vec![text.parse().unwrap()]);
        group.names()[0].learn(Answer { v4, v6: Some(vec![]), ttl: Duration::from_secs(60) });
        group.follow_names();
    };
    beside(&group, async {
        resolve("127.0.0.1");
        old.checked().await;
        resolve("127.0.0.2");
        let begun = Instant::now();
        new.checked().await;
        assert!(
            begun.elapsed() <= FIRST_WITHIN + Duration::from_millis(10),
            "at once, not at the interval's end"
        );
        // One may have been under way.
        let late = tokio::time::timeout(Duration::from_secs(5), async {
            old.checked().await;
            old.checked().await;
        });
        assert!(late.await.is_err(), "who is gone is left alone");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_goes_on_where_the_old_one_was() {
    let mut server = Server::start();
    server.die();
    let registry = Registry::new();
    let spec = || spec(&[server.text()], r#""interval": "30s""#);
    let old = registry.build(spec());
    beside(&old, becomes(&old.peers()[0], Health::Down)).await;
    let new = registry.build(spec());
    drop(old);
    assert_eq!(lease(&new).unwrap_err(), NoPeer::Unhealthy);
    let peer = new.peers().remove(0);
    assert_eq!(peer.checks().counts(), [0, 1, 0]);
    // Reloads that come faster than the interval neither check more often nor never.
    beside(&new, async {
        tokio::time::sleep(Duration::from_secs(26)).await;
        assert_eq!(peer.checks().counts(), [0, 1, 0]);
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(peer.checks().counts(), [0, 2, 0]);
    })
    .await;
    // Without checks, what they once said counts no more.
    let unchecked = registry.build(GroupSpec { health: None, ..spec() });
    assert!(Arc::ptr_eq(&unchecked.peers()[0], &peer));
    drop(lease(&unchecked).unwrap());
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_group_and_without_checks() {
    let server = Server::start();
    let registry = Registry::new();
    keep_checked(&registry.build(GroupSpec { health: None, ..spec(&[server.text()], "") })).await;
    let group = registry.build(spec(&[server.text()], ""));
    let keeping = keep_checked(&group);
    drop(group);
    keeping.await;
}

#[tokio::test(start_paused = true)]
async fn servers_that_are_down_by_the_config_are_left_alone() {
    let (server, down) = (Server::start(), Server::start());
    let mut spec = spec(&[server.text(), down.text()], r#""interval": "1s""#);
    spec.servers[1].down = true;
    let group = Registry::new().build(spec);
    beside(&group, async {
        server.checked().await;
        let late = tokio::time::timeout(Duration::from_secs(5), down.checked()).await;
        assert!(late.is_err());
    })
    .await;
    assert_eq!(group.peers()[1].checks().health(), Health::Unknown);
}

#[tokio::test(start_paused = true)]
async fn peers_that_hang_hold_nobody_up() {
    // Connects, and never answers.
    let (hanging, server) = (Server::start(), Server::start());
    let registry = Registry::new();
    let health = r#""interval": "2s", "expect": "x""#;
    let slow = registry.build(spec(&[hanging.text()], health));
    let quick =
        registry.build(GroupSpec { name: "quick".into(), ..spec(&[server.text()], r#""interval": "1s""#) });
    let script = async {
        let begun = Instant::now();
        for _ in 0..10 {
            server.checked().await;
        }
        begun.elapsed()
    };
    let took = beside(&slow, beside(&quick, script)).await;
    assert!(took <= Duration::from_secs(14), "{took:?}");
}
