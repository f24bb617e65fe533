use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::task::Wake;

use super::*;

/// A waker that remembers.
#[derive(Default)]
struct Called(AtomicBool);

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl Called {
    fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}

fn line() -> Line {
    Line::new(Arc::default())
}

fn is_first(place: &Place<'_>, called: &Arc<Called>) -> bool {
    let waker = Waker::from(Arc::clone(called));
    place.poll_turn(&mut Context::from_waker(&waker)).is_ready()
}

#[test]
fn the_first_to_come_is_the_first_in_line() {
    let line = line();
    let called: [Arc<Called>; 3] = Default::default();
    let mut places: Vec<_> = (0..3).map(|_| line.join(10).unwrap()).collect();
    let first = |places: &[Place<'_>]| -> Vec<bool> {
        places.iter().zip(&called).map(|(place, called)| is_first(place, called)).collect()
    };
    assert_eq!((first(&places), line.len()), (vec![true, false, false], 3));
    line.lobby.room_made();
    assert_eq!(called.each_ref().map(|called| called.take()), [true, false, false]);
    drop(places.remove(0));
    assert_eq!(called.each_ref().map(|called| called.take()), [false, true, false], "the next is called");
    // Who goes from the middle of the line is nobody's business.
    drop(places.remove(1));
    assert_eq!(called.each_ref().map(|called| called.take()), [false; 3]);
    assert!(is_first(&places[0], &called[1]));
    drop(places);
    assert_eq!((line.len(), line.lobby.waiting.load(Relaxed)), (0, 0));
}

#[test]
fn a_line_has_an_end() {
    let line = line();
    let places: Vec<_> = (0..2).map(|_| line.join(2).unwrap()).collect();
    assert!(line.join(2).is_none());
    drop(places);
    assert!(line.join(2).is_some());
}

#[test]
fn each_generation_has_a_line_of_its_own() {
    let lobby = Arc::default();
    let (old, new) = (Line::new(Arc::clone(&lobby)), Line::new(Arc::clone(&lobby)));
    let called: [Arc<Called>; 3] = Default::default();
    let (a, b, c) = (old.join(1).unwrap(), new.join(2).unwrap(), new.join(2).unwrap());
    assert!(is_first(&a, &called[0]) && is_first(&b, &called[1]) && !is_first(&c, &called[2]));
    lobby.room_made();
    assert_eq!(called.each_ref().map(|called| called.take()), [true, true, false]);
    drop(a);
    assert_eq!(called.each_ref().map(|called| called.take()), [false; 3], "the other line stands as before");
    assert_eq!((old.len(), new.len()), (0, 2));
}

#[test]
fn who_can_not_use_the_room_lets_the_next_look_and_keeps_his_place() {
    let line = line();
    let called: [Arc<Called>; 4] = Default::default();
    let [a, b, c, d] = std::array::from_fn(|_| line.join(10).unwrap());
    let calls = || called.each_ref().map(|called| called.take());
    let turns = || {
        let places = [&a, &b, &c, &d];
        std::array::from_fn(|i| is_first(places[i], &called[i]))
    };
    assert_eq!(turns(), [true, false, false, false]);
    b.pass();
    assert_eq!(calls(), [false; 4], "not before his turn");
    a.pass();
    assert_eq!((calls(), turns()), ([false, true, false, false], [true, true, false, false]));
    b.pass();
    a.pass();
    assert_eq!((calls(), turns()), ([false, false, true, false], [true, true, true, false]));
    line.lobby.room_made();
    assert_eq!((calls(), turns()), ([true, false, false, false], [true, false, false, false]));
    // A call that he was too late to hear goes on with the next.
    a.pass();
    b.pass();
    calls();
    drop(c);
    assert_eq!(calls(), [false, false, false, true]);
    drop(b);
    assert_eq!(calls(), [false; 4], "it was not his turn any more");
    drop((a, d));
    assert!(line.lobby.lines().passed.is_empty());
}

/// Threads take and leave places at peers through lines, some giving up, some of another generation. Nothing but
/// calls wakes them: with one lost, a thread would wait for ever.
#[test]
fn no_call_is_lost_and_no_limit_broken_under_threads() {
    const LIMIT: u32 = 2;
    const THREADS: u32 = 8;
    for round in 0..30u32 {
        let lobby = Arc::<Lobby>::default();
        let lines = [Line::new(Arc::clone(&lobby)), Line::new(Arc::clone(&lobby))];
        let in_flight = AtomicU32::new(0);
        let served = AtomicU32::new(0);
        let enter = || in_flight.fetch_update(Relaxed, Relaxed, |n| (n < LIMIT).then_some(n + 1)).is_ok();
        let leave = || {
            in_flight.fetch_sub(1, Relaxed);
            lobby.room_made();
        };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (line, enter, leave, in_flight, served) =
                    (&lines[usize::from(thread % 4 == 0)], &enter, &leave, &in_flight, &served);
                scope.spawn(move || {
                    for n in 0..500u32 {
                        if line.len() > 0 || !enter() {
                            let place = line.join(usize::MAX).unwrap();
                            if (n + round).is_multiple_of(7) {
                                // Gone before its turn, perhaps after it was called.
                                let _ = place.poll_turn(&mut Context::from_waker(Waker::noop()));
                                continue;
                            }
                            block_on(poll_fn(|cx| match place.poll_turn(cx) {
                                Poll::Ready(()) if enter() => Poll::Ready(()),
                                _ => Poll::Pending,
                            }));
                        }
                        assert!((1..=LIMIT).contains(&in_flight.load(Relaxed)));
                        served.fetch_add(1, Relaxed);
                        leave();
                    }
                });
            }
        });
        assert_eq!(in_flight.into_inner(), 0);
        assert!(served.into_inner() > 0);
        assert_eq!((lines[0].len(), lines[1].len(), lobby.waiting.load(Relaxed)), (0, 0, 0));
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        // Long enough for the slowest machine, and an end to the test instead of to patience.
        let began = std::time::Instant::now();
        std::thread::park_timeout(Duration::from_secs(20));
        assert!(began.elapsed() < Duration::from_secs(20), "a call was lost");
    }
}
