//! One request, one answer: what passes, and as what.

use wmproxy_testkit::http::Reply;
use wmproxy_testkit::{Client, Origin};

use super::{one_route, site};
use crate::start;

#[test]
fn a_request_and_its_answer_pass() {
    let origin = Origin::says("HTTP/1.1 203 Fine\r\nX-Answer: 42\r\nContent-Length: 5\r\n\r\nhello");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nX-Question: life\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status(), response.text()), (203, "hello"));
    assert_eq!(response.head.get("x-answer"), Some("42"));
    assert_eq!(response.head.get("content-length"), Some("5"));
    client.expect_idle();
    let request = origin.request();
    assert_eq!(request.head.start, "GET /a?b=c HTTP/1.1");
    assert_eq!(request.head.get("x-question"), Some("life"));
}

#[test]
fn fields_keep_their_order_their_case_and_their_repetition() {
    let origin = Origin::says(
        "HTTP/1.1 200 OK\r\nset-Cookie: a=1\r\nX-B: 2\r\nSet-Cookie: c=3\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = start(&site(origin.addr()));
    let sent = ["X-One: 1", "x-tWO: 2", "X-One:   3  ", "X-Empty:", "X-Latin: caf\u{e9}"];
    let mut request = b"GET / HTTP/1.1\r\nHost: a.example\r\n".to_vec();
    for line in sent {
        request.extend(line.chars().map(|c| c as u8));
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(request);
    let cookies: Vec<_> = client.response().head.fields;
    let cookies: Vec<_> =
        cookies.iter().filter(|(name, _)| name.to_lowercase() != "content-length").collect();
    let names: Vec<&str> = cookies.iter().map(|(name, _)| name.as_str()).collect();
    let at = names.iter().position(|name| *name == "set-Cookie").expect("the case of the origin");
    assert_eq!(names[at..at + 3], ["set-Cookie", "X-B", "Set-Cookie"]);
    let fields = origin.request().head.fields;
    let ours: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| ["x-one", "x-two", "x-empty", "x-latin"].contains(&name.to_lowercase().as_str()))
        .collect();
    assert_eq!(
        ours,
        [("X-One", "1"), ("x-tWO", "2"), ("X-One", "3"), ("X-Empty", ""), ("X-Latin", "caf\u{e9}")]
    );
}

#[test]
fn the_target_reaches_the_origin_as_it_was_sent() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    let targets = [
        "/",
        "/?",
        "//",
        "/a//b",
        "/a/./b/../c",
        "/a%2Fb%2e%2E/c",
        "/%41",
        "/a?b=c?d=/../e",
        "/a;b=c/d",
        "/!$&'()*+,;=:@-._~",
    ];
    for target in targets {
        assert_eq!(client.get(target).status(), 200, "{target}");
    }
    let seen = origin.requests();
    let seen: Vec<&str> = seen.iter().map(|request| request.head.target()).collect();
    assert_eq!(seen, targets);
}

#[test]
fn an_absolute_target_becomes_a_path() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET http://A.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    client.send("GET http://a.example?y HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    let targets: Vec<String> = origin.requests().iter().map(|r| r.head.target().to_owned()).collect();
    assert_eq!(targets, ["/x?y", "/?y"]);
}

#[test]
fn methods_pass_whatever_they_are() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE", "M-SEARCH", "get"];
    for method in methods {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        assert_eq!(client.response_to(method).status(), 200, "{method}");
    }
    client.send("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    let seen = origin.requests();
    let seen: Vec<&str> = seen.iter().map(|request| request.head.method()).collect();
    assert_eq!(seen[..methods.len()], methods);
    assert_eq!(origin.requests()[methods.len()].head.target(), "*");
}

#[test]
fn a_connect_is_not_for_a_reverse_proxy() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n");
    let status = client.response().status();
    assert!((400..=501).contains(&status), "{status}");
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn a_head_has_no_body_whatever_its_length_says() {
    let origin = Origin::start(|call| {
        if call.head.method() == "HEAD" {
            call.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        } else {
            call.reply(&Reply::new(200, "next"))
        }
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let response = client.response_to("HEAD");
    assert_eq!(response.head.get("content-length"), Some("1000"));
    assert_eq!(client.get("/").text(), "next");
    assert_eq!(origin.ways(), [0, 0], "the connection stays good");
}

#[test]
fn answers_without_a_body_leave_the_connection_good() {
    let origin = Origin::start(|call| match call.head.target() {
        "/204" => call.send("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => call.send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 500\r\n\r\n"),
        "/304-chunked" => call.send("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "/205" => call.send("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
        _ => call.reply(&Reply::new(200, "next")),
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    for status in [204, 304, 205] {
        let response = client.get(&format!("/{status}"));
        assert_eq!((response.status(), response.body.len()), (status, 0));
        assert_eq!(client.get("/").text(), "next");
    }
    assert_eq!(client.get("/304-chunked").status(), 304);
    assert_eq!(client.get("/").text(), "next");
}

#[test]
fn a_status_is_passed_on_whatever_it_means() {
    let origin = Origin::start(|call| {
        let status = call.head.target()[1..].parse().unwrap();
        call.reply(&Reply::new(status, "x"))
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    for status in [200, 201, 226, 299, 300, 308, 400, 404, 418, 499, 500, 503, 599] {
        assert_eq!(client.get(&format!("/{status}")).status(), status);
    }
}

#[test]
fn long_heads_pass_up_to_the_limit() {
    let filling = "y".repeat(20_000);
    let origin = Origin::says(format!("HTTP/1.1 200 OK\r\nX-Long: {filling}\r\nContent-Length: 0\r\n\r\n"));
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    let target = &filling[..8_000];
    client.send(format!("GET /{target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    assert_eq!(client.response().head.get("x-long"), Some(filling.as_str()));
    client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-Long: {filling}\r\n\r\n"));
    assert_eq!(client.response().status(), 200);
    assert_eq!(origin.requests()[1].head.get("x-long"), Some(filling.as_str()));
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let origin = Origin::start(|call| {
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" {
            call.send([*byte])?;
        }
        Ok(())
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    let request =
        b"GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\nGET /next HTTP/1.1\r\nHost: a.example\r\n\r\n";
    client.send_pieces(request.chunks(1));
    assert_eq!(client.response().text(), "ok");
    assert_eq!(client.response().text(), "ok");
    client.expect_idle();
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("\r\nGET /a HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response().text(), "o");
}

#[test]
fn an_origin_may_be_a_unix_socket_or_a_url() {
    let dir = wmproxy_testkit::TempDir::new();
    let unix =
        Origin::start_at(&dir.join("o.sock").as_path().into(), |call| call.reply(&Reply::new(200, "unix")));
    let proxy = start(&site(unix.addr()));
    assert_eq!(Client::connect(&proxy.tcp("h")).get("/").text(), "unix");
    drop(proxy);
    let inet = Origin::named("inet");
    let proxy = start(&one_route(&format!("reverse_proxy = \"http://{}/base\"", inet.addr())));
    let mut client = Client::connect(&proxy.tcp("h"));
    assert_eq!(client.get("/x?y").text(), "inet");
    assert_eq!(inet.request().head.target(), "/base/x?y");
}
