//! What a route does on the way: the filters, and the files that they need.

use std::collections::BTreeMap;
use std::sync::Arc;

use wmproxy_http::filter::auth::Store;
use wmproxy_http::options::{
    AuthSpec, BasicAuthOptions, ErrorPage, FilterSpec, PageStatus, RouteOptions, UsersSpec,
};
use wmproxy_wire::head::is_value;

use super::super::resolve::Planner;
use super::super::tree::Path;
use super::Server;

/// The largest page for an error: it is held in memory, and sent to whoever makes a mistake.
const MAX_PAGE: u64 = 1 << 20;

/// The types of pages, by their ending.
const PAGE_TYPES: [(&str, &str); 5] = [
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("json", "application/json"),
    ("txt", "text/plain; charset=utf-8"),
    ("xml", "application/xml"),
];

impl Planner<'_> {
    /// The filters of a route. They are of use only if there was no problem.
    pub(super) fn http_filters(
        &mut self,
        route: &RouteOptions,
        server: &Server<'_>,
        path: &Path,
    ) -> FilterSpec {
        self.check_allow(&route.allow, path);
        self.check_limits_of(route, path);
        let compress = &route.compress.0;
        if (1..compress.len()).any(|index| compress[..index].contains(&compress[index])) {
            self.problem(&path.key("compress"), "a way to compress is in this list twice");
        }
        let mut filters = route.filters();
        filters.basic_auth =
            route.basic_auth.as_ref().and_then(|options| self.basic_auth(options, &path.key("basic_auth")));
        filters.error_pages = self.error_pages(&route.error_pages, &path.key("error_pages"));
        let mirror = route.mirror.as_deref();
        filters.mirror = mirror.and_then(|target| self.mirror(target, server, &path.key("mirror")));
        filters
    }

    fn check_limits_of(&mut self, route: &RouteOptions, path: &Path) {
        if let Some(limit) = &route.limit_requests {
            let path = path.key("limit_requests");
            if limit.rate.is_none() && !self.was_dropped(&path.key("rate")) {
                let found = self.error(&path, "`rate` is missing");
                self.push(found.hint("write limit_requests = { rate = \"10/s\" }"));
            }
            if limit.delay && limit.burst == 0 {
                let found = self.error(&path.key("delay"), "without `burst` there is nobody to wait");
                self.push(found.warning());
            }
            self.check_refusal(limit.status, &path);
        }
        if let Some(limit) = &route.limit_connections {
            let path = path.key("limit_connections");
            if limit.max.is_none() && !self.was_dropped(&path.key("max")) {
                let found = self.error(&path, "`max` is missing");
                self.push(found.hint("write limit_connections = { max = 20 }"));
            }
            if limit.max == Some(0) {
                self.problem(&path.key("max"), "nobody would be served; the least is 1");
            }
            self.check_refusal(limit.status, &path);
        }
    }

    fn check_refusal(&mut self, status: u16, path: &Path) {
        if !(400..=599).contains(&status) {
            self.problem(&path.key("status"), "expected the status of a refusal, from 400 to 599");
        }
    }

    fn basic_auth(&mut self, options: &BasicAuthOptions, path: &Path) -> Option<AuthSpec> {
        if !is_value(options.realm.as_bytes()) {
            self.problem(
                &path.key("realm"),
                "a realm has no control characters in it and no space around it",
            );
        }
        let place = path.key("users_file");
        if options.users_file.is_empty() {
            if !self.was_dropped(&place) {
                let found = self.error(path, "`users_file` is missing");
                self.push(found.hint("write basic_auth = { users_file = \"users.htpasswd\" }"));
            }
            return None;
        }
        let users_file = self.file(&place, &options.users_file);
        self.private.push((users_file.clone(), "a file of passwords"));
        if let Err(error) = Store::open(&users_file) {
            self.problem(&place, format!("{}: {error}", users_file.display()));
            return None;
        }
        let users = UsersSpec::File(users_file);
        Some(AuthSpec { users, realm: options.realm.as_str().into(), forward: options.forward })
    }

    fn error_pages(
        &mut self,
        pages: &BTreeMap<PageStatus, String>,
        path: &Path,
    ) -> BTreeMap<PageStatus, ErrorPage> {
        let mut found = BTreeMap::new();
        for (status, name) in pages {
            let place = path.key(&status.to_string());
            let file = self.file(&place, name);
            let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            let known = PAGE_TYPES.iter().find(|(known, _)| ending.eq_ignore_ascii_case(known));
            let content_type = known.map_or("application/octet-stream", |(_, name)| name);
            match std::fs::metadata(&file).map(|data| data.len()) {
                Ok(len) if len > MAX_PAGE => {
                    self.problem(&place, "a page for an error has at most 1 MB");
                    continue;
                }
                _ => {}
            }
            match std::fs::read(&file) {
                Ok(body) => {
                    self.files.push(file);
                    found.insert(*status, ErrorPage { body: Arc::from(body), content_type });
                }
                Err(error) => self.problem(&place, format!("can't read {}: {error}", file.display())),
            }
        }
        found
    }
}
