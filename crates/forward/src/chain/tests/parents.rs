//! Several parents of one hop.

use super::*;

const OPEN: Script<'static> =
    &[(&[5, 1, 0], &[5, 0]), (b"\x05\x01\x00\x03\x06a.test\x00\x50", b"\x05\x00\x00\x01\0\0\0\0\0\0")];

fn ejections(shop: &Shop) -> Vec<u64> {
    shop.group(0).snapshot(0).peers.iter().map(|peer| peer.ejections).collect()
}

#[test]
fn another_parent_is_taken_for_one_that_is_of_no_use() {
    let (_held, dead) = refusing();
    let strict = proxy(&[(&[5, 1, 0], &[5, 0xff])]);
    let garbled = proxy(&[(&[5, 1, 0], b"??")]);
    for useless in [dead, strict.addr().inet(), garbled.addr().inet()] {
        let good = proxy(OPEN);
        let mut shop = Shop::default();
        let parents = vec![hop(HopKind::Socks5, useless), to(HopKind::Socks5, &good)];
        let chain = shop.chain(vec![parents], LONG);
        for _ in 0..4 {
            passes(&chain, &name("a.test", 80), b"");
        }
        assert_eq!(ejections(&shop), [1, 0], "{useless} is put aside after one failure");
        assert_eq!(good.accepted(), 4);
    }
}

#[test]
fn a_no_to_the_destination_is_final_and_nobodys_failure() {
    const REFUSES: Script<'static> =
        &[(&[5, 1, 0], &[5, 0]), (b"\x05\x01\x00\x03\x06a.test\x00\x50", &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0])];
    let proxies = [proxy(REFUSES), proxy(REFUSES)];
    let mut shop = Shop::default();
    let parents = proxies.iter().map(|proxy| to(HopKind::Socks5, proxy)).collect();
    let chain = shop.chain(vec![parents], LONG);
    assert_eq!(fails(&chain, &name("a.test", 80)).fault, Fault::Denied);
    assert_eq!(proxies[0].accepted() + proxies[1].accepted(), 1);
    assert_eq!(ejections(&shop), [0, 0]);
}

#[test]
fn parents_of_a_hop_may_speak_differently() {
    let (socks, http) = (
        proxy(OPEN),
        proxy(&[(
            b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\nVia: 1.1 wmproxy-............\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        )]),
    );
    let mut shop = Shop::default();
    let chain = shop.chain(vec![vec![to(HopKind::Socks5, &socks), to(HopKind::Http, &http)]], LONG);
    for _ in 0..4 {
        passes(&chain, &name("a.test", 80), b"");
    }
    assert_eq!((socks.accepted(), http.accepted()), (2, 2));
}

#[test]
fn when_none_is_left_the_last_failure_is_told() {
    let ((_one, first), (_two, second)) = (refusing(), refusing());
    let chain =
        Shop::default().chain(vec![vec![hop(HopKind::Http, first), hop(HopKind::Http, second)]], LONG);
    let error = fails(&chain, &name("a.test", 80));
    assert_eq!(error.fault, Fault::HopDown);
    assert!(error.text.contains("Connection refused"), "{error}");
}

#[test]
fn groups_reach_their_peers_by_name_through_a_chain() {
    let proxy = proxy(OPEN);
    let chain = single(to(HopKind::Socks5, &proxy));
    let spec =
        GroupSpec { via: Some("c".into()), ..GroupSpec::inline("web", vec!["a.test:80".parse().unwrap()]) };
    let group = Registry::new().build_through(spec.clone(), [None, None], Some(chain));
    assert!(!group.has_names(), "nothing is resolved here");
    on_worker(async {
        let dialed = wmproxy_upstream::dial(&group, &Default::default(), &Default::default()).await.unwrap();
        send(&dialed.stream, b"x").await;
        assert_eq!(recv(&dialed.stream, 1).await, b"x");
        assert_eq!(dialed.lease.address().to_string(), "a.test:80");
    });
    let lost = Registry::new().build(spec);
    let error =
        on_worker(wmproxy_upstream::dial(&lost, &Default::default(), &Default::default())).unwrap_err();
    assert!(error.to_string().contains("the chain c is not at hand"), "{error}");
}
