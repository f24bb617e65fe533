//! What the system makes of the options: each is read back from a socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::*;
use crate::addr::Protocol;
use crate::sys;

const LOOPBACKS: [&str; 2] = ["127.0.0.1:9", "[::1]:9"];

fn peer(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tcp(domain: Domain) -> Socket {
    Socket::new(domain, Type::STREAM, None).unwrap()
}

/// Whether the system lets this process have what only few may.
fn is_privileged() -> bool {
    tcp(Domain::IPV4).set_mark(1).is_ok()
}

fn octet(socket: &Socket, is_ipv4: bool) -> u32 {
    if is_ipv4 { socket.tos_v4().unwrap() } else { socket.tclass_v6().unwrap() }
}

#[test]
fn a_class_of_service_is_set_and_taken_back_beside_the_bits_of_ecn() {
    for to in LOOPBACKS.map(peer) {
        let ef =
            ListenSocket { way: Way { dscp: Dscp::new(46), ..Way::default() }, ..ListenSocket::default() };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let socket = ef.open(protocol, Domain::for_address(to)).unwrap();
            ef.apply(&socket, protocol, to.is_ipv4()).unwrap();
            assert_eq!(octet(&socket, to.is_ipv4()), 46 << 2);
            ListenSocket::default().apply(&socket, protocol, to.is_ipv4()).unwrap();
            assert_eq!(octet(&socket, to.is_ipv4()), 0);
        }
        let socket = tcp(Domain::for_address(to));
        let options = PeerSocket { way: ef.way.clone(), ..PeerSocket::default() };
        options.prepare_tcp(&socket, to, None).unwrap();
        assert_eq!(octet(&socket, to.is_ipv4()), 46 << 2);
    }
}

#[test]
fn a_source_address_leaves_the_port_to_the_connect() {
    for (to, from) in [("127.0.0.1:9", "127.0.0.7"), ("[::1]:9", "::1")] {
        let (to, from): (SocketAddr, IpAddr) = (peer(to), from.parse().unwrap());
        let options = PeerSocket { source: Some(Source::Address(from)), ..PeerSocket::default() };
        options.probe().unwrap();
        let socket = tcp(Domain::for_address(to));
        options.prepare_tcp(&socket, to, None).unwrap();
        assert_eq!(socket.local_addr().unwrap().as_socket(), Some(SocketAddr::new(from, 0)));
    }
}

#[test]
fn a_source_that_can_not_be_is_our_own_fault_and_says_why() {
    let fails = |source, to: &str, client| {
        let options = PeerSocket { source: Some(source), ..PeerSocket::default() };
        let to = peer(to);
        let error = options.prepare_tcp(&tcp(Domain::for_address(to)), to, client).unwrap_err();
        assert!(NoWay::is_in(&error), "{error}");
        error.to_string()
    };
    let four = Source::Address([127, 0, 0, 1].into());
    assert!(fails(four, "[::1]:9", None).contains("IPv4 and IPv6"));
    assert!(fails(Source::Client, "127.0.0.1:9", None).contains("unix"));
    // An address for documentation (RFC 5737), which no machine has.
    let foreign = Source::Address([192, 0, 2, 77].into());
    assert!(fails(foreign, "127.0.0.1:9", None).contains("no such address"));
    assert!(!NoWay::is_in(&io::ErrorKind::ConnectionRefused.into()));
}

#[test]
fn a_mark_is_set_or_the_missing_right_is_named() {
    let way = Way { mark: 7, ..Way::default() };
    let listen = ListenSocket { way: way.clone(), ..ListenSocket::default() };
    let options = PeerSocket { way, ..PeerSocket::default() };
    if is_privileged() {
        let socket = tcp(Domain::IPV4);
        options.prepare_tcp(&socket, peer("127.0.0.1:9"), None).unwrap();
        assert_eq!(socket.mark().unwrap(), 7);
        listen.apply(&socket, Protocol::Tcp, true).unwrap();
        ListenSocket::default().apply(&socket, Protocol::Tcp, true).unwrap();
        assert_eq!(socket.mark().unwrap(), 0);
    } else {
        let before = ListenSocket::default();
        let refused = listen.probe(&before, Protocol::Tcp, [127, 0, 0, 1].into()).unwrap_err();
        for error in [options.probe().unwrap_err(), refused] {
            assert!(
                error.to_string().contains("`mark`") && error.to_string().contains("CAP_NET_ADMIN"),
                "{error}"
            );
        }
    }
}

#[test]
fn the_clients_address_is_taken_or_the_missing_right_is_named() {
    let options = PeerSocket { source: Some(Source::Client), ..PeerSocket::default() };
    if is_privileged() {
        for (to, client) in [("127.0.0.1:9", "192.0.2.77"), ("[::1]:9", "2001:db8::7")] {
            let (to, client): (SocketAddr, IpAddr) = (peer(to), client.parse().unwrap());
            let socket = tcp(Domain::for_address(to));
            options.prepare_tcp(&socket, to, Some(client)).unwrap();
            assert_eq!(socket.local_addr().unwrap().as_socket(), Some(SocketAddr::new(client, 0)));
        }
        options.probe().unwrap();
    } else {
        let error = options.probe().unwrap_err().to_string();
        assert!(error.contains("`source`") && error.contains("CAP_NET_RAW"), "{error}");
    }
}

#[test]
fn a_device_is_bound_to_and_let_go_and_one_that_is_not_there_is_named() {
    let with = |name: &str| ListenSocket {
        way: Way { interface: Some(name.parse().unwrap()), ..Way::default() },
        ..ListenSocket::default()
    };
    let before = ListenSocket::default();
    let missing = with("no-such-device").probe(&before, Protocol::Udp, [127, 0, 0, 1].into()).unwrap_err();
    assert!(missing.to_string().contains("no such network device"), "{missing}");
    let socket = tcp(Domain::IPV4);
    with("lo").apply(&socket, Protocol::Tcp, true).unwrap();
    assert_eq!(socket.device().unwrap().as_deref(), Some(&b"lo"[..]));
    // Anybody may choose a device, but only few may let it go.
    let back = before.apply(&socket, Protocol::Tcp, true);
    assert_eq!(back.is_ok(), is_privileged());
    assert_eq!(before.probe(&with("lo"), Protocol::Tcp, [127, 0, 0, 1].into()).is_ok(), is_privileged());
}

#[test]
fn keepalive_and_user_timeout_are_set_and_taken_back() {
    let (idle, interval, user) =
        (Duration::from_secs(60), Duration::from_secs(20), Duration::from_millis(1500));
    let options =
        TcpOptions { nodelay: false, keepalive: Some(Keepalive::after(idle)), user_timeout: Some(user) };
    let socket = tcp(Domain::IPV4);
    options.apply_to_new(&socket).unwrap();
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), idle);
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), interval);
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(user));
    TcpOptions::default().apply(&socket).unwrap();
    assert!(!socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    assert_eq!(socket.tcp_user_timeout().unwrap(), None);
}

#[test]
fn fast_open_is_set_on_both_sides() {
    let fast = ListenSocket { fast_open: true, ..ListenSocket::default() };
    let socket = tcp(Domain::IPV4);
    let queue = || sys::get_int(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN).unwrap();
    socket.bind(&peer("127.0.0.1:0").into()).unwrap();
    socket.listen(1).unwrap();
    fast.apply(&socket, Protocol::Tcp, true).unwrap();
    assert!(queue() > 0);
    ListenSocket::default().apply(&socket, Protocol::Tcp, true).unwrap();
    assert_eq!(queue(), 0);
    let near = tcp(Domain::IPV4);
    let options = PeerSocket { fast_open: true, ..PeerSocket::default() };
    options.prepare_tcp(&near, peer("127.0.0.1:9"), None).unwrap();
    let on = sys::get_int(near.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT).unwrap();
    assert_eq!(on, 1);
}

#[test]
fn a_listener_that_takes_no_newcomers_still_gives_out_who_waits() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let _waiting = std::net::TcpStream::connect(addr).unwrap();
    refuse_newcomers(&listener).unwrap();
    let late = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(50)).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    listener.set_nonblocking(true).unwrap();
    listener.accept().unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let path = std::env::temp_dir().join(format!("wmproxy-newcomers-{}", std::process::id()));
    let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(refuse_newcomers(&unix).is_err());
}

#[test]
fn multipath_tcp_takes_what_every_connection_gets_or_is_replaced_by_tcp() {
    let options = PeerSocket { mptcp: true, ..PeerSocket::default() };
    let listen = ListenSocket { mptcp: true, ..ListenSocket::default() };
    let protocol = |socket: &Socket| SockRef::from(socket).protocol().unwrap();
    for to in LOOPBACKS.map(peer) {
        let socket = options.open_tcp(to).unwrap();
        options.prepare_tcp(&socket, to, None).unwrap();
        let listening = listen.open(Protocol::Tcp, Domain::for_address(to)).unwrap();
        listen.apply(&listening, Protocol::Tcp, to.is_ipv4()).unwrap();
        let lacks = options.shortcomings();
        let expected = if lacks.is_empty() { socket2::Protocol::MPTCP } else { socket2::Protocol::TCP };
        assert_eq!([protocol(&socket), protocol(&listening)], [Some(expected); 2], "{lacks:?}");
    }
}

#[test]
fn a_listeners_options_win_only_where_the_group_says_nothing() {
    let own = Source::Address([127, 0, 0, 2].into());
    let group = PeerSocket { source: Some(own), fast_open: true, ..PeerSocket::default() };
    let tcp = TcpOptions { nodelay: false, ..TcpOptions::default() };
    let both = group.with(tcp, Some(Source::Client));
    assert_eq!((both.source, both.tcp, both.fast_open), (Some(own), tcp, true));
    assert_eq!(PeerSocket::default().with(tcp, Some(Source::Client)).source, Some(Source::Client));
}
