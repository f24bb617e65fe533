//! HTTP/2 from clients that mean no good: malformed heads, broken frames, floods.

use std::time::Duration;

use wmproxy_testkit::h2::{Client, Frame, Kind, Raw, encode, request_fields};
use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Origin, PATIENCE};

use super::{site, site_with};
use crate::start;

/// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
/// A frame of a wrong size. The `h2` crate says PROTOCOL_ERROR there; both end the connection.
const SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];

#[test]
fn heads_that_are_too_large_are_refused() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), "limits = { header_bytes = \"8k\", header_count = 20 }"));
    let long = "b".repeat(12_000);
    let mut fields = request_fields("GET", "/").to_vec();
    fields.push(("x-a", &long));
    let mut raw = Raw::connect(&proxy.tcp("h"));
    raw.head(1, &fields, true);
    assert_eq!(raw.status(1), 431);
    let mut fields = request_fields("GET", "/").to_vec();
    fields.extend([("x-a", "b"); 30]);
    raw.head(3, &fields, true);
    assert_eq!(raw.status(3), 431);
    raw.get(5, "/");
    assert_eq!(raw.status(5), 200);
}

/// Heads that RFC 9113 section 8 calls malformed: the stream is reset, or answered with a 400, and nothing reaches the
/// origin.
#[test]
fn malformed_heads_go_no_further() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let base = request_fields("GET", "/smuggled");
    let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
    let without = |name: &str| base.iter().copied().filter(|(other, _)| *other != name).collect::<Vec<_>>();
    let replaced = |name: &str, value: &'static str| {
        base.iter()
            .map(|(other, old)| (*other, if *other == name { value } else { *old }))
            .collect::<Vec<_>>()
    };
    let heads = [
        with(&[("Upper", "case")]),
        with(&[("connection", "close")]),
        with(&[("connection", "x-a"), ("x-a", "b")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("keep-alive", "x")]),
        with(&[("proxy-connection", "x")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
        with(&[("x-a", "b\r\nx-b: c")]),
        with(&[("x-a", "b\nc")]),
        with(&[("x-a", "b\0c")]),
        with(&[("x-a: b\r\nx-c", "d")]),
        with(&[("x a", "b")]),
        with(&[("", "b")]),
        with(&[(":path", "/twice")]),
        with(&[(":unknown", "x")]),
        with(&[(":status", "200")]),
        with(&[("x-a", "b"), (":path", "/late")]),
        with(&[("host", "b.example")]),
        with(&[("host", "a.example"), ("host", "b.example")]),
        with(&[("content-length", "5")]),
        with(&[("content-length", "0"), ("content-length", "1")]),
        with(&[("content-length", "+0")]),
        with(&[(":protocol", "websocket")]),
        without(":path"),
        without(":method"),
        without(":scheme"),
        replaced(":path", ""),
        replaced(":path", "no-slash"),
        replaced(":path", "/a b"),
        replaced(":path", "/a\r\nx-b: c"),
        replaced(":path", "/a HTTP/1.1\r\nHost: b\r\n\r\nGET /smuggled"),
        replaced(":path", "*"),
        replaced(":method", "GET /smuggled HTTP/1.1"),
        replaced(":method", "G\r\nT"),
        replaced(":method", ""),
        replaced(":authority", "a.example\r\nx-b: c"),
        replaced(":authority", "u@a.example"),
        replaced(":authority", "a.example/b"),
        replaced(":scheme", "http\r\n"),
    ];
    let mut findings = Vec::new();
    for fields in heads {
        let mut raw = Raw::connect(&proxy.tcp("h"));
        raw.head(1, &fields, true);
        raw.patience(Duration::from_secs(5));
        let answer = loop {
            match raw.frame() {
                Ok(Some(frame)) if frame.kind == Kind::HEADERS => break frame.status(),
                Ok(Some(frame)) if [Kind::RST_STREAM, Kind::GOAWAY].contains(&frame.kind) => break None,
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => {
                    findings.push(format!("{fields:?}: {error}"));
                    break None;
                }
            }
        };
        if answer.is_some_and(|status| !(400..500).contains(&status)) {
            findings.push(format!("{fields:?} got {answer:?}"));
        }
    }
    let seen = origin.requests();
    assert!(findings.is_empty() && seen.is_empty(), "{}\n{seen:#?}", findings.join("\n"));
}

/// Each breaks the connection, with the code of RFC 9113.
#[test]
fn broken_frames_end_the_connection() {
    type Breaks = fn(&mut Raw);
    let cases: &[(&str, &[u32], Breaks)] = &[
        ("data on stream 0", &[PROTOCOL_ERROR], |raw| raw.send(Kind::DATA, 0, 0, b"x")),
        ("headers on stream 0", &[PROTOCOL_ERROR], |raw| raw.get(0, "/")),
        ("an even stream", &[PROTOCOL_ERROR], |raw| raw.get(2, "/")),
        ("settings on a stream", &[PROTOCOL_ERROR], |raw| raw.send(Kind::SETTINGS, 0, 1, &[])),
        ("settings of 5 bytes", SIZE, |raw| raw.send(Kind::SETTINGS, 0, 0, &[0; 5])),
        ("an acknowledgement with content", SIZE, |raw| raw.send(Kind::SETTINGS, 1, 0, &[0; 6])),
        ("a push", &[PROTOCOL_ERROR], |raw| raw.send(Kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])),
        ("a ping of 7 bytes", SIZE, |raw| raw.send(Kind::PING, 0, 0, &[0; 7])),
        ("a ping on a stream", &[PROTOCOL_ERROR], |raw| raw.send(Kind::PING, 0, 1, &[0; 8])),
        ("a window of 3 bytes", SIZE, |raw| raw.send(Kind::WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("a window that grows by nothing", &[PROTOCOL_ERROR], |raw| {
            raw.send(Kind::WINDOW_UPDATE, 0, 0, &[0; 4])
        }),
        ("a window beyond 2^31", &[FLOW_CONTROL_ERROR], |raw| {
            raw.send(Kind::WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
        }),
        ("a continuation of nothing", &[PROTOCOL_ERROR], |raw| raw.send(Kind::CONTINUATION, 4, 1, b"")),
        ("another frame within a head", &[PROTOCOL_ERROR], |raw| {
            raw.send(Kind::HEADERS, Frame::END_STREAM, 1, &encode(&request_fields("GET", "/")));
            raw.send(Kind::PING, 0, 0, &[0; 8]);
        }),
        ("a continuation of another stream", &[PROTOCOL_ERROR], |raw| {
            raw.send(Kind::HEADERS, Frame::END_STREAM, 1, &encode(&request_fields("GET", "/")));
            raw.send(Kind::CONTINUATION, 4, 3, &[]);
        }),
        ("an index of no table", &[COMPRESSION_ERROR, PROTOCOL_ERROR], |raw| {
            raw.send(Kind::HEADERS, 5, 1, &[0xff, 0xff, 0x7f])
        }),
        ("a head cut off", &[COMPRESSION_ERROR, PROTOCOL_ERROR], |raw| {
            raw.send(Kind::HEADERS, 5, 1, &[0, 9, b'x'])
        }),
        ("padding longer than its frame", &[PROTOCOL_ERROR], |raw| {
            raw.send(Kind::HEADERS, 0xd, 1, &[200, 0x82])
        }),
        ("a frame larger than allowed", &[FRAME_SIZE_ERROR], |raw| {
            raw.send(Kind::DATA, 0, 1, &vec![0; 1 << 20])
        }),
        ("a reset of an idle stream", &[PROTOCOL_ERROR], |raw| raw.send(Kind::RST_STREAM, 0, 9, &[0; 4])),
        ("a stream that goes back", &[PROTOCOL_ERROR, 5], |raw| {
            raw.get(5, "/");
            raw.get(3, "/");
        }),
    ];
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut findings = Vec::new();
    for (name, codes, breaks) in cases {
        let mut raw = Raw::connect(&proxy.tcp("h"));
        breaks(&mut raw);
        raw.patience(Duration::from_secs(5));
        match raw.end() {
            Some(code) if codes.contains(&code) => {}
            other => findings.push(format!("{name}: {other:?} in place of {codes:?}")),
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

/// What costs the sender little and the receiver much is stopped; the proxy's memory and its other clients do not feel it.
#[test]
fn floods_are_stopped() {
    type Flood = fn(&mut Raw);
    let floods: &[(&str, Flood)] = &[
        ("rapid reset", |raw| {
            for stream in 0..100_000_u32 {
                raw.get(stream * 2 + 1, "/");
                raw.send(Kind::RST_STREAM, 0, stream * 2 + 1, &8_u32.to_be_bytes());
            }
        }),
        ("continuations", |raw| {
            raw.send(Kind::HEADERS, Frame::END_STREAM, 1, &encode(&request_fields("GET", "/")));
            let part = encode(&[("x-a", &"b".repeat(1_000))]);
            for _ in 0..100_000 {
                raw.send(Kind::CONTINUATION, 0, 1, &part);
            }
        }),
        ("empty continuations", |raw| {
            raw.send(Kind::HEADERS, Frame::END_STREAM, 1, &encode(&request_fields("GET", "/")));
            for _ in 0..1_000_000 {
                raw.send(Kind::CONTINUATION, 0, 1, &[]);
            }
        }),
        ("settings", |raw| {
            for _ in 0..200_000 {
                raw.send(Kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
            }
        }),
        ("pings", |raw| {
            for _ in 0..200_000 {
                raw.send(Kind::PING, 0, 0, &[0; 8]);
            }
        }),
        ("empty data", |raw| {
            raw.head(1, &request_fields("POST", "/"), false);
            for _ in 0..1_000_000 {
                raw.send(Kind::DATA, 0, 1, &[]);
            }
        }),
    ];
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    Client::connect(&proxy.tcp("h")).get("/");
    // One line for each connection that went too far.
    proxy.expect_warn("reached limit");
    let before = proxy.memory_kb();
    for (name, flood) in floods {
        let mut raw = Raw::connect(&proxy.tcp("h"));
        raw.conn().socket().set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        flood(&mut raw);
        assert_eq!(Client::connect(&proxy.tcp("h")).get("/").text(), "o", "beside {name}");
        drop(raw);
    }
    assert!(holds_within(PATIENCE, || proxy.active() == 0));
    assert!(proxy.memory_kb() < before + 32 * 1024, "{} KiB, {before} before", proxy.memory_kb());
}
