use std::io::Cursor;

use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::client::Request as TheirRequest;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 32 };
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const REQUEST: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn request(text: &str) -> Result<Request<'_>, Refusal> {
    match parse_request(text.as_bytes(), LIMITS)? {
        Parsed::Head { head, len } => {
            assert_eq!(len, text.len());
            Ok(head)
        }
        Parsed::NeedMore => panic!("{text:?} is whole"),
    }
}

#[test]
fn the_example_of_the_rfc() {
    assert_eq!(&accept_key(KEY), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let expected = Request {
        path: "/chat",
        host: "server.example.com",
        key: KEY,
        origin: Some("http://example.com"),
        protocols: vec!["chat", "superchat"],
    };
    assert_eq!(request(REQUEST), Ok(expected));
    let answer = accept_head(KEY, Some("chat"), [("X-Served-By", "me")]);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    assert!(answer.ends_with("\r\nSec-WebSocket-Protocol: chat\r\nX-Served-By: me\r\n\r\n"), "{answer}");
}

#[test]
fn a_request_is_refused_for_what_is_wrong_with_it() {
    for (from, to, status) in [
        ("GET", "POST", "405"),
        ("HTTP/1.1", "HTTP/1.0", "400"),
        ("HTTP/1.1", "HTTP/3.7", "400"),
        ("Host: server.example.com\r\n", "", "400"),
        ("Host: server.example.com\r\n", "Host:\r\n", "400"),
        ("Host: ", "Host: other\r\nHost: ", "400"),
        ("Upgrade: websocket\r\n", "", "426"),
        ("Upgrade: websocket", "Upgrade: h2c", "426"),
        ("Connection: keep-alive, Upgrade", "Connection: keep-alive", "426"),
        ("Version: 13", "Version: 8", "426"),
        ("Sec-WebSocket-Version: 13\r\n", "", "426"),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 8", "400"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", "400"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "not base64", "400"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Kex", "400"),
        ("chat, superchat", "chat, super chat", "400"),
        ("Origin", "Content-Length: 5\r\nOrigin", "400"),
        ("Origin", "Transfer-Encoding: chunked\r\nOrigin", "400"),
        ("/chat?room=1", "chat", "400"),
        ("GET /chat?room=1 HTTP/1.1", "\x16\x03\x01\x02\x00", "400"),
    ] {
        let text = REQUEST.replacen(from, to, 1);
        assert_ne!(text, REQUEST, "{from}");
        let refusal = request(&text).unwrap_err();
        assert!(refusal.status().starts_with(status), "{from} => {to}: {refusal}");
        let answer = String::from_utf8(refusal_head(refusal)).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(answer.contains("Sec-WebSocket-Version: 13\r\n"), status == "426", "{answer}");
    }
}

#[test]
fn fields_are_read_as_http_means_them() {
    let text = REQUEST
        .replace("Connection: keep-alive, Upgrade", "connection: close\r\nCONNECTION:\t, uPGRADE ,")
        .replace("Upgrade: websocket", "upgrade: WebSocket")
        .replace("chat, superchat\r\n", "chat\r\nSec-WebSocket-Protocol: superchat\r\n")
        .replace("/chat?room=1", "http://server.example.com/chat?x");
    let read = request(&text).unwrap();
    assert_eq!((read.path, &read.protocols[..]), ("/chat", &["chat", "superchat"][..]));
    assert_eq!(request(&REQUEST.replace("/chat?room=1", "http://a?b")).unwrap().path, "/");
    assert_eq!(request(&REQUEST.replace("/chat?room=1", "/a://b/c")).unwrap().path, "/a://b/c");
    // A body of no length is none.
    assert!(request(&REQUEST.replace("Origin", "Content-Length: 0\r\nOrigin")).is_ok());
}

#[test]
fn a_head_in_pieces_is_waited_for_up_to_the_limits() {
    for len in 0..REQUEST.len() {
        assert_eq!(parse_request(&REQUEST.as_bytes()[..len], LIMITS), Ok(Parsed::NeedMore), "{len}");
    }
    let behind = format!("{REQUEST}\u{1}\u{2}");
    let Ok(Parsed::Head { len, .. }) = parse_request(behind.as_bytes(), LIMITS) else { panic!("whole") };
    assert_eq!(len, REQUEST.len());
    let small = HeadLimits { bytes: REQUEST.len() - 1, ..LIMITS };
    assert_eq!(parse_request(REQUEST.as_bytes(), small), Err(Refusal::TooLarge));
    assert_eq!(parse_request(&REQUEST.as_bytes()[..small.bytes], small), Err(Refusal::TooLarge));
    let few = HeadLimits { fields: 6, ..LIMITS };
    assert_eq!(parse_request(REQUEST.as_bytes(), few), Err(Refusal::TooLarge));
}

const PROTOCOLS: [&str; 2] = ["chat", "binary"];

fn response(text: &str) -> Result<Option<String>, Rejected> {
    let protocols = PROTOCOLS.map(String::from);
    let ask = Ask { host: "a", path: "/", key: KEY, protocols: &protocols };
    match parse_response(text.as_bytes(), &ask, LIMITS)? {
        Parsed::Head { head, .. } => Ok(head.protocol.map(str::to_owned)),
        Parsed::NeedMore => panic!("{text:?} is whole"),
    }
}

#[test]
fn an_answer_is_rejected_for_what_is_wrong_with_it() {
    let good = String::from_utf8(accept_head(KEY, Some("chat"), [])).unwrap();
    assert_eq!(response(&good), Ok(Some("chat".into())));
    assert_eq!(response(&good.replace("Sec-WebSocket-Protocol: chat\r\n", "")), Ok(None));
    let malformed = Rejected::Malformed("its answer is not HTTP/1.1");
    for (from, to, expected) in [
        ("101 Switching Protocols", "403 Forbidden", Rejected::Status(403)),
        ("HTTP/1.1", "HTTP/1.0", malformed),
        ("HTTP/1.1 101", "SSH-2.0-OpenSSH", malformed),
        ("Upgrade: websocket", "Upgrade: h2c", Rejected::NoUpgrade),
        ("Connection: Upgrade", "Connection: close", Rejected::NoUpgrade),
        ("Sec-WebSocket-Accept: s3", "Sec-WebSocket-Accept: S3", Rejected::BadAccept),
        ("Sec-WebSocket-Accept", "X-Accept", Rejected::BadAccept),
        (": chat", ": chat, binary", Rejected::Protocol),
        (": chat", ": other", Rejected::Protocol),
        (": chat", ": chat\r\nSec-WebSocket-Extensions: permessage-deflate", Rejected::Extension),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        assert_eq!(response(&text), Err(expected), "{from} => {to}");
    }
    let large = good.replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(LIMITS.bytes)));
    assert!(matches!(response(&large), Err(Rejected::Malformed(_))));
}

#[test]
fn tungstenite_grants_what_is_asked_and_asks_what_is_granted() {
    // As its client: it accepts our answer.
    let request_line = TheirRequest::builder()
        .uri("ws://a.example/x")
        .header("Host", "a.example")
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade")
        .header("Sec-WebSocket-Key", KEY)
        .header("Sec-WebSocket-Version", "13")
        .body(())
        .unwrap();
    let (bytes, key) = tungstenite::handshake::client::generate_request(request_line).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(request(&text).map(|request| (request.path, request.key)), Ok(("/x", key.as_str())));
    // As its server: it grants our request, and we take its answer.
    let ask = Ask { host: "a.example", path: "/x", key: KEY, protocols: &[] };
    let asked = request_head(&ask, [("Authorization", "Bearer x")]);
    let mut pipe = Cursor::new(asked.clone());
    let socket = match tungstenite::accept(&mut pipe) {
        Ok(socket) => socket,
        Err(HandshakeError::Interrupted(_)) => panic!("it wants more than a whole request"),
        Err(HandshakeError::Failure(error)) => panic!("{error}"),
    };
    drop(socket);
    let answer = &pipe.get_ref()[asked.len()..];
    assert!(matches!(parse_response(answer, &ask, LIMITS), Ok(Parsed::Head { .. })));
}

#[test]
fn tokens_and_values_are_told_from_what_would_break_a_head() {
    for (text, token, value) in [
        ("chat", true, true),
        ("", false, true),
        ("a b", false, true),
        ("a\r\nb", false, false),
        (" a", false, false),
        ("X-Any_thing.1", true, true),
        ("ä", false, true),
        ("a:b", false, true),
        ("\u{7f}", false, false),
    ] {
        assert_eq!((is_token(text), is_field_value(text)), (token, value), "{text:?}");
    }
}
