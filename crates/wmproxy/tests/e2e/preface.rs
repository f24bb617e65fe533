//! What comes before a connection's data: PROXY headers in and out. `sni` has what goes by the ClientHello.

use std::io::Read;

use serde_json::Value;
use wmproxy_testkit::{Addr, Backend, Conn, Proxy};
use wmproxy_wire::proxy_protocol::{
    self, Command, Endpoints, TlvList, Transport, encode_v1, encode_v2, kind,
};

use crate::{ACCESS_LOG, group, start, stream, tcp};

pub(crate) const TRUST: &str = "accept_proxy_protocol = [\"127.0.0.0/8\", \"unix\"]";

pub(crate) fn from_to(source: &str, destination: &str) -> Endpoints<'static> {
    Endpoints::inet(Transport::Stream, source.parse().unwrap(), destination.parse().unwrap())
}

pub(crate) fn v1(source: &str) -> Vec<u8> {
    let mut header = Vec::new();
    encode_v1(&mut header, &from_to(source, "198.51.100.9:443"));
    header
}

fn v2(command: Command, source: &str, tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let mut list = TlvList::new();
    for (kind, value) in tlvs {
        list.push(*kind, value);
    }
    let mut header = Vec::new();
    encode_v2(&mut header, command, &from_to(source, "198.51.100.9:443"), &list, true);
    header
}

/// The record of connection number `count`, the last so far.
pub(crate) fn last(proxy: &Proxy, count: usize) -> Value {
    proxy.access_log(count).pop().unwrap()
}

#[test]
fn the_client_of_a_header_is_the_client() {
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), TRUST)));
    let addr = proxy.tcp("t");
    let tlvs: &[(u8, &[u8])] = &[(kind::AUTHORITY, b"a.example"), (kind::UNIQUE_ID, b"17")];
    let headers = [v1("192.0.2.7:4242"), v2(Command::Proxy, "192.0.2.7:4242", tlvs)];
    for (index, header) in headers.iter().enumerate() {
        let conn = Conn::connect(&addr);
        let via = conn.local().to_string();
        // In pieces, the last of them with data.
        for byte in &header[..header.len() - 1] {
            conn.send(&[*byte]);
        }
        conn.send(&[&header[header.len() - 1..], b"hello"].concat());
        assert_eq!(conn.recv(5), b"hello");
        conn.echo(b"and more");
        drop(conn);
        let record = last(&proxy, index + 1);
        assert_eq!(record["client_addr"], "192.0.2.7:4242");
        assert_eq!(
            (record["via"].as_str(), record["destination"].as_str()),
            (Some(&*via), Some("198.51.100.9:443"))
        );
        assert_eq!(record["bytes_in"], 13, "the header is no data");
        let tlvs = if index == 0 { Value::Null } else { "authority=a.example,unique_id=17".into() };
        assert_eq!(record["proxy_tlvs"], tlvs);
    }
}

#[test]
fn a_proxy_s_own_connection_has_its_own_address() {
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), TRUST)));
    let headers = [v2(Command::Local, "192.0.2.7:1", &[]), b"PROXY UNKNOWN\r\n".to_vec()];
    for (index, header) in headers.iter().enumerate() {
        let conn = Conn::connect(&proxy.tcp("t"));
        conn.send(header);
        conn.echo(b"hello");
        let own = conn.local().to_string();
        drop(conn);
        let record = last(&proxy, index + 1);
        assert_eq!(record["client_addr"], own.as_str());
        assert!(record["via"].is_null());
    }
}

#[test]
fn from_anybody_else_a_header_is_data() {
    let backend = Backend::echo();
    let more = "accept_proxy_protocol = [\"10.0.0.0/8\", \"unix\"]";
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), more)));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.echo(&v1("192.0.2.7:4242"));
    conn.echo(&v2(Command::Proxy, "192.0.2.7:4242", &[]));
    drop(conn);
    assert_eq!(last(&proxy, 1)["client_ip"], "127.0.0.1");
}

#[test]
fn a_unix_socket_can_be_trusted() {
    let backend = Backend::echo();
    let dir = wmproxy_testkit::TempDir::new();
    let path = dir.join("in.sock");
    let listen = format!("unix:{}", path.display());
    let proxy = start(&format!("{ACCESS_LOG}{}", stream("t", &listen, backend.addr(), TRUST)));
    let conn = Conn::connect(&Addr::Unix(path));
    conn.send(&v2(Command::Proxy, "192.0.2.7:4242", &[]));
    conn.echo(b"hello");
    drop(conn);
    assert_eq!(last(&proxy, 1)["client_addr"], "192.0.2.7:4242");
}

#[test]
fn a_trusted_proxy_has_to_send_a_whole_header() {
    let backend = Backend::echo();
    let more = format!("{TRUST}\npreface_timeout = \"1s\"");
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), &more)));
    let oversized = [&v2(Command::Proxy, "192.0.2.7:1", &[])[..14], &[0xff, 0xff]].concat();
    for (index, (bytes, ends, outcome)) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], false, "bad_proxy_header"),
        (b"PROXY TCP4 no address\r\n", false, "bad_proxy_header"),
        (&[b'x'; 5000], false, "bad_proxy_header"),
        (&[&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat(), false, "bad_proxy_header"),
        (&oversized, false, "bad_proxy_header"),
        (b"PROXY TCP4 192.0.2.7", true, "bad_proxy_header"),
        (b"PROXY TCP4 192.0.2.7", false, "preface_timeout"),
        (b"", false, "preface_timeout"),
        (b"", true, "client_left"),
    ]
    .into_iter()
    .enumerate()
    {
        let conn = Conn::connect(&proxy.tcp("t"));
        conn.send(bytes);
        if ends {
            conn.finish();
        }
        conn.expect_closed();
        let record = last(&proxy, index + 1);
        let what = bytes.escape_ascii().to_string();
        assert_eq!(
            (record["outcome"].as_str(), record["fault"].as_str()),
            (Some(outcome), Some("client")),
            "{what}"
        );
        // Each has its counter.
        let labels = [("listener", "t"), ("outcome", outcome)];
        assert!(proxy.metrics().sum("wmproxy_connections_closed_total", &labels) >= 1.0, "{outcome}");
    }
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn allow_deny_and_limits_go_by_the_client_of_the_header() {
    let backend = Backend::echo();
    let more = format!("{TRUST}\ndeny = [\"192.0.2.66\", \"127.0.0.1\"]\nper_client_connections = 2");
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), &more)));
    let come = |source: &str| {
        let conn = Conn::connect(&proxy.tcp("t"));
        conn.send(&v1(source));
        conn
    };
    come("192.0.2.66:1").expect_closed();
    assert_eq!(last(&proxy, 1)["outcome"], "denied");
    // The proxy itself is denied, but its clients are not.
    let inside: Vec<Conn> = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"].map(come).into();
    for conn in &inside {
        conn.echo(b"in");
    }
    come("192.0.2.1:3").expect_closed();
    assert_eq!(last(&proxy, 2)["outcome"], "client_limit");
    let own = Conn::connect(&proxy.tcp("t"));
    own.send(b"PROXY UNKNOWN\r\n");
    own.expect_closed();
    assert_eq!(last(&proxy, 3)["outcome"], "denied");
}

/// A backend that answers with the PROXY header that it got, in a line, and then echoes.
pub(crate) fn header_backend() -> Backend {
    Backend::start(|conn| {
        let mut got = Vec::new();
        let mut byte = [0];
        let used = loop {
            match proxy_protocol::parse(&got, 4096) {
                Ok(proxy_protocol::Parsed::Header(header, used)) => {
                    let line = format!("{:?} {:?} {}\n", header.version, header.endpoints, header.tlvs);
                    conn.try_send(line.as_bytes())?;
                    break used;
                }
                Ok(proxy_protocol::Parsed::NeedMore(_)) => {
                    if (&*conn).read(&mut byte)? == 0 {
                        return Ok(0);
                    }
                    got.push(byte[0]);
                }
                other => panic!("{other:?}: {:?}", got.escape_ascii().to_string()),
            }
        };
        let mut buffer = [0; 4096];
        loop {
            match (&*conn).read(&mut buffer)? {
                0 => return Ok(used as u64),
                n => conn.try_send(&buffer[..n])?,
            }
        }
    })
}

#[test]
fn a_server_is_told_who_the_client_is() {
    let backend = header_backend();
    for version in ["v1", "v2"] {
        let more = format!("send_proxy_protocol = \"{version}\"");
        let servers = [backend.addr().to_string()];
        let proxy = start(&format!("{ACCESS_LOG}{}{}", group("g", &servers, &more), tcp("g", "")));
        let addr = proxy.tcp("t");
        let conn = Conn::connect(&addr);
        conn.send(b"first");
        let expected = format!(
            "{} {:?} ",
            version.to_uppercase(),
            from_to(&conn.local().to_string(), &addr.to_string())
        );
        assert_eq!(conn.line(), expected);
        assert_eq!(conn.recv(5), b"first");
        conn.echo(b"and more");
        drop(conn);
        let record = last(&proxy, 1);
        assert_eq!((&record["bytes_in"], &record["outcome"]), (&13.into(), &"done".into()));
        // Who says nothing is introduced nonetheless.
        let silent = Conn::connect(&addr);
        assert!(silent.line().starts_with(&version.to_uppercase()));
        silent.echo(b"later");
    }
}

#[test]
fn a_header_that_came_is_passed_on_with_what_it_said() {
    let backend = header_backend();
    let servers = [backend.addr().to_string()];
    let upstream = group("g", &servers, "send_proxy_protocol = \"v2\"");
    let proxy = start(&format!("{upstream}{}", tcp("g", TRUST)));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.send(&v2(Command::Proxy, "[2001:db8::7]:4242", &[(kind::UNIQUE_ID, b"17"), (0xe0, b"x")]));
    let endpoints = from_to("[2001:db8::7]:4242", "198.51.100.9:443");
    assert_eq!(conn.line(), format!("V2 {endpoints:?} unique_id=17,0xe0=0x78"));
    conn.echo(b"hello");
}
