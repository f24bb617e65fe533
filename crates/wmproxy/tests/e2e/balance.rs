//! Which peer gets the next connection, as seen from outside.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use wmproxy_testkit::tcp::Closed;
use wmproxy_testkit::{Addr, Backend, Conn, UdpBackend, UdpClient, eventually};

use crate::{group, start, tcp, udp};

/// Who answers each of `count` connections, one after the other.
fn answers(addr: &Addr, count: usize) -> Vec<String> {
    (0..count).map(|_| Conn::connect(addr).line()).collect()
}

fn tally(names: &[String]) -> BTreeMap<&str, usize> {
    names.iter().fold(BTreeMap::new(), |mut tally, name| {
        *tally.entry(name.as_str()).or_default() += 1;
        tally
    })
}

fn named(names: &[&str]) -> Vec<Backend> {
    names.iter().map(|name| Backend::named(name)).collect()
}

fn plain(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(|backend| backend.addr().to_string()).collect()
}

fn server(backend: &Backend, more: &str) -> String {
    format!("{{ address = \"{}\", {more} }}", backend.addr())
}

#[test]
fn round_robin_keeps_to_the_weights() {
    let backends = named(&["a", "b", "c"]);
    let servers = [
        server(&backends[0], "weight = 5"),
        server(&backends[1], "weight = 2"),
        server(&backends[2], "weight = 1"),
    ];
    let proxy = start(&format!("{}{}", group("g", &servers, ""), tcp("g", "")));
    let names = answers(&proxy.tcp("t"), 80);
    let tally = tally(&names);
    // Whether the turn is shared between workers or each has its own, every worker's part keeps to the weights but
    // for an unfinished round.
    for (name, share) in [("a", 50), ("b", 20), ("c", 10)] {
        assert!(tally[name].abs_diff(share) <= 6, "{tally:?}");
    }
}

#[test]
fn round_robin_is_smooth() {
    let backends = named(&["a", "b"]);
    let servers = [server(&backends[0], "weight = 3"), server(&backends[1], "weight = 1")];
    let proxy = start(&format!("workers = 1\n{}{}", group("g", &servers, ""), tcp("g", "")));
    let names = answers(&proxy.tcp("t"), 16);
    for round in names.chunks(4) {
        assert_eq!(tally(round)["b"], 1, "one in each round of four: {names:?}");
    }
}

#[test]
fn least_connections_avoids_the_busy() {
    let backends = named(&["a", "b"]);
    let upstream = group("g", &plain(&backends), "balance = \"least_connections\"");
    let proxy = start(&format!("{upstream}{}", tcp("g", "")));
    let addr = proxy.tcp("t");
    let held: Vec<(String, Conn)> = (0..10)
        .map(|_| {
            let conn = Conn::connect(&addr);
            (conn.line(), conn)
        })
        .collect();
    let names: Vec<String> = held.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(tally(&names), BTreeMap::from([("a", 5), ("b", 5)]));
    // All of a's leave; the next five go there.
    let kept: Vec<Conn> = held.into_iter().filter(|(name, _)| name == "b").map(|(_, conn)| conn).collect();
    eventually("a's connections to end", || proxy.active() == 5);
    let next: Vec<(String, Conn)> = (0..5)
        .map(|_| {
            let conn = Conn::connect(&addr);
            (conn.line(), conn)
        })
        .collect();
    assert!(next.iter().all(|(name, _)| name == "a"), "{next:?}");
    drop(kept);
}

#[test]
fn random_two_uses_every_peer() {
    let backends = named(&["a", "b", "c"]);
    let upstream = group("g", &plain(&backends), "balance = \"random_two\"");
    let proxy = start(&format!("{upstream}{}", tcp("g", "")));
    let names = answers(&proxy.tcp("t"), 90);
    let tally = tally(&names);
    assert!(tally.len() == 3 && tally.values().all(|count| *count >= 10), "{tally:?}");
}

#[test]
fn hash_is_sticky_and_moves_few_when_a_peer_goes() {
    let backends = named(&["a", "b", "c", "d"]);
    let servers = plain(&backends);
    let config = |servers: &[String]| {
        format!("{}{}", group("g", servers, "balance = \"hash\"\nhash_key = \"client_ip\""), tcp("g", ""))
    };
    let proxy = start(&config(&servers));
    let addr = proxy.tcp("t");
    let ask = |host: u8| Conn::connect_from(IpAddr::from([127, 0, 1, host]), &addr).line();
    let before: Vec<String> = (1..=100).map(ask).collect();
    assert!(tally(&before).len() == 4, "{:?}", tally(&before));
    let again: Vec<String> = (1..=100).map(ask).collect();
    assert_eq!(before, again, "the same client goes to the same peer");
    proxy.reload_with(&config(&servers[..3]));
    for (before, after) in before.iter().zip((1..=100).map(ask)) {
        assert!(
            before == &after || before == "d",
            "a client of {before} moved to {after} although only d went"
        );
    }
}

#[test]
fn hash_by_address_spreads_one_client() {
    let backends = named(&["a", "b"]);
    let upstream = group("g", &plain(&backends), "balance = \"hash\"\nhash_key = \"client_addr\"");
    let proxy = start(&format!("{upstream}{}", tcp("g", "")));
    let names = answers(&proxy.tcp("t"), 60);
    assert_eq!(tally(&names).len(), 2);
}

#[test]
fn a_backup_serves_only_when_the_others_can_not() {
    let (main, backup) = (Closed::new(), Backend::named("backup"));
    let good = Backend::named("main");
    let config = |first: String| {
        let servers = [first, server(&backup, "backup = true")];
        format!("{}{}", group("g", &servers, "fail_timeout = \"30s\""), tcp("g", ""))
    };
    let proxy = start(&config(good.addr().to_string()));
    proxy.expect_warn("ejected");
    let addr = proxy.tcp("t");
    assert!(answers(&addr, 10).iter().all(|name| name == "main"));
    proxy.reload_with(&config(main.addr().to_string()));
    assert!(answers(&addr, 10).iter().all(|name| name == "backup"));
}

#[test]
fn a_peer_marked_down_gets_nothing() {
    let backends = named(&["a", "b"]);
    let servers = [server(&backends[0], "down = true"), backends[1].addr().to_string()];
    let proxy = start(&format!("{}{}", group("g", &servers, ""), tcp("g", "")));
    assert!(answers(&proxy.tcp("t"), 10).iter().all(|name| name == "b"));
    assert_eq!(backends[0].accepted(), 0);
}

#[test]
fn a_full_peer_is_passed_over() {
    let backends = named(&["a", "b"]);
    let servers = [server(&backends[0], "max_connections = 2"), backends[1].addr().to_string()];
    let proxy = start(&format!("{}{}", group("g", &servers, ""), tcp("g", "")));
    let addr = proxy.tcp("t");
    let held: Vec<(String, Conn)> = (0..10)
        .map(|_| {
            let conn = Conn::connect(&addr);
            (conn.line(), conn)
        })
        .collect();
    let names: Vec<String> = held.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(tally(&names), BTreeMap::from([("a", 2), ("b", 8)]));
}

#[test]
fn an_ejected_peer_comes_back() {
    let steady = Backend::named("steady");
    let lost = Backend::named("lost");
    let lost_addr = lost.addr().clone();
    let servers = [steady.addr().to_string(), lost_addr.to_string()];
    let upstream = group("g", &servers, "max_fails = 1\nfail_timeout = \"400ms\"");
    let proxy = start(&format!("{upstream}{}", tcp("g", "")));
    proxy.expect_warn("ejected");
    let addr = proxy.tcp("t");
    assert_eq!(tally(&answers(&addr, 8)).len(), 2);
    drop(lost);
    // Nobody notices but the metrics: the other peer is tried at once.
    assert!(answers(&addr, 8).iter().all(|name| name == "steady"));
    let peer = lost_addr.to_string();
    let metrics = proxy.metrics();
    assert!(metrics.sum("wmproxy_peer_connect_errors_total", &[("peer", &peer)]) >= 1.0);
    assert!(metrics.sum("wmproxy_peer_ejections_total", &[("peer", &peer)]) >= 1.0);
    let back = Backend::start_at(&lost_addr, |conn| {
        conn.try_send(b"back\n")?;
        wmproxy_testkit::backend::drain(conn)
    });
    eventually("the peer to be used again", || answers(&addr, 4).iter().any(|name| name == "back"));
    assert!(back.accepted() >= 1);
    let is_up = || proxy.metrics().sum("wmproxy_peer_state", &[("peer", &peer), ("state", "up")]) == 1.0;
    eventually("the peer to be up", is_up);
}

#[test]
fn flows_are_balanced_like_connections() {
    let backends = [UdpBackend::named("a"), UdpBackend::named("b")];
    let servers: Vec<String> = backends.iter().map(|backend| backend.addr().to_string()).collect();
    let proxy = start(&format!("{}{}", group("g", &servers, ""), udp("g", "")));
    let to = proxy.udp("u");
    let clients: Vec<UdpClient> = (0..20).map(|_| UdpClient::connect(to)).collect();
    let names: Vec<String> = clients.iter().map(|client| client.ask_text(b"who?")).collect();
    let tally = tally(&names);
    assert!(tally["a"].abs_diff(10) <= 2, "{tally:?}");
    // A flow stays where it began.
    for (client, name) in clients.iter().zip(&names) {
        assert_eq!(&client.ask_text(b"and now?"), name);
    }
}

#[test]
fn a_name_that_is_an_address_in_the_hosts_file_is_resolved() {
    let backend = Backend::echo();
    let proxy = start(&tcp(format!("localhost:{}", backend.addr().port()), ""));
    eventually("the name to be resolved and served", || {
        let conn = Conn::connect(&proxy.tcp("t"));
        conn.patience(Duration::from_secs(2));
        conn.try_send(b"x").is_ok() && std::io::Read::read(&mut &conn, &mut [0]).is_ok_and(|n| n == 1)
    });
    proxy.expect_warn("ejected");
    proxy.expect_warn("localhost");
}
