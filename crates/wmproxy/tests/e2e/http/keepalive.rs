//! Connections that outlive a request, at both ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wmproxy_testkit::http::Reply;
use wmproxy_testkit::{Client, Gate, Origin, eventually};

use super::{http, one_route, route, site, site_with};
use crate::{group, start};

#[test]
fn a_thousand_requests_take_one_connection_at_each_end() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    for number in 0..1000 {
        let body = format!("body {number}");
        assert_eq!(client.post("/", body.as_bytes()).text(), body);
    }
    client.expect_idle();
    assert_eq!(origin.backend().accepted(), 1);
}

#[test]
fn a_connection_upstream_serves_one_client_after_the_other() {
    let origin = Origin::named("o");
    // With one worker there is one pool.
    let proxy = start(&format!("workers = 1\n{}", site(origin.addr())));
    let addr = proxy.tcp("h");
    for _ in 0..20 {
        assert_eq!(Client::connect(&addr).get("/").text(), "o");
    }
    assert_eq!(origin.backend().accepted(), 1);
}

#[test]
fn requests_sent_at_once_are_answered_in_their_order() {
    let origin = Origin::start(|call| {
        let target = call.head.target().to_owned();
        call.reply(&Reply::new(200, target))
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    let mut all = String::new();
    for number in 0..100 {
        all += &match number % 3 {
            0 => format!("GET /{number} HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            1 => format!("POST /{number} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 7\r\n\r\nGET /x "),
            _ => format!(
                "PUT /{number} HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
        };
    }
    client.send(all);
    for number in 0..100 {
        assert_eq!(client.response().text(), format!("/{number}"));
    }
    client.expect_idle();
    let targets: Vec<String> = origin.requests().iter().map(|r| r.head.target().to_owned()).collect();
    assert_eq!(targets, (0..100).map(|number| format!("/{number}")).collect::<Vec<_>>());
}

#[test]
fn who_asks_for_the_end_gets_it() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    for connection in ["close", "Close", "x, close", "close, TE"] {
        let mut client = Client::connect(&proxy.tcp("h"));
        client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: {connection}\r\n\r\n"));
        let response = client.response();
        assert!(response.head.lists("connection", "close"), "{response:?}");
        client.expect_closed();
    }
    // That was the client's wish for its own connection.
    for request in origin.requests() {
        assert!(!request.head.lists("connection", "close"), "{request:?}");
    }
}

#[test]
fn requests_after_the_last_one_are_not_served() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(
        "GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\nHost: a.example\r\n\r\n",
    );
    assert_eq!(client.response().text(), "o");
    client.expect_closed();
    assert_eq!(origin.request().head.target(), "/a");
}

#[test]
fn a_client_of_1_0_has_one_request_unless_it_asks_for_more() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response().text(), "o");
    client.expect_closed();
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nHost: a.example\r\nConnection: Keep-Alive\r\n\r\n");
        let response = client.response();
        assert_eq!(response.text(), "o");
        assert!(response.head.lists("connection", "keep-alive"), "{response:?}");
    }
    client.expect_idle();
    // Towards the origin it is 1.1 and a connection to keep.
    assert!(origin.requests().iter().all(|request| request.head.start.ends_with("HTTP/1.1")));
}

#[test]
fn a_request_of_1_0_needs_no_host() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().text(), "o");
    assert!(origin.request().head.has("host"), "a request of 1.1 has one");
}

#[test]
fn an_origin_that_closes_each_time_is_dialled_each_time() {
    for farewell in ["Connection: close\r\n", ""] {
        let origin = Origin::start(move |call| {
            call.reply(&Reply::with(200, farewell, "bye"))?;
            call.close();
            Ok(())
        });
        let proxy = start(&site(origin.addr()));
        let mut client = Client::connect(&proxy.tcp("h"));
        for turn in 1..=10 {
            let response = client.get("/");
            assert_eq!(response.text(), "bye");
            assert!(!response.head.lists("connection", "close"), "the client's connection stays");
            // Closed before it is taken again: a race would hide what is looked for.
            eventually("the origin's close", || origin.backend().active() == 0);
            assert_eq!(origin.requests().len(), turn);
        }
        client.expect_idle();
    }
}

#[test]
fn a_connection_that_dies_at_its_next_request_is_replaced_where_that_is_safe() {
    // Each connection serves one request and, as if its idle time were over, none after that.
    let origin = Origin::start(|call| {
        if call.turn() > 0 {
            call.close();
            return Ok(());
        }
        call.reply(&Reply::new(200, "fresh"))
    });
    let proxy = start(&format!("workers = 1\n{}", site(origin.addr())));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "fresh");
    }
    // It may have been done already: nobody but the client can know.
    assert_eq!(client.post("/", b"pay").status(), 502);
    let posts = origin.requests().iter().filter(|request| request.head.method() == "POST").count();
    assert_eq!(posts, 1);
}

#[test]
fn bytes_that_nobody_asked_for_never_answer_the_next_request() {
    const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let (served, poisoned) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let done = poisoned.clone();
    let origin = Origin::start(move |call| {
        let number = served.fetch_add(1, Ordering::SeqCst);
        let answer = Reply::new(200, number.to_string());
        // With the answer itself, and behind it: there it meets a connection that is idle already.
        if number % 2 == 0 {
            call.send([&answer.0, POISON.as_bytes()].concat())?;
        } else {
            call.reply(&answer)?;
            call.send(POISON)?;
        }
        done.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let proxy = start(&format!("workers = 1\n{}", site(origin.addr())));
    let addr = proxy.tcp("h");
    let mut client = Client::connect(&addr);
    for number in 0..40 {
        // In the first half each client has a connection of its own, and the same pool behind it.
        if number < 20 {
            client = Client::connect(&addr);
        }
        assert_eq!(client.get("/").text(), number.to_string());
        eventually("the poison", || poisoned.load(Ordering::SeqCst) > number);
    }
}

#[test]
fn an_idle_client_is_sent_away_in_time_and_an_early_one_is_not() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), "timeouts = { keepalive = \"2s\" }"));
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..3 {
        client.get("/");
        std::thread::sleep(Duration::from_millis(700));
    }
    client.get("/");
    client.expect_closed();
}

#[test]
fn a_connection_ends_after_its_number_of_requests() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), "limits = { requests_per_connection = 3 }"));
    let mut client = Client::connect(&proxy.tcp("h"));
    assert!(!client.get("/").head.lists("connection", "close"));
    assert!(!client.get("/").head.lists("connection", "close"));
    assert!(client.get("/").head.lists("connection", "close"));
    client.expect_closed();
}

#[test]
fn no_more_idle_connections_are_kept_than_allowed() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        wait.wait();
        call.reply(&Reply::new(200, "o"))
    });
    let upstream = group("g", &[origin.addr().to_string()], "[upstream.g.keepalive]\nmax_idle = 2");
    let config = format!("workers = 1\n{upstream}{}", one_route("reverse_proxy = \"g\""));
    let proxy = start(&config);
    let addr = proxy.tcp("h");
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&addr)).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    }
    origin.wait_requests(8);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().text(), "o");
    }
    eventually("six of eight to be closed", || origin.backend().active() == 2);
}

#[test]
fn an_idle_connection_upstream_is_closed_in_time() {
    let origin = Origin::named("o");
    let upstream =
        group("g", &[origin.addr().to_string()], "[upstream.g.keepalive]\nidle_timeout = \"300ms\"");
    let proxy = start(&format!("{upstream}{}", one_route("reverse_proxy = \"g\"")));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.get("/");
    origin.backend().wait_idle();
    client.get("/");
    assert_eq!(origin.ways(), [0, 1]);
}

#[test]
fn without_keepalive_no_connection_is_kept() {
    let origin = Origin::named("o");
    let upstream = group("g", &[origin.addr().to_string()], "[upstream.g.keepalive]\nmax_idle = 0");
    let proxy = start(&format!("{upstream}{}", http("", &route("reverse_proxy = \"g\""))));
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..3 {
        client.get("/");
        origin.backend().wait_idle();
    }
    assert_eq!(origin.ways(), [0, 1, 2]);
}

#[test]
fn connections_that_wait_for_a_request_cost_little_memory() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let addr = proxy.tcp("h");
    let open_all = |count| -> Vec<Client> {
        let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(&addr)).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
        clients
    };
    let warm = open_all(100);
    let before = proxy.memory_kb();
    let more = open_all(1_000);
    let memory = proxy.memory_kb().saturating_sub(before);
    assert!(memory < 6_000, "{memory} KiB for 1000 connections without a request");
    drop((warm, more));
}
