//! Which peer gets a request, and on which connection.

use wmproxy_testkit::http::Reply;
use wmproxy_testkit::{Addr, Client, Origin, Proxy};

use super::one_route;
use crate::{group, start};

fn config(servers: &[String], more: &str) -> String {
    format!("{}{}", group("g", servers, more), one_route("reverse_proxy = \"g\""))
}

/// Origins that say their number, and their addresses.
fn numbered(count: usize) -> (Vec<Origin>, Vec<String>) {
    let origins: Vec<_> = (0..count).map(|n| Origin::named(&n.to_string())).collect();
    let addresses = origins.iter().map(|origin| origin.addr().to_string()).collect();
    (origins, addresses)
}

/// Who answers a request with these further lines in its head, and the cookie that comes with it.
fn ask(addr: &Addr, path: &str, lines: &str) -> (String, Option<String>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{lines}\r\n");
    let response = Client::once(addr, &request);
    (response.text().to_owned(), response.head.get("set-cookie").map(str::to_owned))
}

fn metric(proxy: &Proxy, name: &str) -> f64 {
    proxy.metrics().sum(name, &[("group", "g")])
}

#[test]
fn a_request_goes_by_what_its_upstream_names() {
    for (key, other) in [
        ("header:X-User", "X-Other: 9\r\n"),
        ("cookie:user", "Cookie: other=9\r\n"),
        ("query:user", ""),
        ("path", ""),
    ] {
        let (_origins, servers) = numbered(4);
        let proxy = start(&config(&servers, &format!("balance = \"hash\"\nhash_key = \"{key}\"")));
        let addr = proxy.tcp("h");
        let of = |user: usize| match key {
            "header:X-User" => ask(&addr, "/", &format!("x-user: {user}\r\n{other}")).0,
            "cookie:user" => ask(&addr, "/", &format!("Cookie: a=b; user={user}\r\n{other}")).0,
            "query:user" => ask(&addr, &format!("/?a=b&user={user}"), "").0,
            _ => ask(&addr, &format!("/{user}?q={}", user % 2), "").0,
        };
        let first: Vec<_> = (0..24).map(of).collect();
        assert_eq!((0..24).map(of).collect::<Vec<_>>(), first, "{key}");
        let mut seen = first;
        seen.sort();
        seen.dedup();
        assert!(seen.len() > 1, "{key}: all of them at {seen:?}");
        if key != "path" {
            // Who sends none of it is known by the address.
            let without: Vec<_> = (0..6).map(|n| ask(&addr, &format!("/{n}"), other).0).collect();
            assert!(without.iter().all(|peer| *peer == without[0]), "{key}: {without:?}");
        }
    }
}

#[test]
fn a_client_stays_with_its_peer_by_the_cookie_that_it_got() {
    let (_origins, servers) = numbered(3);
    let sticky = "sticky = { cookie = \"route\" }";
    let proxy = start(&config(&servers, sticky));
    let addr = proxy.tcp("h");
    let mut cookies = Vec::new();
    for _ in 0..3 {
        let (peer, cookie) = ask(&addr, "/", "");
        let cookie = cookie.expect("a new client gets one");
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; SameSite=Lax; HttpOnly");
        assert!(pair.starts_with("route=") && servers.iter().all(|server| !pair.contains(server)), "{pair}");
        cookies.push((peer, format!("Cookie: a=b; {pair}\r\n")));
    }
    let stays = |addr: &Addr, cookies: &[(String, String)]| {
        for (peer, cookie) in cookies {
            for _ in 0..3 {
                assert_eq!(ask(addr, "/", cookie), (peer.clone(), None));
            }
        }
    };
    stays(&addr, &cookies);
    let (_, forged) = ask(&addr, "/", "Cookie: route=AAAAAAAAAAAAAAAA\r\n");
    assert!(forged.is_some());

    // One drains: its clients stay, and nobody new comes.
    let draining: usize = cookies[0].0.parse().unwrap();
    let tables = servers
        .iter()
        .enumerate()
        .map(|(n, server)| format!("{{ address = \"{server}\", drain = {} }}", n == draining));
    let tables = tables.collect::<Vec<_>>().join(", ");
    let rest = one_route("reverse_proxy = \"g\"");
    proxy.reload_with(&format!("[upstream.g]\nservers = [{tables}]\n{sticky}\n{rest}"));
    stays(&addr, &cookies);
    for _ in 0..6 {
        assert_ne!(ask(&addr, "/", "").0, cookies[0].0);
    }
    // And then it is gone: its clients get another, and a cookie that says which.
    let left: Vec<String> = (0..3).filter(|n| *n != draining).map(|n| servers[n].clone()).collect();
    proxy.reload_with(&config(&left, sticky));
    let (peer, cookie) = ask(&addr, "/", &cookies[0].1);
    assert_ne!(peer, cookies[0].0);
    let pair = cookie.expect("a new one").split("; ").next().unwrap().to_owned();
    assert_eq!(ask(&addr, "/", &format!("Cookie: {pair}\r\n")), (peer, None));
}

#[test]
fn a_status_that_is_a_failure_ejects_and_is_passed_on_all_the_same() {
    let (busy, good) = (Origin::start(|call| call.reply(&Reply::new(503, "busy"))), Origin::named("good"));
    let servers = [busy.addr().to_string(), good.addr().to_string()];
    let more = "fail_status = \"502-504\"\nmax_fails = 2\nfail_timeout = \"1h\"";
    let proxy = start(&config(&servers, more));
    proxy.expect_warn("ejected");
    let mut client = Client::connect(&proxy.tcp("h"));
    let statuses: Vec<u16> = (0..12).map(|_| client.get("/").status()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 2, "{statuses:?}");
    let peer = busy.addr().to_string();
    let labels = [("group", "g"), ("peer", peer.as_str()), ("kind", "status")];
    assert_eq!(proxy.metrics().sum("wmproxy_peer_answer_errors_total", &labels), 2.0);
}

#[test]
fn connections_are_counted_and_forgotten_with_their_peer() {
    let origin = Origin::named("o");
    let servers = [origin.addr().to_string()];
    let proxy = start(&format!("workers = 1\n{}", config(&servers, "")));
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..10 {
        assert_eq!(client.get("/").text(), "o");
    }
    assert_eq!(metric(&proxy, "wmproxy_upstream_connections_opened_total"), 1.0);
    assert_eq!(metric(&proxy, "wmproxy_upstream_connections_reused_total"), 9.0);
    assert_eq!(metric(&proxy, "wmproxy_upstream_idle_connections"), 1.0);
    // The same peers in another way: what was made before is used no more.
    proxy.reload_with(&format!("workers = 1\n{}", config(&servers, "dscp = \"cs1\"")));
    assert_eq!(client.get("/").text(), "o");
    assert_eq!(metric(&proxy, "wmproxy_upstream_connections_opened_total"), 2.0);
}

#[test]
fn nothing_is_kept_where_that_is_asked_for() {
    let origin = Origin::named("o");
    let proxy = start(&config(&[origin.addr().to_string()], "keepalive = { max_idle = 0 }"));
    let mut client = Client::connect(&proxy.tcp("h"));
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "o");
    }
    assert_eq!(origin.backend().accepted(), 3);
}
