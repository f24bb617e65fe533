//! Who guesses at passwords: wrong answers of each client address, and how long it has to wait for its next one.
//!
//! The table has a fixed size and is set-associative, as [`wmproxy_wire::arrivals`] is and for its reasons: a storm of
//! addresses drives out those that were wrong once, and those that have to wait last of all.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use wmproxy_http::auth::Tag;
use wmproxy_runtime::clock::Ticks;

/// Wrong answers that cost nothing: a person who tries all of their passwords, or a few programs of one household that were
/// not told of a new one.
const FREE: u32 = 10;

/// What the next one costs. It doubles with each further one.
const WAIT: Duration = Duration::from_secs(1);

/// The longest wait: some three hundred guesses a day.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// After so long without a wrong answer all of them are forgotten. Longer than the longest wait.
const FORGET: Duration = Duration::from_secs(900);

/// Addresses that are remembered, 88 bytes each, from the first password on that has to be compared. Each costs an attacker
/// a hash, of which a core compares some tens in a second.
const PLACES: usize = 4096;

/// Places where an address may be.
const WAYS: usize = 8;

/// Wrong answers by client address.
#[derive(Debug)]
pub(super) struct Guesses {
    places: Vec<Option<Place>>,
    /// With a secret, or one could choose addresses that drive out another.
    hasher: RandomState,
}

#[derive(Debug)]
struct Place {
    client: IpAddr,
    wrong: u32,
    /// Answers that are being compared.
    pending: u32,
    /// When the last wrong one came.
    last: Ticks,
    /// Until when there is no further one.
    until: Ticks,
    /// What was wrong last. The same once more is no guess: it is a program that has an old password.
    same: Option<Tag>,
    /// Whether the log has it.
    is_told: bool,
}

/// What is to be done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Compare it; then say how it was.
    Compare,
    /// It was wrong a moment ago, and is still.
    Wrong,
    /// Not before so long.
    Wait(Duration),
}

impl Guesses {
    pub(super) fn new() -> Guesses {
        Guesses { places: Vec::new(), hasher: RandomState::new() }
    }

    fn set(&mut self, client: IpAddr) -> &mut [Option<Place>] {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let set = self.hasher.hash_one(client) as usize % (PLACES / WAYS);
        &mut self.places[set * WAYS..][..WAYS]
    }

    fn find(&mut self, client: IpAddr) -> Option<&mut Place> {
        self.set(client).iter_mut().flatten().find(|place| place.client == client)
    }

    /// Says what to do with an answer that would have to be compared.
    pub(super) fn begin(&mut self, client: IpAddr, tag: Tag, now: Ticks) -> Verdict {
        let place = match self.find(client).is_some() {
            true => self.find(client),
            false => Some(self.make_room(client, now)),
        };
        let Some(place) = place else { return Verdict::Compare };
        if place.is_forgotten(now) {
            *place = Place { pending: place.pending, ..Place::new(client) };
        }
        if place.same == Some(tag) {
            return Verdict::Wrong;
        }
        if now < place.until {
            return Verdict::Wait(place.until.since(now));
        }
        // Many at once would all be compared before the first one is known to be wrong. From where nothing wrong has come,
        // they may: many people come from there.
        if place.wrong > 0 && place.pending > 0 && place.wrong + place.pending >= FREE {
            return Verdict::Wait(WAIT);
        }
        place.pending += 1;
        Verdict::Compare
    }

    /// An answer was right, or could not be compared.
    pub(super) fn forgive(&mut self, client: IpAddr) {
        let Some(place) = self.find(client) else { return };
        place.pending = place.pending.saturating_sub(1);
        if place.wrong == 0 && place.pending == 0 {
            let gone = self.set(client).iter_mut().find(|p| p.as_ref().is_some_and(|p| p.client == client));
            gone.into_iter().for_each(|place| *place = None);
        }
    }

    /// An answer was wrong, or nobody waited for it. Answers how many there were by now, if that is for the log: once until
    /// they are forgotten.
    pub(super) fn count(&mut self, client: IpAddr, tag: Tag, now: Ticks) -> Option<u32> {
        let place = match self.find(client).is_some() {
            true => self.find(client)?,
            false => self.make_room(client, now),
        };
        place.pending = place.pending.saturating_sub(1);
        place.wrong += 1;
        place.last = now;
        place.same = Some(tag);
        if place.wrong < FREE {
            return None;
        }
        let doubled = WAIT.saturating_mul(1 << (place.wrong - FREE).min(16));
        place.until = now + doubled.min(LONGEST_WAIT);
        (!std::mem::replace(&mut place.is_told, true)).then_some(place.wrong)
    }

    /// A place for a newcomer: an empty one, or that of whom forgetting grants the least.
    fn make_room(&mut self, client: IpAddr, now: Ticks) -> &mut Place {
        let weight = |place: &Option<Place>| {
            let known = place.as_ref().filter(|place| !place.is_forgotten(now) || place.pending > 0);
            known.map(|place| (place.wrong, place.pending, place.last))
        };
        let set = self.set(client);
        let at = (0..set.len()).min_by_key(|&at| weight(&set[at])).unwrap_or_default();
        set[at].insert(Place::new(client))
    }
}

impl Place {
    fn new(client: IpAddr) -> Place {
        let (last, until) = (Ticks::default(), Ticks::default());
        Place { client, wrong: 0, pending: 0, last, until, same: None, is_told: false }
    }

    fn is_forgotten(&self, now: Ticks) -> bool {
        now.since(self.last) >= FORGET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Ticks = Ticks(10_000_000);

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn tag(n: u32) -> Tag {
        Tag::new(0, "mallory", &n.to_be_bytes())
    }

    /// So many wrong answers, each another one, at the earliest moments; that of the last, and lines for the log.
    fn guess(guesses: &mut Guesses, client: IpAddr, from: u32, times: u32, mut now: Ticks) -> (Ticks, usize) {
        let mut lines = 0;
        for n in from..from + times {
            if let Verdict::Wait(wait) = guesses.begin(client, tag(n), now) {
                now = now + wait;
                assert_eq!(guesses.begin(client, tag(n), now), Verdict::Compare);
            }
            lines += usize::from(guesses.count(client, tag(n), now).is_some());
        }
        (now, lines)
    }

    #[test]
    fn who_guesses_waits_longer_each_time_and_is_told_of_once() {
        let mut guesses = Guesses::new();
        let (now, lines) = guess(&mut guesses, ip(1), 0, FREE, START);
        assert_eq!((now, lines), (START, 1));
        let mut waits = Vec::new();
        let mut at = now;
        for n in FREE..FREE + 12 {
            let Verdict::Wait(wait) = guesses.begin(ip(1), tag(n), at) else { panic!("no wait") };
            waits.push(wait.as_secs());
            let (later, lines) = guess(&mut guesses, ip(1), n, 1, at);
            assert_eq!(lines, 0);
            at = later;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(guesses.begin(ip(2), tag(0), at), Verdict::Compare, "others don't");
        let later = at + FORGET;
        assert_eq!(
            guess(&mut guesses, ip(1), 100, FREE, later),
            (later, 1),
            "all is forgotten, and told anew"
        );
    }

    #[test]
    fn the_same_wrong_answer_is_no_guess() {
        let mut guesses = Guesses::new();
        guess(&mut guesses, ip(1), 0, 1, START);
        for _ in 0..1000 {
            assert_eq!(guesses.begin(ip(1), tag(0), START), Verdict::Wrong);
        }
        assert_eq!(guesses.begin(ip(1), tag(1), START), Verdict::Compare);
    }

    #[test]
    fn many_at_once_are_let_pass_only_where_nothing_was_wrong() {
        let mut guesses = Guesses::new();
        for n in 0..50 {
            assert_eq!(guesses.begin(ip(1), tag(n), START), Verdict::Compare);
        }
        (0..50).for_each(|_| guesses.forgive(ip(1)));
        assert!(guesses.find(ip(1)).is_none(), "who was right leaves no trace");
        guess(&mut guesses, ip(1), 0, 1, START);
        let passed = (1..50).filter(|n| guesses.begin(ip(1), tag(*n), START) == Verdict::Compare).count();
        assert_eq!(passed, FREE as usize - 1);
    }

    #[test]
    fn right_answers_don_t_buy_further_guesses() {
        let mut guesses = Guesses::new();
        for n in 0..FREE {
            guess(&mut guesses, ip(1), n, 1, START);
            if guesses.begin(ip(1), tag(1000), START) == Verdict::Compare {
                guesses.forgive(ip(1));
            }
        }
        assert!(matches!(guesses.begin(ip(1), tag(2000), START), Verdict::Wait(_)));
    }

    #[test]
    fn a_storm_of_addresses_neither_grows_it_nor_frees_who_waits() {
        let mut guesses = Guesses::new();
        let (now, _) = guess(&mut guesses, ip(0), 0, FREE + 5, START);
        for n in 1..200_000 {
            guess(&mut guesses, ip(n), 0, 1, now);
        }
        assert_eq!(guesses.places.len(), PLACES);
        assert!(matches!(guesses.begin(ip(0), tag(1000), now), Verdict::Wait(_)));
    }
}
