//! A host name and the addresses that it has.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::lookup::{Answer, ResolveError, Resolver};
use crate::peer::Blame;
use crate::random;

/// How soon a name is asked for again at the soonest. A TTL of zero asks not to be kept at all; once a
/// second follows any change fast enough and is nothing to a name server.
pub(crate) const MIN_TTL: Duration = Duration::from_secs(1);

/// How late at the latest. A service that moves is found within five minutes, though its zone says a day.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(300);

/// How long to wait after a first failure; twice as long after each further one.
const BACKOFF: Duration = Duration::from_secs(1);

/// The longest wait between failures: an outage of the name server is over half a minute after it is over.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A host name, shared by all groups of all generations that use it.
#[derive(Debug)]
pub(crate) struct Name {
    host: String,
    state: Mutex<State>,
    /// Held during a lookup: whoever else wants one waits and finds the answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// In order; empty until the first answer.
    addresses: Vec<IpAddr>,
    due: Instant,
    failures: u32,
}

impl Name {
    pub(crate) fn new(host: String) -> Name {
        let state = State { addresses: vec![], due: Instant::now(), failures: 0 };
        Name { host, state: Mutex::new(state), asking: tokio::sync::Mutex::new(()) }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The addresses as last known; none until the first answer.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.state().addresses.clone()
    }

    pub(crate) fn is_resolved(&self) -> bool {
        !self.state().addresses.is_empty()
    }

    /// When it is to be asked for again.
    pub(crate) fn due(&self) -> Instant {
        self.state().due
    }

    /// Asks for it when that is due, or in any case when nothing is known and `insist` is set. A failure
    /// leaves the addresses as they are.
    pub(crate) async fn refresh(&self, resolver: &Resolver, insist: bool) -> Result<(), ResolveError> {
        let _asking = self.asking.lock().await;
        let fresh = self.is_resolved() || !insist;
        if fresh && self.due() > Instant::now() {
            return Ok(());
        }
        match resolver.lookup(&self.host).await {
            Ok(answer) => self.learn(answer),
            Err(error) => return Err(self.miss(error)),
        }
        Ok(())
    }

    pub(crate) fn learn(&self, answer: Answer) {
        let mut state = self.state();
        let old_of =
            |v4: bool| state.addresses.iter().copied().filter(move |ip| ip.is_ipv4() == v4).collect();
        // A family whose question failed keeps what it had: half an answer is no news about the other half.
        let partial = answer.v4.is_none() || answer.v6.is_none();
        let mut addresses: Vec<IpAddr> = answer.v4.unwrap_or_else(|| old_of(true));
        addresses.extend(answer.v6.unwrap_or_else(|| old_of(false)));
        keep_routed(&self.host, &mut addresses);
        // In order, so that servers that rotate their answers cause no change.
        addresses.sort_unstable();
        addresses.dedup();
        let ttl = if partial { answer.ttl.min(MAX_BACKOFF) } else { answer.ttl };
        state.due = Instant::now() + ttl.clamp(MIN_TTL, MAX_TTL);
        let recovered = std::mem::take(&mut state.failures) > 0;
        let before = std::mem::replace(&mut state.addresses, addresses.clone());
        drop(state);
        if before != addresses {
            info!(name = %self.host, ?addresses, ?before, "name resolved");
        } else if recovered {
            info!(name = %self.host, ?addresses, "name resolves again");
        }
    }

    fn miss(&self, error: ResolveError) -> ResolveError {
        let mut state = self.state();
        let longest = (BACKOFF * (1 << state.failures.min(10))).min(MAX_BACKOFF);
        // Between half of it and all: many names that failed together must not come back together.
        let half = longest / 2;
        let jitter = Duration::from_millis(random::below(u64::try_from(half.as_millis()).unwrap_or(0) + 1));
        state.due = Instant::now() + half + jitter;
        state.failures = state.failures.saturating_add(1);
        let (first, addresses) = (state.failures == 1, state.addresses.clone());
        drop(state);
        if !first {
            debug!(name = %self.host, %error, "name still can't be resolved");
        } else if addresses.is_empty() {
            warn!(name = %self.host, %error, "name can't be resolved");
        } else {
            warn!(name = %self.host, %error, ?addresses, "name can't be resolved; its addresses are kept");
        }
        error
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves out addresses that this machine has no route to, as long as others remain: on a machine without
/// IPv6, each AAAA record would else be a peer that fails.
fn keep_routed(host: &str, addresses: &mut Vec<IpAddr>) {
    let mixed = addresses.iter().any(IpAddr::is_ipv4) && addresses.iter().any(IpAddr::is_ipv6);
    if !mixed {
        return;
    }
    let routed: Vec<_> = addresses.iter().copied().filter(|&ip| has_route(ip)).collect();
    if !routed.is_empty() && routed.len() < addresses.len() {
        debug!(name = host, ?addresses, ?routed, "addresses without a route are left out");
        *addresses = routed;
    }
}

/// Whether the routing table knows a way. Connecting a datagram socket looks it up and sends nothing.
fn has_route(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    // Any port: the discard service's.
    let tried = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(SocketAddr::new(ip, 9)));
    // Too many open files, say, tell nothing about routes.
    tried.map_or_else(|error| Blame::of(&error) == Blame::Resources, |()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_to_half_a_minute_and_keep_the_addresses() {
        let name = Name::new("a.example".into());
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        name.learn(Answer { v4: Some(vec![v4]), v6: Some(vec![]), ttl: Duration::from_secs(60) });
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            name.miss(ResolveError::NotFound);
            let wait = name.due() - Instant::now();
            let longest = Duration::from_secs(seconds);
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?} of {longest:?}");
        }
        assert_eq!(name.addresses(), [v4]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_ttl_is_bounded_both_ways() {
        let name = Name::new("a.example".into());
        for (ttl, expected) in [(0, 1), (1, 1), (60, 60), (86_400, 300)] {
            name.learn(Answer { v4: Some(vec![]), v6: Some(vec![]), ttl: Duration::from_secs(ttl) });
            assert_eq!(name.due() - Instant::now(), Duration::from_secs(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_an_answer_changes_half_of_the_addresses() {
        let name = Name::new("a.example".into());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        // Loopback addresses, so that every machine that has IPv6 at all has a route.
        name.learn(Answer { v4: None, v6: Some(vec![ip("::1")]), ttl: Duration::from_secs(60) });
        assert_eq!(name.addresses(), [ip("::1")]);
        name.learn(Answer { v4: Some(vec![]), v6: None, ttl: Duration::from_secs(60) });
        assert_eq!(name.addresses(), [ip("::1")]);
        assert_eq!(name.due() - Instant::now(), MAX_BACKOFF, "the other half is asked for again soon");
        name.learn(Answer { v4: Some(vec![ip("127.0.0.2")]), v6: Some(vec![]), ttl: MAX_TTL });
        assert_eq!(name.addresses(), [ip("127.0.0.2")]);
    }

    #[test]
    fn loopback_has_a_route_and_the_last_addresses_stay() {
        assert!(has_route("127.0.0.1".parse().unwrap()));
        let mut only = vec!["2001:db8::1".parse().unwrap()];
        keep_routed("a.example", &mut only);
        assert_eq!(only.len(), 1);
    }
}
