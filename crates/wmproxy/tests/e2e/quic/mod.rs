//! QUIC through the proxy, between endpoints of quinn: routed by name, and known again from another address.

mod endpoints;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use wmproxy_testkit::{Nat, UdpBackend, UdpClient, eventually};

use self::endpoints::{QuicClient, QuicServer};
use crate::udp_proxy_protocol::header;
use crate::{ACCESS_LOG, group, start, stream, wait_dropped};

/// A listener named `u` that routes by name; `more` is further lines of the table.
fn routed(routes: &[(&str, SocketAddr)], more: &str) -> String {
    let routes: Vec<String> = routes.iter().map(|(name, to)| format!("\"{name}\" = \"{to}\"")).collect();
    format!(
        "[[stream]]\nname = \"u\"\nlisten = \"udp://127.0.0.1:0\"\nidle_timeout = \"2s\"\nsni = {{ {} }}\n{more}\n",
        routes.join(", ")
    )
}

/// Three servers for one name, and the upstream `g` of them.
fn three_servers(more: &str) -> (Vec<QuicServer>, String) {
    let servers: Vec<QuicServer> = (0..3).map(|_| QuicServer::start("one.example")).collect();
    let addresses: Vec<String> = servers.iter().map(|server| server.addr().to_string()).collect();
    (servers, group("g", &addresses, more))
}

#[test]
fn each_name_has_its_server() {
    let (a, b) = (QuicServer::start("a.example"), QuicServer::start("x.b.example"));
    let config = routed(&[("a.example", a.addr()), ("*.b.example", b.addr())], "");
    let proxy = start(&format!("{ACCESS_LOG}{config}"));
    let client = QuicClient::trusting([&a, &b]);
    assert_eq!(client.connect(proxy.udp("u"), "a.example").name(), "a.example");
    assert_eq!(client.connect(proxy.udp("u"), "x.b.example").name(), "x.b.example");
    let refused = client.try_connect(proxy.udp("u"), "c.example", Duration::from_millis(300));
    assert!(refused.is_err(), "no route leads anywhere for that name");
    assert_eq!((a.connections(), b.connections()), (1, 1));
    drop(client);
    let dropped = || proxy.metrics().sum("wmproxy_udp_dropped_total", &[("reason", "no_route")]);
    eventually("it to be dropped", || dropped() >= 1.0);
    let log = proxy.access_log(1);
    assert_eq!((log[0]["sni"].as_str(), log[0]["alpn"].as_str()), (Some("a.example"), Some("test")));
}

#[test]
fn a_hello_that_takes_several_datagrams_is_waited_for() {
    let (server, other) = (QuicServer::start("big.example"), UdpBackend::silent());
    let routes = [("big.example", server.addr()), ("default", other.addr())];
    let proxy = start(&routed(&routes, ""));
    for protocols in [0, 8, 60] {
        let client = QuicClient::trusting([&server]).with_protocols(protocols);
        assert_eq!(client.connect(proxy.udp("u"), "big.example").name(), "big.example");
    }
    assert_eq!((server.connections(), other.received()), (3, 0));
}

#[test]
fn a_server_may_have_clients_prove_their_address() {
    let server = QuicServer::with_retry("retry.example");
    let proxy = start(&routed(&[("retry.example", server.addr())], ""));
    let client = QuicClient::trusting([&server]);
    assert_eq!(client.connect(proxy.udp("u"), "retry.example").name(), "retry.example");
}

#[test]
fn bulk_comes_back_as_it_went() {
    let server = QuicServer::start("bulk.example");
    let proxy = start(&routed(&[("bulk.example", server.addr())], ""));
    let client = QuicClient::trusting([&server]);
    let connection = client.connect(proxy.udp("u"), "bulk.example");
    let bytes: Vec<u8> = (0..8u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(connection.ask(bytes.clone()) == bytes, "other bytes came back");
}

#[test]
fn a_connection_keeps_its_server_when_a_nat_gives_it_another_address() {
    let (servers, upstream) = three_servers("");
    let stream = "[[stream]]\nname = \"u\"\nlisten = \"udp://127.0.0.1:0\"\nupstream = \"g\"\n\
                  idle_timeout = \"2s\"\nudp = { quic = true }\n";
    let proxy = start(&format!("workers = 2\n{upstream}{stream}"));
    let clients: Vec<QuicClient> = (0..3).map(|_| QuicClient::trusting(&servers)).collect();
    let nats: Vec<Nat> = clients.iter().map(|_| Nat::to(proxy.udp("u"))).collect();
    let connections: Vec<_> =
        clients.iter().zip(&nats).map(|(client, nat)| client.connect(nat.addr(), "one.example")).collect();
    // A client is done with the handshake before its server is.
    eventually("a connection at each server", || servers.iter().all(|server| server.connections() == 1));
    // Often enough for each to come to both workers.
    for turn in 0..8u8 {
        for (nat, connection) in nats.iter().zip(&connections) {
            // What stands behind one address mostly comes from another as well.
            nat.rebind_to(Ipv4Addr::new(127, 0, 0, 2 + turn % 3));
            assert_eq!(connection.name(), "one.example");
        }
    }
    drop(connections);
    drop(clients);
    eventually("the flows to end", || proxy.active() == 0);
}

#[test]
fn a_client_that_moves_on_purpose_is_known_by_its_address() {
    let (servers, upstream) = three_servers("");
    let stream = "[[stream]]\nname = \"u\"\nlisten = \"udp://127.0.0.1:0\"\nupstream = \"g\"\n\
                  idle_timeout = \"2s\"\nudp = { quic = true }\n";
    let proxy = start(&format!("workers = 2\n{upstream}{stream}"));
    let client = QuicClient::trusting(&servers);
    let connection = client.connect(proxy.udp("u"), "one.example");
    for _ in 0..6 {
        client.rebind();
        assert_eq!(connection.name(), "one.example");
    }
    assert_eq!(servers.iter().map(QuicServer::connections).sum::<usize>(), 1);
}

#[test]
fn a_reload_leaves_connections_where_they_are() {
    let servers: Vec<QuicServer> = (0..3).map(|_| QuicServer::start("a.example")).collect();
    let to = |server: &QuicServer| routed(&[("a.example", server.addr())], "");
    let proxy = start(&format!("workers = 2\n{}", to(&servers[0])));
    let nat = Nat::to(proxy.udp("u"));
    let client = QuicClient::trusting(&servers);
    let connection = client.connect(nat.addr(), "a.example");
    proxy.reload_with(&format!("workers = 2\n{}", to(&servers[1])));
    assert_eq!(connection.name(), "a.example");
    nat.rebind();
    assert_eq!(connection.name(), "a.example");
    // The next goes where the new config says, though it comes from the same socket.
    let next = client.connect(nat.addr(), "a.example");
    assert_eq!((next.name(), connection.name()), ("a.example".to_owned(), "a.example".to_owned()));
    // Without names to route by it is the same.
    let plain = stream("u", "udp://127.0.0.1:0", servers[2].addr(), "idle_timeout = \"2s\"");
    proxy.reload_with(&format!("workers = 2\n{plain}"));
    assert_eq!((next.name(), connection.name()), ("a.example".to_owned(), "a.example".to_owned()));
    let counts: Vec<usize> = servers.iter().map(QuicServer::connections).collect();
    assert_eq!(counts, [1, 1, 0]);
}

#[test]
fn new_connections_are_spread_by_the_id_that_their_clients_chose() {
    let (servers, upstream) = three_servers("balance = \"hash\"\nhash_key = \"quic_cid\"");
    let stream =
        "[[stream]]\nname = \"u\"\nlisten = \"udp://127.0.0.1:0\"\nupstream = \"g\"\nidle_timeout = \"2s\"\n";
    let proxy = start(&format!("workers = 2\n{upstream}{stream}"));
    // All from one address: by that alone they would all go to one server.
    let clients: Vec<QuicClient> = (0..12).map(|_| QuicClient::trusting(&servers)).collect();
    for client in &clients {
        assert_eq!(client.connect(proxy.udp("u"), "one.example").name(), "one.example");
    }
    assert!(servers.iter().filter(|server| server.connections() > 0).count() > 1, "all went to one server");
    assert_eq!(servers.iter().map(QuicServer::connections).sum::<usize>(), 12);
}

#[test]
fn what_is_no_quic_goes_the_default_way_or_nowhere() {
    let (named, other) = (UdpBackend::named("named"), UdpBackend::named("default"));
    let with_default = routed(&[("a.example", named.addr()), ("default", other.addr())], "");
    let proxy = start(&with_default);
    let client = UdpClient::connect(proxy.udp("u"));
    assert_eq!(client.ask_text(b"no QUIC"), "default");
    assert_eq!(client.ask_text(b"nor this"), "default");
    drop(proxy);
    let proxy = start(&routed(&[("a.example", named.addr())], ""));
    let client = UdpClient::connect(proxy.udp("u"));
    client.send(b"no QUIC");
    wait_dropped(&proxy, "not_quic", 1);
    client.expect_nothing(Duration::from_millis(20));
    assert_eq!((proxy.active(), named.received()), (0, 0));
}

/// How long a client has for its first datagrams. It sends them again after a second.
const FLIGHT: Duration = Duration::from_millis(400);

/// The first datagrams of a client that asks for `name`, in a hello that is longer by so many protocols.
fn flight(name: &str, protocols: usize) -> Vec<Vec<u8>> {
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = QuicClient::trusting([]).with_protocols(protocols);
    assert!(client.try_connect(mute.local_addr().unwrap(), name, FLIGHT).is_err());
    mute.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2_000];
    std::iter::from_fn(|| mute.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
}

#[test]
fn a_damaged_beginning_does_not_lead_the_whole_one_astray() {
    let (named, other) = (UdpBackend::silent(), UdpBackend::silent());
    let proxy = start(&routed(&[("a.example", named.addr()), ("default", other.addr())], ""));
    let client = UdpClient::connect(proxy.udp("u"));
    let flight = flight("a.example", 0);
    let mut damaged = flight[0].clone();
    damaged[600] ^= 1;
    client.send(&damaged);
    flight.iter().for_each(|datagram| client.send(datagram));
    named.wait_received(flight.len());
    assert_eq!(other.received(), 0);
    wait_dropped(&proxy, "bad_client_hello", 1);
}

#[test]
fn clients_behind_one_proxy_do_not_mix_their_hellos() {
    let names = ["a.example", "b.example"];
    let servers = names.map(|_| UdpBackend::silent());
    // The list is for clients, and not for the proxy, whose later datagrams need not name them again.
    let more = "accept_proxy_protocol = [\"127.0.0.1\"]\ndeny = [\"127.0.0.1\"]";
    let routes = [(names[0], servers[0].addr()), (names[1], servers[1].addr())];
    let proxy = start(&format!("{ACCESS_LOG}{}", routed(&routes, more)));
    let front = UdpClient::connect_from((Ipv4Addr::LOCALHOST, 0).into(), proxy.udp("u"));
    let flights = names.map(|name| flight(name, 8));
    assert!(flights.iter().all(|flight| flight.len() > 1));
    for (client, flight) in ["203.0.113.7:1", "203.0.113.8:1"].into_iter().zip(&flights) {
        front.send(&[&header(client, "198.51.100.1:443"), &flight[0][..]].concat());
    }
    flights.iter().flat_map(|flight| &flight[1..]).for_each(|datagram| front.send(datagram));
    servers.iter().zip(&flights).for_each(|(server, flight)| server.wait_received(flight.len()));
    let log = proxy.access_log(2);
    let mut seen: Vec<_> =
        log.iter().map(|line| (line["sni"].as_str(), line["client_ip"].as_str())).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(Some(names[0]), Some("203.0.113.7")), (Some(names[1]), Some("203.0.113.8"))]);
}

#[test]
fn who_may_not_come_is_not_held_either() {
    let server = UdpBackend::silent();
    let more = "accept_proxy_protocol = [\"127.0.0.1\"]\ndeny = [\"203.0.113.7\"]";
    let proxy = start(&routed(&[("a.example", server.addr())], more));
    let front = UdpClient::connect_from((Ipv4Addr::LOCALHOST, 0).into(), proxy.udp("u"));
    let flight = flight("a.example", 8);
    front.send(&[&header("203.0.113.7:1", "198.51.100.1:443"), &flight[0][..]].concat());
    wait_dropped(&proxy, "denied", 1);
    // Nothing of it is held that the second could belong to.
    front.send(&flight[1]);
    wait_dropped(&proxy, "bad_proxy_header", 1);
    assert_eq!((server.received(), proxy.active()), (0, 0));
}

/// A 0-RTT packet: worth waiting for the Initial packet that it overtook.
fn early() -> Vec<u8> {
    let mut packet = vec![0xd0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0x44, 0x00];
    packet.resize(17 + 0x400, 9);
    packet
}

#[test]
fn a_hello_that_does_not_come_is_not_waited_for_longer_than_its_time() {
    let server = UdpBackend::silent();
    let routes = [("a.example", server.addr()), ("default", server.addr())];
    let proxy = start(&routed(&routes, "preface_timeout = \"200ms\""));
    let client = UdpClient::connect(proxy.udp("u"));
    client.send(&early());
    client.send(&early());
    wait_dropped(&proxy, "preface_timeout", 2);
    assert_eq!((server.received(), proxy.active()), (0, 0));
}

#[test]
fn a_storm_of_hellos_without_an_end_is_bounded() {
    let (server, other) = (QuicServer::start("a.example"), UdpBackend::silent());
    let routes = [("a.example", server.addr()), ("default", other.addr())];
    let proxy = start(&format!("workers = 1\n{}", routed(&routes, "")));
    let before = proxy.memory_kb();
    let clients: Vec<UdpClient> = (0..3_000).map(|_| UdpClient::connect(proxy.udp("u"))).collect();
    clients.iter().for_each(|client| client.send(&early()));
    let client = QuicClient::trusting([&server]);
    assert_eq!(client.connect(proxy.udp("u"), "a.example").name(), "a.example");
    let dropped = proxy.metrics().sum("wmproxy_udp_dropped_total", &[("reason", "preface_limit")]);
    assert!(dropped > 0.0, "the oldest have to go");
    let grown = proxy.memory_kb().saturating_sub(before);
    assert!(grown < 24_576, "{grown} KiB for clients that said nothing");
}
