//! TLS to clients and to peers, through the binary.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use wmproxy_testkit::tcp::Conn;
use wmproxy_testkit::tls::Pair;
use wmproxy_testkit::{Authority, Backend, Pattern, Proxy, TlsBackend, TlsClient, eventually};

use crate::{group, setup, stream, tcp};

/// A proxy that ends TLS in front of `backend` with these certificates.
fn terminating(backend: &Backend, pairs: &[&Pair], more: &str) -> Proxy {
    setup(&config(backend, pairs, more)).start()
}

fn config(backend: &Backend, pairs: &[&Pair], more: &str) -> String {
    let list: Vec<String> = pairs.iter().map(|pair| pair.toml()).collect();
    let tls = match &list[..] {
        [one] => one.replace(" }", &format!("{more} }}")),
        many => format!("[{}]", many.join(", ")),
    };
    format!("[access_log]\nfile = \"access.log\"\n{}", tcp(backend.addr(), &format!("tls = {tls}")))
}

pub(super) fn outcome(proxy: &Proxy) -> String {
    proxy.access_log(1)[0]["outcome"].as_str().unwrap().to_owned()
}

#[test]
fn a_client_gets_the_certificate_for_the_name_it_asks_for() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let pairs = [authority.issue("a", &["a.test"]), authority.issue("b", &["*.b.test", "x.c.test"])];
    let proxy = terminating(&backend, &[&pairs[0], &pairs[1]], "");
    let client = TlsClient::new(&authority);
    let served = |name: &str| {
        let mut conn = client.connect(&proxy.tcp("t"), name)?;
        conn.echo(b"hello");
        assert!(conn.is_tls13());
        Ok::<_, std::io::Error>(conn.certificate())
    };
    let (a, b) = (served("a.test").unwrap(), served("y.b.test").unwrap());
    assert_ne!(a, b);
    assert_eq!(served("x.c.test").unwrap(), b);
    // The default one, which this client does not take for another name.
    let refused = served("z.y.b.test").unwrap_err().to_string();
    assert!(refused.contains("not valid for name"), "{refused}");
    TlsClient::of_tls12(&authority).connect(&proxy.tcp("t"), "a.test").unwrap().echo(b"older");
    drop(proxy);
}

#[test]
fn the_ends_of_both_directions_pass_one_by_one() {
    let authority = Authority::new();
    let backend = Backend::lines();
    let proxy = terminating(&backend, &[&authority.issue("a", &["a.test"])], "");
    let mut client = TlsClient::new(&authority).connect(&proxy.tcp("t"), "a.test").unwrap();
    client.send(b"one\ntwo\n");
    client.finish();
    // What the backend says after the client's end still comes, and ends with close_notify.
    client.recv_all().unwrap();
    drop(client);
    assert_eq!(outcome(&proxy), "done");
}

#[test]
fn a_hundred_megabytes_pass_both_ways() {
    const TOTAL: usize = 100 << 20;
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test", "127.0.0.1"]);
    let peer = TlsBackend::echo(&pair);
    // In by TLS, out by TLS, and back.
    let up = group(
        "up",
        &[peer.addr().to_string()],
        &format!("tls = {{ ca = \"{}\" }}", authority.ca().display()),
    );
    let proxy = setup(&format!("{up}{}", tcp("up", &format!("tls = {}", pair.toml())))).start();
    let pattern = Pattern::new(7);
    let mut client = TlsClient::new(&authority).connect(&proxy.tcp("t"), "a.test").unwrap();
    let mut offset = 0;
    // Both ends are one thread of a blocking client, so no more is under way than the buffers between take.
    while offset < TOTAL {
        let chunk = pattern.bytes(offset as u64, (128 << 10).min(TOTAL - offset));
        client.send(&chunk);
        let back = client.try_recv(chunk.len()).unwrap();
        pattern.check(offset as u64, &back);
        offset += chunk.len();
    }
    client.finish();
    assert_eq!(client.recv_all().unwrap(), b"");
    drop(client);
    eventually("the connection ends", || proxy.active() == 0);
}

#[test]
fn a_client_that_cuts_its_connection_off_is_no_client_that_is_done() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let proxy = terminating(&backend, &[&authority.issue("a", &["a.test"])], "");
    let mut client = TlsClient::new(&authority).connect(&proxy.tcp("t"), "a.test").unwrap();
    client.echo(b"half of it");
    client.cut();
    assert!(client.recv_all().is_err(), "no close_notify either");
    assert_eq!(outcome(&proxy), "client_tls");
    let end = backend.next_end();
    assert!(end.error.is_some(), "the peer sees a reset: {end:?}");
}

#[test]
fn garbage_where_tls_is_expected_is_refused_with_an_alert() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let proxy = terminating(&backend, &[&authority.issue("a", &["a.test"])], "");
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.send(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let alert = conn.recv(7);
    assert_eq!(alert[0], 21, "{alert:?}");
    conn.expect_closed();
    assert_eq!(outcome(&proxy), "client_tls");
    assert_eq!(backend.accepted(), 0, "nothing reached the peer");
    assert_eq!(proxy.metrics().sum("wmproxy_connections_closed_total", &[("outcome", "client_tls")]), 1.0);
}

#[test]
fn a_client_that_says_nothing_has_its_time() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let pair = authority.issue("a", &["a.test"]);
    let options = format!("tls = {}\npreface_timeout = \"200ms\"", pair.toml());
    let proxy =
        setup(&format!("[access_log]\nfile = \"access.log\"\n{}", tcp(backend.addr(), &options))).start();
    let conn = Conn::connect(&proxy.tcp("t"));
    // The beginning of a record that never comes whole.
    conn.send(&[22, 3, 1, 2, 0, 1]);
    conn.expect_closed();
    assert_eq!(outcome(&proxy), "preface_timeout");
}

#[test]
fn a_strict_listener_knows_only_its_names() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let proxy = terminating(&backend, &[&authority.issue("a", &["a.test"])], ", strict_sni = true");
    let client = TlsClient::new(&authority);
    client.connect(&proxy.tcp("t"), "a.test").unwrap().echo(b"x");
    let refused = client.connect(&proxy.tcp("t"), "b.test").unwrap_err().to_string();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    let records = proxy.access_log(2);
    let record = records.iter().find(|record| record["outcome"] == "no_route").unwrap();
    assert_eq!((record["sni"].as_str(), record["fault"].as_str()), (Some("b.test"), Some("client")));
    let refused = proxy.metrics().sum("wmproxy_connections_refused_total", &[("reason", "no_route")]);
    assert_eq!(refused, 1.0);
}

#[test]
fn clients_prove_who_they_are() {
    let (authority, others) = (Authority::new(), Authority::new());
    let backend = Backend::echo();
    let ca = format!(", client_ca = \"{}\"", authority.ca().display());
    let proxy = terminating(&backend, &[&authority.issue("a", &["a.test"])], &ca);
    let known = TlsClient::with_cert(&authority, &authority.issue("alice", &["alice"]));
    known.connect(&proxy.tcp("t"), "a.test").unwrap().echo(b"it is me");
    for stranger in
        [TlsClient::new(&authority), TlsClient::with_cert(&authority, &others.issue("mallory", &["alice"]))]
    {
        // TLS 1.3 tells a client only after its handshake.
        let refused = stranger.connect(&proxy.tcp("t"), "a.test").and_then(|mut conn| conn.try_recv(1));
        assert!(refused.is_err());
    }
    eventually("they are gone", || proxy.active() == 0);
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn protocols_are_agreed_on() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let pair = authority.issue("a", &["a.test"]);
    let proxy = terminating(&backend, &[&pair], ", alpn = [\"h2\", \"http/1.1\"]");
    let agreed = |protocols: &[&str]| {
        TlsClient::with_alpn(&authority, protocols).connect(&proxy.tcp("t"), "a.test").map(|conn| conn.alpn())
    };
    assert_eq!(agreed(&["http/1.1", "h2"]).unwrap().as_deref(), Some("h2"));
    assert_eq!(agreed(&[]).unwrap(), None);
    assert!(agreed(&["ftp"]).is_err());
}

#[test]
fn sessions_go_on_on_any_worker_and_after_a_reload() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let pair = authority.issue("a", &["a.test"]);
    let of = |more: &str| format!("workers = 4\n{more}{}", config(&backend, &[&pair], ""));
    let proxy = setup(&of("")).start();
    for client in [TlsClient::new(&authority), TlsClient::of_tls12(&authority)] {
        let resumed = || {
            let mut conn = client.connect(&proxy.tcp("t"), "a.test").unwrap();
            // The ticket comes before the answer.
            conn.echo(b"x");
            conn.was_resumed()
        };
        assert!(!resumed());
        assert!((0..16).all(|_| resumed()), "whichever worker it comes to");
        proxy.reload_with(&of("shutdown_timeout = \"9s\"\n"));
        assert!(resumed(), "after a reload");
    }
}

#[test]
fn a_certificate_that_is_renewed_is_served_without_a_lost_connection() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let pair = authority.issue("a", &["a.test"]);
    let proxy = terminating(&backend, &[&pair], "");
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let addr = proxy.tcp("t");
    let client = TlsClient::new(&authority);
    let mut open = client.connect(&addr, "a.test").unwrap();
    let first = open.certificate();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // A new client each time, so that each handshake is a whole one.
                    TlsClient::new(&authority).connect(&addr, "a.test").unwrap().echo(b"load");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("there is load", || served.load(Ordering::Relaxed) > 10);
        authority.issue("a", &["a.test"]);
        let renewed = || TlsClient::new(&authority).connect(&addr, "a.test").unwrap().certificate() != first;
        eventually("the new certificate is served", renewed);
        // What does not fit is not taken, and said once.
        proxy.expect_warn("stay in use");
        std::fs::write(&pair.key, "nonsense").unwrap();
        eventually("that is logged", || proxy.log().text().contains("stay in use"));
        TlsClient::new(&authority).connect(&addr, "a.test").unwrap().echo(b"still there");
        stop.store(true, Ordering::Relaxed);
    });
    open.echo(b"and whoever was in still is");
    drop(open);
    authority.issue("a", &["a.test"]);
    eventually("it is mended", || proxy.log().text().matches("loaded anew").count() == 2);
}

#[test]
fn a_bad_certificate_is_an_error_of_the_config() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let pair = authority.issue("a", &["a.test"]);
    let other = authority.issue("b", &["a.test"]);
    let good = config(&backend, &[&pair], "");
    let proxy = setup(&good).start();
    let bad = |tls: String| tcp(backend.addr(), &format!("tls = {tls}"));
    let mixed = Pair { cert: pair.cert.clone(), key: other.key.clone() };
    let missing = Pair { cert: "/nowhere/a.pem".into(), key: pair.key.clone() };
    for (config, expected) in [
        (bad(mixed.toml()), "is not the key of"),
        (bad(missing.toml()), "can't read /nowhere/a.pem: No such file"),
        (bad("{ cert = \"x.pem\" }".into()), "`key` is missing"),
        (bad("\"self\"".into()), "expected a table"),
        (bad("[]".into()), "at least one certificate"),
        (
            bad(format!("[{}, {}]", pair.toml(), pair.toml().replace(" }", ", strict_sni = true }"))),
            "with the first",
        ),
        (stream("t", "udp://127.0.0.1:0", backend.addr(), &format!("tls = {}", pair.toml())), "in the clear"),
        (
            format!(
                "{}{}",
                group("up", &["127.0.0.1:1".into()], "tls = { cert = \"x.pem\" }"),
                tcp("up", "")
            ),
            "proves nothing",
        ),
        (
            format!(
                "{}{}",
                group("up", &["127.0.0.1:1".into()], "tls = { ca = \"/nowhere/ca.pem\" }"),
                tcp("up", "")
            ),
            "can't read",
        ),
    ] {
        let said = proxy.reload_refused(&config);
        assert!(said.contains(expected) && said.contains("wmproxy.toml:"), "{expected}:\n{said}");
        let checked = proxy.command(&["check", "-c", "wmproxy.toml"]);
        assert_ne!(checked.code, Some(0), "check says it, too");
    }
    TlsClient::new(&authority).connect(&proxy.tcp("t"), "a.test").unwrap().echo(b"the old config is at work");
}

#[test]
fn a_self_signed_certificate_is_made_once() {
    let backend = Backend::echo();
    let config = tcp(backend.addr(), "tls = \"self-signed\"");
    let setup = setup(&config);
    let state = setup.dir().join("state");
    let proxy = setup.env("XDG_STATE_HOME", state.to_str().unwrap()).start();
    assert!(proxy.log().text().contains("a self-signed certificate was made"));
    assert!(proxy.log().text().contains("sha256="));
    let authority = Authority::new();
    let untrusted = TlsClient::new(&authority).connect(&proxy.tcp("t"), "localhost").unwrap_err();
    assert!(untrusted.to_string().contains("UnknownIssuer"), "{untrusted}");
    let file = state.join("wmproxy/self-signed.crt");
    let first = std::fs::read(&file).unwrap();
    proxy.reload_with(&format!("shutdown_timeout = \"9s\"\n{config}"));
    assert_eq!(std::fs::read(&file).unwrap(), first);
}

#[test]
fn a_limited_rate_holds_for_what_was_decrypted() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let pair = authority.issue("a", &["a.test"]);
    let options = format!("tls = {}\nrate_limit = {{ up = \"400k/s\", down = \"400k/s\" }}", pair.toml());
    let proxy = setup(&tcp(backend.addr(), &options)).start();
    let mut client = TlsClient::new(&authority).connect(&proxy.tcp("t"), "a.test").unwrap();
    let data = Pattern::new(1).bytes(0, 500_000);
    let begun = std::time::Instant::now();
    client.echo(&data);
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[test]
fn a_slow_reader_holds_back_the_peer_and_no_memory_grows() {
    let authority = Authority::new();
    let backend = Backend::source(3, 64 << 20);
    let proxy = terminating(&backend, &[&authority.issue("a", &["a.test"])], "");
    let readers: Vec<_> =
        (0..8).map(|_| TlsClient::new(&authority).connect(&proxy.tcp("t"), "a.test").unwrap()).collect();
    backend.wait_accepted(8);
    let out = || proxy.listener_number("t", "bytes_out");
    let mut last = 0;
    eventually("nothing moves any more", || {
        std::thread::sleep(Duration::from_millis(50));
        let now = out();
        std::mem::replace(&mut last, now) == now && now > 0
    });
    // Each may have filled the kernel's buffers and one of ours; the rest waits at the peer.
    assert!(out() < 8 * (16 << 20), "{}", out());
    let memory = proxy.memory_kb();
    std::thread::sleep(Duration::from_millis(100));
    assert!(proxy.memory_kb() < memory + 1024, "it grows");
    drop(readers);
}
