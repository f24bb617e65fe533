//! The life of UDP flows: how they begin, what keeps them, what ends them, and that nothing of them remains.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use wmproxy_testkit::{UdpBackend, UdpClient, eventually};

use crate::{ACCESS_LOG, group, start, udp, wait_dropped};

#[test]
fn two_thousand_flows_live_at_once() {
    const COUNT: usize = 2_000;
    let backend = UdpBackend::whoami();
    let proxy = start(&udp(backend.addr(), "idle_timeout = \"15s\""));
    let to = proxy.udp("u");
    let clients: Vec<UdpClient> = (0..COUNT).map(|_| UdpClient::connect(to)).collect();
    // As many at a time as any socket's buffer holds: one by one takes a busy machine longer than a flow lives.
    let ask_all = || -> Vec<Vec<u8>> {
        let crowds = clients.chunks(50).flat_map(|crowd| {
            crowd.iter().for_each(|client| client.send(b"who am I?"));
            crowd.iter().map(UdpClient::recv)
        });
        crowds.collect()
    };
    let sources = ask_all();
    assert_eq!(proxy.listener_number("u", "active"), COUNT as u64);
    let distinct: std::collections::BTreeSet<&Vec<u8>> = sources.iter().collect();
    assert_eq!(distinct.len(), COUNT, "each flow has a port of its own");
    assert!(ask_all() == sources, "a flow keeps its port");
    assert_eq!(proxy.listener_number("u", "accepted"), COUNT as u64);
    eventually("the flows to end", || proxy.active() == 0);
}

#[test]
fn a_flow_without_traffic_ends_and_is_gone() {
    let backend = UdpBackend::whoami();
    let proxy = start(&format!("{ACCESS_LOG}{}", udp(backend.addr(), "idle_timeout = \"2s\"")));
    let client = UdpClient::connect(proxy.udp("u"));
    let before = client.ask_text(b"who am I?");
    let record = proxy.access_log(1).remove(0);
    assert_eq!((record["outcome"].as_str(), record["fault"].as_str()), (Some("idle_timeout"), Some("none")));
    assert_eq!((record["protocol"].as_str(), record["listener"].as_str()), (Some("udp"), Some("u")));
    assert_eq!((record["datagrams_in"].as_u64(), record["datagrams_out"].as_u64()), (Some(1), Some(1)));
    assert_eq!(
        (record["bytes_in"].as_u64(), record["bytes_out"].as_u64()),
        (Some(9), Some(before.len() as u64))
    );
    proxy.assert_clean();
    // The next datagram begins another flow.
    client.ask_text(b"who am I now?");
    assert_eq!(proxy.listener_number("u", "accepted"), 2);
}

#[test]
fn a_peer_that_never_answers_is_told_from_an_idle_one() {
    let backend = UdpBackend::silent();
    let proxy = start(&format!("{ACCESS_LOG}{}", udp(backend.addr(), "idle_timeout = \"300ms\"")));
    UdpClient::connect(proxy.udp("u")).send(b"anybody there?");
    let record = proxy.access_log(1).remove(0);
    assert_eq!(
        (record["outcome"].as_str(), record["fault"].as_str()),
        (Some("peer_silent"), Some("upstream"))
    );
}

#[test]
fn traffic_from_either_side_keeps_a_flow() {
    let backend = UdpBackend::silent();
    let proxy = start(&udp(backend.addr(), "idle_timeout = \"2s\""));
    let client = UdpClient::connect(proxy.udp("u"));
    client.send(b"subscribe");
    backend.wait_received(1);
    let inside = backend.last().1;
    // Twice the timeout, by the peer's word alone.
    for _ in 0..14 {
        backend.send_to(b"tick", inside);
        assert_eq!(client.recv(), b"tick");
        std::thread::sleep(Duration::from_millis(300));
    }
    // Twice the timeout, by the client's word alone.
    for _ in 0..14 {
        client.send(b"tock");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(backend.last().1, inside);
    assert_eq!(proxy.listener_number("u", "accepted"), 1);
}

#[test]
fn a_flow_ends_with_its_last_answer() {
    let backend = UdpBackend::echo();
    let more = "idle_timeout = \"30s\"\nudp = { max_responses = 2 }";
    let proxy = start(&format!("{ACCESS_LOG}{}", udp(backend.addr(), more)));
    let client = UdpClient::connect(proxy.udp("u"));
    client.echo(b"first");
    client.echo(b"second");
    // Long before the idle timeout.
    let record = proxy.access_log(1).remove(0);
    assert_eq!((record["outcome"].as_str(), record["datagrams_out"].as_u64()), (Some("done"), Some(2)));
    client.echo(b"third");
    client.echo(b"fourth");
    assert_eq!(proxy.listener_number("u", "accepted"), 2);
    eventually("the flows to end", || proxy.active() == 0);
}

#[test]
fn after_its_last_request_the_next_begins_another_flow() {
    let backend = UdpBackend::silent();
    let more = "idle_timeout = \"2s\"\nudp = { max_requests = 3 }";
    let proxy = start(&format!("{ACCESS_LOG}{}", udp(backend.addr(), more)));
    let client = UdpClient::connect(proxy.udp("u"));
    let mut sources = std::collections::BTreeSet::new();
    for i in 0..6 {
        client.send(&[i]);
        backend.wait_received(usize::from(i) + 1);
        sources.insert(backend.last().1);
    }
    assert_eq!(sources.len(), 2, "three datagrams from each of two ports: {sources:?}");
    // It stays for the answers under way; then it is done, however silent the peer.
    for record in proxy.access_log(2) {
        assert_eq!((record["outcome"].as_str(), record["datagrams_in"].as_u64()), (Some("done"), Some(3)));
    }
}

#[test]
fn a_flow_for_each_question_answers_questions_asked_at_once() {
    // As a resolver library does: A and AAAA from one port, without waiting in between.
    let backend = UdpBackend::echo();
    let more = "idle_timeout = \"30s\"\nudp = { max_requests = 1, max_responses = 1 }";
    let proxy = start(&udp(backend.addr(), more));
    let client = UdpClient::connect(proxy.udp("u"));
    for i in 0..20 {
        client.send(&[i]);
    }
    let mut answers: Vec<u8> = (0..20).map(|_| client.recv()[0]).collect();
    answers.sort_unstable();
    assert_eq!(answers, (0..20).collect::<Vec<u8>>());
    assert_eq!(proxy.listener_number("u", "accepted"), 20);
    eventually("the flows to end", || proxy.active() == 0);
}

#[test]
fn questions_asked_at_once_are_all_answered_before_a_flow_ends() {
    // The same with nothing but the one answer that each question has.
    let backend = UdpBackend::echo();
    let more = "idle_timeout = \"30s\"\nudp = { max_responses = 1 }";
    let proxy = start(&udp(backend.addr(), more));
    for _ in 0..20 {
        let client = UdpClient::connect(proxy.udp("u"));
        client.send(b"A");
        client.send(b"AAAA");
        assert_eq!([client.recv(), client.recv()], [b"A".to_vec(), b"AAAA".to_vec()]);
    }
    eventually("the flows to end", || proxy.active() == 0);
}

#[test]
fn a_shorter_idle_timeout_holds_for_the_flows_that_begin_with_it() {
    let backend = UdpBackend::echo();
    let config = |idle: &str| format!("workers = 1\n{ACCESS_LOG}{}", udp(backend.addr(), idle));
    let proxy = start(&config("idle_timeout = \"8s\""));
    let first = UdpClient::connect(proxy.udp("u"));
    first.echo(b"for eight seconds");
    proxy.reload_with(&config("idle_timeout = \"300ms\""));
    let second = UdpClient::connect(proxy.udp("u"));
    let begun = std::time::Instant::now();
    second.echo(b"for less than one");
    let record = proxy.access_log(1).remove(0);
    assert_eq!(record["bytes_in"].as_u64(), Some(17));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    eventually("the first to end", || proxy.active() == 0);
}

#[test]
fn when_full_the_flow_idle_for_longest_makes_room() {
    let backend = UdpBackend::whoami();
    let more = "idle_timeout = \"9s\"\nmax_connections = 8";
    // One worker, so that one table holds all flows and its order is what the test sees.
    let config = format!("workers = 1\n{ACCESS_LOG}{}", udp(backend.addr(), more));
    let proxy = start(&config);
    let to = proxy.udp("u");
    let clients: Vec<UdpClient> = (0..8).map(|_| UdpClient::connect(to)).collect();
    for client in &clients {
        client.ask(b"in");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The first speaks again, so the second is now idle for longest.
    clients[0].ask(b"still here");
    UdpClient::connect(to).ask(b"let me in");
    let record = proxy.access_log(1).remove(0);
    assert_eq!((record["outcome"].as_str(), record["fault"].as_str()), (Some("evicted"), Some("us")));
    assert_eq!(record["client_port"].as_u64(), Some(clients[1].local().port().into()));
    assert_eq!(proxy.listener_number("u", "active"), 8);
}

#[test]
fn the_limit_of_flows_holds_over_all_workers() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), "max_connections = 10"));
    let to = proxy.udp("u");
    let clients: Vec<UdpClient> = (0..50).map(|_| UdpClient::connect(to)).collect();
    for client in &clients {
        client.echo(b"every newcomer is served");
        // Another worker's flow ends a moment after it was asked for.
        eventually("one to make room", || proxy.listener_number("u", "active") <= 10);
    }
}

#[test]
fn the_flow_idle_for_longest_makes_room_whichever_worker_has_it() {
    let backend = UdpBackend::echo();
    let config = format!(
        "workers = 4\n{ACCESS_LOG}{}",
        udp(backend.addr(), "max_connections = 12\nidle_timeout = \"9s\"")
    );
    let proxy = start(&config);
    let to = proxy.udp("u");
    let clients: Vec<UdpClient> = (0..24).map(|_| UdpClient::connect(to)).collect();
    for client in &clients {
        client.echo(b"in");
        // Longer than a tick of the clock that idle times are told by.
        std::thread::sleep(Duration::from_millis(9));
        eventually("one to make room", || proxy.listener_number("u", "active") <= 12);
    }
    let evicted: Vec<_> = proxy.access_log(12).iter().map(|r| r["client_port"].as_u64().unwrap()).collect();
    let oldest: Vec<_> = clients[..12].iter().map(|client| u64::from(client.local().port())).collect();
    assert_eq!(evicted, oldest);
}

#[test]
fn with_room_for_one_flow_every_newcomer_is_served_on_any_worker() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), "max_connections = 1\nidle_timeout = \"3s\""));
    let to = proxy.udp("u");
    for _ in 0..16 {
        UdpClient::connect(to).echo(b"in");
    }
    // Another worker makes room with its next turn, which the newcomer does not wait for.
    let workers = proxy.status()["workers"].as_u64().unwrap();
    eventually("others to make room", || proxy.listener_number("u", "active") <= workers);
}

#[test]
fn a_limit_lowered_by_a_reload_ends_one_flow_for_each_newcomer() {
    let backend = UdpBackend::whoami();
    let config = |max: u32| {
        format!(
            "workers = 1\n{}",
            udp(backend.addr(), &format!("max_connections = {max}\nidle_timeout = \"9s\""))
        )
    };
    let proxy = start(&config(8));
    let to = proxy.udp("u");
    let ask = |client: &UdpClient| client.ask_text(b"who am I?");
    let clients: Vec<UdpClient> = (0..8).map(|_| UdpClient::connect(to)).collect();
    let sources: Vec<String> = clients.iter().map(ask).collect();
    proxy.reload_with(&config(2));
    ask(&UdpClient::connect(to));
    assert_eq!(proxy.listener_number("u", "active"), 8);
    // All but the first, which had been idle for longest.
    for (client, source) in clients.iter().zip(&sources).skip(1) {
        assert_eq!(&ask(client), source);
    }
}

#[test]
fn a_client_above_its_own_limit_gets_no_further_flow() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), "per_client_connections = 2\nidle_timeout = \"2s\""));
    let to = proxy.udp("u");
    let from = |host: u8| UdpClient::connect_from(SocketAddr::from(([127, 0, 0, host], 0)), to);
    let (first, second, third) = (from(2), from(2), from(2));
    first.echo(b"one");
    second.echo(b"two");
    third.send(b"three");
    wait_dropped(&proxy, "client_limit", 1);
    from(3).echo(b"another client");
    third.expect_nothing(Duration::from_millis(20));
}

#[test]
fn the_denied_get_no_flow() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), "deny = [\"127.0.0.2\"]"));
    let to = proxy.udp("u");
    let denied = UdpClient::connect_from(SocketAddr::from(([127, 0, 0, 2], 0)), to);
    denied.send(b"let me in");
    wait_dropped(&proxy, "denied", 1);
    denied.expect_nothing(Duration::from_millis(20));
    UdpClient::connect_from(SocketAddr::from(([127, 0, 0, 3], 0)), to).echo(b"in");
    assert_eq!(backend.received(), 1);
}

/// A port of 127.0.0.1 where nobody receives: whoever sends there is told so by ICMP.
fn closed_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_closed_port_counts_against_the_peer_and_the_next_datagram_goes_to_another() {
    let (closed, good) = (closed_port(), UdpBackend::echo());
    let servers = [closed.to_string(), good.addr().to_string()];
    let upstream = group("g", &servers, "fail_timeout = \"30s\"");
    let proxy = start(&format!("{ACCESS_LOG}{upstream}{}", udp("g", "idle_timeout = \"1s\"")));
    proxy.expect_warn("ejected");
    let to = proxy.udp("u");
    // At most one client meets the closed port; whoever does is served at the next try.
    for _ in 0..6 {
        let client = UdpClient::connect(to);
        client.socket().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let answered = (0..20).any(|_| {
            client.send(b"hello");
            client.try_recv().is_ok()
        });
        assert!(answered, "no answer after 20 datagrams");
    }
    let metrics = proxy.metrics();
    let closed = closed.to_string();
    assert_eq!(metrics.sum("wmproxy_peer_ejections_total", &[("peer", &closed)]), 1.0);
    assert_eq!(metrics.sum("wmproxy_peer_state", &[("peer", &closed), ("state", "ejected")]), 1.0);
    let resets = |log: &[serde_json::Value]| log.iter().filter(|r| r["outcome"] == "peer_reset").count();
    assert_eq!(resets(&proxy.access_log(6)), 1);
}

#[test]
fn a_client_that_closed_its_port_harms_nobody() {
    let backend = UdpBackend::start(|bytes, _| {
        std::thread::sleep(Duration::from_millis(20));
        vec![bytes.to_vec(); 3]
    });
    let proxy = start(&udp(backend.addr(), ""));
    let to = proxy.udp("u");
    let stays = UdpClient::connect(to);
    stays.send(b"patient");
    UdpClient::connect(to).send(b"gone before the answer");
    backend.wait_received(2);
    for _ in 0..3 {
        assert_eq!(stays.recv(), b"patient");
    }
}

#[test]
fn without_a_peer_datagrams_are_dropped_and_counted() {
    let backend = UdpBackend::echo();
    let servers = [format!("{{ address = \"{}\", down = true }}", backend.addr())];
    let proxy = start(&format!("{}{}", group("g", &servers, ""), udp("g", "")));
    let client = UdpClient::connect(proxy.udp("u"));
    client.send(b"anybody?");
    wait_dropped(&proxy, "no_flow", 1);
    client.expect_nothing(Duration::from_millis(20));
    assert_eq!(proxy.active(), 0);
}

#[test]
fn a_storm_of_clients_leaves_nothing_behind() {
    let backend = UdpBackend::silent();
    let proxy = start(&udp(backend.addr(), "idle_timeout = \"300ms\"\nmax_connections = 300"));
    let to = proxy.udp("u");
    for _ in 0..5 {
        let clients: Vec<UdpClient> = (0..400).map(|_| UdpClient::connect(to)).collect();
        for client in &clients {
            client.send(b"storm");
        }
    }
    eventually("the flows to end", || proxy.active() == 0);
    let before = proxy.memory_kb();
    for _ in 0..5 {
        let clients: Vec<UdpClient> = (0..400).map(|_| UdpClient::connect(to)).collect();
        for client in &clients {
            client.send(b"storm");
        }
    }
    eventually("the flows to end", || proxy.active() == 0);
    let grown = proxy.memory_kb().saturating_sub(before);
    assert!(grown < 2_048, "{grown} KiB more after the second storm than after the first");
}
