//! Requests, their answers, and what is kept between them.

use wmproxy_testkit::http::{Origin, Reply};

use crate::house::House;

#[test]
fn requests_of_one_client_use_one_connection_to_the_origin() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let house = House::before(&[origin.addr().inet()]);
    let mut client = house.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/a?b").text(), "hello");
    }
    client.expect_idle();
    assert_eq!(origin.ways(), [0; 5]);
    assert_eq!(house.lines(5), ["GET /a?b 200 0/5"; 5]);
    drop(client);
    house.assert_nothing_left();
}

#[test]
fn bodies_pass_whatever_frames_them() {
    let origin = Origin::start(|call| {
        let body = call.read_body()?;
        call.reply(&Reply::new(200, body))
    });
    let house = House::before(&[origin.addr().inet()]);
    let mut client = house.connect();
    assert_eq!(client.post("/known", b"some bytes").body, b"some bytes");
    let large = wmproxy_testkit::Pattern::new(1).bytes(0, 3_000_000);
    assert_eq!(client.post("/large", &large).body, large);
    client.send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_chunk(b"one ");
    client.send_chunk(&large);
    client.send("0\r\n\r\n");
    let echoed = client.response();
    assert_eq!((&echoed.body[..4], &echoed.body[4..]), (&b"one "[..], large.as_slice()));
    client.expect_idle();
    house.lines(3);
    assert_eq!(origin.ways(), [0; 3]);
}

#[test]
fn who_can_not_be_reached_is_a_bad_gateway() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let house = House::before(&[nobody]);
    let mut client = house.connect();
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.text()), (502, "502 Bad Gateway\n"));
    assert_eq!(client.get("/again").status(), 502, "the connection goes on");
    house.lines(2);
}
