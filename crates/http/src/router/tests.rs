use std::time::Instant;

use proptest::prelude::*;
use wmproxy_wire::head::Method;

use super::*;
use crate::options::{PathPattern, ValuePattern};

/// Routes as a config writes them: host, path and what else is asked, each empty for any.
fn spec(host: &str, path: &str, more: &str) -> MatchSpec {
    let mut spec = MatchSpec::default();
    spec.hosts.extend(host.split_whitespace().map(|host| host.parse::<HostPattern>().unwrap()));
    spec.paths.extend(path.split_whitespace().map(|path| path.parse::<PathPattern>().unwrap()));
    for part in more.split_whitespace() {
        match part.split_once(':') {
            None => spec.methods.push(part.parse().unwrap()),
            Some(("ip", prefix)) => spec.clients.push(prefix.parse().unwrap()),
            Some((kind, pair)) => {
                let (name, value) = pair.split_once('=').unwrap();
                let pair = (name.into(), value.parse::<ValuePattern>().unwrap());
                if kind == "h" { spec.headers.push(pair) } else { spec.query.push(pair) }
            }
        }
    }
    spec
}

fn router(routes: &[(&str, &str, &str)]) -> Router<usize> {
    let specs =
        routes.iter().enumerate().map(|(i, (host, path, more))| (spec(host, path, more), Arc::new(i)));
    Router::new(specs).unwrap()
}

fn get(target: &str) -> Request {
    let mut request = Request::new();
    request.method = Method::Get;
    request.set_target(target.as_bytes());
    request
}

fn take(router: &Router<usize>, host: &str, request: &Request, client: &str) -> Option<usize> {
    let client = (!client.is_empty()).then(|| client.parse().unwrap());
    router.find(&Sought { host, path: request.raw_path(), request, client }).map(|route| **route)
}

#[test]
fn a_path_that_others_read_otherwise_leads_past_no_route() {
    let router = router(&[("", "/admin", ""), ("", "/files", ""), ("", "/@me", ""), ("", "", "")]);
    let route = |path: &str| {
        let request = get(path);
        let sought = Sought { host: "a", path: path.as_bytes(), request: &request, client: None };
        router.find_certain(&sought).map(|route| **route.unwrap())
    };
    for path in [
        "/x%2F..%2Fadmin",
        "/%2Fadmin",
        "/admin%2Fx",
        "/x/..;/admin",
        "/x/..\\admin",
        "/admin;x",
        "/..%2F",
        "/%40me/x",
        "/x%2F..%2F%40me",
    ] {
        assert_eq!(route(path), Err(path::BadPath), "{path}");
    }
    for (path, expected) in [
        ("/files/a%2Fb;v=1", 1),
        ("/files/%40me", 1),
        ("/@me/x%28", 2),
        ("/projects/a%2Fb", 3),
        ("/a\\b;c", 3),
        ("/%2540me", 3),
        ("/admin/%2F", 0),
    ] {
        assert_eq!(route(path), Ok(expected), "{path}");
    }
}

#[test]
fn the_most_specific_host_that_has_a_route_for_it_decides() {
    let router = router(&[
        ("", "/healthz", ""),
        ("*.example.com", "/", ""),
        ("a.example.com", "/a", ""),
        ("*.b.example.com", "/b", ""),
        ("", "", ""),
        ("[::1] 127.0.0.1", "", ""),
    ]);
    for (host, path, expected) in [
        ("a.example.com", "/a/x", 2),
        ("a.example.com", "/b", 1),
        ("x.b.example.com", "/b/", 3),
        ("x.b.example.com", "/c", 1),
        ("y.x.b.example.com", "/b", 3),
        ("b.example.com", "/b", 1),
        ("a.example.com", "/healthz", 1),
        ("example.com", "/healthz", 0),
        ("example.com", "/", 4),
        ("", "/", 4),
        ("::1", "/", 5),
        ("127.0.0.1", "/healthz", 5),
    ] {
        assert_eq!(take(&router, host, &get(path), ""), Some(expected), "{host}{path}");
    }
}

#[test]
fn paths_end_on_borders_of_segments_and_the_first_in_the_file_counts() {
    let router = router(&[
        ("", "=/api", ""),
        ("", "/api/", ""),
        ("", "~^/v[0-9]+/ ~[.]php$", ""),
        ("", "/v1", ""),
        ("", "/v2/x /v3", "POST"),
        ("", "/a/b/c", ""),
        ("", "/a", ""),
        ("", "=/", ""),
    ]);
    for (path, expected) in [
        ("/api", Some(0)),
        ("/api?x=/y", Some(0)),
        ("/api/", Some(1)),
        ("/api/x/y", Some(1)),
        ("/apix", None),
        ("/v1/x", Some(2)),
        ("/v1", Some(3)),
        ("/v3", None),
        ("/x/y.php", Some(2)),
        ("/a/b/c/d", Some(5)),
        ("/a/b/cd", Some(6)),
        ("/", Some(7)),
        ("", None),
        ("*", None),
        ("/double", None),
    ] {
        assert_eq!(take(&router, "x", &get(path), ""), expected, "{path}");
    }
}

#[test]
fn whatever_is_asked_has_to_hold() {
    let router = router(&[
        ("", "", "h:x-canary=1 GET"),
        ("", "", "q:v=a/b q:w=*"),
        ("", "", "h:accept=~json"),
        ("", "", "ip:10.0.0.0/8 ip:::1"),
        ("", "", "POST PURGE"),
    ]);
    let with = |fields: &[(&str, &str)], target: &str| {
        let mut request = get(target);
        fields.iter().for_each(|(name, value)| request.fields.push(name.as_bytes(), value.as_bytes()));
        request
    };
    for (request, client, expected) in [
        (with(&[("X-Canary", "0"), ("X-CANARY", "1")], "/"), "", Some(0)),
        (with(&[("X-Canary", "1")], "*"), "", Some(0)),
        (with(&[("X-Canary", "11")], "/"), "", None),
        (with(&[], "/?w&v=a%2fb"), "", Some(1)),
        (with(&[], "/?v=a/b"), "", None),
        (with(&[], "/?v=a/c&w=1"), "", None),
        (with(&[("accept", "text/html, application/json")], "/"), "", Some(2)),
        (with(&[], "/"), "10.1.2.3", Some(3)),
        (with(&[], "/"), "::ffff:10.1.2.3", Some(3)),
        (with(&[], "/"), "11.1.2.3", None),
    ] {
        assert_eq!(take(&router, "x", &request, client), expected, "{request:?} {client}");
    }
    let mut request = get("/");
    request.set_method(b"PURGE");
    assert_eq!(take(&router, "x", &request, ""), Some(4));
    request.set_method(b"purge");
    assert_eq!(take(&router, "x", &request, ""), None);
}

/// The search as the documentation tells it, over all routes one by one.
fn plainly(specs: &[MatchSpec], sought: &Sought<'_>) -> Option<usize> {
    let path = std::str::from_utf8(sought.path).unwrap();
    let fits_path = |spec: &MatchSpec| {
        spec.paths.is_empty()
            || spec.paths.iter().any(|pattern| match pattern {
                PathPattern::Exact(exact) => **exact == *path,
                PathPattern::Prefix(prefix) => {
                    path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                }
                PathPattern::Regex(regex) => regex::Regex::new(regex).unwrap().is_match(path),
            })
    };
    let fits = |spec: &MatchSpec| {
        let name =
            |method: &crate::options::MethodName| method.as_str().as_bytes() == sought.request.method_name();
        fits_path(spec) && (spec.methods.is_empty() || spec.methods.iter().any(name))
    };
    let first = |of: &dyn Fn(&MatchSpec) -> bool| specs.iter().position(|spec| of(spec) && fits(spec));
    let exact = HostPattern::Exact(sought.host.into());
    let mut found = first(&|spec| spec.hosts.contains(&exact));
    for (dot, _) in sought.host.match_indices('.') {
        let below = HostPattern::Below(sought.host[dot + 1..].into());
        found = found.or_else(|| first(&|spec| spec.hosts.contains(&below)));
    }
    found.or_else(|| first(&|spec| spec.hosts.is_empty()))
}

proptest! {
    #[test]
    fn the_table_finds_what_a_plain_search_does(
        routes in prop::collection::vec(
            (
                prop::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}", 0..3),
                prop::collection::vec("(=/|/|~\\^/)([ab]{1,2}(/[ab]){0,3}/?)?", 0..3),
                prop::sample::select(vec!["", "", "GET", "POST"]),
            ),
            0..12,
        ),
        host in "[ab](\\.[ab]){0,3}",
        path in "/[ab]{0,2}(/[ab]{0,1}){0,4}",
    ) {
        let specs: Vec<MatchSpec> =
            routes.iter().map(|(hosts, paths, more)| spec(&hosts.join(" "), &paths.join(" "), more)).collect();
        let router = Router::new(specs.iter().cloned().enumerate().map(|(i, spec)| (spec, Arc::new(i)))).unwrap();
        let request = get(&path);
        let sought = Sought { host: &host, path: path.as_bytes(), request: &request, client: None };
        prop_assert_eq!(router.find(&sought).map(|route| **route), plainly(&specs, &sought));
    }
}

/// What a search costs with few routes and with many. Run it with
/// `cargo test --release -p wmproxy-http router -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn a_search_costs_the_same_with_ten_and_with_ten_thousand_routes() {
    for count in [10, 100, 1_000, 10_000] {
        let spec = |i: usize| match i % 3 {
            0 => spec(&format!("host{i}.example.com"), "", ""),
            1 => spec("www.example.com", &format!("/app{i}/v1"), ""),
            _ => spec("*.example.com", &format!("/part{i}"), "GET"),
        };
        let router = Router::new((0..count).map(|i| (spec(i), Arc::new(i)))).unwrap();
        let wanted = count - count % 3 - 2;
        let path = format!("/app{wanted}/v1/users/42");
        for (host, path) in [("www.example.com", path.as_str()), ("www.example.com", "/nothing/here")] {
            let request = get(path);
            let sought = Sought { host, path: path.as_bytes(), request: &request, client: None };
            assert_eq!(router.find(&sought).is_some(), path != "/nothing/here");
            let (runs, began) = (1_000_000, Instant::now());
            for _ in 0..runs {
                std::hint::black_box(router.find(std::hint::black_box(&sought)));
            }
            println!("{count} routes, {path}: {} ns", began.elapsed().as_nanos() / runs);
        }
    }
}
