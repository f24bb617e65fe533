//! Samples of single runs, what is kept of them, and their medians.

use serde::{Deserialize, Serialize};

use crate::load::Latency;
use crate::proxies::Variant;
use crate::scenario::{Measure, Rival, Spec};

/// One run of one proxy in one round.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) variant: Variant,
    pub(crate) round: u32,
    /// Units of work done: requests, GB, datagrams, connections or sessions.
    pub(crate) units: f64,
    pub(crate) seconds: f64,
    /// Datagrams that never came back.
    pub(crate) lost: u64,
    pub(crate) latency_us: Option<Latency>,
    pub(crate) cost: Option<Cost>,
}

/// What the proxy's processes spent on it. `Direct` has none.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) cpu_ns: u64,
    /// Share of user code in the CPU time, 0 to 1.
    pub(crate) user_share: f64,
    pub(crate) context_switches: u64,
    /// Growth over the run, bytes.
    pub(crate) pss_growth: i64,
    pub(crate) rss_growth: i64,
    /// Growth since the process had just started, bytes.
    #[serde(default)]
    pub(crate) pss_since_start: i64,
}

/// What bytes are divided by where many are told.
const MEGABYTE: f64 = 1024.0 * 1024.0;

/// All that was measured of a scenario in one go.
#[derive(Serialize, Deserialize)]
pub(crate) struct Series {
    /// The scenario's slug.
    pub(crate) scenario: String,
    pub(crate) quick: bool,
    pub(crate) place: Place,
    pub(crate) samples: Vec<Sample>,
    pub(crate) failures: Vec<Failure>,
    /// Syscalls a unit of work, by the pass under strace.
    pub(crate) syscalls: Vec<(Variant, f64)>,
}

/// A run that came to no result.
#[derive(Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) variant: Variant,
    pub(crate) round: u32,
    pub(crate) reason: String,
}

/// When, where and on what.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// UTC day.
    pub(crate) date: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) rounds: u32,
    pub(crate) versions: Vec<(Variant, String)>,
}

/// The middle and the ends of some figures.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// What the rounds of one proxy come to.
pub(crate) struct Summary {
    pub(crate) variant: Variant,
    /// CPU or memory a unit, in the scenario's unit, or the time of a request. `None` where there is no proxy.
    pub(crate) figure: Option<Spread>,
    /// The figure over a rival's of the same round, for each of the scenario's rivals.
    pub(crate) ratios: Vec<(Rival, Option<Spread>)>,
    /// Units a second.
    pub(crate) rate: Option<Spread>,
    pub(crate) p50: Option<Spread>,
    pub(crate) p99: Option<Spread>,
    pub(crate) user_share: Option<Spread>,
    /// Context switches a unit.
    pub(crate) switches: Option<Spread>,
    /// Growth of Rss a unit, KB.
    pub(crate) rss: Option<Spread>,
    /// Growth of Pss since the process had just started, MB.
    pub(crate) since_start: Option<Spread>,
    /// CPU a unit, microseconds.
    pub(crate) cpu_us: Option<Spread>,
    /// Milliseconds until the first entry of a listing.
    pub(crate) entry_ms: Option<Spread>,
    /// Milliseconds that a unit takes from its beginning to its end, where one follows the other.
    pub(crate) whole_ms: Option<Spread>,
    pub(crate) lost: u64,
    pub(crate) failed: usize,
}

impl Spread {
    /// `None` of nothing. The median of an even number is the mean of the middle two.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }
}

impl Sample {
    /// What the scenario measures, in its unit.
    pub(crate) fn figure(&self, spec: &Spec) -> Option<f64> {
        let cost = self.cost?;
        Some(match spec.measure() {
            Measure::Cpu => cost.cpu_ns as f64 * spec.per_ns() / self.units,
            Measure::Memory => cost.pss_growth as f64 / 1024.0 / self.units,
            Measure::Growth => cost.pss_growth as f64 / MEGABYTE,
            Measure::Tail => self.latency_us?.p99,
            Measure::FirstByte => self.latency_us?.p50 / 1e3,
        })
    }
}

impl Series {
    /// A summary of each proxy that ran or should have.
    pub(crate) fn summaries(&self, spec: &Spec) -> Vec<Summary> {
        let took_part = |variant: &Variant| {
            self.samples.iter().any(|sample| sample.variant == *variant)
                || self.failures.iter().any(|failure| failure.variant == *variant)
        };
        Variant::ALL.into_iter().filter(took_part).map(|variant| self.summary(spec, variant)).collect()
    }

    fn summary(&self, spec: &Spec, variant: Variant) -> Summary {
        let own = || self.samples.iter().filter(move |sample| sample.variant == variant);
        let spread = |of: &dyn Fn(&Sample) -> Option<f64>| Spread::of(own().filter_map(of));
        let a_unit = |of: fn(&Cost) -> f64| spread(&|sample| Some(of(&sample.cost?) / sample.units));
        let ratio =
            |rival| spread(&|sample| Some(sample.figure(spec)? / self.figure_of(spec, rival, sample.round)?));
        Summary {
            variant,
            figure: spread(&|sample| sample.figure(spec)),
            ratios: spec.rivals().into_iter().map(|rival| (rival, ratio(rival))).collect(),
            rate: spread(&|sample| Some(sample.units / sample.seconds)),
            p50: spread(&|sample| Some(sample.latency_us?.p50)),
            p99: spread(&|sample| Some(sample.latency_us?.p99)),
            user_share: spread(&|sample| Some(sample.cost?.user_share)),
            switches: a_unit(|cost| cost.context_switches as f64),
            rss: a_unit(|cost| cost.rss_growth as f64 / 1024.0),
            since_start: spread(&|sample| Some(sample.cost?.pss_since_start as f64 / MEGABYTE)),
            cpu_us: a_unit(|cost| cost.cpu_ns as f64 / 1e3),
            entry_ms: spread(&|sample| Some(sample.latency_us?.entry? / 1e3)),
            whole_ms: spread(&|sample| Some(sample.seconds * 1e3 / sample.units)),
            lost: own().map(|sample| sample.lost).sum(),
            failed: self.failures.iter().filter(|failure| failure.variant == variant).count(),
        }
    }

    /// A rival's figure in a round.
    fn figure_of(&self, spec: &Spec, rival: Rival, round: u32) -> Option<f64> {
        let of = |variant: Variant| {
            let mut samples = self.samples.iter();
            samples.find(|sample| sample.variant == variant && sample.round == round)?.figure(spec)
        };
        match rival {
            Rival::Nginx => of(Variant::Nginx),
            Rival::Plain => of(Variant::Plain),
            Rival::Relay => of(Variant::Relay),
            Rival::Squid => of(Variant::Squid),
            Rival::Tinyproxy => of(Variant::Tinyproxy),
            Rival::Dante => of(Variant::Dante),
            Rival::Microsocks => of(Variant::Microsocks),
            Rival::Rathole => of(Variant::Rathole),
            Rival::Better => [Variant::Nginx, Variant::Haproxy].into_iter().filter_map(of).reduce(f64::min),
        }
    }
}

impl Summary {
    /// The figure over a rival's.
    pub(crate) fn ratio(&self, rival: Rival) -> Option<Spread> {
        self.ratios.iter().find(|ratio| ratio.0 == rival)?.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert!(Spread::of([]).is_none());
    }
}
