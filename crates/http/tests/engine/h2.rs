//! HTTP/2 towards clients and towards peers.

use wmproxy_http::options::{EndpointSpec, HttpOptions};
use wmproxy_http::vars::Template;
use wmproxy_testkit::Pattern;
use wmproxy_testkit::h2::{Client, HeaderMap, request};
use wmproxy_testkit::http::{Origin, Reply};

use crate::house::{House, reverse, spec};

fn echo() -> Origin {
    Origin::start(|call| {
        let body = call.read_body()?;
        call.reply(&Reply::new(200, body))
    })
}

/// Before a house, which it talks to by HTTP/2.
pub(crate) fn before_house(house: &House) -> House {
    let mut endpoint = reverse();
    if let EndpointSpec::Reverse(to) = &mut endpoint {
        to.h2 = true;
    }
    House::with(spec(HttpOptions::default(), endpoint), &[house.addr()])
}

#[test]
fn a_connection_carries_many_requests_at_once() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let house = House::before(&[origin.addr().inet()]);
    let mut client = Client::connect(&house.addr().into());
    assert_eq!(client.get("/a?b").text(), "hello");
    let paths: Vec<_> = (0..300).map(|n| format!("/{n}")).collect();
    assert!(client.get_all(&paths).iter().all(|answer| answer.status == 200 && answer.text() == "hello"));
    assert_eq!(house.lines(301)[0], "GET /a?b 200 0/5");
    drop(client);
    house.assert_nothing_left();
}

#[test]
fn bodies_and_heads_pass_between_versions() {
    let origin = echo();
    let house = House::before(&[origin.addr().inet()]);
    let mut client = Client::connect(&house.addr().into());
    let large = Pattern::new(2).bytes(0, 3_000_000);
    assert_eq!(client.post("/", &large).body, large);
    let head = client.ask(request("HEAD", "/"), b"", None);
    assert_eq!((head.status, head.body.len()), (200, 0));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checked", "yes".parse().unwrap());
    assert_eq!(client.ask(request("POST", "/trailers"), b"some", Some(trailers)).text(), "some");
    let mut te = request("GET", "/te");
    te.headers_mut().insert("te", "trailers".parse().unwrap());
    assert_eq!(client.ask(te, b"", None).status, 200);
    assert_eq!(origin.requests()[3].head.get("te"), Some("trailers"));
    house.lines(4);
    drop(client);
    house.assert_nothing_left();
}

#[test]
fn trailers_and_bodies_pass_from_end_to_end() {
    let origin = Origin::says(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 4\r\n\r\n",
    );
    let inner = House::before(&[origin.addr().inet()]);
    let outer = before_house(&inner);
    let mut client = Client::connect(&outer.addr().into());
    let answer = client.ask(request("GET", "/"), b"", None);
    assert_eq!((answer.status, answer.text()), (200, "body"));
    assert_eq!(answer.trailers.unwrap()["x-sum"], "4");
    let mut plain = outer.connect();
    assert_eq!(plain.get("/").text(), "body");
    inner.lines(2);
    outer.lines(2);
    drop((client, plain));
    outer.assert_nothing_left();
}

#[test]
fn requests_share_a_connection_to_a_peer() {
    let origin = echo();
    let inner = House::before(&[origin.addr().inet()]);
    let outer = before_house(&inner);
    let mut client = Client::connect(&outer.addr().into());
    let paths: Vec<_> = (0..90).map(|n| format!("/{n}")).collect();
    assert!(client.get_all(&paths).iter().all(|answer| answer.status == 200));
    let large = Pattern::new(3).bytes(0, 2_000_000);
    assert_eq!(client.post("/", &large).body, large);
    let accepted = inner.listener.metrics.blocks.sum(|block| &block.accepted);
    assert_eq!(accepted, 1, "connections to the peer");
    let idle = || outer.group.as_ref().unwrap().snapshot(0).connections.map(|connections| connections.idle);
    crate::house::eventually(|| idle() == Some(1));
}

#[test]
fn a_client_that_does_not_read_stops_its_peer_and_nobody_else() {
    let size = 64 << 20;
    let origin = Origin::start(move |call| {
        let body = if call.head.target() == "/large" { vec![7; size] } else { b"small".to_vec() };
        call.reply(&Reply::new(200, body))
    });
    let house = House::before(&[origin.addr().inet()]);
    let mut client = Client::connect(&house.addr().into());
    let held = client.run(|send| async move {
        let (answer, _) = send.ready().await.unwrap().send_request(request("GET", "/large"), true).unwrap();
        answer.await.unwrap().into_body()
    });
    assert_eq!(client.get("/small").text(), "small");
    let sent = house.listener.metrics.blocks.sum(|block| &block.bytes_out);
    assert!(sent < 4 << 20, "{sent} bytes for one who does not read");
    drop(held);
}

#[test]
fn a_drain_lets_what_is_under_way_end() {
    let (ask, asked) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::start(move |call| {
        ask.send(()).unwrap();
        gone.lock().unwrap().recv().unwrap();
        call.reply(&Reply::new(200, "late"))
    });
    let house = House::before(&[origin.addr().inet()]);
    let mut client = Client::connect(&house.addr().into());
    let answer = client.run(|send| async move {
        // It is waited for later.
        Some(send.ready().await.unwrap().send_request(request("GET", "/"), true).unwrap().0)
    });
    client.idle(std::time::Duration::from_millis(1));
    asked.recv().unwrap();
    house.retire();
    go.send(()).unwrap();
    let status = client.run(|_| async move { answer.unwrap().await.unwrap().status() });
    assert_eq!(status, 200);
    house.lines(1);
    client.idle(std::time::Duration::from_millis(1));
    house.assert_nothing_left();
}

#[test]
fn the_next_request_is_for_whoever_serves_now() {
    let origin = echo();
    let house = House::before(&[origin.addr().inet()]);
    let mut client = Client::connect(&house.addr().into());
    assert_eq!(client.post("/", b"old").text(), "old");
    let body = Template::parse("new").unwrap();
    let endpoint = EndpointSpec::Respond { status: 200, body, content_type: "text/plain".into() };
    house.replace(spec(HttpOptions::default(), endpoint));
    assert_eq!(client.get("/").text(), "new");
    assert_eq!(house.listener.metrics.active(), 1);
}
