//! A request that fails at one peer and is tried at another, where nobody can tell the difference.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wmproxy_testkit::backend::Unreachable;
use wmproxy_testkit::http::Reply;
use wmproxy_testkit::tcp::Closed;
use wmproxy_testkit::{Backend, Client, Origin};

use super::one_route;
use crate::{group, start};

fn config(servers: &[String], more: &str) -> String {
    format!("{}{}", group("g", servers, more), one_route("reverse_proxy = \"g\""))
}

/// Takes a whole request and closes without a word.
fn speechless() -> Origin {
    Origin::start(|call| {
        call.read_body()?;
        call.close();
        Ok(())
    })
}

#[test]
fn a_peer_that_refuses_is_passed_over_whatever_the_method() {
    let (closed, good) = (Closed::new(), Origin::named("good"));
    let proxy = start(&config(&[closed.addr().to_string(), good.addr().to_string()], "max_fails = 1000"));
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..6 {
        assert_eq!(client.get("/").text(), "good");
        // Nothing of it had been sent.
        assert_eq!(client.post("/", b"pay").text(), "pay");
    }
    assert_eq!(good.requests().len(), 12);
}

#[test]
fn a_peer_that_can_not_be_reached_is_passed_over() {
    let (unreachable, good) = (Unreachable::new(), Origin::named("good"));
    let servers = [unreachable.addr().to_string(), good.addr().to_string()];
    let proxy = start(&config(&servers, "connect_timeout = \"200ms\"\nmax_fails = 1000"));
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..4 {
        assert_eq!(client.post("/", b"pay").text(), "pay");
    }
}

#[test]
fn only_what_may_be_done_twice_is_sent_twice() {
    for (method, retried) in [
        ("GET", true),
        ("HEAD", true),
        ("OPTIONS", true),
        ("POST", false),
        ("PATCH", false),
        ("PURGE", false),
    ] {
        let (bad, good) = (speechless(), Origin::named("good"));
        let servers = [bad.addr().to_string(), good.addr().to_string()];
        let proxy = start(&format!("workers = 1\n{}", config(&servers, "max_fails = 1000")));
        let mut client = Client::connect(&proxy.tcp("h"));
        let mut statuses = Vec::new();
        for _ in 0..4 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a.example\r\n\r\n"));
            statuses.push(client.response_to(method).status());
        }
        assert!(!bad.requests().is_empty(), "{method} met the bad peer");
        if retried {
            assert_eq!(statuses, [200; 4], "{method}");
            assert_eq!(good.requests().len(), 4);
        } else {
            assert!(statuses.contains(&502), "{method}: {statuses:?}");
            assert_eq!(bad.requests().len() + good.requests().len(), 4, "{method} was sent twice");
        }
    }
}

#[test]
fn there_are_no_more_tries_than_allowed() {
    for retries in [0, 1, 3] {
        let bad: Vec<Origin> = (0..5).map(|_| speechless()).collect();
        let servers: Vec<String> = bad.iter().map(|origin| origin.addr().to_string()).collect();
        let proxy = start(&config(&servers, &format!("retries = {retries}\nmax_fails = 1000")));
        assert_eq!(Client::connect(&proxy.tcp("h")).get("/").status(), 502);
        let tried: usize = bad.iter().map(|origin| origin.requests().len()).sum();
        assert_eq!(tried, retries + 1);
        // Each at another peer.
        assert!(bad.iter().all(|origin| origin.requests().len() <= 1));
    }
}

#[test]
fn nothing_is_tried_again_once_the_client_has_seen_a_part() {
    let tries = Arc::new(AtomicUsize::new(0));
    let origins: Vec<Origin> = (0..2)
        .map(|_| {
            let tries = tries.clone();
            Origin::start(move |call| {
                tries.fetch_add(1, Ordering::SeqCst);
                call.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
                call.close();
                Ok(())
            })
        })
        .collect();
    let servers: Vec<String> = origins.iter().map(|origin| origin.addr().to_string()).collect();
    let proxy = start(&config(&servers, "max_fails = 1000"));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert!(client.try_response_to("GET").is_err());
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

#[test]
fn an_answer_is_an_answer_even_a_bad_one() {
    let (bad, good) = (Origin::start(|call| call.reply(&Reply::new(503, "busy"))), Origin::named("good"));
    let servers = [bad.addr().to_string(), good.addr().to_string()];
    let proxy = start(&config(&servers, ""));
    let mut client = Client::connect(&proxy.tcp("h"));
    let mut statuses: Vec<u16> = (0..4).map(|_| client.get("/").status()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503]);
}

#[test]
fn a_peer_that_fails_is_left_alone_for_a_while() {
    let (bad, good) = (Backend::resets(), Origin::named("good"));
    let servers = [bad.addr().to_string(), good.addr().to_string()];
    let proxy = start(&config(&servers, "max_fails = 1\nfail_timeout = \"60s\""));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert!(bad.accepted() <= 1, "{} connections to a peer that is out", bad.accepted());
}

#[test]
fn a_backup_is_asked_when_the_others_fail() {
    let (closed, backup) = (Closed::new(), Origin::named("backup"));
    let servers =
        [closed.addr().to_string(), format!("{{ address = \"{}\", backup = true }}", backup.addr())];
    let proxy = start(&config(&servers, ""));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "backup");
    }
}
