//! What comes before a connection's data: PROXY headers in and out, and routes by the ClientHello.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use wmproxy_testkit::tls::{Authority, TlsBackend, TlsClient};
use wmproxy_testkit::{Addr, Backend, Conn, Proxy};
use wmproxy_wire::proxy_protocol::{
    self, Command, Endpoints, TlvList, Transport, encode_v1, encode_v2, kind,
};

use crate::{ACCESS_LOG, group, start, stream, tcp};

const TRUST: &str = "accept_proxy_protocol = [\"127.0.0.0/8\", \"unix\"]";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn from_to(source: &str, destination: &str) -> Endpoints<'static> {
    Endpoints::inet(Transport::Stream, source.parse().unwrap(), destination.parse().unwrap())
}

fn v1(source: &str) -> Vec<u8> {
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
fn last(proxy: &Proxy, count: usize) -> Value {
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
    let more = format!("{TRUST}\npreface_timeout = \"300ms\"");
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
fn header_backend() -> Backend {
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

/// A ClientHello as a client begins with.
fn hello(authority: &Authority, name: &str) -> Vec<u8> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = Addr::Inet(listener.local_addr().unwrap());
    let client = TlsClient::new(authority);
    let name = name.to_owned();
    let thread = std::thread::spawn(move || client.connect(&addr, &name).map(drop));
    let (mut conn, _) = listener.accept().unwrap();
    let mut hello = vec![0; 16 * 1024];
    let n = conn.read(&mut hello).unwrap();
    drop(conn);
    thread.join().unwrap().unwrap_err();
    hello.truncate(n);
    hello
}

/// Two TLS servers, each with the certificate of its own name, and the routes to them.
struct Names {
    authority: Authority,
    a: TlsBackend,
    b: TlsBackend,
}

impl Names {
    fn new() -> Names {
        let authority = Authority::new();
        let a = TlsBackend::echo(&authority.issue("a", &["a.example", "sub.a.example"]));
        let b = TlsBackend::echo(
            &authority.issue("b", &["b.example", "x.b.example", "y.x.b.example", "other.example"]),
        );
        Names { authority, a, b }
    }

    /// A listener that knows these names and no more.
    fn config(&self, default: &str, more: &str) -> String {
        let (a, b) = (self.a.addr(), self.b.addr());
        format!(
            "{ACCESS_LOG}[upstream.a]\nservers = [\"{a}\"]\n[upstream.b]\nservers = [\"{b}\"]\n[[stream]]\nname = \"t\"\n\
             listen = \"127.0.0.1:0\"\n{more}\nsni = {{ \"a.example\" = \"a\", \"*.b.example\" = \"b\"{default} }}\n"
        )
    }
}

#[test]
fn connections_go_by_the_name_they_ask_for() {
    let names = Names::new();
    let proxy = start(&names.config(", default = \"b\"", ""));
    let client = TlsClient::with_alpn(&names.authority, &["h2", "http/1.1"]);
    for (index, (name, to)) in [
        ("a.example", names.a.addr()),
        ("A.Example", names.a.addr()),
        ("x.b.example", names.b.addr()),
        ("y.x.b.example", names.b.addr()),
        ("other.example", names.b.addr()),
        ("b.example", names.b.addr()),
    ]
    .into_iter()
    .enumerate()
    {
        let mut conn = client.connect(&proxy.tcp("t"), name).unwrap();
        conn.echo(b"hello through TLS");
        conn.finish();
        drop(conn);
        let record = last(&proxy, index + 1);
        assert_eq!(record["peer"], to.to_string(), "{name}");
        assert_eq!(
            (record["sni"].as_str(), record["alpn"].as_str()),
            (Some(&*name.to_lowercase()), Some("h2,http/1.1"))
        );
    }
}

#[test]
fn a_name_without_a_route_is_refused() {
    let names = Names::new();
    let proxy = start(&names.config("", ""));
    let client = TlsClient::new(&names.authority);
    let error = client.connect(&proxy.tcp("t"), "other.example").unwrap_err();
    // The alert says why.
    assert!(format!("{error:?}").contains("UnrecognisedName"), "{error:?}");
    assert_eq!(last(&proxy, 1)["outcome"], "no_route");
    client.connect(&proxy.tcp("t"), "a.example").unwrap().echo(b"hello");
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    let names = Names::new();
    let proxy = start(&names.config("", "preface_timeout = \"60s\""));
    let backend = names.a.addr();
    // What the server gets is what the client sent: a handshake over a stream that is cut into single bytes.
    let socket = TcpStream::connect(proxy.tcp("t").inet()).unwrap();
    let front = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let front_addr = Addr::Inet(front.local_addr().unwrap());
    let slicer = std::thread::spawn(move || {
        let (client, _) = front.accept().unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), socket.try_clone().unwrap());
        let back = std::thread::spawn(move || std::io::copy(&mut &socket, &mut &client));
        to.set_nodelay(true).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            for byte in &buffer[..n] {
                to.write_all(&[*byte]).unwrap();
            }
        }
        to.shutdown(std::net::Shutdown::Write).unwrap();
        back.join().unwrap().unwrap();
    });
    let mut conn = TlsClient::new(&names.authority).connect(&front_addr, "a.example").unwrap();
    conn.echo(b"hello");
    conn.finish();
    conn.recv_all().unwrap();
    drop(conn);
    slicer.join().unwrap();
    assert_eq!(last(&proxy, 1)["peer"], backend.to_string());
}

#[test]
fn what_is_no_whole_hello_is_closed() {
    let names = Names::new();
    let hello = hello(&names.authority, "a.example");
    let proxy = start(&names.config(", default = \"a\"", "preface_timeout = \"300ms\""));
    let oversized = [&[22, 3, 1, 0x40, 0, 1, 0, 0x40, 0], &[0; 1000][..]].concat();
    let mut damaged = hello.clone();
    damaged[5 + 4 + 34] = 255;
    for (index, (bytes, ends, outcome)) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], false, "not_tls"),
        (b"SSH-2.0-OpenSSH_9\r\n", false, "not_tls"),
        (&oversized, false, "bad_client_hello"),
        (&damaged, false, "bad_client_hello"),
        (&hello[..100], true, "bad_client_hello"),
        (&hello[..100], false, "preface_timeout"),
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
        assert_eq!(last(&proxy, index + 1)["outcome"], outcome, "{index}");
    }
    assert_eq!((names.a.shaken(), names.b.shaken()), (0, 0));
}

#[test]
fn one_deadline_holds_for_all_that_comes_first() {
    let names = Names::new();
    let hello = hello(&names.authority, "a.example");
    let proxy = start(&names.config("", &format!("{TRUST}\npreface_timeout = \"800ms\"")));
    let conn = Conn::connect(&proxy.tcp("t"));
    let begun = std::time::Instant::now();
    std::thread::sleep(Duration::from_millis(400));
    conn.send(&v1("192.0.2.7:1"));
    conn.send(&hello[..50]);
    conn.expect_closed();
    assert!(begun.elapsed() < Duration::from_millis(1150), "{:?}", begun.elapsed());
    let record = last(&proxy, 1);
    assert_eq!(
        (record["outcome"].as_str(), record["client_ip"].as_str()),
        (Some("preface_timeout"), Some("192.0.2.7"))
    );
}

#[test]
fn a_protocol_decides_before_the_name() {
    let names = Names::new();
    let proxy = start(&names.config("", &format!("alpn = {{ \"acme-tls/1\" = \"{}\" }}", names.b.addr())));
    let connect = |protocols: &[&str], count| {
        let client = TlsClient::with_alpn(&names.authority, protocols);
        // Only whom it reaches counts; for the other name's certificate the client ends it.
        let _ = client.connect(&proxy.tcp("t"), "a.example");
        last(&proxy, count)["peer"].clone()
    };
    assert_eq!(connect(&["h2"], 1), names.a.addr().to_string());
    assert_eq!(connect(&["h2", "acme-tls/1"], 2), names.b.addr().to_string());
}

#[test]
fn a_header_goes_in_before_the_hello_and_out_with_its_name() {
    let authority = Authority::new();
    let backend = header_backend();
    let upstream = group("g", &[backend.addr().to_string()], "send_proxy_protocol = \"v2\"");
    let routes = format!("{TRUST}\nsni = {{ \"a.example\" = \"g\" }}");
    let proxy = start(&format!("{upstream}[[stream]]\nname = \"t\"\nlisten = \"127.0.0.1:0\"\n{routes}\n"));
    let conn = Conn::connect(&proxy.tcp("t"));
    let hello = hello(&authority, "a.example");
    conn.send(&[&v1("192.0.2.7:4242")[..], &hello].concat());
    let endpoints = from_to("192.0.2.7:4242", "198.51.100.9:443");
    assert_eq!(conn.line(), format!("V2 {endpoints:?} authority=a.example"));
    assert_eq!(conn.recv(hello.len()), hello, "the ClientHello goes on as it came");
    conn.echo(b"more");
}

#[test]
fn a_terminated_session_is_routed_by_its_name_too() {
    let authority = Authority::new();
    let pair = authority.issue("both", &["a.example", "b.example"]);
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let proxy = start(&format!(
        "{ACCESS_LOG}[[stream]]\nname = \"t\"\nlisten = \"127.0.0.1:0\"\ntls = {}\n{TRUST}\n\
         sni = {{ \"a.example\" = \"{}\", default = \"{}\" }}\n",
        pair.toml(),
        a.addr(),
        b.addr()
    ));
    for (index, name) in ["a.example", "b.example"].into_iter().enumerate() {
        let mut socket = TcpStream::connect(proxy.tcp("t").inet()).unwrap();
        socket.write_all(&v1("192.0.2.7:4242")).unwrap();
        let mut conn = TlsClient::new(&authority).over(socket, name).unwrap();
        assert_eq!(conn.try_recv(2).unwrap(), format!("{}\n", &name[..1]).into_bytes());
        conn.echo(b"hello");
        conn.finish();
        drop(conn);
        let record = last(&proxy, index + 1);
        assert_eq!((record["client_ip"].as_str(), record["sni"].as_str()), (Some("192.0.2.7"), Some(name)));
    }
}

#[test]
fn a_terminated_session_without_a_route_ends_in_order() {
    let authority = Authority::new();
    let pair = authority.issue("both", &["a.example", "b.example"]);
    let backend = Backend::echo();
    let proxy = start(&format!(
        "{ACCESS_LOG}[[stream]]\nname = \"t\"\nlisten = \"127.0.0.1:0\"\ntls = {}\nsni = {{ \"a.example\" = \"{}\" }}\n",
        pair.toml(),
        backend.addr(),
    ));
    let client = TlsClient::new(&authority);
    let nothing = client.connect(&proxy.tcp("t"), "b.example").and_then(|mut conn| conn.recv_all());
    assert_eq!(nothing.unwrap(), b"", "an end that TLS knows of");
    assert_eq!(last(&proxy, 1)["outcome"], "no_route");
    client.connect(&proxy.tcp("t"), "a.example").unwrap().echo(b"hello");
}

#[test]
fn routes_change_with_a_reload() {
    let names = Names::new();
    let proxy = start(&names.config("", ""));
    let client = TlsClient::new(&names.authority);
    let mut kept = client.connect(&proxy.tcp("t"), "a.example").unwrap();
    kept.echo(b"before");
    client.connect(&proxy.tcp("t"), "other.example").unwrap_err();
    proxy.reload_with(&names.config(", \"other.example\" = \"b\"", ""));
    client.connect(&proxy.tcp("t"), "other.example").unwrap().echo(b"after");
    kept.echo(b"still");
}

#[test]
fn a_hash_on_the_name_keeps_its_server() {
    let backends: Vec<Backend> = (0..4).map(|_| Backend::silent()).collect();
    let servers: Vec<String> = backends.iter().map(|backend| backend.addr().to_string()).collect();
    let upstream = group("g", &servers, "balance = \"hash\"\nhash_key = \"sni\"");
    let proxy = start(&format!(
        "{ACCESS_LOG}{upstream}[[stream]]\nname = \"t\"\nlisten = \"127.0.0.1:0\"\nsni = {{ default = \"g\", \
         \"unused.example\" = \"g\" }}\n"
    ));
    let authority = Authority::new();
    let mut count = 0;
    let mut peer_of = |name: &str| {
        let conn = Conn::connect_from(ip("127.0.0.1"), &proxy.tcp("t"));
        conn.send(&hello(&authority, name));
        conn.finish();
        conn.recv_all();
        count += 1;
        last(&proxy, count)["peer"].clone()
    };
    let of: Vec<Value> = (0..12).map(|n| peer_of(&format!("n{n}.example"))).collect();
    for (n, peer) in of.iter().enumerate() {
        assert_eq!(peer_of(&format!("n{n}.example")), *peer);
    }
    assert!(of.iter().any(|peer| *peer != of[0]), "all names on one server");
}
