//! How many connections and flows a listener lets in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Counts what one listener has let in, over all workers. The limits may change while it is in use.
#[derive(Debug, Default)]
pub struct Gate {
    active: AtomicU32,
    /// 0 is no limit.
    max: AtomicU32,
    /// 0 is no limit.
    max_per_client: AtomicU32,
    freed: Notify,
    /// Only clients that have something open, and only those that came while there was a limit.
    clients: Mutex<HashMap<IpAddr, u32>>,
}

/// One place behind a [`Gate`], given back on drop.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    client: Option<IpAddr>,
}

impl Gate {
    /// A gate with limits; 0 is none.
    pub fn new(max: u32, max_per_client: u32) -> Arc<Gate> {
        let gate = Gate::default();
        gate.set(max, max_per_client);
        Arc::new(gate)
    }

    /// Changes the limits. Who is in stays in.
    pub fn set(&self, max: u32, max_per_client: u32) {
        self.max.store(max, Ordering::Relaxed);
        self.max_per_client.store(max_per_client, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// How many are in.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// A place, if one is free.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        let max = self.max.load(Ordering::Relaxed);
        self.active
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (max == 0 || n < max).then_some(n + 1))
            .ok()
            .map(|_| Permit { gate: self.clone(), client: None })
    }

    /// A place, whether one is free or not: for who gives another one back at once.
    pub fn enter_anyway(self: &Arc<Self>) -> Permit {
        self.active.fetch_add(1, Ordering::AcqRel);
        Permit { gate: self.clone(), client: None }
    }

    /// Whether a client has fewer places than it may have. Another thread may take the last one meanwhile.
    pub fn has_room_for(&self, client: IpAddr) -> bool {
        let max = self.max_per_client.load(Ordering::Relaxed);
        max == 0 || self.clients().get(&client_of(client)).is_none_or(|count| *count < max)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub async fn enter(self: &Arc<Self>) -> Permit {
        loop {
            if let Some(permit) = self.try_enter() {
                return permit;
            }
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Registered before the second look, or a place that is freed in between would be missed.
            freed.as_mut().enable();
            if let Some(permit) = self.try_enter() {
                return permit;
            }
            freed.await;
        }
    }
}

impl Permit {
    /// Names who holds it. False when that client has as many as it may; the permit is then of no use.
    pub fn claim(&mut self, client: IpAddr) -> bool {
        let max = self.gate.max_per_client.load(Ordering::Relaxed);
        if max == 0 {
            return true;
        }
        let mut clients = self.gate.clients();
        let count = clients.entry(client_of(client)).or_insert(0);
        if *count >= max {
            return false;
        }
        *count += 1;
        self.client = Some(client_of(client));
        true
    }
}

/// Whom an address counts as: itself, but a whole /64 of IPv6, which is what one subscriber has (RFC 6177).
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            let mut clients = self.gate.clients();
            if let Some(count) = clients.get_mut(&client) {
                *count -= 1;
                if *count == 0 {
                    clients.remove(&client);
                }
            }
            // A storm of addresses must not leave its table behind.
            if clients.len() * 4 < clients.capacity() && clients.capacity() > 1024 {
                clients.shrink_to_fit();
            }
        }
        self.gate.active.fetch_sub(1, Ordering::AcqRel);
        if self.gate.max.load(Ordering::Relaxed) != 0 {
            self.gate.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_come_in() {
        let gate = Gate::new(2, 0);
        let (a, b) = (gate.try_enter(), gate.try_enter());
        assert!(a.is_some() && b.is_some() && gate.try_enter().is_none());
        drop(a);
        assert!(gate.try_enter().is_some());
        gate.set(0, 0);
        let many: Vec<_> = (0..100).map(|_| gate.try_enter()).collect();
        assert!(many.iter().all(Option::is_some));
        drop((many, b));
        assert_eq!(gate.active(), 0);
    }

    #[test]
    fn a_client_has_its_own_limit_and_leaves_no_trace() {
        let gate = Gate::new(0, 1);
        let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let (mut a, mut b, mut c) =
            (gate.try_enter().unwrap(), gate.try_enter().unwrap(), gate.try_enter().unwrap());
        assert!(a.claim(one) && !b.claim(one) && c.claim(other));
        assert!(!b.claim("::ffff:10.0.0.1".parse().unwrap()), "the mapped form is the same client");
        drop(a);
        assert!(b.claim(one));
        drop((b, c));
        assert!(gate.clients.lock().unwrap().is_empty());
    }

    #[test]
    fn an_ipv6_client_has_one_limit_for_all_of_its_addresses() {
        let gate = Gate::new(0, 1);
        let (mut a, mut b, mut c) =
            (gate.try_enter().unwrap(), gate.try_enter().unwrap(), gate.try_enter().unwrap());
        assert!(a.claim("2001:db8::1".parse().unwrap()) && !b.claim("2001:db8::2".parse().unwrap()));
        assert!(c.claim("2001:db8:0:1::1".parse().unwrap()));
        drop((a, b, c));
        assert!(gate.clients.lock().unwrap().is_empty());
    }

    #[test]
    fn who_waits_is_let_in_when_a_place_is_freed() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let gate = Gate::new(1, 0);
            let first = gate.enter().await;
            let waiting: Vec<_> = (0..50)
                .map(|_| {
                    let gate = gate.clone();
                    #[expect(clippy::disallowed_methods, reason = "a test")]
                    tokio::spawn(async move { drop(gate.enter().await) })
                })
                .collect();
            drop(first);
            for task in waiting {
                task.await.unwrap();
            }
            assert_eq!(gate.active(), 0);
        });
    }
}
