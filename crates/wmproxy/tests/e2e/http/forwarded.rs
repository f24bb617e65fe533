//! What the origin learns of the client, and the fields that are between two neighbours only.

use wmproxy_testkit::http::{Message, Reply};
use wmproxy_testkit::{Client, Conn, Origin, Proxy};

use super::{one_route, site, site_with};
use crate::start;

/// Trusts whoever speaks from here.
const TRUSTING: &str = "trusted_proxies = [\"127.0.0.0/8\"]";

fn ask(proxy: &Proxy, fields: &str) -> Message {
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"));
    let response = client.response();
    assert_eq!(response.status(), 200);
    response
}

/// The last request's values of a field, as one list.
fn list(origin: &Origin, name: &str) -> Vec<String> {
    let requests = origin.requests();
    let values = requests.last().unwrap().head.all(name).join(",");
    values.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

#[test]
fn the_origin_is_told_who_asks() {
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    ask(&proxy, "");
    assert_eq!(list(&origin, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(list(&origin, "x-forwarded-proto"), ["http"]);
    assert_eq!(list(&origin, "x-forwarded-host"), ["a.example"]);
    assert_eq!(list(&origin, "via").len(), 1);
    assert!(list(&origin, "via")[0].starts_with("1.1 "), "{:?}", list(&origin, "via"));
}

#[test]
fn strangers_are_not_believed() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), "trusted_proxies = [\"10.0.0.0/8\"]"));
    ask(
        &proxy,
        "X-Forwarded-For: 1.2.3.4\r\nx-forwarded-for: 5.6.7.8\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil.example\r\nForwarded: for=1.2.3.4;proto=https\r\n",
    );
    assert_eq!(list(&origin, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(list(&origin, "x-forwarded-proto"), ["http"]);
    assert_eq!(list(&origin, "x-forwarded-host"), ["a.example"]);
    for item in list(&origin, "forwarded") {
        assert!(!item.contains("1.2.3.4") && !item.contains("https"), "{item}");
    }
}

#[test]
fn trusted_proxies_are_believed_and_added_to_the_list() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), TRUSTING));
    ask(&proxy, "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example\r\n");
    assert_eq!(list(&origin, "x-forwarded-for"), ["1.2.3.4", "127.0.0.1"]);
    assert_eq!(list(&origin, "x-forwarded-proto"), ["https"]);
    assert_eq!(list(&origin, "x-forwarded-host"), ["b.example"]);
    // Several fields are one list.
    ask(&proxy, "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n");
    assert_eq!(list(&origin, "x-forwarded-for"), ["1.2.3.4", "5.6.7.8", "127.0.0.1"]);
}

#[test]
fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
    let origin = Origin::named("o");
    let routes = "[[http.route]]\nrespond = { body = \"{client_ip}\" }\n";
    let proxy = start(&super::http("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]", routes));
    for (sent, client) in [
        ("1.2.3.4", "1.2.3.4"),
        // Who comes first in the list may have made it up.
        ("9.9.9.9, 1.2.3.4, 10.0.0.1", "1.2.3.4"),
        ("10.0.0.2, 10.0.0.1", "10.0.0.2"),
        ("2001:db8::1", "2001:db8::1"),
        ("no address", "127.0.0.1"),
        ("1.2.3.4, no address", "127.0.0.1"),
        ("", "127.0.0.1"),
    ] {
        let answer = ask(&proxy, &format!("X-Forwarded-For: {sent}\r\n"));
        assert_eq!(answer.text(), client, "{sent:?}");
    }
    drop(origin);
}

#[test]
fn via_names_every_hop() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nVia: 1.0 cache\r\nContent-Length: 0\r\n\r\n");
    let proxy = start(&site(origin.addr()));
    let response = ask(&proxy, "Via: 1.0 fred\r\n");
    let via = list(&origin, "via");
    assert_eq!(via.len(), 2, "{via:?}");
    assert_eq!(via[0], "1.0 fred");
    assert!(response.head.all("via").join(",").starts_with("1.0 cache"), "{response:?}");
}

#[test]
fn fields_for_the_next_hop_go_no_further() {
    let origin = Origin::says(
        "HTTP/1.1 200 OK\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nX-Other: 2\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = start(&site(origin.addr()));
    let response = ask(
        &proxy,
        "Connection: X-Own, keep-alive, ,Keep-Alive\r\nX-Own: 1\r\nx-own: 2\r\nKeep-Alive: timeout=9\r\n\
         Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nX-Else: 3\r\n",
    );
    for gone in ["x-mine", "keep-alive", "proxy-connection"] {
        assert!(!response.head.has(gone), "{gone}: {response:?}");
    }
    assert_eq!(response.head.get("x-other"), Some("2"));
    let head = origin.request().head;
    for gone in ["x-own", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!head.has(gone), "{gone}: {head:?}");
    }
    assert!(!head.lists("te", "gzip") && !head.lists("connection", "x-own"), "{head:?}");
    assert_eq!(head.get("x-else"), Some("3"));
}

#[test]
fn a_client_can_not_have_our_own_fields_dropped() {
    let origin = Origin::named("o");
    let proxy = start(&site_with(origin.addr(), TRUSTING));
    ask(
        &proxy,
        "Connection: close, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Host, Via, Content-Length\r\n\
         Connection: Forwarded\r\n",
    );
    let head = origin.request().head;
    assert_eq!(head.all("host").len(), 1);
    for ours in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via"] {
        assert!(head.has(ours), "{ours}: {head:?}");
    }
}

#[test]
fn the_host_is_the_clients_or_the_origins_as_it_is_said() {
    let origin = Origin::named("o");
    let addr = origin.addr().to_string();
    for (preserve, host) in [("true", "a.example"), ("false", addr.as_str())] {
        let lines = format!("reverse_proxy = {{ upstream = \"{addr}\", preserve_host = {preserve} }}");
        let proxy = start(&one_route(&lines));
        ask(&proxy, "");
        assert_eq!(list(&origin, "host"), [host]);
        assert_eq!(list(&origin, "x-forwarded-host"), ["a.example"]);
    }
}

#[test]
fn a_proxy_header_tells_the_client_when_its_sender_is_trusted() {
    let origin = Origin::start(|call| {
        let clients = call.head.all("x-forwarded-for").join(",");
        call.reply(&Reply::new(200, clients))
    });
    let proxy = start(&site_with(origin.addr(), "accept_proxy_protocol = [\"127.0.0.0/8\"]"));
    let conn = Conn::connect(&proxy.tcp("h"));
    conn.send(b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 80\r\n");
    let mut client = Client::over(conn);
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "203.0.113.9");
    }
}
