//! Where bodies end, in every form that HTTP/1 has for that, and what comes before and after them.

use wmproxy_testkit::h2::{Raw, request_fields};
use wmproxy_testkit::http::{Framing, Reply};
use wmproxy_testkit::{Client, Gate, Origin};

use super::site;
use crate::start;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_chunked_request_arrives_whole() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in ["one ", "two ", "three"] {
        client.send_chunk(part.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.response().text(), "one two three");
    let request = origin.request();
    assert_eq!(request.head.request_framing().unwrap(), Framing::Chunked);
    // Nothing of the body is left for the next request.
    assert_eq!(client.get("/").text(), "o");
    assert_eq!(origin.ways(), [0, 0]);
}

#[test]
fn a_request_without_length_has_none_upstream() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.get("/");
    client.post("/", b"");
    let requests = origin.requests();
    assert_eq!(requests[0].head.request_framing().unwrap(), Framing::None);
    assert_eq!(requests[1].head.get("content-length"), Some("0"));
}

#[test]
fn chunks_of_odd_sizes_cut_anywhere_are_the_same_body() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "00000a\r\n0123456789\r\n1\r\nx\r\nA;ext=\"1\"\r\nabcdefghij\r\n000\r\n\r\n";
    for step in [1, 2, 3, 7] {
        let mut client = Client::connect(&proxy.tcp("h"));
        client.send(head);
        client.send_pieces(body.as_bytes().chunks(step));
        assert_eq!(client.response().text(), "0123456789xabcdefghij", "in pieces of {step}");
    }
}

#[test]
fn trailers_pass_in_both_directions() {
    let origin = Origin::start(|call| {
        call.read_body()?;
        call.send(CHUNKED)?;
        call.send("3\r\nabc\r\n0\r\nX-Sum: 6\r\nx-last: y\r\n\r\n")
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: TE\r\n");
    client.send("Transfer-Encoding: chunked\r\nTrailer: X-Up\r\n\r\n2\r\nhi\r\n0\r\nX-Up: 1\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "abc");
    assert_eq!(response.trailers, [("X-Sum".into(), "6".into()), ("x-last".into(), "y".into())]);
    assert_eq!(origin.request().trailers, [("X-Up".into(), "1".into())]);
}

#[test]
fn trailers_that_would_change_the_message_do_not_pass() {
    let origin = Origin::start(|call| {
        call.read_body()?;
        call.send(CHUNKED)?;
        call.send(
            "1\r\na\r\n0\r\nContent-Length: 5\r\nX-Good: 1\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n",
        )
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("0\r\nContent-Length: 9\r\nX-Good: 1\r\nHost: b.example\r\nAuthorization: x\r\n\r\n");
    let answer = client.try_response_to("POST");
    // To refuse the whole message is as good as to drop the fields.
    for trailers in
        answer.iter().map(|answer| &answer.trailers).chain(origin.requests().iter().map(|r| &r.trailers))
    {
        for (name, _) in trailers {
            assert_eq!(name, "X-Good");
        }
    }
}

#[test]
fn a_chunked_answer_is_passed_on_as_it_comes() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        call.send(CHUNKED)?;
        call.send("5\r\nfirst\r\n")?;
        wait.wait();
        call.send("6\r\nsecond\r\n0\r\n\r\n")
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.head().response_framing("GET").unwrap(), Framing::Chunked);
    let mut got = Vec::new();
    client
        .body(Framing::Chunked, |part| {
            got.extend_from_slice(part);
            // It is here before there is more: nothing is held back until the whole has come.
            gate.open();
        })
        .unwrap();
    assert_eq!(got, b"firstsecond");
    client.expect_idle();
}

#[test]
fn an_answer_that_ends_with_its_connection_does_so_only_upstream() {
    let origin = Origin::says_and_closes("HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nup to the end");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.text(), "up to the end");
        assert_eq!(response.head.get("transfer-encoding"), Some("chunked"));
    }
    client.expect_idle();
    assert_eq!(origin.ways(), [0, 1, 2]);
}

#[test]
fn a_client_of_1_0_gets_no_chunks() {
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nhello",
    ] {
        let origin = Origin::says_and_closes(answer);
        let proxy = start(&site(origin.addr()));
        let mut client = Client::connect(&proxy.tcp("h"));
        client.send("GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n");
        let response = client.response();
        assert_eq!(response.text(), "hello");
        assert!(!response.head.has("transfer-encoding") && !response.head.has("x-t"), "{response:?}");
        client.expect_closed();
    }
}

#[test]
fn an_answer_of_1_0_is_one_of_1_1_to_the_client() {
    let origin = Origin::says_and_closes("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..2 {
        let response = client.get("/");
        assert!(response.head.start.starts_with("HTTP/1.1 200"), "{}", response.head.start);
        assert_eq!(response.text(), "ok");
    }
    client.expect_idle();
}

#[test]
fn a_body_cut_off_upstream_is_cut_off_for_the_client() {
    for (answer, part) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "half"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "half"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf", "half"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", "half"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-A: ", "half"),
    ] {
        let origin = Origin::says_and_closes(answer);
        let proxy = start(&site(origin.addr()));
        let mut client = Client::connect(&proxy.tcp("h"));
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let head = client.head();
        let mut got = Vec::new();
        let end = client.body(head.response_framing("GET").unwrap(), |bytes| got.extend_from_slice(bytes));
        assert!(end.is_err(), "{answer:?} looked whole");
        assert!(part.as_bytes().starts_with(&got), "{answer:?} became {got:?}");
        drop(client);
        proxy.expect_warn("ejected");
    }
}

#[test]
fn an_expected_continue_comes_and_the_body_after_it() {
    let origin = Origin::start(|call| {
        if call.head.lists("expect", "100-continue") {
            call.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = call.read_body()?;
        call.reply(&Reply::new(200, body))
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..2 {
        client
            .send("POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(client.head().status(), 100);
        client.send("body");
        assert_eq!(client.head().status(), 200, "one 100 and no more");
        assert_eq!(client.recv(4), b"body");
        client.expect_idle();
    }
}

#[test]
fn a_refusal_in_place_of_the_continue_passes() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")?;
        call.close();
        Ok(())
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let mut head = client.head();
    if head.status() == 100 {
        // The proxy may say that itself; then the body is its to read.
        client.send("body");
        head = client.head();
    }
    assert_eq!(head.status(), 403);
}

#[test]
fn a_body_that_was_not_wanted_is_nobodys_request() {
    // It answers without a word about the body, and goes on to read whatever comes as a request.
    let origin = Origin::start(|call| call.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"));
    let proxy = start(&site(origin.addr()));
    let body = "GET /smuggled HTTP/1.1\r\nHost: z\r\n\r\n";
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.response().status(), 200);
    assert_eq!(Client::connect(&proxy.tcp("h")).get("/next").status(), 200);
    let requests = origin.requests();
    let next = requests.iter().position(|request| request.head.target() == "/next").unwrap();
    assert!(origin.ways()[next] != origin.ways()[0], "another connection");
}

#[test]
fn a_client_of_1_0_is_sent_nothing_provisional() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
        let body = call.read_body()?;
        call.reply(&Reply::new(200, body))
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client
        .send("POST / HTTP/1.0\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.head().status(), 200);
}

#[test]
fn early_hints_pass_each_on_its_own() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        call.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")?;
        call.send("HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n")?;
        wait.wait();
        call.reply(&Reply::new(200, "page"))
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let hints = client.head();
    assert_eq!((hints.status(), hints.get("link")), (103, Some("</a>")));
    assert_eq!(client.head().status(), 102);
    assert_eq!(client.head().get("link"), Some("</b>"));
    gate.open();
    assert_eq!(client.response().text(), "page");
    client.expect_idle();
}

#[test]
fn interim_answers_without_end_are_not_followed() {
    let origin = Origin::start(|call| {
        while call.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").is_ok() {}
        call.close();
        Ok(())
    });
    let proxy = start(&site(origin.addr()));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    // Some may pass; then it is enough.
    assert!(client.closes_within(wmproxy_testkit::PATIENCE) || origin.backend().active() == 0);
    origin.backend().wait_idle();
}

#[test]
fn an_expectation_that_is_not_known_is_refused_in_every_version() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nExpect: a-miracle\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response().status(), 417);
    let mut raw = Raw::connect(&proxy.tcp("h"));
    raw.head(1, &[&request_fields("GET", "/")[..], &[("expect", "a-miracle")]].concat(), true);
    assert_eq!(raw.status(1), 417);
    assert_eq!(origin.backend().accepted(), 0);
}
