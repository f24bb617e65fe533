//! Which route a request takes.

use wmproxy_testkit::exec::run_in;
use wmproxy_testkit::{Client, Proxy, TempDir};

use super::{http, route};
use crate::{BIN, start};

/// A route that says its name.
fn says(name: &str, lines: &str) -> String {
    route(&format!("{lines}\nrespond = {{ body = \"{name}\" }}"))
}

/// Who answers a request with this target and these lines; `404` where nobody does.
fn who(proxy: &Proxy, target: &str, lines: &str) -> String {
    let host = if lines.to_lowercase().contains("host:") { "" } else { "Host: any.test\r\n" };
    let answer = Client::once(&proxy.tcp("h"), &format!("GET {target} HTTP/1.1\r\n{host}{lines}\r\n"));
    if answer.status() == 200 { answer.text().to_owned() } else { answer.status().to_string() }
}

#[test]
fn the_most_specific_host_goes_first() {
    let routes = [
        says("any", ""),
        says("wild", "host = [\"*.example.com\"]"),
        says("deep", "host = \"*.b.example.com\""),
        says("exact", "host = [\"a.example.com\", \"example.com\"]"),
    ]
    .concat();
    let proxy = start(&http("", &routes));
    for (host, name) in [
        ("a.example.com", "exact"),
        ("A.EXAMPLE.COM", "exact"),
        ("a.example.com:8080", "exact"),
        ("a.example.com.", "exact"),
        ("example.com", "exact"),
        ("x.example.com", "wild"),
        ("x.y.example.com", "wild"),
        ("x.b.example.com", "deep"),
        ("b.example.com", "wild"),
        ("notexample.com", "any"),
        ("example.com.evil.test", "any"),
        ("127.0.0.1", "any"),
        ("[::1]:80", "any"),
    ] {
        assert_eq!(who(&proxy, "/", &format!("Host: {host}\r\n")), name, "{host}");
    }
}

#[test]
fn a_miss_at_a_host_falls_back_to_routes_of_any_host() {
    let routes =
        [says("health", "path = \"=/healthz\""), says("site", "host = \"a.test\"\npath = \"/site\"")]
            .concat();
    let proxy = start(&http("", &routes));
    assert_eq!(who(&proxy, "/healthz", "Host: a.test\r\n"), "health");
    assert_eq!(who(&proxy, "/site", "Host: a.test\r\n"), "site");
    assert_eq!(who(&proxy, "/else", "Host: a.test\r\n"), "404");
    assert_eq!(who(&proxy, "/site", "Host: b.test\r\n"), "404");
}

#[test]
fn a_prefix_ends_at_a_slash() {
    let proxy = start(&http("", &[says("api", "path = \"/api\""), says("root", "path = \"=/\"")].concat()));
    for path in ["/api", "/api/", "/api/x", "/api?x", "/x/../api/y", "/%61pi/x", "//api"] {
        let expected = if path == "//api" { ["404", "api"] } else { ["api", "api"] };
        assert!(expected.contains(&who(&proxy, path, "").as_str()), "{path}: {}", who(&proxy, path, ""));
    }
    for path in ["/apis", "/API", "/apifoo/x", "/x/api", "/api%2Fx/../../other"] {
        let answer = who(&proxy, path, "");
        // What leads above the root is no path.
        assert!(["404", "400"].contains(&answer.as_str()), "{path}: {answer}");
    }
    assert_eq!(who(&proxy, "/", ""), "root");
    assert_eq!(who(&proxy, "/?a=b", ""), "root");
}

#[test]
fn a_route_is_not_walked_around_by_dots_and_escapes() {
    let routes = [says("secret", "path = \"/admin\""), says("rest", "")].concat();
    let proxy = start(&http("", &routes));
    for path in [
        "/admin",
        "/admin/",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/%61dmin",
        "/a%64min/x",
        "/../admin",
        "/x/y/../../admin/z",
    ] {
        let answer = who(&proxy, path, "");
        let expected = if path.starts_with("/..") { ["secret", "400"] } else { ["secret", "secret"] };
        assert!(expected.contains(&answer.as_str()), "{path}: {answer}");
    }
}

#[test]
fn among_routes_of_a_host_the_first_in_the_file_wins() {
    let routes = [
        says("exact", "path = \"=/a/b\""),
        says("regex", "path = \"~^/a/[0-9]+$\""),
        says("prefix", "path = \"/a\""),
        says("longer but later", "path = \"/a/long\""),
        says("either", "path = [\"/x\", \"=/y\"]"),
        says("rest", ""),
    ]
    .concat();
    let proxy = start(&http("", &routes));
    proxy.expect_warn("never taken");
    for (path, name) in [
        ("/a/b", "exact"),
        ("/a/b/", "prefix"),
        ("/a/12", "regex"),
        ("/a/12x", "prefix"),
        ("/a/long/er", "prefix"),
        ("/x/1", "either"),
        ("/y", "either"),
        ("/y/1", "rest"),
    ] {
        assert_eq!(who(&proxy, path, ""), name, "{path}");
    }
}

#[test]
fn methods_fields_queries_and_clients_decide_too() {
    let routes = [
        says("post", "methods = [\"POST\", \"PUT\"]"),
        says("canary", "headers = { x-canary = \"1\" }"),
        says("agent", "headers = { User-Agent = \"~^curl/\" }"),
        says("token", "headers = { x-token = \"*\" }"),
        says("debug", "query = { debug = \"yes\", level = \"~^[0-9]$\" }"),
        says("far", "client_ip = \"10.0.0.0/8\""),
        says("near", "client_ip = [\"127.0.0.0/8\"]\npath = \"/near\""),
        says("rest", ""),
    ]
    .concat();
    let proxy = start(&http("", &routes));
    let post = Client::once(&proxy.tcp("h"), "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(post.text(), "post");
    for (target, lines, name) in [
        ("/", "X-Canary: 1\r\n", "canary"),
        ("/", "X-Canary: 2\r\n", "rest"),
        ("/", "X-Canary: 2\r\nX-Canary: 1\r\n", "canary"),
        ("/", "User-Agent: curl/8\r\n", "agent"),
        ("/", "User-Agent: not curl/8\r\n", "rest"),
        ("/", "X-Token:\r\n", "token"),
        ("/?debug=yes&level=3", "", "debug"),
        ("/?level=3&debug=%79es", "", "debug"),
        ("/?debug=yes", "", "rest"),
        ("/?debug=yesyes&level=3", "", "rest"),
        ("/near", "", "near"),
        ("/", "", "rest"),
    ] {
        assert_eq!(who(&proxy, target, lines), name, "{target} {lines}");
    }
}

#[test]
fn thousands_of_routes_are_each_found() {
    let routes: String = (0..5_000)
        .map(|number| {
            says(&number.to_string(), &format!("host = \"h{}.test\"\npath = \"/p{number}\"", number % 100))
        })
        .collect();
    let proxy = start(&http("", &routes));
    let mut client = Client::connect(&proxy.tcp("h"));
    for number in (0..5_000).step_by(37) {
        client.send(format!("GET /p{number}/x HTTP/1.1\r\nHost: h{}.test\r\n\r\n", number % 100));
        assert_eq!(client.response().text(), number.to_string());
    }
}

#[test]
fn check_warns_of_a_route_that_can_never_match() {
    let dir = TempDir::new();
    let config = http("", &[says("all", "path = \"/\""), says("never", "path = \"/api\"")].concat());
    dir.write("wmproxy.toml", &config);
    let finished = run_in(dir.path(), BIN, &["check", "-c", "wmproxy.toml"]);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert!(finished.text().contains("earlier one is for all of it"), "{}", finished.text());
}
