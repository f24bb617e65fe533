//! Whether directories can be had as archives. An archive is one request, and only the rules of the route that takes it are
//! asked: where another route keeps something below it from some clients, an archive would hand that out.

use wmproxy_files::options::FilesSpec;
use wmproxy_http::options::{
    EndpointSpec, HostPattern, HttpOptions, MatchSpec, PathPattern, RouteOptions, RouteSpec,
};

use super::super::resolve::Planner;
use super::super::tree::Path;

impl Planner<'_> {
    /// Leaves archives out where nothing says whether they may be and another route has rules for a part of them. Routes come
    /// with their numbers in the config.
    pub(super) fn check_archives(
        &mut self,
        http: &HttpOptions,
        specs: &mut [(usize, RouteSpec)],
        table: &Path,
    ) {
        for index in 0..specs.len() {
            let (number, spec) = &specs[index];
            let EndpointSpec::Files(files) = &spec.endpoint else { continue };
            let path = table.index(*number).key("files");
            let said = http.route.get(*number).and_then(archive);
            if said == Some(true) && !files.browse {
                let message = "without `browse` there are no archives, and this has no effect";
                let found = self.error(&path.key("archive"), message);
                self.push(found.warning());
            }
            if said.is_some() || !files.browse {
                continue;
            }
            let guard = specs.iter().find(|(other, guard)| other != number && guards(guard, spec));
            let Some((guard, _)) = guard else { continue };
            let guard = self.span(&table.index(*guard));
            let message = "directories can't be had as archives: these would have files in them that another \
                           route refuses to some";
            let found = self.error(&path.key("browse"), message).warning();
            let found =
                found.hint("archive = true in `files` allows them, archive = false says that it is meant");
            self.push(found.related(guard, "the other route"));
            if let EndpointSpec::Files(FilesSpec { archive, .. }) = &mut specs[index].1.endpoint {
                *archive = false;
            }
        }
    }
}

/// What is said of archives.
fn archive(route: &RouteOptions) -> Option<bool> {
    route.files.as_ref()?.table().archive
}

/// Whether a route keeps clients from something that an archive of another would give them.
fn guards(guard: &RouteSpec, of: &RouteSpec) -> bool {
    let (rules, own) = (&guard.filters, &of.filters);
    let asks = !rules.acl.is_open() && rules.acl != own.acl
        || rules.basic_auth.is_some() && rules.basic_auth != own.basic_auth;
    let refuses = matches!(guard.endpoint, EndpointSpec::Respond { status: 400.., .. });
    (asks || refuses) && may_take(&guard.matches, of)
}

/// Whether a route may be taken by requests for files that lie below a directory of another. Who asks for such a file chooses
/// fields and address as who asks for the archive does, so only hosts and paths tell them apart.
fn may_take(guard: &MatchSpec, of: &RouteSpec) -> bool {
    let reads = guard.methods.is_empty() || guard.methods.iter().any(|method| method.as_str() == "GET");
    // Where the route is not for all that is below its directories, or these lie elsewhere than their paths, every other route
    // may be.
    let is_whole = of.matches.query.is_empty()
        && of.matches.paths.iter().all(|path| matches!(path, PathPattern::Prefix(_)))
        && of.rewrite.rewrite.is_none()
        && of.try_paths.is_empty();
    let hosts = (&guard.hosts, &of.matches.hosts);
    reads
        && match is_whole {
            true => hosts_within(hosts.0, hosts.1) && paths_below(&guard.paths, &of.matches.paths),
            false => hosts_within(hosts.0, hosts.1) || hosts_within(hosts.1, hosts.0),
        }
}

/// Whether some of these hosts are among others. A route for more hosts comes behind one for fewer of them.
fn hosts_within(some: &[HostPattern], others: &[HostPattern]) -> bool {
    let is_within = |one: &HostPattern, other: &HostPattern| match other {
        HostPattern::Exact(_) => one == other,
        HostPattern::Below(domain) => {
            one == other || one.name().strip_suffix(&**domain).is_some_and(|rest| rest.ends_with('.'))
        }
    };
    others.is_empty() || some.iter().any(|one| others.iter().any(|other| is_within(one, other)))
}

/// Whether some of these paths lie below one of others, which are prefixes.
fn paths_below(some: &[PathPattern], others: &[PathPattern]) -> bool {
    let is_below = |text: &str, other: &PathPattern| match other {
        PathPattern::Prefix(prefix) => text.strip_prefix(&**prefix).is_some_and(|rest| rest.starts_with('/')),
        PathPattern::Exact(_) | PathPattern::Regex(_) => true,
    };
    some.iter().any(|path| match path {
        PathPattern::Prefix(text) | PathPattern::Exact(text) => {
            others.is_empty() && !text.is_empty() || others.iter().any(|other| is_below(text, other))
        }
        PathPattern::Regex(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use wmproxy_http::options::RouteOptions;

    use super::*;

    fn route(text: &str) -> RouteOptions {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn routes_for_what_is_below_are_known() {
        for (guard, of, expected) in [
            ("path = '/private'", "", true),
            ("path = '/private'", "path = '/'", true),
            ("path = '/pub/a'", "path = ['/x', '/pub']", true),
            ("path = '=/pub/a'", "path = '/pub'", true),
            ("path = '~[.]key$'", "path = '/pub'", true),
            ("path = '/private'", "path = '/pub'", false),
            ("path = '/public'", "path = '/pub'", false),
            // Whoever is for all of it, or for more, takes the archive, too, or nothing.
            ("", "", false),
            ("", "path = '/pub'", false),
            ("path = '/pub'", "path = '/pub'", false),
            ("path = '/'", "", false),
            // Where the route is not for what its archives hold.
            ("", "path = '=/pub/'", true),
            ("path = '/private'", "path = '/pub'\nrewrite = ['^/pub', '']", true),
            ("", "query = { archive = '*' }", true),
            ("", "try = ['{path}', '/all']", true),
            // Only what is read is in an archive.
            ("path = '/a'\nmethods = ['POST']", "", false),
            ("path = '/a'\nmethods = ['POST', 'GET']", "", true),
            // Requests for a host go to its own routes first.
            ("path = '/a'\nhost = 'a.example'", "", true),
            ("path = '/a'\nhost = 'a.example'", "host = '*.example'", true),
            ("path = '/a'\nhost = '*.b.example'", "host = '*.example'", true),
            ("path = '/a'\nhost = 'a.example'", "host = 'a.example'", true),
            ("path = '/a'\nhost = 'b.example'", "host = 'a.example'", false),
            ("path = '/a'\nhost = 'aexample'", "host = '*.example'", false),
            ("path = '/a'\nhost = '*.example'", "host = 'a.example'", false),
            ("path = '/a'", "host = 'a.example'", false),
            ("path = '/a'", "host = 'a.example'\nquery = { archive = '*' }", true),
        ] {
            let of = spec(&route(of));
            assert_eq!(may_take(&route(guard).matches(), &of), expected, "{guard} below {:?}", of.matches);
        }
    }

    fn spec(route: &RouteOptions) -> RouteSpec {
        RouteSpec {
            name: "of".into(),
            matches: route.matches(),
            rewrite: route.rewrite(),
            try_paths: route.try_paths.clone(),
            filters: Default::default(),
            endpoint: EndpointSpec::Respond {
                status: 200,
                body: wmproxy_http::vars::Template::parse("").unwrap(),
                content_type: "text/plain".into(),
            },
        }
    }
}
