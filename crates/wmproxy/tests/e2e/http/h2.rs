//! HTTP/2 towards clients, by prior knowledge: what passes, what flows, and what is too much.

use std::io::Write as _;
use std::time::Duration;

use wmproxy_testkit::h2::{Client, Frame, HeaderMap, Kind, Raw, download, request, request_fields};
use wmproxy_testkit::http::Reply;
use wmproxy_testkit::{Gate, Origin, eventually};

use super::{one_route, site, site_with};
use crate::{ACCESS_LOG, start};

#[test]
fn a_request_and_its_answer_pass() {
    let origin =
        Origin::says("HTTP/1.1 203 Fine\r\nX-Answer: 42\r\nKeep-Alive: x\r\nContent-Length: 5\r\n\r\nhello");
    let proxy = start(&format!("{ACCESS_LOG}{}", site(origin.addr())));
    let mut client = Client::connect(&proxy.tcp("h"));
    let answer = client.get("/a?b=c");
    assert_eq!((answer.status, answer.text()), (203, "hello"));
    assert_eq!(answer.get("x-answer"), Some("42"));
    assert!(answer.get("keep-alive").is_none() && answer.get("connection").is_none());
    let request = origin.request();
    assert_eq!(request.head.start, "GET /a?b=c HTTP/1.1");
    assert_eq!(request.head.get("host"), Some("a.example"));
    assert!(request.head.get("via").unwrap().starts_with("2"), "{request:?}");
    assert_eq!(proxy.access_log(1)[0]["status"], 203);
}

#[test]
fn bodies_and_trailers_pass_in_both_directions() {
    let origin = Origin::start(|call| {
        let body = call.read_body()?;
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        call.send([format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\nX-Sum: 9\r\n\r\n"].concat())
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-up", "1".parse().unwrap());
    let body = vec![7; 300_000];
    let answer = client.ask(request("POST", "/"), &body, Some(trailers));
    assert!(answer.body == body);
    assert_eq!(answer.trailers.unwrap().get("x-sum").unwrap(), "9");
    assert_eq!(origin.request().trailers, [("x-up".to_owned(), "1".to_owned())]);
}

#[test]
fn a_hundred_streams_are_answered_at_once() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        wait.wait();
        let target = call.head.target().to_owned();
        call.reply(&Reply::new(200, target))
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    let paths: Vec<String> = (0..100).map(|number| format!("/{number}")).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            origin.wait_requests(100);
            gate.open();
        });
        for (answer, path) in client.get_all(&paths).iter().zip(&paths) {
            assert_eq!(answer.text(), path);
        }
    });
}

#[test]
fn heads_without_bodies_and_the_other_way_round() {
    let origin = Origin::start(|call| match call.head.target() {
        "/204" => call.send("HTTP/1.1 204 None\r\n\r\n"),
        "/304" => call.send("HTTP/1.1 304 Same\r\nContent-Length: 10\r\n\r\n"),
        "/head" => call.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        _ => {
            call.send("HTTP/1.1 200 OK\r\n\r\nto the end")?;
            call.close();
            Ok(())
        }
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    assert_eq!(client.get("/204").status, 204);
    assert_eq!(client.get("/304").status, 304);
    let answer = client.ask(request("HEAD", "/head"), b"", None);
    assert_eq!((answer.get("content-length"), answer.body.len()), (Some("10"), 0));
    assert_eq!(client.get("/close").text(), "to the end");
}

#[test]
fn a_body_cut_off_upstream_resets_its_stream_and_no_other() {
    let origin = Origin::start(|call| {
        if call.head.target() == "/bad" {
            call.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
            call.close();
            return Ok(());
        }
        call.reply(&Reply::new(200, "good"))
    });
    let proxy = start(&site(origin.addr()));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    assert!(client.try_ask(request("GET", "/bad"), b"", None).is_err());
    assert_eq!(client.get("/good").text(), "good");
}

#[test]
fn a_stream_that_is_reset_ends_its_request_upstream() {
    let gone = Gate::new();
    let went = gone.clone();
    let origin = Origin::start(move |call| {
        if call.head.target() != "/slow" {
            return call.reply(&Reply::new(200, "next"));
        }
        call.wait_end()?;
        went.open();
        call.close();
        Ok(())
    });
    let proxy = start(&site(origin.addr()));
    let mut raw = Raw::connect(&proxy.tcp("h"));
    raw.get(1, "/slow");
    origin.wait_requests(1);
    raw.send(Kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    gone.wait();
    raw.get(3, "/next");
    assert_eq!(raw.status(3), 200);
}

#[test]
fn who_does_not_read_slows_the_origin_and_holds_no_memory() {
    let origin = Origin::start(|call| {
        call.read_body()?;
        if call.head.target() == "/small" {
            return call.reply(&Reply::new(200, "small"));
        }
        call.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20))?;
        let part = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            call.socket().again()?.write_all(&part)?;
        }
        Ok(())
    });
    let proxy = start(&site_with(origin.addr(), "timeouts = { write = \"60s\" }"));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.get("/small");
    let before = proxy.memory_kb();
    // Nothing is read of it, while the others on the same connection go on.
    let held = client.run(|send| async move {
        let (answer, _) = send.ready().await.unwrap().send_request(request("GET", "/large"), true).unwrap();
        answer.await.unwrap()
    });
    for _ in 0..20 {
        assert_eq!(client.get("/small").text(), "small");
    }
    client.idle(Duration::from_millis(300));
    assert!(proxy.memory_kb() < before + 24 * 1024, "{} KiB, {before} before", proxy.memory_kb());
    let (body, _) = client.run(|_| download(held.into_body())).unwrap();
    assert_eq!(body.len(), 64 << 20);
}

#[test]
fn an_answer_that_comes_early_ends_the_upload() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 413 Enough\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")?;
        call.socket().finish();
        call.wait_end()?;
        call.close();
        Ok(())
    });
    let proxy = start(&site(origin.addr()));
    let mut raw = Raw::connect(&proxy.tcp("h"));
    raw.head(1, &request_fields("POST", "/"), false);
    raw.send(Kind::DATA, 0, 1, b"a first part");
    assert_eq!(raw.status(1), 413);
    assert_eq!(raw.wait(|frame| frame.kind == Kind::DATA && !frame.payload.is_empty()).payload, b"big");
    raw.send(Kind::DATA, 0, 1, b"a second part");
    // The connection goes on for others.
    raw.ping();
}

#[test]
fn a_drain_says_goaway_and_lets_streams_end() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        wait.wait();
        call.reply(&Reply::new(200, "done"))
    });
    let mut proxy = start(&site(origin.addr()));
    let mut raw = Raw::connect(&proxy.tcp("h"));
    raw.get(1, "/");
    origin.wait_requests(1);
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(raw.wait(|frame| frame.kind == Kind::GOAWAY).code(), 0);
    gate.open();
    assert_eq!(raw.status(1), 200);
    assert!(matches!(raw.end(), None | Some(0)));
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn a_websocket_by_extended_connect_reaches_an_origin_of_1_1() {
    let origin = Origin::start(|call| {
        let key = call.head.get("sec-websocket-key").unwrap_or_default();
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let fields =
            format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n");
        call.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"))?;
        call.echo()
    });
    let proxy = start(&one_route(&format!("reverse_proxy = \"{}\"", origin.addr())));
    let mut raw = Raw::bare(&proxy.tcp("h"));
    raw.send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    raw.send(Kind::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
    let settings = raw.wait(|frame| frame.kind == Kind::SETTINGS);
    let enables = settings.payload.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]);
    assert!(enables, "SETTINGS_ENABLE_CONNECT_PROTOCOL in {:x?}", settings.payload);
    raw.send(Kind::SETTINGS, 1, 0, &[]);
    let mut fields = request_fields("CONNECT", "/ws").to_vec();
    fields.extend([(":protocol", "websocket"), ("sec-websocket-version", "13")]);
    raw.head(1, &fields, false);
    assert_eq!(raw.status(1), 200);
    let head = origin.request().head;
    assert_eq!((head.method(), head.target()), ("GET", "/ws"));
    assert!(head.lists("upgrade", "websocket") && head.has("sec-websocket-key"), "{head:?}");
    raw.send(Kind::DATA, 0, 1, b"hello");
    let echo = raw.wait(|frame| frame.kind == Kind::DATA && !frame.payload.is_empty());
    assert_eq!(echo.payload, b"hello");
    raw.send(Kind::DATA, Frame::END_STREAM, 1, &[]);
    eventually("the origin's end", || origin.backend().active() == 0);
}

#[test]
fn what_is_asked_for_is_http_and_has_no_fragment() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut raw = Raw::connect(&proxy.tcp("h"));
    let mut fields = request_fields("GET", "/");
    fields.iter_mut().filter(|field| field.0 == ":scheme").for_each(|field| field.1 = "ftp");
    raw.head(1, &fields, true);
    assert_eq!(raw.status(1), 400);
    // The library cuts it off: routes, filters and the origin go by the same.
    raw.get(3, "/page#part");
    assert_eq!(raw.status(3), 200);
    assert_eq!(origin.request().head.target(), "/page");
}
