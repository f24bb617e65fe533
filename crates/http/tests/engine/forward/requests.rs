//! Requests in absolute form.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wmproxy_http::options::HttpOptions;
use wmproxy_testkit::Pattern;
use wmproxy_testkit::http::{Origin, Reply};
use wmproxy_wire::websocket::handshake::accept_key;

use super::gate::{ALICE, Gate, Proxy};
use crate::house::eventually;

fn hello() -> Origin {
    Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
}

fn get(url: &str) -> String {
    let host = url.trim_start_matches("http://").split('/').next().unwrap();
    format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn each_request_of_a_connection_goes_where_it_says() {
    let (one, other) = (Origin::named("one"), Origin::named("other"));
    let proxy =
        Proxy::with(&[("one.example:80", one.addr().inet()), ("other.example:8080", other.addr().inet())]);
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send(get("http://one.example/a?b=c"));
        assert!(client.response().text().contains("one"));
        client.send(get("http://OTHER.example.:8080"));
        assert!(client.response().text().contains("other"));
    }
    client.expect_idle();
    assert_eq!(proxy.opened(), 2, "connections to origins are used again");
    let asked = one.requests()[0].head.clone();
    assert_eq!((asked.target(), asked.get("host")), ("/a?b=c", Some("one.example")));
    let asked = other.requests()[0].head.clone();
    assert_eq!((asked.target(), asked.get("host")), ("/", Some("other.example:8080")));
    assert_eq!(proxy.gate.asked.lock().unwrap()[..2], ["one.example:80", "other.example:8080"]);
    drop(client);
    proxy.house.assert_nothing_left();
}

#[test]
fn the_target_counts_and_not_host() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::with(&[("a.example:8080", origin.addr().inet())]);
    let mut client = proxy.connect();
    for host in ["a.example", "b.example", "b.example:8080"] {
        client.send(format!("GET http://a.example:8080/ HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().status(), 200, "{host}");
    }
    for request in origin.requests() {
        assert_eq!(request.head.all("host"), ["a.example:8080"]);
    }
    assert!(proxy.gate.asked.lock().unwrap().iter().all(|asked| asked == "a.example:8080"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (one, other) = (Origin::named("one"), Origin::named("other"));
    let proxy =
        Proxy::with(&[("one.example:80", one.addr().inet()), ("other.example:80", other.addr().inet())]);
    let mut client = proxy.connect();
    let pair = get("http://one.example/") + &get("http://other.example/");
    client.send(pair.repeat(5));
    for _ in 0..5 {
        assert!(client.response().text().contains("one"));
        assert!(client.response().text().contains("other"));
    }
    client.expect_idle();
    assert_eq!(proxy.house.lines(10).len(), 10);
}

#[test]
fn what_is_between_a_client_and_its_proxy_goes_no_further() {
    let origin = Origin::says(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Proxy-Authenticate: Basic\r\nProxy-Status: x\r\nVia: 1.0 before\r\nX-Kept: 1\r\n\r\n",
    );
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    client.send(format!(
        "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: {ALICE}\r\n\
         Proxy-Connection: keep-alive\r\nProxy: http://evil.example\r\nProxy-Authentication-Info: x\r\n\
         Connection: keep-alive, X-Own\r\nX-Own: 1\r\nTE: trailers\r\nProxied: kept\r\n\
         Authorization: Basic eDp5\r\nVia: 1.1 other\r\n\r\n"
    ));
    let answer = client.response();
    let names = |head: &wmproxy_testkit::http::Head| {
        head.fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect::<Vec<_>>()
    };
    let asked = origin.request().head;
    assert_eq!(names(&asked), ["host", "proxied", "authorization", "via", "via"], "{asked:?}");
    assert!(asked.all("via")[1].starts_with("1.1 wmproxy-"), "{asked:?}");
    assert_eq!(names(&answer.head), ["content-length", "via", "x-kept", "via", "date"], "{:?}", answer.head);
    assert!(answer.head.all("via")[1].starts_with("1.1 wmproxy-"));
    client.expect_idle();
}

#[test]
fn bodies_pass_both_ways_whatever_frames_them() {
    let origin = Origin::start(|call| {
        let body = call.read_body()?;
        call.reply(&Reply::new(200, body))
    });
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    let large = Pattern::new(1).bytes(0, 3_000_000);
    client.send(format!(
        "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n",
        large.len()
    ));
    client.send(&large);
    assert!(client.response().body == large);
    client.send("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_chunk(&large);
    client.send("0\r\n\r\n");
    assert!(client.response().body == large);
    client.expect_idle();
    assert_eq!(proxy.opened(), 1);
    assert_eq!(proxy.house.lines(2)[0], "POST / 200 3000000/3000000");
}

#[test]
fn who_waits_to_be_asked_for_a_body_is_asked_by_the_origin() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        let body = call.read_body()?;
        call.reply(&Reply::new(200, body))
    });
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    client.send(
        "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    assert_eq!(client.head().status(), 100);
    client.send("body");
    assert_eq!(client.response().text(), "body");
    client.expect_idle();
}

#[test]
fn a_stale_connection_is_replaced_where_that_is_safe() {
    // Says that it stays, and goes.
    let origin = Origin::says_and_closes("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    for _ in 0..5 {
        client.send(get("http://a.example/"));
        assert_eq!(client.response().text(), "hello");
    }
    assert_eq!(proxy.opened(), 5);
    assert_eq!(proxy.house.lines(5), ["GET / 200 0/5"; 5]);
}

#[test]
fn connections_of_another_way_are_not_used() {
    let origin = hello();
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    for key in [1, 2, 1, 2] {
        proxy.gate.key.store(key, Ordering::Relaxed);
        client.send(get("http://a.example/"));
        assert_eq!(client.response().text(), "hello");
    }
    assert_eq!(proxy.opened(), 2);
}

#[test]
fn connections_that_speak_for_one_client_serve_no_other() {
    let origin =
        Origin::says("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(get("http://a.example/"));
        assert_eq!(client.response().status(), 401);
    }
    assert_eq!(proxy.opened(), 2);
}

#[test]
fn websockets_pass_in_absolute_form() {
    let origin = Origin::start(|call| {
        let proof = accept_key(call.head.get("sec-websocket-key").unwrap_or_default());
        let proof = String::from_utf8_lossy(&proof).into_owned();
        let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
        call.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}{proof}\r\n\r\n"))?;
        call.echo()
    });
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    client.send(
        "GET http://a.example/ws HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nahead",
    );
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.recv(5), b"ahead");
    client.finish();
    client.expect_closed();
    assert_eq!(proxy.house.lines(1), ["GET /ws 101 5/5"]);
    proxy.house.assert_nothing_left();
}

#[test]
fn a_response_that_breaks_off_is_not_taken_for_the_whole() {
    let origin = Origin::says_and_closes("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello");
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    client.send(get("http://a.example/"));
    assert!(client.try_response_to("GET").is_err());
    proxy.house.lines(1);
    drop(client);
    proxy.house.assert_nothing_left();
}

#[test]
fn a_request_that_comes_round_is_noticed() {
    let proxy = Proxy::with(&[]);
    // Its own address, under a name that it would send on.
    proxy.gate.names.lock().unwrap().insert("self.example:80".into(), proxy.house.addr());
    let origin = hello();
    // To a proxy a request of a proxy that is not one of ours comes in origin-form; this is what two that name each other
    // as parents say.
    let mut client = proxy.connect();
    let pseudonym = wmproxy_http::forward::pseudonym();
    for via in [format!("1.1 {pseudonym}"), format!("1.0 other (squid), 1.1 {pseudonym} (x)")] {
        client.send(format!("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nVia: {via}\r\n\r\n"));
        assert_eq!(client.response().status(), 508, "{via}");
    }
    client.send(format!("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 {pseudonym}\r\n\r\n"));
    assert_eq!(client.response_to("CONNECT").status(), 508);
    assert_eq!((proxy.opened(), origin.requests().len()), (0, 0));
}

#[test]
fn options_and_trace_count_how_far_they_go() {
    let origin = hello();
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    client.send("OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 2\r\n\r\n");
    assert_eq!(client.response().text(), "hello");
    let asked = origin.request().head;
    assert_eq!((asked.target(), asked.get("max-forwards")), ("*", Some("1")));
    client.send("OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\n\r\n");
    assert!(client.response().head.lists("allow", "CONNECT"));
    client.send(format!(
        "TRACE http://a.example/x HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\nX: y\r\n\
         Proxy-Authorization: {ALICE}\r\nCookie: c=d\r\n\r\n"
    ));
    let answer = client.response();
    assert_eq!(answer.head.get("content-type"), Some("message/http"));
    assert_eq!(answer.text(), "TRACE /x HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\nX: y\r\n\r\n");
    client.send("TRACE http://a.example/x HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: x\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn the_proxy_itself_says_what_it_is() {
    let proxy = Proxy::with(&[]);
    proxy.gate.is_closed.store(true, Ordering::Relaxed);
    let mut client = proxy.connect();
    let answer = client.get("/proxy.pac");
    assert_eq!(answer.status(), 404);
    proxy.gate.has_pac.store(true, Ordering::Relaxed);
    for path in ["/proxy.pac", "/wpad.dat?x"] {
        let answer = client.get(path);
        assert_eq!(
            (answer.status(), answer.text()),
            (200, "PROXY a.example false"),
            "before anybody is known"
        );
        assert_eq!(answer.head.get("content-type"), Some("application/x-ns-proxy-autoconfig"));
    }
    let answer = client.get("/");
    assert_eq!(answer.status(), 400);
    assert!(answer.text().contains("This is a proxy"), "{}", answer.text());
}

#[test]
fn a_connection_goes_on_with_whoever_serves_the_listener_now() {
    let origin = hello();
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    client.send(get("http://a.example/"));
    assert_eq!(client.response().status(), 200);
    let stricter = Arc::new(Gate::default());
    stricter.is_closed.store(true, Ordering::Relaxed);
    let spec = HttpOptions::default().spec("t".into(), Arc::new([]));
    proxy.house.replace_by(proxy.service(spec, stricter));
    client.send(get("http://a.example/"));
    assert_eq!(client.response().status(), 407);
    proxy.house.retire();
    client.expect_closed();
    proxy.house.assert_nothing_left();
}

#[test]
fn who_has_used_up_what_they_may_gets_no_more() {
    let large = Pattern::new(1).bytes(0, 8_000_000);
    let origin = Origin::start(move |call| call.reply(&Reply::new(200, &large)));
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    proxy.gate.quota.store(1_000_000, Ordering::Relaxed);
    let mut client = proxy.connect();
    client.send(get("http://a.example/"));
    assert!(client.try_response_to("GET").is_err(), "it is cut off in the middle");
    proxy.house.lines(1);
    let spent = proxy.gate.spent.load(Ordering::Relaxed);
    assert!((1_000_000..4_000_000).contains(&spent), "{spent}");
}

#[test]
fn bytes_pass_at_the_rate_of_whoever_asks() {
    let origin = Origin::start(|call| {
        let body = call.read_body()?;
        call.reply(&Reply::new(200, body))
    });
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    *proxy.gate.rate.lock().unwrap() = Some("1m/s".parse().unwrap());
    let mut client = proxy.connect();
    let body = Pattern::new(1).bytes(0, 400_000);
    let began = Instant::now();
    client.send(format!(
        "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    client.send(&body);
    assert!(client.response().body == body);
    // Less what a full bucket gives at once; both ways run one behind the other.
    assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let gate = wmproxy_testkit::Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        wait.open();
        call.wait_end()
    });
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    client.send(get("http://a.example/"));
    gate.wait();
    client.reset();
    eventually(|| origin.backend().active() == 0);
    proxy.house.assert_nothing_left();
}
