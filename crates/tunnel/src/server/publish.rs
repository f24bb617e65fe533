//! Keeping open what is offered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wmproxy_runtime::clock;

use super::directory::Directory;
use super::tunnel_server::TunnelServer;
use super::{Exposure, Ports};

/// Changes that come within this time are made at once: a client that comes back says several things.
const JOIN: Duration = Duration::from_millis(5);

/// Whoever lets changes come without end has them made no more often than so: this many times as long as they take to make is
/// left to others between them.
const REST: u32 = 4;

/// The longest such rest. What takes long waits for something, mostly.
const MAX_REST: Duration = Duration::from_millis(250);

/// What could not be opened is tried again so often: whoever had the port may have left.
const AGAIN: Duration = Duration::from_secs(5);

impl TunnelServer {
    /// Keeps open what is offered, until the future is dropped. One at a time, on the control runtime.
    pub async fn keep_published(self: Arc<Self>, ports: Arc<dyn Ports>) {
        let mut open: Option<Vec<Exposure>> = None;
        loop {
            let begun = Instant::now();
            let wanted = self.settle();
            let is_due = self.registry().has_failures() || open.as_ref() != Some(&wanted);
            if is_due {
                let results = ports.publish(wanted.clone()).await;
                let is_again = self.registry().published(&wanted, results);
                open = Some(wanted);
                if is_again {
                    continue;
                }
            }
            self.answer();
            let took = begun.elapsed();
            self.until_change().await;
            tokio::time::sleep((took * REST).clamp(JOIN, MAX_REST)).await;
        }
    }

    /// Judges all that has changed, and has visitors find what there is now.
    fn settle(&self) -> Vec<Exposure> {
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        for session in &sessions {
            self.take_registration(session);
        }
        let mut registry = self.registry();
        registry.settle(clock::now());
        let clients = self.clients.load();
        let directory = Directory::new(&registry, &clients, &self.directory.load());
        self.directory.store(Arc::new(directory));
        let numbered = registry.numbered();
        let wanted = registry.exposures();
        drop(registry);
        // Only now do the numbers mean what the client says, and visitors may come.
        for session in sessions.iter().filter(|session| numbered.contains(&session.number)) {
            session.client.ready(session.number);
        }
        wanted
    }

    /// Tells the clients what became of what they offer.
    fn answer(&self) {
        let answers = self.registry().answers();
        let sessions = self.sessions();
        for (number, registered) in answers {
            let Some(session) = sessions.values().find(|session| session.number == number) else { continue };
            for placed in &registered.results {
                let Err(refusal) = &placed.result else { continue };
                self.count(|counters| &counters.services_refused);
                if let Some(others) = self.pace.admit() {
                    let (client, why) = (&session.client.name, refusal.text.escape_debug());
                    tracing::warn!(%client, service = placed.id, %why, others, "a tunnel service was refused");
                }
            }
            session.mailbox.registered(registered);
        }
    }

    async fn until_change(&self) {
        let now = clock::now();
        let (deadline, has_failures) = {
            let registry = self.registry();
            (registry.deadline(), registry.has_failures())
        };
        let grace = deadline.map(|at| at.since(now) + JOIN);
        let retry = has_failures.then_some(AGAIN);
        let rest = grace.into_iter().chain(retry).min();
        match rest {
            Some(rest) => drop(tokio::time::timeout(rest, self.changed.notified()).await),
            None => self.changed.notified().await,
        }
    }
}
