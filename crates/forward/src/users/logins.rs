//! Whether a name and a password are right, without anybody learning more than that, or learning it too often.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::OnceCell;
use wmproxy_http::auth::{Cache, Hash, Running, Tag};
use wmproxy_http::forward::Unknown;
use wmproxy_net::limit::{GuessTerms, Guesses, Verdict, client_of};
use wmproxy_runtime::clock;

use crate::lock::lock;

/// How long a password that was right counts, after its last use. Long, so that who is at work goes on being let in while
/// somebody behind the same address guesses; a changed hash makes it worthless at once.
const LIFE: Duration = Duration::from_secs(600);

/// When to ask again where too many passwords are being compared: by then some have been.
const BUSY: Duration = Duration::from_secs(1);

/// What wrong passwords cost the address that they come from.
const GUESSES: GuessTerms = GuessTerms {
    // A person who tries all of their passwords, or a few programs of one household that were not told of a new one.
    free: 10,
    wait: Duration::from_secs(1),
    // Some three hundred guesses a day.
    longest_wait: Duration::from_secs(300),
    forget: Duration::from_secs(900),
    // Of 88 bytes each. Each costs an attacker a hash, of which a core compares some tens in a second.
    places: 4096,
};

/// What outlives each listener: what was right of late, what is being compared, and who was wrong.
#[derive(Debug)]
pub(super) struct Logins {
    known: LazyLock<Cache>,
    /// Names and passwords that are being compared. Whoever says the same meanwhile waits for the same answer, so that a
    /// browser that opens many connections costs one hash.
    running: Mutex<HashMap<Tag, Arc<OnceCell<bool>>>>,
    guesses: Mutex<Guesses<IpAddr, Tag>>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    compared: AtomicU64,
    right: AtomicU64,
    wrong: AtomicU64,
    delayed: AtomicU64,
    busy: AtomicU64,
}

/// How often passwords were asked for and not just known, since this process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LoginCounts {
    /// Passwords that were compared with a hash, also in the place of names that nobody has.
    pub compared: u64,
    /// Those of them that were right.
    pub right: u64,
    /// Answers that were wrong, also those that were known to be, or that another one was compared for.
    pub wrong: u64,
    /// Those that were not looked at, since too many wrong ones had come from the same address.
    pub delayed: u64,
    /// Those that were not looked at, since too many others were being compared.
    pub busy: u64,
}

/// A name and a password that somebody says.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    /// Stands for both, and for the hash.
    pub(super) tag: Tag,
    /// What it is compared with.
    pub(super) hash: &'a Arc<Hash>,
    /// Whether nobody has the name: it is compared all the same, and wrong.
    pub(super) is_nobody: bool,
    pub(super) password: &'a [u8],
    /// The listener that it came to, for the log.
    pub(super) listener: &'a str,
    pub(super) client: Option<IpAddr>,
}

impl Default for Logins {
    fn default() -> Self {
        Logins {
            known: LazyLock::new(|| Cache::new(LIFE)),
            running: Mutex::default(),
            guesses: Mutex::new(Guesses::new(GUESSES)),
            counts: Counts::default(),
        }
    }
}

impl Logins {
    /// Whether this was right a short time ago.
    pub(super) fn knows(&self, tag: Tag) -> bool {
        self.known.renew(tag)
    }

    /// Whether somebody says what is right, which is not known.
    ///
    /// # Errors
    /// That is not looked at now.
    pub(super) async fn is_right(&self, claim: Claim<'_>) -> Result<bool, Unknown> {
        let seat = Seat::take(self, claim.tag);
        let is_right = *seat.cell.get_or_try_init(|| self.compare(&claim)).await?;
        if !is_right {
            self.counts.wrong.fetch_add(1, Ordering::Relaxed);
        }
        Ok(is_right)
    }

    async fn compare(&self, claim: &Claim<'_>) -> Result<bool, Unknown> {
        // Those of a unix socket are all one client.
        let client = claim.client.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), client_of);
        match lock(&self.guesses).begin(client, claim.tag, clock::now()) {
            Verdict::Compare => {}
            Verdict::Wrong => return Ok(false),
            Verdict::Wait(wait) => {
                self.counts.delayed.fetch_add(1, Ordering::Relaxed);
                return Err(Unknown::Later(wait));
            }
        }
        let Some(running) = Running::start(claim.hash.clone(), claim.password.into()) else {
            lock(&self.guesses).forgive(client);
            self.counts.busy.fetch_add(1, Ordering::Relaxed);
            return Err(Unknown::Later(BUSY));
        };
        self.counts.compared.fetch_add(1, Ordering::Relaxed);
        // Who leaves before the answer has guessed all the same.
        let unanswered = Unanswered { logins: self, client, tag: claim.tag, listener: claim.listener };
        if !running.await || claim.is_nobody {
            return Ok(false);
        }
        std::mem::forget(unanswered);
        lock(&self.guesses).forgive(client);
        self.known.remember(claim.tag);
        self.counts.right.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// How often what happened.
    pub(super) fn counts(&self) -> LoginCounts {
        let Counts { compared, right, wrong, delayed, busy } = &self.counts;
        let [compared, right, wrong, delayed, busy] =
            [compared, right, wrong, delayed, busy].map(|count| count.load(Ordering::Relaxed));
        LoginCounts { compared, right, wrong, delayed, busy }
    }
}

/// Counts as a wrong answer when it is dropped.
struct Unanswered<'a> {
    logins: &'a Logins,
    client: IpAddr,
    tag: Tag,
    listener: &'a str,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let told = lock(&self.logins.guesses).count(self.client, self.tag, clock::now());
        if let Some(wrong) = told {
            let (client, listener) = (self.client, self.listener);
            tracing::warn!(%client, listener, wrong, "wrong passwords: further ones from there have to wait");
        }
    }
}

/// One who waits for an answer; the last one takes it away.
struct Seat<'a> {
    logins: &'a Logins,
    tag: Tag,
    cell: Arc<OnceCell<bool>>,
}

impl<'a> Seat<'a> {
    fn take(logins: &'a Logins, tag: Tag) -> Seat<'a> {
        let cell = lock(&logins.running).entry(tag).or_default().clone();
        Seat { logins, tag, cell }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut running = lock(&self.logins.running);
        // The table's and this one's: nobody takes another while the lock is held.
        if Arc::strong_count(&self.cell) == 2 {
            running.remove(&self.tag);
        }
    }
}
