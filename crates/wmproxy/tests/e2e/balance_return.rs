//! Servers that come back, and balancers that go by more than turns.

use std::net::IpAddr;
use std::time::Duration;

use wmproxy_testkit::{Addr, Backend, Conn, eventually};

use crate::{group, start, tcp};

fn answers(addr: &Addr, count: usize) -> Vec<String> {
    (0..count).map(|_| Conn::connect(addr).line()).collect()
}

fn share(addr: &Addr, name: &str, count: usize) -> usize {
    answers(addr, count).iter().filter(|answer| *answer == name).count()
}

fn back_at(addr: &Addr, name: &'static str) -> Backend {
    Backend::start_at(addr, move |conn| {
        conn.try_send(format!("{name}\n").as_bytes())?;
        wmproxy_testkit::backend::drain(conn)
    })
}

#[test]
fn a_server_that_comes_back_starts_slowly() {
    let (steady, lost) = (Backend::named("steady"), Backend::named("lost"));
    let lost_addr = lost.addr().clone();
    let servers = [steady.addr().to_string(), lost_addr.to_string()];
    let upstream = group("g", &servers, "fail_timeout = \"300ms\"\nslow_start = \"1m\"");
    let proxy = start(&format!("{upstream}{}", tcp("g", "")));
    proxy.expect_warn("ejected");
    let addr = proxy.tcp("t");
    assert_eq!(share(&addr, "lost", 20), 10, "nobody starts slowly when all are new");
    drop(lost);
    assert_eq!(share(&addr, "steady", 4), 4);
    let _back = back_at(&lost_addr, "back");
    eventually("the server to be back", || answers(&addr, 2).iter().any(|name| name == "back"));
    // It has a tenth of its weight, and gets 3 % a second more: while this takes, far from the half.
    let got = share(&addr, "back", 66);
    assert!((3..=20).contains(&got), "{got} of 66");
    let peer = lost_addr.to_string();
    let ratio = proxy.metrics().sum("wmproxy_peer_share_ratio", &[("peer", &peer)]);
    assert!((0.1..0.6).contains(&ratio), "{ratio}");
    let status = proxy.command(&["status"]);
    assert!(status.stdout.contains(" %"), "{}", status.stdout);
}

#[test]
fn a_server_that_a_reload_adds_starts_slowly() {
    let backends = [Backend::named("a"), Backend::named("b")];
    let config = |count: usize| {
        let servers: Vec<_> = backends[..count].iter().map(|backend| backend.addr().to_string()).collect();
        format!("{}{}", group("g", &servers, "slow_start = \"1h\""), tcp("g", ""))
    };
    let proxy = start(&config(1));
    let addr = proxy.tcp("t");
    assert_eq!(share(&addr, "a", 5), 5);
    proxy.reload_with(&config(2));
    // A tenth of the other's weight: one in eleven.
    assert_eq!(share(&addr, "b", 33), 3);
}

#[test]
fn a_backup_hands_over_when_the_primary_returns() {
    let (primary, backup) = (Backend::named("primary"), Backend::named("backup"));
    let primary_addr = primary.addr().clone();
    let servers = [primary_addr.to_string(), format!("{{ address = \"{}\", backup = true }}", backup.addr())];
    let proxy = start(&format!("{}{}", group("g", &servers, "fail_timeout = \"300ms\""), tcp("g", "")));
    proxy.expect_warn("ejected");
    let addr = proxy.tcp("t");
    assert_eq!(share(&addr, "primary", 5), 5);
    drop(primary);
    assert_eq!(share(&addr, "backup", 5), 5);
    let _back = back_at(&primary_addr, "again");
    eventually("the primary to be used again", || answers(&addr, 1) == ["again"]);
    assert_eq!(share(&addr, "again", 5), 5);
}

#[test]
fn maglev_is_sticky_and_survives_a_restart() {
    let backends = ["a", "b", "c", "d"].map(Backend::named);
    let servers = backends.each_ref().map(|backend| backend.addr().to_string());
    let config =
        |servers: &[String]| format!("{}{}", group("g", servers, "balance = \"maglev\""), tcp("g", ""));
    let ask = |addr: &Addr| -> Vec<String> {
        (1..=100).map(|host| Conn::connect_from(IpAddr::from([127, 0, 1, host]), addr).line()).collect()
    };
    let proxy = start(&config(&servers));
    let before = ask(&proxy.tcp("t"));
    assert_eq!(ask(&proxy.tcp("t")), before);
    for name in ["a", "b", "c", "d"] {
        assert!(before.iter().filter(|answer| *answer == name).count() >= 10, "{before:?}");
    }
    drop(proxy);
    // In another order, by another process.
    let turned: Vec<_> = servers.iter().rev().cloned().collect();
    let proxy = start(&config(&turned));
    assert_eq!(ask(&proxy.tcp("t")), before);
    proxy.reload_with(&config(&servers[..3]));
    let after = ask(&proxy.tcp("t"));
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after && *before != "d");
    assert!(moved.count() <= 2, "{before:?} {after:?}");
}

#[test]
fn peak_ewma_shows_its_latencies_and_uses_every_server() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let servers = backends.each_ref().map(|backend| backend.addr().to_string());
    let proxy = start(&format!("{}{}", group("g", &servers, "balance = \"peak_ewma\""), tcp("g", "")));
    let addr = proxy.tcp("t");
    // Whom nothing is known of is asked first.
    let held: Vec<Conn> = (0..30).map(|_| Conn::connect(&addr)).collect();
    let names: Vec<String> = held.iter().map(Conn::line).collect();
    for name in ["a", "b", "c"] {
        assert!(names.iter().filter(|answer| *answer == name).count() >= 1, "{names:?}");
    }
    let status = proxy.status();
    for peer in status["upstreams"][0]["peers"].as_array().unwrap() {
        let ms = peer["latency_ms"].as_f64().unwrap();
        assert!(ms > 0.0 && ms < Duration::from_secs(5).as_millis() as f64, "{status}");
    }
    assert!(proxy.metrics().sum("wmproxy_peer_latency_seconds", &[("group", "g")]) > 0.0);
}
