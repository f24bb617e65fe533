//! Where a listener's connections and flows go: to one upstream, or by what the client asks for in its ClientHello.
//!
//! Pure: the same table serves TLS on TCP and QUIC on UDP, and a lookup costs the same however many names there are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A table of destinations.
///
/// A protocol that is listed decides first, in the order of the client's preference: who offers `acme-tls/1` wants to
/// talk to the one that answers challenges, for whatever name. Then the exact name does, then the longest wildcard, then
/// the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes<T> {
    protocols: HashMap<Box<[u8]>, T>,
    names: HashMap<Box<str>, T>,
    /// By what stands behind `*.`.
    wildcards: HashMap<Box<str>, T>,
    default: Option<T>,
}

/// A name of the table, as the config writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// This name alone.
    Exact(Box<str>),
    /// Every name below this one, however many labels more it has.
    Below(Box<str>),
}

/// Why a text is no [`NamePattern`]; says what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A star alone.
    #[error("every name is the key `default`")]
    Everything,
    /// A star that is not the whole first label.
    #[error("a `*` stands for whole labels at the front: \"*.example.com\"")]
    Star,
    /// No host name.
    #[error("expected a host name like \"www.example.com\", or \"*.example.com\" for all names below it")]
    NoName,
}

impl NamePattern {
    /// Reads a name as a ClientHello could carry it, or a wildcard over such names.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<NamePattern, PatternError> {
        if text == "*" {
            return Err(PatternError::Everything);
        }
        let (name, is_wildcard) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(PatternError::Star);
        }
        let name = wmproxy_wire::client_hello::host_name(name.as_bytes()).ok_or(PatternError::NoName)?;
        Ok(if is_wildcard { NamePattern::Below(name) } else { NamePattern::Exact(name) })
    }
}

impl<T> Routes<T> {
    /// Everything to one destination.
    pub fn to(default: T) -> Routes<T> {
        Routes::new(Some(default))
    }

    /// No route but the default, if there is one.
    pub fn new(default: Option<T>) -> Routes<T> {
        Routes { protocols: HashMap::new(), names: HashMap::new(), wildcards: HashMap::new(), default }
    }

    /// Adds a name. False if it is there already.
    pub fn add_name(&mut self, pattern: NamePattern, to: T) -> bool {
        match pattern {
            NamePattern::Exact(name) => add(&mut self.names, name, to),
            NamePattern::Below(suffix) => add(&mut self.wildcards, suffix, to),
        }
    }

    /// Where this very name leads, or this very wildcard.
    pub fn named(&self, pattern: &NamePattern) -> Option<&T> {
        match pattern {
            NamePattern::Exact(name) => self.names.get(name),
            NamePattern::Below(suffix) => self.wildcards.get(suffix),
        }
    }

    /// Adds an application protocol, such as `h2`. False if it is there already.
    pub fn add_protocol(&mut self, protocol: &[u8], to: T) -> bool {
        add(&mut self.protocols, protocol.into(), to)
    }

    /// Whether nobody's ClientHello has to be looked at.
    pub fn is_plain(&self) -> bool {
        self.names.is_empty() && self.wildcards.is_empty() && self.protocols.is_empty()
    }

    /// Where to go without a route.
    pub fn default(&self) -> Option<&T> {
        self.default.as_ref()
    }

    /// Where a client goes that asks for `name`, which is in lower case, and offers `protocols`.
    pub fn find<'a>(&self, name: Option<&str>, protocols: impl IntoIterator<Item = &'a [u8]>) -> Option<&T> {
        self.by_protocol(protocols).or_else(|| self.by_name(name?)).or(self.default.as_ref())
    }

    fn by_protocol<'a>(&self, protocols: impl IntoIterator<Item = &'a [u8]>) -> Option<&T> {
        if self.protocols.is_empty() {
            return None;
        }
        protocols.into_iter().find_map(|protocol| self.protocols.get(protocol))
    }

    fn by_name(&self, name: &str) -> Option<&T> {
        self.names.get(name).or_else(|| {
            if self.wildcards.is_empty() {
                return None;
            }
            // The longest suffix is the first; a name has at most 127 labels.
            let suffixes = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
            suffixes.filter_map(|suffix| self.wildcards.get(suffix)).next()
        })
    }

    /// Every destination, the default first; one that several routes lead to comes several times.
    pub fn destinations(&self) -> impl Iterator<Item = &T> {
        let routes = self.names.values().chain(self.wildcards.values()).chain(self.protocols.values());
        self.default.iter().chain(routes)
    }

    /// The same table with other destinations.
    ///
    /// # Errors
    /// The first that `f` answers.
    pub fn try_map<U, E>(&self, mut f: impl FnMut(&T) -> Result<U, E>) -> Result<Routes<U>, E> {
        Ok(Routes {
            protocols: map(&self.protocols, &mut f)?,
            names: map(&self.names, &mut f)?,
            wildcards: map(&self.wildcards, &mut f)?,
            default: self.default.as_ref().map(f).transpose()?,
        })
    }
}

fn add<K: Eq + std::hash::Hash, T>(table: &mut HashMap<K, T>, key: K, to: T) -> bool {
    match table.entry(key) {
        Entry::Occupied(_) => false,
        Entry::Vacant(entry) => {
            entry.insert(to);
            true
        }
    }
}

fn map<K: Clone + Eq + std::hash::Hash, T, U, E>(
    table: &HashMap<K, T>,
    mut f: impl FnMut(&T) -> Result<U, E>,
) -> Result<HashMap<K, U>, E> {
    table.iter().map(|(key, to)| Ok((key.clone(), f(to)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> NamePattern {
        NamePattern::parse(text).unwrap()
    }

    fn routes(names: &[(&str, &'static str)], default: Option<&'static str>) -> Routes<&'static str> {
        let mut routes = Routes::new(default);
        for (name, to) in names {
            assert!(routes.add_name(pattern(name), *to));
        }
        routes
    }

    fn by_name(routes: &Routes<&'static str>, name: &str) -> Option<&'static str> {
        routes.find(Some(name), []).copied()
    }

    #[test]
    fn the_exact_name_goes_before_the_longest_wildcard_before_the_default() {
        let routes = routes(
            &[("a.example.com", "exact"), ("*.example.com", "short"), ("*.b.example.com", "long")],
            Some("default"),
        );
        for (name, expected) in [
            ("a.example.com", "exact"),
            ("x.example.com", "short"),
            ("x.a.example.com", "short"),
            ("b.example.com", "short"),
            ("x.b.example.com", "long"),
            ("y.x.b.example.com", "long"),
            ("example.com", "default"),
            ("notexample.com", "default"),
            ("com", "default"),
            ("", "default"),
        ] {
            assert_eq!(by_name(&routes, name), Some(expected), "{name}");
        }
        assert_eq!(routes.find(None, []), Some(&"default"));
    }

    #[test]
    fn without_a_default_the_unknown_go_nowhere() {
        let routes = routes(&[("a.example", "a"), ("*.b.example", "b")], None);
        assert_eq!(by_name(&routes, "c.example"), None);
        assert_eq!(routes.find(None, []), None);
        assert!(!routes.is_plain() && Routes::to("x").is_plain());
        assert_eq!(Routes::<&str>::new(None).find(Some("a"), []), None);
    }

    #[test]
    fn a_protocol_decides_before_the_name_and_the_preferred_one_first() {
        let mut routes = routes(&[("a.example", "a")], None);
        assert!(routes.add_protocol(b"h2", "h2") && routes.add_protocol(b"acme-tls/1", "acme"));
        assert!(!routes.add_protocol(b"h2", "again"));
        let find =
            |protocols: &[&'static [u8]]| routes.find(Some("a.example"), protocols.iter().copied()).copied();
        assert_eq!(find(&[b"acme-tls/1"]), Some("acme"));
        assert_eq!(find(&[b"http/1.1", b"h2", b"acme-tls/1"]), Some("h2"));
        assert_eq!(find(&[b"http/1.1"]), Some("a"));
        assert_eq!(routes.find(None, [&b"x"[..]]), None);
    }

    #[test]
    fn names_are_compared_in_lower_case_and_without_a_closing_dot() {
        let mut routes = routes(&[("A.Example.", "a"), ("*.B.Example", "b")], None);
        assert_eq!((by_name(&routes, "a.example"), by_name(&routes, "x.b.example")), (Some("a"), Some("b")));
        assert!(!routes.add_name(pattern("a.EXAMPLE"), "again"));
    }

    #[test]
    fn a_bad_name_says_what_would_be_right() {
        for (text, expected) in [
            ("*", PatternError::Everything),
            ("a.*.example", PatternError::Star),
            ("*a.example", PatternError::Star),
            ("*.*.example", PatternError::Star),
            ("", PatternError::NoName),
            ("*.", PatternError::NoName),
            ("a b", PatternError::NoName),
            ("https://a.example", PatternError::NoName),
            ("a.example:443", PatternError::NoName),
            ("192.0.2.1", PatternError::NoName),
        ] {
            assert_eq!(NamePattern::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn ten_thousand_names_are_found_like_ten() {
        let mut routes = Routes::to(usize::MAX);
        for n in 0..10_000 {
            assert!(routes.add_name(pattern(&format!("n{n}.example")), n));
            assert!(routes.add_name(pattern(&format!("*.w{n}.example")), n));
        }
        for n in [0, 1, 4_711, 9_999] {
            assert_eq!(routes.find(Some(&format!("n{n}.example")), []), Some(&n));
            assert_eq!(routes.find(Some(&format!("a.b.w{n}.example")), []), Some(&n));
        }
        assert_eq!(routes.try_map(|n| n.checked_mul(2).ok_or(())), Err(()));
        let same: Routes<usize> = routes.try_map(|n| Ok::<_, ()>(*n)).unwrap();
        assert_eq!(same, routes);
        assert_eq!(same.destinations().count(), 20_001);
    }
}
