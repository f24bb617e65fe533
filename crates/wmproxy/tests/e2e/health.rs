//! Health checks: who is taken out, who comes back, and what is seen of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use wmproxy_testkit::backend::drain;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Authority, Backend, Conn, Proxy, TlsBackend, UdpBackend, UdpClient, eventually};

use crate::{ACCESS_LOG, group, setup, start, tcp, udp};

/// What the log says of a peer that goes.
const DOWN: &str = "peer is down: its health checks fail";

/// A server that says its name to whoever connects, until it freezes: then the kernel still connects, and nobody
/// says anything.
struct Freezing {
    backend: Backend,
    frozen: Arc<AtomicBool>,
}

impl Freezing {
    fn start(name: &str) -> Freezing {
        let frozen = Arc::new(AtomicBool::new(false));
        let (line, is_frozen) = (format!("{name}\n"), frozen.clone());
        let backend = Backend::start(move |conn| {
            if !is_frozen.load(Ordering::SeqCst) {
                conn.try_send(line.as_bytes())?;
            }
            drain(conn)
        });
        Freezing { backend, frozen }
    }

    fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }

    fn text(&self) -> String {
        self.backend.addr().to_string()
    }
}

/// A group `g` whose servers are checked for a line. A check has time for a machine that is busy.
fn checked(servers: &[String], more: &str) -> String {
    let health = "[upstream.g.health]\ninterval = \"1s\"\nexpect = \"\\n\"\nrise = 2\nfall = 2\n";
    group("g", servers, &format!("{health}{more}"))
}

/// The peer with this address in the status.
fn peer(proxy: &Proxy, address: &str) -> Value {
    let status = proxy.status();
    let groups = status["upstreams"].as_array().unwrap().iter();
    let mut peers = groups.flat_map(|group| group["peers"].as_array().unwrap());
    peers
        .find(|peer| peer["address"] == address)
        .unwrap_or_else(|| panic!("no {address} in {status}"))
        .clone()
}

fn wait_health(proxy: &Proxy, address: &str, state: &str) {
    eventually(&format!("{address} to be {state}"), || peer(proxy, address)["health"]["state"] == state);
}

fn answers(addr: &Addr, count: usize) -> Vec<String> {
    (0..count).map(|_| Conn::connect(addr).line()).collect()
}

#[test]
fn a_server_that_freezes_is_taken_out_and_comes_back() {
    let (a, b) = (Freezing::start("a"), Freezing::start("b"));
    let config = format!("{}{}", checked(&[a.text(), b.text()], ""), tcp("g", ""));
    let proxy = setup(&config).expect_warn(DOWN).start();
    let addr = proxy.tcp("t");
    wait_health(&proxy, &a.text(), "up");
    wait_health(&proxy, &b.text(), "up");
    let mut both = answers(&addr, 4);
    both.sort();
    assert_eq!(both, ["a", "a", "b", "b"]);
    // One that is open stays so, whatever the checks say.
    let kept = loop {
        let conn = Conn::connect(&addr);
        if conn.line() == "a" {
            break conn;
        }
    };

    a.freeze(true);
    wait_health(&proxy, &a.text(), "down");
    assert_eq!(answers(&addr, 6), ["b"; 6]);
    let down = peer(&proxy, &a.text());
    assert_eq!(down["state"], "unhealthy");
    assert_eq!(down["health"]["last"]["result"], "failed");
    assert_eq!(down["health"]["last"]["reason"], "no answer within 1s");
    let metrics = proxy.metrics();
    let labels = |state| [("group", "g"), ("peer", &*a.text().leak()), ("state", state)];
    assert_eq!(metrics.sum("wmproxy_peer_health", &labels("down")), 1.0);
    assert_eq!(metrics.sum("wmproxy_peer_state", &labels("unhealthy")), 1.0);
    let shown = proxy.command(&["status"]).success().stdout;
    assert!(shown.contains("unhealthy for "), "{shown}");
    assert!(
        shown.contains(&format!("g: the last health check of {}: no answer within 1s\n", a.text())),
        "{shown}"
    );

    a.freeze(false);
    wait_health(&proxy, &a.text(), "up");
    assert!(answers(&addr, 6).contains(&"a".to_owned()));
    kept.send(b"still here");
    assert_eq!(proxy.log().count(DOWN), 1, "{}", proxy.log().text());
    assert_eq!(proxy.log().count("peer is up again"), 1);
    let said = proxy.log().wait(DOWN);
    assert!(said.contains("reason=\"no answer within 1s\"") && said.contains("failures=2"), "{said}");
    let metrics = proxy.metrics();
    for (result, least) in [("passed", 3.0), ("failed", 2.0)] {
        let labels = [("peer", &*a.text().leak()), ("result", result)];
        assert!(metrics.sum("wmproxy_peer_checks_total", &labels) >= least, "{result}");
    }
    assert!(metrics.has("wmproxy_peer_check_duration_seconds", &[("peer", &*a.text().leak())]));
}

#[test]
fn clients_are_refused_while_no_server_is_well() {
    let a = Freezing::start("a");
    a.freeze(true);
    let config = format!("{ACCESS_LOG}{}{}", checked(&[a.text()], ""), tcp("g", ""));
    let proxy = setup(&config).expect_warn(DOWN).start();
    wait_health(&proxy, &a.text(), "down");
    let before = a.backend.accepted();
    Conn::connect(&proxy.tcp("t")).expect_closed();
    let ended = &proxy.access_log(1)[0];
    assert_eq!(
        (&ended["outcome"], &ended["fault"]),
        (&"no_healthy_peer".into(), &"upstream".into()),
        "{ended}"
    );
    assert!(
        proxy.metrics().sum("wmproxy_connections_closed_total", &[("outcome", "no_healthy_peer")]) == 1.0
    );
    a.freeze(false);
    wait_health(&proxy, &a.text(), "up");
    assert_eq!(answers(&proxy.tcp("t"), 1), ["a"]);
    assert!(a.backend.accepted() > before);
}

#[test]
fn a_reload_keeps_what_is_known_and_asks_no_sooner() {
    let alive = Backend::named("alive");
    let dead = format!("127.0.0.1:{}", free_port());
    let health = "[upstream.g.health]\ninterval = \"5m\"\ntimeout = \"5s\"\n";
    let config = |health: &str, listener: &str| {
        let servers = [dead.clone(), alive.addr().to_string()];
        format!("{}{}", group("g", &servers, health), tcp("g", listener))
    };
    let proxy = setup(&config(health, "")).expect_warn(DOWN).start();
    // Found out at the first check, although there are three failures to go by and five minutes between checks.
    wait_health(&proxy, &dead, "down");
    wait_health(&proxy, &alive.addr().to_string(), "up");
    let accepted = alive.accepted();
    for limit in 1..=5 {
        proxy.reload_with(&config(health, &format!("max_connections = {limit}00")));
        assert_eq!(peer(&proxy, &dead)["state"], "unhealthy");
    }
    let known = peer(&proxy, &dead)["health"].clone();
    assert_eq!((&known["failed"], &known["passed"]), (&1.into(), &0.into()), "{known}");
    assert_eq!(answers(&proxy.tcp("t"), 4), ["alive"; 4]);
    assert_eq!(alive.accepted(), accepted + 4, "no check came of the reloads");
    assert_eq!(proxy.log().count(DOWN), 1);
    // Without checks nobody is held to what they said; the peer then goes by its failures.
    proxy.reload_with(&config("", ""));
    assert_eq!(peer(&proxy, &dead)["health"], Value::Null);
    assert_eq!(peer(&proxy, &dead)["state"], "up");
    proxy.expect_warn("peer ejected");
    assert_eq!(answers(&proxy.tcp("t"), 4), ["alive"; 4]);
}

#[test]
fn a_page_says_whether_a_server_is_well() {
    let backend = Backend::http("all is well");
    let address = backend.addr().to_string();
    let health = |expect: &str| {
        let health = "[upstream.g.health]\ntype = \"http\"\npath = \"/healthz\"\ninterval = \"1s\"\nfall = 1";
        format!(
            "{}{}",
            group("g", std::slice::from_ref(&address), &format!("{health}\n{expect}\n")),
            tcp("g", "")
        )
    };
    let proxy = setup(&health("expect_body = \"is well\"")).expect_warn(DOWN).start();
    wait_health(&proxy, &address, "up");
    proxy.reload_with(&health("expect_body = \"is ill\""));
    wait_health(&proxy, &address, "down");
    let reason = "the body does not have what was expected, but \"all is well\"";
    assert_eq!(peer(&proxy, &address)["health"]["last"]["reason"], reason);
    proxy.reload_with(&health("expect_status = 204"));
    let reason = "the status is 200, and 204 was expected";
    eventually("the other reason", || peer(&proxy, &address)["health"]["last"]["reason"] == reason);
    proxy.reload_with(&health("expect_status = \"200,204\""));
    wait_health(&proxy, &address, "up");
}

#[test]
fn a_server_behind_tls_is_checked_by_tls() {
    let authority = Authority::new();
    let pair = authority.issue("peer", &["peer.test"]);
    // One answers whatever comes, in TLS; the other in the clear.
    let (secured, plain) = (TlsBackend::echo(&pair), Backend::echo());
    let servers = [secured.addr().to_string(), plain.addr().to_string()];
    let tls = format!("tls = {{ ca = \"{}\", server_name = \"peer.test\" }}", authority.ca().display());
    let health = "[upstream.g.health]\ninterval = \"300ms\"\nsend = \"ping\"\nexpect = \"ping\"\n";
    let config = |tls: &str| format!("{}{}", group("g", &servers, &format!("{tls}\n{health}")), tcp("g", ""));
    let proxy = setup(&config(&tls)).expect_warn(DOWN).start();
    wait_health(&proxy, &servers[0], "up");
    wait_health(&proxy, &servers[1], "down");
    Conn::connect(&proxy.tcp("t")).echo(b"hello");
    // Who can't prove to be the server is not well either.
    proxy.expect_warn("certificate is not accepted");
    proxy.reload_with(&config(&tls.replace("peer.test", "other.test")));
    wait_health(&proxy, &servers[0], "down");
}

#[test]
fn a_page_behind_tls_says_whether_a_server_is_well() {
    let authority = Authority::new();
    let pair = authority.issue("peer", &["peer.test"]);
    let backend = Backend::http("all is well");
    let inner = start(&tcp(backend.addr(), &format!("tls = {}", pair.toml())));
    let address = inner.tcp("t").to_string();
    let tls = format!("tls = {{ ca = \"{}\", server_name = \"peer.test\" }}", authority.ca().display());
    let health =
        "[upstream.g.health]\ntype = \"http\"\ninterval = \"300ms\"\nfall = 1\nexpect_body = \"is well\"\n";
    let config = |tls: &str| {
        format!("{}{}", group("g", std::slice::from_ref(&address), &format!("{tls}\n{health}")), tcp("g", ""))
    };
    let proxy = setup(&config(&tls)).expect_warn(DOWN).start();
    wait_health(&proxy, &address, "up");
    // In the clear it gets an alert for an answer.
    inner.expect_warn("");
    proxy.reload_with(&config(""));
    wait_health(&proxy, &address, "down");
}

#[test]
fn datagrams_go_to_who_answers_checks() {
    // One echoes; nobody is at the other's port.
    let backend = UdpBackend::echo();
    let dead = format!("127.0.0.1:{}", free_port());
    let health = "[upstream.g.health]\ntype = \"udp\"\nsend = { hex = \"00ff\" }\nexpect = { hex = \"ff\" }\n\
                  interval = \"300ms\"\n";
    let servers = [dead.clone(), backend.addr().to_string()];
    let config = format!("{}{}", group("g", &servers, health), udp("g", ""));
    let proxy = setup(&config).expect_warn(DOWN).start();
    wait_health(&proxy, &dead, "down");
    wait_health(&proxy, &servers[1], "up");
    let reason = peer(&proxy, &dead)["health"]["last"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("the port is closed: "), "{reason}");
    for _ in 0..4 {
        UdpClient::connect(proxy.udp("u")).echo(b"hello");
    }
    eventually("the flows to end", || proxy.active() == 0);
}

#[test]
fn problems_are_told_with_their_places() {
    let proxy = start(&tcp("127.0.0.1:1", ""));
    let config = format!(
        "{}[upstream.g.health]\ntype = \"udp\"\ninterval = \"1s\"\ntimeout = \"2s\"\npath = \"/\"\n{}",
        group("g", &["127.0.0.1:1".to_owned()], ""),
        tcp("g", "")
    );
    let refusal = proxy.reload_refused(&config);
    for part in [
        "timeout = \"2s\"",
        "must be at most `interval`",
        "path = \"/\"",
        "is for type = \"http\"",
        "needs `send`",
    ] {
        assert!(refusal.contains(part), "{part} in {refusal}");
    }
}
