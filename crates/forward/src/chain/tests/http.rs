//! What is said to proxies of HTTP.

use super::*;

const REQUEST: &[u8] =
    b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\nVia: 1.1 wmproxy-............\r\n\r\n";

#[test]
fn connect_names_the_destination_and_what_comes_with_the_consent_is_kept() {
    let proxy = proxy(&[(
        b"CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\nVia: 1.1 wmproxy-............\r\n\r\n",
        b"HTTP/1.1 200 Connection established\r\n\r\nearly",
    )]);
    passes(&single(to(HopKind::Http, &proxy)), &"[::1]:80".parse::<SocketAddr>().unwrap().into(), b"early");
}

#[test]
fn connect_says_who_comes() {
    let proxy = proxy(&[(
        b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\nVia: 1.1 wmproxy-............\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    )]);
    let hop = with_password(to(HopKind::Http, &proxy), "me", "secret");
    passes(&single(hop), &name("a.test", 80), b"");
}

#[test]
fn a_consent_has_no_body_whatever_its_fields_say() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nraw";
    let proxy = proxy(&[(REQUEST, answer)]);
    passes(&single(to(HopKind::Http, &proxy)), &name("a.test", 80), b"raw");
}

#[test]
fn interim_answers_are_skipped_but_not_for_ever() {
    let answer =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\nx";
    let patient = proxy(&[(REQUEST, answer)]);
    passes(&single(to(HopKind::Http, &patient)), &name("a.test", 80), b"x");
    let endless = Backend::start(|conn| {
        conn.recv(REQUEST.len());
        while conn.try_send(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
        Ok(0)
    });
    assert_eq!(fails(&single(to(HopKind::Http, &endless)), &name("a.test", 80)).fault, Fault::Broken);
}

#[test]
fn answers_keep_their_meaning() {
    macro_rules! status {
        ($status:literal) => {
            &[(REQUEST, concat!("HTTP/1.1 ", $status, " No\r\nContent-Length: 5\r\n\r\nsorry").as_bytes())]
        };
    }
    let cases: [(Script<'_>, Fault, &str); 12] = [
        (status!("407"), Fault::Unauthorized, "wants to know who comes (407), and no user is set for it"),
        (status!("403"), Fault::Denied, "answers 403"),
        (status!("429"), Fault::Limited, "answers 429"),
        (status!("500"), Fault::Other, "answers 500"),
        (status!("502"), Fault::HostUnreachable, "answers 502"),
        (status!("503"), Fault::HostUnreachable, "answers 503"),
        (status!("504"), Fault::TimedOut, "answers 504"),
        (status!("405"), Fault::Broken, "does not know CONNECT: it answers 405"),
        (status!("302"), Fault::Other, "answers 302"),
        (status!("101"), Fault::Broken, "says what is no answer: status 101"),
        (&[(REQUEST, b"\x05\x00\r\n\r\n")], Fault::Broken, "says what is no answer: a malformed status line"),
        (&[(REQUEST, b"HTTP/1.1 200 OK\nX: y\r\n\r\n")], Fault::Broken, "says what is no answer: "),
    ];
    for (script, expected, text) in cases {
        let (fault, told) = fault(script, HopKind::Http);
        assert!(fault == expected && told.starts_with(text), "{fault:?} {told}");
    }
}

#[test]
fn a_head_without_end_is_refused() {
    let endless = Backend::start(|conn| {
        conn.recv(REQUEST.len());
        let _ = conn.try_send(b"HTTP/1.1 200 OK\r\n");
        while conn.try_send(&[b'x'; 4096]).is_ok() {}
        Ok(0)
    });
    let error = fails(&single(to(HopKind::Http, &endless)), &name("a.test", 80));
    assert_eq!(error.fault, Fault::Broken, "{error}");
}
