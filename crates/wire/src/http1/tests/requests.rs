//! Heads of requests.

use super::super::*;
use super::{LIMITS, get, lines, request, written};
use crate::head::{Known, Method, Request, Scheme, Version};

#[test]
fn a_request_is_read_and_written() {
    let text = b"POST /a/b?c=d HTTP/1.1\r\nHost: example.com\r\ncontent-LENGTH:  5 \t\r\nX:\r\nY: \xe9 z\r\n\r\nhello";
    let request = request(text).unwrap();
    assert_eq!((request.method, request.version), (Method::Post, Version::Http11));
    assert_eq!(request.authority(), Some(&b"example.com"[..]));
    assert_eq!(request.target(), b"/a/b?c=d");
    assert_eq!((request.raw_path(), request.query()), (&b"/a/b"[..], Some(&b"c=d"[..])));
    assert_eq!(request.scheme, None);
    assert_eq!(lines(&request.fields), ["Host: example.com", "content-LENGTH: 5", "X: ", "Y: \\xe9 z"]);
    assert_eq!(request.fields.get(Known::ContentLength), Some(&b"5"[..]));
    assert_eq!(
        written(&request),
        r"POST /a/b?c=d HTTP/1.1\r\nHost: example.com\r\ncontent-LENGTH: 5\r\nX: \r\nY: \xe9 z\r\n\r\n"
    );
}

#[test]
fn only_the_head_is_used() {
    let mut into = Request::new();
    let text = b"\r\nGET / HTTP/1.0\r\n\r\nGET /next HTTP/1.0\r\n\r\n";
    assert_eq!(read_request(text, &LIMITS, &mut into), Ok(Some(20)));
    assert_eq!(into.target(), b"/");
    assert_eq!(read_request(&text[20..], &LIMITS, &mut into), Ok(Some(22)));
    assert_eq!(into.target(), b"/next");
    assert!(into.fields.is_empty());
}

#[test]
fn a_request_of_the_same_size_needs_no_more_memory() {
    let mut into = Request::new();
    let text = b"GET http://a?b HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
    assert!(read_request(text, &LIMITS, &mut into).is_ok());
    let capacity = into.fields.capacity();
    assert_eq!(read_request(&text[..40], &LIMITS, &mut into), Ok(None));
    assert!(into.fields.is_empty() && into.authority().is_none());
    assert!(read_request(text, &LIMITS, &mut into).is_ok());
    assert_eq!(into.fields.capacity(), capacity);
}

#[test]
fn a_malformed_request_line_is_refused() {
    use RequestError::{Field, Line, Target, Version};
    let table: &[(&str, RequestError)] = &[
        ("GET  / HTTP/1.1", Line),
        ("GET /  HTTP/1.1", Line),
        ("GET / HTTP/1.1 ", Line),
        (" GET / HTTP/1.1", Line),
        ("GET /", Line),
        ("GET", Line),
        ("GET ", Line),
        ("GET / ", Line),
        ("/ HTTP/1.1", Line),
        ("GET\t/\tHTTP/1.1", Field(FieldError::Control)),
        ("GET /\tHTTP/1.1", Field(FieldError::Control)),
        ("G(T / HTTP/1.1", Line),
        ("G\u{e9}T / HTTP/1.1", Line),
        ("GET / HTTP/1.1x", Line),
        ("GET / HTTP/1.", Line),
        ("GET / HTTP/11", Line),
        ("GET / http/1.1", Line),
        ("GET / HTTPS/1.1", Line),
        ("GET / HTTP/x.1", Line),
        ("GET / HTTP/1.10", Line),
        ("GET / HTTP/ 1.1", Line),
        ("GET /a b HTTP/1.1", Line),
        ("GET / HTTP/2.0", Version),
        ("GET / HTTP/1.2", Version),
        ("GET / HTTP/0.9", Version),
        ("PRI * HTTP/2.0", Version),
        ("GET /\u{e9} HTTP/1.1", Target),
        ("GET /a#b HTTP/1.1", Target),
        ("GET # HTTP/1.1", Target),
        ("GET /\0 HTTP/1.1", Field(FieldError::Control)),
        ("GET /\x7f HTTP/1.1", Field(FieldError::Control)),
        ("GET /\rHTTP/1.1", Line),
        ("GET / HTTP/1.1\r", Field(FieldError::BareCr)),
        ("\rGET / HTTP/1.1", Field(FieldError::BareCr)),
        ("\nGET / HTTP/1.1", Field(FieldError::BareLf)),
        ("\r\n\r\nGET / HTTP/1.1", Line),
        ("\x16\x03\x01\x02", Field(FieldError::Control)),
    ];
    for (line, error) in table {
        let text = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(request(text.as_bytes()).unwrap_err(), *error, "{line:?}");
    }
    assert_eq!(request(b"GET / HTTP/1.1\nHost: a\r\n\r\n").unwrap_err(), Field(FieldError::BareLf));
}

#[test]
fn a_malformed_field_is_refused() {
    use FieldError::*;
    let table: &[(&str, FieldError)] = &[
        ("A: b\r\n c\r\n", Folded),
        (" A: b\r\n", Folded),
        ("\tA: b\r\n", Folded),
        ("A: b\r\n \r\n", Folded),
        ("A : b\r\n", SpaceBeforeColon),
        ("A\t: b\r\n", SpaceBeforeColon),
        ("A b: c\r\n", SpaceBeforeColon),
        (": b\r\n", NoName),
        ("A\r\n", NoColon),
        ("A\n", NoColon),
        ("A\u{e9}: b\r\n", Name),
        ("A(: b\r\n", Name),
        ("A\": b\r\n", Name),
        ("A@b: c\r\n", Name),
        ("\0A: b\r\n", Control),
        ("A\0: b\r\n", Control),
        ("A\x7f: b\r\n", Control),
        ("A: b\0\r\n", Control),
        ("A: \x01\r\n", Control),
        ("A: b\x7fc\r\n", Control),
        ("A: b\x0bc\r\n", Control),
        ("A: b\n", BareLf),
        ("A: b\nC: d\r\n", BareLf),
        ("A:\n", BareLf),
        ("\n", BareLf),
        ("A: b\rC: d\r\n", BareCr),
        ("A: b\r\r\n", BareCr),
        ("A:\r\r\n", BareCr),
        ("\rA: b\r\n", BareCr),
    ];
    for (line, error) in table {
        assert_eq!(get(&format!("Host: a\r\n{line}")).unwrap_err(), RequestError::Field(*error), "{line:?}");
        assert_eq!(error.status(), 400);
    }
}

#[test]
fn a_host_is_one_and_valid() {
    use RequestError::{Host, ManyHosts, NoHost};
    for (text, error) in [
        ("", NoHost),
        ("Hosts: a\r\n", NoHost),
        ("Host: a\r\nhost: a\r\n", ManyHosts),
        ("Host:\r\n", Host),
        ("Host: a b\r\n", Host),
        ("Host: a,b\r\n", Host),
        ("Host: user@a\r\n", Host),
        ("Host: http://a\r\n", Host),
        ("Host: a/b\r\n", Host),
        ("Host: a:b\r\n", Host),
        ("Host: a:99999\r\n", Host),
        ("Host: \u{e9}\r\n", Host),
    ] {
        assert_eq!(get(text).unwrap_err(), error, "{text:?}");
    }
    for host in ["a", "A.b:80", "[::1]:8080", "127.0.0.1", "a_b", "localhost."] {
        assert_eq!(get(&format!("hOST: {host}\r\n")).unwrap().authority(), Some(host.as_bytes()));
    }
    let old = request(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((old.version, old.authority()), (Version::Http10, None));
    assert_eq!(request(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n").unwrap_err(), Host);
    assert_eq!(request(b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n").unwrap_err(), ManyHosts);
}

#[test]
fn a_target_has_the_form_of_its_method() {
    for (line, host, target, authority) in [
        ("GET /a?b=/c?d", "a", "/a?b=/c?d", "a"),
        ("GET //a", "b", "//a", "b"),
        ("GET /a{|}^`\"<>\\[]?{", "a", "/a{|}^`\"<>\\[]?{", "a"),
        ("OPTIONS *", "a", "*", "a"),
        ("OPTIONS /", "a", "/", "a"),
        ("GET http://a.b/c?d", "a.b", "/c?d", "a.b"),
        ("GET HTTP://A.b:80/c", "a.B", "/c", "A.b:80"),
        ("GET https://a", "a:443", "/", "a"),
        ("GET http://a?b", "a", "/?b", "a"),
        ("GET http://a.:80?", "a", "/?", "a.:80"),
        ("GET http://[0::1]/", "[::1]", "/", "[0::1]"),
        ("OPTIONS http://a", "a", "*", "a"),
        ("OPTIONS http://a/", "a", "/", "a"),
        ("CONNECT a:443", "a:443", "a:443", "a:443"),
        ("CONNECT a.b:80", "A.b", "a.b:80", "a.b:80"),
        ("CONNECT [::1]:1", "[::1]:1", "[::1]:1", "[::1]:1"),
    ] {
        let text = format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let request = request(text.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(request.target(), target.as_bytes(), "{line}");
        assert_eq!(request.authority(), Some(authority.as_bytes()), "{line}");
    }
    use RequestError::{Host, OtherHost, Target};
    for (line, host, error) in [
        ("GET *", "a", Target),
        ("GET a", "a", Target),
        ("GET a:443", "a:443", Target),
        ("GET ?a", "a", Target),
        ("OPTIONS **", "a", Target),
        ("OPTIONS a:80", "a", Target),
        ("CONNECT /", "a", Target),
        ("CONNECT *", "a", Target),
        ("CONNECT a", "a", Target),
        ("CONNECT a:", "a", Target),
        ("CONNECT user@a:80", "a", Target),
        ("CONNECT http://a:80/", "a", Target),
        ("CONNECT a:80", "b:80", OtherHost),
        ("CONNECT a:80", "a:81", OtherHost),
        ("GET http://", "a", Target),
        ("GET http:///a", "a", Target),
        ("GET http://user@a/", "a", Target),
        ("GET http://user:pass@a/", "a", Target),
        ("GET http://a:x/", "a", Target),
        ("GET http://a\\b/", "a", Target),
        ("GET http:/a", "a", Target),
        ("GET ftp://a/", "a", Target),
        ("GET javascript:alert(1)", "a", Target),
        ("GET http://a/", "b", OtherHost),
        ("GET http://a/", "a:81", OtherHost),
        ("GET https://a/", "a:80", OtherHost),
        ("GET http://a:81/", "a", OtherHost),
        ("GET http://a/", "a@a", Host),
    ] {
        let text = format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(request(text.as_bytes()).unwrap_err(), error, "{line} with {host}");
        // To a proxy a target that says whom it is for is all that counts, and everything else is as wrong as ever.
        let (mut head, limits) = (Request::new(), HeadLimits { any_host: true, ..LIMITS });
        let read = read_request(text.as_bytes(), &limits, &mut head);
        assert_eq!(
            read.map(|_| ()),
            if error == OtherHost { Ok(()) } else { Err(error) },
            "{line} with {host}"
        );
    }
    let whole = request(b"GET https://a/ HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((whole.scheme, whole.authority()), (Some(Scheme::Https), Some(&b"a"[..])));
    assert_eq!(written(&whole), r"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn a_limit_is_what_still_passes() {
    let target = "/".repeat(LIMITS.target);
    let with_target = |target: &str| request(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    assert!(with_target(&target).is_ok());
    let error = with_target(&format!("{target}/")).unwrap_err();
    assert_eq!((error, error.status()), (RequestError::TargetTooLong, 414));

    let many = "A: b\r\n".repeat(LIMITS.fields - 1);
    assert!(get(&format!("Host: a\r\n{many}")).is_ok());
    let error = get(&format!("Host: a\r\n{many}C: d\r\n")).unwrap_err();
    assert_eq!((error, error.status()), (RequestError::Field(FieldError::TooMany), 431));

    let start = "GET / HTTP/1.1\r\nHost: a\r\nA: ";
    let room = LIMITS.bytes - start.len() - 4;
    assert!(request(format!("{start}{}\r\n\r\n", "b".repeat(room)).as_bytes()).is_ok());
    let error = request(format!("{start}{}\r\n\r\n", "b".repeat(room + 1)).as_bytes()).unwrap_err();
    assert_eq!((error, error.status()), (RequestError::TooLong, 431));
    assert_eq!(read_request(&[b'a'; 2048], &LIMITS, &mut Request::new()), Err(RequestError::TooLong));
    assert_eq!(read_request(&[b'a'; 2047], &LIMITS, &mut Request::new()), Ok(None));
    let none = HeadLimits { bytes: 0, target: 0, fields: 0, any_host: false };
    assert_eq!(read_request(b"", &none, &mut Request::new()), Err(RequestError::TooLong));
}

#[test]
fn only_one_expectation_is_known() {
    let waiting = get("Host: a\r\nExpect: 100-Continue\r\n").unwrap();
    assert!(expects_continue(&waiting));
    assert!(!expects_continue(&get("Host: a\r\n").unwrap()));
    assert!(!expects_continue(&request(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").unwrap()));
    for value in ["", "200-ok", "100-continue, x", "100-continue;a"] {
        let error = get(&format!("Host: a\r\nExpect: {value}\r\n")).unwrap_err();
        assert_eq!((error, error.status()), (RequestError::Expectation, 417), "{value}");
    }
}

#[test]
fn the_preface_of_h2_is_told_from_a_request() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for len in 0..preface.len() {
        assert_eq!(is_h2_preface(&preface[..len]), None);
        let mut other = preface[..=len].to_vec();
        other[len] ^= 1;
        assert_eq!(is_h2_preface(&other), Some(false));
    }
    assert_eq!(is_h2_preface(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"), Some(true));
    assert_eq!(is_h2_preface(b"PUT"), Some(false));
}

#[test]
fn a_request_of_h2_is_written_with_a_host() {
    let mut request = Request::new();
    request.version = Version::Http2;
    request.set_method(b"PURGE");
    request.set_target(b"/a?b");
    request.set_authority(b"a.example");
    request.fields.push(b"accept", b"*/*");
    assert_eq!(written(&request), r"PURGE /a?b HTTP/1.1\r\nHost: a.example\r\naccept: */*\r\n\r\n");
    let whole = |request: &Request| {
        let mut out = Vec::new();
        write_request_absolute(request, Scheme::Http, &mut out);
        String::from_utf8(out).unwrap().lines().next().map(str::to_owned)
    };
    assert_eq!(whole(&request).as_deref(), Some("PURGE http://a.example/a?b HTTP/1.1"));
    request.set_method(b"OPTIONS");
    request.set_target(b"*");
    assert_eq!(whole(&request).as_deref(), Some("OPTIONS http://a.example HTTP/1.1"));
    request.set_method(b"CONNECT");
    request.set_target(b"a.example:443");
    assert_eq!(whole(&request).as_deref(), Some("CONNECT a.example:443 HTTP/1.1"));
}
