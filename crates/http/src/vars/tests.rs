use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wmproxy_wire::head::{Known, Request, Response, Scheme};

use super::*;
use crate::facts::{Facts, Scene};
use crate::testing::conn;

/// A request with something in every corner.
fn request() -> Request {
    let mut request = Request::new();
    request.set_method(b"PURGE");
    request.set_target(b"/A%20b/c?x=1&y=%32&flag&x=3");
    request.fields.push_known(Known::Cookie, b"a=1; session=s%3D=; b=2");
    request.fields.push(b"X-Two", b"one");
    request.fields.push(b"x-two", b"two");
    request.fields.push(b"X-Nasty", b"a\xffb\tc");
    request
}

fn facts() -> Facts {
    let mut facts = Facts::default();
    facts.begin(&conn());
    facts.client = Some("[::ffff:192.0.2.7]:4711".parse::<SocketAddr>().unwrap());
    facts.scheme = Scheme::Https;
    facts.host.push_str("example.com");
    facts.port = Some(8443);
    facts.path.extend(b"/A%20b/c");
    facts.route = Some("api".into());
    facts.user = Some(Arc::from("alice"));
    facts.status = 201;
    (facts.bytes_in, facts.bytes_out) = (7, 1234);
    facts.upstream_time = Some(Duration::from_micros(1_002_003));
    facts.request_id.set(RequestId::believed(b"abc-1").unwrap()).unwrap();
    facts
}

fn with_scene<R>(f: impl FnOnce(&Scene<'_>) -> R) -> R {
    let (conn, request, facts) = (conn(), request(), facts());
    let mut response = Response::with_status(201);
    response.fields.push_known(Known::ContentType, b"text/plain");
    f(&Scene { conn: &conn, request: &request, response: Some(&response), facts: &facts })
}

fn rendered(text: &str) -> String {
    let mut out = Vec::new();
    with_scene(|scene| Template::parse(text).unwrap().render(scene, &mut out));
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn every_variable_has_its_value() {
    for (name, value) in [
        ("client_ip", "192.0.2.7"),
        ("client_port", "4711"),
        ("client_addr", "192.0.2.7:4711"),
        ("host", "example.com:8443"),
        ("hostname", "example.com"),
        ("method", "PURGE"),
        ("scheme", "https"),
        ("uri", "/A%20b/c?x=1&y=%32&flag&x=3"),
        ("path", "/A%20b/c"),
        ("query", "x=1&y=%32&flag&x=3"),
        ("version", "HTTP/1.1"),
        ("user", "alice"),
        ("sni", "sni.example.com"),
        ("listener", "web"),
        ("route", "api"),
        ("peer", ""),
        ("status", "201"),
        ("bytes_in", "7"),
        ("bytes_out", "1234"),
        ("upstream_time", "1.002003"),
        ("request_id", "abc-1"),
        ("header:X-TWO", "one, two"),
        ("header:x-absent", ""),
        ("response:content-type", "text/plain"),
        ("cookie:session", "s%3D="),
        ("cookie:sess", ""),
        ("query:x", "1"),
        ("query:y", "%32"),
        ("query:flag", ""),
        ("query:z", ""),
    ] {
        assert_eq!(rendered(&format!("{{{name}}}")), value, "{name}");
    }
    assert!(rendered("{duration}").starts_with("0.0"));
    assert!(rendered("{time}").ends_with('Z'));
    for plain in Plain::ALL {
        assert!(Template::parse(&format!("{{{}}}", plain.as_str())).is_ok());
        assert!(!plain.about().is_empty());
    }
}

#[test]
fn the_uri_is_the_clients_after_a_rewrite() {
    let (conn, mut request, facts) = (conn(), request(), facts());
    request.rewrite_target(b"/new");
    request.rewrite_target(b"/newer?z=9");
    let mut out = Vec::new();
    let scene = Scene { conn: &conn, request: &request, response: None, facts: &facts };
    Template::parse("{uri} {query:z}{query:x}").unwrap().render(&scene, &mut out);
    assert_eq!(out, b"/A%20b/c?x=1&y=%32&flag&x=3 1");
    assert_eq!(request.target(), b"/newer?z=9");
}

#[test]
fn an_id_is_made_once() {
    let mut facts = facts();
    facts.begin(&conn());
    let (conn, request) = (conn(), request());
    let scene = Scene { conn: &conn, request: &request, response: None, facts: &facts };
    let mut out = Vec::new();
    Template::parse("{request_id} {request_id}").unwrap().render(&scene, &mut out);
    let (first, second) = out.split_at(32);
    assert_eq!(first, &second[1..]);
    assert!(first.iter().all(u8::is_ascii_hexdigit));
    for bad in [&b""[..], b"a b", b"a\"b", &[b'a'; 129], b"\xff"] {
        assert_eq!(RequestId::believed(bad), None);
    }
}

#[test]
fn a_template_is_text_and_variables() {
    assert_eq!(rendered("{{{user}}} {{ok}} {status}!"), "{alice} {ok} 201!");
    assert_eq!(rendered("plain"), "plain");
    assert_eq!(rendered(""), "");
}

#[test]
fn a_bad_template_says_what_would_be_right() {
    let unknown = |name: &str, near: Option<&str>| TemplateError::Unknown {
        name: name.into(),
        near: near.map(str::to_owned),
    };
    for (text, expected) in [
        ("{user", TemplateError::Brace('{')),
        ("user}", TemplateError::Brace('}')),
        ("{byte_in}", unknown("byte_in", Some("bytes_in"))),
        ("{headr:Host}", unknown("headr:Host", Some("header:Host"))),
        ("{}", unknown("", None)),
        ("{http_user_agent}", unknown("http_user_agent", None)),
        ("{header:}", TemplateError::BadName("header:".into())),
        ("{header:a b}", TemplateError::BadName("header:a b".into())),
        ("{cookie:a=b}", TemplateError::BadName("cookie:a=b".into())),
        ("{query:}", TemplateError::BadName("query:".into())),
    ] {
        assert_eq!(Template::parse(text).unwrap_err(), expected, "{text}");
    }
    assert!(unknown("x", None).to_string().contains("client_addr"));
}

#[test]
fn a_field_gets_no_control_bytes() {
    let clean = |value: &[u8]| {
        let mut facts = facts();
        facts.user = Some(String::from_utf8(value.to_vec()).unwrap().into());
        let (conn, request) = (conn(), request());
        let scene = Scene { conn: &conn, request: &request, response: None, facts: &facts };
        let mut out = b"kept ".to_vec();
        Template::parse("{user}").unwrap().render_value(&scene, &mut out);
        String::from_utf8(out).unwrap()
    };
    for (value, cleaned) in [
        ("plain", "kept plain"),
        ("a\r\nSet-Cookie: b", "kept aSet-Cookie: b"),
        (" \x00 a\tb \x7f", "kept a\tb"),
        ("\r\n", "kept "),
    ] {
        assert_eq!(clean(value.as_bytes()), cleaned, "{value:?}");
    }
}

#[test]
fn a_reference_stays_on_its_site() {
    let reference = |path: &str, template: &str| {
        let (conn, mut request, mut facts) = (conn(), request(), facts());
        request.set_target(path.as_bytes());
        facts.path = path.as_bytes().to_vec();
        let scene = Scene { conn: &conn, request: &request, response: None, facts: &facts };
        let mut out = Vec::new();
        Template::parse(template).unwrap().render_uri(&scene, &mut out);
        String::from_utf8(out).unwrap()
    };
    for (path, template, expected) in [
        ("/a/b", "{path}/", "/a/b/"),
        ("//evil.example/", "{uri}", "/evil.example/"),
        ("///evil.example/", "{path}", "/evil.example/"),
        ("/\\evil.example/", "{path}", "/evil.example/"),
        ("//x", "https://{host}{uri}", "https://example.com:8443//x"),
        ("/a\r\nb \"<c>\u{fc}%41", "{uri}", "/a%0D%0Ab%20%22%3Cc%3E%C3%BC%41"),
        ("/a?x={y}", "{uri}", "/a?x=%7By%7D"),
    ] {
        assert_eq!(reference(path, template), expected, "{path} {template}");
    }
}

#[test]
fn the_calendar_is_right() {
    for (second, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (1_709_251_199, "2024-02-29T23:59:59.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        (1_798_761_599, "2026-12-31T23:59:59.000Z"),
    ] {
        let mut out = Vec::new();
        Value::Time(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).push(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}
