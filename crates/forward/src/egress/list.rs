//! `allow` or `deny`, put together so that a lookup costs the same for many rules as for few.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::BitOr;

use ipnet::IpNet;

use super::class;
use super::hours::{Hours, Minute};
use super::names::Names;
use super::nets::Nets;
use super::ports::Ports;
use super::rule::{Place, Rule};

/// A list of rules.
#[derive(Debug)]
pub(super) struct List {
    names: Names,
    nets: Nets,
    /// What is said of everything, or of some ports anywhere.
    anywhere: Vec<u32>,
    /// What each number in the tables means. Most rules share one.
    terms: Box<[Term]>,
    hours: Box<[Hours]>,
}

/// When a rule applies to a place, and how it was put.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Term {
    /// None for any.
    ports: Option<Ports>,
    /// Index in `hours`; none for always.
    hours: Option<u32>,
    /// Whether it is about addresses none of which is public.
    is_special: bool,
    /// Whether it is about one address.
    is_host: bool,
}

/// What the rules of a list that apply say, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// One of them applies.
    pub(super) applies: bool,
    /// One of them names the port.
    pub(super) port: bool,
    /// One of them names the name.
    pub(super) name: bool,
    /// One of them is about addresses none of which is public.
    pub(super) special: bool,
    /// One of them names just this address.
    pub(super) host: bool,
    /// One of them names just this address and this port.
    pub(super) exact: bool,
}

impl BitOr for Said {
    type Output = Said;

    fn bitor(self, other: Said) -> Said {
        Said {
            applies: self.applies | other.applies,
            port: self.port | other.port,
            name: self.name | other.name,
            special: self.special | other.special,
            host: self.host | other.host,
            exact: self.exact | other.exact,
        }
    }
}

impl List {
    /// Puts rules together.
    pub(super) fn new(rules: Vec<Rule>) -> List {
        let (mut terms, mut hours) = (Numbers::default(), Numbers::default());
        // Ports that are open anywhere at any time are one term, however many rules they come from.
        let mut ports = Vec::new();
        let (mut names, mut nets, mut anywhere) = (Vec::new(), Vec::new(), Vec::new());
        for rule in rules {
            let Rule { place, ports: rule_ports, hours: rule_hours } = rule;
            let is_net = |test: fn(IpNet) -> bool| matches!(place, Place::Net(net) if test(net));
            let term = Term {
                is_special: is_net(class::is_special),
                is_host: is_net(|net| net.prefix_len() == net.max_prefix_len()),
                hours: rule_hours.map(|rule_hours| hours.of(rule_hours)),
                ports: rule_ports,
            };
            match (place, term) {
                (Place::Anywhere, Term { ports: Some(open), hours: None, .. }) => ports.extend(open.ranges()),
                (Place::Anywhere, term) => anywhere.push(terms.of(term)),
                (Place::Name(domain), term) => names.push((domain, terms.of(term))),
                (Place::Net(net), term) => nets.push((net, terms.of(term))),
            }
        }
        if !ports.is_empty() {
            let ports = Some(ports.into_iter().collect());
            anywhere.push(terms.of(Term { ports, hours: None, is_special: false, is_host: false }));
        }
        anywhere.sort_unstable();
        anywhere.dedup();
        let (names, nets) = (Names::new(names), Nets::new(nets));
        List { names, nets, anywhere, terms: terms.finish(), hours: hours.finish() }
    }

    /// Whether a rule is for some hours only.
    pub(super) fn has_hours(&self) -> bool {
        !self.hours.is_empty()
    }

    /// Whether an address can make a rule apply.
    pub(super) fn has_nets(&self) -> bool {
        !self.nets.is_empty()
    }

    /// Which of the rules for some hours hold, one after the other.
    pub(super) fn holding(&self, at: Minute) -> impl Iterator<Item = bool> {
        self.hours.iter().map(move |hours| hours.hold(at))
    }

    /// What is said of a port anywhere.
    pub(super) fn of_port(&self, port: u16, at: Minute) -> Said {
        self.sum(&self.anywhere, port, at)
    }

    /// What is said of a name, beside [`of_port`](List::of_port).
    pub(super) fn of_name(&self, name: &str, port: u16, at: Minute) -> Said {
        let mut said = Said::default();
        self.names.find(name, |items| said = said | self.sum(items, port, at));
        Said { name: said.applies, ..said }
    }

    /// What is said of an address, beside [`of_port`](List::of_port).
    pub(super) fn of_ip(&self, ip: IpAddr, port: u16, at: Minute) -> Said {
        let mut said = Said::default();
        self.nets.find(ip.to_canonical(), |items| said = said | self.sum(items, port, at));
        said
    }

    fn sum(&self, items: &[u32], port: u16, at: Minute) -> Said {
        let terms = items.iter().map(|item| &self.terms[*item as usize]);
        let terms = terms.filter(|term| {
            term.ports.as_ref().is_none_or(|ports| ports.contains(port))
                && term.hours.is_none_or(|hours| self.hours[hours as usize].hold(at))
        });
        terms.fold(Said::default(), |said, term| {
            said | Said {
                applies: true,
                port: term.ports.is_some(),
                name: false,
                special: term.is_special,
                host: term.is_host,
                exact: term.is_host && term.ports.as_ref().is_some_and(Ports::is_single),
            }
        })
    }
}

/// Gives each value a number, the same one every time.
#[derive(Debug)]
struct Numbers<T>(HashMap<T, u32>);

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Numbers(HashMap::new())
    }
}

impl<T: std::hash::Hash + Eq> Numbers<T> {
    fn of(&mut self, value: T) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(value).or_insert(next)
    }

    fn finish(self) -> Box<[T]> {
        let mut values: Vec<(T, u32)> = self.0.into_iter().collect();
        values.sort_unstable_by_key(|(_, number)| *number);
        values.into_iter().map(|(value, _)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wmproxy_wire::destination::Host;

    use super::super::rule::tests::fits_plainly;
    use super::*;

    /// One rule after the other.
    fn plainly(rules: &[Rule], host: &Host, port: u16, at: Minute) -> Said {
        let of_rule = |rule: &Rule| {
            let is_here = match (&rule.place, host) {
                (Place::Anywhere, _) => true,
                (Place::Net(net), Host::Ip(ip)) => net.contains(ip),
                (Place::Name(domain), Host::Name(name)) => fits_plainly(domain, name),
                (Place::Net(_), Host::Name(_)) | (Place::Name(_), Host::Ip(_)) => false,
            };
            let is_now = rule.hours.as_ref().is_none_or(|hours| hours.hold(at));
            if !is_here || !is_now || rule.ports.as_ref().is_some_and(|ports| !ports.contains(port)) {
                return Said::default();
            }
            let (is_special, is_host) = match rule.place {
                Place::Net(net) => (class::is_special(net), net.prefix_len() == net.max_prefix_len()),
                Place::Name(_) | Place::Anywhere => (false, false),
            };
            Said {
                applies: true,
                port: rule.ports.is_some(),
                name: matches!(rule.place, Place::Name(_)),
                special: is_special,
                host: is_host,
                exact: is_host && rule.ports.as_ref().is_some_and(Ports::is_single),
            }
        };
        rules.iter().map(of_rule).fold(Said::default(), BitOr::bitor)
    }

    fn text() -> impl Strategy<Value = String> {
        let place = prop_oneof![
            Just(String::new()),
            Just("*".to_owned()),
            "(\\*?\\.)?([ab]{1,2}\\.){0,2}[ab]{1,2}",
            "[ab]\\*[ab]?\\.[ab]{1,2}",
            "10\\.[01]\\.0\\.[01]",
            Just("10.0.0.0/15".to_owned()),
            Just("0.0.0.0/0".to_owned()),
            Just("8.0.0.0/6".to_owned()),
        ];
        let ports = prop_oneof![3 => Just(""), 1 => Just(":1"), 1 => Just(":1-3"), 1 => Just(":2,4")];
        let hours = prop_oneof![3 => Just(""), 1 => Just("@mon/utc"), 1 => Just("@tue-sun/utc")];
        (place, ports, hours).prop_map(|(place, ports, hours)| format!("{place}{ports}{hours}"))
    }

    fn host() -> impl Strategy<Value = Host> {
        prop_oneof![
            "([ab]{1,2}\\.){0,3}[ab]{1,2}".prop_map(|name| Host::Name(name.into())),
            "(10\\.[012]|9\\.9)\\.0\\.[012]".prop_map(|ip| Host::Ip(ip.parse().unwrap())),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        #[test]
        fn the_list_says_what_its_rules_do(
            texts in proptest::collection::vec(text(), 0..20),
            visits in proptest::collection::vec((host(), 1u16..6, any::<bool>()), 1..10),
        ) {
            let rules: Vec<Rule> = texts.iter().filter_map(|text| text.parse().ok()).collect();
            let list = List::new(rules.clone());
            prop_assert_eq!(list.has_nets(), rules.iter().any(|rule| matches!(rule.place, Place::Net(_))));
            for (host, port, is_monday) in visits {
                // 1970-01-05 was a Monday.
                let day = std::time::Duration::from_secs(86_400 * if is_monday { 4 } else { 5 });
                let at = Minute::of(std::time::SystemTime::UNIX_EPOCH + day, &jiff::tz::TimeZone::UTC);
                let said = list.of_port(port, at) | match &host {
                    Host::Name(name) => list.of_name(name, port, at),
                    Host::Ip(ip) => list.of_ip(*ip, port, at),
                };
                prop_assert_eq!(said, plainly(&rules, &host, port, at), "{:?}:{} of {:?}", host, port, texts);
            }
        }
    }
}
