//! Streams that become something other than HTTP (RFC 8441), towards clients and towards peers.

use std::future::poll_fn;

use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use wmproxy_http::options::{EndpointSpec, HttpOptions};
use wmproxy_http::vars::Template;
use wmproxy_net::record::Outcome;
use wmproxy_testkit::h2::{Bytes, Client, request};
use wmproxy_testkit::http::{Origin, Reply};
use wmproxy_testkit::{Gate, Pattern};
use wmproxy_wire::websocket::handshake::accept_key;

use crate::h2::before_house;
use crate::house::{House, eventually, reverse, spec};

/// Of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Grants every WebSocket, then sends back what comes.
fn switching() -> Origin {
    Origin::start(|call| {
        let key = call.head.get("sec-websocket-key").unwrap_or_default();
        let proof = String::from_utf8_lossy(&accept_key(key)).into_owned();
        let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
        call.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}{proof}\r\n\r\n"))?;
        call.echo()
    })
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// Asks for something else than HTTP, and gives the status and both directions.
fn connect(client: &mut Client, path: &str, protocol: &'static str) -> (u16, SendStream<Bytes>, RecvStream) {
    let mut request = request("CONNECT", path);
    request.extensions_mut().insert(Protocol::from_static(protocol));
    client.run(|mut send| async move {
        // The proxy's word that it may be asked is its first.
        while !send.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        send = send.ready().await.unwrap();
        let (answer, sink) = send.send_request(request, false).unwrap();
        let (head, source) = answer.await.unwrap().into_parts();
        (head.status.as_u16(), sink, source)
    })
}

/// Says something, hears it again, and both ends.
fn assert_echo(client: &mut Client, sink: SendStream<Bytes>, source: RecvStream) {
    let said = Pattern::new(5).bytes(0, 3_000_000);
    let body = Bytes::from(said.clone());
    let heard = client.run(|_| async move {
        let (up, down) = futures_util::join!(
            wmproxy_testkit::h2::upload(sink, body, None),
            wmproxy_testkit::h2::download(source),
        );
        up.unwrap();
        down.unwrap().0
    });
    assert!(heard == said);
}

#[test]
fn websockets_pass_by_every_pair_of_versions() {
    let origin = switching();
    let inner = House::before(&[origin.addr().inet()]);
    let outer = before_house(&inner);
    for house in [&inner, &outer] {
        let mut client = Client::connect(&house.addr().into());
        let (status, sink, source) = connect(&mut client, "/ws", "websocket");
        assert_eq!(status, 200);
        assert_echo(&mut client, sink, source);
        let mut plain = house.connect();
        plain.send(upgrade("/ws"));
        let head = plain.head();
        assert_eq!((head.status(), head.get("sec-websocket-accept")), (101, Some(PROOF)));
        assert!(head.lists("connection", "upgrade") && head.lists("upgrade", "websocket"), "{head:?}");
        plain.send("hello");
        assert_eq!(plain.recv(5), b"hello");
        plain.finish();
        plain.expect_closed();
    }
    for request in origin.requests() {
        assert_eq!((request.head.method(), request.head.target()), ("GET", "/ws"));
        assert_eq!(request.head.get("upgrade"), Some("websocket"));
    }
    assert_eq!(outer.lines(2)[0], "GET /ws 200 3000000/3000000");
    outer.assert_nothing_left();
}

#[test]
fn what_is_no_grant_is_none() {
    let origin = Origin::start(|call| match call.head.target() {
        "/refused" => call.reply(&Reply::new(403, "no")),
        "/plain" => call.reply(&Reply::new(200, "a page")),
        _ => call.send(format!(
            "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {PROOF}\r\n\r\n"
        )),
    });
    let house = House::before(&[origin.addr().inet()]);
    let mut client = Client::connect(&house.addr().into());
    assert_eq!(connect(&mut client, "/refused", "websocket").0, 403);
    // It would open the client's WebSocket.
    assert_eq!(connect(&mut client, "/plain", "websocket").0, 502);
    // Proof of another key.
    assert_eq!(connect(&mut client, "/liar", "websocket").0, 502);
    house.lines(3);
    drop(client);
    house.assert_nothing_left();
}

#[test]
fn who_knows_nothing_of_it_does_not_grant_it() {
    let endpoint = EndpointSpec::Respond {
        status: 200,
        body: Template::parse("hello").unwrap(),
        content_type: "text/plain".into(),
    };
    let house = House::with(spec(HttpOptions::default(), endpoint), &[]);
    let mut client = Client::connect(&house.addr().into());
    assert_eq!(connect(&mut client, "/", "websocket").0, 501);
    assert_eq!(client.get("/").text(), "hello");
    // A CONNECT to anywhere is for a forward proxy.
    let plain = http::Request::builder().method("CONNECT").uri("b.example:443").body(()).unwrap();
    assert_eq!(client.ask(plain, b"", None).status, 501);
}

#[test]
fn a_reset_is_passed_on_and_no_end() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        let proof = accept_key(call.head.get("sec-websocket-key").unwrap_or_default());
        let proof = String::from_utf8_lossy(&proof).into_owned();
        let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
        call.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}{proof}\r\n\r\n"))?;
        if call.head.target() == "/leaves" {
            // When the grant has arrived.
            call.socket().recv(1);
            call.reset();
            return Ok(());
        }
        call.wait_end()?;
        wait.open();
        Ok(())
    });
    let house = House::before(&[origin.addr().inet()]);
    let mut client = Client::connect(&house.addr().into());
    let (status, mut sink, mut source) = connect(&mut client, "/leaves", "websocket");
    assert_eq!(status, 200);
    sink.send_data(Bytes::from_static(b"x"), false).unwrap();
    let end = client.run(|_| async move { source.data().await });
    assert!(end.is_some_and(|end| end.is_err()), "an end that looks like a good one");
    let (_, mut sink, source) = connect(&mut client, "/stays", "websocket");
    sink.send_reset(Reason::CANCEL);
    drop((sink, source));
    client.get("/stays-not-a-websocket-but-moves-the-connection");
    gate.wait();
    drop(client);
    house.assert_nothing_left();
}

#[test]
fn a_silent_one_is_ended() {
    let origin = switching();
    let options = toml::from_str("timeouts = { upgrade = \"50ms\" }").unwrap();
    let house = House::with(spec(options, reverse()), &[origin.addr().inet()]);
    let mut client = Client::connect(&house.addr().into());
    let (status, mut sink, source) = connect(&mut client, "/", "websocket");
    assert_eq!(status, 200);
    client.run(|_| poll_fn(move |cx| sink.poll_reset(cx))).unwrap();
    drop(source);
    eventually(|| origin.backend().active() == 0);
    drop(client);
    house.assert_nothing_left();
    assert_eq!(house.log.outcomes.lock().unwrap().as_slice(), [Outcome::Done]);
}
