//! Where connections come from, which options sockets have, and what happens when the system refuses them. What takes
//! rights is in `interop/netns.rs`.

use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use wmproxy_testkit::exec::run_in;
use wmproxy_testkit::{Addr, Backend, Conn, TempDir};

use crate::{BIN, group, start, stream, tcp};

/// The address without the port.
fn ip(line: &str) -> &str {
    line.rsplit_once(':').unwrap().0
}

#[test]
fn a_backend_sees_the_source_address_of_the_stream_or_else_of_the_upstream() {
    let backend = Backend::whoami();
    let server = backend.addr().to_string();
    let config = [
        group("own", std::slice::from_ref(&server), "source = \"127.0.0.9\""),
        stream("a", "127.0.0.1:0", &server, "source = \"127.0.0.8\""),
        stream("b", "127.0.0.1:0", "own", "source = \"127.0.0.8\""),
        stream("c", "127.0.0.1:0", &server, ""),
    ];
    let proxy = start(&config.concat());
    let seen = |name: &str| Conn::connect(&proxy.tcp(name)).line();
    assert_eq!(ip(&seen("a")), "127.0.0.8");
    assert_eq!(ip(&seen("b")), "127.0.0.9");
    assert_eq!(ip(&seen("c")), "127.0.0.1");
    // Each connection has a port of its own, and none is held between two.
    let ports: std::collections::HashSet<String> = (0..20).map(|_| seen("a")).collect();
    assert_eq!(ports.len(), 20);
}

#[test]
fn a_source_of_the_wrong_family_is_found_before_anything_starts() {
    let dir = TempDir::new();
    let check = |config: &str| {
        dir.write("c.toml", config);
        let finished = run_in(dir.path(), BIN, &["check", "-c", "c.toml"]);
        assert_eq!(finished.code, Some(1), "{}", finished.text());
        finished.text()
    };
    let text = check(&tcp("[::1]:80", "source = \"127.0.0.1\""));
    assert!(text.contains("two families") && text.contains("c.toml:5"), "{text}");
    let servers = ["[::1]:80".to_owned(), "127.0.0.1:80".to_owned()];
    let text = check(&(group("g", &servers, "source = \"::1\"") + &tcp("g", "")));
    assert!(text.contains("::1 and 127.0.0.1:80"), "{text}");
    let text = check(&(group("g", &servers, "") + &tcp("g", "source = \"::1\"")));
    assert!(text.contains("::1 and 127.0.0.1:80"), "{text}");
}

#[test]
fn bad_values_are_told_with_what_would_be_right() {
    let dir = TempDir::new();
    for (line, right) in [
        ("dscp = 64", "0 to 63"),
        ("dscp = \"fast\"", "af41"),
        ("source = \"127.0.0.1:80\"", "without a port"),
        ("source = \"0.0.0.0\"", "an address of this machine"),
        ("interface = \"a name\"", "network device"),
        ("mark = -1", "from 0 to"),
        ("tcp_user_timeout = \"0s\"", "leave it out"),
        ("tcp_keepalive = \"0s\"", "`false` turns"),
        ("tcp_keepalive = { idle = \"1m\", count = 0 }", "from 1 to 127"),
        ("tcp_keepalive = { idle = \"1m\", interval = \"1ms\" }", "\"1s\""),
        ("mptcp = true\ntcp_user_timeout = \"5s\"", "Multipath TCP has no"),
    ] {
        dir.write("c.toml", &tcp("127.0.0.1:9", line));
        let finished = run_in(dir.path(), BIN, &["check", "-c", "c.toml"]);
        assert_eq!(finished.code, Some(1), "{line}: {}", finished.text());
        assert!(finished.text().contains(right), "{line}: {}", finished.text());
    }
}

#[test]
fn what_this_machine_does_not_have_fails_the_start_and_leaves_a_running_one_alone() {
    let backend = Backend::echo();
    let good = tcp(backend.addr(), "");
    // An address for documentation (RFC 5737).
    let bad = [
        ("source = \"192.0.2.77\"", "no such address"),
        ("interface = \"no-such-device\"", "no such network device"),
    ];
    let dir = TempDir::new();
    let proxy = start(&good);
    proxy.expect_warn("reload");
    for (line, why) in bad {
        dir.write("c.toml", &tcp(backend.addr(), line));
        let finished = run_in(dir.path(), BIN, &["run", "-c", "c.toml", "--no-admin"]);
        assert_eq!(finished.code, Some(1), "{line}: {}", finished.text());
        assert!(finished.stderr.contains(why), "{line}: {}", finished.stderr);
        let refused = proxy.reload_refused(&tcp(backend.addr(), line));
        assert!(refused.contains(why), "{line}: {refused}");
        let upstream = group("g", &[backend.addr().to_string()], line) + &tcp("g", "");
        assert!(proxy.reload_refused(&upstream).contains(why), "{line}");
        Conn::connect(&proxy.tcp("t")).echo(b"still here");
    }
}

#[test]
fn every_option_that_takes_no_right_is_taken_and_dropped_again_by_a_reload() {
    let backend = Backend::echo();
    let server = [backend.addr().to_string()];
    let all = "tcp_keepalive = { idle = \"60s\", interval = \"10s\", count = 5 }\ntcp_user_timeout = \"30s\"\n\
        dscp = \"af41\"\ntcp_nodelay = false";
    let to_peers = "dscp = 46\ninterface = \"lo\"";
    let config = |upstream: &str, more: &str| group("g", &server, upstream) + &tcp("g", more);
    let proxy = start(&config("", ""));
    let listen = proxy.tcp("t");
    let open = Conn::connect(&listen);
    open.echo(b"before");
    for (upstream, more) in [(to_peers, all), ("", ""), ("mptcp = true", "")] {
        proxy.reload_with(&config(upstream, more));
        assert_eq!(proxy.tcp("t"), listen);
        Conn::connect(&listen).echo(b"hello");
        open.echo(b"through all of it");
    }
}

/// Connects again and again until it is told to stop; each connection must be answered.
fn hammer(addr: &Addr, done: &AtomicBool) -> usize {
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let conn = Conn::connect(addr);
        conn.echo(b"x");
        count += 1;
    }
    count
}

#[test]
fn an_address_is_widened_and_narrowed_by_one_reload_with_clients_coming_all_the_time() {
    let backend = Backend::echo();
    let port = wmproxy_testkit::tcp::free_port();
    let config = |host: &str| stream("t", &format!("{host}:{port}"), backend.addr(), "");
    let proxy = start(&config("127.0.0.1"));
    let addr = proxy.tcp("t");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(|| hammer(&addr, &done))).collect();
        for host in ["0.0.0.0", "127.0.0.1", "", "127.0.0.1"] {
            proxy.reload_with(&config(host));
            Conn::connect(&addr).echo(b"after");
        }
        done.store(true, Ordering::Relaxed);
        assert!(clients.into_iter().all(|client| client.join().unwrap() > 0));
    });
    assert!(Conn::try_connect(&Addr::Inet(([127, 0, 0, 2], port).into())).is_err());
}

#[test]
fn a_unix_socket_stays_the_same_whatever_is_said_of_multipath_tcp() {
    let (backend, dir) = (Backend::echo(), TempDir::new());
    let path = dir.join("listen.sock");
    let config = |more: &str| stream("t", &format!("unix:{}", path.display()), backend.addr(), more);
    let proxy = start(&config(""));
    let inode = || std::fs::metadata(&path).unwrap().ino();
    let before = inode();
    proxy.expect_warn("this has no effect");
    for more in ["mptcp = true", ""] {
        proxy.reload_with(&config(more));
        assert_eq!(inode(), before);
        Conn::connect(&proxy.tcp("t")).echo(b"hello");
    }
}

#[test]
fn multipath_tcp_is_turned_on_and_off_by_a_reload() {
    let backend = Backend::echo();
    let port = wmproxy_testkit::tcp::free_port();
    let config = |more: &str| stream("t", &format!("127.0.0.1:{port}"), backend.addr(), more);
    let setup = crate::setup(&config("mptcp = true")).expect_warn("`mptcp` has no effect");
    let proxy = setup.start();
    for more in ["mptcp = true", "", "mptcp = true\ndscp = 8"] {
        proxy.reload_with(&config(more));
        Conn::connect(&proxy.tcp("t")).echo(&[7; 300_000]);
    }
}
