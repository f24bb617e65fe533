//! What a client may offer.

use wmproxy_wire::destination::{Host, parse_host};
use wmproxy_wire::tunnel::message::{Refusal, RefusalCode};

use super::refusal;
use crate::options::{GrantSpec, PortRange};

/// The first port that is picked by itself: those below it are for who is named (RFC 6335 section 6).
const FIRST_PICKED: u16 = 1024;

/// A client's grants, made ready to be asked.
#[derive(Debug)]
pub(super) struct Grants {
    ports: Vec<PortRange>,
    hosts: Vec<Pattern>,
    pub(super) private: bool,
    pub(super) max_services: usize,
}

/// Hosts: one, or all below a name, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// `*`
    Any,
    /// `nas.example.com`
    Exact(String),
    /// `*.example.com`, without the asterisk and its dot.
    Below(String),
}

impl Grants {
    pub(super) fn new(spec: &GrantSpec) -> Grants {
        // What is no pattern grants nothing.
        let hosts = spec.hosts.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
        Grants {
            ports: spec.ports.clone(),
            hosts,
            private: spec.private,
            max_services: usize::try_from(spec.max_services).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn has_ports(&self) -> bool {
        !self.ports.is_empty()
    }

    pub(super) fn covers_port(&self, port: u16) -> bool {
        self.ports.iter().any(|range| (range.first..=range.last).contains(&port))
    }

    pub(super) fn covers_host(&self, host: &Pattern) -> bool {
        self.hosts.iter().any(|grant| grant.covers(host))
    }

    /// A granted port for which `is_free`, the same for the same `seed` as long as no other is taken: so that a port that
    /// was picked once is picked again after a restart. No port below 1024, unless nothing else is granted.
    pub(super) fn pick_port(&self, seed: u64, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        let above = self.ports.iter().map(|range| (range.first.max(FIRST_PICKED), range.last));
        let mut ranges: Vec<_> = above.filter(|(first, last)| first <= last).collect();
        if ranges.is_empty() {
            ranges = self.ports.iter().map(|range| (range.first, range.last)).collect();
        }
        let count: u64 = ranges.iter().map(|(first, last)| u64::from(last.saturating_sub(*first)) + 1).sum();
        let nth = |mut n: u64| {
            ranges.iter().find_map(|(first, last)| {
                let len = u64::from(last - first) + 1;
                if n < len {
                    // It lies within the range.
                    return u16::try_from(u64::from(*first) + n).ok();
                }
                n -= len;
                None
            })
        };
        (0..count)
            .filter_map(|step| nth((seed % count + step) % count))
            .find(|port| *port != 0 && is_free(*port))
    }
}

impl Pattern {
    /// Reads `*`, a host, or `*.` and a name; in whatever case and script, with or without a dot at its end.
    pub(super) fn parse(text: &str) -> Result<Pattern, Refusal> {
        let name = |text: &str| match parse_host(text.as_bytes()) {
            Ok(Host::Name(name)) => Ok(name.to_string()),
            Ok(Host::Ip(ip)) => Ok(ip.to_string()),
            Err(bad) => Err(refusal(RefusalCode::Invalid, bad.to_string())),
        };
        match text.strip_prefix('*') {
            Some("") => Ok(Pattern::Any),
            Some(rest) => match rest.strip_prefix('.') {
                Some(below) => name(below).map(Pattern::Below),
                None => {
                    Err(refusal(RefusalCode::Invalid, "an asterisk stands at the beginning, before a dot"))
                }
            },
            None => name(text).map(Pattern::Exact),
        }
    }

    /// Whether it stands for all that the other stands for.
    pub(super) fn covers(&self, other: &Pattern) -> bool {
        let is_below = |name: &str, above: &str| {
            name.strip_suffix(above).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        };
        match (self, other) {
            (Pattern::Any, _) => true,
            (_, Pattern::Any) => false,
            (Pattern::Exact(a), Pattern::Exact(b)) => a == b,
            (Pattern::Exact(_), Pattern::Below(_)) => false,
            (Pattern::Below(above), Pattern::Exact(name)) => is_below(name, above),
            (Pattern::Below(above), Pattern::Below(name)) => name == above || is_below(name, above),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pattern::Any => f.write_str("*"),
            Pattern::Exact(name) => f.write_str(name),
            Pattern::Below(name) => write!(f, "*.{name}"),
        }
    }
}
