//! The tools themselves: a backend that does not misbehave as ordered would make its tests prove nothing.

use std::io;
use std::time::Duration;

use wmproxy_testkit::tcp::Closed;
use wmproxy_testkit::{Addr, Backend, Conn, Pattern, Rng, UdpBackend, UdpClient};

#[test]
fn an_echo_returns_a_long_stream_and_its_end() {
    let backend = Backend::echo();
    let conn = Conn::connect(backend.addr());
    let pattern = Pattern::new(7);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            conn.send_pattern(&pattern, 3_000_000, &mut Rng::new(1)).unwrap();
            conn.finish();
        });
        conn.recv_pattern(&pattern, 3_000_000, &mut Rng::new(2));
        conn.expect_end();
    });
    assert_eq!(backend.next_end().bytes, 3_000_000);
}

#[test]
fn resets_are_resets_on_both_sides() {
    let resets = Backend::resets();
    Conn::connect(resets.addr()).expect_reset();
    let echo = Backend::echo();
    let conn = Conn::connect(echo.addr());
    conn.echo(b"hello");
    conn.reset();
    assert_eq!(echo.next_end().error, Some(io::ErrorKind::ConnectionReset));
}

#[test]
fn an_unreachable_port_never_answers_and_a_closed_one_refuses() {
    let unreachable = wmproxy_testkit::backend::Unreachable::new();
    let Addr::Inet(addr) = unreachable.addr() else { panic!("a TCP port") };
    let error = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let error = Conn::try_connect(&Closed::new().addr()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn udp_backends_answer_as_often_as_told() {
    let backend = UdpBackend::replies(3);
    let client = UdpClient::connect(backend.addr());
    client.send(b"x");
    assert_eq!([client.recv(), client.recv(), client.recv()], [b"x", b"x", b"x"]);
    client.expect_nothing(Duration::from_millis(50));
    backend.wait_received(1);
    assert_eq!(backend.last().1.port(), client.local().port());
    client.send(&[]);
    assert_eq!(client.recv(), b"");
}
