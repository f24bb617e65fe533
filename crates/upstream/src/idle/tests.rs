use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use tokio::runtime::LocalRuntime;
use wmproxy_net::preface::ProxyVersion;
use wmproxy_runtime::scope::Scope;
use wmproxy_runtime::worker::Workers;

use super::*;
use crate::{FailKind, GroupStatus, LeaseKey, Registry, ServerSpec};

/// A peer that takes connections, and its side of them.
struct Origin(TcpListener);

impl Origin {
    fn new() -> Origin {
        Origin(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
    }

    fn accept(&self) -> TcpStream {
        let peer = self.0.accept().unwrap().0;
        // A test that would wait for ever fails instead.
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer
    }

    fn spec(&self) -> GroupSpec {
        GroupSpec::inline("g", vec![self.0.local_addr().unwrap().to_string().parse().unwrap()])
    }

    fn group(&self, change: impl FnOnce(&mut GroupSpec)) -> Arc<Group> {
        let mut spec = self.spec();
        change(&mut spec);
        Registry::new().build(spec)
    }
}

fn run<F: Future>(test: F) -> F::Output {
    LocalRuntime::new().unwrap().block_on(test)
}

fn lease(group: &Group) -> Lease {
    group.lease(&LeaseKey::default(), &[], clock::now().0).unwrap()
}

/// A new connection, ours and the peer's end of it.
async fn open(group: &Group, origin: &Origin) -> (Stream, TcpStream) {
    let stream = group.connect(&mut lease(group), group.attempt()).await.unwrap().stream;
    (stream, origin.accept())
}

/// The byte that the peer gets by what is written to a stream.
async fn byte_at(stream: &Stream, peer: &mut TcpStream, byte: u8) -> u8 {
    std::future::poll_fn(|cx| stream.poll_write(cx, &[byte])).await.unwrap();
    let mut got = [0];
    peer.read_exact(&mut got).unwrap();
    got[0]
}

/// How many are idle, how often one was used again, how many were made and how many were found closed.
fn counts(group: &Group) -> (usize, u64, u64, u64) {
    let GroupStatus { connections, .. } = group.snapshot(clock::now().0);
    connections.map_or((0, 0, 0, 0), |c| (c.idle, c.reused, c.opened, c.stale))
}

#[test]
fn the_newest_is_used_first_and_each_by_one() {
    run(async {
        let origin = Origin::new();
        let group = origin.group(|_| {});
        assert!(group.take_idle(&lease(&group)).is_none());
        let (first, mut peer_of_first) = open(&group, &origin).await;
        let (second, mut peer_of_second) = open(&group, &origin).await;
        group.put_idle(&lease(&group), first, None);
        group.put_idle(&lease(&group), second, None);
        assert_eq!(group.peers()[0].in_flight(), 0, "what is idle holds no lease");
        assert_eq!(counts(&group), (2, 0, 2, 0));
        let taken = group.take_idle(&lease(&group)).unwrap();
        assert_eq!(byte_at(&taken, &mut peer_of_second, 2).await, 2);
        let other = group.take_idle(&lease(&group)).unwrap();
        assert_eq!(byte_at(&other, &mut peer_of_first, 1).await, 1);
        assert!(group.take_idle(&lease(&group)).is_none());
        assert_eq!(counts(&group), (0, 2, 2, 0));
    });
}

#[test]
fn one_that_the_peer_closed_or_spoke_on_is_never_handed_out() {
    run(async {
        let origin = Origin::new();
        let group = origin.group(|_| {});
        for speaks in [true, false] {
            let (stream, mut peer) = open(&group, &origin).await;
            group.put_idle(&lease(&group), stream, None);
            if speaks {
                peer.write_all(b"?").unwrap();
            }
            drop(peer);
            // The event queue is asked when the worker has nothing else to do.
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(group.take_idle(&lease(&group)).is_none(), "speaks: {speaks}");
        }
        assert_eq!(counts(&group), (0, 0, 2, 2));
        let (stream, peer) = open(&group, &origin).await;
        drop(peer);
        tokio::time::sleep(Duration::from_millis(5)).await;
        group.put_idle(&lease(&group), stream, None);
        assert_eq!(counts(&group).0, 0, "nor is one kept that is closed already");
    });
}

#[test]
fn no_more_are_kept_than_allowed_and_none_for_longer() {
    run(async {
        let origin = Origin::new();
        let group = origin.group(|spec| spec.keepalive.max_idle = 2);
        let mut peers = vec![];
        for _ in 0..3 {
            let (stream, peer) = open(&group, &origin).await;
            peers.push(peer);
            group.put_idle(&lease(&group), stream, None);
        }
        assert_eq!(counts(&group).0, 2);
        assert_eq!(peers[2].read(&mut [0]).unwrap(), 0, "the third was closed");
        assert!(shelf::look_over(clock::now().0 + 59_000));
        assert_eq!(counts(&group).0, 2);
        shelf::look_over(clock::now().0 + 60_001);
        assert_eq!(counts(&group).0, 0);
        let (stream, _peer) = open(&group, &origin).await;
        group.put_idle(&lease(&group), stream, Some(Duration::ZERO));
        assert!(group.take_idle(&lease(&group)).is_none(), "the peer would not have kept it");
    });
}

#[test]
fn a_connection_for_one_client_is_kept_for_nobody() {
    run(async {
        let origin = Origin::new();
        for group in [
            origin.group(|spec| spec.keepalive.max_idle = 0),
            origin.group(|spec| spec.send_proxy_protocol = Some(ProxyVersion::V2)),
            origin.group(|spec| spec.socket.source = Some(Source::Client)),
        ] {
            assert!(!group.keeps_idle());
            let plain = origin.group(|_| {});
            let (stream, mut peer) = open(&plain, &origin).await;
            group.put_idle(&lease(&group), stream, None);
            assert!(group.take_idle(&lease(&group)).is_none());
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
    });
}

#[test]
fn a_reload_keeps_what_was_made_in_the_same_way_and_nothing_else() {
    run(async {
        let (origin, registry) = (Origin::new(), Registry::new());
        let old = registry.build(origin.spec());
        let (stream, _peer) = open(&old, &origin).await;
        old.put_idle(&lease(&old), stream, None);
        let mut marked = origin.spec();
        marked.socket.mptcp = true;
        let marked = registry.build(marked);
        assert!(marked.take_idle(&lease(&marked)).is_none());
        let mut secured = origin.spec();
        secured.tls = Some(wmproxy_net::tls::ConnectorSpec::default());
        let secured = registry.build(secured);
        assert!(secured.take_idle(&lease(&secured)).is_none());
        let same = registry.build(GroupSpec { retries: 7, ..origin.spec() });
        drop(old);
        assert!(same.take_idle(&lease(&same)).is_some());
        assert_eq!(counts(&same), (0, 1, 1, 0), "counters go on");
    });
}

#[test]
fn a_peer_in_disgrace_and_one_that_is_gone_keep_nothing() {
    run(async {
        let (origin, registry) = (Origin::new(), Registry::new());
        let group = registry.build(origin.spec());
        let (stream, mut peer) = open(&group, &origin).await;
        group.put_idle(&lease(&group), stream, None);
        lease(&group).failed(FailKind::Refused, clock::now().0);
        assert!(group.take_idle(&lease(&group)).is_none());
        assert_eq!((peer.read(&mut [0]).unwrap(), group.peers()[0].idle()), (0, 0));

        let (stream, mut peer) = open(&group, &origin).await;
        group.put_idle(&lease(&group), stream, None);
        drop(group);
        assert!(!shelf::look_over(clock::now().0), "nothing is left to look after");
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn closing_all_and_the_end_of_a_worker_leave_nothing() {
    let origin = Origin::new();
    let group = origin.group(|_| {});
    run(async {
        let (stream, mut peer) = open(&group, &origin).await;
        group.put_idle(&lease(&group), stream, None);
        close_all();
        assert_eq!((peer.read(&mut [0]).unwrap(), group.peers()[0].idle()), (0, 0));
    });
    let mut peer = run(async {
        let (stream, peer) = open(&group, &origin).await;
        group.put_idle(&lease(&group), stream, None);
        // One more turn, in which the one who tends the shelf comes.
        tokio::task::yield_now().await;
        peer
    });
    assert_eq!((peer.read(&mut [0]).unwrap(), group.peers()[0].idle()), (0, 0));
}

#[test]
fn what_a_worker_does_not_use_another_may_take() {
    let origin = Arc::new(Origin::new());
    let group = origin.group(|_| {});
    let workers = Workers::start(2).unwrap();
    let control = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let mut peers = vec![];
    let on = |index: usize, run: Arc<dyn Fn() + Send + Sync>| {
        control.block_on(workers.on_each(|worker| {
            let run = (worker == index).then(|| Arc::clone(&run));
            move || {
                if let Some(run) = run {
                    run();
                }
            }
        }))
    };
    for (index, count) in [(0, 3), (1, 1)] {
        let (group, origin, tell) = (Arc::clone(&group), Arc::clone(&origin), tell.clone());
        on(
            index,
            Arc::new(move || {
                let (group, origin, tell) = (Arc::clone(&group), Arc::clone(&origin), tell.clone());
                Scope::new().spawn(async move {
                    for _ in 0..count {
                        let (stream, peer) = open(&group, &origin).await;
                        tell.send(peer).unwrap();
                        group.put_idle(&lease(&group), stream, None);
                    }
                });
            }),
        );
        peers.extend((0..count).map(|_| told.recv().unwrap()));
    }
    while group.peers()[0].idle() < 4 {
        std::thread::yield_now();
    }
    on(0, Arc::new(|| assert!(shelf::look_over(clock::now().0 + SHARED_BY))));
    let (send, taken) = std::sync::mpsc::channel();
    let take = Arc::clone(&group);
    on(
        1,
        Arc::new(move || {
            // Its own first, then the two that the first worker did not use last.
            let streams = std::iter::from_fn(|| take.take_idle(&lease(&take)));
            send.send(streams.count()).unwrap();
        }),
    );
    assert_eq!((taken.recv().unwrap(), counts(&group).0), (3, 1));
    workers.end();
    assert_eq!(group.peers()[0].idle(), 0);
}

/// Longer than what is idle stays with its worker alone.
const SHARED_BY: u64 = 2000;

#[test]
fn servers_share_no_connections() {
    run(async {
        let (a, b) = (Origin::new(), Origin::new());
        let server = |origin: &Origin| origin.spec().servers.remove(0);
        let servers: Vec<ServerSpec> = vec![server(&a), server(&b)];
        let group = Registry::new().build(GroupSpec { servers, ..GroupSpec::inline("g", vec![]) });
        let mut first = lease(&group);
        let stream = group.connect(&mut first, group.attempt()).await.unwrap().stream;
        group.put_idle(&first, stream, None);
        let second = group.lease(&LeaseKey::default(), &[Arc::clone(first.peer())], 0).unwrap();
        assert!(group.take_idle(&second).is_none());
        assert!(group.take_idle(&first).is_some());
        assert_ne!(group.idle_key(&first), group.idle_key(&second));
    });
}
