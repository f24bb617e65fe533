//! Listeners that come, go, change their names and come back: the right sockets stay, and whoever uses them notices
//! nothing.

use wmproxy_testkit::{Backend, Conn, UdpBackend, UdpClient, eventually};

use crate::{start, stream, tcp};

const LIVES: &str = "idle_timeout = \"2s\"";

#[test]
fn a_udp_listener_may_come_back_while_its_flows_live() {
    let (backend, anchor) = (UdpBackend::whoami(), Backend::echo());
    let port = wmproxy_testkit::tcp::free_port();
    let without = tcp(anchor.addr(), "");
    let with = format!("{without}{}", stream("u", &format!("udp://127.0.0.1:{port}"), backend.addr(), LIVES));
    let proxy = start(&with);
    let to = proxy.udp("u");
    // Enough of them that each worker has some.
    let clients: Vec<UdpClient> = (0..16).map(|_| UdpClient::connect(to)).collect();
    let sources: Vec<String> = clients.iter().map(|client| client.ask_text(b"who am I?")).collect();
    let assert_untouched = || {
        for (client, source) in clients.iter().zip(&sources) {
            assert_eq!(&client.ask_text(b"and now?"), source, "the flow is another one");
        }
    };
    for _ in 0..3 {
        proxy.reload_with(&without);
        assert_untouched();
        // Out of service: no new flows.
        let late = UdpClient::connect(to);
        late.send(b"anybody?");
        late.expect_nothing(std::time::Duration::from_millis(50));
        proxy.reload_with(&with);
        assert_eq!(proxy.udp("u"), to);
        assert_untouched();
        for _ in 0..8 {
            UdpClient::connect(to).ask(b"in service again");
        }
    }
    assert!(proxy.metrics().sum("wmproxy_udp_dropped_total", &[("reason", "draining")]) <= 3.0);
}

#[test]
fn listeners_on_port_0_of_one_address_keep_their_own_sockets() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let one = |name: &str, backend: &Backend| stream(name, "127.0.0.1:0", backend.addr(), "");
    let proxy = start(&(one("a", &a) + &one("b", &b)));
    let (addr_a, addr_b) = (proxy.tcp("a"), proxy.tcp("b"));
    assert_ne!(addr_a, addr_b);
    // In the other order, and with one before them that takes neither's place.
    let third = Backend::named("c");
    proxy.reload_with(&(one("c", &third) + &one("b", &b) + &one("a", &a)));
    assert_eq!((proxy.tcp("a"), proxy.tcp("b")), (addr_a.clone(), addr_b.clone()));
    for (addr, name) in [(&addr_a, "a"), (&addr_b, "b"), (&proxy.tcp("c"), "c")] {
        assert_eq!(Conn::connect(addr).line(), name);
    }
    proxy.reload_with(&one("b", &b));
    assert_eq!(proxy.tcp("b"), addr_b);
    eventually("a's address to be closed", || Conn::try_connect(&addr_a).is_err());
}

#[test]
fn a_listener_under_another_name_keeps_its_sockets_and_connections() {
    let (backend, udp_backend) = (Backend::echo(), UdpBackend::whoami());
    let config = |name: &str| {
        stream(&format!("{name}-tcp"), "127.0.0.1:0", backend.addr(), "max_connections = 2")
            + &stream(&format!("{name}-udp"), "udp://127.0.0.1:0", udp_backend.addr(), LIVES)
    };
    let proxy = start(&config("old"));
    let (tcp_addr, udp_addr) = (proxy.tcp("old-tcp"), proxy.udp("old-udp"));
    let (conn, client) = (Conn::connect(&tcp_addr), UdpClient::connect(udp_addr));
    conn.echo(b"hello");
    let source = client.ask_text(b"who am I?");
    proxy.reload_with(&config("new"));
    assert_eq!((proxy.tcp("new-tcp"), proxy.udp("new-udp")), (tcp_addr.clone(), udp_addr));
    conn.echo(b"still here");
    assert_eq!(client.ask_text(b"and now?"), source);
    // Who came under the old name counts on: there is room for one more, not for two.
    let second = Conn::connect(&tcp_addr);
    second.echo(b"in");
    let third = Conn::connect(&tcp_addr);
    third.send(b"may I?");
    drop(conn);
    assert_eq!(third.recv(6), b"may I?");
}
