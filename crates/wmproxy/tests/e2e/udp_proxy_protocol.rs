//! PROXY headers of version 2 in datagrams, sent and accepted.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use wmproxy_testkit::exec::run_in;
use wmproxy_testkit::{TempDir, UdpBackend, UdpClient};

use crate::{ACCESS_LOG, BIN, group, start, udp, wait_dropped};

/// Believes everybody here.
const TRUST: &str = "accept_proxy_protocol = [\"127.0.0.0/8\"]";

/// A header for UDP over IPv4, written out by hand as the specification has it.
pub(super) fn header(source: &str, destination: &str) -> Vec<u8> {
    let (source, destination) = (addr(source), addr(destination));
    let ip = |addr: SocketAddr| match addr {
        SocketAddr::V4(v4) => v4.ip().octets(),
        SocketAddr::V6(_) => panic!("an IPv4 address"),
    };
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x0c".to_vec();
    bytes.extend(ip(source));
    bytes.extend(ip(destination));
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_flows_first_datagram_says_who_the_client_is() {
    let backend = UdpBackend::echo();
    let upstream = group("g", &[backend.addr().to_string()], "send_proxy_protocol = \"v2\"");
    let proxy = start(&format!("{ACCESS_LOG}{upstream}{}", udp("g", "")));
    let to = proxy.udp("u");
    let client = UdpClient::connect_from((Ipv4Addr::LOCALHOST, 0).into(), to);
    let expected = header(&client.local().to_string(), &to.to_string());
    assert_eq!(client.ask(b"first"), [&expected[..], b"first"].concat());
    assert_eq!(client.ask(b"second"), b"second");
    assert_eq!(client.ask(b""), b"");
    let other = UdpClient::connect_from((Ipv4Addr::new(127, 0, 0, 2), 0).into(), to);
    let expected = header(&other.local().to_string(), &to.to_string());
    assert_eq!(other.ask(b""), expected, "an empty datagram has a header, too");
    let log = proxy.access_log(2);
    let bytes: Vec<_> = log.iter().map(|line| line["bytes_in"].as_u64().unwrap()).collect();
    assert!(bytes.contains(&11) && bytes.contains(&0), "headers are none of the client's bytes: {bytes:?}");
}

#[test]
fn every_datagram_says_who_the_client_is_where_that_is_asked_for() {
    let backend = UdpBackend::echo();
    let upstream = group("g", &[backend.addr().to_string()], "send_proxy_protocol = \"v2\"");
    let proxy = start(&format!("{upstream}{}", udp("g", "udp = { proxy_protocol_every_datagram = true }")));
    let client = UdpClient::connect_from((Ipv4Addr::LOCALHOST, 0).into(), proxy.udp("u"));
    let expected = header(&client.local().to_string(), &proxy.udp("u").to_string());
    for text in [&b"first"[..], b"second", b"a third one"] {
        assert_eq!(client.ask(text), [&expected[..], text].concat());
    }
    // Many at once, of the same length and not.
    let lengths = [700, 700, 700, 3, 1_000, 1_000];
    lengths.iter().for_each(|length| client.send(&vec![7; *length]));
    for length in lengths {
        assert_eq!(client.recv(), [expected.clone(), vec![7; length]].concat());
    }
}

#[test]
fn the_client_that_a_trusted_proxy_names_counts() {
    let backend = UdpBackend::echo();
    let proxy = start(&format!(
        "{ACCESS_LOG}{}",
        udp(backend.addr(), &format!("{TRUST}\ndeny = [\"203.0.113.66\"]"))
    ));
    let front = UdpClient::connect_from((Ipv4Addr::LOCALHOST, 0).into(), proxy.udp("u"));
    let named = |client: &str, text: &[u8]| [&header(client, "198.51.100.1:443"), text].concat();
    assert_eq!(front.ask(&named("203.0.113.7:1234", b"hello")), b"hello");
    assert_eq!(front.ask(b"no header"), b"no header", "it is the flow's second datagram");
    assert_eq!(front.ask(&named("203.0.113.7:1234", b"again")), b"again", "it may come with each");
    // Another client behind the same socket is another flow; both get their answers.
    front.send(&named("203.0.113.8:99", b"other"));
    assert_eq!(front.recv(), b"other");
    front.send(&named("203.0.113.66:99", b"let me in"));
    wait_dropped(&proxy, "denied", 1);
    front.expect_nothing(Duration::from_millis(20));
    let log = proxy.access_log(2);
    let line = |client: &str| log.iter().find(|line| line["client_ip"] == client).unwrap();
    let first = line("203.0.113.7");
    assert_eq!((first["datagrams_in"].as_u64(), first["bytes_in"].as_u64()), (Some(3), Some(19)));
    assert_eq!(first["via"], front.local().to_string());
    assert_eq!(line("203.0.113.8")["destination"], "198.51.100.1:443");
}

#[test]
fn a_trusted_proxy_without_a_header_is_not_let_in() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), TRUST));
    let front = UdpClient::connect(proxy.udp("u"));
    let cut = &header("203.0.113.7:1", "198.51.100.1:2")[..20];
    for wrong in [&b"no header"[..], b"", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", cut] {
        front.send(wrong);
    }
    wait_dropped(&proxy, "bad_proxy_header", 4);
    front.expect_nothing(Duration::from_millis(20));
    assert_eq!((backend.received(), proxy.active()), (0, 0));
}

#[test]
fn from_anybody_else_a_header_is_data() {
    let backend = UdpBackend::echo();
    let proxy = start(&udp(backend.addr(), "accept_proxy_protocol = [\"127.0.0.9\"]"));
    let client = UdpClient::connect_from((Ipv4Addr::LOCALHOST, 0).into(), proxy.udp("u"));
    client.echo(&[header("203.0.113.7:1", "198.51.100.1:2"), b"data".to_vec()].concat());
}

#[test]
fn what_came_in_a_header_goes_on_in_one() {
    let backend = UdpBackend::echo();
    let upstream = group("g", &[backend.addr().to_string()], "send_proxy_protocol = \"v2\"");
    let proxy = start(&format!("{upstream}{}", udp("g", TRUST)));
    let front = UdpClient::connect(proxy.udp("u"));
    let both = [header("203.0.113.7:1234", "198.51.100.1:443"), b"hello".to_vec()].concat();
    assert_eq!(front.ask(&both), both);
}

#[test]
fn a_header_that_knows_no_datagrams_is_refused() {
    let upstream = group("g", &["127.0.0.1:9".to_owned()], "send_proxy_protocol = \"v1\"");
    let dir = TempDir::new();
    dir.write("c.toml", &format!("{upstream}{}", udp("g", "")));
    let finished = run_in(dir.path(), BIN, &["check", "-c", "c.toml"]);
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.stderr.contains("send_proxy_protocol = \"v2\""),
        "{}{}",
        finished.stdout,
        finished.stderr
    );
}
