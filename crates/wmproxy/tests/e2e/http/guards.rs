//! Filters that keep requests out: passwords, and limits of what one client may ask.

use std::time::{Duration, Instant};

use wmproxy_testkit::http::{Message, Reply};
use wmproxy_testkit::{Client, Gate, Origin, Proxy};

use super::{http, one_route, route};
use crate::{setup, start};

/// The password is `open sesame`, hashed by bcrypt with the least cost.
const USERS: &str = "alice:$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu\n";

fn ask(proxy: &Proxy, fields: &str) -> Message {
    Client::once(&proxy.tcp("h"), &format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"))
}

#[test]
fn a_password_is_asked_for() {
    let lines = "respond = { body = \"hello {user}\" }\nbasic_auth = { users_file = \"{dir}/users\", realm = \"private\" }";
    let proxy = setup(&one_route(lines)).file("users", USERS).start();
    let answer = ask(&proxy, "");
    assert_eq!(answer.status(), 401);
    let challenge = answer.head.get("www-authenticate").unwrap();
    assert!(challenge.starts_with("Basic ") && challenge.contains("realm=\"private\""), "{challenge}");
    // alice:open sesame
    let good = "Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n";
    for _ in 0..3 {
        assert_eq!(ask(&proxy, good).text(), "hello alice");
    }
    for bad in [
        // alice:wrong, bob:open sesame, alice, nothing, no base64, another scheme
        "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n",
        "Authorization: Basic Ym9iOm9wZW4gc2VzYW1l\r\n",
        "Authorization: Basic YWxpY2U=\r\n",
        "Authorization: Basic\r\n",
        "Authorization: Basic ???\r\n",
        "Authorization: Bearer YWxpY2U6b3BlbiBzZXNhbWU=\r\n",
        "Authorization: Basic YWxpY2U6d3Jvbmc=\r\nAuthorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n",
    ] {
        assert_eq!(ask(&proxy, bad).status(), 401, "{bad}");
    }
}

#[test]
fn a_password_goes_no_further_than_to_us() {
    let origin = Origin::named("o");
    let lines =
        format!("reverse_proxy = \"{}\"\nbasic_auth = {{ users_file = \"{{dir}}/users\" }}", origin.addr());
    let proxy = setup(&one_route(&lines)).file("users", USERS).start();
    assert_eq!(ask(&proxy, "Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n").status(), 200);
    assert!(!origin.request().head.has("authorization"));
}

#[test]
fn requests_beyond_the_rate_are_refused_and_told_when_to_come_again() {
    let lines = "respond = { body = \"ok\" }\nlimit_requests = { key = \"{header:X-Key}\", rate = \"6/m\", burst = 2 }";
    let proxy = start(&one_route(lines));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let answer = ask(&proxy, "X-Key: a\r\n");
        if answer.status() == 429 {
            let wait: u64 = answer.head.get("retry-after").unwrap().parse().unwrap();
            assert!((1..=10).contains(&wait), "{wait}");
        }
        statuses.push(answer.status());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
    // Another key is another account.
    assert_eq!(ask(&proxy, "X-Key: b\r\n").status(), 200);
}

#[test]
fn requests_of_a_burst_may_wait_instead() {
    let lines = "respond = { body = \"ok\" }\nlimit_requests = { rate = \"10/s\", burst = 5, delay = true, status = 503 }";
    let proxy = start(&one_route(lines));
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(ask(&proxy, "").status(), 200);
    }
    assert!(begun.elapsed() >= Duration::from_millis(350), "{:?}", begun.elapsed());
}

#[test]
fn a_client_has_so_many_requests_at_once() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        wait.wait();
        call.reply(&Reply::new(200, "ok"))
    });
    let lines = format!("reverse_proxy = \"{}\"\nlimit_connections = {{ max = 2 }}", origin.addr());
    let proxy = start(&one_route(&lines));
    let addr = proxy.tcp("h");
    let mut held: Vec<Client> = (0..2).map(|_| Client::connect(&addr)).collect();
    for client in &mut held {
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    }
    origin.wait_requests(2);
    assert_eq!(ask(&proxy, "").status(), 429);
    gate.open();
    for client in &mut held {
        assert_eq!(client.response().status(), 200);
    }
    // Idle connections do not count.
    assert_eq!(ask(&proxy, "").status(), 200);
}

#[test]
fn a_response_keeps_to_its_rate() {
    let origin = Origin::start(|call| call.reply(&Reply::new(200, vec![b'x'; 1 << 20])));
    let routes = [
        route(&format!("path = \"/slow\"\nreverse_proxy = \"{}\"\nrate_limit = \"1m/s\"", origin.addr())),
        route(&format!("reverse_proxy = \"{}\"", origin.addr())),
    ]
    .concat();
    let proxy = start(&http("", &routes));
    let timed = |path: &str| {
        let begun = Instant::now();
        assert_eq!(Client::connect(&proxy.tcp("h")).get(path).body.len(), 1 << 20);
        begun.elapsed()
    };
    // A busy machine may be slow by itself, but not each time.
    assert!((0..10).any(|_| timed("/fast") < Duration::from_millis(500)));
    let slow = timed("/slow");
    assert!((Duration::from_millis(500)..Duration::from_secs(15)).contains(&slow), "{slow:?}");
}
