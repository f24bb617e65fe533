//! What filters know of clients, which outlives a reload.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wmproxy_wire::units::CountRate;

use super::auth::{Store, UsersError};
use super::limit::requests;
use super::limit::running::Running;
use crate::options::UsersSpec;

/// What filters know of clients. One for a process: a new generation finds here what the one before knows, and a limit is
/// not forgotten by a reload. What no generation uses any more is gone.
#[derive(Debug, Default)]
pub struct Tables {
    /// By the owner and the rate: what was counted at another rate means nothing.
    requests: Kept<(Box<str>, CountRate), requests::Table>,
    running: Kept<Box<str>, Running>,
    users: Kept<UsersSpec, Store>,
}

/// Things that somebody uses.
#[derive(Debug)]
struct Kept<K, T>(Mutex<HashMap<K, Weak<T>>>);

impl<K, T> Default for Kept<K, T> {
    fn default() -> Self {
        Kept(Mutex::default())
    }
}

impl<K: Eq + Hash, T> Kept<K, T> {
    /// What there is, or what `make` makes.
    fn get<E>(&self, key: K, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        kept.retain(|_, weak| weak.strong_count() > 0);
        let made = Arc::new(make()?);
        kept.insert(key, Arc::downgrade(&made));
        Ok(made)
    }
}

impl Tables {
    /// With nothing in them.
    pub fn new() -> Tables {
        Tables::default()
    }

    pub(super) fn requests(&self, owner: &str, rate: CountRate) -> Arc<requests::Table> {
        let made = self
            .requests
            .get((owner.into(), rate), || Ok::<_, std::convert::Infallible>(requests::Table::default()));
        match made {
            Ok(table) => table,
            Err(never) => match never {},
        }
    }

    pub(super) fn running(&self, owner: &str) -> Arc<Running> {
        match self.running.get(owner.into(), || Ok::<_, std::convert::Infallible>(Running::default())) {
            Ok(table) => table,
            Err(never) => match never {},
        }
    }

    /// The users of a list, or of a file as it is now.
    pub(super) fn users(&self, spec: &UsersSpec) -> Result<Arc<Store>, UsersError> {
        let store = self.users.get(spec.clone(), || match spec {
            UsersSpec::File(file) => Store::open(file),
            UsersSpec::Listed(users) => Store::listed(users),
        })?;
        store.renew()?;
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_found_again() {
        let tables = Tables::new();
        let rate = |text: &str| text.parse::<CountRate>().unwrap();
        let first = tables.requests("web/api", rate("10/s"));
        assert!(Arc::ptr_eq(&first, &tables.requests("web/api", rate("10/s"))));
        assert!(!Arc::ptr_eq(&first, &tables.requests("web/api", rate("20/s"))));
        assert!(!Arc::ptr_eq(&first, &tables.requests("web/other", rate("10/s"))));
        let running = tables.running("web/api");
        assert!(Arc::ptr_eq(&running, &tables.running("web/api")));
        drop((first, running));
        tables.running("another");
        tables.requests("another", rate("10/s"));
        assert_eq!(tables.running.0.lock().unwrap().len(), 1);
        assert_eq!(tables.requests.0.lock().unwrap().len(), 1);
    }
}
