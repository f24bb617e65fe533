//! Which certificate a client gets: by the name it asks for, and by the signatures it can check.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::CertificateInfo;

thread_local! {
    /// The name in the ClientHello that this thread has just met. rustls's unbuffered connections tell it to nobody but
    /// the resolver, which does not know whose it is; whoever makes the handshake does.
    static ASKED: Cell<Option<String>> = const { Cell::new(None) };
}

/// The name that was asked for in the handshake that has just gone on, in lower case.
pub(super) fn take_asked() -> Option<String> {
    ASKED.take()
}

/// The certificates of a listener.
#[derive(Debug)]
pub(super) struct Resolver {
    /// In the order of the config; the first is the default.
    pairs: Vec<Arc<CertifiedKey>>,
    /// For each name the pairs that have it, by index. A wildcard is kept without its star, as `.example.com`.
    names: HashMap<String, Vec<usize>>,
    strict: bool,
}

impl Resolver {
    /// Those of `pairs`, each with what is written in it. A `strict` one has nothing for names it does not know.
    pub(super) fn new(pairs: Vec<(Arc<CertifiedKey>, CertificateInfo)>, strict: bool) -> Resolver {
        let mut names: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, (_, info)) in pairs.iter().enumerate() {
            for name in &info.names {
                let name = name.strip_prefix('*').unwrap_or(name);
                names.entry(name.to_owned()).or_default().push(index);
            }
        }
        Resolver { pairs: pairs.into_iter().map(|(pair, _)| pair).collect(), names, strict }
    }

    /// The pairs for a name in lower case. A certificate for the very name goes before one for all of its siblings.
    fn named(&self, name: &str) -> Option<&[usize]> {
        // What is kept for a wildcard is no name.
        let exact = self.names.get(name).filter(|_| !name.starts_with('.'));
        // A star is one whole label, the first (RFC 6125 section 6.4.3).
        let parent = || self.names.get(&name[name.find('.').filter(|at| *at > 0)?..]);
        exact.or_else(parent).map(Vec::as_slice)
    }

    /// Whether a certificate is for a name, or with `*.` in front for all of its siblings.
    pub(super) fn covers(&self, name: &str) -> bool {
        match name.strip_prefix('*') {
            Some(siblings) => self.names.contains_key(siblings),
            None => self.named(name).is_some(),
        }
    }

    /// Whether there is nothing for who asks for `name`.
    pub(super) fn refuses(&self, name: Option<&str>) -> bool {
        self.strict && name.and_then(|name| self.named(name)).is_none()
    }

    fn pick(&self, name: Option<&str>, can_use: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let named = name.and_then(|name| self.named(name));
        if self.strict && named.is_none() {
            return None;
        }
        let default = [0];
        let candidates = || named.unwrap_or(&default).iter().filter_map(|index| self.pairs.get(*index));
        // With an ECDSA and an RSA certificate for a name, the client gets what it can check.
        candidates().find(|pair| can_use(pair)).or_else(|| candidates().next()).cloned()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = client.server_name().map(str::to_ascii_lowercase);
        let schemes = client.signature_schemes();
        let picked = self.pick(name.as_deref(), |pair| pair.key.choose_scheme(schemes).is_some());
        ASKED.set(name);
        picked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::certified;

    fn resolver(strict: bool) -> (Resolver, Vec<Arc<CertifiedKey>>) {
        let pairs: Vec<_> = [&["a.test"][..], &["*.b.test"], &["x.b.test", "*.c.test"], &["a.test"]]
            .into_iter()
            .map(|names| {
                let pair = Arc::new(certified(names));
                let info = CertificateInfo::read(&pair.cert[0]).unwrap();
                (pair, info)
            })
            .collect();
        let keys = pairs.iter().map(|(pair, _)| pair.clone()).collect();
        (Resolver::new(pairs, strict), keys)
    }

    #[test]
    fn a_name_finds_its_certificate_and_any_other_the_first() {
        let (resolver, pairs) = resolver(false);
        for (name, index) in [
            (Some("a.test"), 0),
            (Some("y.b.test"), 1),
            (Some("x.b.test"), 2),
            (Some("any.c.test"), 2),
            // Neither the parent nor what is two labels below it.
            (Some("b.test"), 0),
            (Some("z.y.b.test"), 0),
            (Some(".b.test"), 0),
            (Some(""), 0),
            (None, 0),
        ] {
            let picked = resolver.pick(name, |_| true).unwrap();
            assert!(Arc::ptr_eq(&picked, &pairs[index]), "{name:?}");
            assert!(!resolver.refuses(name));
        }
    }

    #[test]
    fn of_several_for_a_name_the_first_that_can_be_checked_is_taken() {
        let (resolver, pairs) = resolver(false);
        let only_last = |pair: &CertifiedKey| std::ptr::eq(pair, Arc::as_ptr(&pairs[3]));
        assert!(Arc::ptr_eq(&resolver.pick(Some("a.test"), only_last).unwrap(), &pairs[3]));
        assert!(Arc::ptr_eq(&resolver.pick(Some("a.test"), |_| false).unwrap(), &pairs[0]));
    }

    #[test]
    fn a_certificate_covers_its_names_alone() {
        let (resolver, _) = resolver(false);
        for (name, covered) in [
            ("a.test", true),
            ("y.b.test", true),
            ("*.b.test", true),
            ("b.test", false),
            ("*.a.test", false),
            ("other.test", false),
            ("", false),
        ] {
            assert_eq!(resolver.covers(name), covered, "{name:?}");
        }
    }

    #[test]
    fn a_strict_one_has_nothing_for_strangers() {
        let (resolver, _) = resolver(true);
        for (name, known) in
            [(Some("a.test"), true), (Some("y.b.test"), true), (Some("b.test"), false), (None, false)]
        {
            assert_eq!(resolver.pick(name, |_| true).is_some(), known, "{name:?}");
            assert_eq!(resolver.refuses(name), !known, "{name:?}");
        }
    }
}
