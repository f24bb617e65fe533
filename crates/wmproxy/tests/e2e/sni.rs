//! Routes by the ClientHello, alone and together with all else that comes before the data.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use wmproxy_testkit::tls::{Authority, TlsBackend, TlsClient};
use wmproxy_testkit::{Addr, Backend, Conn};

use crate::preface::{TRUST, from_to, header_backend, last, v1};
use crate::{ACCESS_LOG, group, start};

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
    let proxy = start(&names.config(", default = \"a\"", "preface_timeout = \"1s\""));
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
    let proxy = start(&names.config("", &format!("{TRUST}\npreface_timeout = \"4s\"")));
    let conn = Conn::connect(&proxy.tcp("t"));
    let begun = std::time::Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    conn.send(&v1("192.0.2.7:1"));
    conn.send(&hello[..50]);
    conn.expect_closed();
    // Less than the whole time from where the header was there.
    assert!(begun.elapsed() < Duration::from_millis(5_900), "{:?}", begun.elapsed());
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
        let conn = Conn::connect_from(IpAddr::from([127, 0, 0, 1]), &proxy.tcp("t"));
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
