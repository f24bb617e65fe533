//! SOCKS by curl and by hand: what its clients are told, and what the log says of them.

use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use wmproxy_testkit::backend::Unreachable;
use wmproxy_testkit::exec::{Finished, run};
use wmproxy_testkit::tcp::Closed;
use wmproxy_testkit::tls::{Authority, TlsClient};
use wmproxy_testkit::{Addr, Backend, Conn, Proxy};

use super::{forward, listener};
use crate::{ACCESS_LOG, start};

/// Alice, whose password is `open sesame`.
const USERS: &str =
    "users = { alice = { password = \"$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu\" } }";

/// Runs curl by way of a proxy that is written as `scheme://user@`.
fn curl(proxy: &Proxy, way: &str, url: &str) -> Finished {
    let mut command = Command::new("curl");
    let way = format!("{way}{}", proxy.tcp("f"));
    // The machine's own settings for proxies are not meant.
    command.args(["-sS", "--noproxy", "", "-m", "15", "-x", &way, url]).env_clear();
    command.env("PATH", std::env::var("PATH").unwrap_or_default());
    run(&mut command, Duration::from_secs(20))
}

fn connect_to(addr: SocketAddr) -> Vec<u8> {
    let port = addr.port().to_be_bytes();
    match addr {
        SocketAddr::V4(addr) => [&[5, 1, 0, 1][..], &addr.ip().octets(), &port].concat(),
        SocketAddr::V6(addr) => [&[5, 1, 0, 4][..], &addr.ip().octets(), &port].concat(),
    }
}

/// The reply to a request of SOCKS 5 for an address.
fn reply(proxy: &Proxy, to: SocketAddr) -> (Conn, Vec<u8>) {
    let conn = Conn::connect(&proxy.tcp("f"));
    conn.send(&[5, 1, 0]);
    assert_eq!(conn.recv(2), [5, 0]);
    conn.send(&connect_to(to));
    let reply = conn.recv(10);
    (conn, reply)
}

fn assert_visit(record: &Value, kind: &str, user: Option<&str>, destination: &str) {
    assert_eq!(record["kind"], kind, "{record}");
    assert_eq!(record["user"].as_str(), user, "{record}");
    assert_eq!(record["destination"], destination, "{record}");
    assert_eq!(record["way"], "direct", "{record}");
    assert_eq!(record["outcome"], "done", "{record}");
}

#[test]
fn curl_gets_there_by_every_kind_of_socks() {
    let backend = Backend::http("hello by socks");
    let proxy = start(&format!("{ACCESS_LOG}{}", forward("")));
    let (port, addr) = (backend.addr().port(), backend.addr().inet());
    let by_address = format!("http://{addr}/");
    let by_name = format!("http://localhost:{port}/");
    for (way, url) in [
        ("socks4://", &by_address),
        ("socks4a://", &by_name),
        ("socks5://", &by_address),
        ("socks5h://", &by_name),
    ] {
        assert_eq!(curl(&proxy, way, url).success().stdout, "hello by socks", "{way}");
    }
    let name = format!("localhost:{port}");
    let visits = [
        ("socks4", addr.to_string()),
        ("socks4", name.clone()),
        ("socks5", addr.to_string()),
        ("socks5", name),
    ];
    for (record, (kind, destination)) in proxy.access_log(4).iter().zip(visits) {
        assert_visit(record, kind, None, &destination);
        assert!(record["bytes_out"].as_u64().unwrap() > 14, "{record}");
    }
}

#[test]
fn users_of_socks_5_say_a_password() {
    let backend = Backend::http("hello alice");
    let proxy = start(&format!("{ACCESS_LOG}{}", forward(USERS)));
    let url = format!("http://{}/", backend.addr());
    assert_eq!(curl(&proxy, "socks5://alice:open%20sesame@", &url).success().stdout, "hello alice");
    let destination = backend.addr().to_string();
    assert_visit(&proxy.access_log(1)[0], "socks5", Some("alice"), &destination);
    // 97 is CURLE_PROXY: what the proxy says of it.
    for way in
        ["socks5://alice:wrong@", "socks5://bob:open%20sesame@", "socks5://", "socks4://alice@", "socks4a://"]
    {
        assert_eq!(curl(&proxy, way, &url).code, Some(97), "{way}");
    }
    for record in &proxy.access_log(6)[1..] {
        assert_eq!(record["outcome"], "unauthenticated", "{record}");
        assert_eq!(record["destination"], Value::Null, "{record}");
    }
    assert_eq!(backend.accepted(), 1);
    assert!(!proxy.log().text().contains("sesame"));
}

#[test]
fn replies_say_what_happened() {
    let proxy = start(&format!("{ACCESS_LOG}{}", forward("connect_timeout = \"300ms\"")));
    let (closed, deaf) = (Closed::new(), Unreachable::new());
    let cases = [
        (closed.addr().inet(), 5, "connect_failed"),
        (deaf.addr().inet(), 6, "connect_timeout"),
        (SocketAddr::from(([127, 0, 0, 1], 25)), 2, "denied"),
    ];
    for (count, (to, code, outcome)) in cases.into_iter().enumerate() {
        let (conn, reply) = reply(&proxy, to);
        assert_eq!(reply, [5, code, 0, 1, 0, 0, 0, 0, 0, 0], "{to}");
        conn.expect_end();
        drop(conn);
        assert_eq!(proxy.access_log(count + 1)[count]["outcome"], outcome);
    }
}

#[test]
fn by_default_nobody_is_led_to_this_machine() {
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", listener("")));
    let (conn, said) = reply(&proxy, backend.addr().inet());
    assert_eq!(said[1], 2, "not allowed");
    conn.expect_end();
    let conn = Conn::connect(&proxy.tcp("f"));
    conn.send(
        &[b"\x05\x01\x00\x05\x01\x00\x03\x09localhost", &backend.addr().port().to_be_bytes()[..]].concat(),
    );
    conn.recv(2);
    assert_eq!(conn.recv(10)[1], 2);
    let conn = Conn::connect(&proxy.tcp("f"));
    // The proxy itself, by a name that is an address.
    let port = proxy.tcp("f").port().to_be_bytes();
    conn.send(&[&[4, 1][..], &port, b"\0\0\0\x01\x002130706433\0"].concat());
    assert_eq!(conn.recv(2), [0, 0x5b]);
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn pieces_and_early_bytes_are_no_matter() {
    let backend = Backend::echo();
    let proxy = start(&forward(USERS));
    let request = connect_to(backend.addr().inet());
    let whole = [b"\x05\x01\x02\x01\x05alice\x0bopen sesame", &request[..]].concat();
    let conn = Conn::connect(&proxy.tcp("f"));
    whole.iter().for_each(|byte| conn.send(&[*byte]));
    assert_eq!(conn.recv(14)[..6], [5, 2, 1, 0, 5, 0]);
    conn.echo(b"one by one");
    let conn = Conn::connect(&proxy.tcp("f"));
    let early = vec![7; 100_000];
    conn.send(&[&whole[..], &early].concat());
    assert_eq!(conn.recv(14)[..6], [5, 2, 1, 0, 5, 0]);
    assert!(conn.recv(early.len()) == early);
    conn.finish();
    conn.expect_end();
}

#[test]
fn ipv6_is_as_good() {
    let backend = Backend::echo_at(&Addr::from((Ipv6Addr::LOCALHOST.into(), 0)));
    let config = forward("").replace("127.0.0.1:0", "[::1]:0");
    let proxy = start(&config);
    let conn = Conn::connect(&proxy.tcp("f"));
    conn.send(&[&[5, 1, 0][..], &connect_to(backend.addr().inet())].concat());
    assert_eq!(conn.recv(2 + 22)[..6], [5, 0, 5, 0, 0, 4]);
    conn.echo(b"hello");
}

#[test]
fn half_a_hello_does_not_last() {
    let proxy = start(&format!("{ACCESS_LOG}{}", forward("timeouts = { preface = \"200ms\" }")));
    let halves = [
        &b""[..],
        b"\x05",
        b"\x05\x01",
        b"\x05\x01\x00\x05\x01\x00\x03\x20a",
        b"\x04\x01\x00\x50\x7f\x00\x00\x01fre",
    ];
    let conns: Vec<_> = halves
        .iter()
        .map(|half| {
            let conn = Conn::connect(&proxy.tcp("f"));
            conn.send(half);
            conn
        })
        .collect();
    let mut outcomes: Vec<_> = proxy
        .access_log(conns.len())
        .iter()
        .map(|record| record["outcome"].as_str().unwrap().to_owned())
        .collect();
    outcomes.sort();
    assert_eq!(outcomes, ["client_slow", "client_slow", "client_slow", "client_slow", "preface_timeout"]);
    assert_eq!(proxy.active(), 0);
}

#[test]
fn tls_may_be_around_it_or_not() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let pair = authority.issue("server", &["proxy.test"]);
    let proxy = start(&forward(format!("tls = {}\ntls_optional = true", pair.toml())));
    let whole = [&[5, 1, 0][..], &connect_to(backend.addr().inet())].concat();
    let mut inside = TlsClient::new(&authority).connect(&proxy.tcp("f"), "proxy.test").unwrap();
    inside.send(&whole);
    assert_eq!(inside.try_recv(12).unwrap()[..4], [5, 0, 5, 0]);
    inside.echo(b"through TLS");
    let plain = Conn::connect(&proxy.tcp("f"));
    plain.send(&whole);
    assert_eq!(plain.recv(12)[..4], [5, 0, 5, 0]);
    plain.echo(b"without");
    // Where it is not optional, who comes without is not heard.
    let proxy = start(&forward(format!("tls = {}", pair.toml())));
    let plain = Conn::connect(&proxy.tcp("f"));
    plain.send(&whole);
    // An alert, if anything.
    assert_ne!(plain.recv_all().first(), Some(&5));
}

#[test]
fn a_proxy_header_names_the_client() {
    let backend = Backend::echo();
    let more = "accept_proxy_protocol = [\"127.0.0.1\"]\ndeny = [\"203.0.113.0/24\"]";
    let proxy = start(&format!("{ACCESS_LOG}{}", forward(more)));
    let whole = [&[5, 1, 0][..], &connect_to(backend.addr().inet())].concat();
    let conn = Conn::connect(&proxy.tcp("f"));
    conn.send(&[b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", &whole[..]].concat());
    assert_eq!(conn.recv(12)[..4], [5, 0, 5, 0]);
    conn.echo(b"hello");
    drop(conn);
    assert_eq!(proxy.access_log(1)[0]["client_addr"], "192.0.2.1:1");
    let conn = Conn::connect(&proxy.tcp("f"));
    conn.send(&[b"PROXY TCP4 203.0.113.1 192.0.2.2 1 2\r\n", &whole[..]].concat());
    conn.expect_reset();
    let conn = Conn::connect(&proxy.tcp("f"));
    conn.send(&whole);
    conn.expect_closed();
}

#[test]
fn somebody_who_is_expected_may_come() {
    let proxy = start(&format!("{ACCESS_LOG}{}", forward("bind_command = true")));
    let conn = Conn::connect(&proxy.tcp("f"));
    conn.send(b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50");
    conn.recv(2);
    let bound = conn.recv(10);
    assert_eq!(bound[..8], [5, 0, 0, 1, 127, 0, 0, 1]);
    let bound = Addr::local(u16::from_be_bytes([bound[8], bound[9]]));
    let stranger = Conn::connect_from([127, 0, 0, 2].into(), &bound);
    stranger.expect_reset();
    let peer = Conn::connect(&bound);
    assert_eq!(conn.recv(10)[8..], peer.local().port().to_be_bytes());
    conn.send(b"hello");
    assert_eq!(peer.recv(5), b"hello");
    peer.send(b"there");
    assert_eq!(conn.recv(5), b"there");
    peer.finish();
    conn.expect_end();
    conn.finish();
    drop((conn, peer));
    assert_visit(&proxy.access_log(1)[0], "socks5", None, "127.0.0.1:80");
}

#[test]
fn tunnels_outlive_a_reload() {
    let backend = Backend::echo();
    let config = forward("");
    let proxy = start(&config);
    let (conn, said) = reply(&proxy, backend.addr().inet());
    assert_eq!(said[1], 0);
    let half = Conn::connect(&proxy.tcp("f"));
    half.send(&[5, 1, 0]);
    assert_eq!(half.recv(2), [5, 0]);
    proxy.reload_with(&forward(USERS));
    conn.echo(b"still here");
    half.send(&connect_to(backend.addr().inet()));
    assert_eq!(half.recv(10)[1], 0, "it goes on as it began");
    half.echo(b"here, too");
    let new = Conn::connect(&proxy.tcp("f"));
    new.send(&[5, 1, 0]);
    assert_eq!(new.recv(2), [5, 0xff]);
}
