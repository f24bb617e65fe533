//! Datagrams through proxies of SOCKS 5.

use wmproxy_wire::socks::datagram::header;

use super::*;

const GREETING: (&[u8], &[u8]) = (&[5, 1, 0], &[5, 0]);
const ASSOCIATE: &[u8] = &[5, 3, 0, 1, 0, 0, 0, 0, 0, 0];

#[test]
fn the_relay_of_one_proxy_is_where_it_says_or_where_it_is() {
    let elsewhere = proxy(&[GREETING, (ASSOCIATE, &[5, 0, 0, 1, 192, 0, 2, 1, 0, 9])]);
    let here = proxy(&[GREETING, (ASSOCIATE, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 9])]);
    for (proxy, relay) in [(elsewhere, "192.0.2.1:9"), (here, "127.0.0.1:9")] {
        on_worker(async {
            let association = single(to(HopKind::Socks5, &proxy)).associate().await.unwrap();
            assert_eq!((association.relay().to_string().as_str(), association.outer()), (relay, &[][..]));
            assert_eq!(association.open(b"as it is"), Some(&b"as it is"[..]));
        });
    }
}

#[test]
fn behind_each_other_a_datagram_has_a_header_for_each() {
    let both = proxy(&[
        // Of the first, for its own relay; then the way to the second, and what that says.
        GREETING,
        (ASSOCIATE, &[5, 0, 0, 1, 127, 0, 0, 1, 0, 7]),
    ]);
    let second = proxy(&[
        GREETING,
        (b"\x05\x01\x00\x03\x0bsecond.test\x04\x38", &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
        GREETING,
        (ASSOCIATE, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 8]),
    ]);
    // The first hop plays two connections: one for its relay, one that leads to the second.
    let (first_relay, leads_on) = (both.addr().inet(), second.addr().inet());
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let first = Backend::start(move |conn| {
        let to = [first_relay, leads_on][turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed).min(1)];
        pipe(conn, to)
    });
    let behind = HopSpec { address: name("second.test", 1080), ..to(HopKind::Socks5, &first) };
    let chain = Shop::default().chain(vec![vec![to(HopKind::Socks5, &first)], vec![behind]], LONG);
    on_worker(async {
        let association = chain.associate().await.unwrap();
        assert_eq!(association.relay().to_string(), "127.0.0.1:7");
        assert_eq!(association.outer(), b"\0\0\0\x03\x0bsecond.test\0\x08");
        let from = |port| header(SocketAddr::from(([192, 0, 2, 1], port)));
        let datagram = [&from(8)[..], &from(53), b"data"].concat();
        assert_eq!(association.open(&datagram), Some(&[&from(53)[..], b"data"].concat()[..]));
        let fragment = [&[0, 0, 1], &datagram[3..]].concat();
        assert_eq!((association.open(&fragment), association.open(b"\0\0")), (None, None));
    });
}

/// Passes bytes on both ways.
fn pipe(conn: &Conn, to: SocketAddr) -> io::Result<u64> {
    let (near, far) = (conn.socket().try_clone()?, std::net::TcpStream::connect(to)?);
    let (mut back, mut from) = (near.try_clone()?, far.try_clone()?);
    std::thread::spawn(move || io::copy(&mut from, &mut back));
    io::copy(&mut &near, &mut &far)
}

#[test]
fn it_ends_when_a_proxy_says_so() {
    let proxy = Backend::start(|conn| {
        conn.recv(3);
        conn.send(&[5, 0]);
        conn.recv(ASSOCIATE.len());
        conn.send(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 9]);
        // What means nothing does not end it.
        conn.send(b"noise");
        conn.recv(1);
        Ok(0)
    });
    on_worker(async {
        let association = single(to(HopKind::Socks5, &proxy)).associate().await.unwrap();
        let ended = tokio::time::timeout(SHORT, association.ended()).await;
        assert!(ended.is_err(), "not yet");
        drop(proxy);
        association.ended().await;
    });
}

#[test]
fn what_can_carry_none_says_so() {
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let socks = || hop(HopKind::Socks5, address);
    let cases = [
        (vec![vec![hop(HopKind::Http, address)]], "carries no datagrams"),
        (vec![vec![hop(HopKind::Socks4a, address)], vec![socks()]], "carries no datagrams"),
        (vec![vec![socks(), socks()], vec![socks()]], "is one of several"),
    ];
    for (hops, text) in cases {
        let chain = Shop::default().chain(hops, LONG);
        let error = on_worker(chain.associate()).unwrap_err();
        assert!(error.fault == Fault::Unsupported && error.text.contains(text), "{error}");
    }
    let unable = proxy(&[GREETING, (ASSOCIATE, &[5, 7, 0, 1, 0, 0, 0, 0, 0, 0])]);
    let error = on_worker(single(to(HopKind::Socks5, &unable)).associate()).unwrap_err();
    assert_eq!(error.fault, Fault::Unsupported);
    let nowhere = proxy(&[GREETING, (ASSOCIATE, &[5, 0, 0, 1, 127, 0, 0, 1, 0, 0])]);
    let error = on_worker(single(to(HopKind::Socks5, &nowhere)).associate()).unwrap_err();
    assert_eq!(error.fault, Fault::Broken, "{error}");
}
