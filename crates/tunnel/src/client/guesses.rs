//! Who guesses at the secrets of private services: the owner alone knows that an answer was wrong.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wmproxy_net::limit::{self, GuessTerms, Verdict};
use wmproxy_runtime::clock;
use wmproxy_wire::tunnel::message::Nonce;

/// What wrong secrets cost the client that they come from, for each service by itself.
const TERMS: GuessTerms = GuessTerms {
    // A few programs that come at once, while somebody corrects the secret in a config.
    free: 5,
    wait: Duration::from_secs(1),
    // Some fourteen hundred guesses a day, and not so long that a secret which was corrected seems to be wrong still.
    longest_wait: Duration::from_secs(60),
    forget: Duration::from_secs(900),
    // About 96 bytes each. There are only as many as the server lets visit.
    places: 512,
};

/// Wrong secrets, by the visiting client and the service.
pub(super) struct Guesses {
    /// Each dare is another one, so that no answer comes twice.
    table: Mutex<limit::Guesses<u64, Nonce>>,
    /// Names take the same room however long they are.
    hasher: RandomState,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    Right,
    Wrong,
    /// It was not looked at, and the next one is not before so long.
    Later(Duration),
}

impl Default for Guesses {
    fn default() -> Guesses {
        Guesses { table: Mutex::new(limit::Guesses::new(TERMS)), hasher: RandomState::new() }
    }
}

impl Guesses {
    /// How long a client has to wait before it may answer for a service once more; nothing if it need not.
    pub(super) fn wait(&self, client: Option<&str>, service: &str) -> Option<Duration> {
        let key = self.hasher.hash_one((client, service));
        self.table().wait(key, clock::now())
    }

    /// Judges the answer to a dare, if it is looked at: however many a client gives at once, they are judged one by one.
    pub(super) fn judge(
        &self,
        client: Option<&str>,
        service: &str,
        dare: Nonce,
        is_right: impl FnOnce() -> bool,
    ) -> Judged {
        let key = self.hasher.hash_one((client, service));
        let now = clock::now();
        let mut table = self.table();
        match table.begin(key, dare, now) {
            Verdict::Wait(wait) => Judged::Later(wait),
            Verdict::Compare if is_right() => {
                table.forgive(key);
                Judged::Right
            }
            Verdict::Compare | Verdict::Wrong => {
                table.count(key, dare, now);
                Judged::Wrong
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, limit::Guesses<u64, Nonce>> {
        // Nothing panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Guesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guesses").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_and_each_client_is_by_itself() {
        let guesses = Guesses::default();
        let guess = |client, service: &str, n: u32| {
            let mut dare = [0; 32];
            dare[..4].copy_from_slice(&n.to_be_bytes());
            guesses.judge(client, service, dare, || false)
        };
        for n in 0..TERMS.free {
            assert_eq!(guesses.wait(Some("mallory"), "db"), None);
            assert_eq!(guess(Some("mallory"), "db", n), Judged::Wrong);
        }
        assert!(guesses.wait(Some("mallory"), "db").is_some_and(|wait| wait <= TERMS.wait));
        assert!(matches!(guess(Some("mallory"), "db", 99), Judged::Later(_)));
        for (client, service) in [(Some("mallory"), "web"), (Some("office"), "db"), (None, "db")] {
            assert_eq!(guesses.wait(client, service), None);
            assert_eq!(guesses.judge(client, service, [9; 32], || true), Judged::Right);
        }
    }
}
