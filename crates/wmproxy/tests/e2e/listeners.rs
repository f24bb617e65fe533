//! Listeners that come, go, change their names and come back: the right sockets stay, and whoever uses them notices
//! nothing.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{SockFilter, Socket, Type};
use wmproxy_testkit::{Addr, Backend, Conn, UdpBackend, UdpClient, eventually};

use crate::{assert_quick, start, stream, tcp};

const LIVES: &str = "idle_timeout = \"2s\"";

#[test]
fn a_udp_listener_may_come_back_while_its_flows_live() {
    let (backend, anchor) = (UdpBackend::whoami(), Backend::echo());
    let port = wmproxy_testkit::tcp::free_port();
    let without = tcp(anchor.addr(), "");
    let with = format!("{without}{}", stream("u", &format!("udp://127.0.0.1:{port}"), backend.addr(), LIVES));
    let proxy = start(&with);
    let to = proxy.udp("u");
    // Enough of them that each worker has some.
    let clients: Vec<UdpClient> = (0..16).map(|_| UdpClient::connect(to)).collect();
    let sources: Vec<String> = clients.iter().map(|client| client.ask_text(b"who am I?")).collect();
    let assert_untouched = || {
        for (client, source) in clients.iter().zip(&sources) {
            assert_eq!(&client.ask_text(b"and now?"), source, "the flow is another one");
        }
    };
    for _ in 0..3 {
        proxy.reload_with(&without);
        assert_untouched();
        // Out of service: no new flows.
        let late = UdpClient::connect(to);
        late.send(b"anybody?");
        late.expect_nothing(Duration::from_millis(50));
        proxy.reload_with(&with);
        assert_eq!(proxy.udp("u"), to);
        assert_untouched();
        for _ in 0..8 {
            UdpClient::connect(to).ask(b"in service again");
        }
    }
    assert!(proxy.metrics().sum("wmproxy_udp_dropped_total", &[("reason", "draining")]) <= 3.0);
}

#[test]
fn listeners_on_port_0_of_one_address_keep_their_own_sockets() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let one = |name: &str, backend: &Backend| stream(name, "127.0.0.1:0", backend.addr(), "");
    let proxy = start(&(one("a", &a) + &one("b", &b)));
    let (addr_a, addr_b) = (proxy.tcp("a"), proxy.tcp("b"));
    assert_ne!(addr_a, addr_b);
    // In the other order, and with one before them that takes neither's place.
    let third = Backend::named("c");
    proxy.reload_with(&(one("c", &third) + &one("b", &b) + &one("a", &a)));
    assert_eq!((proxy.tcp("a"), proxy.tcp("b")), (addr_a.clone(), addr_b.clone()));
    for (addr, name) in [(&addr_a, "a"), (&addr_b, "b"), (&proxy.tcp("c"), "c")] {
        assert_eq!(Conn::connect(addr).line(), name);
    }
    proxy.reload_with(&one("b", &b));
    assert_eq!(proxy.tcp("b"), addr_b);
    eventually("a's address to be closed", || Conn::try_connect(&addr_a).is_err());
}

#[test]
fn a_listener_under_another_name_keeps_its_sockets_and_connections() {
    let (backend, udp_backend) = (Backend::echo(), UdpBackend::whoami());
    let config = |name: &str| {
        stream(&format!("{name}-tcp"), "127.0.0.1:0", backend.addr(), "max_connections = 2")
            + &stream(&format!("{name}-udp"), "udp://127.0.0.1:0", udp_backend.addr(), LIVES)
    };
    let proxy = start(&config("old"));
    let (tcp_addr, udp_addr) = (proxy.tcp("old-tcp"), proxy.udp("old-udp"));
    let (conn, client) = (Conn::connect(&tcp_addr), UdpClient::connect(udp_addr));
    conn.echo(b"hello");
    let source = client.ask_text(b"who am I?");
    proxy.reload_with(&config("new"));
    assert_eq!((proxy.tcp("new-tcp"), proxy.udp("new-udp")), (tcp_addr.clone(), udp_addr));
    conn.echo(b"still here");
    assert_eq!(client.ask_text(b"and now?"), source);
    // Who came under the old name counts on: there is room for one more, not for two.
    let second = Conn::connect(&tcp_addr);
    second.echo(b"in");
    let third = Conn::connect(&tcp_addr);
    third.send(b"may I?");
    drop(conn);
    assert_eq!(third.recv(6), b"may I?");
}

/// A client in the middle of its handshake: the proxy's kernel has answered its SYN, and it has not heard that yet.
struct HalfOpen(Socket);

impl HalfOpen {
    fn connect(to: &Addr) -> Self {
        let to = to.inet();
        let socket = Socket::new(socket2::Domain::for_address(to), Type::STREAM.nonblocking(), None).unwrap();
        // BPF_RET with nothing to be kept: it hears nothing at all.
        socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).unwrap();
        socket.connect(&to.into()).unwrap_err();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        // proc(5): both ports in hexadecimal, and 03 is SYN_RECV.
        let ports = (format!(":{:04X}", to.port()), format!(":{port:04X}"));
        eventually("the SYN to be answered", || {
            std::fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| {
                let mut words = line.split_whitespace().skip(1);
                let mut next = || words.next().unwrap_or_default();
                next().ends_with(&ports.0) && next().ends_with(&ports.1) && next() == "03"
            })
        });
        HalfOpen(socket)
    }

    /// Hears what is sent to it from now on: the answer to the SYN comes again a second after the first.
    fn hear(self) -> Conn {
        self.0.detach_filter().unwrap();
        eventually("the handshake to end", || {
            assert_eq!(self.0.take_error().unwrap().map(|error| error.kind()), None);
            self.0.peer_addr().is_ok()
        });
        self.0.set_nonblocking(false).unwrap();
        Conn::new(self.0)
    }
}

/// A SYN that nobody answers is sent again after a second.
const AT_ONCE: Duration = Duration::from_millis(900);

#[test]
fn who_is_in_its_handshake_gets_in_though_the_listener_goes() {
    let backend = Backend::echo();
    let port = wmproxy_testkit::tcp::free_port();
    let anchor = tcp(backend.addr(), "");
    let at = |host: &str| anchor.clone() + &stream("x", &format!("{host}:{port}"), backend.addr(), "");
    let here = Addr::local(port);
    for (before, after) in
        [("127.0.0.1", None), ("127.0.0.1", Some("0.0.0.0")), ("0.0.0.0", Some("127.0.0.1"))]
    {
        // How long a newcomer waits.
        assert_quick(AT_ONCE, || {
            let proxy = start(&at(before));
            let client = HalfOpen::connect(&here);
            proxy.reload_with(&after.map_or(anchor.clone(), at));
            let begun = Instant::now();
            match after {
                None => assert!(Conn::try_connect(&here).is_err()),
                Some(_) => Conn::connect(&here).echo(b"a newcomer"),
            }
            let waited = begun.elapsed();
            client.hear().echo(b"from before the reload");
            waited
        });
    }
}

#[test]
fn a_listener_comes_back_while_its_last_client_is_in_its_handshake() {
    let backend = Backend::echo();
    let port = wmproxy_testkit::tcp::free_port();
    let without = tcp(backend.addr(), "");
    let with = without.clone() + &stream("x", &format!("127.0.0.1:{port}"), backend.addr(), "");
    let proxy = start(&with);
    let client = HalfOpen::connect(&proxy.tcp("x"));
    proxy.reload_with(&without);
    std::thread::scope(|scope| {
        scope.spawn(|| client.hear().echo(b"from before the reload"));
        proxy.reload_with(&with);
        Conn::connect(&proxy.tcp("x")).echo(b"in service again");
    });
}

#[test]
fn a_handshake_that_does_not_end_delays_neither_a_stop_nor_a_reload_for_long() {
    let backend = Backend::echo();
    let port = wmproxy_testkit::tcp::free_port();
    let without = tcp(backend.addr(), "");
    let with = without.clone() + &stream("x", &format!("127.0.0.1:{port}"), backend.addr(), "");
    // Who is in a handshake has two seconds where the process goes on.
    assert_quick(Duration::from_millis(1_900), || {
        let mut proxy = start(&with);
        let _client = HalfOpen::connect(&proxy.tcp("x"));
        proxy.reload_with(&without);
        let begun = Instant::now();
        proxy.reload_with(&with);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let _other = HalfOpen::connect(&proxy.tcp("x"));
        let begun = Instant::now();
        proxy.signal(Signal::TERM);
        assert_eq!(proxy.wait(), Some(0));
        begun.elapsed()
    });
}
