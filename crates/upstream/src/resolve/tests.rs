use std::sync::atomic::Ordering;

use tokio::net::UdpSocket;

use super::*;
use crate::name_server::{Server, with_server};
use crate::{GroupSpec, LeaseKey, NoPeer, Registry};

fn group(targets: &[&str]) -> Arc<Group> {
    Registry::new().build(GroupSpec::inline("g", targets.iter().map(|text| text.parse().unwrap()).collect()))
}

fn addresses(group: &Group) -> Vec<String> {
    group.peers().iter().map(|peer| peer.address().to_string()).collect()
}

/// Waits until the group's peers are those, as `keep_resolved` runs beside.
async fn becomes(group: &Group, server: &Server, expected: &[&str]) {
    let mut answered = server.answered.subscribe();
    while addresses(group) != expected {
        // The peers follow an answer within a few polls of this very thread.
        let wait = answered.changed();
        let _ = tokio::time::timeout(std::time::Duration::from_millis(10), wait).await;
    }
}

#[tokio::test]
async fn all_records_of_a_name_become_peers() {
    with_server(|server| async move {
        server.set("app.test", &["127.0.0.3", "127.0.0.2", "::1"], 60);
        let group = group(&["app.test:80", "10.0.0.1:81", "app.test:82"]);
        assert_eq!(addresses(&group), ["10.0.0.1:81"]);
        group.resolve_once(&server.resolver()).await.unwrap();
        let mut expected = vec!["127.0.0.2:80", "127.0.0.3:80", "[::1]:80", "10.0.0.1:81"];
        expected.extend(["127.0.0.2:82", "127.0.0.3:82", "[::1]:82"]);
        let v6 = std::net::UdpSocket::bind("[::1]:0").is_ok();
        expected.retain(|address| v6 || !address.starts_with('['));
        assert_eq!(addresses(&group), expected);
        assert_eq!(server.asked.load(Ordering::Relaxed), 2, "A and AAAA, once for both servers");
        // What is known and not out of date is not asked for again.
        group.resolve_once(&server.resolver()).await.unwrap();
        assert_eq!(server.asked.load(Ordering::Relaxed), 2);
    })
    .await;
}

#[tokio::test]
async fn a_name_that_fails_leaves_the_others_and_is_told() {
    with_server(|server| async move {
        server.set("good.test", &["127.0.0.2"], 60);
        server.fail("bad.test");
        let group = group(&["bad.test:1", "none.test:1", "good.test:1"]);
        let failed = group.resolve_once(&server.resolver()).await.unwrap_err();
        let failed: Vec<_> = failed.iter().map(|(name, error)| (name.as_str(), error.to_string())).collect();
        assert_eq!(failed[0].0, "bad.test");
        assert_eq!(failed[1], ("none.test", "the name has no addresses".into()));
        assert_eq!(addresses(&group), ["127.0.0.2:1"]);
        assert_eq!(group.snapshot(0).unresolved, ["bad.test", "none.test"]);
    })
    .await;
}

#[tokio::test]
async fn a_group_that_was_never_resolved_says_so() {
    with_server(|server| async move {
        server.fail("app.test");
        let group = group(&["app.test:1"]);
        group.resolve_once(&server.resolver()).await.unwrap_err();
        assert_eq!(group.lease(&LeaseKey::default(), &[], 0).unwrap_err(), NoPeer::Unresolved);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn answers_are_followed_when_they_expire_and_failures_change_nothing() {
    with_server(|server| async move {
        server.set("app.test", &["127.0.0.2"], 0);
        let group = group(&["app.test:1"]);
        let resolver = server.resolver();
        group.resolve_once(&resolver).await.unwrap();
        let kept = group.lease(&LeaseKey::default(), &[], 0).unwrap();
        let keeping = keep_resolved(&group, resolver);
        let script = async {
            server.set("app.test", &["127.0.0.2", "127.0.0.3"], 0);
            becomes(&group, &server, &["127.0.0.2:1", "127.0.0.3:1"]).await;
            assert!(group.peers().iter().any(|peer| Arc::ptr_eq(peer, kept.peer())), "its state goes on");
            server.fail("app.test");
            let before = server.asked.load(Ordering::Relaxed);
            let mut answered = server.answered.subscribe();
            while server.asked.load(Ordering::Relaxed) < before + 2 {
                answered.changed().await.unwrap();
            }
            assert_eq!(addresses(&group), ["127.0.0.2:1", "127.0.0.3:1"]);
            server.set("app.test", &["127.0.0.4"], 0);
            becomes(&group, &server, &["127.0.0.4:1"]).await;
        };
        tokio::select! {
            () = keeping => unreachable!("the group is alive"),
            () = script => {}
        }
        assert_eq!(kept.in_flight(), 1, "a lease outlives its peer's place in the group");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn keeping_ends_with_the_group_and_without_names() {
    with_server(|server| async move {
        keep_resolved(&group(&["10.0.0.1:1"]), server.resolver()).await;
        server.set("app.test", &["127.0.0.2"], 0);
        let group = group(&["app.test:1"]);
        group.resolve_once(&server.resolver()).await.unwrap();
        let keeping = keep_resolved(&group, server.resolver());
        drop(group);
        keeping.await;
    })
    .await;
}

#[tokio::test]
async fn a_new_generation_knows_what_the_old_one_learnt() {
    with_server(|server| async move {
        server.set("app.test", &["127.0.0.2"], 60);
        let registry = Registry::new();
        let spec = GroupSpec::inline("g", vec!["app.test:1".parse().unwrap()]);
        let old = registry.build(spec.clone());
        old.resolve_once(&server.resolver()).await.unwrap();
        server.fail("app.test");
        let new = registry.build(spec);
        assert_eq!(addresses(&new), ["127.0.0.2:1"]);
        assert!(Arc::ptr_eq(&old.peers()[0], &new.peers()[0]));
    })
    .await;
}

#[tokio::test]
async fn the_hosts_file_comes_first() {
    with_server(|server| async move {
        let path = std::env::temp_dir().join(format!("wmproxy-hosts-{}", std::process::id()));
        std::fs::write(&path, "127.0.0.9 app.test\n").unwrap();
        server.set("app.test", &["127.0.0.2"], 60);
        let resolver = Resolver::new(&[server.addr]).with_hosts_file(path.clone());
        let group = group(&["app.test:1"]);
        group.resolve_once(&resolver).await.unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(addresses(&group), ["127.0.0.9:1"]);
        assert_eq!(server.asked.load(Ordering::Relaxed), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_says_nothing_is_given_up_on() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = Resolver::new(&[silent.local_addr().unwrap()]).with_hosts_file("/nonexistent".into());
    let group = group(&["a.test:1", "b.test:1"]);
    let begun = tokio::time::Instant::now();
    let failed = group.resolve_once(&resolver).await.unwrap_err();
    assert_eq!(failed.len(), 2);
    // Both names at once.
    assert!(begun.elapsed() <= std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}
