//! Counters of requests: of each listener, and of each of its routes.
//!
//! They go by name, so that those of a listener and a route that a reload leaves in place go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use wmproxy_runtime::counter::{Counter, Sharded};

/// The counters of a process's listeners.
#[derive(Debug)]
pub struct Traffic {
    workers: usize,
    listeners: Mutex<BTreeMap<Arc<str>, Weak<ListenerTraffic>>>,
}

/// The counters of all listeners of a name.
#[derive(Debug)]
pub struct ListenerTraffic {
    /// Their name.
    pub name: Arc<str>,
    /// The counters, one block a worker.
    pub blocks: Sharded<TrafficBlock>,
    workers: usize,
    routes: Mutex<BTreeMap<Arc<str>, Weak<RouteTraffic>>>,
}

/// One worker's counters of a listener.
#[derive(Debug, Default)]
pub struct TrafficBlock {
    /// Requests that began.
    pub begun: Counter,
    /// Those of them that are over; the difference is what is under way.
    pub ended: Counter,
    /// How long requests took, from their first byte to the last one of the response. Upgraded ones are not among them.
    pub durations: Durations,
}

/// The counters of a route.
#[derive(Debug)]
pub struct RouteTraffic {
    /// Its name; empty for requests that have no route.
    pub name: Arc<str>,
    /// Requests by the [class](StatusClass) of their response, one block a worker.
    pub classes: Sharded<[Counter; StatusClass::ALL.len()]>,
}

/// The hundreds of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// There was no response: the client had gone, or was cut off.
    None,
    /// An upgrade.
    Interim,
    /// 2xx
    Success,
    /// 3xx
    Redirect,
    /// 4xx
    ClientError,
    /// 5xx
    ServerError,
}

/// How many of what took how long.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [Counter; Durations::BOUNDS.len() + 1],
    micros: Counter,
}

/// A request under way; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a ListenerTraffic);

/// A request that has become a tunnel, and is still under way; dropping it ends it.
#[derive(Debug)]
pub(crate) struct RunsOn(Arc<ListenerTraffic>);

impl Traffic {
    /// None yet, for so many workers.
    pub fn new(workers: usize) -> Traffic {
        Traffic { workers, listeners: Mutex::default() }
    }

    /// The counters of the listeners of this name: those in use, or new ones.
    pub fn listener(&self, name: &Arc<str>) -> Arc<ListenerTraffic> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = listeners.get(name).and_then(Weak::upgrade) {
            return known;
        }
        listeners.retain(|_, known| known.strong_count() > 0);
        let fresh = Arc::new(ListenerTraffic::new(name.clone(), self.workers));
        listeners.insert(name.clone(), Arc::downgrade(&fresh));
        fresh
    }

    /// All that are in use, in the order of their names.
    pub fn all(&self) -> Vec<Arc<ListenerTraffic>> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.values().filter_map(Weak::upgrade).collect()
    }
}

impl ListenerTraffic {
    /// Counters at zero for `workers` workers.
    pub fn new(name: Arc<str>, workers: usize) -> ListenerTraffic {
        ListenerTraffic { name, blocks: Sharded::new(workers), workers, routes: Mutex::default() }
    }

    /// The counters of a route, empty for requests without one.
    pub fn route(&self, name: &Arc<str>) -> Arc<RouteTraffic> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = routes.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let fresh = RouteTraffic { name: name.clone(), classes: Sharded::new(self.workers) };
        let fresh = Arc::new(fresh);
        routes.insert(name.clone(), Arc::downgrade(&fresh));
        fresh
    }

    /// The counters of its routes, in the order of their names.
    pub fn routes(&self) -> Vec<Arc<RouteTraffic>> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|_, known| known.strong_count() > 0);
        routes.values().filter_map(Weak::upgrade).collect()
    }

    /// Counts a request in.
    #[inline]
    pub(crate) fn begin(&self) -> Running<'_> {
        self.blocks.local().begun.add(1);
        Running(self)
    }
}

impl Running<'_> {
    /// Goes on counting as under way while nobody stands at its desk any more. `of` is whose it is.
    pub(crate) fn hand_over(self, of: &Arc<ListenerTraffic>) -> RunsOn {
        std::mem::forget(self);
        RunsOn(Arc::clone(of))
    }
}

impl Drop for RunsOn {
    fn drop(&mut self) {
        drop(Running(&self.0));
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.blocks.local().ended.add(1);
    }
}

impl RouteTraffic {
    /// Counts a request by its status, 0 being none.
    #[inline]
    pub fn count(&self, status: u16) {
        self.classes.local()[StatusClass::of(status) as usize].add(1);
    }

    /// Requests that had a response of this class.
    pub fn total(&self, class: StatusClass) -> u64 {
        self.classes.sum(|classes| &classes[class as usize])
    }
}

impl StatusClass {
    /// All of them.
    pub const ALL: [StatusClass; 6] = [
        StatusClass::None,
        StatusClass::Interim,
        StatusClass::Success,
        StatusClass::Redirect,
        StatusClass::ClientError,
        StatusClass::ServerError,
    ];

    /// The class of a status; one above 599 is a server's error.
    pub fn of(status: u16) -> StatusClass {
        match status / 100 {
            0 => StatusClass::None,
            1 => StatusClass::Interim,
            2 => StatusClass::Success,
            3 => StatusClass::Redirect,
            4 => StatusClass::ClientError,
            _ => StatusClass::ServerError,
        }
    }

    /// As in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            StatusClass::None => "none",
            StatusClass::Interim => "1xx",
            StatusClass::Success => "2xx",
            StatusClass::Redirect => "3xx",
            StatusClass::ClientError => "4xx",
            StatusClass::ServerError => "5xx",
        }
    }
}

impl Durations {
    /// The upper bounds of the buckets but the last, in microseconds: three to a power of ten, from what a cached answer
    /// takes to what nobody waits for.
    pub const BOUNDS: [u64; 16] = [
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 5_000_000, 10_000_000,
    ];

    /// Counts one.
    #[inline]
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = Durations::BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].add(1);
        self.micros.add(micros);
    }

    /// How many lie in bucket `i`; there is one more than bounds.
    pub fn bucket(&self, i: usize) -> &Counter {
        &self.buckets[i]
    }

    /// The sum of all, in microseconds.
    pub fn micros(&self) -> &Counter {
        &self.micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_name_go_on() {
        let traffic = Traffic::new(1);
        let (web, api): (Arc<str>, Arc<str>) = ("web".into(), "api".into());
        let listener = traffic.listener(&web);
        let route = listener.route(&api);
        route.count(204);
        route.count(0);
        assert!(Arc::ptr_eq(&route, &traffic.listener(&web).route(&api)));
        assert_eq!((route.total(StatusClass::Success), route.total(StatusClass::None)), (1, 1));
        let running = listener.begin();
        let under_way = || listener.blocks.sum(|b| &b.begun) - listener.blocks.sum(|b| &b.ended);
        assert_eq!(under_way(), 1);
        drop(running);
        assert_eq!(under_way(), 0);
        drop(route);
        assert!(listener.routes().is_empty());
        drop(listener);
        assert!(traffic.all().is_empty());
    }

    #[test]
    fn a_duration_falls_into_the_bucket_of_its_upper_bound() {
        let durations = Durations::default();
        for (micros, bucket) in [(0, 0), (100, 0), (101, 1), (10_000_000, 15), (10_000_001, 16)] {
            durations.record(Duration::from_micros(micros));
            assert_eq!(durations.bucket(bucket).get(), 1 + u64::from(micros == 100), "{micros}");
        }
        assert_eq!(durations.micros().get(), 20_000_202);
    }
}
