//! TLS towards peers, through the binary.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use wmproxy_testkit::tcp::Conn;
use wmproxy_testkit::{Authority, TempDir, TlsBackend, eventually};

use crate::{group, setup, tcp};

#[test]
fn a_peer_is_talked_to_by_tls_and_by_nothing_else() {
    let (authority, others) = (Authority::new(), Authority::new());
    let pair = authority.issue("peer", &["peer.test", "127.0.0.1"]);
    let peer = TlsBackend::echo(&pair);
    let trusting = |authority: &Authority, more: &str| {
        let tls =
            format!("tls = {{ ca = \"{}\"{more} }}\nretries = 0\nmax_fails = 0", authority.ca().display());
        let up = group("up", &[peer.addr().to_string()], &tls);
        format!("[access_log]\nfile = \"access.log\"\n{up}{}", tcp("up", ""))
    };
    let proxy = setup(&trusting(&authority, "")).start();
    Conn::connect(&proxy.tcp("t")).echo(b"encrypted from here on");
    proxy.reload_with(&trusting(&authority, ", server_name = \"peer.test\""));
    Conn::connect(&proxy.tcp("t")).echo(b"by its name");
    let shaken = peer.shaken();
    for (config, reason) in [
        (trusting(&others, ""), "UnknownIssuer"),
        (trusting(&authority, ", server_name = \"other.test\""), "not valid for name"),
    ] {
        proxy.expect_warn("certificate is not accepted");
        proxy.reload_with(&config);
        let before = proxy.log().text().matches("not accepted").count();
        for _ in 0..3 {
            Conn::connect(&proxy.tcp("t")).expect_reset();
        }
        eventually("it is logged", || proxy.log().text().contains(reason));
        assert_eq!(proxy.log().text().matches("not accepted").count(), before + 1, "once for a reason");
    }
    assert_eq!(peer.shaken(), shaken, "nobody was talked to");
    let lines = proxy.access_log(8);
    assert!(lines[2..].iter().all(|line| line["outcome"] == "peer_tls"), "{lines:#?}");
    assert!(lines[2..].iter().all(|line| line["bytes_out"] == 0));
    let errors = proxy.metrics().sum("wmproxy_peer_connect_errors_total", &[("kind", "tls")]);
    assert_eq!(errors, 6.0, "the peer was counted");
}

#[test]
fn whom_the_system_trusts_is_read_anew_at_a_reload() {
    let (authority, others) = (Authority::new(), Authority::new());
    let peer = TlsBackend::echo(&authority.issue("peer", &["127.0.0.1"]));
    let dir = TempDir::new();
    let file = dir.join("system.pem");
    let trust = |authority: &Authority| std::fs::copy(authority.ca(), &file).unwrap();
    trust(&others);
    let up = group("up", &[peer.addr().to_string()], "tls = true\nretries = 0\nmax_fails = 0");
    let config = format!("{up}{}", tcp("up", ""));
    let proxy = setup(&config).env("SSL_CERT_FILE", file.to_str().unwrap()).start();
    proxy.expect_warn("certificate is not accepted");
    Conn::connect(&proxy.tcp("t")).expect_reset();
    trust(&authority);
    // Not before: nobody looks at them while they are in use.
    Conn::connect(&proxy.tcp("t")).expect_reset();
    proxy.reload_refused(&format!("{config}nonsense = 1\n"));
    Conn::connect(&proxy.tcp("t")).expect_reset();
    proxy.reload_with(&config);
    Conn::connect(&proxy.tcp("t")).echo(b"believed now");
}

#[test]
fn a_peer_that_speaks_no_tls_gets_nothing_in_the_clear() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let plain = std::thread::spawn(move || {
        let mut socket: TcpStream = listener.accept().unwrap().0;
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(b"220 mail.example.com ESMTP\r\n").unwrap();
        let mut got = Vec::new();
        let _ = socket.read_to_end(&mut got);
        got
    });
    let up = group(
        "up",
        &[addr.to_string()],
        &format!("tls = {{ ca = \"{}\" }}\nretries = 0", authority.ca().display()),
    );
    let proxy = setup(&format!("{up}{}", tcp("up", ""))).expect_warn("ejected").start();
    let client = Conn::connect(&proxy.tcp("t"));
    client.send(b"the secret");
    client.expect_closed();
    let got = plain.join().unwrap();
    assert!(!got.windows(10).any(|part| part == b"the secret"), "in the clear");
    assert_eq!(got.first(), Some(&22), "a ClientHello");
}

#[test]
fn a_proxy_header_goes_before_the_handshake() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let mut socket: TcpStream = listener.accept().unwrap().0;
        let mut line = [0; 6];
        socket.read_exact(&mut line).unwrap();
        let mut byte = [0];
        while byte != *b"\n" {
            socket.read_exact(&mut byte).unwrap();
        }
        socket.read_exact(&mut byte).unwrap();
        (line, byte[0])
    });
    let tls = format!(
        "tls = {{ ca = \"{}\" }}\nretries = 0\nsend_proxy_protocol = \"v1\"",
        authority.ca().display()
    );
    let proxy = setup(&format!("{}{}", group("up", &[addr.to_string()], &tls), tcp("up", "")))
        .expect_warn("ejected")
        .start();
    let client = Conn::connect(&proxy.tcp("t"));
    assert_eq!(peer.join().unwrap(), (*b"PROXY ", 22), "a header, then a ClientHello");
    client.expect_closed();
}

#[test]
fn we_prove_who_we_are_to_a_peer_that_asks() {
    let authority = Authority::new();
    let peer = TlsBackend::echo_to_known(&authority.issue("peer", &["127.0.0.1"]), &authority);
    let me = authority.issue("me", &["me.test"]);
    let tls = format!(
        "tls = {{ ca = \"{}\", cert = \"{}\", key = \"{}\" }}",
        authority.ca().display(),
        me.cert.display(),
        me.key.display()
    );
    let up = group("up", &[peer.addr().to_string()], &tls);
    let proxy = setup(&format!("{up}{}", tcp("up", ""))).start();
    Conn::connect(&proxy.tcp("t")).echo(b"it is me");
}
