use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::Duration;

use super::*;
use crate::{GroupSpec, Registry, ServerSpec};

/// A group of servers, each with its `max_connections` and whether it is a backup.
fn spec(servers: &[(&str, u32, bool)], max: usize, timeout: Duration) -> GroupSpec {
    let servers = servers.iter().map(|(address, max_connections, backup)| ServerSpec {
        max_connections: *max_connections,
        backup: *backup,
        ..ServerSpec::new(address.parse().unwrap())
    });
    let queue = Some(QueueSpec { max, timeout });
    GroupSpec { servers: servers.collect(), queue, ..GroupSpec::inline("g", vec![]) }
}

fn one(max: usize, timeout: Duration) -> Arc<Group> {
    Registry::new().build(spec(&[("10.0.0.1:1", 1, false)], max, timeout))
}

const LONG: Duration = Duration::from_secs(60);
const KEY: LeaseKey = LeaseKey { client: None, sni: None, quic_cid: None, request: None };

async fn lease(group: &Group) -> Result<Lease, NoPeer> {
    group.lease_in_turn(&KEY, &[], None).await
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_the_order_of_their_coming() {
    let group = one(10, LONG);
    let held = lease(&group).await.unwrap();
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(lease(&group))).collect();
    assert!(waiting.iter_mut().all(|waiter| poll(waiter).is_pending()));
    assert_eq!(group.queued(), 4);
    // The second goes away.
    drop(waiting.remove(1));
    drop(held);
    assert!(poll(&mut Box::pin(lease(&group))).is_pending(), "who comes now is not served before them");
    for left in (0..3).rev() {
        assert!(waiting[1..].iter_mut().all(|waiter| poll(waiter).is_pending()), "not before its turn");
        let lease = waiting.remove(0).await.unwrap();
        assert_eq!((lease.in_flight(), group.queued()), (1, left));
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_has_an_end_and_so_has_patience() {
    let group = one(1, Duration::from_secs(3));
    let _held = lease(&group).await.unwrap();
    let mut waiter = Box::pin(lease(&group));
    assert!(poll(&mut waiter).is_pending());
    assert_eq!(lease(&group).await.unwrap_err(), NoPeer::QueueFull);
    let began = Instant::now();
    assert_eq!(waiter.await.unwrap_err(), NoPeer::QueueTimeout);
    assert_eq!((began.elapsed(), group.queued()), (Duration::from_secs(3), 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_nobody_waits() {
    let spec = GroupSpec { queue: None, ..spec(&[("10.0.0.1:1", 1, false)], 1, LONG) };
    let group = Registry::new().build(spec);
    let _held = lease(&group).await.unwrap();
    assert_eq!(lease(&group).await.unwrap_err(), NoPeer::Full);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_will_not_come() {
    let group = one(10, LONG);
    let held = lease(&group).await.unwrap();
    let tried = [Arc::clone(held.peer())];
    assert_eq!(group.lease_in_turn(&KEY, &tried, None).await.unwrap_err(), NoPeer::Tried);
    let mut waiter = Box::pin(lease(&group));
    assert!(poll(&mut waiter).is_pending());
    assert_eq!(group.lease_in_turn(&KEY, &tried, None).await.unwrap_err(), NoPeer::Tried, "others wait");
}

#[tokio::test(start_paused = true)]
async fn a_backup_stands_in_for_who_failed_and_not_for_who_is_full() {
    let servers = [("10.0.0.1:1", 1, false), ("10.0.0.2:1", 1, true)];
    let group = Registry::new().build(spec(&servers, 10, LONG));
    let mut held = lease(&group).await.unwrap();
    assert!(poll(&mut Box::pin(lease(&group))).is_pending(), "the backup is free, the primary merely full");
    // A flow, which does not wait, gets the backup.
    let flow = group.lease(&KEY, &[], clock::now().0).unwrap();
    assert_eq!(flow.address().to_string(), "10.0.0.2:1");
    drop(flow);
    held.failed(crate::FailKind::Refused, clock::now().0);
    assert_eq!(lease(&group).await.unwrap().address().to_string(), "10.0.0.2:1");
    // Ejected and full count as they do apart: now the backup is what there is to wait for.
    let backup = lease(&group).await.unwrap();
    assert!(poll(&mut Box::pin(lease(&group))).is_pending());
    drop(backup);
    drop(held);
    assert_eq!(lease(&group).await.unwrap().address().to_string(), "10.0.0.2:1", "still ejected");
    let later = clock::now().0 + 1;
    group.peers()[0].succeeded(later, None, later);
    assert_eq!(lease(&group).await.unwrap().address().to_string(), "10.0.0.1:1", "the primary is back");
}

#[tokio::test(start_paused = true)]
async fn the_first_in_line_looks_around_unasked() {
    let servers = [("10.0.0.1:1", 1, false), ("10.0.0.2:1", 1, false)];
    let group = Registry::new().build(spec(&servers, 10, LONG));
    let mut ejected = lease(&group).await.unwrap();
    ejected.failed(crate::FailKind::Refused, clock::now().0);
    let peer = Arc::clone(ejected.peer());
    drop(ejected);
    let _held = lease(&group).await.unwrap();
    let mut waiter = Box::pin(lease(&group));
    assert!(poll(&mut waiter).is_pending());
    // As a health check might find out, or another connection: nobody's lease ends.
    let later = clock::now().0 + 1;
    peer.succeeded(later, None, later);
    let began = Instant::now();
    assert!(Arc::ptr_eq(waiter.await.unwrap().peer(), &peer));
    assert!(began.elapsed() <= LOOK_AGAIN);
}

#[tokio::test(start_paused = true)]
async fn connections_of_an_older_generation_make_room_for_those_of_the_next() {
    let registry = Registry::new();
    let build = || registry.build(spec(&[("10.0.0.1:1", 1, false)], 10, LONG));
    let (old, new) = (build(), build());
    let held = lease(&old).await.unwrap();
    let (mut first, mut second) = (Box::pin(lease(&old)), Box::pin(lease(&new)));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!((old.queued(), new.queued()), (1, 1));
    drop(held);
    let second = second.await.unwrap();
    assert!(poll(&mut first).is_pending());
    drop(second);
    drop(first.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_has_tried_the_only_free_peer_keeps_nobody_from_it() {
    let servers = [("10.0.0.1:1", 1, false), ("10.0.0.2:1", 1, false)];
    let group = Registry::new().build(spec(&servers, 10, LONG));
    let (free, busy) = (lease(&group).await.unwrap(), lease(&group).await.unwrap());
    let tried = [Arc::clone(free.peer())];
    let (mut picky, mut next) = (Box::pin(group.lease_in_turn(&KEY, &tried, None)), Box::pin(lease(&group)));
    assert!(poll(&mut picky).is_pending() && poll(&mut next).is_pending());
    drop(free);
    let began = Instant::now();
    // As an executor would, woken by the other.
    let (next, picky_too) = tokio::join!(next, async { poll(&mut picky).is_pending() });
    let next = next.unwrap();
    assert_eq!((next.address(), picky_too, began.elapsed().is_zero()), (tried[0].address(), true, true));
    // Who comes anew gets it at once, too, when the first has looked.
    drop(next);
    assert!(poll(&mut picky).is_pending());
    let new = lease(&group).await.unwrap();
    assert_eq!((new.address(), group.queued(), began.elapsed().is_zero()), (tried[0].address(), 1, true));
    drop(busy);
    assert_eq!(picky.await.unwrap().address().to_string(), "10.0.0.2:1");
}

/// Many workers, a queue, clients that leave at any moment: limits hold, nobody is forgotten, all comes back to zero.
#[test]
fn a_queue_under_threads_serves_everybody() {
    const WORKERS: usize = 4;
    const CLIENTS: usize = 30;
    const ROUNDS: usize = 40;
    let servers = [("10.0.0.1:1", 2, false), ("10.0.0.2:1", 1, false)];
    let group = Registry::new().build(spec(&servers, WORKERS * CLIENTS, Duration::from_secs(30)));
    let (served, left) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (group, served, left) = (&group, &served, &left);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let client = async |n: usize| {
                    for round in 0..ROUNDS {
                        if (n + round).is_multiple_of(5) {
                            let patience = Duration::from_micros((n * 37 % 700) as u64);
                            if tokio::time::timeout(patience, lease(group)).await.is_err() {
                                left.fetch_add(1, Relaxed);
                                continue;
                            }
                        }
                        let lease = lease(group).await.expect("thirty seconds are enough for everybody");
                        let max = if lease.address().to_string() == "10.0.0.1:1" { 2 } else { 1 };
                        assert!((1..=max).contains(&lease.in_flight()));
                        tokio::task::yield_now().await;
                        served.fetch_add(1, Relaxed);
                    }
                };
                runtime.block_on(futures_util::future::join_all((0..CLIENTS).map(client)));
            });
        }
    });
    assert_eq!(served.into_inner() + left.into_inner(), (WORKERS * CLIENTS * ROUNDS) as u32);
    assert_eq!((group.queued(), group.peers().iter().map(|peer| peer.in_flight()).sum::<u32>()), (0, 0));
}
