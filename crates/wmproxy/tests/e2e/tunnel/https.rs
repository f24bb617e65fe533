//! Services of https: passed through as they are, or with TLS that ends at the server.

use wmproxy_testkit::http::Reply;
use wmproxy_testkit::tls::{Authority, TlsBackend, TlsClient};
use wmproxy_testkit::{Addr, Client, Conn, Origin};

use super::{CARRIERS, Server, service};

/// A service of https; `more` is further lines of its table.
fn secure(name: &str, local: impl std::fmt::Display, host: &str, more: &str) -> String {
    service(name, "https", format!("local = \"{local}\"\nhosts = \"{host}\"\n{more}"))
}

/// A server whose own certificates are for `*.here.test`.
fn server(authority: &Authority) -> (Server, Addr) {
    let pair = authority.issue("here", &["*.here.test"]);
    let server = Server::with(format!("https = \"127.0.0.1:0\"\ntls = {}", pair.toml()));
    let front = server.proxy.tcp("tunnel:https");
    (server, front)
}

#[test]
fn tls_goes_through_to_a_service_that_ends_it() {
    let authority = Authority::new();
    for carrier in CARRIERS {
        let (server, front) = server(&authority);
        let pair = authority.issue("a", &["a.test", "b.test"]);
        let backend = TlsBackend::echo(&pair);
        let client = server.home(carrier, secure("a", backend.addr(), "a.test", ""));
        let mut visitor = TlsClient::new(&authority).connect(&front, "a.test").unwrap();
        visitor.echo(b"end to end");
        assert_eq!(backend.shaken(), 1);
        visitor.finish();
        assert!(visitor.recv_all().unwrap().is_empty());
        drop(visitor);
        // A name that nobody offers gets no further than this, whatever the service's certificate says.
        TlsClient::new(&authority).connect(&front, "b.test").unwrap_err();
        assert_eq!(backend.shaken(), 1);
        client.finish();
    }
}

#[test]
fn tls_ends_at_the_server_where_a_service_wants_it() {
    let authority = Authority::new();
    let (server, front) = server(&authority);
    let origin = Origin::says(Reply::with(200, "Connection: close\r\n", "plain").0);
    let client = server.home("", secure("a", origin.addr(), "a.here.test", "terminate = true"));
    let ask = |name: &str, host: &str| {
        let tls = TlsClient::with_alpn(&authority, &["http/1.1"]).connect(&front, name).unwrap();
        let mut visitor = Client::over(tls);
        visitor.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        visitor.response()
    };
    let answer = ask("a.here.test", "a.here.test");
    assert_eq!((answer.status(), answer.text()), (200, "plain"));
    assert_eq!(origin.request().head.get("x-forwarded-proto"), Some("https"));
    // Our certificate covers it, and nobody offers it.
    assert_eq!(ask("other.here.test", "other.here.test").status(), 404);
    let tls = TlsClient::with_alpn(&authority, &["h2", "http/1.1"]).connect(&front, "a.here.test").unwrap();
    assert_eq!(tls.alpn().as_deref(), Some("h2"));
    drop(tls);
    client.finish();
}

#[test]
fn what_is_no_tls_and_who_says_no_name_is_turned_away() {
    let authority = Authority::new();
    let (server, front) = server(&authority);
    let visitor = Conn::connect(&front);
    visitor.send(b"GET / HTTP/1.1\r\nHost: a.here.test\r\n\r\n");
    visitor.expect_closed();
    TlsClient::new(&authority).connect(&front, "127.0.0.1").unwrap_err();
    drop(server);
}

#[test]
fn a_service_for_which_there_is_no_certificate_is_refused() {
    let authority = Authority::new();
    let (server, _) = server(&authority);
    let origin = Origin::says(Reply::with(200, "Connection: close\r\n", "plain").0);
    server.proxy.expect_warn("a tunnel service was refused");
    let client = super::end(&super::client_config(
        "home",
        server.port,
        "",
        secure("a", origin.addr(), "a.test", "terminate = true"),
    ));
    client.expect_warn("");
    let line = client.log().wait("no certificate");
    assert!(line.contains("a.test"), "{line}");
    super::settle(&client);
    client.finish();
}
