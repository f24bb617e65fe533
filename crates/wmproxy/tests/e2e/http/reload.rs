//! A new configuration under clients that stay connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wmproxy_testkit::http::Reply;
use wmproxy_testkit::{Client, Gate, Origin, eventually};

use super::site;
use crate::start;

#[test]
fn the_next_request_of_a_kept_connection_takes_the_new_routes() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let proxy = start(&site(old.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    assert_eq!(client.get("/").text(), "old");
    proxy.reload_with(&site(new.addr()));
    assert_eq!(client.get("/").text(), "new");
    client.expect_idle();
    // The old pool is gone with its generation.
    old.backend().wait_idle();
}

#[test]
fn a_request_under_way_ends_as_it_began() {
    let gate = Gate::new();
    let wait = gate.clone();
    let old = Origin::start(move |call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfirst ")?;
        wait.wait();
        call.send("it")
    });
    let new = Origin::named("new");
    let proxy = start(&site(old.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    client.head();
    assert_eq!(client.recv(6), b"first ");
    proxy.reload_with(&site(new.addr()));
    gate.open();
    assert_eq!(client.recv(2), b"it");
    assert_eq!(client.get("/").text(), "new");
}

#[test]
fn a_websocket_stays_where_it_is() {
    let old = Origin::start(|call| {
        if !call.head.has("upgrade") {
            return call.reply(&Reply::new(200, "old"));
        }
        call.send("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")?;
        call.echo()
    });
    let new = Origin::named("new");
    let proxy = start(&site(old.addr()));
    let addr = proxy.tcp("h");
    let mut socket = Client::connect(&addr);
    socket.send("GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(socket.head().status(), 101);
    proxy.reload_with(&site(new.addr()));
    assert_eq!(Client::connect(&addr).get("/").text(), "new");
    socket.send("still here");
    assert_eq!(socket.recv(10), b"still here");
}

#[test]
fn no_request_fails_while_configurations_come_and_go() {
    let origins = [Origin::named("one"), Origin::named("two")];
    let proxy = start(&site(origins[0].addr()));
    let addr = proxy.tcp("h");
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        for kept in [true, false] {
            let (addr, done) = (addr.clone(), done.clone());
            scope.spawn(move || {
                let mut client = Client::connect(&addr);
                let mut count = 0;
                while !done.load(Ordering::SeqCst) {
                    if !kept {
                        client = Client::connect(&addr);
                    }
                    let answer = client.post("/", b"0123456789");
                    assert_eq!(answer.text(), "0123456789");
                    count += 1;
                }
                assert!(count > 10, "only {count} requests");
            });
        }
        for round in 1..=10 {
            proxy.reload_with(&site(origins[round % 2].addr()));
        }
        done.store(true, Ordering::SeqCst);
    });
    proxy.rebase();
}

#[test]
fn a_stop_lets_requests_end_and_sends_idle_clients_away() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        if call.head.target() == "/slow" {
            wait.wait();
        }
        call.reply(&Reply::new(200, "done"))
    });
    let mut proxy = start(&site(origin.addr()));
    let addr = proxy.tcp("h");
    let (mut idle, mut busy) = (Client::connect(&addr), Client::connect(&addr));
    assert_eq!(idle.get("/").text(), "done");
    busy.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n");
    origin.wait_requests(2);
    proxy.signal(rustix::process::Signal::TERM);
    idle.expect_closed();
    eventually("no more connections", || wmproxy_testkit::Conn::try_connect(&addr).is_err());
    gate.open();
    let last = busy.response();
    assert_eq!(last.text(), "done");
    assert!(last.head.lists("connection", "close"), "{:?}", last.head);
    busy.expect_closed();
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn who_has_just_come_is_answered_though_the_listener_goes() {
    let origin = Origin::named("o");
    let anchor = site(origin.addr());
    let with = format!("{anchor}{}", anchor.replace("name = \"h\"", "name = \"x\""));
    let mut proxy = start(&with);
    let last_words = |mut client: Client| {
        let response = client.get("/");
        assert_eq!(response.text(), "o");
        assert!(response.head.lists("connection", "close"), "{:?}", response.head);
        client.expect_closed();
    };
    let client = Client::connect(&proxy.tcp("x"));
    eventually("the connection to be accepted", || proxy.active() == 1);
    proxy.reload_with(&anchor);
    last_words(client);
    let (client, idle) = (Client::connect(&proxy.tcp("h")), Client::connect(&proxy.tcp("h")));
    eventually("the connections to be accepted", || proxy.active() == 2);
    let begun = std::time::Instant::now();
    proxy.signal(rustix::process::Signal::TERM);
    // Who asks before the signal has come through is answered as ever.
    eventually("the drain to begin", || proxy.status()["draining"] == true);
    last_words(client);
    // Who asks for nothing does not hold the stop up for long.
    assert_eq!(proxy.wait(), Some(0));
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
    drop(idle);
}
