use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use wmproxy_net::limit::Direction;

use super::testing::{NOON, StateDir, at, noon, quota, rate, user};
use super::*;
use crate::options::{QuotaPeriod, UserSpec};

const DAY: u64 = 86_400;

/// Accounts of one user, as a process has them that begins at a time.
fn begin(directory: Option<&StateDir>, spec: &UserSpec, seconds: u64) -> (Arc<Accounts>, Arc<Account>) {
    let accounts = Accounts::open(directory.map(StateDir::path).as_deref());
    accounts.apply([spec], at(seconds));
    let account = accounts.account(spec, at(seconds));
    (accounts, account)
}

fn limited(bytes: u64, period: QuotaPeriod) -> UserSpec {
    UserSpec { quota: quota(bytes, period), ..user("alice") }
}

#[test]
fn a_quota_is_for_a_day_or_a_month() {
    // The 23rd, the 24th and the 1st of December, at midnight.
    let (today, tomorrow, next_month) = (NOON, NOON + DAY / 2, NOON + DAY / 2 + 7 * DAY);
    for (period, text, anew) in
        [(QuotaPeriod::Day, "midnight", tomorrow), (QuotaPeriod::Month, "month", next_month)]
    {
        let (accounts, account) = begin(None, &limited(1000, period), today);
        assert!(account.budget().spend(999) && account.has_left().is_ok());
        assert!(!account.budget().spend(500), "what is over is counted");
        assert!(account.enter().unwrap_err().contains(text) && account.associate().is_err());
        accounts.save(at(anew - 1));
        assert!(account.has_left().is_err(), "not before");
        accounts.save(at(anew));
        assert!(account.enter().is_ok() && account.budget().left() == 1000);
        let status = account.status();
        assert_eq!((status.bytes, status.quota.unwrap().used), (1499, 0));
    }
}

#[test]
fn a_clock_that_was_set_back_begins_nothing_anew() {
    let (accounts, account) = begin(None, &limited(1000, QuotaPeriod::Day), NOON);
    account.budget().spend(600);
    for seconds in [NOON - DAY, 0, NOON] {
        accounts.save(at(seconds));
        assert_eq!(account.budget().left(), 400);
    }
}

#[test]
fn what_is_written_after_midnight_is_not_taken_for_the_new_day_s() {
    let (_, account) = begin(None, &limited(1000, QuotaPeriod::Day), NOON);
    account.budget().spend(600);
    let due = account.due().unwrap();
    account.turn_page(at(NOON + DAY));
    account.settle(due, ledger::Entry { period: due.period, bytes: 600 });
    assert_eq!(account.budget().left(), 1000);
}

#[test]
fn what_was_used_up_survives_a_restart() {
    let directory = StateDir::new();
    let spec = limited(1000, QuotaPeriod::Month);
    let (accounts, account) = begin(Some(&directory), &spec, NOON);
    accounts.save(noon());
    assert_eq!(directory.text(), "", "nothing to write, nothing written");
    account.budget().spend(300);
    accounts.save(noon());
    account.budget().spend(400);
    accounts.save(noon());
    assert!(
        directory.text().contains("\"2026-11\"") && directory.text().contains("700"),
        "{}",
        directory.text()
    );
    let mode = |name| std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("forward-quotas.json")), (0o700, 0o600));

    let (accounts, account) = begin(Some(&directory), &spec, NOON + DAY);
    assert_eq!((account.budget().left(), account.status().bytes), (300, 0));
    account.budget().spend(50);
    accounts.save(at(NOON + DAY));
    let (_, account) = begin(Some(&directory), &spec, NOON + DAY);
    assert_eq!(account.status().quota.unwrap().used, 750);
    let (_, account) = begin(Some(&directory), &spec, NOON + 8 * DAY);
    assert_eq!(account.budget().left(), 1000, "another month");
    let (_, account) = begin(Some(&directory), &limited(1000, QuotaPeriod::Day), NOON + DAY);
    assert_eq!(account.budget().left(), 1000, "a quota of another kind");
}

#[test]
fn two_processes_add_up() {
    let directory = StateDir::new();
    let spec = limited(1000, QuotaPeriod::Day);
    let (old, his) = begin(Some(&directory), &spec, NOON);
    his.budget().spend(100);
    old.save(noon());
    let (new, hers) = begin(Some(&directory), &spec, NOON);
    his.budget().spend(200);
    hers.budget().spend(30);
    new.save(noon());
    old.save(noon());
    assert_eq!((his.budget().left(), hers.budget().left()), (670, 870));
    hers.budget().spend(1);
    new.save(noon());
    assert_eq!(hers.budget().left(), 669, "it hears of the other's with its own");
}

#[test]
fn processes_that_write_at_once_lose_nothing() {
    let directory = StateDir::new();
    let spec = limited(1 << 40, QuotaPeriod::Day);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (accounts, account) = begin(Some(&directory), &spec, NOON);
                for _ in 0..25 {
                    account.budget().spend(10);
                    accounts.save(noon());
                }
            });
        }
    });
    let (_, account) = begin(Some(&directory), &spec, NOON);
    assert_eq!(account.status().quota.unwrap().used, 1000);
    assert_eq!(directory.names().len(), 2, "the file and its lock: {:?}", directory.names());
}

#[test]
fn a_file_that_is_none_is_put_aside() {
    for text in [
        "{\"version\":1,\"us",
        "[]",
        "{\"version\":2,\"users\":{}}",
        "{\"version\":1,\"users\":{\"a\":{\"period\":\"x\",\"bytes\":1}}}",
    ] {
        let directory = StateDir::new();
        directory.write(text);
        let (accounts, account) = begin(Some(&directory), &limited(1000, QuotaPeriod::Day), NOON);
        assert_eq!(account.budget().left(), 1000);
        let names = directory.names();
        let aside = names.iter().find(|name| name.contains("broken")).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join(aside)).unwrap(), text);
        account.budget().spend(1);
        accounts.save(noon());
        assert!(directory.text().contains("alice"));
    }
}

#[test]
fn what_can_t_be_written_is_written_later() {
    let directory = StateDir::new();
    let (accounts, account) = begin(Some(&directory), &limited(1000, QuotaPeriod::Day), NOON);
    account.budget().spend(10);
    // A file where the directory should be: nobody, not even root, writes into it.
    std::fs::write(directory.path(), "").unwrap();
    accounts.save(noon());
    assert_eq!(account.budget().left(), 990);
    std::fs::remove_file(directory.path()).unwrap();
    account.budget().spend(5);
    accounts.save(noon());
    assert!(directory.text().contains("15"), "{}", directory.text());
}

#[test]
fn many_workers_use_up_one_quota() {
    let directory = StateDir::new();
    let spec = limited(2_000_000, QuotaPeriod::Day);
    let (accounts, account) = begin(Some(&directory), &spec, NOON);
    let passed: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut passed = 100;
                    while account.budget().spend(100) {
                        passed += 100;
                    }
                    passed
                })
            })
            .collect();
        for _ in 0..20 {
            accounts.save(noon());
        }
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    // Each of them notices the end by a piece that is over it.
    assert!((2_000_000..2_000_400).contains(&passed), "{passed}");
    accounts.save(noon());
    assert_eq!(begin(Some(&directory), &spec, NOON).1.status().quota.unwrap().used, passed);
}

#[test]
fn limits_follow_the_config_and_accounts_outlive_it() {
    let before = UserSpec { max_connections: 2, rate_limit: rate(1000), ..limited(1000, QuotaPeriod::Day) };
    let (accounts, account) = begin(None, &before, NOON);
    let (first, second) = (account.enter().unwrap(), account.enter().unwrap());
    assert!(account.enter().unwrap_err().contains("connections"));
    assert!(account.gate().meter(Direction::Up).is_limited());
    account.budget().spend(400);
    accounts.apply(
        [&UserSpec { max_connections: 3, quota: quota(500, QuotaPeriod::Day), ..user("alice") }],
        noon(),
    );
    let third = account.enter().unwrap();
    assert!(account.enter().is_err() && !account.gate().meter(Direction::Down).is_limited());
    assert_eq!(account.budget().left(), 100);
    drop((first, second, third));
    assert_eq!(account.status().connections, 0);
    assert_eq!(account.associate().map(drop), Ok(()));
}

#[test]
fn one_name_on_two_listeners_is_one_user_with_the_tighter_limits() {
    let one = UserSpec { max_connections: 5, ..limited(1000, QuotaPeriod::Day) };
    let other = UserSpec {
        max_connections: 0,
        max_associations: 2,
        rate_limit: rate(7),
        ..limited(10, QuotaPeriod::Month)
    };
    let accounts = Accounts::open(None);
    accounts.apply([&one, &other], noon());
    let account = accounts.account(&one, noon());
    assert!(Arc::ptr_eq(&account, &accounts.account(&other, noon())));
    let held: Vec<_> = (0..5).map(|_| account.enter().unwrap()).collect();
    assert!(account.enter().is_err() && account.gate().meter(Direction::Up).is_limited());
    assert_eq!((account.budget().left(), held.len()), (10, 5));
    assert_eq!(accounts.status().len(), 1);
}

#[test]
fn who_goes_is_refused_and_comes_back_with_what_was_used_up() {
    let directory = StateDir::new();
    let spec = limited(1000, QuotaPeriod::Day);
    let (accounts, account) = begin(Some(&directory), &spec, NOON);
    account.budget().spend(10);
    let held = account.enter().unwrap();
    accounts.apply([], noon());
    assert!(!account.is_known() && account.budget().spend(5), "a tunnel goes on");
    drop((held, account));
    accounts.save(noon());
    accounts.apply([], noon());
    assert_eq!(accounts.status(), [], "nobody holds it, and all is written");
    accounts.apply([&spec], noon());
    let account = accounts.account(&spec, noon());
    assert!(account.is_known());
    assert_eq!(account.budget().left(), 985);
}
