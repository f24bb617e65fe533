//! Reloads: under load nothing is lost, what is established stays, and a reload that fails changes nothing.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use wmproxy_testkit::{Addr, Backend, Conn, Proxy, UdpBackend, UdpClient, eventually};

use crate::{assert_quick, start, stream, tcp, udp};

/// Keeps traffic of every kind running through `proxy` while `during` runs; every byte and datagram must come back.
/// Returns how many new connections and how many datagrams went through.
fn under_load(proxy: &Proxy, during: impl FnOnce()) -> (usize, usize) {
    let (tcp_addr, udp_addr) = (proxy.tcp("t"), proxy.udp("u"));
    let stop = AtomicBool::new(false);
    let (connections, datagrams) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let running = || !stop.load(Ordering::SeqCst);
    // Should `during` fail, the threads still have to end.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while running() {
                    let conn = Conn::connect(&tcp_addr);
                    conn.echo(b"a new connection");
                    conn.finish();
                    conn.expect_end();
                    connections.fetch_add(1, Ordering::SeqCst);
                }
            });
            scope.spawn(|| {
                let conn = Conn::connect(&tcp_addr);
                let bytes = vec![7; 30_000];
                while running() {
                    conn.echo(&bytes);
                }
                conn.finish();
                conn.expect_end();
            });
            scope.spawn(|| {
                let client = UdpClient::connect(udp_addr);
                let mut number = 0_u64;
                while running() {
                    client.echo(&number.to_be_bytes());
                    number += 1;
                    datagrams.fetch_add(1, Ordering::SeqCst);
                }
            });
            scope.spawn(|| {
                while running() {
                    UdpClient::connect(udp_addr).echo(b"a new flow");
                    datagrams.fetch_add(1, Ordering::SeqCst);
                    // A new flow each time: as many as the machine gives, but not all of its ports.
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let _stop = Stop(&stop);
        during();
    });
    (connections.load(Ordering::SeqCst), datagrams.load(Ordering::SeqCst))
}

#[test]
fn twenty_reloads_under_load_lose_nothing() {
    let (tcp_backend, udp_backend) = (Backend::echo(), UdpBackend::echo());
    let config = |round: usize| {
        // Something changes each time: a limit, a timeout, a listener that comes and goes.
        let mut text = tcp(tcp_backend.addr(), &format!("idle_timeout = \"{}s\"", 30 + round))
            + &udp(udp_backend.addr(), &format!("per_client_connections = {}", 10_000 + round));
        if round % 2 == 1 {
            text += &stream("guest", "127.0.0.1:0", tcp_backend.addr(), "");
        }
        text
    };
    let proxy = start(&config(0));
    let before = (proxy.tcp("t"), proxy.udp("u"), proxy.generation());
    let (connections, datagrams) = under_load(&proxy, || {
        for round in 1..=20 {
            proxy.reload_with(&config(round));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(connections >= 20 && datagrams >= 20, "that was no load: {connections} {datagrams}");
    assert_eq!((proxy.tcp("t"), proxy.udp("u"), proxy.generation()), (before.0, before.1, before.2 + 20));
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("wmproxy_reloads_total", &[("result", "ok")]), 20.0);
    assert_eq!(metrics.sum("wmproxy_udp_dropped_total", &[]), 0.0);
}

#[test]
fn established_connections_and_flows_are_untouched() {
    let (old_tcp, old_udp) = (Backend::whoami(), UdpBackend::whoami());
    let (new_tcp, new_udp) = (Backend::named("new"), UdpBackend::named("new"));
    let config = |t: &Addr, u: std::net::SocketAddr| tcp(t, "") + &udp(u, "idle_timeout = \"3s\"");
    let proxy = start(&config(old_tcp.addr(), old_udp.addr()));
    let (tcp_addr, udp_addr) = (proxy.tcp("t"), proxy.udp("u"));
    let conn = Conn::connect(&tcp_addr);
    conn.line();
    let client = UdpClient::connect(udp_addr);
    let source = client.ask_text(b"where from?");
    proxy.reload_with(&config(new_tcp.addr(), new_udp.addr()));
    // The old ones go on to the old peer, from the very same port.
    conn.echo(b"still here");
    assert_eq!(client.ask_text(b"where from now?"), source);
    // New ones on the same sockets go to the new peer.
    assert_eq!((proxy.tcp("t"), proxy.udp("u")), (tcp_addr.clone(), udp_addr));
    assert_eq!(Conn::connect(&tcp_addr).line(), "new");
    assert_eq!(UdpClient::connect(udp_addr).ask_text(b"who?"), "new");
}

#[test]
fn listeners_come_and_go() {
    let backend = Backend::echo();
    let one = tcp(backend.addr(), "");
    let two = format!("{one}{}", stream("second", "127.0.0.1:0", backend.addr(), ""));
    let proxy = start(&one);
    let first = proxy.tcp("t");
    proxy.reload_with(&two);
    let second = proxy.tcp("second");
    let kept = Conn::connect(&second);
    kept.echo(b"hello");
    assert_eq!(proxy.tcp("t"), first);
    proxy.reload_with(&one);
    eventually("the second listener to be closed", || Conn::try_connect(&second).is_err());
    kept.echo(b"what was accepted is served to its end");
    Conn::connect(&first).echo(b"hello");
}

#[test]
fn a_udp_listener_that_goes_lets_its_port_go() {
    let backend = UdpBackend::echo();
    let tcp_backend = Backend::echo();
    let port = wmproxy_testkit::tcp::free_port();
    let without = tcp(tcp_backend.addr(), "");
    let with = format!(
        "{without}{}",
        stream("u", &format!("udp://127.0.0.1:{port}"), backend.addr(), "idle_timeout = \"500ms\"")
    );
    let proxy = start(&with);
    let client = UdpClient::connect(proxy.udp("u"));
    client.echo(b"hello");
    proxy.reload_with(&without);
    eventually("the port to be free", || std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok());
    proxy.reload_with(&with);
    UdpClient::connect(proxy.udp("u")).echo(b"hello again");
}

#[test]
fn a_listener_may_change_its_address() {
    let backend = Backend::echo();
    let ports = [wmproxy_testkit::tcp::free_port(), wmproxy_testkit::tcp::free_port()];
    let config = |port: u16| stream("t", &format!("127.0.0.1:{port}"), backend.addr(), "");
    let proxy = start(&config(ports[0]));
    let old = proxy.tcp("t");
    proxy.reload_with(&config(ports[1]));
    eventually("the old listener to be gone", || proxy.addrs("t", "tcp").len() == 1);
    assert_eq!(proxy.tcp("t").port(), ports[1]);
    Conn::connect(&proxy.tcp("t")).echo(b"hello");
    eventually("the old address to be closed", || Conn::try_connect(&old).is_err());
}

#[test]
fn a_failed_reload_changes_nothing_and_says_why() {
    let (backend, udp_backend) = (Backend::echo(), UdpBackend::echo());
    let good = tcp(backend.addr(), "") + &udp(udp_backend.addr(), "");
    let proxy = start(&good);
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let addr = proxy.tcp("t");
    let conn = Conn::connect(&addr);
    conn.echo(b"hello");
    let generation = proxy.generation();
    let fresh = wmproxy_testkit::tcp::free_port();
    let bad = [
        ("this is no toml".to_owned(), vec!["wmproxy.toml:1:".to_owned()]),
        (good.replace("idle_timeout", "idel_timeout"), vec!["idel_timeout".into(), "idle_timeout".into()]),
        (stream("t", "127.0.0.1:0", "nowhere", ""), vec!["nowhere".into()]),
        // One listener could be bound, the other can't: neither is.
        (
            stream("fresh", &format!("127.0.0.1:{fresh}"), backend.addr(), "")
                + &stream("t", &taken, backend.addr(), ""),
            vec![taken.clone(), "in use".into()],
        ),
    ];
    for (config, words) in bad {
        let said = proxy.reload_refused(&config);
        for word in words {
            assert!(said.contains(&word), "{word:?} is missing in:\n{said}");
        }
        assert_eq!((proxy.tcp("t"), proxy.generation()), (addr.clone(), generation));
        conn.echo(b"still here");
        Conn::connect(&addr).echo(b"and new ones come in");
        UdpClient::connect(proxy.udp("u")).echo(b"by datagram, too");
        TcpListener::bind(("127.0.0.1", fresh)).expect("a failed reload leaves nothing bound");
    }
    assert_eq!(proxy.metrics().sum("wmproxy_reloads_total", &[("result", "failed")]), 4.0);
    // And the next good one works.
    proxy.reload_with(&good);
    assert_eq!(proxy.generation(), generation + 1);
}

#[test]
fn a_failed_reload_under_load_loses_nothing() {
    let (tcp_backend, udp_backend) = (Backend::echo(), UdpBackend::echo());
    let good = tcp(tcp_backend.addr(), "") + &udp(udp_backend.addr(), "");
    let proxy = start(&good);
    under_load(&proxy, || {
        for _ in 0..10 {
            proxy.reload_refused(&format!("{good}nonsense = 1\n"));
        }
    });
}

#[test]
fn hup_reloads() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let proxy = start(&tcp(old.addr(), ""));
    let addr = proxy.tcp("t");
    assert_eq!(Conn::connect(&addr).line(), "old");
    let generation = proxy.generation();
    proxy.rewrite(&tcp(new.addr(), ""));
    proxy.signal(Signal::HUP);
    eventually("the reload", || proxy.generation() == generation + 1);
    assert_eq!(Conn::connect(&addr).line(), "new");
    // A bad file is logged: there is no caller to tell.
    proxy.expect_warn("reload");
    proxy.rewrite("nonsense = 1\n");
    proxy.signal(Signal::HUP);
    proxy.log().wait("nonsense");
    assert_eq!(proxy.generation(), generation + 1);
    assert_eq!(Conn::connect(&addr).line(), "new");
}

#[test]
fn reload_by_the_api_answers_with_the_reason() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    let answer = proxy.api("POST", "/api/v1/reload");
    assert!((200..300).contains(&answer.status), "{answer:?}");
    proxy.expect_warn("reload");
    proxy.rewrite("nonsense = 1\n");
    let answer = proxy.api("POST", "/api/v1/reload");
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert!(answer.body.contains("nonsense"), "{answer:?}");
}

#[test]
fn reloads_at_the_same_time_follow_one_another() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    let generation = proxy.generation();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| proxy.reload());
        }
    });
    assert_eq!(proxy.generation(), generation + 4);
    Conn::connect(&proxy.tcp("t")).echo(b"hello");
}

#[test]
fn what_is_counted_survives_a_reload() {
    let (backend, down) = (Backend::echo(), wmproxy_testkit::tcp::Closed::new());
    let servers = [backend.addr().to_string(), down.addr().to_string()];
    let config = |limit: u32| {
        crate::group("g", &servers, "fail_timeout = \"30s\"")
            + &tcp("g", &format!("max_connections = {limit}"))
    };
    let proxy = start(&config(100));
    proxy.expect_warn("ejected");
    let addr = proxy.tcp("t");
    for _ in 0..4 {
        Conn::connect(&addr).echo(b"hello");
    }
    let down_is_ejected = || {
        let peer = down.addr().to_string();
        let metrics = proxy.metrics();
        (
            metrics.sum("wmproxy_peer_state", &[("peer", &peer), ("state", "ejected")]),
            metrics.sum("wmproxy_peer_ejections_total", &[("peer", &peer)]),
        )
    };
    assert_eq!(down_is_ejected(), (1.0, 1.0));
    proxy.reload_with(&config(101));
    assert_eq!(down_is_ejected(), (1.0, 1.0), "a reload forgot that a peer is ejected");
    assert_eq!(proxy.metrics().sum("wmproxy_connections_accepted_total", &[("listener", "t")]), 4.0);
}

#[test]
fn a_config_that_listens_nowhere_is_refused() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    proxy.expect_warn("reload");
    let open = Conn::connect(&proxy.tcp("t"));
    open.echo(b"before");
    let refused = proxy.reload_refused("");
    assert!(refused.contains("no listener"), "{refused}");
    open.echo(b"after");
    Conn::connect(&proxy.tcp("t")).echo(b"a new one");
}

#[test]
fn a_stop_goes_past_a_reload_that_waits_for_names() {
    let backend = Backend::echo();
    // Preparing waits three seconds for names.
    assert_quick(Duration::from_secs(2), || {
        // A name server that never answers.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut proxy = start(&tcp(backend.addr(), ""));
        proxy.expect_warn("reload");
        proxy.expect_warn("resolve");
        proxy.rewrite(&format!(
            "[resolver]\nservers = [\"{}\"]\n{}",
            silent.local_addr().unwrap(),
            stream("t", "127.0.0.1:0", "name.test:80", "")
        ));
        proxy.signal(Signal::HUP);
        // It is at it when it has asked.
        silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        silent.recv(&mut [0; 512]).unwrap();
        let begun = std::time::Instant::now();
        proxy.signal(Signal::TERM);
        assert_eq!(proxy.wait(), Some(0));
        begun.elapsed()
    });
}

#[test]
fn an_address_that_is_our_own_in_another_form_is_named() {
    let backend = UdpBackend::echo();
    let config = |listen: &str| stream("u", &format!("udp://{listen}"), backend.addr(), "");
    let proxy = start(&config("127.0.0.1:0"));
    proxy.expect_warn("reload");
    let port = proxy.udp("u").port();
    // First to a port that the config names, then to all addresses of it.
    proxy.reload_with(&config(&format!("127.0.0.2:{port}")));
    let refused = proxy.reload_refused(&config(&format!("0.0.0.0:{port}")));
    assert!(refused.contains("`u` listens on 127.0.0.2"), "{refused}");
    assert!(refused.contains("in use"), "{refused}");
}
