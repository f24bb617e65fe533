//! How many requests of one key may be under way.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Key;
use crate::facts::Scene;
use crate::options::LimitConnectionsOptions;

/// Parts of a table, each behind a lock of its own that is held for some ten nanoseconds: many more than there are
/// workers.
const PARTS: usize = 16;

/// A part that has been larger than this gives its memory back.
const SMALL: usize = 64;

/// A limit on how many requests are under way at once.
#[derive(Debug)]
pub(crate) struct RunningLimit {
    key: Key,
    max: u32,
    status: u16,
    table: Arc<Running>,
}

/// How many requests of each key are under way. It holds no key that has none, so it is no larger than what is under way.
/// It belongs to no configuration and outlives them.
#[derive(Debug)]
pub(crate) struct Running {
    parts: Box<[Mutex<HashMap<u64, u32>>]>,
    hasher: RandomState,
}

/// A request that is under way, until it is dropped.
#[derive(Debug)]
pub struct Place {
    table: Arc<Running>,
    hash: u64,
}

impl Default for Running {
    fn default() -> Running {
        Running { parts: (0..PARTS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl RunningLimit {
    /// A limit over a table that was kept.
    pub(crate) fn new(options: &LimitConnectionsOptions, max: u32, table: Arc<Running>) -> RunningLimit {
        RunningLimit { key: Key::new(options.key.as_ref()), max, status: options.status, table }
    }

    /// The status for those that are too many.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Whether it comes after authentication.
    pub(crate) fn needs_user(&self) -> bool {
        self.key.needs_user()
    }

    /// A place for a request, if one is free; one that is not limited needs none.
    ///
    /// # Errors
    /// There are as many already as there may be.
    pub(crate) fn enter(&self, scene: &Scene<'_>) -> Result<Option<Place>, Full> {
        let Some(hash) = self.key.hash(scene, &self.table.hasher) else { return Ok(None) };
        let mut part = self.table.part(hash);
        let count = part.entry(hash).or_insert(0);
        if *count >= self.max {
            return Err(Full);
        }
        *count += 1;
        Ok(Some(Place { table: self.table.clone(), hash }))
    }
}

/// There are as many requests under way as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Running {
    fn part(&self, hash: u64) -> MutexGuard<'_, HashMap<u64, u32>> {
        // A number that fits, for it is less than the length. What is inside stays whole when a holder panics.
        self.parts[(hash >> 60) as usize % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut part = self.table.part(self.hash);
        if let Some(count) = part.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                part.remove(&self.hash);
            }
        }
        // A storm of keys must not leave its table behind.
        if part.len() * 4 < part.capacity() && part.capacity() > SMALL {
            part.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{conn, get};

    fn enter(limit: &RunningLimit, target: &str) -> Result<Option<Place>, Full> {
        let ((request, facts), conn) = (get(target), conn());
        limit.enter(&Scene { conn: &conn, request: &request, response: None, facts: &facts })
    }

    #[test]
    fn places_are_given_back() {
        let options = LimitConnectionsOptions {
            key: Some("{query:k}".parse().unwrap()),
            ..LimitConnectionsOptions::default()
        };
        let limit = RunningLimit::new(&options, 2, Arc::default());
        let first = enter(&limit, "/?k=a").unwrap().unwrap();
        let _second = enter(&limit, "/?k=a").unwrap().unwrap();
        assert_eq!(enter(&limit, "/?k=a").unwrap_err(), Full);
        let other = enter(&limit, "/?k=b").unwrap().unwrap();
        assert!(enter(&limit, "/").unwrap().is_none(), "without a key there is no limit");
        drop((first, other));
        let again = enter(&limit, "/?k=a").unwrap().unwrap();
        drop((again, _second));
        assert!(limit.table.parts.iter().all(|part| part.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_storm_of_keys_leaves_no_memory_behind() {
        let options = LimitConnectionsOptions {
            key: Some("{query:k}".parse().unwrap()),
            ..LimitConnectionsOptions::default()
        };
        let limit = RunningLimit::new(&options, 1, Arc::default());
        let places: Vec<_> = (0..20_000).map(|i| enter(&limit, &format!("/?k={i}")).unwrap()).collect();
        drop(places);
        let held: usize = limit.table.parts.iter().map(|part| part.lock().unwrap().capacity()).sum();
        assert!(held <= PARTS * SMALL, "{held}");
    }
}
