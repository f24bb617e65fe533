//! A forward proxy over HTTP/2.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use wmproxy_net::record::Outcome;
use wmproxy_testkit::h2::{Bytes, Client, download, upload};
use wmproxy_testkit::http::Origin;
use wmproxy_testkit::{Backend, Pattern};
use wmproxy_wire::websocket::handshake::accept_key;

use super::gate::{ALICE, Proxy};
use crate::allocations::held_by_worker;

pub(super) fn connect(client: &mut Client, to: &str) -> (u16, SendStream<Bytes>, RecvStream) {
    let request = http::Request::builder().method("CONNECT").uri(to).body(()).unwrap();
    client.run(|send| async move {
        let (answer, sink) = send.ready().await.unwrap().send_request(request, false).unwrap();
        let (head, source) = answer.await.unwrap().into_parts();
        (head.status.as_u16(), sink, source)
    })
}

#[test]
fn requests_and_tunnels_share_a_connection() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let echo = Backend::echo();
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet()), ("b.example:443", echo.addr().inet())]);
    let mut client = Client::connect(&proxy.house.addr().into());
    let (status, sink, source) = connect(&mut client, "b.example:443");
    assert_eq!(status, 200);
    let plain = http::Request::get("http://a.example/x").body(()).unwrap();
    assert_eq!(client.ask(plain, b"", None).text(), "hello");
    let asked = origin.request().head;
    assert_eq!((asked.target(), asked.get("host")), ("/x", Some("a.example")));
    assert!(asked.get("via").unwrap().starts_with("2.0 wmproxy-"), "{asked:?}");
    let said = Pattern::new(5).bytes(0, 3_000_000);
    let body = Bytes::from(said.clone());
    let heard = client.run(|_| async move {
        let (up, down) = futures_util::join!(upload(sink, body, None), download(source));
        up.unwrap();
        down.unwrap().0
    });
    assert!(heard == said);
    assert_eq!(proxy.house.lines(2), ["GET /x 200 0/5", "CONNECT b.example:443 200 3000000/3000000"]);
    drop(client);
    proxy.house.assert_nothing_left();
    assert_eq!(proxy.house.log.outcomes.lock().unwrap().as_slice(), [Outcome::Done]);
}

#[test]
fn what_is_refused_is_told_on_its_stream() {
    let proxy = Proxy::with(&[]);
    proxy.gate.is_closed.store(true, Ordering::Relaxed);
    let mut client = Client::connect(&proxy.house.addr().into());
    assert_eq!(connect(&mut client, "a.example:443").0, 407);
    let mut request = http::Request::builder().method("CONNECT").uri("a.example:443").body(()).unwrap();
    request.headers_mut().insert("proxy-authorization", ALICE.parse().unwrap());
    let answer = client.ask(request, b"", None);
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("has no address"), "{}", answer.text());
    // Without a port there is nothing to connect to.
    let portless = http::Request::builder().method("CONNECT").uri("a.example").body(()).unwrap();
    assert_eq!(client.ask(portless, b"", None).status, 400);
    let secure = http::Request::get("https://a.example/").body(()).unwrap();
    assert_eq!(client.ask(secure, b"", None).status, 400, "that is for the proxy itself");
}

#[test]
fn an_end_passes_as_an_end_and_a_reset_as_one() {
    let backend = Backend::start(|conn| {
        assert_eq!(conn.recv_all(), b"question");
        conn.send(b"answer");
        Ok(8)
    });
    let resetting = Backend::start(|conn| {
        conn.recv(1);
        conn.again()?.reset();
        Ok(1)
    });
    let reset = Backend::start(|conn| {
        conn.expect_reset();
        Ok(0)
    });
    let proxy = Proxy::with(&[
        ("a.example:1", backend.addr().inet()),
        ("b.example:1", resetting.addr().inet()),
        ("c.example:1", reset.addr().inet()),
    ]);
    let mut client = Client::connect(&proxy.house.addr().into());
    let (_, mut sink, source) = connect(&mut client, "a.example:1");
    sink.send_data(Bytes::from_static(b"question"), true).unwrap();
    assert_eq!(client.run(|_| async move { download(source).await.unwrap().0 }), b"answer");
    let (_, mut sink, mut source) = connect(&mut client, "b.example:1");
    sink.send_data(Bytes::from_static(b"x"), false).unwrap();
    let end = client.run(|_| async move { source.data().await }).unwrap().unwrap_err();
    assert_eq!(end.reason(), Some(Reason::CONNECT_ERROR));
    let (_, mut sink, source) = connect(&mut client, "c.example:1");
    sink.send_reset(Reason::CANCEL);
    drop((sink, source));
    assert_eq!(connect(&mut client, "d.example:1").0, 502, "the connection goes on");
    proxy.house.lines(4);
    drop(client);
    proxy.house.assert_nothing_left();
}

#[test]
fn the_bytes_of_a_tunnel_have_a_rate_and_an_end() {
    let echo = Backend::echo();
    let proxy = Proxy::with(&[("a.example:1", echo.addr().inet())]);
    *proxy.gate.rate.lock().unwrap() = Some("1m/s".parse().unwrap());
    let mut client = Client::connect(&proxy.house.addr().into());
    let (_, sink, source) = connect(&mut client, "a.example:1");
    let (body, began) = (Bytes::from(vec![7; 400_000]), Instant::now());
    let heard = client.run(|_| async move {
        let (up, down) = futures_util::join!(upload(sink, body, None), download(source));
        up.unwrap();
        down.unwrap().0
    });
    assert_eq!(heard.len(), 400_000);
    assert!(began.elapsed() > Duration::from_millis(200), "{:?}", began.elapsed());
    *proxy.gate.rate.lock().unwrap() = None;
    proxy.gate.quota.store(1_000_000, Ordering::Relaxed);
    let (_, sink, source) = connect(&mut client, "a.example:1");
    let body = Bytes::from(vec![7; 4_000_000]);
    let broken = client.run(|_| async move {
        let (up, down) = futures_util::join!(upload(sink, body, None), download(source));
        drop(up);
        down.map(|(came, _)| came.len()).map_err(|error| error.reason())
    });
    assert_eq!(broken, Err(Some(Reason::CONNECT_ERROR)));
    assert_eq!(proxy.house.lines(2).len(), 2);
}

#[test]
fn websockets_pass_by_extended_connect() {
    let origin = Origin::start(|call| {
        let proof = accept_key(call.head.get("sec-websocket-key").unwrap_or_default());
        let proof = String::from_utf8_lossy(&proof).into_owned();
        let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
        call.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}{proof}\r\n\r\n"))?;
        call.echo()
    });
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    let mut client = Client::connect(&proxy.house.addr().into());
    let mut ask = |url: &str| {
        let mut request = http::Request::builder().method("CONNECT").uri(url).body(()).unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        client.run(|mut send| async move {
            // The proxy's word that it may be asked is its first.
            while !send.is_extended_connect_protocol_enabled() {
                tokio::task::yield_now().await;
            }
            send = send.ready().await.unwrap();
            let (answer, mut sink) = send.send_request(request, false).unwrap();
            let (head, mut source) = answer.await.unwrap().into_parts();
            let status = head.status.as_u16();
            if status != 200 {
                return (status, None);
            }
            sink.send_data(Bytes::from_static(b"hello"), true).unwrap();
            (status, Some(source.data().await.unwrap().unwrap()))
        })
    };
    assert_eq!(ask("http://a.example/ws"), (200, Some(Bytes::from_static(b"hello"))));
    // Into TLS nobody here goes: that is for a CONNECT.
    assert_eq!(ask("https://a.example/ws").0, 501);
    let asked = origin.request().head;
    assert_eq!((asked.method(), asked.target(), asked.get("upgrade")), ("GET", "/ws", Some("websocket")));
}

#[test]
fn an_idle_tunnel_holds_little() {
    let echo = Backend::echo();
    let proxy = Proxy::with(&[("a.example:1", echo.addr().inet())]);
    let mut client = Client::connect(&proxy.house.addr().into());
    let mut open = |count: usize| {
        (0..count)
            .map(|_| {
                let (status, mut sink, mut source) = connect(&mut client, "a.example:1");
                assert_eq!(status, 200);
                sink.send_data(Bytes::from_static(b"hello"), false).unwrap();
                client.run(|_| async { source.data().await.unwrap().unwrap() });
                (sink, source)
            })
            .collect::<Vec<_>>()
    };
    let _few = open(66);
    let before = held_by_worker(&proxy.house);
    let _many = open(32);
    let each = (held_by_worker(&proxy.house) - before) / 32;
    assert!((500..6000).contains(&each), "{each} bytes");
}

#[test]
fn a_tunnel_that_nobody_reads_holds_only_itself_back() {
    let flood = Backend::start(|conn| {
        let piece = vec![7; 1 << 16];
        while conn.try_send(&piece).is_ok() {}
        Ok(0)
    });
    let origin = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let proxy = Proxy::with(&[("a.example:1", flood.addr().inet()), ("b.example:80", origin.addr().inet())]);
    let mut client = Client::connect(&proxy.house.addr().into());
    let (status, sink, source) = connect(&mut client, "a.example:1");
    assert_eq!(status, 200);
    for _ in 0..20 {
        let plain = http::Request::get("http://b.example/").body(()).unwrap();
        assert_eq!(client.ask(plain, b"", None).text(), "hello");
    }
    drop((sink, source));
    drop(client);
    proxy.house.assert_nothing_left();
}
