//! CONNECT over HTTP/1.

use std::sync::atomic::Ordering;
use std::time::Duration;

use wmproxy_http::options::HttpOptions;
use wmproxy_net::record::Outcome;
use wmproxy_testkit::{Backend, Pattern};

use crate::allocations::held_by_worker;

use super::gate::{ALICE, Proxy, SOON};

#[test]
fn bytes_pass_both_ways_and_are_written_down() {
    let echo = Backend::echo();
    let proxy = Proxy::with(&[("a.example:443", echo.addr().inet())]);
    let client = proxy.tunnel("a.example:443");
    let (conn, rest) = client.into_parts();
    assert!(rest.is_empty());
    let large = Pattern::new(3).bytes(0, 2_000_000);
    std::thread::scope(|scope| {
        scope.spawn(|| conn.send(&large));
        assert!(conn.recv(large.len()) == large);
    });
    assert!(proxy.house.log.lines.lock().unwrap().is_empty(), "it is not over");
    conn.finish();
    conn.expect_end();
    assert_eq!(proxy.house.lines(1), ["CONNECT a.example:443 200 2000000/2000000"]);
    drop(conn);
    proxy.house.assert_nothing_left();
    assert_eq!(proxy.house.log.outcomes.lock().unwrap().as_slice(), [Outcome::Done]);
}

#[test]
fn bytes_behind_the_head_are_not_lost() {
    let echo = Backend::echo();
    let proxy = Proxy::with(&[("a.example:443", echo.addr().inet())]);
    let mut client = proxy.connect();
    client.send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\nearly ");
    assert_eq!(client.head().status(), 200);
    client.send("late");
    assert_eq!(client.recv(10), b"early late");
    client.finish();
    client.expect_closed();
    assert_eq!(proxy.house.lines(1), ["CONNECT a.example:443 200 10/10"]);
}

#[test]
fn the_answer_names_no_length() {
    let echo = Backend::echo();
    let proxy = Proxy::with(&[("a.example:443", echo.addr().inet())]);
    for request in [
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.0\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 0\r\n\r\n",
    ] {
        let mut client = proxy.connect();
        client.send(request);
        let head = client.head();
        assert_eq!((head.status(), head.fields.len()), (200, 0), "{head:?}");
        client.send("x");
        assert_eq!(client.recv(1), b"x");
    }
}

#[test]
fn half_closes_pass_both_ways() {
    let backend = Backend::start(|conn| {
        assert_eq!(conn.recv_all(), b"question");
        conn.send(b"answer");
        Ok(8)
    });
    let proxy = Proxy::with(&[("a.example:443", backend.addr().inet())]);
    let mut client = proxy.tunnel("a.example:443");
    client.send("question");
    client.finish();
    assert_eq!(client.recv(6), b"answer");
    client.expect_closed();

    let backend = Backend::start(|conn| {
        conn.send(b"first");
        conn.finish();
        assert_eq!(conn.recv_all(), b"then");
        Ok(4)
    });
    proxy.gate.names.lock().unwrap().insert("b.example:443".into(), backend.addr().inet());
    let (conn, rest) = proxy.tunnel("b.example:443").into_parts();
    assert_eq!([rest, conn.recv_all()].concat(), b"first");
    conn.send(b"then");
    conn.finish();
    proxy.house.lines(2);
    drop(conn);
    proxy.house.assert_nothing_left();
}

#[test]
fn resets_pass_both_ways() {
    let backend = Backend::start(|conn| {
        conn.recv(1);
        conn.again()?.reset();
        Ok(1)
    });
    let proxy = Proxy::with(&[("a.example:443", backend.addr().inet())]);
    let (conn, _) = proxy.tunnel("a.example:443").into_parts();
    conn.send(b"x");
    conn.expect_reset();

    let backend = Backend::start(|conn| {
        conn.expect_reset();
        Ok(0)
    });
    proxy.gate.names.lock().unwrap().insert("b.example:443".into(), backend.addr().inet());
    proxy.tunnel("b.example:443").reset();
    proxy.house.lines(2);
    proxy.house.assert_nothing_left();
    let outcomes = proxy.house.log.outcomes.lock().unwrap().clone();
    assert!(
        outcomes.contains(&Outcome::PeerReset) && outcomes.contains(&Outcome::ClientReset),
        "{outcomes:?}"
    );
}

#[test]
fn a_slow_reader_holds_the_other_side_back() {
    let (tell, sent) = std::sync::mpsc::channel();
    let total = 64 << 20;
    let backend = Backend::start(move |conn| {
        let piece = vec![7; 1 << 16];
        for _ in 0..total / piece.len() {
            conn.try_send(&piece)?;
            let _ = tell.send(piece.len());
        }
        Ok(0)
    });
    let proxy = Proxy::with(&[("a.example:443", backend.addr().inet())]);
    let client = proxy.connect();
    client.read_slowly();
    let (conn, _) = {
        let mut client = client;
        client.send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n");
        assert_eq!(client.head().status(), 200);
        client.into_parts()
    };
    // Until nothing more is taken.
    while sent.recv_timeout(Duration::from_millis(300)).is_ok() {}
    conn.recv(1 << 20);
    drop(conn);
    proxy.house.lines(1);
    proxy.house.assert_nothing_left();
}

#[test]
fn who_says_nothing_for_long_is_ended() {
    let backend = Backend::start(|conn| Ok(conn.recv_all().len() as u64));
    let options: HttpOptions = toml::from_str("timeouts = { upgrade = \"50ms\" }").unwrap();
    let proxy = Proxy::with_options(options, &[("a.example:443", backend.addr().inet())]);
    let mut client = proxy.tunnel("a.example:443");
    client.expect_closed();
    proxy.house.lines(1);
    proxy.house.assert_nothing_left();
}

#[test]
fn it_is_granted_only_once_there_is_a_connection() {
    let proxy = Proxy::with(&[]);
    let mut client = proxy.connect();
    client.send("CONNECT nowhere.example:443 HTTP/1.1\r\nHost: nowhere.example\r\n\r\n");
    let answer = client.response_to("CONNECT");
    assert_eq!(answer.status(), 502);
    assert!(answer.text().contains("Nowhere.example:443 has no address"), "{}", answer.text());
    // The connection is as good as before.
    let echo = Backend::echo();
    proxy.gate.names.lock().unwrap().insert("a.example:443".into(), echo.addr().inet());
    client.send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    client.send("hello");
    assert_eq!(client.recv(5), b"hello");
}

#[test]
fn a_name_and_a_password_are_asked_for_on_the_same_connection() {
    let echo = Backend::echo();
    let proxy = Proxy::with(&[("a.example:443", echo.addr().inet())]);
    proxy.gate.is_closed.store(true, Ordering::Relaxed);
    let mut client = proxy.connect();
    client.send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n");
    let answer = client.response_to("CONNECT");
    assert_eq!(answer.status(), 407);
    assert_eq!(answer.head.get("proxy-authenticate"), Some("Basic realm=\"wmproxy\", charset=\"UTF-8\""));
    client.expect_idle();
    assert_eq!(proxy.gate.asked.lock().unwrap().len(), 0, "nothing is looked up for a stranger");
    client.send(format!(
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nProxy-Authorization: {ALICE}\r\n\r\n"
    ));
    assert_eq!(client.head().status(), 200);
    client.send("hello");
    assert_eq!(client.recv(5), b"hello");
}

#[test]
fn bytes_behind_a_refused_one_are_no_requests() {
    let echo = Backend::echo();
    let proxy = Proxy::with(&[("a.example:443", echo.addr().inet())]);
    proxy.gate.is_closed.store(true, Ordering::Relaxed);
    let mut client = proxy.connect();
    client.send(format!(
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n\
         GET http://a.example:443/ HTTP/1.1\r\nHost: a.example:443\r\nProxy-Authorization: {ALICE}\r\n\r\n"
    ));
    assert_eq!(client.response_to("CONNECT").status(), 407);
    client.expect_closed();
    assert_eq!(proxy.house.lines(1).len(), 1);
    assert_eq!(proxy.opened(), 0);
}

#[test]
fn an_idle_tunnel_holds_little() {
    let echo = Backend::echo();
    let proxy = Proxy::with(&[("a.example:443", echo.addr().inet())]);
    let open = |count: usize| {
        let tunnel = |_| {
            let mut client = proxy.tunnel("a.example:443");
            client.send("hello");
            assert_eq!(client.recv(5), b"hello");
            client
        };
        (0..count).map(tunnel).collect::<Vec<_>>()
    };
    // What the worker keeps for all of them together is there then.
    let _few = open(64);
    let before = held_by_worker(&proxy.house);
    let _many = open(256);
    let each = (held_by_worker(&proxy.house) - before) / 256;
    assert!((500..2800).contains(&each), "{each} bytes");
}

#[test]
fn tunnels_outlive_their_service_and_end_with_the_drain() {
    let echo = Backend::echo();
    let proxy = Proxy::with(&[("a.example:443", echo.addr().inet())]);
    let mut client = proxy.tunnel("a.example:443");
    proxy.house.retire();
    client.send("still here");
    assert_eq!(client.recv(10), b"still here");
    std::thread::sleep(SOON);
    client.send("and here");
    assert_eq!(client.recv(8), b"and here");
    let log = proxy.house.end();
    client.expect_closed();
    assert_eq!(*log.lines.lock().unwrap(), ["CONNECT a.example:443 200 18/18"]);
    assert_eq!(*log.outcomes.lock().unwrap(), [Outcome::Drained]);
}
