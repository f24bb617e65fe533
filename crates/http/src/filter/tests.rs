use std::future::poll_fn;
use std::sync::Arc;

use super::*;
use crate::options::{EndpointSpec, MatchSpec, RouteOptions};
use crate::testing::{conn, get};

/// The filters of a route that is written so.
fn filters(text: &str, tables: &Tables) -> Filters {
    Filters::new(&route(text), "web/test", tables).unwrap()
}

fn route(text: &str) -> RouteSpec {
    let options: RouteOptions = toml::from_str(text).unwrap();
    RouteSpec {
        name: "test".into(),
        matches: MatchSpec::default(),
        rewrite: options.rewrite(),
        try_paths: options.try_paths.clone(),
        filters: options.filters(),
        endpoint: EndpointSpec::Respond {
            status: 200,
            body: "".parse().unwrap(),
            content_type: "text/plain".into(),
        },
    }
}

/// A request on its way through filters.
struct Visit {
    conn: ConnFacts,
    request: Request,
    facts: Facts,
    response: Response,
    pass: Pass,
}

impl Visit {
    fn new(target: &str) -> Visit {
        let (request, facts) = get(target);
        Visit { conn: conn(), request, facts, response: Response::new(), pass: Pass::default() }
    }

    fn with(mut self, name: &str, value: &str) -> Visit {
        self.request.fields.push(name.as_bytes(), value.as_bytes());
        self
    }

    /// The status that it is refused with; none if it passes.
    async fn status(&mut self, filters: &Filters) -> Option<u16> {
        let Visit { conn, request, facts, response, pass } = self;
        let verdict =
            poll_fn(|cx| filters.poll_request(cx, pass, &mut Turn { conn, request, facts, response })).await;
        (verdict == Verdict::Refuse).then_some(response.status)
    }
}

fn on_runtime<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
}

#[test]
fn a_route_without_filters_changes_nothing() {
    on_runtime(async {
        let (filters, mut visit) =
            (filters("", &Tables::new()), Visit::new("/a?b").with("Authorization", "x"));
        assert_eq!(visit.status(&filters).await, None);
        filters.retarget(None, &visit.conn, &mut visit.request, &visit.facts).unwrap();
        filters.change_request(&visit.conn, &mut visit.request, &visit.facts);
        assert_eq!((visit.request.target(), visit.request.fields.len()), (&b"/a?b"[..], 1));
        assert!(filters.rate().is_none() && filters.error_page(404).is_none());
    });
}

#[test]
fn strangers_are_refused_first() {
    on_runtime(async {
        let tables = Tables::new();
        let filters = filters("allow = [\"10.0.0.0/8\"]\nlimit_requests = { rate = \"1/h\" }", &tables);
        assert_eq!(Visit::new("/").status(&filters).await, Some(403));
        let mut friend = Visit::new("/");
        friend.facts.client = Some(([10, 0, 0, 1], 1).into());
        assert_eq!(friend.status(&filters).await, None);
    });
}

#[test]
fn too_many_are_told_when_to_come_again() {
    on_runtime(async {
        let tables = Tables::new();
        let text = "limit_requests = { rate = \"1/m\", burst = 1, status = 503 }";
        let first = filters(text, &tables);
        assert_eq!(Visit::new("/").status(&first).await, None);
        // A reload in between changes nothing.
        let second = filters(text, &tables);
        drop(first);
        assert_eq!(Visit::new("/").status(&second).await, None);
        let mut third = Visit::new("/");
        assert_eq!(third.status(&second).await, Some(503));
        let after = third.response.fields.get(Known::RetryAfter).unwrap();
        assert!(matches!(after, b"59" | b"60"), "{after:?}");
    });
}

#[test]
fn who_is_over_the_rate_may_wait() {
    on_runtime(async {
        let filters =
            filters("limit_requests = { rate = \"50/s\", burst = 1, delay = true }", &Tables::new());
        let began = std::time::Instant::now();
        assert_eq!(Visit::new("/").status(&filters).await, None);
        assert_eq!(Visit::new("/").status(&filters).await, None);
        assert!(began.elapsed() >= Duration::from_millis(15), "{:?}", began.elapsed());
    });
}

#[test]
fn a_place_is_held_until_the_pass_goes() {
    on_runtime(async {
        let filters = filters("limit_connections = { max = 1 }", &Tables::new());
        let mut first = Visit::new("/");
        assert_eq!(first.status(&filters).await, None);
        assert_eq!(Visit::new("/").status(&filters).await, Some(429));
        first.pass = Pass::default();
        assert_eq!(Visit::new("/").status(&filters).await, None);
    });
}

/// A file of users with `alice` and her password, and what goes with it.
struct Users(std::path::PathBuf);

impl Users {
    fn new(name: &str) -> Users {
        let path = std::env::temp_dir().join(format!("wmproxy-filters-{}-{name}", std::process::id()));
        std::fs::write(&path, format!("alice:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
        Users(path)
    }

    fn guard(&self, text: &str, forward: bool) -> Filters {
        let mut route = route(text);
        let users = crate::options::UsersSpec::File(self.0.clone());
        route.filters.basic_auth = Some(crate::options::AuthSpec { users, realm: "r".into(), forward });
        Filters::new(&route, "web/test", &Tables::new()).unwrap()
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn a_name_and_a_password_open_the_door() {
    on_runtime(async {
        let users = Users::new("door");
        let filters = users.guard("request_headers = { set = { X-User = \"{user}\" } }", false);
        let mut nobody = Visit::new("/");
        assert_eq!(nobody.status(&filters).await, Some(401));
        assert!(nobody.response.fields.has(Known::WwwAuthenticate));
        let wrong = auth::authorization("alice", "wrong");
        assert_eq!(Visit::new("/").with("Authorization", &wrong).status(&filters).await, Some(401));
        let right = auth::authorization("alice", "secret");
        for _ in 0..2 {
            let mut alice = Visit::new("/").with("Authorization", &right);
            assert_eq!(alice.status(&filters).await, None);
            assert_eq!(alice.facts.user.as_deref(), Some("alice"));
            filters.change_request(&alice.conn, &mut alice.request, &alice.facts);
            let line = format!("{:?}", alice.request.fields);
            assert_eq!(line, "[X-User: alice]", "the password stays here");
        }
        let mut forwarded = Visit::new("/").with("Authorization", &right);
        let forwarding = users.guard("", true);
        assert_eq!(forwarded.status(&forwarding).await, None);
        forwarding.change_request(&forwarded.conn, &mut forwarded.request, &forwarded.facts);
        assert!(forwarded.request.fields.has(Known::Authorization));
    });
}

#[test]
fn a_limit_by_user_comes_behind_the_door() {
    on_runtime(async {
        let users = Users::new("limit");
        let filters = users.guard("limit_requests = { key = \"{user}\", rate = \"1/h\" }", false);
        let right = auth::authorization("alice", "secret");
        for expected in [None, Some(429)] {
            assert_eq!(Visit::new("/").with("Authorization", &right).status(&filters).await, expected);
        }
        assert_eq!(Visit::new("/").status(&filters).await, Some(401));
    });
}

#[test]
fn a_missing_file_of_users_is_an_error() {
    let mut route = route("");
    let users = crate::options::UsersSpec::File(std::env::temp_dir().join("wmproxy-no-such-file"));
    route.filters.basic_auth = Some(crate::options::AuthSpec { users, realm: "r".into(), forward: false });
    let error = Filters::new(&route, "web/test", &Tables::new()).unwrap_err().to_string();
    assert!(error.starts_with("basic_auth: can't read it"), "{error}");
}

#[test]
fn another_path_is_asked_for() {
    let filters = filters("strip_prefix = \"/api\"\ntry = [\"{path}\", \"/api/x y\"]", &Tables::new());
    let mut visit = Visit::new("/api/a?b");
    let mut target = |path: Option<&[u8]>| {
        filters
            .retarget(path, &visit.conn, &mut visit.request, &visit.facts)
            .map(|()| String::from_utf8(visit.request.target().to_vec()).unwrap())
    };
    assert_eq!(target(None).unwrap(), "/a?b");
    assert_eq!(target(Some(b"/api/c")).unwrap(), "/c?b");
    assert_eq!(target(Some(b"/other path")).unwrap(), "/other%20path?b");
    assert_eq!(target(Some(b"/a/../b")), Err(BadPath));
    assert_eq!(target(Some(b"b")), Err(BadPath));
    assert_eq!(visit.request.asked_target(), b"/api/a?b");
}

#[test]
fn an_error_page_is_the_most_exact_one() {
    let mut route = route("");
    let page = |text: &str| ErrorPage { body: Arc::from(text.as_bytes()), content_type: "text/html" };
    route.filters.error_pages =
        [(PageStatus::Class(5), page("5xx")), (PageStatus::One(503), page("503"))].into();
    let filters = Filters::new(&route, "web/test", &Tables::new()).unwrap();
    for (status, expected) in [(503, Some("503")), (502, Some("5xx")), (404, None), (200, None)] {
        let body = filters.error_page(status).map(|page| std::str::from_utf8(&page.body).unwrap());
        assert_eq!(body, expected, "{status}");
    }
}

#[test]
fn a_response_has_rules_and_is_compressed() {
    on_runtime(async {
        let text = "compress = [\"gzip\"]\nrequest_headers = { remove = \"accept-encoding\" }\n\
                    response_headers = { set = { X-Route = \"{path}\" }, default = { Content-Type = \"text/plain\" } }";
        let (filters, mut visit) =
            (filters(text, &Tables::new()), Visit::new("/a").with("Accept-Encoding", "gzip"));
        assert_eq!(visit.status(&filters).await, None);
        filters.change_request(&visit.conn, &mut visit.request, &visit.facts);
        visit.response.set_status(200);
        let Visit { conn, request, facts, response, pass } = &mut visit;
        let encoder = filters.on_response(pass, &mut Turn { conn, request, facts, response }, true);
        assert!(encoder.is_some());
        let lines = format!("{:?}", response.fields);
        assert_eq!(
            lines,
            "[X-Route: /a, Content-Type: text/plain, Vary: Accept-Encoding, Content-Encoding: gzip]"
        );
    });
}

/// What each filter costs: `cargo test --release -p wmproxy-http measure_filters -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn measure_filters() {
    let users = Users::new("measure");
    let with_auth = users.guard("", false);
    let cases = [
        ("none", ""),
        ("allow", "allow = [\"192.0.2.0/24\", \"10.0.0.0/8\"]"),
        ("limit_requests by client", "limit_requests = { rate = \"1000000000/s\", burst = 1000000 }"),
        (
            "limit_requests by a field",
            "limit_requests = { key = \"{header:User-Agent}\", rate = \"1000000000/s\", burst = 1000000 }",
        ),
        ("limit_connections", "limit_connections = { max = 10 }"),
        ("strip_prefix", "strip_prefix = \"/api\""),
        ("rewrite", "rewrite = [\"^/api/(.*)$\", \"/v2/$1\"]"),
        ("request_headers, one set", "request_headers = { set = { X-Real-IP = \"{client_ip}\" } }"),
        ("request_headers, one remove", "request_headers = { remove = \"cookie\" }"),
        ("compress, to who takes none", "compress = [\"zstd\", \"br\", \"gzip\"]"),
    ];
    let tables = Tables::new();
    let mut all: Vec<_> = cases.iter().map(|(name, text)| (*name, filters(text, &tables))).collect();
    all.push(("basic_auth, remembered", with_auth));
    on_runtime(async {
        for (name, filters) in &all {
            let mut visit = Visit::new("/api/a?b=c")
                .with("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
                .with("Accept-Encoding", "identity");
            let mut fastest = Duration::MAX;
            for _ in 0..50 {
                let mut spent = Duration::ZERO;
                for _ in 0..2000 {
                    visit.request = get("/api/a?b=c").0;
                    visit.request.fields.push(b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0)");
                    let right = auth::authorization("alice", "secret");
                    visit.request.fields.push(b"Authorization", right.as_bytes());
                    let began = std::time::Instant::now();
                    visit.pass = Pass::default();
                    assert_eq!(visit.status(filters).await, None);
                    filters.retarget(None, &visit.conn, &mut visit.request, &visit.facts).unwrap();
                    filters.change_request(&visit.conn, &mut visit.request, &visit.facts);
                    spent += began.elapsed();
                }
                fastest = fastest.min(spent / 2000);
            }
            println!("{name}: {fastest:?}");
        }
    });
}
