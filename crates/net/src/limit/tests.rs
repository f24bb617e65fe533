use std::num::NonZeroU64;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use wmproxy_wire::units::{CountRate, Period};

use super::*;

#[test]
fn no_more_than_the_limit_come_in() {
    let gate = Gate::new(2, 0);
    let (a, b) = (gate.try_enter(), gate.try_enter());
    assert!(a.is_some() && b.is_some() && gate.try_enter().is_none());
    drop(a);
    assert!(gate.try_enter().is_some());
    gate.set(&Limits::default());
    let many: Vec<_> = (0..100).map(|_| gate.try_enter()).collect();
    assert!(many.iter().all(Option::is_some));
    drop((many, b));
    assert_eq!(gate.active(), 0);
}

#[test]
fn a_client_has_its_own_limit_and_leaves_no_trace() {
    let gate = Gate::new(0, 1);
    let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let (mut a, mut b, mut c) =
        (gate.try_enter().unwrap(), gate.try_enter().unwrap(), gate.try_enter().unwrap());
    assert!(a.claim(one) && !b.claim(one) && c.claim(other));
    assert!(!b.claim("::ffff:10.0.0.1".parse().unwrap()), "the mapped form is the same client");
    drop(a);
    assert!(b.claim(one));
    drop((b, c));
    assert!(gate.open.is_empty());
}

#[test]
fn an_ipv6_client_has_one_limit_for_all_of_its_addresses() {
    let gate = Gate::new(0, 1);
    let (mut a, mut b, mut c) =
        (gate.try_enter().unwrap(), gate.try_enter().unwrap(), gate.try_enter().unwrap());
    assert!(a.claim("2001:db8::1".parse().unwrap()) && !b.claim("2001:db8::2".parse().unwrap()));
    assert!(c.claim("2001:db8:0:1::1".parse().unwrap()));
    drop((a, b, c));
    assert!(gate.open.is_empty());
}

#[test]
fn who_waits_is_let_in_when_a_place_is_freed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let gate = Gate::new(1, 0);
        let first = gate.enter().await;
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let gate = gate.clone();
                #[expect(clippy::disallowed_methods, reason = "a test")]
                tokio::spawn(async move { drop(gate.enter().await) })
            })
            .collect();
        drop(first);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(gate.active(), 0);
    });
}

fn ten_a_second() -> Limits {
    let rate = CountRate::new(NonZeroU64::new(10).unwrap(), Period::Second);
    Limits { per_client: Some(Frequency::new(rate, None)), ..Limits::default() }
}

#[test]
fn a_client_comes_no_more_often_than_it_may() {
    let gate = Gate::new(0, 0);
    let come = |client: &str| (0..30).filter(|_| gate.admit(client.parse().unwrap())).count();
    assert_eq!(come("10.0.0.1"), 30);
    gate.set(&ten_a_second());
    // Some of the tenths of a second may pass here meanwhile, on a busy machine.
    assert!((10..20).contains(&come("10.0.0.1")));
    assert!(come("::ffff:10.0.0.1") < 10, "the mapped form is the same client");
    assert!(come("10.0.0.2") >= 10);
    assert!(come("2001:db8::1") >= 10 && come("2001:db8::2") < 10 && come("2001:db8:0:1::1") >= 10);
    // A reload with the same limit forgets nobody.
    gate.set(&ten_a_second());
    assert!(come("10.0.0.1") < 10);
    gate.set(&Limits::default());
    assert_eq!(come("10.0.0.1"), 30);
}

#[test]
fn who_is_refused_is_told_why() {
    let gate = Gate::new(0, 1);
    gate.set(&Limits { max_per_client: 1, ..ten_a_second() });
    let client = "10.0.0.1".parse().unwrap();
    let first = gate.try_enter().map(|mut permit| (permit.admit(client), permit)).unwrap();
    assert_eq!(first.0, Ok(()));
    let later: Vec<_> = (0..30).map(|_| gate.try_enter().unwrap().admit(client)).collect();
    assert_eq!(later[0], Err(Outcome::ClientLimit));
    assert!(later.contains(&Err(Outcome::RateLimited)));
    drop(first);
    assert_eq!((gate.active(), gate.open.is_empty()), (0, true));
}

#[test]
fn a_meter_without_a_limit_lets_everything_pass() {
    let meter = Meter::default();
    assert!(!meter.is_limited() && meter.admit(5, u64::MAX) && meter.pace().is_none());
}

#[test]
fn a_meter_whose_rate_is_changed_forgets_what_was_waited_for() {
    let (meter, now) = (Meter::default(), 1 << 50);
    let rate = |n| Some(ByteRate::new(NonZeroU64::new(n).unwrap()));
    meter.set(rate(1000));
    let slow = meter.pace().unwrap();
    assert!(meter.reserve(&slow, now, 1_000_000) > now + 900_000_000_000);
    let before = meter.changes();
    meter.set(rate(1000));
    assert_eq!(meter.changes(), before, "nothing has changed");
    meter.set(rate(1_000_000_000));
    assert_eq!(meter.changes(), before + 1);
    assert!(meter.reserve(&meter.pace().unwrap(), now, 1000) <= now + 1_000_000);
}

/// Threads that come and go as fast as they can, while others change the limits: no limit is ever exceeded, nobody waits
/// in vain, and in the end nothing is left.
#[test]
fn permits_stay_exact_under_stress() {
    let gate = Gate::new(8, 2);
    let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
    let of_client: Vec<AtomicU32> = (0..6).map(|_| AtomicU32::new(0)).collect();
    let (let_in, over) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6u32)
            .map(|thread| {
                let (gate, of_client) = (&gate, &of_client);
                let (inside, most, let_in) = (&inside, &most, &let_in);
                scope.spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    runtime.block_on(async {
                        for round in 0..3_000 {
                            let entered = tokio::time::timeout(Duration::from_secs(20), gate.enter()).await;
                            let mut permit = entered.expect("a place is free, and nobody is told");
                            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            let client = (round + thread) % 6;
                            if permit.claim(IpAddr::from([10, 0, 0, client as u8])) {
                                let_in.fetch_add(1, Ordering::SeqCst);
                                let mine = &of_client[client as usize];
                                assert!(mine.fetch_add(1, Ordering::SeqCst) < 2);
                                if round % 7 == 0 {
                                    tokio::task::yield_now().await;
                                }
                                mine.fetch_sub(1, Ordering::SeqCst);
                            }
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    });
                })
            })
            .collect();
        scope.spawn(|| {
            // Between 4 and 8, so that 8 is never exceeded.
            while !over.load(Ordering::SeqCst) {
                for max in [4, 8] {
                    gate.set(&Limits { max, max_per_client: 2, ..Limits::default() });
                    std::thread::yield_now();
                }
            }
        });
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        over.store(true, Ordering::SeqCst);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    assert!(most.into_inner() <= 8 && let_in.into_inner() > 0);
    assert_eq!((gate.active(), gate.open.is_empty()), (0, true));
}
