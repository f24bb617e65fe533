use std::io;

use super::*;

const POLICY: EjectPolicy = EjectPolicy { max_fails: 1, fail_timeout_ms: 10_000, trial_ms: 10_000 };

fn peer() -> Peer {
    Peer::new("g".into(), Address::Inet("10.0.0.1:80".parse().unwrap()), Arc::default())
}

#[test]
fn an_ejection_doubles_while_trials_fail_and_a_success_forgets_it() {
    let peer = peer();
    let mut now = 1_000;
    for seconds in [10, 20, 40, 80, 160, 300, 300] {
        peer.failed(now, FailKind::Refused, now, &POLICY);
        assert_eq!(peer.ejected_for(now), Some(Duration::from_secs(seconds)));
        assert_eq!(peer.gate(now + seconds * 1000 - 1), Gate::Shut);
        now += seconds * 1000;
        assert_eq!(peer.gate(now), Gate::Trial);
    }
    assert_eq!((peer.ejections(), peer.failures(FailKind::Refused)), (7, 7));
    peer.succeeded(now, None, now + 1);
    assert_eq!((peer.gate(now + 1), peer.ejected_for(now + 1)), (Gate::Open, None));
    peer.failed(now + 2, FailKind::Timeout, now + 3, &POLICY);
    assert_eq!(peer.ejected_for(now + 3), Some(Duration::from_secs(10)), "the doubling starts over");
}

#[test]
fn a_fail_timeout_beyond_the_cap_is_kept_as_it_is() {
    assert_eq!(ejection_ms(3_600_000, 5), 3_600_000);
    assert_eq!(ejection_ms(10_000, 500), MAX_EJECTION_MS);
}

#[test]
fn only_so_many_failures_within_the_window_eject() {
    let policy = EjectPolicy { max_fails: 3, ..POLICY };
    let peer = peer();
    for now in [0, 4_000, 10_001] {
        peer.failed(now, FailKind::Other, now, &policy);
        peer.succeeded(now, None, now);
    }
    assert_eq!(peer.ejections(), 0, "the first is out of the window when the third comes");
    peer.failed(14_000, FailKind::Other, 14_000, &policy);
    assert_eq!(peer.ejections(), 1, "4, 10 and 14 s lie within 10 s");
}

#[test]
fn max_fails_of_zero_never_ejects() {
    let policy = EjectPolicy { max_fails: 0, ..POLICY };
    let peer = peer();
    for now in 0..100 {
        peer.failed(now, FailKind::Refused, now, &policy);
    }
    assert_eq!((peer.ejections(), peer.gate(100)), (0, Gate::Open));
    assert_eq!(peer.failures(FailKind::Refused), 100);
}

#[test]
fn failures_that_were_under_way_do_not_double_the_ejection() {
    let peer = peer();
    for now in 5_000..5_100 {
        peer.failed(0, FailKind::Timeout, now, &POLICY);
    }
    assert_eq!(peer.ejections(), 1);
    // Begun during the ejection, because there was no other peer, and failed after its end.
    peer.failed(14_000, FailKind::Timeout, 19_000, &POLICY);
    assert_eq!((peer.ejections(), peer.gate(19_000)), (1, Gate::Trial));
    // A success of a connection from before says nothing about now; one from after does.
    peer.succeeded(4_000, None, 19_000);
    assert_eq!(peer.gate(19_000), Gate::Trial);
    peer.succeeded(6_000, None, 19_000);
    assert_eq!(peer.gate(19_000), Gate::Open);
    peer.failed(18_000, FailKind::Timeout, 23_000, &POLICY);
    assert_eq!(peer.ejections(), 1, "begun before it came back");
}

#[test]
fn one_connection_at_a_time_is_the_trial() {
    let peer = peer();
    peer.failed(0, FailKind::Refused, 0, &POLICY);
    let until = peer.begin_trial(10_000, &POLICY).expect("nobody was on trial");
    assert_eq!(peer.begin_trial(10_000, &POLICY), None);
    assert_eq!(peer.gate(10_000), Gate::Shut);
    peer.abandon_trial(until);
    assert_eq!(peer.gate(10_000), Gate::Trial);
    // A trial without failure and without end opens the peer: a flow whose peer never answers by design.
    let until = peer.begin_trial(10_000, &POLICY).expect("the other was given back");
    assert_eq!((peer.gate(until - 1), peer.gate(until)), (Gate::Shut, Gate::Open));
    peer.failed(10_000, FailKind::Refused, until, &POLICY);
    assert_eq!(peer.ejected_for(until), Some(Duration::from_secs(20)));
}

#[test]
fn errors_are_blamed_on_who_caused_them() {
    for (errno, blame) in [
        (libc::ECONNREFUSED, Blame::Peer(FailKind::Refused)),
        (libc::ENOENT, Blame::Peer(FailKind::Refused)),
        (libc::ETIMEDOUT, Blame::Peer(FailKind::Timeout)),
        (libc::EHOSTUNREACH, Blame::Peer(FailKind::Unreachable)),
        (libc::ENETUNREACH, Blame::Peer(FailKind::Unreachable)),
        (libc::ECONNRESET, Blame::Peer(FailKind::Reset)),
        (libc::EACCES, Blame::Peer(FailKind::Other)),
        (libc::EADDRNOTAVAIL, Blame::LocalPort),
        (libc::EMFILE, Blame::Resources),
        (libc::ENFILE, Blame::Resources),
        (libc::ENOBUFS, Blame::Resources),
    ] {
        assert_eq!(Blame::of(&io::Error::from_raw_os_error(errno)), blame, "errno {errno}");
    }
    assert_eq!(Blame::of(&io::ErrorKind::TimedOut.into()), Blame::Peer(FailKind::Timeout));
}

#[test]
fn connect_time_is_a_moving_average() {
    let peer = peer();
    assert_eq!(peer.connect_time(), None);
    peer.succeeded(0, Some(Duration::from_micros(800)), 0);
    assert_eq!(peer.connect_time(), Some(Duration::from_micros(800)));
    peer.succeeded(0, Some(Duration::from_micros(1600)), 0);
    assert_eq!(peer.connect_time(), Some(Duration::from_micros(900)));
}

#[test]
fn in_flight_never_exceeds_the_limit_under_threads() {
    let peer = peer();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    if peer.enter(3) {
                        assert!((1..=3).contains(&peer.in_flight()));
                        peer.leave();
                    }
                }
            });
        }
    });
    assert_eq!(peer.in_flight(), 0);
}
