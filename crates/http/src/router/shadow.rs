//! Routes that can never be taken, for there is an earlier one for all that they are for.

use std::collections::HashMap;

use crate::options::{HostPattern, MatchSpec, PathPattern};

/// Where a route that shadows another has to be looked for: one host of it, or none, and one path.
type Key<'a> = (Option<&'a HostPattern>, &'a PathPattern);

/// The routes that can never be taken, each with an earlier one that takes all of its requests. Both are numbers in
/// `routes`, which stand in the order of the file. What it costs grows with the routes, not with pairs of them.
pub fn shadowed(routes: &[MatchSpec]) -> Vec<(usize, usize)> {
    let everything = [PathPattern::Prefix("".into())];
    let mut earlier: HashMap<Key<'_>, Vec<usize>> = HashMap::new();
    let mut found = Vec::new();
    for (number, route) in routes.iter().enumerate() {
        let paths = if route.paths.is_empty() { &everything[..] } else { &route.paths };
        let host = route.hosts.first();
        // Whoever is for all of its requests is for its first host and its first path.
        let by = above(&paths[0]).iter().find_map(|path| {
            let listed = earlier.get(&(host, path))?;
            listed.iter().copied().find(|other| shadows(&routes[*other], route))
        });
        found.extend(by.map(|by| (number, by)));
        let hosts = route.hosts.iter().map(Some).chain(route.hosts.is_empty().then_some(None));
        for host in hosts {
            for path in paths {
                earlier.entry((host, path)).or_default().push(number);
            }
        }
    }
    found
}

/// A path and all that cover it, the widest first.
fn above(path: &PathPattern) -> Vec<PathPattern> {
    let text = match path {
        PathPattern::Prefix(text) | PathPattern::Exact(text) => &**text,
        PathPattern::Regex(_) => "",
    };
    let borders = text.match_indices('/').map(|(at, _)| &text[..at]).filter(|prefix| !prefix.is_empty());
    let prefixes = std::iter::once("").chain(borders).chain([text]);
    let mut all: Vec<_> = prefixes.map(|prefix| PathPattern::Prefix(prefix.into())).collect();
    all.dedup();
    if !all.contains(path) {
        all.push(path.clone());
    }
    all
}

/// Whether every request that `later` is for is one that `earlier` is for, so that it can never be taken behind it. Only
/// what is certain counts: of regular expressions and of clients nothing is known but that they are the same.
fn shadows(earlier: &MatchSpec, later: &MatchSpec) -> bool {
    let hosts = earlier.hosts.is_empty() == later.hosts.is_empty()
        && later.hosts.iter().all(|host| earlier.hosts.contains(host));
    let is_root = |path: &PathPattern| *path == PathPattern::Prefix("".into());
    let covers = |path: &PathPattern| earlier.paths.iter().any(|earlier| covers_path(earlier, path));
    let paths = earlier.paths.is_empty()
        || earlier.paths.iter().any(is_root)
        || !later.paths.is_empty() && later.paths.iter().all(covers);
    let methods = earlier.methods.is_empty()
        || !later.methods.is_empty() && later.methods.iter().all(|method| earlier.methods.contains(method));
    let clients = earlier.clients.is_empty()
        || !later.clients.is_empty() && later.clients.iter().all(|client| earlier.clients.contains(client));
    hosts
        && paths
        && methods
        && clients
        && earlier.headers.iter().all(|header| later.headers.contains(header))
        && earlier.query.iter().all(|parameter| later.query.contains(parameter))
}

fn covers_path(earlier: &PathPattern, later: &PathPattern) -> bool {
    match (earlier, later) {
        (PathPattern::Prefix(prefix), PathPattern::Prefix(path) | PathPattern::Exact(path)) => {
            path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (PathPattern::Prefix(prefix), PathPattern::Regex(_)) => prefix.is_empty(),
        (earlier, later) => earlier == later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(host: &str, path: &str, methods: &str) -> MatchSpec {
        MatchSpec {
            hosts: host.split_whitespace().map(|host| host.parse().unwrap()).collect(),
            paths: path.split_whitespace().map(|path| path.parse().unwrap()).collect(),
            methods: methods.split_whitespace().map(|method| method.parse().unwrap()).collect(),
            ..MatchSpec::default()
        }
    }

    #[test]
    fn what_can_never_be_taken_is_known() {
        for (earlier, later, expected) in [
            (("", "", ""), ("", "/a", "GET"), true),
            (("", "/a", ""), ("", "/a/b =/a ~x", ""), false),
            (("", "/a", ""), ("", "/a/b =/a", "PUT"), true),
            (("", "/a", ""), ("", "/a/b/c/d", ""), true),
            (("", "=/a", ""), ("", "=/a", ""), true),
            (("", "=/a", ""), ("", "/a", ""), false),
            (("", "/a", ""), ("", "/ab", ""), false),
            (("", "/", ""), ("", "", ""), true),
            (("", "~x", ""), ("", "~x", ""), true),
            (("", "", ""), ("", "~x", ""), true),
            (("", "", ""), ("a.example", "", ""), false),
            (("a.example b.example", "", ""), ("b.example a.example", "/x", ""), true),
            (("a.example", "", ""), ("a.example b.example", "", ""), false),
            (("*.example", "", ""), ("a.example", "", ""), false),
            (("", "", "GET"), ("", "", "GET POST"), false),
            (("", "", "GET POST"), ("", "", "GET"), true),
        ] {
            let of = |(host, path, methods)| spec(host, path, methods);
            let found = shadowed(&[spec("", "=/other", ""), of(earlier), of(later)]);
            assert_eq!(found, if expected { vec![(2, 1)] } else { vec![] }, "{earlier:?} {later:?}");
        }
    }

    #[test]
    fn more_conditions_narrow_a_route() {
        let with = |headers: &[(&str, &str)]| MatchSpec {
            headers: headers.iter().map(|(name, value)| ((*name).into(), value.parse().unwrap())).collect(),
            ..MatchSpec::default()
        };
        assert_eq!(shadowed(&[with(&[("x", "1")]), with(&[])]), []);
        assert_eq!(shadowed(&[with(&[("x", "1")]), with(&[("x", "2")])]), []);
        assert_eq!(shadowed(&[with(&[("x", "1")]), with(&[("x", "1"), ("y", "*")])]), [(1, 0)]);
    }
}
