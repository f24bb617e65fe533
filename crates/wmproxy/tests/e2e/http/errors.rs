//! Origins and clients that fail at every stage: what the other side is told, and what is left behind, which is
//! nothing. The teardown of each test looks for connections, tasks and descriptors that stayed.

use wmproxy_testkit::backend::{Backend, Unreachable};
use wmproxy_testkit::http::Reply;
use wmproxy_testkit::tcp::Closed;
use wmproxy_testkit::{Client, Gate, Origin, eventually};

use super::{one_route, site};
use crate::{ACCESS_LOG, group, start};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

#[test]
fn a_refused_connection_is_a_502_and_the_client_stays() {
    let closed = Closed::new();
    let proxy = start(&site(closed.addr()));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..3 {
        let status = client.get("/").status();
        // Once the only peer is ejected there is none to ask.
        assert!([502, 503].contains(&status), "{status}");
    }
    client.expect_idle();
}

#[test]
fn a_connection_that_never_comes_is_a_504() {
    let unreachable = Unreachable::new();
    let upstream = group("g", &[unreachable.addr().to_string()], "connect_timeout = \"300ms\"");
    let proxy = start(&format!("{upstream}{}", one_route("reverse_proxy = \"g\"")));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    assert_eq!(client.get("/").status(), 504);
    client.expect_idle();
}

#[test]
fn an_origin_without_peers_is_a_503() {
    let origin = Origin::named("o");
    let server = format!("{{ address = \"{}\", down = true }}", origin.addr());
    let proxy = start(&format!("{}{}", group("g", &[server], ""), one_route("reverse_proxy = \"g\"")));
    let mut client = Client::connect(&proxy.tcp("h"));
    assert_eq!(client.get("/").status(), 503);
    client.expect_idle();
    assert_eq!(origin.backend().accepted(), 0);
}

#[test]
fn an_origin_that_takes_too_long_is_a_504() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        wait.wait();
        call.reply(&Reply::new(200, "late"))
    });
    let lines = format!("reverse_proxy = {{ upstream = \"{}\", timeout = \"300ms\" }}", origin.addr());
    let proxy = start(&one_route(&lines));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    assert_eq!(client.get("/").status(), 504);
    gate.open();
    origin.backend().wait_idle();
    // The late answer is nobody's.
    assert_ne!(client.get("/").text(), "nobody's");
}

/// Origins that end before, in and after each part of an answer; with a FIN and with a reset.
#[test]
fn an_origin_may_end_at_every_stage() {
    // The answer so far, and whether its head is whole.
    let stages = [
        ("", false),
        ("HTTP/1.1 20", false),
        ("HTTP/1.1 200 OK\r\nContent-Le", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", false),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhal", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n", true),
    ];
    let origin = Origin::start(move |call| {
        let number: usize = call.head.target()[1..].parse().unwrap();
        call.read_body()?;
        call.send(stages[number / 2].0)?;
        if number.is_multiple_of(2) {
            call.close()
        } else {
            call.reset()
        }
        Ok(())
    });
    // No passive health here: each stage shall meet the peer.
    let upstream = group("g", &[origin.addr().to_string()], "max_fails = 1000\nretries = 0");
    let proxy = start(&format!("{ACCESS_LOG}{upstream}{}", one_route("reverse_proxy = \"g\"")));
    let addr = proxy.tcp("h");
    for number in 0..stages.len() * 2 {
        let (answer, whole) = stages[number / 2];
        for method in ["GET", "POST"] {
            let mut client = Client::connect(&addr);
            client.send(format!(
                "{method} /{number} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi"
            ));
            if whole {
                let (reader, what) = (client.reader(), format!("{answer:?}, {method} {number}"));
                // Nothing at all is fair, too: the reset may have overtaken what was sent before it.
                if let Ok(Some(head)) = reader.head()
                    && head.status() != 502
                {
                    assert_eq!(head.status(), 200, "{what}");
                    let end = client.body(head.response_framing(method).unwrap(), |_| {});
                    assert!(end.is_err(), "{what} looked whole");
                }
            } else {
                let response = client.response_to(method);
                assert_eq!(response.status(), 502, "{answer:?}, {method} {number}");
            }
        }
    }
    origin.backend().wait_idle();
    let records = proxy.access_log(stages.len() * 4);
    assert!(
        records.iter().all(|record| record["status"] == 502 || record["outcome"] != "done"),
        "{records:#?}"
    );
}

#[test]
fn an_origin_that_resets_at_once_is_a_502() {
    let origin = Backend::resets();
    let upstream = group("g", &[origin.addr().to_string()], "max_fails = 1000");
    let proxy = start(&format!("{upstream}{}", one_route("reverse_proxy = \"g\"")));
    let addr = proxy.tcp("h");
    let mut client = Client::connect(&addr);
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), 502);
        let response = client.post("/", b"x");
        assert_eq!(response.status(), 502);
        // A body that was not passed on may end the connection, which is said then.
        if !response.head.keeps_alive() {
            client.expect_closed();
            client = Client::connect(&addr);
        }
    }
}

#[test]
fn a_client_may_leave_at_every_stage() {
    let origin = Origin::start(|call| {
        let body = call.read_body()?;
        // More than the buffers take: the proxy is in the middle of it when its client goes.
        call.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 8 << 20))?;
        for _ in 0..128 {
            call.send(vec![body.len() as u8; 65_536])?;
        }
        Ok(())
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", site(origin.addr())));
    let addr = proxy.tcp("h");
    let whole = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\n0123456789";
    for end in 0..=whole.len() {
        let mut client = Client::connect(&addr);
        client.send(&whole[..end]);
        if end % 2 == 0 { client.reset() } else { drop(client) }
    }
    let chunked = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: b\r\n\r\n";
    for end in chunked.find("\r\n\r\n").unwrap()..=chunked.len() {
        let mut client = Client::connect(&addr);
        client.send(&chunked[..end]);
        if end % 2 == 0 { client.reset() } else { drop(client) }
    }
    // In the middle of an answer.
    for part in [1, 1_000, 100_000, 4 << 20] {
        let mut client = Client::connect(&addr);
        client.send(GET);
        client.recv(part);
        client.reset();
    }
    eventually("all to be over", || proxy.active() == 0);
    // The origin is none the worse for it.
    let mut client = Client::connect(&addr);
    client.send(GET);
    assert_eq!(client.response().body.len(), 8 << 20);
    for record in proxy.access_log(2) {
        assert!(record["status"] != 502 && record["outcome"] != "peer_reset", "{record}");
    }
}

#[test]
fn a_client_that_leaves_while_its_answer_is_awaited_frees_the_peer() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        if call.head.target() == "/slow" {
            call.wait_end()?;
            wait.open();
            call.close();
            return Ok(());
        }
        call.reply(&Reply::new(200, "free"))
    });
    let server = format!("{{ address = \"{}\", max_connections = 1 }}", origin.addr());
    let proxy = start(&format!("{}{}", group("g", &[server], ""), one_route("reverse_proxy = \"g\"")));
    let addr = proxy.tcp("h");
    let mut client = Client::connect(&addr);
    client.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n");
    origin.wait_requests(1);
    client.reset();
    // The origin learns of it, and its one place is free again.
    gate.wait();
    assert_eq!(Client::connect(&addr).get("/").text(), "free");
}

#[test]
fn a_client_that_has_said_all_may_close_its_half() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        wait.wait();
        call.reply(&Reply::new(200, "still"))
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(GET);
    client.finish();
    origin.wait_requests(1);
    gate.open();
    assert_eq!(client.response().text(), "still");
    client.expect_closed();
}

#[test]
fn the_answers_of_the_proxy_itself_are_plain_and_give_nothing_away() {
    let closed = Closed::new();
    let proxy = start(&site(closed.addr()));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    let response = client.get("/<script>alert(1)</script>");
    assert!(response.status() >= 502);
    let text = format!("{:?} {}", response.head, String::from_utf8_lossy(&response.body));
    assert!(!text.contains("script>"), "{text}");
    assert!(!text.contains(&closed.addr().to_string()), "an address inside: {text}");
    client.send("HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let head = client.response_to("HEAD");
    assert!(head.status() >= 502);
    client.expect_idle();
}
