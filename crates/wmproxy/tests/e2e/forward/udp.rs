//! Datagrams by SOCKS 5, from clients over the binary to where they say.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::wait::eventually;
use wmproxy_testkit::{Addr, Conn, Proxy, TempDir, UdpBackend};

use super::{forward, listener};
use crate::{ACCESS_LOG, setup, start};

/// A client with an association.
pub(crate) struct Client {
    pub(crate) control: Conn,
    pub(crate) socket: UdpSocket,
    pub(crate) relay: SocketAddr,
}

impl Client {
    pub(crate) fn new(proxy: &Proxy) -> Client {
        Client::at(&proxy.tcp("f")).unwrap()
    }

    /// An association at a proxy, or the code of the refusal.
    pub(crate) fn at(proxy: &Addr) -> Result<Client, u8> {
        let control = Conn::connect(proxy);
        control.send(&[5, 1, 0]);
        assert_eq!(control.recv(2), [5, 0]);
        Client::ask(control)
    }

    fn ask(control: Conn) -> Result<Client, u8> {
        control.send(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]);
        let reply = control.recv(10);
        if reply[1] != 0 {
            return Err(reply[1]);
        }
        assert_eq!(reply[3], 1);
        let ip: [u8; 4] = reply[4..8].try_into().unwrap();
        let relay = SocketAddr::from((ip, u16::from_be_bytes([reply[8], reply[9]])));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Ok(Client { control, socket, relay })
    }

    pub(crate) fn send(&self, header: &[u8], data: &[u8]) {
        self.socket.send_to(&[header, data].concat(), self.relay).unwrap();
    }

    /// The data of the next datagram, which has to come from `from`.
    pub(crate) fn recv(&self, from: SocketAddr) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let (n, relay) = self.socket.recv_from(&mut buffer).unwrap();
        assert_eq!(relay, self.relay);
        assert_eq!(buffer[..10], header(from));
        buffer[10..n].to_vec()
    }

    pub(crate) fn echo(&self, server: SocketAddr, data: &[u8]) {
        self.send(&header(server), data);
        assert!(self.recv(server) == data);
    }
}

fn header(to: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(to) = to else { panic!("IPv4 is wanted") };
    [&[0, 0, 0, 1][..], &to.ip().octets(), &to.port().to_be_bytes()].concat()
}

fn header_of_name(name: &str, port: u16) -> Vec<u8> {
    [&[0, 0, 0, 3, name.len() as u8], name.as_bytes(), &port.to_be_bytes()].concat()
}

fn dropped(proxy: &Proxy, why: &str) -> f64 {
    proxy.metrics().sum("wmproxy_udp_dropped_total", &[("listener", "f"), ("reason", why)])
}

fn assert_line(line: &Value, datagrams: u64, bytes: u64, outcome: &str) {
    assert_eq!((&line["kind"], &line["way"]), (&"udp".into(), &"direct".into()), "{line}");
    for (key, wanted) in
        [("datagrams_in", datagrams), ("datagrams_out", datagrams), ("bytes_in", bytes), ("bytes_out", bytes)]
    {
        assert_eq!(line[key], wanted, "{key} {line}");
    }
    assert_eq!(line["outcome"], outcome, "{line}");
}

#[test]
fn datagrams_of_every_size_go_there_and_back() {
    let server = UdpBackend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", forward("")));
    let client = Client::new(&proxy);
    let sizes = [1, 1200, 8900, 65_000];
    for size in sizes {
        client.echo(server.addr(), &vec![7; size]);
    }
    client.send(&header_of_name("localhost", server.addr().port()), b"by name");
    assert_eq!(client.recv(server.addr()), b"by name");
    client.control.finish();
    client.control.expect_end();
    let [line] = &proxy.access_log(1)[..] else { panic!("one line") };
    assert_line(line, 5, 1 + 1200 + 8900 + 65_000 + 7, "done");
    assert_eq!(proxy.metrics().sum("wmproxy_datagrams_in_total", &[("listener", "f")]), 5.0);
    proxy.finish();
}

#[test]
fn private_addresses_are_denied_by_default() {
    let server = UdpBackend::echo();
    let proxy = start(&listener(""));
    let client = Client::new(&proxy);
    client.send(&header(server.addr()), b"x");
    client.send(&header_of_name("localhost", server.addr().port()), b"x");
    // The same address in other clothes: in IPv6, as a name, as a number.
    let port = server.addr().port().to_be_bytes();
    let mapped = [&[0, 0, 0, 4][..], &[0; 10], &[255, 255, 127, 0, 0, 1], &port].concat();
    client.send(&mapped, b"x");
    for name in ["127.0.0.1", "0x7f.1", "2130706433", "LOCALHOST."] {
        client.send(&header_of_name(name, server.addr().port()), b"x");
    }
    // Multicast and broadcast.
    for ip in [[224, 0, 0, 251], [255, 255, 255, 255], [0, 0, 0, 0]] {
        client.send(&header(SocketAddr::from((ip, 5353))), b"x");
    }
    eventually("10 datagrams are dropped", || {
        ["denied", "malformed", "unresolved"].iter().map(|why| dropped(&proxy, why)).sum::<f64>() >= 10.0
    });
    assert_eq!((dropped(&proxy, "denied"), server.received()), (10.0, 0));
    drop(client);
    proxy.finish();
}

#[test]
fn one_port_serves_the_clients_of_all_workers() {
    let server = UdpBackend::echo();
    let port = free_port();
    let config = format!("workers = 4\n{ACCESS_LOG}{}", forward(format!("udp = {{ ports = {port} }}")));
    let proxy = start(&config);
    for round in 0..3u8 {
        // So many that each worker has some of their control connections.
        let clients: Vec<Client> = (0..16).map(|_| Client::new(&proxy)).collect();
        for (client, at) in clients.iter().zip(0u8..) {
            assert_eq!(client.relay.port(), port);
            client.echo(server.addr(), &[round, at]);
        }
        for (client, at) in clients.iter().zip(0u8..16).rev() {
            client.echo(server.addr(), &[round, at, 7]);
        }
        drop(clients);
        // With the last of them the port is free.
        eventually("the port is given back", || UdpSocket::bind(("127.0.0.1", port)).is_ok());
    }
    for line in proxy.access_log(48) {
        assert_line(&line, 2, 5, "done");
    }
    proxy.finish();
}

#[test]
fn associations_live_through_reloads_and_a_stop_waits_for_their_first_silence() {
    let server = UdpBackend::echo();
    let port = free_port();
    for udp in
        ["{ idle_timeout = \"30s\" }".to_owned(), format!("{{ idle_timeout = \"30s\", ports = {port} }}")]
    {
        let config = format!("{ACCESS_LOG}{}", forward(format!("udp = {udp}")));
        let mut proxy = start(&config);
        let client = Client::new(&proxy);
        client.echo(server.addr(), b"before");
        proxy.reload_with(&config.replace("30s", "29s"));
        client.echo(server.addr(), b"after");
        let second = Client::new(&proxy);
        second.echo(server.addr(), b"after");
        drop(second);
        proxy.signal(Signal::TERM);
        client.control.expect_end();
        assert_eq!(proxy.wait(), Some(0));
    }
}

#[test]
fn a_chain_of_socks_carries_datagrams_with_their_names() {
    let server = UdpBackend::echo();
    let parent = start(&format!("{ACCESS_LOG}{}", forward("")));
    let chained = format!(
        "{ACCESS_LOG}[chain.p]\nhops = [\"socks5://{}\"]\n[[egress.default.route]]\nvia = \"p\"\n{}",
        parent.tcp("f"),
        forward("")
    );
    let proxy = start(&chained);
    let client = Client::new(&proxy);
    for size in [1, 1200, 65_000] {
        client.echo(server.addr(), &vec![7; size]);
    }
    client.send(&header_of_name("localhost", server.addr().port()), b"by name");
    assert_eq!(client.recv(server.addr()), b"by name");
    drop(client);
    let line = &proxy.access_log(1)[0];
    assert_eq!((&line["kind"], &line["way"], &line["datagrams_in"]), (&"udp".into(), &"p".into(), &4.into()));
    // The parent's association goes with it.
    assert_line(&parent.access_log(1)[0], 4, 1 + 1200 + 65_000 + 7, "done");
    proxy.finish();
    parent.finish();
}

#[test]
fn a_chain_that_carries_no_datagrams_is_refused_or_drops_them() {
    let server = UdpBackend::echo();
    let chained = |more: &str| {
        format!(
            "[chain.p]\nhops = [\"http://127.0.0.1:1\"]\n[[egress.default.route]]\nvia = \"p\"\n{more}{}",
            forward("")
        )
    };
    // Nothing could go anywhere.
    let proxy = start(&chained(""));
    assert_eq!(Client::at(&proxy.tcp("f")).err(), Some(7));
    proxy.log().wait("carries no datagrams");
    proxy.finish();
    // Or only to some of its destinations.
    let proxy = setup(&chained("domains = [\"*.test\"]\n")).expect_warn("carries no datagrams").start();
    let client = Client::new(&proxy);
    client.send(&header_of_name("a.test", 53), b"x");
    client.echo(server.addr(), b"hello");
    eventually("it is dropped", || dropped(&proxy, "no_flow") == 1.0);
    drop(client);
    proxy.finish();
}

#[test]
fn a_parent_that_ends_an_association_is_asked_for_another_one() {
    let server = UdpBackend::echo();
    let parent = start(&forward("udp = { idle_timeout = \"300ms\" }"));
    let chained = format!(
        "[chain.p]\nhops = [\"socks5://{}\"]\n[[egress.default.route]]\nvia = \"p\"\n{}",
        parent.tcp("f"),
        forward("")
    );
    let proxy = start(&chained);
    let client = Client::new(&proxy);
    client.echo(server.addr(), b"hello");
    eventually("the parent's association ends", || parent.active() == 0);
    client.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    eventually("there is another one", || {
        client.send(&header(server.addr()), b"again");
        client.socket.recv(&mut [0; 64]).is_ok()
    });
    drop(client);
    proxy.finish();
    parent.finish();
}

#[test]
fn a_user_has_so_many_associations_and_so_many_bytes() {
    let server = UdpBackend::echo();
    // The password is `open sesame`.
    let alice = "alice = { password = \"$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu\", \
                 max_associations = 1, quota = \"3k/day\" }";
    let config = format!("{ACCESS_LOG}{}", forward(format!("users = {{ {alice} }}")));
    // What was used outlives the proxy.
    let state = TempDir::new();
    let proxy = setup(&config).env("STATE_DIRECTORY", &state.path().to_string_lossy()).start();
    let come = || {
        let control = Conn::connect(&proxy.tcp("f"));
        control.send(b"\x05\x01\x02\x01\x05alice\x0bopen sesame");
        assert_eq!(control.recv(4), [5, 2, 1, 0]);
        Client::ask(control)
    };
    let client = come().unwrap();
    assert_eq!(come().err(), Some(2));
    client.echo(server.addr(), &[1; 1000]);
    // With this it is used up.
    client.send(&header(server.addr()), &[1; 1100]);
    client.control.expect_end();
    let lines = proxy.access_log(2);
    let ended = lines.iter().find(|line| line["kind"] == "udp").unwrap();
    assert_eq!((&ended["user"], &ended["outcome"]), (&"alice".into(), &"quota".into()), "{ended}");
    proxy.finish();
}
