//! Everybody's accounts, which outlive reloads, and their quotas restarts.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::account::{Account, Due, UserStatus};
use super::ledger::{Entries, Entry, Ledger};
use super::logins::{LoginCounts, Logins};
use crate::lock::lock;
use crate::options::{Quota, QuotaPeriod, UserSpec};

/// How often what has passed is written down, and the calendar looked at. So much of a crash's quotas is given as a present, and
/// so long after midnight the last day may still count.
const EVERY: Duration = Duration::from_secs(5);

/// The users of all listeners, by their names: whoever has one name is one user. One of these for each process.
#[derive(Debug)]
pub struct Accounts {
    by_name: Mutex<BTreeMap<Arc<str>, Arc<Account>>>,
    logins: Logins,
    ledger: Option<Ledger>,
    /// What the ledger said last, for users that the config gets later.
    entries: Mutex<Entries>,
    /// Whether writing failed, which the log has.
    is_failing: AtomicBool,
    /// Whether the log has it that nothing outlives this process.
    is_told: AtomicBool,
}

impl Accounts {
    /// With what a file in `directory` says of quotas, if there is one; none to keep them for no longer than the process lasts.
    /// Reads a file: not for a worker.
    pub fn open(directory: Option<&Path>) -> Arc<Accounts> {
        let ledger = directory.map(Ledger::new);
        let read = ledger.as_ref().map_or_else(|| Ok(Entries::new()), Ledger::read);
        let entries = read.unwrap_or_else(|error| {
            let file = ledger.as_ref().map(|ledger| ledger.file().display().to_string()).unwrap_or_default();
            tracing::warn!(file, %error, "the file of quotas can't be read: users begin at zero until it can");
            Entries::new()
        });
        Arc::new(Accounts {
            by_name: Mutex::default(),
            logins: Logins::default(),
            ledger,
            entries: Mutex::new(entries),
            is_failing: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
        })
    }

    /// The account of a user, which is opened if it is not there yet.
    pub(super) fn account(&self, spec: &UserSpec, now: SystemTime) -> Arc<Account> {
        let mut by_name = lock(&self.by_name);
        if let Some(account) = by_name.get(&spec.name) {
            return account.clone();
        }
        let known = lock(&self.entries).get(&spec.name).copied();
        let account = Arc::new(Account::new(spec, known, now));
        by_name.insert(spec.name.clone(), account.clone());
        account
    }

    /// Keeps all users to what the config says now, once it counts: `users` are those of all listeners. Where two of them have
    /// one name, that is one user with the tighter limits of both. Who is not among them is refused from now on; what they
    /// have open goes on.
    pub fn apply<'a>(&self, users: impl IntoIterator<Item = &'a UserSpec>, now: SystemTime) {
        let mut specs = BTreeMap::<Arc<str>, UserSpec>::new();
        for user in users {
            specs
                .entry(user.name.clone())
                .and_modify(|spec| tighten(spec, user))
                .or_insert_with(|| user.clone());
        }
        let has_quota = specs.values().any(|spec| spec.quota.is_some());
        if has_quota && self.ledger.is_none() && !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "quotas begin at zero with each start: there is no directory for them (STATE_DIRECTORY or HOME)"
            );
        }
        for spec in specs.values() {
            self.account(spec, now).set(spec, now);
        }
        lock(&self.by_name).retain(|name, account| {
            if !specs.contains_key(name) {
                account.forget();
            }
            // Whoever holds it still counts on it, and the ledger gets to know the rest.
            account.is_known()
                || Arc::strong_count(account) > 1
                || account.due().is_some_and(|due| due.bytes > 0)
        });
    }

    /// What passwords are compared through.
    pub(super) fn logins(&self) -> &Logins {
        &self.logins
    }

    /// What each user has open and has used up, by name.
    pub fn status(&self) -> Vec<UserStatus> {
        let all: Vec<_> = lock(&self.by_name).values().cloned().collect();
        let status = all.iter().map(|account| (account.is_known(), account.status()));
        // Of those who are gone only what goes on.
        let is_there = |(is_known, status): &(bool, UserStatus)| *is_known || status.is_active();
        status.filter(is_there).map(|(_, status)| status).collect()
    }

    /// How often passwords were compared, and how it went.
    pub fn login_counts(&self) -> LoginCounts {
        self.logins.counts()
    }

    /// Writes down what has passed, every few seconds, and begins anew at midnight. For the control runtime; it does not end.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            let accounts = self.clone();
            // It fails when it panics, and then the next one may not.
            let _ = tokio::task::spawn_blocking(move || accounts.save(SystemTime::now())).await;
        }
    }

    /// Writes down what has passed, if anything has, and begins anew what is over. Waits for the disk: not for a worker. To be
    /// called when the process ends.
    pub fn save(&self, now: SystemTime) {
        let accounts: Vec<_> = lock(&self.by_name).values().cloned().collect();
        accounts.iter().for_each(|account| account.turn_page(now));
        let Some(ledger) = &self.ledger else { return };
        let due: Vec<_> = accounts.iter().filter_map(|account| Some((account, account.due()?))).collect();
        if due.iter().all(|(_, due)| due.bytes == 0) {
            return;
        }
        match self.write(ledger, &due, now) {
            Ok(()) if self.is_failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(file = %ledger.file().display(), "quotas are written again");
            }
            Ok(()) => {}
            Err(error) if !self.is_failing.swap(true, Ordering::Relaxed) => {
                let file = ledger.file();
                tracing::warn!(file = %file.display(), %error, "quotas can't be written: they would not outlive a stop now");
            }
            Err(_) => {}
        }
    }

    fn write(&self, ledger: &Ledger, due: &[(&Arc<Account>, Due)], now: SystemTime) -> io::Result<()> {
        let entries = ledger.update(|entries| {
            for (account, due) in due {
                add(entries, account.name(), *due);
            }
            // What is over is of no use to anybody.
            entries.retain(|_, entry| !entry.is_over(now));
        })?;
        for (account, due) in due {
            if let Some(entry) = entries.get(account.name()) {
                account.settle(*due, *entry);
            }
        }
        *lock(&self.entries) = entries;
        Ok(())
    }
}

/// Adds what is due to what is there, of whichever of both is the later period.
fn add(entries: &mut Entries, name: &Arc<str>, due: Due) {
    let entry = entries.entry(name.clone()).or_insert(Entry { period: due.period, bytes: 0 });
    if entry.period.gives_way_to(due.period) {
        *entry = Entry { period: due.period, bytes: 0 };
    }
    entry.bytes = entry.bytes.saturating_add(due.bytes);
}

/// Takes over from another listener's user of the same name what is tighter.
fn tighten(spec: &mut UserSpec, other: &UserSpec) {
    // 0 is no limit.
    let fewer = |one: u32, two: u32| if one == 0 || two == 0 { one.max(two) } else { one.min(two) };
    spec.max_connections = fewer(spec.max_connections, other.max_connections);
    spec.max_associations = fewer(spec.max_associations, other.max_associations);
    let rates = [spec.rate_limit, other.rate_limit].into_iter().flatten();
    spec.rate_limit = rates.min_by_key(|rate| rate.bytes_per_second());
    let quotas = [spec.quota, other.quota].into_iter().flatten();
    // A day's and a month's compare by what they let pass in a month.
    let monthly = |quota: &Quota| match quota.period {
        QuotaPeriod::Day => quota.bytes.get().saturating_mul(31),
        QuotaPeriod::Month => quota.bytes.get(),
    };
    spec.quota = quotas.min_by_key(monthly);
}
