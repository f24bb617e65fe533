//! Which names and passwords were right of late.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use wmproxy_runtime::{clock, entropy};

/// How many are remembered: 48 KiB. With more users at a time some are compared anew within the minute.
const PLACES: usize = 2048;

/// Places where a tag may be.
const WAYS: usize = 4;

/// Stands for a name and a password. Nobody can tell from it what they are without a key that this process makes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag([u64; 2]);

/// What was right of late, of fixed size, read and written without a lock.
#[derive(Debug)]
pub struct Cache {
    places: Box<[Place]>,
    /// How long that counts, in milliseconds.
    life: u64,
}

/// The words are written one by one, so that a reader may see those of two tags mixed: such a mixture is nobody's tag.
/// Nor does it harm when a tag meets the end of another's life, which is no later than a life from then.
#[derive(Debug, Default)]
struct Place {
    tag: [AtomicU64; 2],
    /// Until when, in milliseconds of the clock.
    until: AtomicU64,
}

static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
    let mut secret = [0; 32];
    entropy::fill(&mut secret);
    hmac::Key::new(hmac::HMAC_SHA256, &secret)
});

impl Tag {
    /// That of a name and a password in some version of a set of users; no two sets of this process have the same.
    pub fn new(version: u64, name: &str, password: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&KEY);
        context.update(&version.to_ne_bytes());
        context.update(&name.len().to_ne_bytes());
        context.update(name.as_bytes());
        context.update(password);
        let signed = context.sign();
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&signed.as_ref()[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        Tag([word(0), word(8)])
    }
}

impl Cache {
    /// With nothing in it. What was right counts for a `life` of some minutes.
    pub fn new(life: Duration) -> Cache {
        let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX / 2);
        Cache { places: (0..PLACES).map(|_| Place::default()).collect(), life }
    }

    /// The places where a tag may be.
    fn places(&self, tag: Tag) -> &[Place] {
        let set = tag.0[0] as usize % (PLACES / WAYS);
        &self.places[set * WAYS..][..WAYS]
    }

    /// Whether it was right of late.
    pub fn has(&self, tag: Tag) -> bool {
        self.has_at(tag, clock::now().0)
    }

    fn has_at(&self, tag: Tag, now: u64) -> bool {
        self.left_at(tag, now).is_some()
    }

    /// How long it still counts, in milliseconds.
    fn left_at(&self, tag: Tag, now: u64) -> Option<u64> {
        self.places(tag).iter().find_map(|place| {
            // Relaxed throughout: see `Place`.
            let words = [&place.tag[0], &place.tag[1]].map(|word| word.load(Ordering::Relaxed));
            let left = place.until.load(Ordering::Relaxed).checked_sub(now)?;
            (words == tag.0 && left > 0).then_some(left)
        })
    }

    /// Whether it was right of late; if so, that counts for a whole life from now.
    pub fn renew(&self, tag: Tag) -> bool {
        self.renew_at(tag, clock::now().0)
    }

    fn renew_at(&self, tag: Tag, now: u64) -> bool {
        let left = self.left_at(tag, now);
        // Not each time, for others read what would be written.
        if left.is_some_and(|left| left < self.life / 2) {
            self.remember_at(tag, now);
        }
        left.is_some()
    }

    /// Notes that it is right.
    pub fn remember(&self, tag: Tag) {
        self.remember_at(tag, clock::now().0);
    }

    fn remember_at(&self, tag: Tag, now: u64) {
        let places = self.places(tag);
        let oldest = places.iter().min_by_key(|place| place.until.load(Ordering::Relaxed));
        let own = places.iter().find(|place| place.tag[0].load(Ordering::Relaxed) == tag.0[0]);
        let Some(place) = own.or(oldest) else { return };
        place.tag[0].store(tag.0[0], Ordering::Relaxed);
        place.tag[1].store(tag.0[1], Ordering::Relaxed);
        place.until.store(now + self.life, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_was_right_counts_for_a_while() {
        let (cache, tag) = (Cache::new(MINUTE), Tag::new(1, "alice", b"secret"));
        assert!(!cache.has_at(tag, 1000));
        cache.remember_at(tag, 1000);
        assert!(cache.has_at(tag, 1000) && cache.has_at(tag, 60_999) && !cache.has_at(tag, 61_000));
        assert!(!cache.has_at(Tag::new(2, "alice", b"secret"), 1000), "another file");
        assert!(!cache.has_at(Tag::new(1, "alic", b"esecret"), 1000), "the same bytes, cut elsewhere");
        assert!(!cache.has_at(Tag::new(1, "alice", b"secret2"), 1000));
    }

    #[test]
    fn what_is_used_goes_on_counting() {
        let (cache, tag) = (Cache::new(MINUTE), Tag::new(1, "alice", b"secret"));
        assert!(!cache.renew_at(tag, 1000), "it was never right");
        cache.remember_at(tag, 1000);
        for now in [20_000, 50_000, 90_000, 149_000] {
            assert!(cache.renew_at(tag, now), "{now}");
        }
        assert!(!cache.renew_at(tag, 209_000));
    }

    #[test]
    fn the_oldest_makes_room() {
        let cache = Cache::new(MINUTE);
        let tags: Vec<_> = (0..3 * PLACES).map(|i| Tag::new(1, &i.to_string(), b"")).collect();
        tags.iter().enumerate().for_each(|(i, tag)| cache.remember_at(*tag, i as u64));
        let known = tags.iter().filter(|tag| cache.has_at(**tag, 1)).count();
        assert!(known <= PLACES);
        assert!(tags[3 * PLACES - 8..].iter().all(|tag| cache.has_at(*tag, 1)), "the newest are there");
    }
}
