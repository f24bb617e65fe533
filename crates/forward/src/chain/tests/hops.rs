//! Several proxies behind each other. As the first one is a pipe once it has consented, one script plays both.

use super::*;

#[test]
fn each_hop_is_asked_for_the_next_and_the_last_for_the_destination() {
    let both = proxy(&[
        (b"CONNECT second.test:1080 HTTP/1.1\r\nHost: second.test:1080\r\nVia: 1.1 wmproxy-............\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
        (&[5, 1, 0], &[5, 0]),
        (b"\x05\x01\x00\x03\x09third.hop\x0d\x3d", b"\x05\x00\x00\x01\0\0\0\0\0\0"),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\0a.test\0", b"\x00\x5a\0\0\0\0\0\0early"),
    ]);
    let named = |kind, host, port| HopSpec { address: name(host, port), ..to(kind, &both) };
    let hops = vec![
        vec![to(HopKind::Http, &both)],
        vec![named(HopKind::Socks5, "second.test", 1080)],
        vec![named(HopKind::Socks4a, "third.hop", 3389)],
    ];
    let mut shop = Shop::default();
    let chain = shop.chain(hops, LONG);
    passes(&chain, &name("a.test", 80), b"early");
    assert_eq!(chain.limit(), LONG * 3);
    for hop in 0..3 {
        let peer = &shop.group(hop).snapshot(0).peers[0];
        assert_eq!((peer.in_flight, peer.leases), (0, 1), "the place is given back with the stream");
    }
}

#[test]
fn a_connection_has_its_place_at_each_parent_as_long_as_it_is_open() {
    let one = proxy(&[
        (&[5, 1, 0], &[5, 0]),
        (b"\x05\x01\x00\x03\x06a.test\x00\x50", b"\x05\x00\x00\x01\0\0\0\0\0\0"),
    ]);
    let mut shop = Shop::default();
    let chain = shop.chain(vec![vec![to(HopKind::Socks5, &one)]], LONG);
    on_worker(async {
        let stream = chain.connect(&name("a.test", 80)).await.unwrap();
        assert_eq!(shop.group(0).snapshot(0).peers[0].in_flight, 1);
        drop(stream);
        assert_eq!(shop.group(0).snapshot(0).peers[0].in_flight, 0);
    });
}

#[test]
fn what_goes_wrong_is_told_of_the_hop_that_it_goes_wrong_at() {
    let first = proxy(&[
        (&[5, 1, 0], &[5, 0]),
        (b"\x05\x01\x00\x03\x0bsecond.test\x04\x38", &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]),
    ]);
    let second = HopSpec { address: name("second.test", 1080), ..to(HopKind::Socks5, &first) };
    let mut shop = Shop::default();
    let chain = shop.chain(vec![vec![to(HopKind::Socks5, &first)], vec![second]], LONG);
    let error = fails(&chain, &name("a.test", 80));
    let at = first.addr().inet();
    let expected = format!(
        "can't connect to proxy 2 (socks5://second.test:1080): proxy 1 (socks5://{at}) answers: connection refused"
    );
    assert_eq!((error.fault, &*error.text), (Fault::HopDown, &*expected));
    let failed = |hop: usize| shop.group(hop).snapshot(0).peers[0].connect_errors.refused;
    assert_eq!((failed(0), failed(1)), (0, 1), "the first one did its part");
}

#[test]
fn a_first_hop_that_is_down_is_not_laid_upon_the_second() {
    let (_held, dead) = refusing();
    let second = HopSpec { address: name("second.test", 1080), ..hop(HopKind::Socks5, dead) };
    let mut shop = Shop::default();
    let chain = shop.chain(vec![vec![hop(HopKind::Http, dead)], vec![second]], LONG);
    let error = fails(&chain, &name("a.test", 80));
    assert_eq!(error.fault, Fault::HopDown);
    assert!(error.text.starts_with("can't connect to proxy 1 (http://127.0.0.1:"), "{error}");
    let refused = |hop: usize| shop.group(hop).snapshot(0).peers[0].connect_errors.refused;
    assert_eq!((refused(0), refused(1)), (1, 0));
}

#[test]
fn silence_before_the_question_is_the_proxys_and_behind_it_the_destinations() {
    let silent = Backend::silent();
    let chain = Shop::default().chain(vec![vec![to(HopKind::Socks5, &silent)]], SHORT);
    let error = fails(&chain, &name("a.test", 80));
    assert_eq!(error.fault, Fault::HopDown);
    assert!(error.text.ends_with("does not answer in time"), "{error}");
    let chain = Shop::default().chain(vec![vec![to(HopKind::Http, &silent)]], SHORT);
    let error = fails(&chain, &name("a.test", 80));
    assert_eq!(error.fault, Fault::TimedOut);
    assert!(error.text.ends_with("does not say in time whether there is a way to a.test:80"), "{error}");
}

#[test]
fn checks_go_through_on_any_thread() {
    let one = proxy(&[
        (&[5, 1, 0], &[5, 0]),
        (b"\x05\x01\x00\x03\x06a.test\x00\x50", b"\x05\x00\x00\x01\0\0\0\0\0\0"),
    ]);
    let chain = single(to(HopKind::Socks5, &one));
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let moved = async move {
        let to = name("a.test", 80);
        let stream = chain.connect_alone(&to).await.unwrap();
        send(&stream, b"x").await;
        recv(&stream, 1).await
    };
    let task = threads.spawn(moved);
    assert_eq!(threads.block_on(task).unwrap(), b"x");
}
