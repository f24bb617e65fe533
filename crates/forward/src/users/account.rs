//! What one user has open and has used up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use wmproxy_net::limit::{Budget, Gate, Limits, Permit};

use super::ledger::Entry;
use super::period::Period;
use crate::options::{Quota, QuotaPeriod, UserSpec};

/// One user, over all listeners and workers.
#[derive(Debug)]
pub struct Account {
    name: Arc<str>,
    /// Its connections, and how fast their bytes pass.
    gate: Arc<Gate>,
    /// Its associations of datagrams.
    associations: Arc<Gate>,
    /// What all of its bytes are taken from.
    budget: Arc<Budget>,
    book: Mutex<Book>,
    /// Whether the config still has it.
    is_known: AtomicBool,
}

/// How much of the quota is used up. Bytes are counted by the budget, which knows no calendar.
#[derive(Debug)]
struct Book {
    /// None for a user without one, of whom nothing is kept.
    quota: Option<Quota>,
    period: Period,
    /// Bytes of the period that the ledger knows, of all processes.
    settled: u64,
    /// What the budget had counted then.
    mark: u64,
}

/// Bytes that the ledger does not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) period: Period,
    pub(super) bytes: u64,
    /// What the budget had counted.
    mark: u64,
}

/// What a user has open and has used up, for who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserStatus {
    /// The name.
    pub name: String,
    /// Tunnels that it has open, and requests that are being answered.
    pub connections: u32,
    /// Associations of datagrams that it has open.
    pub associations: u32,
    /// Bytes of both ways since this process began.
    pub bytes: u64,
    /// What is left of its quota, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaStatus>,
}

/// What is left of a quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaStatus {
    /// The day or the month that it is counted over, UTC: `2026-11-23`, or `2026-11`.
    pub period: String,
    /// How many bytes may pass in that time.
    pub limit: u64,
    /// How many have passed.
    pub used: u64,
    /// How many may still.
    pub left: u64,
}

impl UserStatus {
    /// Whether anything of it is open.
    pub(super) fn is_active(&self) -> bool {
        self.connections > 0 || self.associations > 0
    }
}

impl Book {
    fn used(&self, passed: u64) -> u64 {
        self.settled.saturating_add(passed.saturating_sub(self.mark))
    }

    /// At which count of the budget the quota is used up.
    fn end(&self) -> Option<u64> {
        let quota = self.quota?;
        Some(self.mark.saturating_add(quota.bytes.get().saturating_sub(self.settled)))
    }
}

impl Account {
    /// A user's, with what the ledger knows of it.
    pub(super) fn new(spec: &UserSpec, known: Option<Entry>, now: SystemTime) -> Account {
        let kind = spec.quota.map_or(QuotaPeriod::Day, |quota| quota.period);
        let period = Period::of(kind, now);
        let counts = known.filter(|known| !known.period.gives_way_to(period));
        let (period, settled) = counts.map_or((period, 0), |known| (known.period, known.bytes));
        let account = Account {
            name: spec.name.clone(),
            gate: Gate::new(0, 0),
            associations: Gate::new(0, 0),
            budget: Arc::default(),
            book: Mutex::new(Book { quota: None, period, settled, mark: 0 }),
            is_known: AtomicBool::new(true),
        };
        account.set(spec, now);
        account
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // What is inside stays whole when a holder panics.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Keeps it to other limits. What is open stays open.
    pub(super) fn set(&self, spec: &UserSpec, now: SystemTime) {
        let rate = spec.rate_limit;
        self.gate.set(&Limits { max: spec.max_connections, up: rate, down: rate, ..Limits::default() });
        self.associations.set(&Limits { max: spec.max_associations, ..Limits::default() });
        self.book().quota = spec.quota;
        self.turn_page(now);
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Begins anew if the day or the month is over.
    pub(super) fn turn_page(&self, now: SystemTime) {
        let mut book = self.book();
        if let Some(quota) = book.quota {
            let period = Period::of(quota.period, now);
            if book.period.gives_way_to(period) {
                *book = Book { quota: book.quota, period, settled: 0, mark: self.budget.passed() };
            }
        }
        self.budget.set_end(book.end());
    }

    /// What the ledger does not know yet; none for a user without a quota.
    pub(super) fn due(&self) -> Option<Due> {
        let book = self.book();
        let mark = self.budget.passed();
        book.quota.map(|_| Due { period: book.period, bytes: mark.saturating_sub(book.mark), mark })
    }

    /// Takes over what the ledger says after what was due is in it.
    pub(super) fn settle(&self, due: Due, entry: Entry) {
        let mut book = self.book();
        // A page that was turned meanwhile has a mark of its own.
        if book.period == due.period {
            *book = Book { quota: book.quota, period: entry.period, settled: entry.bytes, mark: due.mark };
            self.budget.set_end(book.end());
        }
    }

    /// Refuses it from now on, since the config does not have it any more. What is open stays open.
    pub(super) fn forget(&self) {
        self.is_known.store(false, Ordering::Relaxed);
    }

    /// Whether the config still has it.
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// A place for one more connection.
    ///
    /// # Errors
    /// The user has as many as it may, or has used up its quota.
    pub(super) fn enter(&self) -> Result<Permit, &'static str> {
        self.has_left()?;
        self.gate.try_enter().ok_or("this user has as many connections open as it may")
    }

    /// A place for one more association of datagrams.
    ///
    /// # Errors
    /// As of a connection.
    pub(super) fn associate(&self) -> Result<Permit, &'static str> {
        self.has_left()?;
        self.associations.try_enter().ok_or("this user has as many associations open as it may")
    }

    /// Whether there is something left of the quota.
    ///
    /// # Errors
    /// There is not.
    pub(crate) fn has_left(&self) -> Result<(), &'static str> {
        if self.budget.left() > 0 {
            return Ok(());
        }
        Err(match self.book().quota.map(|quota| quota.period) {
            Some(QuotaPeriod::Month) => {
                "this user's quota for the month is used up; it begins anew with the next, UTC"
            }
            _ => "this user's quota for the day is used up; it begins anew at midnight, UTC",
        })
    }

    /// How fast the bytes of its connections pass.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What all of its bytes are taken from.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// What is open and used up.
    pub(super) fn status(&self) -> UserStatus {
        let (book, bytes) = (self.book(), self.budget.passed());
        let quota = book.quota.map(|quota| {
            let (limit, used) = (quota.bytes.get(), book.used(bytes));
            QuotaStatus { period: book.period.to_string(), limit, used, left: limit.saturating_sub(used) }
        });
        UserStatus {
            name: self.name.to_string(),
            connections: self.gate.active(),
            associations: self.associations.active(),
            bytes,
            quota,
        }
    }
}
