//! Addresses of names that nobody knew before a client asked for them.
//!
//! Workers ask; lookups run on the control runtime, by the future that comes with a [`Finder`]. Answers are kept for their
//! TTL, so that a name in use is asked for once, by all workers together. Everything that a stranger can make grow has a
//! limit: the names that are kept, the questions under way, and those that wait.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::limit::client_of;

use crate::lookup::{Answer, ResolveError, Resolver};
use crate::names::{MAX_TTL, MIN_TTL};

/// Parts of the table, each behind a lock of its own, so that workers are not in each other's way.
const PARTS: usize = 16;

/// The most names that a part keeps. All of them together take some 3 MB.
const PART: usize = 1024;

/// Lookups at a time. A name server answers some ten thousand a second; those that don't answer hold a place for ten.
const LOOKUPS: usize = 256;

/// Names that may wait for a place. More are a storm, and who comes then is told so at once.
const WAITING: usize = 1024;

/// Questions that one client may have under way: a tenth of the places, so that no single one leaves the others without, and
/// more than a browser that opens a hundred tabs has for the moment that an answer takes.
const OF_ONE_CLIENT: u32 = 128;

/// How long it is remembered that a name does not exist, or could not be found out (RFC 2308 section 5, RFC 9520 section 3.2):
/// long enough for whoever asks in a loop, short enough for whoever has just made the name.
const MISSING: Duration = Duration::from_secs(5);

/// How many addresses of a name are kept: whoever owns it decides how many there are.
const ADDRESSES: usize = 32;

type Found = Result<Arc<[IpAddr]>, ConnectError>;

/// Finds the addresses of names.
#[derive(Debug)]
pub struct Finder {
    resolver: ArcSwap<Resolver>,
    hasher: RandomState,
    parts: [Mutex<HashMap<Arc<str>, Entry>>; PARTS],
    /// How many questions each client waits for.
    waiting: Mutex<HashMap<IpAddr, u32>>,
    wishes: mpsc::Sender<Wish>,
}

/// A client's place among those who wait, given back on drop.
struct Place<'a> {
    waiting: &'a Mutex<HashMap<IpAddr, u32>>,
    client: IpAddr,
}

#[derive(Debug, Clone)]
enum Entry {
    Known { found: Found, until: Instant },
    Asked(Arc<Asked>),
}

/// A question under way.
#[derive(Debug, Default)]
struct Asked {
    answer: OnceLock<Found>,
    told: Notify,
}

/// A name that somebody waits for.
#[derive(Debug)]
struct Wish {
    name: Arc<str>,
    asked: Arc<Asked>,
}

impl Finder {
    /// Asks `resolver`. The future does the lookups: it runs on the control runtime for as long as names are to be found, and
    /// ends when the finder is gone.
    pub fn new(resolver: Arc<Resolver>) -> (Arc<Finder>, impl Future<Output = ()> + Send + 'static) {
        let (wishes, wanted) = mpsc::channel(WAITING);
        let finder = Arc::new(Finder {
            resolver: ArcSwap::new(resolver),
            hasher: RandomState::new(),
            parts: Default::default(),
            waiting: Mutex::default(),
            wishes,
        });
        let weak = Arc::downgrade(&finder);
        (finder, serve(weak, wanted))
    }

    /// Asks another resolver from now on. What is known is forgotten, for the other one may know better.
    pub fn ask(&self, resolver: Arc<Resolver>) {
        self.resolver.store(resolver);
        for part in &self.parts {
            lock(part).retain(|_, entry| matches!(entry, Entry::Asked(_)));
        }
    }

    /// The addresses of a name, in the order in which they came; at least one. It is `client` who wants to know, if it is one.
    ///
    /// # Errors
    /// [`Fault::Unresolved`] where the name has none, [`Fault::TimedOut`] where nobody said so in time, [`Fault::Limited`] when
    /// this client asks for too many names at a time, [`Fault::Resources`] when all together do.
    pub async fn find(&self, name: &str, client: Option<IpAddr>) -> Result<Arc<[IpAddr]>, ConnectError> {
        if let Some(found) = self.known(name) {
            return found;
        }
        let _place = client.map(|client| self.wait(client_of(client))).transpose()?;
        let asked = match self.look(name)? {
            Entry::Known { found, .. } => return found,
            Entry::Asked(asked) => asked,
        };
        loop {
            let told = asked.told.notified();
            if let Some(found) = asked.answer.get() {
                return found.clone();
            }
            told.await;
        }
    }

    /// What is known of a name, if that still holds.
    fn known(&self, name: &str) -> Option<Found> {
        match self.part(name).get(name) {
            Some(Entry::Known { found, until }) if *until > Instant::now() => Some(found.clone()),
            _ => None,
        }
    }

    /// Takes a place for a client that has to wait.
    fn wait(&self, client: IpAddr) -> Result<Place<'_>, ConnectError> {
        let mut waiting = lock(&self.waiting);
        let count = waiting.entry(client).or_insert(0);
        if *count >= OF_ONE_CLIENT {
            return Err(ConnectError::new(
                Fault::Limited,
                "too many names are being looked up for this client",
            ));
        }
        *count += 1;
        Ok(Place { waiting: &self.waiting, client })
    }

    /// Whether anybody waits for an answer; one that nobody waits for any more is not asked for.
    fn is_wanted(&self, wish: &Wish) -> bool {
        let mut part = self.part(&wish.name);
        // With the table locked nobody joins. It has a share, and the wish.
        if Arc::strong_count(&wish.asked) > 2 {
            return true;
        }
        if matches!(part.get(&wish.name), Some(Entry::Asked(asked)) if Arc::ptr_eq(asked, &wish.asked)) {
            part.remove(&wish.name);
        }
        false
    }

    /// What is known of a name; where that is nothing, it is asked for.
    fn look(&self, name: &str) -> Result<Entry, ConnectError> {
        let mut part = self.part(name);
        match part.get(name) {
            Some(Entry::Known { until, .. }) if *until <= Instant::now() => {}
            Some(entry) => return Ok(entry.clone()),
            None => {}
        }
        let name: Arc<str> = Arc::from(name);
        let asked = Arc::<Asked>::default();
        let wish = Wish { name: Arc::clone(&name), asked: Arc::clone(&asked) };
        if let Err(error) = self.wishes.try_send(wish) {
            // It goes with the wish that was not taken; nobody else waits for that.
            drop(error);
            return Err(ConnectError::new(Fault::Resources, "too many names are being looked up"));
        }
        make_room(&mut part);
        part.insert(name, Entry::Asked(Arc::clone(&asked)));
        Ok(Entry::Asked(asked))
    }

    fn part(&self, name: &str) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        lock(&self.parts[self.hasher.hash_one(name) as usize % PARTS])
    }

    async fn fulfil(&self, wish: Wish) {
        let resolver = self.resolver.load_full();
        let answer = resolver.lookup(&wish.name).await;
        let (found, ttl) = sort(&wish.name, answer);
        let entry = Entry::Known { found: found.clone(), until: Instant::now() + ttl };
        let mut part = self.part(&wish.name);
        if Arc::ptr_eq(&resolver, &self.resolver.load()) {
            make_room(&mut part);
            part.insert(Arc::clone(&wish.name), entry);
        } else {
            part.remove(&wish.name);
        }
        drop(part);
        wish.tell(found);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(self.waiting);
        if let Some(count) = waiting.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.client);
            }
        }
    }
}

impl Wish {
    fn tell(&self, found: Found) {
        // Whoever was first has said it.
        let _ = self.asked.answer.set(found);
        self.asked.told.notify_waiters();
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        if self.asked.answer.get().is_none() {
            self.tell(Err(ConnectError::new(Fault::Resources, "names are not looked up any more")));
        }
    }
}

/// Looks names up as they are wished for, some at a time.
async fn serve(finder: std::sync::Weak<Finder>, mut wanted: mpsc::Receiver<Wish>) {
    let mut lookups = FuturesUnordered::new();
    loop {
        let wish = poll_fn(|cx| {
            while let Poll::Ready(Some(())) = lookups.poll_next_unpin(cx) {}
            if lookups.len() >= LOOKUPS { Poll::Pending } else { wanted.poll_recv(cx) }
        })
        .await;
        // Without a wish there is nobody left who could have one, or wait for an answer.
        let (Some(wish), Some(finder)) = (wish, finder.upgrade()) else { return };
        if finder.is_wanted(&wish) {
            lookups.push(async move { finder.fulfil(wish).await });
        }
    }
}

/// Makes room for a name: by what is out of date, or else by any.
fn make_room(part: &mut HashMap<Arc<str>, Entry>) {
    if part.len() < PART {
        return;
    }
    let now = Instant::now();
    part.retain(|_, entry| !matches!(entry, Entry::Known { until, .. } if *until <= now));
    if part.len() >= PART
        && let Some(any) = part.keys().next().cloned()
    {
        part.remove(&any);
    }
}

/// What an answer says, and for how long.
fn sort(name: &str, answer: Result<Answer, ResolveError>) -> (Found, Duration) {
    match answer {
        Ok(Answer { v4, v6, ttl }) => {
            // Half an answer is one, but not for long.
            let ttl = if v4.is_none() || v6.is_none() { ttl.min(MISSING) } else { ttl };
            let mut addresses: Vec<IpAddr> = v6.into_iter().chain(v4).flatten().collect();
            addresses.truncate(ADDRESSES);
            if addresses.is_empty() {
                return (Err(missing(name)), MISSING);
            }
            (Ok(addresses.into()), ttl.clamp(MIN_TTL, MAX_TTL))
        }
        Err(ResolveError::NotFound) => (Err(missing(name)), MISSING),
        Err(error @ (ResolveError::Failed(_) | ResolveError::NoServers(_))) => {
            tracing::debug!(name, %error, "a name can't be looked up");
            let error =
                ConnectError::new(Fault::TimedOut, format!("no name server could say what {name} is"));
            (Err(error), MISSING)
        }
    }
}

fn missing(name: &str) -> ConnectError {
    ConnectError::new(Fault::Unresolved, format!("the name {name} has no addresses"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
