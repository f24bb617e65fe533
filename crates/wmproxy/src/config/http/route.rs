//! The routes of an HTTP server: what each is for, and whether another one leaves anything for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wmproxy_http::filter::rewrite::{Rewrite, RewriteError};
use wmproxy_http::options::{
    HttpOptions, MatchSpec, PathPattern, RouteOptions, RouteSpec, TryStep, ValuePattern,
};
use wmproxy_http::router::shadowed;
use wmproxy_http::vars::Template;
use wmproxy_wire::head::is_token;

use super::super::problem::{Found, MANY_PROBLEMS, MAX_PROBLEMS};
use super::super::resolve::Planner;
use super::super::tree::Path;
use super::Server;

/// Regular expressions for paths in one listener. Those of a host are tried one after the other, some 100 ns each.
const MAX_REGEXES: usize = 1000;

impl Planner<'_> {
    /// The routes of a server; those with problems are left out.
    pub(super) fn http_routes(&mut self, server: &Server<'_>) -> Arc<[RouteSpec]> {
        let Server { options: http, path, .. } = *server;
        let table = path.key("route");
        if http.route.is_empty() && !self.is_damaged(&table) && !self.was_dropped(&table) {
            let found = self.error(path, "without a route every request gets a 404").warning();
            self.push(
                found.hint("add an [[http.route]] with `reverse_proxy`, `files`, `redirect` or `respond`"),
            );
        }
        self.check_route_names(http, &table);
        self.check_regexes(http, &table);
        let mut specs = Vec::with_capacity(http.route.len());
        for (index, route) in http.route.iter().enumerate() {
            if self.errors() >= MAX_PROBLEMS {
                self.push(Found::nowhere(MANY_PROBLEMS));
                break;
            }
            let name = route.name.clone().unwrap_or_else(|| (index + 1).to_string());
            let spec = self.http_route(route, name.into(), server, &table.index(index));
            specs.extend(spec.map(|spec| (index, spec)));
        }
        self.check_shadows(&specs, &table);
        self.check_archives(http, &mut specs, &table);
        specs.into_iter().map(|(_, spec)| spec).collect()
    }

    fn http_route(
        &mut self,
        route: &RouteOptions,
        name: Arc<str>,
        server: &Server<'_>,
        path: &Path,
    ) -> Option<RouteSpec> {
        let before = self.errors();
        self.check_match(route, path);
        self.check_rewrite(route, path);
        self.check_try(&route.try_paths, &path.key("try"));
        let filters = self.http_filters(route, server, path);
        let endpoint = self.http_endpoint(route, server, path);
        (self.errors() == before).then_some(())?;
        Some(RouteSpec {
            name,
            matches: route.matches(),
            rewrite: route.rewrite(),
            try_paths: route.try_paths.clone(),
            filters,
            endpoint: endpoint?,
        })
    }

    /// Names tell routes apart in logs and metrics.
    fn check_route_names(&mut self, http: &HttpOptions, table: &Path) {
        let mut first: HashMap<&str, Path> = HashMap::new();
        for (index, route) in http.route.iter().enumerate() {
            let Some(name) = route.name.as_deref() else { continue };
            let path = table.index(index).key("name");
            self.check_name(&path, name, false);
            if let Some(other) = first.get(name) {
                let found = self.error(&path, format!("two routes of this listener are named `{name}`"));
                self.push(found.related(self.span(other), "the other one"));
            } else {
                first.insert(name, path);
            }
        }
    }

    fn check_regexes(&mut self, http: &HttpOptions, table: &Path) {
        let paths = http.route.iter().flat_map(|route| &route.path.0);
        let count = paths.filter(|path| matches!(path, PathPattern::Regex(_))).count();
        if count > MAX_REGEXES {
            let message = format!("{count} paths are regular expressions, and {MAX_REGEXES} is the most");
            let found = self.error(table, message);
            self.push(found.hint("a prefix, or an exact path behind `=`, costs nothing"));
        }
    }

    fn check_match(&mut self, route: &RouteOptions, path: &Path) {
        for (key, patterns) in [("headers", &route.headers), ("query", &route.query)] {
            self.check_patterns(patterns, key == "headers", &path.key(key));
        }
        let lists = [
            ("host", repeated(&route.host.0)),
            ("path", repeated(&route.path.0)),
            ("methods", repeated(&route.methods.0)),
        ];
        for (key, index) in lists.into_iter().filter_map(|(key, index)| Some((key, index?))) {
            let found = self.error(&path.key(key).index(index), "this is in the list already");
            self.push(found.warning());
        }
    }

    fn check_patterns(&mut self, patterns: &BTreeMap<String, ValuePattern>, fields: bool, path: &Path) {
        let mut seen = HashMap::new();
        for name in patterns.keys() {
            let place = path.key(name);
            if fields && !is_token(name.as_bytes()) {
                self.problem(&place, "no name of a field, such as `x-canary`");
            } else if fields && seen.insert(name.to_ascii_lowercase(), ()).is_some() {
                self.problem(&place, "this field is here already, written otherwise");
            } else if name.is_empty() {
                self.problem(&place, "a parameter has a name");
            }
        }
    }

    fn check_rewrite(&mut self, route: &RouteOptions, path: &Path) {
        for (key, prefix) in [("strip_prefix", &route.strip_prefix), ("add_prefix", &route.add_prefix)] {
            let Some(prefix) = prefix else { continue };
            let message = match prefix.as_str() {
                prefix if !prefix.starts_with('/') => "a path begins with `/`",
                prefix if !is_written_path(prefix) => {
                    "a query, a blank or a character that needs escaping can't stand here"
                }
                _ => continue,
            };
            self.problem(&path.key(key), message);
        }
        let spec = route.rewrite();
        if let Err(error) = Rewrite::new(&spec) {
            let index = usize::from(!matches!(error, RewriteError::Regex(_)));
            self.problem(&path.key("rewrite").index(index), error.to_string());
        }
    }

    fn check_try(&mut self, steps: &[TryStep], path: &Path) {
        for (index, step) in steps.iter().enumerate() {
            let is_last = index + 1 == steps.len();
            let message = match step {
                TryStep::Status(_) if !is_last => {
                    "a status ends the list, so nothing behind it is tried".to_owned()
                }
                TryStep::Status(_) if index == 0 => "nothing is tried before this".to_owned(),
                TryStep::Status(_) => continue,
                TryStep::Path(text) => match Template::parse(text) {
                    Ok(_) => continue,
                    Err(error) => error.to_string(),
                },
            };
            self.problem(&path.index(index), message);
        }
    }

    /// Says which routes can never be taken. Those with problems are not counted in.
    fn check_shadows(&mut self, specs: &[(usize, RouteSpec)], table: &Path) {
        let matches: Vec<MatchSpec> = specs.iter().map(|(_, spec)| spec.matches.clone()).collect();
        for (later, earlier) in shadowed(&matches) {
            let place = |number: usize| table.index(specs[number].0);
            let found =
                self.error(&place(later), "this route is never taken: an earlier one is for all of it");
            self.push(found.warning().related(self.span(&place(earlier)), "the earlier one"));
        }
    }
}

/// Where a value comes for the second time.
fn repeated<T: PartialEq>(list: &[T]) -> Option<usize> {
    (1..list.len()).find(|index| list[..*index].contains(&list[*index]))
}

/// Whether all of a text may stand in the path of a request (RFC 3986 section 3.3).
fn is_written_path(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte))
}
