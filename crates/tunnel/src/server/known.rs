//! Where clients are from whose sessions stand.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use wmproxy_net::limit::client_of;

/// How many sessions there are from each address. A flood of strangers is not to keep their further connections out.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<IpAddr, usize>>);

impl Known {
    /// A session stands from here.
    pub(super) fn add(&self, from: Option<SocketAddr>) {
        if let Some(from) = from {
            *self.counts().entry(client_of(from.ip())).or_default() += 1;
        }
    }

    /// One that stood is over.
    pub(super) fn remove(&self, from: Option<SocketAddr>) {
        let Some(from) = from else { return };
        if let Entry::Occupied(mut count) = self.counts().entry(client_of(from.ip())) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Whether one does.
    pub(super) fn has(&self, from: Option<SocketAddr>) -> bool {
        from.is_some_and(|from| self.counts().contains_key(&client_of(from.ip())))
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_until_its_last_session_is_over() {
        let known = Known::default();
        let at = |text: &str| Some(text.parse().unwrap());
        known.add(at("192.0.2.1:5"));
        known.add(at("192.0.2.1:6"));
        known.remove(at("192.0.2.1:5"));
        assert!(known.has(at("192.0.2.1:7")) && known.has(at("[::ffff:192.0.2.1]:7")));
        assert!(!known.has(at("192.0.2.2:7")) && !known.has(None));
        known.remove(at("192.0.2.1:6"));
        known.remove(at("192.0.2.1:6"));
        assert!(!known.has(at("192.0.2.1:7")));
        assert!(known.counts().is_empty());
    }
}
