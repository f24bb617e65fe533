//! Routes out of exposures: which requests are for one, and what is done to them.

use std::sync::Arc;

use wmproxy_http::filter::auth::Store;
use wmproxy_http::options::{
    AuthSpec, EndpointSpec, FilterSpec, HeaderRules, HostPattern, MatchSpec, PathPattern, ReverseProxyTable,
    ReverseSpec, RewriteSpec, RouteSpec, UsersSpec,
};
use wmproxy_net::acl::Acl;
use wmproxy_net::options::OneOrMany;
use wmproxy_tunnel::server::Exposure;
use wmproxy_wire::head::authority;
use wmproxy_wire::tunnel::message::{Refusal, RefusalCode};

/// A refusal of what makes no sense.
pub(super) fn invalid(text: impl Into<String>) -> Refusal {
    Refusal { code: RefusalCode::Invalid, text: text.into() }
}

/// The hosts of an exposure.
///
/// # Errors
/// There is none, or one that is no host.
pub(super) fn hosts(exposure: &Exposure) -> Result<Vec<HostPattern>, Refusal> {
    if exposure.hosts.is_empty() {
        // It would take what nobody offers, which is to be a 404.
        return Err(invalid("a service of http or https needs a host"));
    }
    let host = |text: &String| text.parse().map_err(|why| invalid(format!("`{text}`: {why}")));
    exposure.hosts.iter().map(host).collect()
}

/// Who may come to an exposure.
pub(super) fn acl(exposure: &Exposure) -> Acl {
    Acl::new(&exposure.visitors, &[])
}

/// The routes to an exposure, one for each beginning of paths. Its group has the exposure's name.
///
/// # Errors
/// What of it makes no sense.
pub(super) fn routes(exposure: &Exposure) -> Result<Vec<RouteSpec>, Refusal> {
    let path = |text: &String| match text.strip_prefix(['~', '=']) {
        // Whoever offers a service is given a part of the tree of paths, and no way to look into all requests.
        Some(_) => Err(invalid(format!("`{text}`: a path begins with a slash"))),
        None => text.parse::<PathPattern>().map_err(|why| invalid(format!("`{text}`: {why}"))),
    };
    let all = RouteSpec {
        name: exposure.name.clone(),
        matches: MatchSpec { hosts: hosts(exposure)?, ..MatchSpec::default() },
        rewrite: RewriteSpec::default(),
        try_paths: Vec::new(),
        filters: filters(exposure)?,
        endpoint: EndpointSpec::Reverse(reverse(exposure)?),
    };
    if exposure.paths.is_empty() {
        return Ok(vec![all]);
    }
    let below = |path| {
        let matches = MatchSpec { paths: vec![path], ..all.matches.clone() };
        RouteSpec { matches, ..all.clone() }
    };
    exposure.paths.iter().map(|text| path(text).map(below)).collect()
}

/// How far down in the tree of paths a route begins. Whoever is for a part of what another is for has to stand before it.
pub(super) fn depth(route: &RouteSpec) -> usize {
    match route.matches.paths.first() {
        Some(PathPattern::Prefix(path) | PathPattern::Exact(path) | PathPattern::Regex(path)) => path.len(),
        None => 0,
    }
}

fn filters(exposure: &Exposure) -> Result<FilterSpec, Refusal> {
    let rules = &exposure.http;
    // Alone, for what is wrong in one route would be wrong in the table of all.
    Store::listed(&rules.users).map_err(|error| invalid(format!("the users: {error}")))?;
    let users = (!rules.users.is_empty()).then(|| AuthSpec {
        users: UsersSpec::Listed(rules.users.as_slice().into()),
        realm: exposure.hosts.first().map_or("", String::as_str).into(),
        forward: false,
    });
    Ok(FilterSpec {
        request_headers: changes(&rules.set_request, &rules.remove_request)?,
        response_headers: changes(&rules.set_response, &rules.remove_response)?,
        acl: acl(exposure),
        basic_auth: users,
        ..FilterSpec::default()
    })
}

fn reverse(exposure: &Exposure) -> Result<ReverseSpec, Refusal> {
    let host = exposure.http.host.as_deref();
    if let Some(host) = host {
        authority::parse(host.as_bytes()).map_err(|_| invalid(format!("`{host}` is no host")))?;
    }
    let timeout = ReverseProxyTable::default().timeout.get();
    Ok(ReverseSpec {
        group: Arc::clone(&exposure.name),
        base: Box::from(""),
        authority: host.map(Box::from),
        preserve_host: host.is_none(),
        timeout,
        try_timeout: timeout,
        buffer: false,
        h2: exposure.http.is_h2c,
    })
}

fn changes(set: &[(String, String)], remove: &[String]) -> Result<HeaderRules, Refusal> {
    let mut rules = HeaderRules::default();
    for (name, value) in set {
        let wrong = |why: &dyn std::fmt::Display| invalid(format!("the field `{name}`: {why}"));
        let field = name.parse().map_err(|why| wrong(&why))?;
        rules.set.insert(field, value.parse().map_err(|why| wrong(&why))?);
    }
    let pattern = |name: &String| name.parse().map_err(|why| invalid(format!("the field `{name}`: {why}")));
    rules.remove = OneOrMany(remove.iter().map(pattern).collect::<Result<_, _>>()?);
    Ok(rules)
}
