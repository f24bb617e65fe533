//! HTTP and CONNECT by curl and by hand, plain, inside TLS and over HTTP/2.

use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::{Finished, run};
use wmproxy_testkit::h2::{Frame, Kind, Raw};
use wmproxy_testkit::http::{Client, Origin, Reply};
use wmproxy_testkit::tls::{Authority, Pair, TlsClient};
use wmproxy_testkit::{Backend, Conn, Pattern, Proxy};

use super::{forward, listener};
use crate::{ACCESS_LOG, start};

/// Alice, whose password is `open sesame`.
const USERS: &str =
    "users = { alice = { password = \"$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu\" } }";

/// Runs curl by way of the proxy, which it speaks to by `scheme`, with more arguments.
fn curl(proxy: &Proxy, scheme: &str, more: &[&str]) -> Finished {
    let mut command = Command::new("curl");
    let way = format!("{scheme}://{}", proxy.tcp("f"));
    // The machine's own settings for proxies are not meant.
    command.args(["-sS", "--noproxy", "", "-m", "15", "-x", &way]).args(more).env_clear();
    command.env("PATH", std::env::var("PATH").unwrap_or_default());
    run(&mut command, Duration::from_secs(20))
}

/// A site by TLS, and who says that it is `localhost`.
fn secure_site() -> (Authority, Origin) {
    let authority = Authority::new();
    let pair = authority.issue("site", &["localhost"]);
    let site = Origin::start_tls(&pair, |call| call.reply(&Reply::new(200, "hello by TLS")));
    (authority, site)
}

fn path(pair: &std::path::Path) -> &str {
    pair.to_str().unwrap()
}

#[test]
fn curl_gets_there_by_requests_and_by_tunnels() {
    let plain = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nhello by HTTP\n");
    let (authority, site) = secure_site();
    let proxy = start(&format!("{ACCESS_LOG}{}", forward("")));
    let (port, secure) = (plain.addr().port(), site.addr().port());
    let url = format!("http://localhost:{port}/x?y");
    assert_eq!(curl(&proxy, "http", &[&url, &url]).success().stdout, "hello by HTTP\n".repeat(2));
    assert_eq!(curl(&proxy, "http", &["-p", &url]).success().stdout, "hello by HTTP\n");
    let ca = authority.ca();
    let tls = format!("https://localhost:{secure}/");
    assert_eq!(curl(&proxy, "http", &["--cacert", path(&ca), &tls]).success().stdout, "hello by TLS");
    let head = plain.requests()[0].head.clone();
    assert_eq!((head.target(), head.get("host")), ("/x?y", Some(format!("localhost:{port}").as_str())));
    assert!(
        !head.has("proxy-connection") && !head.has("x-forwarded-for") && !head.has("forwarded"),
        "{head:?}"
    );
    let log = proxy.access_log(4);
    let kinds: Vec<_> = log.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["http", "http", "connect", "connect"]);
    for line in &log {
        assert_eq!((&line["way"], &line["outcome"]), (&"direct".into(), &"done".into()), "{line}");
        assert!(line["destination"].as_str().unwrap().starts_with("localhost:"), "{line}");
    }
}

#[test]
fn passwords_are_asked_for_and_taken_over_the_same_connection() {
    let plain = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let proxy = start(&format!("{ACCESS_LOG}{}", forward(USERS)));
    let url = format!("http://{}/", plain.addr());
    for more in [&[][..], &["-p"], &["--proxy-anyauth"], &["-p", "--proxy-anyauth"]] {
        let args = [&["-U", "alice:open sesame", &url], more].concat();
        assert_eq!(curl(&proxy, "http", &args).success().stdout, "hello", "{more:?}");
    }
    for (user, more) in [("alice:wrong", "-s"), ("bob:open sesame", "-s"), (":", "-s"), ("alice:wrong", "-p")]
    {
        let answer = curl(&proxy, "http", &["-U", user, more, "-w", "%{http_code} %{http_connect}", &url]);
        assert!(answer.stdout.contains("407"), "{user}: {answer:?}");
    }
    assert!(plain.requests().iter().all(|request| !request.head.has("proxy-authorization")));
    assert!(!proxy.log().text().contains("sesame"));
    for garbage in ["", "Basic", "Basic !!!", "Basic YQ==", "Bearer x", "Basic YWxpY2U6", "Basic \u{ff}"] {
        let mut client = Client::connect(&proxy.tcp("f"));
        client.send(format!(
            "GET {url} HTTP/1.1\r\nHost: {}\r\nProxy-Authorization: {garbage}\r\n\r\n",
            plain.addr()
        ));
        let status = client.response().status();
        assert!(matches!(status, 400 | 407 | 429), "{garbage:?}: {status}");
    }
}

#[test]
fn the_way_to_the_proxy_may_be_inside_tls() {
    let plain = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let (authority, site) = secure_site();
    let pair: Pair = authority.issue("proxy", &["127.0.0.1", "proxy.test"]);
    let proxy = start(&forward(format!("tls = {}\ntls_optional = true", pair.toml())));
    let ca = authority.ca();
    let url = format!("http://{}/", plain.addr());
    let tls = format!("https://localhost:{}/", site.addr().port());
    let host = format!("proxy.test:{}:127.0.0.1", proxy.tcp("f").port());
    let by_name = |more: &[&str]| {
        let mut command = Command::new("curl");
        let way = format!("https://proxy.test:{}", proxy.tcp("f").port());
        command.args(["-sS", "--noproxy", "", "-m", "15", "--resolve", &host, "-x", &way]);
        command.args(["--proxy-cacert", path(&ca), "--cacert", path(&ca)]).args(more).env_clear();
        command.env("PATH", std::env::var("PATH").unwrap_or_default());
        run(&mut command, Duration::from_secs(20)).success().stdout
    };
    assert_eq!(by_name(&[&url]), "hello");
    assert_eq!(by_name(&["-p", &url]), "hello");
    assert_eq!(by_name(&[&tls]), "hello by TLS");
    assert_eq!(curl(&proxy, "http", &["-p", &url]).success().stdout, "hello", "TLS is optional");
}

#[test]
fn tunnels_and_requests_share_a_connection_of_http_2() {
    let (echo, plain) = (Backend::echo(), Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"));
    let authority = Authority::new();
    let pair = authority.issue("proxy", &["proxy.test"]);
    let proxy = start(&forward(format!("tls = {}", pair.toml())));
    let inside = TlsClient::with_alpn(&authority, &["h2"]).connect(&proxy.tcp("f"), "proxy.test").unwrap();
    assert_eq!(inside.alpn().as_deref(), Some("h2"));
    let mut h2 = Raw::over(inside);
    h2.begin(&[(1, 0)]);
    let (to, site) = (echo.addr().to_string(), plain.addr().to_string());
    h2.head(1, &[(":method", "CONNECT"), (":authority", &to)], false);
    assert_eq!(h2.status(1), 200);
    h2.head(3, &[(":method", "GET"), (":scheme", "http"), (":authority", &site), (":path", "/x")], true);
    assert_eq!(h2.status(3), 200);
    h2.send(Kind::DATA, Frame::END_STREAM, 1, b"through the tunnel");
    let frame = h2.wait(|frame| frame.stream == 1 && frame.kind == Kind::DATA);
    assert_eq!(frame.payload, b"through the tunnel");
    assert_eq!(plain.request().head.target(), "/x");
}

#[test]
fn where_it_leads_nowhere_it_says_why() {
    let proxy = start(&format!("{ACCESS_LOG}{}", listener("")));
    let mut client = Client::connect(&proxy.tcp("f"));
    for (request, status, words) in [
        ("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n", 403, "127.0.0.1"),
        ("CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n", 403, "169.254.169.254"),
        ("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n", 403, "::1"),
        ("CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1\r\nHost: [::ffff:127.0.0.1]:443\r\n\r\n", 403, "127.0.0.1"),
        ("CONNECT example.com:25 HTTP/1.1\r\nHost: example.com:25\r\n\r\n", 403, "25"),
    ] {
        client.send(request);
        let answer = client.response_to("GET");
        assert_eq!(answer.status(), status, "{request}: {}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    for line in proxy.access_log(5) {
        assert_eq!(line["outcome"], "denied", "{line}");
    }
    let page = client.get("/");
    assert!(page.status() == 400 && page.text().contains("This is a proxy"), "{page:?}");
}

#[test]
fn a_refused_connection_is_a_bad_gateway() {
    let nobody = wmproxy_testkit::tcp::Closed::new();
    let proxy = start(&forward(""));
    let mut client = Client::connect(&proxy.tcp("f"));
    let to = nobody.addr();
    client.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n"));
    assert_eq!(client.response_to("CONNECT").status(), 502);
    client.send(format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n"));
    assert_eq!(client.response().status(), 502);
    client.expect_idle();
}

#[test]
fn browsers_get_their_settings_before_they_say_who_they_are() {
    let proxy = start(&forward(format!("pac = true\n{USERS}")));
    let mut client = Client::connect(&proxy.tcp("f"));
    let answer = client.get("/proxy.pac");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.head.get("content-type"), Some("application/x-ns-proxy-autoconfig"));
    assert!(answer.text().contains("FindProxyForURL"), "{}", answer.text());
    assert_eq!(client.get("/wpad.dat").text(), answer.text());
}

#[test]
fn large_bodies_pass_both_ways_at_once() {
    let echo = Backend::echo();
    let proxy = start(&forward(""));
    let conns: Vec<_> = (0..8)
        .map(|_| {
            let conn = Conn::connect(&proxy.tcp("f"));
            let to = echo.addr();
            conn.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes());
            assert_eq!(conn.line(), "HTTP/1.1 200 OK\r");
            assert_eq!(conn.line(), "\r");
            conn
        })
        .collect();
    std::thread::scope(|scope| {
        for (seed, conn) in conns.iter().enumerate() {
            let said = Pattern::new(seed as u64).bytes(0, 8 << 20);
            scope.spawn(move || {
                std::thread::scope(|both| {
                    both.spawn(|| {
                        conn.send(&said);
                        conn.finish();
                    });
                    assert!(conn.recv_all() == said);
                });
            });
        }
    });
}

#[test]
fn tunnels_and_connections_outlive_a_reload() {
    let (echo, plain) = (Backend::echo(), Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"));
    let proxy = start(&forward(""));
    let mut tunnel = Client::connect(&proxy.tcp("f"));
    let to = echo.addr();
    tunnel.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n"));
    assert_eq!(tunnel.head().status(), 200);
    let mut client = Client::connect(&proxy.tcp("f"));
    let request = format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", plain.addr());
    client.send(&request);
    assert_eq!(client.response().status(), 200);
    proxy.reload_with(&forward(USERS));
    tunnel.send("still here");
    assert_eq!(tunnel.recv(10), b"still here");
    client.send(&request);
    assert_eq!(client.response().status(), 407, "the next request meets the new rules");
}
