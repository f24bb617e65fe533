//! What two programs could read in two ways is refused, and nobody is asked.

use wmproxy_testkit::http::Origin;

use super::gate::{ALICE, Proxy};

/// Requests, without the line's end of their heads, and the status of the answer.
const BAD: &[(&str, u16)] = &[
    // Whom it is for.
    ("GET http://user@a.example/ HTTP/1.1\r\nHost: a.example", 400),
    ("GET http://user:pass@a.example/ HTTP/1.1\r\nHost: a.example", 400),
    ("GET http://a.example@b.example/ HTTP/1.1\r\nHost: b.example", 400),
    ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nHost: a.example", 400),
    ("GET http://a.example/ HTTP/1.1", 400),
    ("GET http://a.example:0/ HTTP/1.1\r\nHost: a.example:0", 400),
    ("GET http://a.example:65536/ HTTP/1.1\r\nHost: a.example", 400),
    ("GET http://a.example:x/ HTTP/1.1\r\nHost: a.example", 400),
    ("GET http:///x HTTP/1.1\r\nHost: a.example", 400),
    ("GET http://a%2eexample/ HTTP/1.1\r\nHost: a.example", 400),
    ("GET http://127.1/ HTTP/1.1\r\nHost: 127.1", 400),
    ("GET http://0x7f.0.0.1/ HTTP/1.1\r\nHost: 0x7f.0.0.1", 400),
    ("GET http://a..example/ HTTP/1.1\r\nHost: a..example", 400),
    ("GET http://a.example\\@b.example/ HTTP/1.1\r\nHost: a.example", 400),
    ("GET http://[::1%25lo]/ HTTP/1.1\r\nHost: [::1%25lo]", 400),
    ("GET ftp://a.example/ HTTP/1.1\r\nHost: a.example", 400),
    ("GET http:a.example/ HTTP/1.1\r\nHost: a.example", 400),
    ("GET a.example:80 HTTP/1.1\r\nHost: a.example", 400),
    ("CONNECT a.example HTTP/1.1\r\nHost: a.example", 400),
    ("CONNECT a.example: HTTP/1.1\r\nHost: a.example", 400),
    ("CONNECT a.example:0 HTTP/1.1\r\nHost: a.example:0", 400),
    ("CONNECT http://a.example:443/ HTTP/1.1\r\nHost: a.example", 400),
    ("CONNECT /x HTTP/1.1\r\nHost: a.example", 400),
    ("CONNECT * HTTP/1.1\r\nHost: a.example", 400),
    ("CONNECT user@a.example:443 HTTP/1.1\r\nHost: a.example", 400),
    ("CONNECT ::1:443 HTTP/1.1\r\nHost: [::1]", 400),
    // Where it ends.
    (
        "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
        400,
    ),
    ("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nContent-Length: 3", 400),
    ("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: +3", 400),
    ("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: xchunked", 400),
    ("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked", 501),
    ("POST http://a.example/ HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked", 400),
    ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5", 400),
    ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked", 400),
    // Who asks.
    (
        "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: a\r\nProxy-Authorization: b",
        400,
    ),
    // What its lines are.
    ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX : y", 400),
    ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n folded", 400),
    ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\nX: y", 400),
    ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: a\0b", 400),
    ("GET  http://a.example/ HTTP/1.1\r\nHost: a.example", 400),
    ("GET http://a.example/#x HTTP/1.1\r\nHost: a.example", 400),
    ("GET http://a.example/ HTTP/2.0\r\nHost: a.example", 505),
];

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let addr = origin.addr().inet();
    let proxy = Proxy::with(&[("a.example:80", addr), ("b.example:80", addr), ("a.example:443", addr)]);
    for (head, status) in BAD {
        let mut client = proxy.connect();
        // What lies behind it must not be taken for a request.
        let behind = format!(
            "GET http://a.example/behind HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: {ALICE}\r\n\r\n"
        );
        client.send(format!("{head}\r\n\r\n{behind}"));
        assert_eq!(client.response_to("GET").status(), *status, "{head:?}");
        client.expect_closed();
    }
    assert_eq!(proxy.house.lines(BAD.len()).len(), BAD.len(), "one answer each");
    assert_eq!((proxy.opened(), origin.requests().len()), (0, 0));
}
