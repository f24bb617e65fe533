//! Where the proxy can listen and connect: every kind of address, on both sides.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use wmproxy_testkit::{Addr, Backend, Conn, TempDir, UdpBackend, UdpClient};

use crate::{start, stream};

fn loopback6() -> Addr {
    "[::1]:0".parse().unwrap()
}

#[test]
fn ipv4_ipv6_and_unix_meet_on_both_sides() {
    let dir = TempDir::new();
    let backends = [
        Backend::whoami(),
        Backend::start_at(&loopback6(), |conn| {
            conn.try_send(b"six\n")?;
            wmproxy_testkit::backend::drain(conn)
        }),
        Backend::start_at(&Addr::Unix(dir.join("peer.sock")), |conn| {
            conn.try_send(b"unix\n")?;
            wmproxy_testkit::backend::drain(conn)
        }),
    ];
    let mut config = String::new();
    for (i, backend) in backends.iter().enumerate() {
        config += &stream(&format!("v4-{i}"), "127.0.0.1:0", backend.addr(), "");
        config += &stream(&format!("v6-{i}"), "[::1]:0", backend.addr(), "");
        config += &stream(&format!("unix-{i}"), &format!("unix:{{dir}}/listen-{i}.sock"), backend.addr(), "");
    }
    let proxy = start(&config);
    for i in 0..backends.len() {
        for kind in ["v4", "v6", "unix"] {
            let conn = Conn::connect(&proxy.tcp(&format!("{kind}-{i}")));
            let line = conn.line();
            match i {
                0 => assert!(line.starts_with("127.0.0.1:"), "{line}"),
                1 => assert_eq!(line, "six"),
                _ => assert_eq!(line, "unix"),
            }
        }
    }
}

#[test]
fn a_unix_listener_leaves_no_file_behind_and_replaces_a_dead_one() {
    let backend = Backend::echo();
    let config = stream("t", "unix:{dir}/t.sock", backend.addr(), "");
    let setup = crate::setup(&config);
    let path = setup.dir().join("t.sock");
    // What a killed process leaves: a socket file that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let mut proxy = setup.start();
    Conn::connect(&Addr::Unix(path.clone())).echo(b"hello");
    proxy.assert_clean();
    proxy.command(&["stop"]).success();
    assert_eq!(proxy.wait(), Some(0));
    assert!(!path.exists(), "the socket file is still there");
}

#[test]
fn an_address_without_a_host_means_every_address() {
    let backend = Backend::echo();
    let proxy = start(&stream("t", ":0", backend.addr(), ""));
    let addrs = proxy.addrs("t", "tcp");
    for host in ["127.0.0.1", "127.0.0.2", "::1"] {
        let host: IpAddr = host.parse().unwrap();
        let port = addrs[0].port();
        Conn::connect(&Addr::from((host, port))).echo(b"hello");
    }
}

/// The first of `count` ports in a row that were free a moment ago.
fn free_ports(count: u16) -> u16 {
    (0..100)
        .map(|_| wmproxy_testkit::tcp::free_port())
        .find(|first| {
            let taken: Vec<_> = (*first..first.saturating_add(count))
                .map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
                .collect();
            taken.len() == usize::from(count) && taken.iter().all(Result::is_ok)
        })
        .expect("free ports in a row")
}

#[test]
fn a_range_of_ports_is_a_listener_for_each() {
    let backend = Backend::whoami();
    let first = free_ports(5);
    let last = first + 4;
    let proxy = start(&stream("t", &format!("127.0.0.1:{first}-{last}"), backend.addr(), ""));
    let mut ports: Vec<u16> = proxy.addrs("t", "tcp").iter().map(Addr::port).collect();
    ports.sort_unstable();
    assert_eq!(ports, (first..=last).collect::<Vec<_>>());
    for port in ports {
        Conn::connect(&Addr::from((Ipv4Addr::LOCALHOST.into(), port))).line();
    }
}

#[test]
fn a_range_goes_to_the_same_range_of_the_target() {
    let target = free_ports(3);
    let backends: Vec<Backend> = (0..3)
        .map(|i| {
            let addr = Addr::from((Ipv4Addr::LOCALHOST.into(), target + i));
            Backend::start_at(&addr, move |conn| {
                conn.try_send(format!("{i}\n").as_bytes())?;
                wmproxy_testkit::backend::drain(conn)
            })
        })
        .collect();
    let first = free_ports(3);
    let upstream = format!("127.0.0.1:{target}-{}", target + 2);
    let proxy = start(&stream("t", &format!("127.0.0.1:{first}-{}", first + 2), upstream, ""));
    for i in 0..3 {
        let conn = Conn::connect(&Addr::from((Ipv4Addr::LOCALHOST.into(), first + i)));
        assert_eq!(conn.line(), i.to_string());
    }
    drop(proxy);
    drop(backends);
}

#[test]
fn one_port_serves_different_addresses_and_both_protocols() {
    let (one, two, udp) = (Backend::named("one"), Backend::named("two"), UdpBackend::named("udp"));
    let port = wmproxy_testkit::tcp::free_port();
    let mut config = stream("one", &format!("127.0.0.1:{port}"), one.addr(), "");
    config += &stream("two", &format!("127.0.0.2:{port}"), two.addr(), "");
    config += &stream("udp", &format!("udp://127.0.0.1:{port}"), udp.addr(), "idle_timeout = \"1s\"");
    let proxy = start(&config);
    assert_eq!(Conn::connect(&proxy.tcp("one")).line(), "one");
    assert_eq!(Conn::connect(&proxy.tcp("two")).line(), "two");
    assert_eq!(UdpClient::connect(proxy.udp("udp")).ask_text(b"who?"), "udp");
}

#[test]
fn one_stream_may_list_tcp_and_udp_together() {
    let tcp = Backend::echo();
    // A peer that speaks both on one port, as a DNS server does.
    let udp = UdpBackend::echo_at(SocketAddr::from((Ipv4Addr::LOCALHOST, tcp.addr().port())));
    let config = format!(
        "[[stream]]\nname = \"dns\"\nlisten = [\"tcp://127.0.0.1:0\", \"udp://127.0.0.1:0\"]\nupstream = \"{}\"\n\
         idle_timeout = \"1s\"\n",
        tcp.addr()
    );
    let proxy = start(&config);
    Conn::connect(&proxy.tcp("dns")).echo(b"by stream");
    UdpClient::connect(proxy.udp("dns")).echo(b"by datagram");
    assert_eq!(udp.received(), 1);
}

#[test]
fn a_workers_listeners_share_the_load() {
    let backend = Backend::echo();
    let proxy =
        crate::setup(&stream("t", "127.0.0.1:0", backend.addr(), "")).arg("--workers").arg("3").start();
    let addr = proxy.tcp("t");
    let conns: Vec<Conn> = (0..60).map(|_| Conn::connect(&addr)).collect();
    for conn in &conns {
        conn.echo(b"hello");
    }
    assert_eq!(proxy.listener_number("t", "accepted"), 60);
}
