//! What clients are told when it leads nowhere.

use std::sync::atomic::Ordering;
use std::time::Duration;

use wmproxy_http::forward::Unknown;
use wmproxy_net::connect::Fault;
use wmproxy_testkit::http::Origin;

use super::gate::Proxy;

#[test]
fn each_fault_has_its_status_and_plain_words() {
    let proxy = Proxy::with(&[]);
    let mut client = proxy.connect();
    for (fault, status) in [
        (Fault::Denied, 403),
        (Fault::Limited, 429),
        (Fault::Unresolved, 502),
        (Fault::Refused, 502),
        (Fault::NetworkUnreachable, 502),
        (Fault::HostUnreachable, 502),
        (Fault::TimedOut, 504),
        (Fault::Reset, 502),
        (Fault::Tls, 502),
        (Fault::Unauthorized, 502),
        (Fault::Broken, 502),
        (Fault::Resources, 503),
        (Fault::NoWay, 503),
    ] {
        proxy.fail("a.example:80", fault, "it went wrong");
        client.send("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let answer = client.response();
        assert_eq!(answer.status(), status, "{fault:?}");
        assert_eq!(answer.head.get("content-type"), Some("text/plain; charset=utf-8"));
        assert!(answer.text().contains("\nIt went wrong."), "{}", answer.text());
        assert!(!answer.head.has("proxy-authenticate"), "a parent's 407 is none of the client's");
    }
    client.expect_idle();
    client.send("GET http://denied.example/ HTTP/1.1\r\nHost: denied.example\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status(), 403);
    assert!(answer.text().contains("The rules deny denied.example."), "{}", answer.text());
    assert_eq!(proxy.opened(), 0);
}

#[test]
fn who_is_not_let_in_is_told_what_to_do() {
    let proxy = Proxy::with(&[]);
    let mut client = proxy.connect();
    let mut ask = |unknown| {
        *proxy.gate.unknown.lock().unwrap() = Some(unknown);
        client.send("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
        client.response()
    };
    let answer = ask(Unknown::Unauthenticated);
    assert_eq!(answer.status(), 407);
    assert!(answer.head.get("proxy-authenticate").unwrap().starts_with("Basic realm="));
    let answer = ask(Unknown::Later(Duration::from_millis(1500)));
    assert_eq!((answer.status(), answer.head.get("retry-after")), (429, Some("2")));
    let answer = ask(Unknown::Limited("as many connections as you may have"));
    assert_eq!(answer.status(), 429);
    assert!(answer.text().contains("As many connections as you may have."), "{}", answer.text());
    client.expect_idle();
}

#[test]
fn a_server_may_not_ask_for_a_password_of_proxies() {
    let origin = Origin::says(
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = proxy.connect();
    client.send("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status(), 502);
    assert!(!answer.head.has("proxy-authenticate"));
}

#[test]
fn sites_by_tls_are_for_connect() {
    let proxy = Proxy::with(&[]);
    let mut client = proxy.connect();
    client.send("GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status(), 501);
    assert!(answer.text().contains("by CONNECT"), "{}", answer.text());
    client.expect_closed();
}

#[test]
fn a_request_with_a_body_that_is_refused_ends_in_good_order() {
    let proxy = Proxy::with(&[]);
    proxy.gate.is_closed.store(true, Ordering::Relaxed);
    let mut client = proxy.connect();
    client.send("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\nsome");
    let answer = client.response();
    assert_eq!(answer.status(), 407);
    assert!(!answer.head.keeps_alive());
    client.expect_closed();
}

#[test]
fn an_origin_that_is_silent_or_talks_nonsense_is_a_bad_gateway() {
    let origin = Origin::says_and_closes("nonsense\r\n\r\n");
    let silent = Origin::start(|call| {
        call.close();
        Ok(())
    });
    let proxy =
        Proxy::with(&[("a.example:80", origin.addr().inet()), ("b.example:80", silent.addr().inet())]);
    let mut client = proxy.connect();
    for host in ["a.example", "b.example"] {
        client.send(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().status(), 502);
    }
    client.expect_idle();
}
