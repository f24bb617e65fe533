//! Who guesses at secrets: wrong answers of each client, and how long it has to wait for its next one.
//!
//! The table has a fixed size and is set-associative, as [`wmproxy_wire::arrivals`] is and for its reasons: a storm of
//! clients drives out those that were wrong once, and those that have to wait last of all.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use wmproxy_runtime::clock::Ticks;

/// Places where a client may be.
const WAYS: usize = 8;

/// What wrong answers cost.
#[derive(Debug, Clone, Copy)]
pub struct GuessTerms {
    /// Wrong answers that cost nothing, at least one.
    pub free: u32,
    /// What the next one costs. It doubles with each further one.
    pub wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// After so long without a wrong answer all of them are forgotten. Longer than the longest wait.
    pub forget: Duration,
    /// Clients that are remembered, a multiple of eight. They have their memory from the first answer on that is compared.
    pub places: usize,
}

/// Wrong answers by client, which is a `K`. Each answer has a tag, a `T`, by which the same one is known again.
#[derive(Debug)]
pub struct Guesses<K, T> {
    terms: GuessTerms,
    places: Vec<Option<Place<K, T>>>,
    /// With a secret, or one could choose clients that drive out another.
    hasher: RandomState,
}

#[derive(Debug)]
struct Place<K, T> {
    client: K,
    wrong: u32,
    /// Answers that are being compared.
    pending: u32,
    /// When the last wrong one came.
    last: Ticks,
    /// Until when there is no further one.
    until: Ticks,
    /// What was wrong last. The same once more is no guess: it is a program that has an old password.
    same: Option<T>,
    /// Whether the log has it.
    is_told: bool,
}

/// What is to be done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Compare it; then say how it was.
    Compare,
    /// It was wrong a moment ago, and is still.
    Wrong,
    /// Not before so long.
    Wait(Duration),
}

impl<K: Copy + Eq + Hash, T: Copy + PartialEq> Guesses<K, T> {
    /// Nobody was wrong yet.
    pub fn new(terms: GuessTerms) -> Guesses<K, T> {
        Guesses { terms, places: Vec::new(), hasher: RandomState::new() }
    }

    fn set(&mut self, client: K) -> &mut [Option<Place<K, T>>] {
        if self.places.is_empty() {
            self.places.resize_with(self.terms.places.next_multiple_of(WAYS), || None);
        }
        let set = self.hasher.hash_one(client) as usize % (self.places.len() / WAYS);
        &mut self.places[set * WAYS..][..WAYS]
    }

    fn find(&mut self, client: K) -> Option<&mut Place<K, T>> {
        self.set(client).iter_mut().flatten().find(|place| place.client == client)
    }

    /// How long a client has to wait before another answer of its is compared; nothing if it need not.
    pub fn wait(&mut self, client: K, now: Ticks) -> Option<Duration> {
        if self.places.is_empty() {
            return None;
        }
        let place = self.find(client).filter(|place| now < place.until)?;
        Some(place.until.since(now))
    }

    /// Says what to do with an answer that would have to be compared.
    pub fn begin(&mut self, client: K, tag: T, now: Ticks) -> Verdict {
        let GuessTerms { free, wait, forget, .. } = self.terms;
        let place = match self.find(client).is_some() {
            true => self.find(client),
            false => Some(self.make_room(client, now)),
        };
        let Some(place) = place else { return Verdict::Compare };
        if place.is_forgotten(now, forget) {
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
        if place.wrong > 0 && place.pending > 0 && place.wrong + place.pending >= free {
            return Verdict::Wait(wait);
        }
        place.pending += 1;
        Verdict::Compare
    }

    /// An answer was right, or could not be compared.
    pub fn forgive(&mut self, client: K) {
        let Some(place) = self.find(client) else { return };
        place.pending = place.pending.saturating_sub(1);
        if place.wrong == 0 && place.pending == 0 {
            let gone = self.set(client).iter_mut().find(|p| p.as_ref().is_some_and(|p| p.client == client));
            gone.into_iter().for_each(|place| *place = None);
        }
    }

    /// An answer was wrong, or nobody waited for it. Answers how many there were by now, if that is for the log: once until
    /// they are forgotten.
    pub fn count(&mut self, client: K, tag: T, now: Ticks) -> Option<u32> {
        let GuessTerms { free, wait, longest_wait, .. } = self.terms;
        let place = match self.find(client).is_some() {
            true => self.find(client)?,
            false => self.make_room(client, now),
        };
        place.pending = place.pending.saturating_sub(1);
        place.wrong += 1;
        place.last = now;
        place.same = Some(tag);
        if place.wrong < free {
            return None;
        }
        let doubled = wait.saturating_mul(1 << (place.wrong - free).min(16));
        place.until = now + doubled.min(longest_wait);
        (!std::mem::replace(&mut place.is_told, true)).then_some(place.wrong)
    }

    /// A place for a newcomer: an empty one, or that of whom forgetting grants the least.
    fn make_room(&mut self, client: K, now: Ticks) -> &mut Place<K, T> {
        let forget = self.terms.forget;
        let weight = |place: &Option<Place<K, T>>| {
            let known = place.as_ref().filter(|place| !place.is_forgotten(now, forget) || place.pending > 0);
            known.map(|place| (place.wrong, place.pending, place.last))
        };
        let set = self.set(client);
        let at = (0..set.len()).min_by_key(|&at| weight(&set[at])).unwrap_or_default();
        set[at].insert(Place::new(client))
    }
}

impl<K, T> Place<K, T> {
    fn new(client: K) -> Place<K, T> {
        let (last, until) = (Ticks::default(), Ticks::default());
        Place { client, wrong: 0, pending: 0, last, until, same: None, is_told: false }
    }

    fn is_forgotten(&self, now: Ticks, forget: Duration) -> bool {
        now.since(self.last) >= forget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: u32 = 10;
    const TERMS: GuessTerms = GuessTerms {
        free: FREE,
        wait: Duration::from_secs(1),
        longest_wait: Duration::from_secs(300),
        forget: Duration::from_secs(900),
        places: 4096,
    };
    const START: Ticks = Ticks(10_000_000);

    /// So many wrong answers, each another one, at the earliest moments; that of the last, and lines for the log.
    fn guess(
        guesses: &mut Guesses<u32, u32>,
        client: u32,
        from: u32,
        times: u32,
        mut now: Ticks,
    ) -> (Ticks, usize) {
        let mut lines = 0;
        for n in from..from + times {
            if let Verdict::Wait(wait) = guesses.begin(client, n, now) {
                now = now + wait;
                assert_eq!(guesses.begin(client, n, now), Verdict::Compare);
            }
            lines += usize::from(guesses.count(client, n, now).is_some());
        }
        (now, lines)
    }

    #[test]
    fn who_guesses_waits_longer_each_time_and_is_told_of_once() {
        let mut guesses = Guesses::new(TERMS);
        let (now, lines) = guess(&mut guesses, 1, 0, FREE, START);
        assert_eq!((now, lines), (START, 1));
        let mut waits = Vec::new();
        let mut at = now;
        for n in FREE..FREE + 12 {
            let Verdict::Wait(wait) = guesses.begin(1, n, at) else { panic!("no wait") };
            waits.push(wait.as_secs());
            let (later, lines) = guess(&mut guesses, 1, n, 1, at);
            assert_eq!(lines, 0);
            at = later;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(guesses.begin(2, 0, at), Verdict::Compare, "others don't");
        let later = at + TERMS.forget;
        assert_eq!(guess(&mut guesses, 1, 100, FREE, later), (later, 1), "all is forgotten, and told anew");
    }

    #[test]
    fn the_same_wrong_answer_is_no_guess() {
        let mut guesses = Guesses::new(TERMS);
        guess(&mut guesses, 1, 0, 1, START);
        for _ in 0..1000 {
            assert_eq!(guesses.begin(1, 0, START), Verdict::Wrong);
        }
        assert_eq!(guesses.begin(1, 1, START), Verdict::Compare);
    }

    #[test]
    fn many_at_once_are_let_pass_only_where_nothing_was_wrong() {
        let mut guesses = Guesses::new(TERMS);
        for n in 0..50 {
            assert_eq!(guesses.begin(1, n, START), Verdict::Compare);
        }
        (0..50).for_each(|_| guesses.forgive(1));
        assert!(guesses.find(1).is_none(), "who was right leaves no trace");
        guess(&mut guesses, 1, 0, 1, START);
        let passed = (1..50).filter(|n| guesses.begin(1, *n, START) == Verdict::Compare).count();
        assert_eq!(passed, FREE as usize - 1);
    }

    #[test]
    fn right_answers_don_t_buy_further_guesses() {
        let mut guesses = Guesses::new(TERMS);
        for n in 0..FREE {
            guess(&mut guesses, 1, n, 1, START);
            if guesses.begin(1, 1000, START) == Verdict::Compare {
                guesses.forgive(1);
            }
        }
        assert!(matches!(guesses.begin(1, 2000, START), Verdict::Wait(_)));
    }

    #[test]
    fn a_storm_of_addresses_neither_grows_it_nor_frees_who_waits() {
        let mut guesses = Guesses::new(TERMS);
        let (now, _) = guess(&mut guesses, 0, 0, FREE + 5, START);
        for n in 1..200_000 {
            guess(&mut guesses, n, 0, 1, now);
        }
        assert_eq!(guesses.places.len(), TERMS.places);
        assert!(matches!(guesses.begin(0, 1000, now), Verdict::Wait(_)));
    }
}
