//! What is known of each client, in parts that workers rarely contend for.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use wmproxy_wire::arrivals;
use wmproxy_wire::bucket::Frequency;

/// Parts, each behind a lock of its own that is held for some ten nanoseconds: many more than there are workers.
const PARTS: usize = 16;

/// Clients whose arrivals a listener remembers: 1 MiB, of which a quiet one touches a page for each client. As many new
/// clients as a worker can serve in some seconds.
const REMEMBERED: usize = 1 << 16;

/// A part of the open ones that has been larger than this gives its memory back.
const SMALL: usize = 64;

type Part<T> = Box<[Mutex<T>]>;

fn parts<T>(make: impl Fn() -> T) -> Part<T> {
    (0..PARTS).map(|_| Mutex::new(make())).collect()
}

fn lock<T>(parts: &Part<T>, hash: u64) -> MutexGuard<'_, T> {
    // A number that fits, for it is less than the length. What is inside stays whole when a holder panics.
    parts[(hash >> 60) as usize % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many connections or flows each client has open. It holds no client that has none, so it is no larger than what
/// they have open. Made when it is first needed, since most listeners have no such limit.
#[derive(Debug, Default)]
pub(super) struct Open {
    parts: OnceLock<Part<HashMap<IpAddr, u32>>>,
    hasher: RandomState,
}

impl Open {
    fn part(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        lock(self.parts.get_or_init(|| parts(HashMap::new)), self.hasher.hash_one(client))
    }

    /// How many a client has.
    pub(super) fn count(&self, client: IpAddr) -> u32 {
        if self.parts.get().is_none() {
            return 0;
        }
        self.part(client).get(&client).copied().unwrap_or(0)
    }

    /// Adds one, unless the client has `max` already.
    pub(super) fn add(&self, client: IpAddr, max: u32) -> bool {
        let mut part = self.part(client);
        let count = part.entry(client).or_insert(0);
        let has_room = *count < max;
        *count += u32::from(has_room);
        has_room
    }

    /// Takes off one that was added.
    pub(super) fn remove(&self, client: IpAddr) {
        let mut part = self.part(client);
        if let Some(count) = part.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                part.remove(&client);
            }
        }
        // A storm of addresses must not leave its table behind.
        if part.len() * 4 < part.capacity() && part.capacity() > SMALL {
            part.shrink_to_fit();
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.parts.get().is_none_or(|parts| parts.iter().all(|part| part.lock().unwrap().is_empty()))
    }
}

/// How often each client came of late, and how often it may.
#[derive(Debug)]
pub(super) struct Arrivals {
    often: Frequency,
    memory: Arc<Memory>,
}

#[derive(Debug)]
struct Memory {
    parts: Part<arrivals::Arrivals>,
    /// With a secret, or a client could choose its addresses so that they drive out those of others.
    hasher: RandomState,
}

impl Arrivals {
    /// With the memory of `known`, where there is one.
    pub(super) fn new(often: Frequency, known: Option<&Arrivals>) -> Arrivals {
        let memory = known.map(|known| known.memory.clone()).unwrap_or_else(|| {
            let parts = parts(|| arrivals::Arrivals::new(REMEMBERED / PARTS));
            Arc::new(Memory { parts, hasher: RandomState::new() })
        });
        Arrivals { often, memory }
    }

    pub(super) fn admit(&self, client: IpAddr, now: u64) -> bool {
        let hash = self.memory.hasher.hash_one(client);
        lock(&self.memory.parts, hash).admit(hash, &self.often, now)
    }
}
