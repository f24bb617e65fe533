//! Bridges with TLS at the WebSocket's side.

use wmproxy_testkit::{Authority, Backend, Conn, Pattern, Rng, TlsClient};

use super::*;
use crate::{ACCESS_LOG, group, start, stream};

const MIB: u64 = 1 << 20;

/// A client's request for a WebSocket.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A bridge that ends TLS, before `server`.
fn ends_tls(authority: &Authority, name: &str, server: &Addr) -> Proxy {
    let pair = authority.issue("a", &[name]);
    start(&format!("{ACCESS_LOG}{}", ws2tcp(server, &format!("tls = {}", pair.toml()))))
}

/// A bridge to `wss://NAME:PORT/` of `inner`, by an upstream with `tls`.
fn begins_tls(inner: &Proxy, name: &str, tls: &str) -> Proxy {
    let address = inner.tcp("t");
    let upstream = group("g", &[address.to_string()], &format!("tls = {{ {tls} }}"));
    let url = format!("bridge = \"tcp2ws\"\nbridge_url = \"wss://{name}:{}/\"", address.port());
    start(&format!("{ACCESS_LOG}{upstream}{}", stream("t", "127.0.0.1:0", "g", &url)))
}

#[test]
fn bulk_passes_two_bridges_with_tls_between_them() {
    const TOTAL: u64 = 24 * MIB;
    let (authority, backend) = (Authority::new(), Backend::echo());
    let inner = ends_tls(&authority, "a.test", backend.addr());
    let tls = format!("ca = \"{}\", server_name = \"a.test\"", authority.ca().display());
    let outer = begins_tls(&inner, "a.test", &tls);
    let conn = Conn::connect(&outer.tcp("t"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            conn.send_pattern(&Pattern::new(1), TOTAL, &mut Rng::new(5)).unwrap();
            conn.finish();
        });
        conn.recv_pattern(&Pattern::new(1), TOTAL, &mut Rng::new(6));
        conn.expect_end();
    });
    for record in [record(&outer), record(&inner)] {
        assert_end(&record, "done", "none");
        assert_eq!((record["bytes_in"].as_u64(), record["bytes_out"].as_u64()), (Some(TOTAL), Some(TOTAL)));
    }
}

#[test]
fn another_program_opens_a_websocket_over_tls() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let proxy = ends_tls(&authority, "a.test", backend.addr());
    let mut conn =
        TlsClient::with_alpn(&authority, &["http/1.1"]).connect(&proxy.tcp("t"), "a.test").unwrap();
    conn.send(&[REQUEST, b"\x82\x82\0\0\0\0ok\x88\x80\0\0\0\0"].concat());
    let all = conn.recv_all().unwrap();
    assert!(all.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&all));
    assert!(all.ends_with(b"\x82\x02ok\x88\x02\x03\xe8"), "{}", String::from_utf8_lossy(&all));
    drop(conn);
    assert_end(&record(&proxy), "done", "none");
}

#[test]
fn a_bridge_to_wss_ends_with_close_notify() {
    let (authority, server) = (Authority::new(), echo_server());
    let tls = format!("tls = {}", authority.issue("a", &["a.test"]).toml());
    // What ends the TLS here would blame its client for an end without it.
    let inner = start(&format!("{ACCESS_LOG}{}", stream("t", "127.0.0.1:0", server.addr(), &tls)));
    let outer = begins_tls(
        &inner,
        "a.test",
        &format!("ca = \"{}\", server_name = \"a.test\"", authority.ca().display()),
    );
    let conn = Conn::connect(&outer.tcp("t"));
    conn.echo(b"x");
    conn.finish();
    conn.expect_end();
    assert_end(&record(&outer), "done", "none");
    assert_end(&record(&inner), "done", "none");
}

#[test]
fn tls_that_is_cut_off_in_a_bridge_is_a_failure_of_tls() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let proxy = ends_tls(&authority, "a.test", backend.addr());
    let mut conn = TlsClient::new(&authority).connect(&proxy.tcp("t"), "a.test").unwrap();
    conn.send(REQUEST);
    conn.send(b"\x82\x82\0\0\0\0ok");
    while !conn.try_recv(1).unwrap().ends_with(b"k") {}
    conn.cut();
    assert_end(&record(&proxy), "client_tls", "client");
    assert_eq!(backend.next_end().error, Some(io::ErrorKind::ConnectionReset));
}

#[test]
fn tls_that_breaks_before_a_bridge_is_asked_for_is_a_failure_of_tls() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let proxy = ends_tls(&authority, "a.test", backend.addr());
    let mut conn = TlsClient::new(&authority).connect(&proxy.tcp("t"), "a.test").unwrap();
    conn.send(&REQUEST[..20]);
    // A record that nobody has encrypted.
    Write::write_all(&mut conn.socket(), &[&[23, 3, 3, 0, 32][..], &[7; 32]].concat()).unwrap();
    assert_end(&record(&proxy), "client_tls", "client");
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_server_that_does_not_prove_who_it_is_gets_nothing() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let inner = ends_tls(&authority, "a.test", backend.addr());
    inner.expect_warn("");
    let ca = format!("ca = \"{}\"", authority.ca().display());
    for tls in [format!("{ca}, server_name = \"b.test\""), "server_name = \"a.test\"".to_owned()] {
        let outer = begins_tls(&inner, "a.test", &tls);
        outer.expect_warn("");
        let conn = Conn::connect(&outer.tcp("t"));
        conn.send(b"nobody is to read this");
        conn.expect_closed();
        let record = record(&outer);
        assert_eq!(record["fault"], "upstream", "{record}");
        assert_eq!(record["bytes_in"], 0, "{record}");
    }
    assert_eq!(backend.accepted(), 0);
    // Unless that is asked for.
    let outer = begins_tls(&inner, "a.test", "insecure_skip_verify = true");
    outer.expect_warn("is believed");
    Conn::connect(&outer.tcp("t")).echo(b"whoever you are");
}

#[test]
fn wss_is_never_plain() {
    let backend = Backend::echo();
    let addr = backend.addr();
    let url = format!("bridge = \"tcp2ws\"\nbridge_url = \"wss://{addr}/\"");
    // By an address alone it is TLS with verification, which this server knows nothing of.
    for target in [format!("upstream = \"{addr}\"\n"), String::new()] {
        let config = format!("[[stream]]\nname = \"t\"\nlisten = \"127.0.0.1:0\"\n{target}{url}\n");
        let proxy = start(&format!("{ACCESS_LOG}{config}"));
        proxy.expect_warn("");
        Conn::connect(&proxy.tcp("t")).expect_closed();
        let record = record(&proxy);
        assert_eq!(record["fault"], "upstream", "{record}");
    }
    // By an upstream without it, it is refused.
    let proxy = start(&crate::tcp(addr, ""));
    let upstream = group("g", &[addr.to_string()], "");
    let said = proxy.reload_refused(&format!("{upstream}{}", stream("t", "127.0.0.1:0", "g", &url)));
    assert!(said.contains("`wss` is TLS, and upstream `g` has none"), "{said}");
}
