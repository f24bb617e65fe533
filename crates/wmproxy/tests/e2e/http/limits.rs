//! What is too much, and that just less is not.

use wmproxy_testkit::http::Reply;
use wmproxy_testkit::{Client, Origin};

use super::site_with;
use crate::start;

#[test]
fn too_many_bytes_or_fields_are_a_431() {
    let origin = Origin::named("o");
    let limits = "limits = { header_bytes = \"4k\", header_count = 20, target_bytes = \"1k\" }";
    let proxy = start(&site_with(origin.addr(), limits));
    let addr = proxy.tcp("h");
    let ask = |fields: &str| {
        let mut client = Client::connect(&addr);
        client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"));
        let response = client.response();
        if response.status() == 431 {
            client.expect_closed();
        }
        response.status()
    };
    assert_eq!(ask(&format!("X-A: {}\r\n", "b".repeat(3_900))), 200);
    assert_eq!(ask(&format!("X-A: {}\r\n", "b".repeat(4_200))), 431);
    assert_eq!(ask(&format!("X-A: {}\r\n", "b".repeat(200_000))), 431);
    assert_eq!(ask(&"X-A: b\r\n".repeat(19)), 200);
    assert_eq!(ask(&"X-A: b\r\n".repeat(20)), 431);
    assert_eq!(ask(&"X-A: b\r\n".repeat(300)), 431);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_target_that_is_too_long_is_a_414() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), "limits = { target_bytes = \"1k\" }"));
    let addr = proxy.tcp("h");
    assert_eq!(Client::connect(&addr).get(&format!("/{}", "a".repeat(1_000))).status(), 200);
    for length in [1_024, 5_000, 200_000] {
        let mut client = Client::connect(&addr);
        client.send(format!("GET /{} HTTP/1.1\r\nHost: a.example\r\n\r\n", "a".repeat(length)));
        assert_eq!(client.response().status(), 414, "{length}");
        client.expect_closed();
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_body_that_is_too_large_is_a_413() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), "limits = { body = \"1k\" }"));
    let addr = proxy.tcp("h");
    let mut client = Client::connect(&addr);
    assert_eq!(client.post("/", &[b'x'; 1_024]).body.len(), 1_024);
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_chunk(&[b'x'; 1_000]);
    client.send_chunk(&[b'y'; 24]);
    client.send("0\r\n\r\n");
    assert_eq!(client.response().body.len(), 1_024);
    // Said before anything of it comes, and before anything goes out.
    let before = origin.requests().len();
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1025\r\n\r\n");
    assert_eq!(client.response().status(), 413);
    assert_eq!(origin.requests().len(), before);
    // Known only on the way.
    let mut client = Client::connect(&addr);
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_chunk(&[b'x'; 1_000]);
    client.send_chunk(&[b'y'; 25]);
    assert_eq!(client.response().status(), 413);
    client.expect_closed();
}

#[test]
fn an_expectation_of_too_much_is_refused_before_it_is_sent() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), "limits = { body = \"1k\" }"));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 4096\r\n\r\n");
    assert_eq!(client.head().status(), 413);
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn many_clients_at_once_are_each_served() {
    let origin = Origin::start(|call| {
        let target = call.head.target().to_owned();
        call.reply(&Reply::new(200, target))
    });
    let proxy = start(&site_with(origin.addr(), ""));
    let addr = proxy.tcp("h");
    let mut clients: Vec<Client> = (0..500).map(|_| Client::connect(&addr)).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("GET /{round}/{number} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().text(), format!("/{round}/{number}"));
        }
    }
    assert_eq!(proxy.listener_number("h", "active"), 500);
}
